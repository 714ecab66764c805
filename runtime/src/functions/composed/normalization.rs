//! Batch normalization and mean subtraction.

use candle_core::{Result, Tensor};

use super::rule::{Gradients, attach};
use super::sum_like;
use crate::number::{Formula, Number, evaluate};

/// `(x - mean) scale + beta`.
pub(crate) struct Normalized;

impl Formula<1, 3> for Normalized {
    #[inline(always)]
    fn of<V: Number>(&self, [x]: [V; 1], [mean, scale, beta]: [V; 3]) -> V {
        (x - mean) * scale + beta
    }
}

/// What an element adds to the sum that the gradients of `gamma` and of the variance are made of.
pub(crate) struct Centred;

impl Formula<2, 1> for Centred {
    #[inline(always)]
    fn of<V: Number>(&self, [dy, x]: [V; 2], [mean]: [V; 1]) -> V {
        dy * (x - mean)
    }
}

/// The gradient of the input: `mean_dy` and `slope` are what comes through the mean and the variance, 0 where these are
/// constants.
pub(crate) struct InputGradient;

impl Formula<2, 4> for InputGradient {
    #[inline(always)]
    fn of<V: Number>(&self, [dy, x]: [V; 2], [mean, scale, mean_dy, slope]: [V; 4]) -> V {
        scale * (dy - mean_dy - (x - mean) * slope)
    }
}

/// The output, the mean and the variance; `beta` and `gamma` have size 1 on the axes that are reduced.
pub(crate) fn by_batch(x: &Tensor, beta: &Tensor, gamma: &Tensor, eps: f64) -> Result<[Tensor; 3]> {
    let (arg, scale) = (x.detach(), gamma.detach());
    let n = (arg.elem_count() / scale.elem_count()) as f64;
    let mean = (sum_like(&arg, &scale)? / n)?;
    let var = (sum_like(&arg.broadcast_sub(&mean)?.sqr()?, &scale)? / n)?;
    let inv_std = (&var + eps)?.sqrt()?.recip()?;
    let y = evaluate(&Normalized, [&arg], [&mean, &(&scale * &inv_std)?, &beta.detach()])?;

    let rule = NormalizationGradients { arg, gamma: scale, mean: mean.clone(), inv_std, coupled: true };
    let y =
        attach("batch_normalization", &[x, beta, gamma], &y, move |dy, needed| rule.gradients(dy, needed))?;
    let [mean, var] = statistics(x, mean, &var)?;
    Ok([y, mean, var])
}

/// The means and variances as results whose gradients flow to the input.
fn statistics(x: &Tensor, mean: Tensor, var: &Tensor) -> Result<[Tensor; 2]> {
    let (input, n) = (x.detach(), (x.elem_count() / mean.elem_count().max(1)) as f64);
    let batch_mean = attach("batch_mean", &[x], &mean, move |dm, _| {
        Ok(vec![Some((dm / n)?.broadcast_as(input.shape())?.contiguous()?)])
    })?;
    let input = x.detach();
    let var = attach("batch_variance", &[x], var, move |dv, _| {
        Ok(vec![Some(input.broadcast_sub(&mean)?.broadcast_mul(&(dv * (2.0 / n))?)?)])
    })?;
    Ok([batch_mean, var])
}

/// The output, the means and the variances of the rows of `x (samples, groups, coefficients, inner)`, where `beta` and
/// `gamma` are `(1, groups, coefficients, 1)`. Without `centred` the mean is taken to be 0.
pub(crate) fn by_row(
    x: &Tensor,
    [beta, gamma]: [&Tensor; 2],
    centred: bool,
    eps: f64,
) -> Result<[Tensor; 3]> {
    let (arg, scale) = (x.detach(), gamma.detach());
    let n = (arg.dim(2)? * arg.dim(3)?) as f64;
    let sums = |x: &Tensor| x.sum_keepdim((2, 3));
    let mean = (sums(&arg)? / n)?;
    let mean = if centred { mean } else { mean.zeros_like()? };
    let var = (sums(&arg.broadcast_sub(&mean)?.sqr()?)? / n)?;
    let inv_std = (&var + eps)?.sqrt()?.recip()?;
    let none = mean.zeros_like()?;
    let normalized = |arg: &Tensor, mean: &Tensor, inv_std: &Tensor, none: &Tensor| {
        evaluate(&Normalized, [arg], [mean, inv_std, none])
    };
    let y = normalized(&arg, &mean, &inv_std, &none)?.broadcast_mul(&scale)?.broadcast_add(&beta.detach())?;
    let center = mean.clone();
    let y = attach("normalization", &[x, beta, gamma], &y, move |dy, needed| {
        let dx = || {
            let dy = dy.broadcast_mul(&scale)?;
            let moment = sums(&evaluate(&Centred, [&dy, &arg], [&center])?)?;
            let mean_dy = if centred { (sums(&dy)? / n)? } else { none.clone() };
            let slope = ((moment * inv_std.sqr()?)? / n)?;
            evaluate(&InputGradient, [&dy, &arg], [&center, &inv_std, &mean_dy, &slope])
        };
        let dx = needed[0].then(dx).transpose()?;
        let dgamma = sum_like(&(dy * normalized(&arg, &center, &inv_std, &none)?)?, &scale)?;
        Ok(vec![dx, Some(sum_like(dy, &scale)?), Some(dgamma)])
    })?;
    let [mean, var] = statistics(x, mean, &var)?;
    Ok([y, mean, var])
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
    let y = evaluate(&Normalized, [&arg], [&mean, &(&gamma_values * &inv_std)?, &beta.detach()])?;
    let rule = NormalizationGradients { arg, gamma: gamma_values, mean, inv_std, coupled: false };
    attach("batch_normalization", &[x, beta, gamma], &y, move |dy, needed| rule.gradients(dy, needed))
}

/// The mean is a constant.
pub(crate) fn subtract_mean(x: &Tensor, mean: &Tensor, factor: f64) -> Result<Tensor> {
    let y = x.detach().broadcast_sub(mean)?;
    attach("subtract_mean", &[x], &y, move |dy, _| Ok(vec![Some((dy * factor)?)]))
}

/// What it needs to know.
struct NormalizationGradients {
    arg: Tensor,
    gamma: Tensor,
    mean: Tensor,
    inv_std: Tensor,
    /// Whether the statistics are the batch's own, so that the input acts through them, too.
    coupled: bool,
}

impl NormalizationGradients {
    fn gradients(&self, dy: &Tensor, needed: &[bool]) -> Result<Gradients> {
        let Self { arg, gamma, mean, inv_std, coupled } = self;
        let sum = sum_like(dy, gamma)?;
        let moment = sum_like(&evaluate(&Centred, [dy, arg], [mean])?, gamma)?;
        let dx = || {
            let scale = (gamma * inv_std)?;
            let n = (arg.elem_count() / gamma.elem_count()) as f64;
            let (mean_dy, slope) = match coupled {
                true => ((&sum / n)?, ((&moment * inv_std.sqr()?)? / n)?),
                false => (sum.zeros_like()?, sum.zeros_like()?),
            };
            evaluate(&InputGradient, [dy, arg], [mean, &scale, &mean_dy, &slope])
        };
        let dx = needed[0].then(dx).transpose()?;
        Ok(vec![dx, Some(sum), Some((moment * inv_std)?)])
    }
}
