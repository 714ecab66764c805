//! Convolution and deconvolution over one to three spatial axes.

use candle_core::Tensor;

use super::arrange::moved;
use super::composed;
use super::geometry::{ConvGeometry, DeconvGeometry, Direction};
use super::graph::{Gradients, tracked};
use super::node::{Element, bias_or_nothing, compute, for_float, in_type, widened, without_kernels};
use super::relu::{attach_after, relu, relu_if, relu_in_place};
use crate::kernels::{Convolution, channel_sums};
use crate::told::{Form, listens, told};
use crate::{Error, Result};

/// N-D convolution, which is a cross-correlation, as usual in deep learning.
///
/// `y[n, o, p] = b[o] + sum over c, t of w[o, c, t] * inp[n, c, p * stride - pad + t * dilation]`, within each group.
///
/// Kernels of 3 × 3 with a stride and dilation of 1, and at least 12 input and output maps, use Winograd's
/// algorithm F(2 × 2, 3 × 3) (Lavin and Gray, 2015), which rounds slightly differently. With it, infinite and
/// NaN elements of the input affect all of a 2 × 2 tile of outputs, and not only the outputs that see them.
///
/// # Shapes
/// - `inp`: `(N.., C, L1, .., Ld)`, the sizes that `geometry` was made for
/// - `w`: `(outmaps, C / group, k1, .., kd)`
/// - `b`: `(outmaps)`
/// - output: `(N.., outmaps, L1', .., Ld')`, see [`ConvGeometry`]
///
/// With a geometry [`with_channel_last`](ConvGeometry::with_channel_last) the channels come last in all of them:
/// `(N.., L1, .., Ld, C)`, `(outmaps, k1, .., kd, C / group)` and `(N.., L1', .., Ld', outmaps)`.
///
/// # Errors
/// [`Error::InvalidArgument`] if `group` does not divide `outmaps` or a tensor has other sizes than these.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// use layerfn::functions::{ConvGeometry, convolution};
/// let x = Tensor::new(&[[[1f32, 2., 3., 4.]]], &Device::Cpu)?;
/// let w = Tensor::new(&[[[1f32, -1.]]], &Device::Cpu)?;
/// let geometry = ConvGeometry::new(x.dims(), &2.into(), &0.into(), &2.into(), &1.into(), 1, 1)?;
/// let y = convolution(&x, &w, None, &geometry)?;
/// assert_eq!(y.to_vec3::<f32>()?, [[[-1., -1.]]]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn convolution(inp: &Tensor, w: &Tensor, b: Option<&Tensor>, geometry: &ConvGeometry) -> Result<Tensor> {
    convolution_then(inp, w, b, geometry, false)
}

/// [`convolution`], followed by `relu` if asked for.
pub(crate) fn convolution_then(
    inp: &Tensor,
    w: &Tensor,
    b: Option<&Tensor>,
    geometry: &ConvGeometry,
    then_relu: bool,
) -> Result<Tensor> {
    if geometry.is_channel_last() {
        let first = geometry.clone().with_channel_last(false);
        let run = |inp: &Tensor, w: &Tensor| convolution_then(inp, w, b, &first, then_relu);
        return with_channels_first(inp, w, geometry.batch_dims().len(), run);
    }
    if then_relu && listens() {
        return relu(&convolution_then(inp, w, b, geometry, false)?);
    }
    check_dims("inp", inp, geometry.input_dims())?;
    let outmaps = w.dims().first().copied().unwrap_or_default();
    check_dims("W", w, &geometry.weight_dims(outmaps)?)?;
    let plan = geometry.plan(outmaps)?;
    let form = || {
        let form = Form::new("Convolution", &[inp, w]).and(b).with("base_axis", geometry.batch_dims().len());
        let form = form.with("pad", geometry.pad()).with("stride", geometry.stride());
        form.with("dilation", geometry.dilation()).with("group", geometry.group())
    };
    told(form, || apply(Direction::Forward, plan, [inp, w], b, &geometry.output_dims(outmaps), then_relu))
}

