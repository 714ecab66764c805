//! Transforms of weights; values come first, and then [`replace`] gives them their gradient.

use candle_core::{DType, Result, Tensor};

use super::rule::attach;
use crate::device::{Arguments, fused};
use crate::functions::min_max::Steps;
use crate::kernels::cuda::Kernel;

/// `value` in place of `x`, with the gradient of `value` handed to `x` where `passes`; everywhere, if `None`.
pub(crate) fn replace(x: &Tensor, value: &Tensor, passes: Option<Tensor>) -> Result<Tensor> {
    attach("straight_through", &[x], value, move |dy, _| {
        let dx = match &passes {
            None => dy.clone(),
            Some(passes) => passes.where_cond(dy, &dy.zeros_like()?)?,
        };
        Ok(vec![Some(dx)])
    })
}

pub(crate) fn sign(x: &Tensor, of_zero: f64) -> Result<Tensor> {
    let ones = x.ones_like()?;
    let signs = x.gt(0.0)?.where_cond(&ones, &ones.neg()?)?;
    x.eq(0.0)?.where_cond(&(ones * of_zero)?, &signs)
}

/// The nearest steps; the ends of the range get gradients where they are `learned`, and zeros elsewhere.
pub(in crate::functions) fn min_max(
    x: &Tensor,
    ends: [&Tensor; 2],
    steps: Steps,
    fine_grained: bool,
    learned: bool,
) -> Result<Tensor> {
    let arg = x.detach();
    let full = |value: f32| Tensor::full(f64::from(value), x.dims(), x.device())?.to_dtype(x.dtype());
    let [min, max, scale] = [full(steps.min)?, full(steps.max)?, full(steps.scale)?];
    let (below, above) = (arg.lt(&min)?, arg.gt(&max)?);
    let cut = above.where_cond(&max, &below.where_cond(&min, &arg)?)?;
    let y = (((cut - &min)? / &scale)?.round()? * &scale)?;
    let inside = (arg.ge(&min)? * arg.le(&max)?)?;
    let shape = ends[0].shape().clone();
    attach("min_max_quantize", &[x, ends[0], ends[1]], &(y + &min)?, move |dy, _| {
        let none = dy.zeros_like()?;
        let dx = if fine_grained { inside.where_cond(dy, &none)? } else { dy.clone() };
        let end = |outside: &Tensor| match learned {
            true => outside.where_cond(dy, &none)?.sum_all()?.reshape(&shape),
            false => Tensor::zeros(&shape, dy.dtype(), dy.device()),
        };
        Ok(vec![Some(dx), Some(end(&below)?), Some(end(&above)?)])
    })
}

/// Values, and where the gradient passes.
pub(crate) fn fixed_point(x: &Tensor, delta: f64, levels: f64, sign: bool) -> Result<(Tensor, Tensor)> {
    if let Some(both) = fixed_point_in_one_kernel(x, delta, levels, sign)? {
        return Ok(both);
    }
    let delta = Tensor::full(delta, (), x.device())?.to_dtype(x.dtype())?;
    // The limits are rounded as the kernel rounds them: first the step, then its multiple.
    let max = (delta.to_dtype(DType::F64)? * levels)?.to_dtype(x.dtype())?;
    let min = if sign { max.neg()? } else { max.zeros_like()? };
    let (above, below) = (x.broadcast_gt(&max)?, x.broadcast_lt(&min)?);
    let halves = x.abs()?.broadcast_div(&delta)?.to_dtype(DType::F64)?;
    let steps = (halves + 0.5)?.floor()?.to_dtype(x.dtype())?.broadcast_mul(&delta)?;
    let steps = with_sign_of(x, &steps)?;
    let steps = above.where_cond(&max.broadcast_as(x.shape())?, &steps)?;
    let value = below.where_cond(&min.broadcast_as(x.shape())?, &steps)?;
    Ok((value, above.maximum(&below)?.eq(0.0)?))
}

