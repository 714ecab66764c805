//! ReLU, by itself and fused with the function before it.

use candle_core::Tensor;

use super::graph::{Gradients, attach, attach_with_result};
use super::node::{Element, Value, compute, for_float, in_type, widened, without_kernels};
use super::pointwise::{Pointwise, Slope, apply, gradient_of};
use crate::Result;
use crate::kernels::{Float, map_in_place, zip};
use crate::number::Number;
use crate::told::{Form, listens, told};

#[derive(Clone, Copy)]
struct Relu;

impl Pointwise<1> for Relu {
    const NAME: &'static str = "relu";
    const SLOPE: Slope = Slope::FromValue;

    #[inline(always)]
    fn value<V: Number>(self, [x]: [V; 1]) -> V {
        let zero = x.constant(0.0);
        V::select(x.at_most(0.0), || zero, || x.clone()) // NaN stays
    }

    #[inline(always)]
    fn gradient<V: Number>(self, _: usize, dy: V, [y]: [V; 1]) -> V {
        let zero = dy.constant(0.0);
        V::select(y.above(0.0), || dy.clone(), || zero)
    }
}

/// `max(x, 0)`; the gradient at 0 is 0.
///
/// # Errors
/// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if the input holds no floating-point numbers.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// let x = Tensor::new(&[-1f32, 0., 2.], &Device::Cpu)?;
/// assert_eq!(layerfn::functions::relu(&x)?.to_vec1::<f32>()?, [0., 0., 2.]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn relu(inp: &Tensor) -> Result<Tensor> {
    told(|| Form::new("ReLU", &[inp]), || apply(Relu, [inp]))
}

/// [`relu`] of one element.
#[inline(always)]
pub(super) fn relu_of<T: Float>(x: T) -> T {
    Relu.value([x])
}

/// Applies [`relu`] to a tensor if asked for.
pub(super) fn relu_if(asked: bool, y: Tensor) -> Result<Tensor> {
    if asked { relu(&y) } else { Ok(y) }
}

/// Applies [`relu`] to each element if asked for.
pub(super) fn relu_in_place<T: Float>(y: &mut [T], asked: bool) {
    if asked {
        map_in_place(y, relu_of);
    }
}

/// The gradient before [`relu`] from that of its result, which is positive where `x` was.
#[inline(always)]
pub(super) fn relu_gradient_of<T: Float>(x: T, dy: T) -> T {
    Relu.gradient(0, dy, [x])
}

/// [`attach`] for a value that may have been through `relu`: the rule receives the gradient before it. `rule`
/// is not called if no input is tracked.
pub(super) fn attach_after<T, const N: usize, B>(
    name: &'static str,
    inputs: [&Tensor; N],
    value: Value<T>,
    relu: bool,
    rule: impl FnOnce() -> B,
) -> Result<Tensor>
where
    T: Element,
    B: Fn(&Tensor) -> Gradients<N> + Send + Sync + 'static,
{
    if !inputs.iter().any(|input| input.track_op()) {
        return Ok(value.into_tensor()?);
    }
    let backward = rule();
    if !relu {
        return attach(name, inputs, value, backward);
    }
    attach_with_result(name, inputs, value, move |result, gradient| {
        backward(&gradient_of::<T, 1>(&Relu, 0, gradient, [result])?)
    })
}

/// `a + b` for tensors of the same shape, followed by `relu` if asked for; both get the gradient without a
/// copy.
pub(crate) fn add(a: &Tensor, b: &Tensor, then_relu: bool) -> Result<Tensor> {
    if then_relu && listens() {
        return relu(&add(a, b, false)?);
    }
    told(
        || Form::new("Add2", &[a, b]),
        || {
            if let Some([sum]) = without_kernels("add", &[a, b], |t| Ok([(&t[0] + &t[1])?]))? {
                return relu_if(then_relu, sum);
            }
            let dtype = a.dtype();
            let [a, b] = widened("add", [a, b])?;
            let sum = for_float!(a.dtype(), T => {
                let sum = compute::<T, 2>(a.dims(), [&a, &b], |[a, b], sum| match then_relu {
                    true => zip(a, b, sum, |a, b| relu_of(a + b)),
                    false => zip(a, b, sum, |a, b| a + b),
                })?;
                attach_after("add", [&a, &b], sum, then_relu, || |dy: &Tensor| Ok([Some(dy.clone()), Some(dy.clone())]))
            })?;
            in_type(sum, dtype)
        },
    )
}