/// N-D deconvolution: the exact transpose of [`convolution`], also called transposed convolution.
///
/// Each input value adds `w` times itself to the outputs at the positions that a convolution with the same
/// `pad`, `stride` and `dilation` would have computed it from.
///
/// # Shapes
/// - `inp`: `(N.., C, L1, .., Ld)`, the sizes that `geometry` was made for
/// - `w`: `(C, outmaps / group, k1, .., kd)`
/// - `b`: `(outmaps)`
/// - output: `(N.., outmaps, L1', .., Ld')`, see [`DeconvGeometry`]
///
/// With a geometry [`with_channel_last`](DeconvGeometry::with_channel_last) the channels come last in all of them:
/// `(N.., L1, .., Ld, C)`, `(C, k1, .., kd, outmaps / group)` and `(N.., L1', .., Ld', outmaps)`.
///
/// # Errors
/// [`Error::InvalidArgument`] if a tensor has other sizes than these.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// use layerfn::functions::{DeconvGeometry, deconvolution};
/// let x = Tensor::new(&[[[1f32, 2.]]], &Device::Cpu)?;
/// let w = Tensor::new(&[[[1f32, -1.]]], &Device::Cpu)?;
/// let geometry = DeconvGeometry::new(x.dims(), &2.into(), &0.into(), &2.into(), &1.into(), 1, 1)?;
/// let y = deconvolution(&x, &w, None, &geometry)?;
/// assert_eq!(y.to_vec3::<f32>()?, [[[1., -1., 2., -2.]]]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn deconvolution(
    inp: &Tensor,
    w: &Tensor,
    b: Option<&Tensor>,
    geometry: &DeconvGeometry,
) -> Result<Tensor> {
    deconvolution_then(inp, w, b, geometry, false)
}

/// [`deconvolution`], followed by `relu` if asked for.
pub(crate) fn deconvolution_then(
    inp: &Tensor,
    w: &Tensor,
    b: Option<&Tensor>,
    geometry: &DeconvGeometry,
    then_relu: bool,
) -> Result<Tensor> {
    if geometry.is_channel_last() {
        let first = geometry.clone().with_channel_last(false);
        let run = |inp: &Tensor, w: &Tensor| deconvolution_then(inp, w, b, &first, then_relu);
        return with_channels_first(inp, w, geometry.batch_dims().len(), run);
    }
    if then_relu && listens() {
        return relu(&deconvolution_then(inp, w, b, geometry, false)?);
    }
    check_dims("inp", inp, geometry.input_dims())?;
    let maps_per_group = w.dims().get(1).copied().unwrap_or_default();
    let outmaps = maps_per_group.saturating_mul(geometry.group());
    check_dims("W", w, &geometry.weight_dims(outmaps)?)?;
    let plan = geometry.plan(outmaps)?;
    let form = || {
        let form =
            Form::new("Deconvolution", &[inp, w]).and(b).with("base_axis", geometry.batch_dims().len());
        let form = form.with("pad", geometry.pad()).with("stride", geometry.stride());
        form.with("dilation", geometry.dilation())
            .with("group", geometry.group())
            .with("output_padding", geometry.output_padding())
    };
    told(form, || apply(Direction::Transposed, plan, [inp, w], b, &geometry.output_dims(outmaps), then_relu))
}

