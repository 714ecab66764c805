//! Pooling over the last one to three axes.

use std::sync::Arc;

use candle_core::Tensor;

use super::arrange::moved;
use super::composed;
use super::geometry::{padded, positive, three_axes};
use super::graph::attach;
use super::node::{accumulate, compute, element_count, for_float, widened, without_kernels};
use crate::kernels::{self, Channels, Divisor, Float, Window};
use crate::told::{Form, told};
use crate::{Error, PerAxis, Result, check};

/// The largest value of each window.
///
/// Padding is never the maximum. Of several equal values, the first one in row-major order gets the gradient.
///
/// # Shapes
/// - `inp`: `(N.., L1, .., Ld)`, with as many spatial axes as `kernel` has numbers, or, if it is a single
///   integer, all axes but the first two; with `channel_last` the axis of the channels follows them, also in
///   the output
/// - output: `(N.., L1', .., Ld')`, `Li' = (Li + 2 pad - kernel) / stride + 1`, or with `ignore_border` false
///   `(Li + pad) / stride` rounded up, where windows are cut off at the end of the padding, as in NNabla
///
/// If `stride` is `None`, it is `kernel`. The layer [`max_pooling`](crate::max_pooling()) has defaults for all
/// options.
///
/// # Errors
/// [`Error::InvalidArgument`] if sizes are 0 or do not match the input, or `pad` is not smaller than `kernel`.
///
/// # Source
/// NNabla `F.max_pooling`, which supports neither `channel_last` nor kernels of one axis on the CPU.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// let x = Tensor::new(&[[[1f32, 3., 2., 5.]]], &Device::Cpu)?;
/// let y = layerfn::functions::max_pooling(&x, &2.into(), None, true, &0.into(), false)?;
/// assert_eq!(y.to_vec3::<f32>()?, [[[3., 5.]]]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn max_pooling(
    inp: &Tensor,
    kernel: &PerAxis,
    stride: Option<&PerAxis>,
    ignore_border: bool,
    pad: &PerAxis,
    channel_last: bool,
) -> Result<Tensor> {
    if channel_last {
        return channels_before(inp, kernel, |inp| {
            max_pooling(inp, kernel, stride, ignore_border, pad, false)
        });
    }
    let form = || form("MaxPooling", inp, [Some(kernel), stride, Some(pad)], ignore_border);
    told(form, || max_pooled(inp, sizes(inp, kernel, stride, ignore_border, pad)?))
}

fn max_pooled(inp: &Tensor, (window, dims): (Window, Vec<usize>)) -> Result<Tensor> {
    if u32::try_from(window.n_inputs()).is_err() {
        return Err(Error::invalid("inp", "must have fewer than 2^32 elements per plane", inp.dims()));
    }
    let compose = |t: &[Tensor]| Ok([composed::pooling::max(&t[0], &window, &dims)?]);
    if let Some([y]) = without_kernels("max_pooling", &[inp], compose)? {
        return Ok(y);
    }
    let [x] = widened("max_pooling", [inp])?;
    let y = for_float!(x.dtype(), T => {
        check::memory::<u32>("inp", element_count(&dims)?)?;
        let mut positions = Vec::new();
        let y = compute::<T, 1>(dims, [&x], |[x], y| {
            positions = vec![0; y.len()];
            kernels::max_pool(&window, x, y, &mut positions);
        })?;
        let (positions, input_dims) = (Arc::new(positions), x.dims().to_vec());
        attach("max_pooling", [&x], y, move |dy| {
            let dx = accumulate::<T, 1>(&*input_dims, [dy], |[dy], dx| {
                kernels::max_pool_gradient(&window, &positions, dy, dx);
            })?;
            Ok([Some(dx.into_tensor()?)])
        })
    })?;
    Ok(y.to_dtype(inp.dtype())?)
}

fn form(kind: &'static str, inp: &Tensor, sizes: [Option<&PerAxis>; 3], ignore_border: bool) -> Form {
    let [kernel, stride, pad] = sizes.map(|given| {
        let n = sizes[0].map_or(0, |kernel| n_spatial(inp, kernel));
        given.and_then(|given| given.resolve("kernel", n).ok()).unwrap_or_default()
    });
    let stride = if stride.is_empty() { kernel.clone() } else { stride };
    let form = Form::new(kind, &[inp]).with("kernel", kernel).with("stride", stride);
    form.with("ignore_border", ignore_border).with("pad", pad).with("channel_last", false)
}

