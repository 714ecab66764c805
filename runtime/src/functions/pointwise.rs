//! Functions of each element, written once for the kernels, for candle's operations and for CUDA.

use std::array;

use candle_core::Tensor;

use super::composed::attach as attach_composed;
use super::graph::{attach, attach_with_result, tracked};
use super::node::{Element, compute, for_float, in_type, read, widened, without_kernels};
use crate::Result;
use crate::kernels::{combine, combine_with};
use crate::number::{Formula, Number, evaluate};

/// A function of the elements at one place of `N` tensors, and its slopes.
pub(super) trait Pointwise<const N: usize>: Copy + Send + Sync + 'static {
    const NAME: &'static str;

    /// Whether the slope of a function of one element follows from the value; otherwise it is computed from the elements.
    /// What it follows from is kept for the backward pass.
    const SLOPE_FROM_VALUE: bool = false;

    fn value<V: Number>(self, x: [V; N]) -> V;

    /// The gradient of the tensor `index` from the gradient `dy` and what is kept.
    fn gradient<V: Number>(self, index: usize, dy: V, kept: [V; N]) -> V;
}

struct Value<F>(F);

impl<F: Pointwise<N>, const N: usize> Formula<0, N> for Value<F> {
    fn of<V: Number>(&self, []: [V; 0], x: [V; N]) -> V {
        self.0.value(x)
    }
}

struct Gradient<F>(F, usize);

impl<F: Pointwise<N>, const N: usize> Formula<1, N> for Gradient<F> {
    fn of<V: Number>(&self, [dy]: [V; 1], kept: [V; N]) -> V {
        self.0.gradient(self.1, dy, kept)
    }
}

/// The result for tensors of one shape.
pub(super) fn apply<F: Pointwise<N>, const N: usize>(f: F, inputs: [&Tensor; N]) -> Result<Tensor> {
    let compose = |t: &[Tensor]| Ok([composed(f, array::from_fn(|i| &t[i]))?]);
    if let Some([y]) = without_kernels(F::NAME, &inputs, compose)? {
        return Ok(y);
    }
    let widened = widened(F::NAME, inputs)?;
    let x = widened.each_ref().map(|x| &**x);
    let y = for_float!(x[0].dtype(), T => {
        let y = compute::<T, N>(x[0].dims(), x, |x, y| combine(x, y, |x| f.value(x)))?;
        let needed = tracked(x);
        let gradients = move |dy: &Tensor, kept: [&Tensor; N]| {
            let mut gradients = array::from_fn(|_| None);
            for (i, gradient) in gradients.iter_mut().enumerate().filter(|(i, _)| needed[*i]) {
                *gradient = Some(gradient_of::<T, F, N>(f, i, dy, kept)?);
            }
            Ok(gradients)
        };
        if F::SLOPE_FROM_VALUE {
            attach_with_result(F::NAME, x, y, move |y, dy| gradients(dy, [y; N]))
        } else {
            let kept = x.map(Tensor::clone);
            attach(F::NAME, x, y, move |dy| gradients(dy, kept.each_ref()))
        }
    })?;
    in_type(y, inputs[0].dtype())
}

/// The gradient of the tensor `index`.
pub(super) fn gradient_of<T: Element, F: Pointwise<N>, const N: usize>(
    f: F,
    index: usize,
    dy: &Tensor,
    kept: [&Tensor; N],
) -> candle_core::Result<Tensor> {
    let dims = dy.dims();
    let dx = read([dy], |[dy]| {
        compute::<T, N>(dims, kept, |kept, dx| match index {
            0 => combine_with(kept, dy, dx, |kept, dy| f.gradient(0, dy, kept)), // known when the loop is compiled
            _ => combine_with(kept, dy, dx, |kept, dy| f.gradient(index, dy, kept)),
        })
    })??;
    dx.into_tensor()
}

fn composed<F: Pointwise<N>, const N: usize>(f: F, inputs: [&Tensor; N]) -> candle_core::Result<Tensor> {
    let kept = inputs.map(Tensor::detach);
    let y = evaluate(&Value(f), [], kept.each_ref())?;
    let kept = if F::SLOPE_FROM_VALUE { [(); N].map(|()| y.clone()) } else { kept };
    attach_composed(F::NAME, &inputs, &y, move |dy, needed| {
        let gradient = |i| evaluate(&Gradient(f, i), [dy], kept.each_ref());
        (0..N).map(|i| needed[i].then(|| gradient(i)).transpose()).collect()
    })
}
