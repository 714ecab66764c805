//! Affine maps: a matrix product with a bias.

use candle_core::Tensor;

use super::composed;
use super::graph::{Gradients, tracked};
use super::node::{
    Element, bias_or_nothing, compute, element_count, for_float, in_type, widened, without_kernels,
};
use super::relu::{attach_after, relu_if, relu_in_place};
use crate::kernels::{Float, Mat, MatMut, Start, Threads, channel_sums, gemm};
use crate::told::{Form, listens, told};
use crate::{Axis, Error, Result};

/// `y = x W + b`, with the axes from `base_axis` on flattened to one; a negative `base_axis` counts from the
/// back.
///
/// # Shapes
/// - `inp`: `(N.., D..)`; `N..` are the `base_axis` leading axes, the product of `D..` is `inmaps`
/// - `w`: `(inmaps, outmaps..)`
/// - `b`: `(outmaps..)`
/// - output: `(N.., outmaps..)`
///
/// # Errors
/// [`Error::InvalidArgument`] if the sizes do not fit together.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// let x = Tensor::new(&[[[1f32, 2.]], [[3., 4.]]], &Device::Cpu)?;
/// let w = Tensor::new(&[[1f32, 0., 1.], [0., 1., 1.]], &Device::Cpu)?;
/// let b = Tensor::new(&[0f32, 0., 10.], &Device::Cpu)?;
/// let y = layerfn::functions::affine(&x, &w, Some(&b), 1)?;
/// assert_eq!(y.to_vec2::<f32>()?, [[1., 2., 13.], [3., 4., 17.]]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn affine(inp: &Tensor, w: &Tensor, b: Option<&Tensor>, base_axis: impl Into<Axis>) -> Result<Tensor> {
    affine_then(inp, w, b, base_axis.into(), false)
}

/// [`affine`], followed by `relu` if asked for.
pub(crate) fn affine_then(
    inp: &Tensor,
    w: &Tensor,
    b: Option<&Tensor>,
    base_axis: Axis,
    then_relu: bool,
) -> Result<Tensor> {
    let base_axis = base_axis.position_from_front("base_axis", inp.dims())?;
    let matrices = Matrices::new(inp, w, b, base_axis)?;
    if then_relu && listens() {
        return relu_if(true, affine_then(inp, w, b, base_axis.into(), false)?);
    }
    let output_dims = [&inp.dims()[..base_axis], &w.dims()[1..]].concat();
    told(
        || Form::new("Affine", &[inp, w]).and(b).with("base_axis", base_axis),
        || {
            let tensors: &[&Tensor] = match b {
                Some(b) => &[inp, w, b],
                None => &[inp, w],
            };
            let compose = |t: &[Tensor]| Ok([composed::affine(&t[0], &t[1], t.get(2), base_axis)?]);
            if let Some([y]) = without_kernels("affine", tensors, compose)? {
                return relu_if(then_relu, y);
            }
            let dtype = inp.dtype();
            let bias = bias_or_nothing(b, inp)?;
            let [inp, w, bias] = widened("affine", [inp, w, &bias])?;
            let has_bias = b.is_some();
            let y = for_float!(inp.dtype(), T => {
                let y = compute::<T, 3>(output_dims, [&inp, &w, &bias], |[x, w, b], y| {
                    matrices.forward(x, w, has_bias.then_some(b), y);
                    relu_in_place(y, then_relu);
                })?;
                attach_after("affine", [&inp, &w, &bias], y, then_relu, || {
                    let (x, weights) = (Tensor::clone(&inp), Tensor::clone(&w));
                    let needed = tracked([&inp, &w, &bias]);
                    move |dy: &Tensor| matrices.gradients::<T>([&x, &weights], dy, needed)
                })
            })?;
            in_type(y, dtype)
        },
    )
}

/// Sizes of the matrices: `(rows, inmaps) x (inmaps, outmaps)`.
#[derive(Clone, Copy)]
struct Matrices {
    rows: usize,
    inmaps: usize,
    outmaps: usize,
}

impl Matrices {
    fn new(inp: &Tensor, w: &Tensor, b: Option<&Tensor>, base_axis: usize) -> Result<Self> {
        let dims = inp.dims();
        if base_axis > dims.len() {
            return Err(Error::invalid(
                "base_axis",
                format!("must be at most {}, the input's rank", dims.len()),
                base_axis,
            ));
        }
        let rows = element_count(&dims[..base_axis])?;
        let inmaps = element_count(&dims[base_axis..])?;
        let Some((&w_inmaps, outmaps)) = w.dims().split_first() else {
            return Err(Error::invalid("W", "must have shape (inmaps, outmaps..)", w.dims()));
        };
        if w_inmaps != inmaps {
            let reason = format!("must have {inmaps} rows for input {dims:?} with `base_axis` {base_axis}");
            return Err(Error::invalid("W", reason, w.dims()));
        }
        if let Some(b) = b.filter(|b| b.dims() != outmaps) {
            return Err(Error::invalid(
                "b",
                format!("must have shape {outmaps:?} as `W` gives it"),
                b.dims(),
            ));
        }
        Ok(Self { rows, inmaps, outmaps: element_count(outmaps)? })
    }

    fn forward<T: Float>(&self, x: &[T], w: &[T], b: Option<&[T]>, y: &mut [T]) {
        let Self { rows, inmaps, outmaps } = *self;
        let (x, w) = (Mat::new(x, rows, inmaps, inmaps), Mat::new(w, inmaps, outmaps, outmaps));
        gemm(
            MatMut::new(y, rows, outmaps, outmaps),
            x,
            w,
            b.map_or(Start::Zero, Start::Columns),
            Threads::All,
        );
    }

    /// Of the input, `w` and the bias.
    fn gradients<T: Element>(&self, [inp, w]: [&Tensor; 2], dy: &Tensor, needed: [bool; 3]) -> Gradients<3> {
        let Self { rows, inmaps, outmaps } = *self;
        let mut gradients = [None, None, None];
        if needed[0] {
            let dx = compute::<T, 2>(inp.dims(), [dy, w], |[dy, w], dx| {
                let (dy, w) = (Mat::new(dy, rows, outmaps, outmaps), Mat::new(w, inmaps, outmaps, outmaps));
                gemm(MatMut::new(dx, rows, inmaps, inmaps), dy, w.t(), Start::Zero, Threads::All);
            })?;
            gradients[0] = Some(dx.into_tensor()?);
        }
        if needed[1] {
            let dw = compute::<T, 2>(w.dims(), [inp, dy], |[x, dy], dw| {
                let (x, dy) = (Mat::new(x, rows, inmaps, inmaps), Mat::new(dy, rows, outmaps, outmaps));
                gemm(MatMut::new(dw, inmaps, outmaps, outmaps), x.t(), dy, Start::Zero, Threads::All);
            })?;
            gradients[1] = Some(dw.into_tensor()?);
        }
        if needed[2] {
            let dims = &w.dims()[1..];
            gradients[2] = Some(match rows {
                1 => dy.reshape(dims)?, // a sum of one
                _ => compute::<T, 1>(dims, [dy], |[dy], db| channel_sums(dy, 1, db))?.into_tensor()?,
            });
        }
        Ok(gradients)
    }
}
