//! Normalizations of rows, groups and weights, and quantization to a range.

use candle_core::Tensor;

use super::super::Fault;
use super::layers::bias_and_scale;
use super::{Arguments, Call, Kind, Prepared};
use crate::functions::{self, MinMax};
use crate::{Error, Result};

pub(super) static KINDS: &[Kind] = &[
    Kind::new("GroupNormalization", 1..=3, group_normalization).outputs(1..=3),
    Kind::new("InstanceNormalization", 1..=3, instance_normalization).outputs(1..=3),
    Kind::new("LayerNormalization", 1..=3, layer_normalization).outputs(1..=3),
    Kind::new("MinMaxQuantize", 5..=5, min_max_quantize),
    Kind::new("SpectralNorm", 2..=2, spectral_norm).outputs(1..=2),
    Kind::new("WeightNormalization", 2..=2, weight_normalization),
];

type Normalized = (Tensor, Tensor, Tensor);

/// A normalization of its input with what the file gives of a bias and a scale; the mean and the variance, if they are named.
fn of_rows(
    arguments: &Arguments<'_>,
    call: impl Fn(&Tensor, Option<&Tensor>, Option<&Tensor>) -> Result<Normalized> + Send + Sync + 'static,
) -> Result<Prepared, Fault> {
    let (beta, gamma, _) = bias_and_scale(arguments, 0)?;
    let n_outputs = arguments.n_outputs;
    if n_outputs == 2 {
        return Err(Fault::new("makes one output, or three with the mean and the variance, but 2 are named"));
    }
    Prepared::many(move |given: &Call<'_>| {
        let coefficient = |place: Option<usize>| place.and_then(|place| given.get(place));
        let (y, mean, var) = call(given.input(0)?, coefficient(beta), coefficient(gamma))?;
        let mut outputs = vec![y, mean, var];
        outputs.truncate(n_outputs);
        Ok(outputs)
    })
}

fn layer_normalization(arguments: &Arguments<'_>) -> Result<Prepared, Fault> {
    let (batch_axis, eps) = (arguments.counts("batch_axis")?, arguments.number("eps"));
    of_rows(arguments, move |x, beta, gamma| functions::layer_normalization(x, beta, gamma, &batch_axis, eps))
}

fn group_normalization(arguments: &Arguments<'_>) -> Result<Prepared, Fault> {
    let (num_groups, channel_axis) = (arguments.count("num_groups")?, arguments.count("channel_axis")?);
    let (batch_axis, eps) = (arguments.counts("batch_axis")?, arguments.number("eps"));
    of_rows(arguments, move |x, beta, gamma| {
        functions::group_normalization(x, beta, gamma, num_groups, channel_axis, &batch_axis, eps)
    })
}

fn instance_normalization(arguments: &Arguments<'_>) -> Result<Prepared, Fault> {
    let channel_axis = arguments.count("channel_axis")?;
    let (batch_axis, eps) = (arguments.counts("batch_axis")?, arguments.number("eps"));
    of_rows(arguments, move |x, beta, gamma| {
        functions::instance_normalization(x, beta, gamma, channel_axis, &batch_axis, eps)
    })
}

fn weight_normalization(arguments: &Arguments<'_>) -> Result<Prepared, Fault> {
    let (dim, eps) = (arguments.integer("dim"), arguments.number("eps"));
    Prepared::one(move |call| functions::weight_normalization(call.input(0)?, call.input(1)?, dim, eps))
}

fn spectral_norm(arguments: &Arguments<'_>) -> Result<Prepared, Fault> {
    let (dim, itr, eps) = (arguments.integer("dim"), arguments.count("itr")?, arguments.number("eps"));
    let (test, output_u) = (arguments.flag("test"), arguments.flag("output_u"));
    let expected = 1 + usize::from(output_u);
    if arguments.n_outputs != expected {
        let reason =
            format!("makes {expected} outputs with this `output_u`, but {} are named", arguments.n_outputs);
        return Err(Fault::new(reason));
    }
    let prepared = Prepared::many(move |call| {
        let (y, u) = functions::spectral_norm(call.input(0)?, call.input(1)?, dim, itr, eps)?;
        if !test {
            call.update([1], |_| Ok([u.detach()]))?;
        }
        Ok(if output_u { vec![y, u] } else { vec![y] })
    })?;
    Ok(Prepared { state: vec![1], ..prepared })
}

fn min_max_quantize(arguments: &Arguments<'_>) -> Result<Prepared, Fault> {
    let quantizer = MinMax {
        decay: arguments.number("decay"),
        x_min_max: arguments.flag("x_min_max"),
        ema: arguments.flag("ema"),
        ste_fine_grained: arguments.flag("ste_fine_grained"),
        eps: arguments.number("eps"),
    };
    let averaged = quantizer.x_min_max;
    let quantizer = quantizer.checked().map_err(|error: Error| Fault::new(error.to_string()))?;
    let prepared = Prepared::one(move |call| {
        let range = [call.input(1)?, call.input(2)?];
        let quantized = quantizer.apply(call.input(0)?, range, [call.input(3)?, call.input(4)?])?;
        if let Some(range) = quantized.range {
            call.update([1, 2], |_| Ok(range.clone()))?;
        }
        Ok(quantized.output)
    })?;
    // A range that is not measured is trained; the levels never are.
    let state = if averaged { vec![1, 2, 3, 4] } else { vec![3, 4] };
    Ok(Prepared { state, ..prepared })
}
