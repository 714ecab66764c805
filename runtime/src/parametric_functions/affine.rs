//! The fully connected layer.

use candle_core::Tensor;

use super::affine_sizes;
use crate::options::{bias, reparameterized, weights};
use crate::{Axis, Dims, Initializer, Result, Rng, WeightFn, functions, parametric_function};

/// Affine layer, also known as the fully connected layer.
///
/// `y = x W + b`: the axes of the input before `base_axis` are the samples, the others are flattened to one of
/// size `inmaps`.
///
/// # Shapes
/// - input: `(M_1, .., M_B, D_1, .., D_N)` with `B = base_axis`; `inmaps = D_1 · .. · D_N`
/// - output: `(M_1, .., M_B, ..n_outmaps)`
///
/// # Errors
/// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if `base_axis` exceeds the rank of the input;
/// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) if a parameter is registered with another shape.
///
/// # Source
/// NNabla `PF.affine`.
///
/// # Example
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use layerfn::affine;
///
/// let x = Tensor::zeros((8, 3, 4), DType::F32, &Device::Cpu)?;
/// assert_eq!(affine(&x, 5).call()?.dims(), [8, 5]);
/// assert_eq!(affine(&x, (2, 3)).base_axis(2).name("per_row").call()?.dims(), [8, 3, 2, 3]);
/// # Ok::<(), layerfn::Error>(())
/// ```
#[parametric_function(
    scope = "affine",
    options(weights, bias, reparameterized),
    fuses(functions::relu),
    family = Affine,
    multiply_adds = [inp.elem_count(), outmaps],
    params(
        /// Weight matrix.
        W: [inmaps, ..n_outmaps] =
            w_init.unwrap_or_else(|| Initializer::glorot_uniform(inmaps, outmaps, &[])).with_rng(&rng),
        /// Bias vector.
        #[when(with_bias)]
        b: [..n_outmaps] = b_init,
    )
)]
pub fn affine(
    /// Input.
    inp: &Tensor,
    /// Number of outputs per sample, or their shape.
    #[into]
    n_outmaps: Dims,
) -> Result<Tensor> {
    let [inmaps, outmaps] = affine_sizes(inp, base_axis, &n_outmaps)?;
    let (w, b) = super::reparameterized(param!(W), || param!(b), &[apply_w, apply_b])?;
    functions::affine_then(inp, &w, b.as_ref(), base_axis, relu_fused)
}
