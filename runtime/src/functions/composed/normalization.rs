//! Batch normalization and mean subtraction.

use std::sync::Arc;

use candle_core::{DType, Result, Tensor};

use super::rule::{Gradients, attach};
use super::sum_like;
use crate::group::{self, Group};
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

/// The statistics of a batch that calls share.
pub(crate) struct Moments {
    /// The elements that each is of.
    pub(crate) n: f64,
    pub(crate) means: Vec<f64>,
    pub(crate) vars: Vec<f64>,
}

impl Moments {
    /// Those of all calls, from the number of elements of this one and its means and variances.
    pub(crate) fn among(
        group: &dyn Group,
        n: f64,
        own: impl Iterator<Item = (f64, f64)>,
    ) -> crate::Result<Self> {
        let own: Vec<f64> = std::iter::once(n).chain(own.flat_map(|(mean, var)| [mean, var])).collect();
        let parts = group.gather(own)?;
        let n: f64 = parts.iter().map(|part| part[0]).sum();
        let of_parts = |i: usize| parts.iter().map(move |part| (part[0] / n, part[i], part[i + 1]));
        let (mut means, mut vars) = (Vec::new(), Vec::new());
        for i in (1..parts.first().map_or(0, Vec::len)).step_by(2) {
            let mean: f64 = of_parts(i).map(|(share, mean, _)| share * mean).sum();
            means.push(mean);
            vars.push(
                of_parts(i).map(|(share, of_part, var)| share * (var + (of_part - mean).powi(2))).sum(),
            );
        }
        Ok(Self { n, means, vars })
    }
}

/// The output, the mean and the variance, and how many elements these are of; `beta` and `gamma` have size 1 on the axes that are
/// reduced. The statistics are those of all calls of a group, if there is one.
pub(crate) fn by_batch(
    x: &Tensor,
    beta: &Tensor,
    gamma: &Tensor,
    eps: f64,
    group: Option<Arc<dyn Group>>,
) -> Result<([Tensor; 3], f64)> {
    let (arg, scale) = (x.detach(), gamma.detach());
    let mut n = (arg.elem_count() / scale.elem_count()) as f64;
    let mut mean = (sum_like(&arg, &scale)? / n)?;
    let mut var = (sum_like(&arg.broadcast_sub(&mean)?.sqr()?, &scale)? / n)?;
    if let Some(group) = &group {
        let all = Moments::among(&**group, n, numbers(&mean)?.into_iter().zip(numbers(&var)?))?;
        (n, mean, var) = (all.n, like(&mean, all.means)?, like(&var, all.vars)?);
    }
    let inv_std = (&var + eps)?.sqrt()?.recip()?;
    let y = evaluate(&Normalized, [&arg], [&mean, &(&scale * &inv_std)?, &beta.detach()])?;

    let coupling = Coupling { n, group };
    let coupled = Some(coupling.clone());
    let rule = NormalizationGradients { arg, gamma: scale, mean: mean.clone(), inv_std, coupled };
    let y =
        attach("batch_normalization", &[x, beta, gamma], &y, move |dy, needed| rule.gradients(dy, needed))?;
    let [mean, var] = statistics(x, mean, &var, coupling)?;
    Ok(([y, mean, var], n))
}

fn numbers(tensor: &Tensor) -> Result<Vec<f64>> {
    tensor.flatten_all()?.to_dtype(DType::F64)?.to_vec1()
}

/// Numbers as a tensor of the shape and type of another.
fn like(tensor: &Tensor, numbers: Vec<f64>) -> Result<Tensor> {
    Tensor::from_vec(numbers, tensor.dims(), &candle_core::Device::Cpu)?
        .to_dtype(tensor.dtype())?
        .to_device(tensor.device())
}

/// How an input acts through statistics that are its own.
#[derive(Clone)]
pub(crate) struct Coupling {
    /// The elements that each statistic is of.
    pub(crate) n: f64,
    /// The calls whose inputs they are of.
    pub(crate) group: Option<Arc<dyn Group>>,
}

impl Coupling {
    /// The sums of what all calls have.
    pub(crate) fn totals<const N: usize>(&self, own: [&Tensor; N]) -> Result<[Tensor; N]> {
        if self.group.is_none() {
            return Ok(own.map(Tensor::clone));
        }
        let mut values = Vec::new();
        for tensor in own {
            values.extend(numbers(tensor)?);
        }
        let mut sums = &*group::sums(self.group.as_ref(), values)?;
        let mut totals = own.map(Tensor::clone);
        for total in &mut totals {
            let (values, rest) = sums.split_at(total.elem_count());
            (*total, sums) = (like(total, values.to_vec())?, rest);
        }
        Ok(totals)
    }
}

/// The means and variances as results whose gradients flow to the input.
fn statistics(x: &Tensor, mean: Tensor, var: &Tensor, coupling: Coupling) -> Result<[Tensor; 2]> {
    let (input, n, shared) = (x.detach(), coupling.n, coupling.clone());
    let batch_mean = attach("batch_mean", &[x], &mean, move |dm, _| {
        let [dm] = shared.totals([dm])?;
        Ok(vec![Some((dm / n)?.broadcast_as(input.shape())?.contiguous()?)])
    })?;
    let input = x.detach();
    let var = attach("batch_variance", &[x], var, move |dv, _| {
        let [dv] = coupling.totals([dv])?;
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
    let [mean, var] = statistics(x, mean, &var, Coupling { n, group: None })?;
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
    let rule = NormalizationGradients { arg, gamma: gamma_values, mean, inv_std, coupled: None };
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
    /// If the input acts through the statistics, too.
    coupled: Option<Coupling>,
}

impl NormalizationGradients {
    fn gradients(&self, dy: &Tensor, needed: &[bool]) -> Result<Gradients> {
        let Self { arg, gamma, mean, inv_std, coupled } = self;
        let sum = sum_like(dy, gamma)?;
        let moment = sum_like(&evaluate(&Centred, [dy, arg], [mean])?, gamma)?;
        let dx = || {
            let scale = (gamma * inv_std)?;
            let (mean_dy, slope) = match coupled {
                Some(coupling) => {
                    let [sum, moment] = coupling.totals([&sum, &moment])?;
                    ((sum / coupling.n)?, ((moment * inv_std.sqr()?)? / coupling.n)?)
                }
                None => (sum.zeros_like()?, sum.zeros_like()?),
            };
            evaluate(&InputGradient, [dy, arg], [mean, &scale, &mean_dy, &slope])
        };
        let dx = needed[0].then(dx).transpose()?;
        Ok(vec![dx, Some(sum), Some((moment * inv_std)?)])
    }
}