/// Runs `run` with the channels of the input and the weights before the spatial axes, and moves those of its
/// result to the end.
pub(super) fn with_channels_first(
    inp: &Tensor,
    w: &Tensor,
    base_axis: usize,
    run: impl FnOnce(&Tensor, &Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    for (argument, tensor, least) in [("inp", inp, base_axis + 1), ("W", w, 2)] {
        if tensor.rank() < least {
            return Err(Error::invalid(
                argument,
                format!("must have at least {least} axes here"),
                tensor.dims(),
            ));
        }
    }
    let last = inp.rank() - 1;
    moved(&run(&moved(inp, last, base_axis)?, &moved(w, w.rank() - 1, 1)?)?, base_axis, last)
}

fn apply(
    direction: Direction,
    plan: Convolution,
    [inp, w]: [&Tensor; 2],
    b: Option<&Tensor>,
    output_dims: &[usize],
    then_relu: bool,
) -> Result<Tensor> {
    let (name, outmaps) = match direction {
        Direction::Forward => ("convolution", plan.outmaps),
        Direction::Transposed => ("deconvolution", plan.inmaps),
    };
    b.map_or(Ok(()), |b| check_dims("b", b, &[outmaps]))?;
    let tensors: Vec<_> = [inp, w].into_iter().chain(b).collect();
    let compose = |t: &[Tensor]| {
        Ok([composed::convolution(name, direction, &plan, &t[0], &t[1], t.get(2), output_dims)?])
    };
    if let Some([y]) = without_kernels(name, &tensors, compose)? {
        return relu_if(then_relu, y);
    }
    let dtype = inp.dtype();
    let bias = bias_or_nothing(b, inp)?;
    let [inp, w, bias] = widened(name, [inp, w, &bias])?;
    let has_bias = b.is_some();
    let y = for_float!(inp.dtype(), T => {
        let y = compute::<T, 3>(output_dims, [&inp, &w, &bias], |[inp, w, b], y| {
            direction.run(&plan, inp, w, has_bias.then_some(b), y);
            relu_in_place(y, then_relu);
        })?;
        attach_after(name, [&inp, &w, &bias], y, then_relu, || {
            let needed = tracked([&inp, &w, &bias]);
            let backward = ConvolutionGradients { direction, plan, inp: Tensor::clone(&inp), w: Tensor::clone(&w), needed };
            move |dy: &Tensor| backward.gradients::<T>(dy)
        })
    })?;
    in_type(y, dtype)
}

/// What it needs to know.
struct ConvolutionGradients {
    direction: Direction,
    plan: Convolution,
    inp: Tensor,
    w: Tensor,
    needed: [bool; 3],
}

impl ConvolutionGradients {
    fn gradients<T: Element>(&self, dy: &Tensor) -> Gradients<3> {
        let Self { direction, plan, inp, w, needed } = self;
        let mut gradients = [None, None, None];
        if needed[0] {
            let dx = compute::<T, 2>(inp.dims(), [dy, w], |[dy, w], dx| {
                direction.reversed().run(plan, dy, w, None, dx);
            })?;
            gradients[0] = Some(dx.into_tensor()?);
        }
        if needed[1] {
            let dw = compute::<T, 2>(w.dims(), [inp, dy], |[inp, dy], dw| match direction {
                _ if dy.is_empty() => dw.fill(T::ZERO),
                Direction::Forward => plan.weight_gradient(inp, dy, dw),
                Direction::Transposed => plan.weight_gradient(dy, inp, dw),
            })?;
            gradients[1] = Some(dw.into_tensor()?);
        }
        gradients[2] = self.bias_gradient::<T>(dy)?;
        Ok(gradients)
    }

    fn bias_gradient<T: Element>(&self, dy: &Tensor) -> candle_core::Result<Option<Tensor>> {
        if !self.needed[2] {
            return Ok(None);
        }
        let (outmaps, n_pixels) = match self.direction {
            Direction::Forward => (self.plan.outmaps, self.plan.window.n_outputs()),
            Direction::Transposed => (self.plan.inmaps, self.plan.window.n_inputs()),
        };
        let db = compute::<T, 1>([outmaps], [dy], |[dy], db| channel_sums(dy, n_pixels, db))?;
        Ok(Some(db.into_tensor()?))
    }
}

fn check_dims(argument: &'static str, tensor: &Tensor, wanted: &[usize]) -> Result<()> {
    if tensor.dims() == wanted {
        return Ok(());
    }
    Err(Error::invalid(argument, format!("must have shape {wanted:?} here"), tensor.dims()))
}
