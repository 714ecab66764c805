//! Batch normalization and mean subtraction.

use candle_core::{Result, Tensor};

use super::rule::{Gradients, attach};

/// The output, the mean and the variance; `beta` and `gamma` have size 1 on the axes that are reduced.
pub(crate) fn by_batch(x: &Tensor, beta: &Tensor, gamma: &Tensor, eps: f64) -> Result<[Tensor; 3]> {
    let (arg, scale) = (x.detach(), gamma.detach());
    let n = (arg.elem_count() / scale.elem_count()) as f64;
    let mean = (sum_like(&arg, &scale)? / n)?;
    let centred = arg.broadcast_sub(&mean)?;
    let var = (sum_like(&centred.sqr()?, &scale)? / n)?;
    let inv_std = (&var + eps)?.sqrt()?.recip()?;
    let y = normalized(&centred, &(&scale * &inv_std)?, beta)?;
    drop(centred); // the rules compute it again: it is as large as the input

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

pub(crate) fn by(
    x: &Tensor,
    beta: &Tensor,
    gamma: &Tensor,
    mean: &Tensor,
    var: &Tensor,
    eps: f64,
) -> Result<Tensor> {
    let (arg, gamma_values, mean) = (x.detach(), gamma.detach(), mean.detach());
    let inv_std = (var.detach() + eps)?.sqrt()?.recip()?;
    let y = normalized(&arg.broadcast_sub(&mean)?, &(&gamma_values * &inv_std)?, beta)?;
    let rule = Rule { arg, gamma: gamma_values, mean, inv_std, coupled: false };
    attach("batch_normalization", &[x, beta, gamma], &y, move |dy, needed| rule.gradients(dy, needed))
}

pub(crate) fn subtract_mean(x: &Tensor, mean: &Tensor, factor: f64) -> Result<Tensor> {
    let y = x.detach().broadcast_sub(&mean.detach())?;
    attach("subtract_mean", &[x], &y, move |dy, _| Ok(vec![Some((dy * factor)?)]))
}

fn normalized(centred: &Tensor, scale: &Tensor, beta: &Tensor) -> Result<Tensor> {
    centred.broadcast_mul(scale)?.broadcast_add(&beta.detach())
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
        let centred = arg.broadcast_sub(mean)?;
        let sum = sum_like(dy, gamma)?;
        let moment = sum_like(&(dy * &centred)?, gamma)?;
        let mut dx = None;
        if needed[0] {
            let mut dy = dy.clone();
            if *coupled {
                let n = (arg.elem_count() / gamma.elem_count()) as f64;
                let slope = ((&moment * inv_std.sqr()?)? / n)?;
                dy = dy.broadcast_sub(&(&sum / n)?)?.sub(&centred.broadcast_mul(&slope)?)?;
            }
            dx = Some(dy.broadcast_mul(&(gamma * inv_std)?)?);
        }
        Ok(vec![dx, Some(sum), Some((moment * inv_std)?)])
    }
}
