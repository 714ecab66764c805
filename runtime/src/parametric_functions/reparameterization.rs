//! Layers whose input is a weight: weight normalization and spectral normalization.

use candle_core::Tensor;

use crate::{Axis, Initializer, Result, check, functions, is_training, parametric_function};

/// Weight normalization: a weight as a direction and a length that is learned apart.
///
/// `y = g · w / √(Σ w² + eps)`, with a sum and a `g` for each index of the axis `dim`. The default of `g` makes
/// the layer the identity.
///
/// It is meant for `apply_w` of other layers, and keeps its parameter in a scope below theirs.
///
/// # Shapes
/// - `w` and output: any
///
/// # Errors
/// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if `w` has no axis `dim`.
///
/// # Source
/// NNabla `PF.weight_normalization`, which crashes for a negative `dim`; Salimans & Kingma,
/// [Weight Normalization](https://arxiv.org/abs/1602.07868).
///
/// # Example
/// ```
/// use layerfn::prelude::*;
///
/// let x = Tensor::ones((8, 3), DType::F32, &Device::Cpu)?;
/// let y = affine(&x, 4).apply_w(|w: &Tensor| weight_normalization(w).dim(1).call()).call()?;
/// assert_eq!(y.dims(), [8, 4]);
/// assert_eq!(get_parameters().paths().collect::<Vec<_>>(), ["affine/W", "affine/wn/g", "affine/b"]);
/// # Ok::<(), layerfn::Error>(())
/// ```
#[parametric_function(
    scope = "wn",
    family = Normalization,
    multiply_adds = [0],
    params(
        /// Lengths.
        g: [outmaps] = g_init.unwrap_or_else(|| Initializer::from(lengths)),
    )
)]
pub fn weight_normalization(
    /// Weight.
    w: &Tensor,
    /// Axis of the outputs, from the back if negative.
    #[opt(into, default = 0)]
    dim: Axis,
    /// Added to the sum of squares, to avoid a division by zero.
    #[opt(default = 1e-12)]
    eps: f64,
    /// Initializer of `g`; the lengths of `w` if absent.
    #[opt(into)]
    g_init: Option<Initializer>,
) -> Result<Tensor> {
    check::input("w", w)?;
    check::within("eps", eps, 0.0..)?;
    let outmaps = w.dims()[dim.resolve("dim", w.dims())?];
    let now = w.detach();
    let lengths = move |_: &[usize]| functions::weight_norms(&now, dim, eps);
    functions::weight_normalization(w, &param!(g)?, dim, eps)
}

/// Spectral normalization: a weight divided by its largest singular value.
///
/// With the weight as a matrix `W` that has a row for each index of `dim`: `v = Wᵀu / √(|Wᵀu|² + eps)` and `u =
/// Wv / √(|Wv|² + eps)`, repeated `itr` times, then `y = w / (uᵀ W v)`. No gradient flows through `u` and `v`;
/// `u` is kept for the next call, except in test mode.
///
/// It is meant for `apply_w` of other layers, and keeps its parameter in a scope below theirs.
///
/// # Shapes
/// - `w` and output: any
///
/// # Errors
/// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if `w` has no axis `dim` or `itr` is
/// not between 1 and 10,000.
///
/// # Source
/// NNabla `PF.spectral_norm`, which refuses a negative `dim` and has no gradient with `test`; Miyato et al.,
/// [Spectral Normalization](https://arxiv.org/abs/1802.05957).
///
/// # Example
/// ```
/// use layerfn::prelude::*;
///
/// let x = Tensor::ones((2, 3, 5, 5), DType::F32, &Device::Cpu)?;
/// let y = convolution(&x, 4, (3, 3)).apply_w(|w: &Tensor| spectral_norm(w).call()).call()?;
/// assert_eq!(y.dims(), [2, 4, 3, 3]);
/// # Ok::<(), layerfn::Error>(())
/// ```
#[parametric_function(
    scope = "spectral-norm",
    family = Normalization,
    multiply_adds = [itr, 2, w.elem_count()],
    params(
        /// Estimate of the singular vector.
        #[need_grad(false)]
        u: [outmaps] = u_init,
    )
)]
pub fn spectral_norm(
    /// Weight.
    w: &Tensor,
    /// Axis of the outputs, from the back if negative.
    #[opt(into, default = 0)]
    dim: Axis,
    /// Steps of the power method in each call.
    #[opt(default = 1)]
    itr: usize,
    /// Added to the sums of squares, to avoid a division by zero.
    #[opt(default = 1e-12)]
    eps: f64,
    /// Whether `u` stays as it is: true in [`test_mode`](crate::test_mode).
    #[opt(default = !is_training())]
    test: bool,
    /// Initializer of `u`.
    #[opt(into, default = Initializer::normal(1.0))]
    u_init: Initializer,
) -> Result<Tensor> {
    check::input("w", w)?;
    check::within("eps", eps, 0.0..)?;
    functions::check_itr(itr)?;
    let outmaps = w.dims()[dim.resolve("dim", w.dims())?];
    let (y, u) = functions::spectral_norm(w, &param!(u)?, dim, itr, eps)?;
    if !test {
        param!(u = &u)?;
    }
    Ok(y)
}
