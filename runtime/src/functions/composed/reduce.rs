//! Reductions of tensors seen as `(outer, len, inner)`.

use candle_core::{DType, Result, Tensor};

use super::rule::attach;
use crate::kernels::Lanes;

/// As `(outer, len, inner)`.
fn by_lanes(x: &Tensor, lanes: Lanes) -> Result<Tensor> {
    let block = lanes.len * lanes.inner;
    x.reshape((x.elem_count().checked_div(block).unwrap_or(0), lanes.len, lanes.inner))
}

/// `scale` times the sum over the axes, which keep size 1.
pub(crate) fn sum(x: &Tensor, axes: &[usize], scale: f64) -> Result<Tensor> {
    let y = if axes.is_empty() { x.clone() } else { x.sum_keepdim(axes)? };
    if scale == 1.0 { Ok(y) } else { y * scale }
}

/// The largest or smallest element of each lane, and its number.
pub(crate) fn extreme(x: &Tensor, lanes: Lanes, largest: bool) -> Result<(Tensor, Tensor)> {
    let x = by_lanes(x, lanes)?;
    let numbers = if x.elem_count() == 0 {
        Tensor::zeros((x.dim(0)?, 1, lanes.inner), DType::U32, x.device())?
    } else {
        let values = x.detach();
        let best = if largest { values.max_keepdim(1)? } else { values.min_keepdim(1)? };
        let last = Tensor::full(lanes.len as u32 - 1, x.dims(), x.device())?;
        let counted = Tensor::arange(0, lanes.len as u32, x.device())?.reshape((1, lanes.len, 1))?;
        let counted = counted.broadcast_as(x.shape())?;
        values.broadcast_eq(&best)?.where_cond(&counted, &last)?.min_keepdim(1)?
    };
    Ok((x.gather(&numbers.contiguous()?, 1)?, numbers))
}

/// The elements at these numbers, as many of each lane as there are.
pub(crate) fn pick(x: &Tensor, lanes: Lanes, numbers: &Tensor) -> Result<Tensor> {
    by_lanes(x, lanes)?.gather(&by_lanes(numbers, lanes)?.contiguous()?, 1)?.reshape(x.shape())
}

/// The product of each lane, half of it with the other half until one is left.
pub(crate) fn product(x: &Tensor, lanes: Lanes, dims: &[usize]) -> Result<Tensor> {
    if lanes.len == 0 {
        return Tensor::ones(dims, x.dtype(), x.device());
    }
    let mut x = by_lanes(x, lanes)?;
    while x.dim(1)? > 1 {
        let (half, rest) = (x.dim(1)? / 2, x.dim(1)? % 2);
        let product = (x.narrow(1, 0, half)? * x.narrow(1, half, half)?)?;
        x = if rest == 1 { Tensor::cat(&[product, x.narrow(1, 2 * half, 1)?], 1)? } else { product };
    }
    x.reshape(dims)
}

/// `(sum of |x|^p)^(1/p)`.
pub(crate) fn norm(x: &Tensor, lanes: Lanes, p: f64, dims: &[usize]) -> Result<Tensor> {
    let arg = by_lanes(&x.detach(), lanes)?;
    let norms = norms(&arg, p)?;
    let input_dims = x.dims().to_vec();
    attach("norm", &[x], &norms.reshape(dims)?, move |dy, _| {
        let dx = slope(&arg, &norms, p)?.broadcast_mul(&dy.reshape(norms.shape())?)?;
        Ok(vec![Some(dx.reshape(&*input_dims)?)])
    })
}

fn norms(x: &Tensor, p: f64) -> Result<Tensor> {
    x.abs()?.powf(p)?.sum_keepdim(1)?.powf(1.0 / p)
}

/// The derivative of the norms by the elements.
fn slope(x: &Tensor, norms: &Tensor, p: f64) -> Result<Tensor> {
    let is_zero = norms.eq(0.0)?;
    let norms = is_zero.where_cond(&norms.ones_like()?, norms)?;
    x.sign()? * x.abs()?.broadcast_div(&norms)?.powf(p - 1.0)?
}

/// `x / max(norm, least)`.
pub(crate) fn normalized(x: &Tensor, lanes: Lanes, p: f64, least: f64) -> Result<Tensor> {
    let arg = by_lanes(&x.detach(), lanes)?;
    let norms = norms(&arg, p)?;
    let divisor = norms.maximum(least)?;
    let y = arg.broadcast_div(&divisor)?;
    let input_dims = x.dims().to_vec();
    attach("norm_normalization", &[x], &y.reshape(x.shape())?, move |dy, _| {
        let dy = dy.reshape(arg.shape())?;
        let counts = norms.gt(least)?.to_dtype(dy.dtype())?;
        let sum = ((&dy * &arg)?.sum_keepdim(1)? * counts)?.div(&divisor)?;
        let dx = (dy - slope(&arg, &norms, p)?.broadcast_mul(&sum)?)?.broadcast_div(&divisor)?;
        Ok(vec![Some(dx.reshape(&*input_dims)?)])
    })
}

/// Running sums along the lanes.
pub(crate) fn running_sums(x: &Tensor, lanes: Lanes, exclusive: bool, reverse: bool) -> Result<Tensor> {
    let y = sums(&x.detach(), lanes, exclusive, reverse)?;
    attach("cumsum", &[x], &y, move |dy, _| Ok(vec![Some(sums(dy, lanes, exclusive, !reverse)?)]))
}

/// Sums of two, of four, .. elements.
fn sums(x: &Tensor, lanes: Lanes, exclusive: bool, reverse: bool) -> Result<Tensor> {
    let mut y = by_lanes(x, lanes)?;
    let shifted = |y: &Tensor, by: usize| match (lanes.len.saturating_sub(by), reverse) {
        (0, _) => y.zeros_like(),
        (rest, false) => y.narrow(1, 0, rest)?.pad_with_zeros(1, by, 0),
        (rest, true) => y.narrow(1, by, rest)?.pad_with_zeros(1, 0, by),
    };
    if exclusive {
        y = shifted(&y, 1.min(lanes.len))?;
    }
    let mut by = 1;
    while by < lanes.len {
        y = (&y + shifted(&y, by)?)?;
        by *= 2;
    }
    y.reshape(x.shape())
}
