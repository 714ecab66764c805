//! Embeddings of positions.

use candle_core::Tensor;

use crate::{Axis, Error, Initializer, Result, check, functions, parametric_function};

/// Learned position embedding: adds a trained row to each position.
///
/// `y = x + W[position]`. NNabla has no such layer.
///
/// # Shapes
/// - input and output: any; the positions are on `axis`, the features on the last axis
///
/// # Errors
/// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if there are more than `max_positions`, or `axis` is the last
/// one.
///
/// # Source
/// Gehring et al., Convolutional Sequence to Sequence Learning, ICML 2017.
///
/// # Example
/// ```
/// use layerfn::prelude::*;
///
/// let net = network! { < learned_position_embedding(32) -> transformer_encode(8, 2) > };
/// let x = Tensor::ones((20, 3, 8), DType::F32, &Device::Cpu)?; // (positions, batch, features)
/// assert_eq!(net.forward(&x)?.dims(), [20, 3, 8]);
/// # Ok::<(), layerfn::Error>(())
/// ```
#[parametric_function(
    scope = "position_embedding",
    family = Embedding,
    multiply_adds = [0],
    params(
        /// A row for each position.
        W: [max_positions, n_features] = w_init,
    )
)]
pub fn learned_position_embedding(
    /// Input.
    inp: &Tensor,
    /// Most positions that a sequence may have.
    max_positions: usize,
    /// The axis of the positions.
    #[opt(into, default = 0)]
    axis: Axis,
    /// Initializer of `W`.
    #[opt(into, default = Initializer::normal(0.02))]
    w_init: Initializer,
) -> Result<Tensor> {
    let (axis, n_features) = features(inp, axis)?;
    check::tensor("max_positions", &[max_positions, n_features], inp.dtype())?;
    if inp.dims()[axis] > max_positions {
        let reason =
            format!("must be at least the positions of the input {:?}, {}", inp.dims(), inp.dims()[axis]);
        return Err(Error::invalid("max_positions", reason, max_positions));
    }
    functions::add_position_embedding(inp, &param!(W)?, axis)
}

/// Rotary position embedding: turns each pair of features by an angle that grows with the position.
///
/// With `a = position · base^(−2 i / features)`, the features `2 i` and `2 i + 1`, `(u, v)`, become `(u cos a −
/// v sin a, u sin a + v cos a)`. The product of a query and a key that are rotated like this depends on the
/// distance between them. NNabla has no such function.
///
/// # Shapes
/// - input and output: any; the positions are on `axis`, the features, an even number, on the last axis
///
/// # Errors
/// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if `axis` is the last axis or does not exist, the
/// number of features is odd, or `base` is not positive.
///
/// # Source
/// Su et al., [RoFormer](https://arxiv.org/abs/2104.09864), 2021.
///
/// # Example
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use layerfn::{rotary_position_embedding, scaled_dot_product_attention};
///
/// let x = Tensor::new(&[[1f64, 0.], [1., 0.]], &Device::Cpu)?;
/// let y = rotary_position_embedding(&x).call()?;
/// assert_eq!(y.to_vec2::<f64>()?, [[1., 0.], [1f64.cos(), 1f64.sin()]]);
/// let x = Tensor::ones((2, 4, 10, 8), DType::F32, &Device::Cpu)?; // (batch, heads, positions, dim)
/// let turned = rotary_position_embedding(&x).call()?;
/// assert_eq!(scaled_dot_product_attention(&turned, &turned, &x).call()?.dims(), [2, 4, 10, 8]);
/// # Ok::<(), layerfn::Error>(())
/// ```
#[parametric_function(family = Embedding, multiply_adds = [0])]
pub fn rotary_position_embedding(
    /// Input.
    inp: &Tensor,
    /// The axis of the positions.
    #[opt(into, default = -2)]
    axis: Axis,
    /// Approximately how many times slower the last pair rotates than the first.
    #[opt(default = 10000.0)]
    base: f64,
) -> Result<Tensor> {
    let (axis, _) = features(inp, axis)?;
    functions::position::rotary_position_embedding(inp, axis, base)
}

/// The axis of the positions, and the size of the last one.
fn features(inp: &Tensor, axis: Axis) -> Result<(usize, usize)> {
    check::input("inp", inp)?;
    let axis = axis.resolve("axis", inp.dims())?;
    match inp.dims()[axis + 1..].last() {
        Some(&n_features) => Ok((axis, n_features)),
        None => Err(Error::invalid("axis", "must not be the last one, that of the features", inp.dims())),
    }
}
