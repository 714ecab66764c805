//! Convolution and its two gradients as products of gathered columns; deconvolution exchanges the roles.

use candle_core::{Result, Tensor};

use super::rule::attach;
use super::window::{fold, sizes, unfold};
use crate::device::{Arguments, fused};
use crate::functions::geometry::Direction;
use crate::kernels::Convolution;
use crate::kernels::cuda::Kernel;

/// Bytes of columns that one product takes at a time, if there is more than one image.
const COLUMN_BYTES: usize = 256 << 20;

pub(crate) fn convolution(
    name: &'static str,
    direction: Direction,
    plan: &Convolution,
    x: &Tensor,
    w: &Tensor,
    b: Option<&Tensor>,
    output_dims: &[usize],
) -> Result<Tensor> {
    let (arg, weights) = (x.detach(), w.detach());
    let forward = direction == Direction::Forward;
    let mut y = if forward { outputs(plan, &arg, &weights)? } else { inputs(plan, &arg, &weights)? };
    if let Some(b) = b {
        y = y.broadcast_add(&b.detach().reshape((1, b.elem_count(), 1, 1, 1))?)?;
    }
    let tensors: Vec<&Tensor> = [x, w].into_iter().chain(b).collect();
    let plan = plan.clone();
    attach(name, &tensors, &y.reshape(output_dims)?, move |dy, needed| {
        let dx = || if forward { inputs(&plan, dy, &weights) } else { outputs(&plan, dy, &weights) };
        let dw = || if forward { weight_gradient(&plan, &arg, dy) } else { weight_gradient(&plan, dy, &arg) };
        let db = || {
            let maps = if forward { plan.outmaps } else { plan.inmaps };
            dy.reshape((plan.n_images, maps, ()))?.sum((0, 2))
        };
        let shaped = |dx: Tensor, like: &Tensor| dx.reshape(like.shape());
        Ok(vec![
            needed[0].then(|| shaped(dx()?, &arg)).transpose()?,
            needed[1].then(|| shaped(dw()?, &weights)).transpose()?,
            needed.get(2).filter(|needed| **needed).map(|_| db()).transpose()?,
        ])
    })
}

/// The convolution `(N, O, D', H', W')` of `x`.
fn outputs(plan: &Convolution, x: &Tensor, w: &Tensor) -> Result<Tensor> {
    let GroupSizes { group, outmaps, columns, .. } = GroupSizes::of(plan);
    let [d, h, wide] = plan.window.output;
    let n = plan.n_images * plan.outmaps * plan.window.n_outputs();
    if let Some(y) = depthwise("depthwise", plan, [x, w], n)? {
        return y.reshape((plan.n_images, plan.outmaps, d, h, wide));
    }
    let x = images(x, plan.n_images, plan.inmaps, plan.window.input)?;
    let parts = parts(plan, &x).map(|(start, len)| {
        let x = x.narrow(0, start, len)?;
        if let Some([pad, stride, dilation]) = as_conv2d(plan) {
            let [_, kh, kw] = plan.window.kernel;
            let w = w.reshape((outmaps, plan.inmaps, kh, kw))?;
            return x.squeeze(2)?.contiguous()?.conv2d(&w, pad, stride, dilation, 1)?.unsqueeze(2);
        }
        let seen = unfold(&x, &plan.window)?.reshape((group, columns, ()))?;
        let y = w.reshape((group, outmaps, columns))?.matmul(&seen)?;
        y.reshape((plan.outmaps, len, d, h, wide))?.transpose(0, 1)
    });
    let parts = parts.collect::<Result<Vec<_>>>()?;
    joined(&parts, x.zeros_like()?.reshape((0, plan.outmaps, d, h, wide)))
}

/// The transpose of [`outputs`]: `(N, C, D, H, W)`.
fn inputs(plan: &Convolution, dy: &Tensor, w: &Tensor) -> Result<Tensor> {
    let GroupSizes { group, outmaps, columns, taps } = GroupSizes::of(plan);
    let [d, h, wide] = plan.window.input;
    let n = plan.n_images * plan.inmaps * plan.window.n_inputs();
    if let Some(dx) = depthwise("depthwise_data", plan, [dy, w], n)? {
        return dx.reshape((plan.n_images, plan.inmaps, d, h, wide));
    }
    let dy = images(dy, plan.n_images, plan.outmaps, plan.window.output)?;
    let w = w.reshape((group, outmaps, columns))?.t()?.contiguous()?;
    let parts = parts(plan, &dy).map(|(start, len)| {
        let dy = by_group(plan, &dy.narrow(0, start, len)?)?;
        fold(&w.matmul(&dy)?.reshape((plan.inmaps, taps, len, ()))?, &plan.window)
    });
    let parts = parts.collect::<Result<Vec<_>>>()?;
    joined(&parts, dy.zeros_like()?.reshape((0, plan.inmaps, d, h, wide)))
}