/// The mean of each window.
///
/// With `including_pad`, which is NNabla's default, the padding counts as zeros; otherwise only the inputs count.
/// A window that is cut off at the end (`ignore_border` false) ends where the padding does.
///
/// # Shapes
/// As [`max_pooling`]. The layer [`average_pooling`](crate::average_pooling()) has defaults for all options.
///
/// # Errors
/// [`Error::InvalidArgument`] if sizes are 0 or do not match the input, or `pad` is not smaller than `kernel`.
///
/// # Source
/// NNabla `F.average_pooling`, which supports neither `channel_last` nor kernels of one axis on the CPU.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// let x = Tensor::new(&[[[1f32, 3., 2., 6.]]], &Device::Cpu)?;
/// let y = layerfn::functions::average_pooling(&x, &2.into(), None, true, &0.into(), false, true)?;
/// assert_eq!(y.to_vec3::<f32>()?, [[[2., 4.]]]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn average_pooling(
    inp: &Tensor,
    kernel: &PerAxis,
    stride: Option<&PerAxis>,
    ignore_border: bool,
    pad: &PerAxis,
    channel_last: bool,
    including_pad: bool,
) -> Result<Tensor> {
    let by = if including_pad { Divisor::Padded } else { Divisor::Inputs };
    let sizes = |inp: &Tensor| sizes(inp, kernel, stride, ignore_border, pad);
    let pooled = |inp: &Tensor| {
        let form = || {
            let form = form("AveragePooling", inp, [Some(kernel), stride, Some(pad)], ignore_border);
            form.with("including_pad", including_pad)
        };
        told(form, || summed("average_pooling", inp, sizes(inp)?, by))
    };
    if channel_last { channels_before(inp, kernel, pooled) } else { pooled(inp) }
}

/// The sum of each window.
///
/// # Shapes
/// As [`max_pooling`]. The layer [`sum_pooling`](crate::sum_pooling()) has defaults for all options.
///
/// # Errors
/// [`Error::InvalidArgument`] if sizes are 0 or do not match the input, or `pad` is not smaller than `kernel`.
///
/// # Source
/// NNabla `F.sum_pooling`, which supports neither `channel_last` nor kernels of one axis on the CPU.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// let x = Tensor::new(&[[[1f32, 3., 2., 6.]]], &Device::Cpu)?;
/// let y = layerfn::functions::sum_pooling(&x, &2.into(), None, true, &0.into(), false)?;
/// assert_eq!(y.to_vec3::<f32>()?, [[[4., 8.]]]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn sum_pooling(
    inp: &Tensor,
    kernel: &PerAxis,
    stride: Option<&PerAxis>,
    ignore_border: bool,
    pad: &PerAxis,
    channel_last: bool,
) -> Result<Tensor> {
    let sizes = |inp: &Tensor| sizes(inp, kernel, stride, ignore_border, pad);
    let pooled = |inp: &Tensor| {
        let form = || form("SumPooling", inp, [Some(kernel), stride, Some(pad)], ignore_border);
        told(form, || summed("sum_pooling", inp, sizes(inp)?, Divisor::One))
    };
    if channel_last { channels_before(inp, kernel, pooled) } else { pooled(inp) }
}

/// The sum of each window, divided.
fn summed(
    name: &'static str,
    inp: &Tensor,
    (window, dims): (Window, Vec<usize>),
    by: Divisor,
) -> Result<Tensor> {
    let compose = |t: &[Tensor]| Ok([composed::pooling::sum(&t[0], &window, by, &dims)?]);
    if let Some([y]) = without_kernels(name, &[inp], compose)? {
        return Ok(y);
    }
    let [x] = widened(name, [inp])?;
    let y = for_float!(x.dtype(), T => {
        let y = compute::<T, 1>(dims, [&x], |[x], y| kernels::sum_pool(&window, by, x, y))?;
        let input_dims = x.dims().to_vec();
        attach(name, [&x], y, move |dy| {
            let dx = accumulate::<T, 1>(&*input_dims, [dy], |[dy], dx| {
                kernels::sum_pool_gradient(&window, by, dy, dx);
            })?;
            Ok([Some(dx.into_tensor()?)])
        })
    })?;
    Ok(y.to_dtype(inp.dtype())?)
}

/// The number of axes that `kernel` covers: as many as it has numbers, or all but two.
pub(super) fn n_spatial(inp: &Tensor, kernel: &PerAxis) -> usize {
    match kernel {
        PerAxis::Each(sizes) => sizes.len(),
        PerAxis::Every(_) => inp.rank().saturating_sub(2),
    }
}

/// Runs `f` with the axis of the channels moved before those that `kernel` covers, and moves it to the end of
/// the result.
fn channels_before(inp: &Tensor, kernel: &PerAxis, f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    let Some((last, first)) =
        inp.rank().checked_sub(1).and_then(|last| Some((last, last.checked_sub(n_spatial(inp, kernel))?)))
    else {
        let reason = "must have one to three spatial axes and the channels behind them";
        return Err(Error::invalid("inp", reason, inp.dims()));
    };
    let y = f(&moved(inp, last, first)?)?;
    moved(&y, first, last)
}

