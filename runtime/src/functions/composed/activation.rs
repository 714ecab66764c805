//! Activations, softmax, PReLU and dropout.
//!
//! Where a branch could overflow, its argument is replaced where the other branch is taken: candle multiplies the
//! slope of a branch that is not taken by 0, and 0 times infinity is NaN.

use candle_core::shape::Dim;
use candle_core::{Result, Tensor};

use crate::functions::activation::{GELU, SELU};

pub(crate) fn relu(x: &Tensor) -> Result<Tensor> {
    x.le(0.0)?.where_cond(&x.zeros_like()?, x) // NaN stays
}

pub(crate) fn leaky_relu(x: &Tensor, alpha: f64) -> Result<Tensor> {
    x.gt(0.0)?.where_cond(x, &(x * alpha)?)
}

pub(crate) fn elu(x: &Tensor, alpha: f64) -> Result<Tensor> {
    let linear = x.ge(0.0)?;
    let below = linear.where_cond(&x.zeros_like()?, x)?;
    linear.where_cond(x, &(exp_m1(&below)? * alpha)?)
}

pub(crate) fn selu(x: &Tensor) -> Result<Tensor> {
    let linear = x.gt(0.0)?;
    let below = linear.where_cond(&x.zeros_like()?, x)?;
    linear.where_cond(x, &(exp_m1(&below)? * SELU.1)?)? * SELU.0
}

pub(crate) fn gelu(x: &Tensor) -> Result<Tensor> {
    let inner = ((x + ((x.sqr()? * x)? * GELU.1)?)? * GELU.0)?;
    (x * 0.5)?.mul(&(inner.tanh()? + 1.0)?)
}

pub(crate) fn silu(x: &Tensor) -> Result<Tensor> {
    x * sigmoid(x)?
}

pub(crate) fn sigmoid(x: &Tensor) -> Result<Tensor> {
    let small = x.abs()?.neg()?.exp()?;
    let normalizer = (&small + 1.0)?.recip()?;
    x.lt(0.0)?.where_cond(&(small * &normalizer)?, &normalizer)
}

pub(crate) fn tanh(x: &Tensor) -> Result<Tensor> {
    x.tanh()
}

pub(crate) fn softplus(x: &Tensor) -> Result<Tensor> {
    positive_part(x)? + ln_1p(&x.abs()?.neg()?.exp()?)?
}

pub(crate) fn hard_sigmoid(x: &Tensor) -> Result<Tensor> {
    let y = x.affine(0.2, 0.5)?;
    let y = y.gt(1.0)?.where_cond(&y.ones_like()?, &y)?;
    y.lt(0.0)?.where_cond(&y.zeros_like()?, &y)
}

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

pub(crate) fn prelu(x: &Tensor, slope: &Tensor, base_axis: usize) -> Result<Tensor> {
    let mut dims = vec![1; x.rank()];
    if slope.rank() > 0 {
        dims[base_axis] = slope.elem_count();
    }
    x.ge(0.0)?.where_cond(x, &x.broadcast_mul(&slope.reshape(dims)?)?)
}

/// `kept` says of each element, in row-major order, whether it is kept.
pub(crate) fn dropout(x: &Tensor, kept: impl Iterator<Item = bool>, scale: f64) -> Result<Tensor> {
    let kept = Tensor::from_vec(kept.map(u8::from).collect(), x.dims(), x.device())?;
    kept.where_cond(&(x * scale)?, &x.zeros_like()?)
}

/// `max(x, 0)` with the slope 1 at 0, NaN staying NaN.
pub(super) fn positive_part(x: &Tensor) -> Result<Tensor> {
    x.lt(0.0)?.where_cond(&x.zeros_like()?, x)
}

/// `log(1 + x)`; the second term is what rounding has taken from `1 + x`.
pub(super) fn ln_1p(x: &Tensor) -> Result<Tensor> {
    let sum = (x + 1.0)?;
    sum.log()? + ((x - (&sum - 1.0)?)? / &sum)?
}

/// `exp(x) - 1` without the cancellation near 0: `tanh(x / 2) (exp(x) + 1)`.
fn exp_m1(x: &Tensor) -> Result<Tensor> {
    (x * 0.5)?.tanh()? * (x.exp()? + 1.0)?
}
