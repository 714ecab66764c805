//! What is cut off at limits: elements, or their gradients.

use candle_core::Tensor;

use super::pointwise::{Pointwise, apply};
use crate::number::Number;
use crate::{Error, Result, check};

/// A limit for elements: a number, or a tensor with one for each of them.
#[derive(Clone, Debug)]
pub enum Limit {
    /// One for all, which may be infinite.
    Number(f64),
    /// Of the shape of the elements, or with size 1 on axes along which it stands for all.
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

/// The limits, checked: neither may bring more elements than there are.
fn limits(inp: &Tensor, min: Limit, max: Limit) -> Result<[Tensor; 2]> {
    check::float("inp", inp)?;
    let limits = [min.of("min", inp)?, max.of("max", inp)?];
    for (argument, limit) in ["min", "max"].into_iter().zip(&limits) {
        let fits = |(&size, &own): (&usize, &usize)| size == own || size == 1;
        if limit.rank() != inp.rank() || !limit.dims().iter().zip(inp.dims()).all(fits) {
            let reason = format!("must have the input's shape {:?}, or size 1 on some axes", inp.dims());
            return Err(Error::invalid(argument, reason, limit.dims()));
        }
    }
    Ok(limits)
}

/// `x`, but at least `min` and at most `max`, and `max` where the two contradict each other.
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

/// Each element, but at least `min` and at most `max`: NNabla's `minimum2(maximum2(x, min), max)`.
///
/// Where an element reaches a limit, the limit gets the gradient, if it is a tensor.
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

/// The input itself; each element of its gradient becomes at least `min` and at most `max`.
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