/// The mean over all axes after the first two: `(N, C, L1, .., Ld)` becomes `(N, C, 1, .., 1)`.
///
/// # Errors
/// [`Error::InvalidArgument`] if the input has fewer than three axes or there is nothing to take the mean of.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// let x = Tensor::new(&[[[[1f32, 3.], [2., 6.]]]], &Device::Cpu)?;
/// let y = layerfn::functions::global_average_pooling(&x)?;
/// assert_eq!(y.dims(), [1, 1, 1, 1]);
/// assert_eq!(y.flatten_all()?.to_vec1::<f32>()?, [3.]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn global_average_pooling(inp: &Tensor) -> Result<Tensor> {
    told(
        || Form::new("GlobalAveragePooling", &[inp]),
        || {
            let dims = inp.dims();
            if dims.len() < 3 || dims[2..].contains(&0) {
                return Err(Error::invalid(
                    "inp",
                    "must have at least one spatial axis after two others, and no axis of size 0",
                    dims,
                ));
            }
            let compose = |t: &[Tensor]| Ok([composed::pooling::global_average(&t[0])?]);
            if let Some([y]) = without_kernels("global_average_pooling", &[inp], compose)? {
                return Ok(y);
            }
            let [x] = widened("global_average_pooling", [inp])?;
            let planes = Channels {
                outer: 1,
                channels: element_count(&dims[..2])?,
                inner: element_count(&dims[2..])?,
            };
            let mut output_dims = dims.to_vec();
            output_dims[2..].fill(1);
            let y = for_float!(x.dtype(), T => {
                let n = planes.inner as f64;
                let y = compute::<T, 1>(output_dims, [&x], |[x], y| {
                    for (y, [sum]) in y.iter_mut().zip(planes.sums(x, x, |_| |x, _| [x])) {
                        *y = T::of(sum / n);
                    }
                })?;
                let input_dims = dims.to_vec();
                attach("global_average_pooling", [&x], y, move |dy| {
                    let dx = compute::<T, 1>(&*input_dims, [dy], |[dy], dx| {
                        for (dx, dy) in dx.chunks_mut(planes.inner).zip(dy) {
                            dx.fill(*dy / T::of(n));
                        }
                    })?;
                    Ok([Some(dx.into_tensor()?)])
                })
            })?;
            Ok(y.to_dtype(inp.dtype())?)
        },
    )
}

/// The window and the sizes of the output.
fn sizes(
    inp: &Tensor,
    kernel: &PerAxis,
    stride: Option<&PerAxis>,
    ignore_border: bool,
    pad: &PerAxis,
) -> Result<(Window, Vec<usize>)> {
    let dims = inp.dims();
    let n_axes = n_spatial(inp, kernel);
    if !(1..=3).contains(&n_axes) || n_axes > dims.len() {
        let reason =
            "must have one to three spatial axes: as many as `kernel` has numbers, or all but the first two";
        return Err(Error::invalid("inp", reason, dims));
    }
    let kernel = positive("kernel", kernel, n_axes)?;
    let stride = match stride {
        Some(stride) => positive("stride", stride, n_axes)?,
        None => kernel.clone(),
    };
    let pad = pad.resolve("pad", n_axes)?;
    let (batch, spatial) = dims.split_at(dims.len() - n_axes);
    let (mut windows, mut steps) = (kernel.clone(), stride.clone());
    let mut output = batch.to_vec();
    for axis in 0..n_axes {
        let (size, kernel, stride, pad) = (spatial[axis], kernel[axis], stride[axis], pad[axis]);
        if size == 0 {
            return Err(Error::invalid("inp", "must have no spatial axis of size 0", dims));
        }
        let padded = padded("pad", size, pad)?;
        let outputs = if !ignore_border {
            (size + pad).div_ceil(stride)
        } else if kernel <= padded {
            (padded - kernel) / stride + 1
        } else {
            let reason =
                format!("must be at most {padded} on spatial axis {axis} (input {size} plus padding)");
            return Err(Error::invalid("kernel", reason, kernel));
        };
        if pad >= kernel {
            let reason = format!("must be smaller than the kernel, {kernel} on spatial axis {axis}");
            return Err(Error::invalid("pad", reason, pad));
        }
        output.push(outputs);
        // What lies outside of the padded input changes nothing.
        (windows[axis], steps[axis]) = (kernel.min(padded), stride.min(padded));
    }
    check::count("inp", dims)?;
    check::count("pad", &output)?;
    let window = Window {
        input: three_axes(spatial, 1),
        output: three_axes(&output[batch.len()..], 1),
        kernel: three_axes(&windows, 1),
        pad: three_axes(&pad, 0),
        stride: three_axes(&steps, 1),
        dilation: [1; 3],
    };
    Ok((window, output))
}
