//! Products, convolutions, poolings and normalizations.

use candle_core::Tensor;

use super::super::Fault;
use super::{Arguments, Call, Kind, Prepared};
use crate::functions::{self, ConvGeometry, DeconvGeometry, channels_first};
use crate::parametric_functions::moved_statistics;
use crate::{PerAxis, Result};

pub(super) static KINDS: &[Kind] = &[
    Kind::new("Affine", 2..=3, affine),
    Kind::new("AveragePooling", 1..=1, average_pooling),
    Kind::new("BatchNormalization", 3..=5, batch_normalization).outputs(1..=3),
    Kind::new("Convolution", 2..=3, convolution),
    Kind::new("Deconvolution", 2..=3, deconvolution),
    Kind::new("DeformableConvolution", 3..=5, deformable_convolution),
    Kind::new("DepthwiseConvolution", 2..=3, depthwise_convolution),
    Kind::new("DepthwiseDeconvolution", 2..=3, depthwise_deconvolution),
    Kind::new("Embed", 2..=2, |_| Prepared::one(|call| functions::embed(call.input(0)?, call.input(1)?)))
        .integers(&[0]),
    Kind::new("FusedBatchNormalization", 5..=6, fused_batch_normalization).outputs(1..=3),
    Kind::new("GlobalAveragePooling", 1..=1, |_| {
        Prepared::one(|call| functions::global_average_pooling(call.input(0)?))
    }),
    Kind::new("MaxPooling", 1..=1, max_pooling),
    Kind::new("SumPooling", 1..=1, sum_pooling),
];

fn affine(arguments: &Arguments<'_>) -> Result<Prepared, Fault> {
    let base_axis = arguments.integer("base_axis");
    Prepared::fusing(move |call, relu| {
        let (inp, w) = (call.input(0)?, call.input(1)?);
        Ok(vec![functions::affine_then(inp, w, call.get(2), base_axis.into(), relu)?])
    })
}

/// Where the windows of a convolution lie.
#[derive(Clone)]
pub(super) struct Windows {
    base_axis: i64,
    pad: PerAxis,
    stride: PerAxis,
    dilation: PerAxis,
    channel_last: bool,
}

impl Windows {
    pub(super) fn new(arguments: &Arguments<'_>) -> Result<Self, Fault> {
        Ok(Self {
            base_axis: arguments.integer("base_axis"),
            pad: arguments.per_axis("pad", 0)?,
            stride: arguments.per_axis("stride", 1)?,
            dilation: arguments.per_axis("dilation", 1)?,
            channel_last: false,
        })
    }

    /// As [`new`](Self::new), for a function that may have the channels last.
    fn of_layout(arguments: &Arguments<'_>) -> Result<Self, Fault> {
        Ok(Self { channel_last: arguments.flag("channel_last"), ..Self::new(arguments)? })
    }

    /// The sizes of the input with the channels before the spatial axes, and the kernel of the weights.
    fn sizes(&self, inp: &Tensor, w: &Tensor) -> (Vec<usize>, PerAxis) {
        let kernel = match (w.dims(), self.channel_last) {
            ([_, kernel @ .., _], true) => kernel,
            ([_, _, kernel @ ..], false) => kernel,
            _ => &[],
        };
        (channels_first(inp.dims(), self.channel_last, self.base_axis), PerAxis::Each(kernel.to_vec()))
    }

    /// The geometry of a convolution of these weights.
    pub(super) fn convolution(&self, inp: &Tensor, w: &Tensor, group: usize) -> Result<ConvGeometry> {
        let (dims, kernel) = self.sizes(inp, w);
        let geometry = ConvGeometry::new(
            &dims,
            &kernel,
            &self.pad,
            &self.stride,
            &self.dilation,
            group,
            self.base_axis,
        )?;
        Ok(geometry.with_channel_last(self.channel_last))
    }

    fn deconvolution(&self, inp: &Tensor, w: &Tensor, group: usize) -> Result<DeconvGeometry> {
        let (dims, kernel) = self.sizes(inp, w);
        let geometry = DeconvGeometry::new(
            &dims,
            &kernel,
            &self.pad,
            &self.stride,
            &self.dilation,
            group,
            self.base_axis,
        )?;
        Ok(geometry.with_channel_last(self.channel_last))
    }
}

/// The kernel of weights that have one axis before it.
fn depthwise_kernel(w: &Tensor) -> PerAxis {
    PerAxis::Each(w.dims().get(1..).unwrap_or_default().to_vec())
}

fn convolution(arguments: &Arguments<'_>) -> Result<Prepared, Fault> {
    let (windows, group) = (Windows::of_layout(arguments)?, arguments.count("group")?);
    Prepared::fusing(move |call, relu| {
        let (inp, w) = (call.input(0)?, call.input(1)?);
        let geometry = windows.convolution(inp, w, group)?;
        Ok(vec![functions::convolution_then(inp, w, call.get(2), &geometry, relu)?])
    })
}