/// Values, and where the gradient passes.
pub(crate) fn pow2(
    x: &Tensor,
    (sign, with_zero): (bool, bool),
    (min, max): (f64, f64),
) -> Result<(Tensor, Tensor)> {
    let sizes = [usize::from(sign), usize::from(with_zero)];
    let numbers = [min, max, min * std::f64::consts::FRAC_1_SQRT_2];
    if let Some(both) = in_one_kernel("pow2", x, &sizes, &numbers)? {
        return Ok(both);
    }
    let full = |value: f64| Tensor::full(value, x.dims(), x.device())?.to_dtype(x.dtype());
    let power = nearest_power(&x.abs()?)?;
    let above = power.gt(&full(max)?)?;
    let size = power.lt(&full(min)?)?.where_cond(&full(min)?, &power)?;
    let size = match with_zero {
        // What is below the root is below the least power, too.
        true => x.abs()?.lt(&full(min * std::f64::consts::FRAC_1_SQRT_2)?)?.where_cond(&full(0.0)?, &size)?,
        false => size,
    };
    let size = above.where_cond(&full(max)?, &size)?;
    let (value, cut) = if sign {
        (with_sign_of(x, &size)?, above)
    } else {
        let negative = x.lt(0.0)?;
        let least = if with_zero { full(0.0)? } else { full(min)? };
        (negative.where_cond(&least, &size)?, above.maximum(&negative)?)
    };
    Ok((value, cut.eq(0.0)?))
}

/// `x` where its modulus is at least `threshold`, else 0.
pub(crate) fn above(x: &Tensor, threshold: f64) -> Result<Tensor> {
    let threshold = Tensor::full(threshold, x.dims(), x.device())?;
    x.abs()?.to_dtype(DType::F64)?.lt(&threshold)?.where_cond(&x.zeros_like()?, x)
}

/// The power of two whose logarithm is nearest, halves upwards; exactly, which `exp` would not give. 0 of 0.
fn nearest_power(size: &Tensor) -> Result<Tensor> {
    const LEAST: i32 = -1075; // below the smallest power that an f64 holds
    // The logarithm rounded to the type of the weights decides where two powers are equally near.
    let log = (size.to_dtype(DType::F64)?.log()? / std::f64::consts::LN_2)?.to_dtype(size.dtype())?;
    let exponent = log.to_dtype(DType::F64)?.round()?.clamp(f64::from(LEAST), 1024.0)?;
    let row = (exponent - f64::from(LEAST))?.to_dtype(DType::U32)?.flatten_all()?;
    let powers = (LEAST..=1024).map(|exponent| f64::from(exponent).exp2());
    let powers = Tensor::from_iter(powers, size.device())?.to_dtype(size.dtype())?;
    let power = powers.index_select(&row, 0)?.reshape(size.shape())?;
    size.ne(size)?.where_cond(size, &power) // NaN stays
}

/// Values, and where they are not cut off, if there is a kernel for that here.
fn in_one_kernel(
    name: &'static str,
    x: &Tensor,
    sizes: &[usize],
    numbers: &[f64],
) -> Result<Option<(Tensor, Tensor)>> {
    let n = x.elem_count();
    let arguments = Arguments { sizes, numbers, inputs: &[x] };
    let Some(both) = fused(Kernel::named(name), n, arguments, 2 * n)? else { return Ok(None) };
    let part = |start| both.narrow(0, start, n)?.reshape(x.shape());
    Ok(Some((part(0)?, part(n)?.ne(0.0)?)))
}

fn fixed_point_in_one_kernel(
    x: &Tensor,
    delta: f64,
    levels: f64,
    sign: bool,
) -> Result<Option<(Tensor, Tensor)>> {
    // Rounded as the kernel of the CPU rounds: first the step, then its multiple.
    let delta = if x.dtype() == DType::F32 { f64::from(delta as f32) } else { delta };
    let high = levels * delta;
    let low = if sign { -high } else { 0.0 };
    in_one_kernel("fixed_point", x, &[], &[delta, low, high])
}

fn with_sign_of(x: &Tensor, size: &Tensor) -> Result<Tensor> {
    x.lt(0.0)?.where_cond(&size.neg()?, size)
}