/// The gradient of the weights, `(group, outmaps, columns)`.
fn weight_gradient(plan: &Convolution, x: &Tensor, dy: &Tensor) -> Result<Tensor> {
    let GroupSizes { group, outmaps, columns, .. } = GroupSizes::of(plan);
    let [depth, height, _] = plan.window.output;
    let (rows, taps) = (depth * height, plan.window.n_taps());
    let n = plan.n_images * plan.outmaps * rows * taps;
    if let Some(dw) = depthwise("depthwise_weights", plan, [x, dy], n)? {
        let dw = dw.reshape((plan.n_images, plan.outmaps, rows, taps))?.sum((0, 2))?;
        return dw.reshape((group, outmaps, columns));
    }
    let x = images(x, plan.n_images, plan.inmaps, plan.window.input)?;
    let dy = images(dy, plan.n_images, plan.outmaps, plan.window.output)?;
    let zeros = Tensor::zeros((group, outmaps, columns), x.dtype(), x.device())?;
    parts(plan, &x).try_fold(zeros, |sum, (start, len)| {
        let seen = unfold(&x.narrow(0, start, len)?, &plan.window)?.reshape((group, columns, ()))?;
        sum + by_group(plan, &dy.narrow(0, start, len)?)?.matmul(&seen.t()?)?
    })
}

/// `n` results of a kernel for convolutions whose groups have one map each, if this is one and the kernel can run.
fn depthwise(
    name: &'static str,
    plan: &Convolution,
    inputs: [&Tensor; 2],
    n: usize,
) -> Result<Option<Tensor>> {
    if plan.group == 1 || plan.group != plan.inmaps || plan.n_images == 0 {
        return Ok(None);
    }
    let sizes = sizes(&plan.window, plan.inmaps, plan.outmaps / plan.inmaps);
    fused(Kernel::named(name), n, Arguments { sizes: &sizes, numbers: &[], inputs: &inputs }, n)
}

/// Sizes of one group.
struct GroupSizes {
    group: usize,
    outmaps: usize,
    columns: usize,
    taps: usize,
}

impl GroupSizes {
    fn of(plan: &Convolution) -> Self {
        let taps = plan.window.n_taps();
        let columns = plan.inmaps / plan.group * taps;
        Self { group: plan.group, outmaps: plan.outmaps / plan.group, columns, taps }
    }
}

fn images(x: &Tensor, n: usize, maps: usize, [d, h, w]: [usize; 3]) -> Result<Tensor> {
    x.reshape((n, maps, d, h, w))
}

/// Images of outputs as `(group, outmaps, pixels of all images)`.
fn by_group(plan: &Convolution, dy: &Tensor) -> Result<Tensor> {
    dy.transpose(0, 1)?.reshape((plan.group, plan.outmaps / plan.group, ()))
}

/// Start and length of runs of images whose columns fit into [`COLUMN_BYTES`].
fn parts(plan: &Convolution, like: &Tensor) -> impl Iterator<Item = (usize, usize)> {
    let bytes = [plan.inmaps, plan.window.n_taps(), plan.window.n_outputs(), like.dtype().size_in_bytes()]
        .into_iter()
        .fold(1usize, usize::saturating_mul);
    let (n, len) = (plan.n_images, (COLUMN_BYTES / bytes.max(1)).max(1));
    (0..n).step_by(len).map(move |start| (start, len.min(n - start)))
}

fn joined(parts: &[Tensor], empty: Result<Tensor>) -> Result<Tensor> {
    match parts {
        [] => empty,
        [one] => Ok(one.clone()),
        several => Tensor::cat(several, 0),
    }
}

/// Pad, stride and dilation if candle's own convolution, which cuDNN does where it is enabled, knows this geometry: one
/// number for both axes, no third axis, no groups.
fn as_conv2d(plan: &Convolution) -> Option<[usize; 3]> {
    let window = &plan.window;
    let flat = window.input[0] == 1 && window.kernel[0] == 1 && window.output[0] == 1 && window.pad[0] == 0;
    let square = [window.pad, window.stride, window.dilation].iter().all(|[_, row, column]| row == column);
    let known = flat && square && plan.group == 1 && window.n_inputs() > 0;
    known.then_some([window.pad[1], window.stride[1], window.dilation[1]])
}
