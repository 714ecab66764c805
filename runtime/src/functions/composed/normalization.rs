//! Batch normalization and mean subtraction.

use candle_core::{Result, Tensor};

use super::rule::{Gradients, attach};
use crate::device::{Arguments, fused};
use crate::kernels::cuda::Kernel;

/// The output, the mean and the variance; `beta` and `gamma` have size 1 on the axes that are reduced.
pub(crate) fn by_batch(x: &Tensor, beta: &Tensor, gamma: &Tensor, eps: f64) -> Result<[Tensor; 3]> {
    let (arg, scale) = (x.detach(), gamma.detach());
    let n = (arg.elem_count() / scale.elem_count()) as f64;
    let mean = (sum_like(&arg, &scale)? / n)?;
    let var = (sum_like(&arg.broadcast_sub(&mean)?.sqr()?, &scale)? / n)?;
    let inv_std = (&var + eps)?.sqrt()?.recip()?;
    let y = normalized(&arg, &mean, &(&scale * &inv_std)?, beta)?;

    let rule = Rule { arg: arg.clone(), gamma: scale, mean: mean.clone(), inv_std, coupled: true };
    let y =
        attach("batch_normalization", &[x, beta, gamma], &y, move |dy, needed| rule.gradients(dy, needed))?;
    let input = arg.clone();
    let batch_mean = attach("batch_mean", &[x], &mean, move |dm, _| {
        Ok(vec![Some((dm / n)?.broadcast_as(input.shape())?.contiguous()?)])
    })?;
    let var = attach("batch_variance", &[x], &var, move |dv, _| {
        Ok(vec![Some(arg.broadcast_sub(&mean)?.broadcast_mul(&(dv * (2.0 / n))?)?)])
    })?;
    Ok([y, batch_mean, var])
}

/// The statistics are constants.
pub(crate) fn by(
    x: &Tensor,
    beta: &Tensor,
    gamma: &Tensor,
    mean: &Tensor,
    var: &Tensor,
    eps: f64,
) -> Result<Tensor> {
    let (arg, gamma_values, mean) = (x.detach(), gamma.detach(), mean.clone());
    let inv_std = (var + eps)?.sqrt()?.recip()?;
    let y = normalized(&arg, &mean, &(&gamma_values * &inv_std)?, beta)?;
    let rule = Rule { arg, gamma: gamma_values, mean, inv_std, coupled: false };
    attach("batch_normalization", &[x, beta, gamma], &y, move |dy, needed| rule.gradients(dy, needed))
}

/// The mean is a constant.
pub(crate) fn subtract_mean(x: &Tensor, mean: &Tensor, factor: f64) -> Result<Tensor> {
    let y = x.detach().broadcast_sub(mean)?;
    attach("subtract_mean", &[x], &y, move |dy, _| Ok(vec![Some((dy * factor)?)]))
}

/// `(x - mean) scale + beta`.
fn normalized(x: &Tensor, mean: &Tensor, scale: &Tensor, beta: &Tensor) -> Result<Tensor> {
    let beta = beta.detach();
    match by_channel("normalize", &[x], &[mean, scale, &beta])? {
        Some(y) => Ok(y),
        None => x.broadcast_sub(mean)?.broadcast_mul(scale)?.broadcast_add(&beta),
    }
}

/// A kernel over tensors like the first of `each`, with numbers for each channel, if it runs here.
fn by_channel(name: &'static str, each: &[&Tensor], channels: &[&Tensor]) -> Result<Option<Tensor>> {
    let (dims, of_channels) = (each[0].dims(), channels[0].dims());
    let kept = || (0..dims.len()).filter(|&axis| of_channels[axis] != 1);
    let (first, end) = (kept().next().unwrap_or(0), kept().next_back().map_or(0, |last| last + 1));
    if kept().count() != end - first {
        return Ok(None); // other axes stand between them
    }
    let inner = dims[end..].iter().product();
    let arguments = Arguments {
        sizes: &[channels[0].elem_count(), inner],
        numbers: &[],
        inputs: &[each, channels].concat(),
    };
    let n = each[0].elem_count();
    fused(Kernel::named(name), n, arguments, n)?.map(|y| y.reshape(dims)).transpose()
}

/// The sum over the axes on which `like` has size 1.
fn sum_like(x: &Tensor, like: &Tensor) -> Result<Tensor> {
    let axes: Vec<usize> = (0..x.rank()).filter(|&axis| like.dims()[axis] != x.dims()[axis]).collect();
    if axes.is_empty() { Ok(x.clone()) } else { x.sum_keepdim(axes) }
}

/// What the backward pass needs to know.
struct Rule {
    arg: Tensor,
    gamma: Tensor,
    mean: Tensor,
    inv_std: Tensor,
    /// Whether the statistics are the batch's own, so that the input acts through them, too.
    coupled: bool,
}

impl Rule {
    fn gradients(&self, dy: &Tensor, needed: &[bool]) -> Result<Gradients> {
        let Self { arg, gamma, mean, inv_std, coupled } = self;
        let sum = sum_like(dy, gamma)?;
        let products = match by_channel("centred_product", &[dy, arg], &[mean])? {
            Some(products) => products,
            None => (dy * arg.broadcast_sub(mean)?)?,
        };
        let moment = sum_like(&products, gamma)?;
        let mut dx = None;
        if needed[0] {
            let scale = (gamma * inv_std)?;
            let n = (arg.elem_count() / gamma.elem_count()) as f64;
            let (shift, slope) = match coupled {
                true => ((&sum / n)?, ((&moment * inv_std.sqr()?)? / n)?),
                false => (sum.zeros_like()?, sum.zeros_like()?),
            };
            dx = Some(match by_channel("normalize_gradient", &[dy, arg], &[mean, &scale, &shift, &slope])? {
                Some(dx) => dx,
                None if *coupled => {
                    let through_var = arg.broadcast_sub(mean)?.broadcast_mul(&slope)?;
                    dy.broadcast_sub(&shift)?.sub(&through_var)?.broadcast_mul(&scale)?
                }
                None => dy.broadcast_mul(&scale)?,
            });
        }
        Ok(vec![dx, Some(sum), Some((moment * inv_std)?)])
    }
}
