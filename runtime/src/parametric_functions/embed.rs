//! Embedding of indices.

use candle_core::Tensor;

use crate::{Initializer, Result, WeightFn, check, functions, get_parameter, parametric_function};

/// Embedding: replaces each index by a trainable vector.
///
/// `y[i.., j] = W[x[i..], j]`.
///
/// # Shapes
/// - input: `(I..)`, integers in `0 .. n_inputs`
/// - output: `(I.., n_features)`
///
/// # Errors
/// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if the input does not hold integers or an index is
/// out of range.
///
/// # Source
/// NNabla `PF.embed`, which draws `W` from the same range but does not check the indices.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// use layerfn::embed;
///
/// let words = Tensor::new(&[[1u32, 2, 0], [3, 3, 1]], &Device::Cpu)?;
/// assert_eq!(embed(&words, 4, 8).call()?.dims(), [2, 3, 8]);
/// # Ok::<(), layerfn::Error>(())
/// ```
#[parametric_function(
    scope = "embed",
    family = Embedding,
    multiply_adds = [0],
    params(
        /// Embedding matrix.
        W: [n_inputs, n_features] =
            initializer.unwrap_or_else(|| Initializer::uniform(-f64::sqrt(3.0), f64::sqrt(3.0))),
    )
)]
pub fn embed(
    /// Indices, of an integer type.
    inp: &Tensor,
    /// Number of different indices.
    n_inputs: usize,
    /// Size of the vector of an index.
    n_features: usize,
    /// Initializer of `W`; uniform between −√3 and √3 if absent.
    #[opt(into)]
    initializer: Option<Initializer>,
    /// Function that makes the embedding matrix from `W`; its parameters are in scopes below the layer's.
    #[opt(into)]
    apply_w: Option<WeightFn>,
) -> Result<Tensor> {
    if get_parameter("W").is_none() {
        functions::check_indices(inp, n_inputs)?;
        check::count("n_features", &[inp.elem_count(), n_features])?;
    }
    functions::embed(inp, &WeightFn::apply("apply_w", apply_w.as_ref(), param!(W)?)?)
}
