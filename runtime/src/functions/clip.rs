//! Clipping of elements and of their gradients.

use candle_core::Tensor;

use super::arithmetic::{maximum_scalar, mul_scalar, mul2, pow_scalar};
use super::composed;
use super::graph::attach;
use super::node::{compute, for_float, in_type, widened, without_kernels};
use super::pointwise::{Pointwise, apply};
use super::reduce::sum;
use crate::number::Number;
use crate::{Axes, Error, Result, check};

/// A limit of elements: a number, or a tensor.
#[derive(Clone, Debug)]
pub enum Limit {
    /// One for all elements, which may be infinite.
    Number(f64),
    /// One for each element; axes of size 1 are broadcast.
    Tensor(Tensor),
}

impl From<f64> for Limit {
    fn from(limit: f64) -> Self {
        Self::Number(limit)
    }
}

impl From<&Tensor> for Limit {
    fn from(limit: &Tensor) -> Self {
        Self::Tensor(limit.clone())
    }
}

impl Limit {
    /// As a tensor for elements of `inp`.
    fn of(self, argument: &'static str, inp: &Tensor) -> Result<Tensor> {
        match self {
            Self::Number(number) if number.is_nan() => {
                Err(Error::invalid(argument, "must be a number", number))
            }
            Self::Number(number) => {
                let one = Tensor::full(number, vec![1; inp.rank()], inp.device())?;
                Ok(one.to_dtype(inp.dtype())?)
            }
            Self::Tensor(tensor) => Ok(tensor),
        }
    }
}

/// Validates the limits: neither may be larger than the input.
fn limits(inp: &Tensor, min: Limit, max: Limit) -> Result<[Tensor; 2]> {
    check::float("inp", inp)?;
    let limits = [min.of("min", inp)?, max.of("max", inp)?];
    check_spreads("min", &limits[0], inp)?;
    check_spreads("max", &limits[1], inp)?;
    Ok(limits)
}

/// Checks that a tensor has the shape of the input, or size 1 on some axes.
pub(super) fn check_spreads(argument: &'static str, tensor: &Tensor, inp: &Tensor) -> Result<()> {
    let fits = |(&size, &own): (&usize, &usize)| size == own || size == 1;
    if tensor.rank() == inp.rank() && tensor.dims().iter().zip(inp.dims()).all(fits) {
        return Ok(());
    }
    let reason = format!("must have the input's shape {:?}, or size 1 on some axes", inp.dims());
    Err(Error::invalid(argument, reason, tensor.dims()))
}

/// `x` clipped to `[min, max]`; `max` if `min` is larger.
#[inline(always)]
fn clipped<V: Number>(x: &V, min: &V, max: &V) -> V {
    let raised = V::select(min.reaches(x), || min.clone(), || x.clone()); // NaN stays
    V::select(raised.reaches(max), || max.clone(), || raised.clone())
}

#[derive(Clone, Copy)]
struct ClipByValue;

impl Pointwise<3> for ClipByValue {
    const NAME: &'static str = "clip_by_value";

    #[inline(always)]
    fn value<V: Number>(self, [x, min, max]: [V; 3]) -> V {
        clipped(&x, &min, &max)
    }

    #[inline(always)]
    fn gradient<V: Number>(self, index: usize, dy: V, [x, min, max]: [V; 3]) -> V {
        let (low, zero) = (min.reaches(&x), dy.constant(0.0));
        let of_raised = if index == 0 {
            V::select(low.clone(), || zero.clone(), || dy.clone())
        } else {
            V::select(low.clone(), || dy.clone(), || zero.clone())
        };
        let is_high = V::select(low, || min, || x).reaches(&max);
        if index == 2 {
            V::select(is_high, || dy, || zero)
        } else {
            V::select(is_high, || zero, || of_raised)
        }
    }
}

/// Clips each element to `[min, max]`: NNabla's `minimum2(maximum2(x, min), max)`.
///
/// Where an element reaches a limit, the limit gets the gradient if it is a tensor.
///
/// # Shapes
/// - `min`, `max`: numbers, or tensors of the input's shape, or with size 1 on some axes
///
/// # Errors
/// [`Error::InvalidArgument`] if a limit is NaN or of another shape or type.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// use layerfn::functions::clip_by_value;
/// let x = Tensor::new(&[-2f32, 0., 2.], &Device::Cpu)?;
/// assert_eq!(clip_by_value(&x, -0.5, 1.)?.to_vec1::<f32>()?, [-0.5, 0., 1.]);
/// let most = Tensor::new(&[1f32, -1., 3.], &Device::Cpu)?;
/// assert_eq!(clip_by_value(&x, f64::NEG_INFINITY, &most)?.to_vec1::<f32>()?, [-2., -1., 2.]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn clip_by_value(inp: &Tensor, min: impl Into<Limit>, max: impl Into<Limit>) -> Result<Tensor> {
    let [min, max] = limits(inp, min.into(), max.into())?;
    apply(ClipByValue, [inp, &min, &max])
}

#[derive(Clone, Copy)]
struct ClipGradByValue;

impl Pointwise<3> for ClipGradByValue {
    const NAME: &'static str = "clip_grad_by_value";

