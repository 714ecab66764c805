//! Tensors with mean 0 and variance 1.

use candle_core::Tensor;

use super::arithmetic::{add2, mul2};
use super::normalization::batch_normalization;
use super::parts::of_rank;
use crate::{Axes, Axis, Error, Result, check};

/// Normalizes by the mean and the variance over all axes except `axes`; returns the output, the mean and the
/// biased variance.
///
/// `y = gamma (x - m) / sqrt(v + eps) + beta`, see [`batch_normalization`]. The default of `gamma` is 1, and
/// that of `beta` is 0. NNabla's default for `eps` is 1e-5.
///
/// # Shapes
/// - `beta`, `gamma`: any shape that broadcasts to that of `inp`
/// - mean and variance: as `inp` on `axes`, size 1 on the others
///
/// # Errors
/// As [`batch_normalization`].
///
/// # Source
/// NNabla `F.tensor_normalization`; the statistics are those of `output_stat`.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// let x = Tensor::new(&[[1f32, 3.], [2., 6.]], &Device::Cpu)?;
/// let (y, mean, var) = layerfn::functions::tensor_normalization(&x, 0, None, None, 0.)?;
/// assert_eq!(y.to_vec2::<f32>()?, [[-1., 1.], [-1., 1.]]);
/// assert_eq!([mean.to_vec2::<f32>()?, var.to_vec2::<f32>()?], [[[2.], [4.]], [[1.], [4.]]]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn tensor_normalization(
    inp: &Tensor,
    axes: impl Into<Axes>,
    beta: Option<&Tensor>,
    gamma: Option<&Tensor>,
    eps: f64,
) -> Result<(Tensor, Tensor, Tensor)> {
    let axes = axes.into().resolve("axes", inp.dims())?;
    let size = |(axis, n): (usize, &usize)| if axes.contains(&axis) { *n } else { 1 };
    let dims: Vec<_> = inp.dims().iter().enumerate().map(size).collect();
    check::input("inp", inp)?;
    check::tensor("inp", &dims, inp.dtype())?;
    let zeros = Tensor::zeros(&*dims, inp.dtype(), inp.device())?;
    let ones = zeros.ones_like()?;
    // Coefficients of another shape are applied afterwards.
    let fits = [beta, gamma].into_iter().flatten().all(|given| given.dims() == dims);
    let [shift, scale] = if fits { [beta, gamma] } else { [None, None] };
    let (mut y, mean, var) =
        batch_normalization(inp, shift.unwrap_or(&zeros), scale.unwrap_or(&ones), &axes, eps)?;
    if let Some(gamma) = gamma.filter(|_| !fits) {
        y = mul2(&y, &alike("gamma", gamma, inp)?)?;
    }
    if let Some(beta) = beta.filter(|_| !fits) {
        y = add2(&y, &alike("beta", beta, inp)?)?;
    }
    Ok((y, mean, var))
}

/// A coefficient with as many axes as the input.
fn alike(name: &'static str, given: &Tensor, inp: &Tensor) -> Result<Tensor> {
    if given.rank() > inp.rank() {
        let reason = format!("must be what can be repeated to the shape {:?} of `inp`", inp.dims());
        return Err(Error::invalid(name, reason, given.dims()));
    }
    of_rank(given, inp.rank())
}

/// [`tensor_normalization`] of the weights of each channel; returns the weights, their mean and their biased
/// variance. NNabla's defaults are `channel_axis = 0` and `eps = 1e-5`.
///
/// # Errors
/// As [`batch_normalization`].
///
/// # Source
/// NNabla `F.weight_standardization`; Qiao et al., [Weight Standardization](https://arxiv.org/abs/1903.10520).
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// let w = Tensor::new(&[[1f32, 3.], [2., 6.]], &Device::Cpu)?;
/// let (w, ..) = layerfn::functions::weight_standardization(&w, 0, 0.)?;
/// assert_eq!(w.to_vec2::<f32>()?, [[-1., 1.], [-1., 1.]]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn weight_standardization(
    w: &Tensor,
    channel_axis: impl Into<Axis>,
    eps: f64,
) -> Result<(Tensor, Tensor, Tensor)> {
    tensor_normalization(w, channel_axis.into(), None, None, eps)
}
