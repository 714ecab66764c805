//! Functions that move elements or see several of them.
#![allow(non_snake_case)] // NNabla's names of arguments

use candle_core::Tensor;
use layerfn::functions::{
    self as f, BorderMode, ConvGeometry, DeconvGeometry, Interpolation, InterpolationMode, PadMode,
};
use layerfn::{Axes, PerAxis};
use serde_json::Value;

use super::Axis;
use crate::support::fixtures::Tensors;
use crate::support::layers::Argument;

functions! {
    affine(x, weight, [bias]; base_axis: i64 = 1) => f::affine(&x, &weight, bias.as_ref(), base_axis as usize);
    convolution(
        x, weight, [bias];
        base_axis: i64 = 1, pad: PerAxis = 0.into(), stride: PerAxis = 1.into(), dilation: PerAxis = 1.into(),
        group: usize = 1, channel_last: bool = false
    ) => {
        let (dims, kernel) = layout(&x, &weight, channel_last, base_axis);
        ConvGeometry::new(&dims, &kernel, &pad, &stride, &dilation, group, base_axis as usize).and_then(|geometry| {
            f::convolution(&x, &weight, bias.as_ref(), &geometry.with_channel_last(channel_last))
        })
    };
    deconvolution(
        x, weight, [bias];
        base_axis: i64 = 1, pad: PerAxis = 0.into(), stride: PerAxis = 1.into(), dilation: PerAxis = 1.into(),
        group: usize = 1, channel_last: bool = false, output_padding: PerAxis = 0.into()
    ) => {
        let (dims, kernel) = layout(&x, &weight, channel_last, base_axis);
        DeconvGeometry::new(&dims, &kernel, &pad, &stride, &dilation, group, base_axis as usize)
            .and_then(|geometry| geometry.with_channel_last(channel_last).with_output_padding(&output_padding))
            .and_then(|geometry| f::deconvolution(&x, &weight, bias.as_ref(), &geometry))
    };
    embed(x0, w) => f::embed(&x0, &w);
    max_pooling(
        x;
        kernel: PerAxis, stride: Option<PerAxis> = None, ignore_border: bool = true, pad: PerAxis = 0.into(),
        channel_last: bool = false
    ) => f::max_pooling(&x, &kernel, stride.as_ref(), ignore_border, &pad, channel_last);
    average_pooling(
        x;
        kernel: PerAxis, stride: Option<PerAxis> = None, ignore_border: bool = true, pad: PerAxis = 0.into(),
        channel_last: bool = false, including_pad: bool = true
    ) => f::average_pooling(&x, &kernel, stride.as_ref(), ignore_border, &pad, channel_last, including_pad);
    sum_pooling(
        x;
        kernel: PerAxis, stride: Option<PerAxis> = None, ignore_border: bool = true, pad: PerAxis = 0.into(),
        channel_last: bool = false
    ) => f::sum_pooling(&x, &kernel, stride.as_ref(), ignore_border, &pad, channel_last);
    global_average_pooling(x) => f::global_average_pooling(&x);
    unpooling(x; kernel: PerAxis, channel_last: bool = false) => f::unpooling(&x, &kernel, channel_last);
    interpolate(
        x;
        scale: Option<Vec<f64>> = None, output_size: Option<Vec<usize>> = None,
        mode: InterpolationMode = InterpolationMode::Linear, align_corners: bool = false, half_pixel: bool = false,
        half_pixel_for_nn: bool = false, channel_last: bool = false
    ) => {
        let how = Interpolation { mode, align_corners, half_pixel, half_pixel_for_nn, channel_last };
        f::interpolate(&x, scale.as_deref(), output_size.as_deref(), how)
    };
    pad(x; pad_width: Vec<usize>, mode: PadMode = PadMode::Constant, constant_value: f64 = 0.0) =>
        f::pad(&x, &pad_width, mode, constant_value);
    batch_matmul(a, b; transpose_a: bool = false, transpose_b: bool = false) =>
        f::batch_matmul(&a, &b, transpose_a, transpose_b);
    one_hot(x; shape: Vec<usize>) => f::one_hot(&x, shape);
    top_n_error(x, target; axis: Axis = Axis(-1), n: usize = 1) => f::top_n_error(&x, &target, axis.0, n);
    norm(x; p: f64 = 2.0, axis: AxisList = AxisList::all(), keepdims: bool = false) => f::norm(&x, p, axis.0, keepdims);
    norm_normalization(x; p: f64 = 2.0, axes: AxisList = AxisList::all(), eps: f64 = 1e-12) =>
        f::norm_normalization(&x, p, axes.0, eps);
    sum(x; axis: AxisList = AxisList::all(), keepdims: bool = false) => f::sum(&x, axis.0, keepdims);
    mean(x; axis: AxisList = AxisList::all(), keepdims: bool = false) => f::mean(&x, axis.0, keepdims);
    max(x; axis: AxisList = AxisList::all(), keepdims: bool = false) => f::max(&x, axis.0, keepdims);
    min(x; axis: AxisList = AxisList::all(), keepdims: bool = false) => f::min(&x, axis.0, keepdims);
    prod(x; axis: AxisList = AxisList::all(), keepdims: bool = false) => f::prod(&x, axis.0, keepdims);
    cumsum(x; axis: Axis = Axis(0), exclusive: bool = false, reverse: bool = false) =>
        f::cumsum(&x, axis.0, exclusive, reverse);
    reshape(x; shape: Vec<i64>) => f::reshape(&x, &shape.into_iter().map(|n| n as isize).collect::<Vec<_>>());
    transpose(x; axes: AxisList) => f::transpose(&x, axes.0);
    slice(x; start: Ends = Ends::default(), stop: Ends = Ends::default(), step: Ends = Ends::default()) => {
        let step: Vec<_> = step.0.into_iter().map(|step| step.unwrap_or(1)).collect();
        f::slice(&x, &start.0, &stop.0, &step)
    };
    split(x; axis: Axis = Axis(0)) => f::split(&x, axis.0);
    stack({x}; axis: Axis = Axis(0)) => f::stack(&x.iter().collect::<Vec<_>>(), axis.0);
    concatenate({x}; axis: Axis = Axis(-1)) => f::concatenate(&x.iter().collect::<Vec<_>>(), axis.0);
    broadcast(x; shape: Vec<usize>) => f::broadcast(&x, shape);
    tile(x; reps: Vec<usize>) => f::tile(&x, reps);
    flip(x; axes: AxisList = AxisList(Axes::from(-1))) => f::flip(&x, axes.0);
    shift(x; shifts: Vec<i64>, border_mode: BorderMode = BorderMode::Nearest) =>
        f::shift(&x, &shifts.into_iter().map(|by| by as isize).collect::<Vec<_>>(), border_mode);
    gather(x, Indices; axis: Axis = Axis(0), batch_dims: usize = 0) => f::gather(&x, &Indices, axis.0, batch_dims);
    sort(x; axis: Axis = Axis(-1), reverse: bool = false) => f::sort(&x, axis.0, reverse);
    unlink(x) => f::unlink(&x);
    tensor_normalization(x, [beta], [gamma]; axes: AxisList, eps: f64 = 1e-5) =>
        f::tensor_normalization(&x, axes.0, beta.as_ref(), gamma.as_ref(), eps).map(|(y, ..)| y);
    weight_standardization(w; channel_axis: Axis = Axis(0), eps: f64 = 1e-5) =>
        f::weight_standardization(&w, channel_axis.0, eps).map(|(w, ..)| w);
}

