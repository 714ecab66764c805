//! Softmax, PReLU and dropout.

use candle_core::shape::Dim;
use candle_core::{Result, Tensor};

use super::rule::attach;
use super::sum_like;
use crate::number::{Formula, Number, evaluate};

pub(crate) fn softmax(x: &Tensor, axis: impl Dim + Copy) -> Result<Tensor> {
    if x.elem_count() == 0 {
        return Ok(x.clone());
    }
    let powers = x.broadcast_sub(&x.detach().max_keepdim(axis)?)?.exp()?;
    powers.broadcast_div(&powers.sum_keepdim(axis)?)
}

pub(crate) fn log_softmax(x: &Tensor, axis: impl Dim + Copy) -> Result<Tensor> {
    if x.elem_count() == 0 {
        return Ok(x.clone());
    }
    let shifted = x.broadcast_sub(&x.detach().max_keepdim(axis)?)?;
    shifted.broadcast_sub(&shifted.exp()?.sum_keepdim(axis)?.log()?)
}

/// The second number where `x` is at least 0, else its product with the slope: the value of `[x, x]`, the gradient of
/// `[x, dy]`.
pub(crate) struct Prelu;

impl Formula<2, 1> for Prelu {
    #[inline(always)]
    fn of<V: Number>(&self, [x, of]: [V; 2], [slope]: [V; 1]) -> V {
        V::select(x.at_least(0.0), || of.clone(), || slope * of.clone())
    }
}

/// What each element adds to the gradient of the slope.
pub(crate) struct PreluSlope;

impl Formula<2, 0> for PreluSlope {
    #[inline(always)]
    fn of<V: Number>(&self, [x, dy]: [V; 2], []: [V; 0]) -> V {
        let zero = dy.constant(0.0);
        V::select(x.at_least(0.0), || zero, || dy * x.clone())
    }
}

pub(crate) fn prelu(x: &Tensor, slope: &Tensor, base_axis: usize) -> Result<Tensor> {
    let mut dims = vec![1; x.rank()];
    if slope.elem_count() != 1 {
        dims[base_axis] = slope.elem_count();
    }
    let (arg, w) = (x.detach(), slope.detach().reshape(dims)?);
    let y = evaluate(&Prelu, [&arg, &arg], [&w])?;
    let slope_shape = slope.shape().clone();
    attach("prelu", &[x, slope], &y, move |dy, needed| {
        let dx = || evaluate(&Prelu, [&arg, dy], [&w]);
        let dw = || sum_like(&evaluate(&PreluSlope, [&arg, dy], [])?, &w)?.reshape(&slope_shape);
        Ok(vec![needed[0].then(dx).transpose()?, needed[1].then(dw).transpose()?])
    })
}

/// `kept` says of each element, in row-major order, whether it is kept.
pub(crate) fn dropout(x: &Tensor, kept: impl Iterator<Item = bool>, scale: f64) -> Result<Tensor> {
    let kept = Tensor::from_vec(kept.map(u8::from).collect(), x.dims(), x.device())?;
    kept.where_cond(&(x * scale)?, &x.zeros_like()?)
}