fn deconvolution(arguments: &Arguments<'_>) -> Result<Prepared, Fault> {
    let (windows, group) = (Windows::of_layout(arguments)?, arguments.count("group")?);
    let output_padding = arguments.per_axis("output_padding", 0)?;
    Prepared::fusing(move |call, relu| {
        let (inp, w) = (call.input(0)?, call.input(1)?);
        let geometry = windows.deconvolution(inp, w, group)?.with_output_padding(&output_padding)?;
        Ok(vec![functions::deconvolution_then(inp, w, call.get(2), &geometry, relu)?])
    })
}

/// The mask has as many axes as the input, the bias one.
fn deformable_convolution(arguments: &Arguments<'_>) -> Result<Prepared, Fault> {
    let (windows, group) = (Windows::of_layout(arguments)?, arguments.count("group")?);
    let deformable_group = arguments.count("deformable_group")?;
    Prepared::one(move |call| {
        let (inp, w, offset) = (call.input(0)?, call.input(1)?, call.input(2)?);
        let of_rank = |rank: usize| call.inputs.iter().skip(3).find(|input| input.rank() == rank);
        let geometry = windows.convolution(inp, w, group)?;
        let (mask, b) = (of_rank(inp.rank()), of_rank(1));
        functions::deformable_convolution(inp, w, b, offset, mask, &geometry, deformable_group)
    })
}

fn depthwise_convolution(arguments: &Arguments<'_>) -> Result<Prepared, Fault> {
    let windows = Windows::new(arguments)?;
    Prepared::fusing(move |call, relu| {
        let (inp, w) = (call.input(0)?, call.input(1)?);
        let Windows { base_axis, pad, stride, dilation, .. } = &windows;
        let geometry =
            ConvGeometry::depthwise(inp.dims(), &depthwise_kernel(w), pad, stride, dilation, *base_axis)?;
        Ok(vec![functions::convolution_then(inp, &w.unsqueeze(1)?, call.get(2), &geometry, relu)?])
    })
}

fn depthwise_deconvolution(arguments: &Arguments<'_>) -> Result<Prepared, Fault> {
    let (windows, divisor) = (Windows::new(arguments)?, arguments.count("divisor")?);
    Prepared::one(move |call| {
        let (inp, w) = (call.input(0)?, call.input(1)?);
        let Windows { base_axis, pad, stride, dilation, .. } = &windows;
        let kernel = depthwise_kernel(w);
        let geometry =
            DeconvGeometry::depthwise(inp.dims(), divisor, &kernel, pad, stride, dilation, *base_axis)?;
        functions::deconvolution(inp, &w.unsqueeze(1)?, call.get(2), &geometry)
    })
}

/// The windows of a pooling.
struct Pooling {
    kernel: PerAxis,
    stride: Option<PerAxis>,
    pad: PerAxis,
    ignore_border: bool,
    channel_last: bool,
}

impl Pooling {
    fn new(arguments: &Arguments<'_>) -> Result<Self, Fault> {
        let stride = Some(arguments.per_axis("stride", 0)?).filter(|stride| *stride != PerAxis::Every(0));
        Ok(Self {
            kernel: arguments.per_axis("kernel", 0)?,
            stride,
            pad: arguments.per_axis("pad", 0)?,
            ignore_border: arguments.flag("ignore_border"),
            channel_last: arguments.flag("channel_last"),
        })
    }
}

fn max_pooling(arguments: &Arguments<'_>) -> Result<Prepared, Fault> {
    let Pooling { kernel, stride, pad, ignore_border, channel_last } = Pooling::new(arguments)?;
    Prepared::one(move |call| {
        functions::max_pooling(call.input(0)?, &kernel, stride.as_ref(), ignore_border, &pad, channel_last)
    })
}

fn sum_pooling(arguments: &Arguments<'_>) -> Result<Prepared, Fault> {
    let Pooling { kernel, stride, pad, ignore_border, channel_last } = Pooling::new(arguments)?;
    Prepared::one(move |call| {
        functions::sum_pooling(call.input(0)?, &kernel, stride.as_ref(), ignore_border, &pad, channel_last)
    })
}

fn average_pooling(arguments: &Arguments<'_>) -> Result<Prepared, Fault> {
    let Pooling { kernel, stride, pad, ignore_border, channel_last } = Pooling::new(arguments)?;
    let including_pad = arguments.flag("including_pad");
    Prepared::one(move |call| {
        let (inp, stride) = (call.input(0)?, stride.as_ref());
        functions::average_pooling(inp, &kernel, stride, ignore_border, &pad, channel_last, including_pad)
    })
}