    #[inline(always)]
    fn value<V: Number>(self, [x, ..]: [V; 3]) -> V {
        x
    }

    #[inline(always)]
    fn gradient<V: Number>(self, _: usize, dy: V, [_, min, max]: [V; 3]) -> V {
        clipped(&dy, &min, &max)
    }
}

/// Returns the input; each element of its gradient is clipped to `[min, max]`.
///
/// # Shapes
/// As for [`clip_by_value`]; the limits get no gradient.
///
/// # Errors
/// As for [`clip_by_value`].
///
/// # Example
/// ```
/// use candle_core::{Device, Var};
/// use layerfn::functions::clip_grad_by_value;
/// let x = Var::new(&[1f32, 2.], &Device::Cpu)?;
/// let y = clip_grad_by_value(&x, -0.5, 0.5)?;
/// let gradients = layerfn::backward(&(y * 3.)?.sum_all()?)?;
/// assert_eq!(gradients.get(&x).unwrap().to_vec1::<f32>()?, [0.5, 0.5]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn clip_grad_by_value(inp: &Tensor, min: impl Into<Limit>, max: impl Into<Limit>) -> Result<Tensor> {
    let [min, max] = limits(inp, min.into(), max.into())?;
    apply(ClipGradByValue, [inp, &min.detach(), &max.detach()])
}

/// Scales `x` down where its Euclidean norm over some axes exceeds `clip_norm`: `x · clip_norm / max(|x|,
/// clip_norm)`, including the gradient through the norm.
///
/// # Errors
/// [`Error::InvalidArgument`] if `clip_norm` is not positive or there is no such axis.
///
/// # Source
/// NNabla `F.clip_by_norm`.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// use layerfn::functions::clip_by_norm;
/// let x = Tensor::new(&[[3f64, 4.], [0.3, 0.4]], &Device::Cpu)?;
/// let y = clip_by_norm(&x, 1.0, 1)?.to_vec2::<f64>()?;
/// assert!((y[0][0] - 0.6).abs() < 1e-15 && (y[0][1] - 0.8).abs() < 1e-15);
/// assert_eq!(y[1], [0.3, 0.4]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn clip_by_norm(inp: &Tensor, clip_norm: f64, axis: impl Into<Axes>) -> Result<Tensor> {
    check::positive("clip_norm", clip_norm)?;
    check::positive("clip_norm", clip_norm * clip_norm)?;
    let axes = axis.into();
    axes.resolve("axis", inp.dims())?;
    check::input("inp", inp)?;
    let [wide] = widened("clip_by_norm", [inp])?;
    let factor = norm_factor(&wide, clip_norm, clip_norm * clip_norm, &axes)?;
    in_type(mul2(&wide, &factor)?, inp.dtype())
}

/// `clip_norm` divided by the norm over some axes; squares of norms count as at least `least`.
fn norm_factor(x: &Tensor, clip_norm: f64, least: f64, axes: &Axes) -> Result<Tensor> {
    let squares = maximum_scalar(&sum(&mul2(x, x)?, axes, true)?, least)?;
    mul_scalar(&pow_scalar(&squares, -0.5)?, clip_norm)
}

/// Returns the input; its gradient is scaled to the Euclidean norm `clip_norm` over some axes, even if its norm
/// is smaller, as in NNabla. A gradient of 0 stays 0.
///
/// # Errors
/// As for [`clip_by_norm`].
///
/// # Source
/// NNabla `F.clip_grad_by_norm`.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor, Var};
/// let x = Var::new(&[1f64, 2.], &Device::Cpu)?;
/// let y = layerfn::functions::clip_grad_by_norm(&x, 10.0, ..)?;
/// let loss = (y * Tensor::new(&[3f64, 4.], &Device::Cpu)?)?.sum_all()?;
/// assert_eq!(layerfn::backward(&loss)?.get(&x).unwrap().to_vec1::<f64>()?, [6., 8.]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn clip_grad_by_norm(inp: &Tensor, clip_norm: f64, axes: impl Into<Axes>) -> Result<Tensor> {
    const NAME: &str = "clip_grad_by_norm";
    check::positive("clip_norm", clip_norm)?;
    let axes = axes.into();
    axes.resolve("axes", inp.dims())?;
    let scaled = move |dy: &Tensor| -> candle_core::Result<Tensor> {
        Ok(mul2(dy, &norm_factor(dy, clip_norm, f64::from(f32::MIN_POSITIVE), &axes)?)?)
    };
    let compose = |t: &[Tensor]| {
        let scaled = scaled.clone();
        Ok([composed::attach(NAME, &[&t[0]], &t[0].detach(), move |dy, _| Ok(vec![Some(scaled(dy)?)]))?])
    };
    if let Some([y]) = without_kernels(NAME, &[inp], compose)? {
        return Ok(y);
    }
    let [x] = widened(NAME, [inp])?;
    let y = for_float!(x.dtype(), T => {
        let y = compute::<T, 1>(x.dims(), [&x], |[x], y| y.copy_from_slice(x))?;
        attach(NAME, [&x], y, move |dy| Ok([Some(scaled(dy)?)]))
    })?;
    in_type(y, inp.dtype())
}