/// The sizes of the input with the channels first, and the kernel.
fn layout(x: &Tensor, weight: &Tensor, channel_last: bool, base_axis: i64) -> (Vec<usize>, PerAxis) {
    let kernel = match channel_last {
        true => &weight.dims()[1..weight.rank() - 1],
        false => &weight.dims()[2..],
    };
    (f::channels_first(x.dims(), channel_last, base_axis as usize), PerAxis::from(kernel))
}

/// An axis or several.
pub(super) struct AxisList(pub(super) Axes);

impl AxisList {
    /// Every axis.
    pub(super) fn all() -> Self {
        Self(Axes::from(..))
    }
}

impl Argument for AxisList {
    fn read(value: &Value, _: &Tensors) -> Result<Self, String> {
        integers(value)
            .map(|axes| Self(axes.into()))
            .ok_or_else(|| "must be an axis or a list of axes".to_owned())
    }
}

/// An integer, or several.
fn integers(value: &Value) -> Option<Vec<i64>> {
    match value {
        Value::Array(values) => values.iter().map(Value::as_i64).collect(),
        single => Some(vec![single.as_i64()?]),
    }
}

impl Argument for Vec<i64> {
    fn read(value: &Value, _: &Tensors) -> Result<Self, String> {
        integers(value).ok_or_else(|| "must be a list of integers".to_owned())
    }
}

impl Argument for Vec<f64> {
    fn read(value: &Value, tensors: &Tensors) -> Result<Self, String> {
        value
            .as_array()
            .ok_or("must be a list of numbers")?
            .iter()
            .map(|value| f64::read(value, tensors))
            .collect()
    }
}

impl<T: Argument> Argument for Option<T> {
    fn read(value: &Value, tensors: &Tensors) -> Result<Self, String> {
        if value.is_null() { Ok(None) } else { T::read(value, tensors).map(Some) }
    }
}

/// Where slices start or end, or how they step; `null` where that goes without saying.
#[derive(Default)]
struct Ends(Vec<Option<isize>>);

impl Argument for Ends {
    fn read(value: &Value, tensors: &Tensors) -> Result<Self, String> {
        let ends = value.as_array().ok_or("must be a list")?;
        let end = |end: &Value| Ok(Option::<i64>::read(end, tensors)?.map(|end| end as isize));
        ends.iter().map(end).collect::<Result<_, String>>().map(Self)
    }
}

macro_rules! names {
    ($($ty:ty)+) => {$(
        impl Argument for $ty {
            fn read(value: &Value, _: &Tensors) -> Result<Self, String> {
                value.as_str().ok_or("must be a name")?.parse().map_err(|error: layerfn::Error| error.to_string())
            }
        }
    )+};
}

names! { PadMode BorderMode InterpolationMode }