/// Batch normalization with the places of its inputs: those that are left out leave no gap.
#[derive(Clone)]
struct BatchNormalization {
    axes: Vec<usize>,
    decay_rate: f64,
    eps: f64,
    batch_stat: bool,
    beta: Option<usize>,
    gamma: Option<usize>,
    mean: usize,
    var: usize,
    n_outputs: usize,
}

impl BatchNormalization {
    fn new(
        arguments: &Arguments<'_>,
        beta: Option<usize>,
        gamma: Option<usize>,
        mean: usize,
    ) -> Result<Self, Fault> {
        let found = Self {
            axes: arguments.counts("axes")?,
            decay_rate: arguments.number("decay_rate"),
            eps: arguments.number("eps"),
            batch_stat: arguments.flag("batch_stat"),
            beta,
            gamma,
            mean,
            var: mean + 1,
            n_outputs: arguments.n_outputs,
        };
        if found.n_outputs == 2 {
            return Err(Fault::new(
                "makes one output, or three with the mean and the variance of the batch, but 2 are named",
            ));
        }
        if found.n_outputs > 1 && !found.batch_stat {
            return Err(Fault::new(
                "names three outputs, but has no statistics of the batch without `batch_stat`",
            ));
        }
        Ok(found)
    }

    fn call(&self, call: &Call<'_>, relu: bool) -> Result<Vec<Tensor>> {
        let (inp, mean, var) = (call.input(0)?, call.input(self.mean)?, call.input(self.var)?);
        let [beta, gamma] = [self.beta, self.gamma].map(|place| place.and_then(|place| call.get(place)));
        if !self.batch_stat {
            let statistics = [mean.clone(), var.clone()];
            let y = functions::batch_normalization_by_then(
                inp,
                [beta, gamma],
                &statistics,
                &self.axes,
                self.eps,
                relu,
            )?;
            return Ok(vec![y]);
        }
        let (y, batch_mean, batch_var) =
            functions::batch_normalization_then(inp, [beta, gamma], &self.axes, self.eps, relu)?;
        if let [_] = self.axes[..] {
            call.update([self.mean, self.var], |[mean, var]| {
                let n = inp.elem_count() / batch_var.elem_count().max(1);
                moved_statistics([mean, var], [&batch_mean, &batch_var], n, self.decay_rate)
            })?;
        }
        let mut outputs = vec![y, batch_mean, batch_var];
        outputs.truncate(self.n_outputs);
        Ok(outputs)
    }

    fn prepared(self) -> Result<Prepared, Fault> {
        let (state, of_one) = (vec![self.mean, self.var], self.n_outputs == 1);
        let prepared = Prepared::fusing(move |call, relu| self.call(call, relu))?;
        let with_relu = prepared.with_relu.filter(|_| of_one);
        Ok(Prepared { state, with_relu, ..prepared })
    }
}

/// The places of a bias and a scale behind the input, and of what follows them.
pub(super) fn bias_and_scale(
    arguments: &Arguments<'_>,
    more: usize,
) -> Result<(Option<usize>, Option<usize>, usize), Fault> {
    let mut next = 1;
    let mut place = |missing: bool| (!missing).then(|| (next, next += 1).0);
    let (beta, gamma) = (place(arguments.flag("no_bias")), place(arguments.flag("no_scale")));
    if arguments.n_inputs != next + more {
        let reason = format!(
            "takes {} inputs with these `no_bias` and `no_scale`, got {}",
            next + more,
            arguments.n_inputs
        );
        return Err(Fault::new(reason));
    }
    Ok((beta, gamma, next))
}

fn batch_normalization(arguments: &Arguments<'_>) -> Result<Prepared, Fault> {
    let (beta, gamma, mean) = bias_and_scale(arguments, 2)?;
    BatchNormalization::new(arguments, beta, gamma, mean)?.prepared()
}

fn fused_batch_normalization(arguments: &Arguments<'_>) -> Result<Prepared, Fault> {
    let normalization = BatchNormalization::new(arguments, Some(1), Some(2), 3)?;
    let nonlinearity = match arguments.text("nonlinearity") {
        "relu" => true,
        "" | "identity" => false,
        other => {
            return Err(Fault::new(format!(
                "`nonlinearity` must be \"relu\" or \"identity\", got {other:?}"
            )));
        }
    };
    let state = vec![normalization.mean, normalization.var];
    let prepared = Prepared::many(move |call| {
        let added = call.get(5);
        let mut outputs = normalization.call(call, nonlinearity && added.is_none())?;
        if let Some(added) = added {
            outputs[0] = functions::add(&outputs[0], added, nonlinearity)?;
        }
        Ok(outputs)
    })?;
    Ok(Prepared { state, ..prepared })
}
