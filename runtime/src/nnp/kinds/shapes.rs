//! Functions that move elements, change shapes or reduce axes, and what loops become.

use std::str::FromStr;

use candle_core::Tensor;

use super::super::Fault;
use super::{Arguments, Call, Kind, Prepared};
use crate::functions::{self, BorderMode, Interpolation, InterpolationMode, PadMode};
use crate::{Dims, Error, Result};

/// A reduction of some axes.
macro_rules! reduction {
    ($name:literal, $function:path) => {
        Kind::new($name, 1..=1, |arguments| {
            let (axes, keep_dims) = (arguments.integers("axes"), arguments.flag("keep_dims"));
            Prepared::one(move |call| $function(call.input(0)?, &axes[..], keep_dims))
        })
    };
}

/// A function that gives values and where they were, of which either may be left out.
macro_rules! with_index {
    ($arguments:ident, $call:expr) => {{
        let (with_index, only_index) = ($arguments.flag("with_index"), $arguments.flag("only_index"));
        let expected = 1 + usize::from(with_index && !only_index);
        if $arguments.n_outputs != expected {
            let reason = format!(
                "makes {expected} outputs with these `with_index` and `only_index`, but {} are named",
                $arguments.n_outputs
            );
            return Err(Fault::new(reason));
        }
        let call = $call;
        Prepared::many(move |given| {
            let (values, index): (Tensor, Tensor) = call(given)?;
            Ok(match (with_index, only_index) {
                (_, true) => vec![index],
                (true, false) => vec![values, index],
                (false, false) => vec![values],
            })
        })
    }};
}

pub(super) static KINDS: &[Kind] = &[
    Kind::new("BatchMatmul", 2..=2, batch_matmul),
    Kind::new("Broadcast", 1..=1, broadcast),
    Kind::new("Concatenate", 1..=usize::MAX, concatenate),
    Kind::new("Constant", 0..=0, constant),
    Kind::new("CumSum", 1..=1, cum_sum),
    Kind::new("Flip", 1..=1, flip),
    Kind::new("Identity", 1..=1, |_| Prepared::one(|call| Ok(call.input(0)?.clone()))),
    Kind::new("Interpolate", 1..=1, interpolate),
    Kind::new("Max", 1..=1, max).outputs(1..=2),
    reduction!("Mean", functions::mean),
    Kind::new("Min", 1..=1, min).outputs(1..=2),
    Kind::new("Norm", 1..=1, norm),
    Kind::new("NormNormalization", 1..=1, norm_normalization),
    Kind::new("OneHot", 1..=1, one_hot).integers(&[0]),
    Kind::new("Pad", 1..=1, pad),
    reduction!("Prod", functions::prod),
    Kind::new("Reshape", 1..=1, reshape),
    Kind::new("Shift", 1..=1, shift),
    Kind::new("Slice", 1..=1, slice),
    Kind::new("Sort", 1..=1, sort).outputs(1..=2),
    Kind::new("Split", 1..=1, |arguments| split_along(arguments.integer("axis"))).outputs(1..=usize::MAX),
    Kind::new("Stack", 1..=usize::MAX, |arguments| stack_along(arguments.integer("axis"))),
    reduction!("Sum", functions::sum),
    Kind::new("Tile", 1..=1, tile),
    Kind::new("TopNError", 2..=2, top_n_error).integers(&[1]),
    Kind::new("Transpose", 1..=1, transpose),
    Kind::new("Unpooling", 1..=1, unpooling),
];

/// What hands out the steps of a loop.
pub(super) static RECURRENT_INPUT: Kind =
    Kind::new("RecurrentInput", 1..=1, |_| Err(Fault::new("is not in a loop")));

/// What collects the steps of a loop.
pub(super) static RECURRENT_OUTPUT: Kind =
    Kind::new("RecurrentOutput", 1..=1, |_| Err(Fault::new("is not in a loop")));

/// Slices along an axis, which goes.
pub(super) fn split_along(axis: i64) -> Result<Prepared, Fault> {
    Prepared::many(move |call| functions::split(call.input(0)?, axis))
}

/// The inputs along a new axis.
pub(super) fn stack_along(axis: i64) -> Result<Prepared, Fault> {
    Prepared::one(move |call| functions::stack(&call.inputs.iter().collect::<Vec<_>>(), axis))
}

fn concatenate(arguments: &Arguments<'_>) -> Result<Prepared, Fault> {
    let axis = arguments.integer("axis");
    Prepared::one(move |call| functions::concatenate(&call.inputs.iter().collect::<Vec<_>>(), axis))
}

fn batch_matmul(arguments: &Arguments<'_>) -> Result<Prepared, Fault> {
    let (transpose_a, transpose_b) = (arguments.flag("transpose_a"), arguments.flag("transpose_b"));
    Prepared::one(move |call| {
        functions::batch_matmul(call.input(0)?, call.input(1)?, transpose_a, transpose_b)
    })
}

/// A shape that may begin with -1, which stands for the size of the batch.
struct Shape {
    open: bool,
    rest: Vec<isize>,
}

impl Shape {
    fn new(arguments: &Arguments<'_>) -> Result<Self, Fault> {
        let sizes = sized(arguments.sizes("shape"));
        match sizes.split_first() {
            Some((&head, rest)) if head < 0 => Ok(Self { open: true, rest: rest.to_vec() }),
            _ => Ok(Self { open: false, rest: sizes }),
        }
    }

    /// As [`new`](Self::new), for a shape that has no other size below 0.
    fn closed(arguments: &Arguments<'_>) -> Result<Self, Fault> {
        let shape = Self::new(arguments)?;
        if shape.rest.iter().any(|&size| size < 0) {
            let sizes = arguments.sizes("shape");
            return Err(Fault::new(format!(
                "`shape` must have no size below 0 behind its first, got {sizes:?}"
            )));
        }
        Ok(shape)
    }

    fn of(&self, call: &Call<'_>) -> Vec<isize> {
        let batch = self.open.then(|| isize::try_from(call.batch).unwrap_or(isize::MAX));
        batch.into_iter().chain(self.rest.iter().copied()).collect()
    }

    fn dims(&self, call: &Call<'_>) -> Dims {
        self.of(call).into_iter().map(|size| size.unsigned_abs()).collect::<Vec<_>>().into()
    }
}

fn reshape(arguments: &Arguments<'_>) -> Result<Prepared, Fault> {
    let shape = Shape::new(arguments)?;
    Prepared::one(move |call| {
        let (inp, mut sizes) = (call.input(0)?, shape.of(call));
        let count = sizes.iter().try_fold(1usize, |n, &size| n.checked_mul(usize::try_from(size).ok()?));
        // Neural Network Console leaves the size of the batch out.
        if sizes.iter().all(|&size| size >= 0) && count != Some(inp.elem_count()) {
            sizes.insert(0, isize::try_from(call.batch).unwrap_or(isize::MAX));
        }
        functions::reshape(inp, &sizes)
    })
}

fn broadcast(arguments: &Arguments<'_>) -> Result<Prepared, Fault> {
    let shape = Shape::closed(arguments)?;
    Prepared::one(move |call| functions::broadcast(call.input(0)?, shape.dims(call)))
}

fn constant(arguments: &Arguments<'_>) -> Result<Prepared, Fault> {
    let (val, shape) = (arguments.number("val"), Shape::closed(arguments)?);
    Prepared::one(move |call| functions::constant(val, shape.dims(call), call.device))
}

fn one_hot(arguments: &Arguments<'_>) -> Result<Prepared, Fault> {
    let shape = Shape::closed(arguments)?;
    Prepared::one(move |call| functions::one_hot(call.input(0)?, shape.dims(call)))
}

fn cum_sum(arguments: &Arguments<'_>) -> Result<Prepared, Fault> {
    let axis = arguments.integer("axis");
    let (exclusive, reverse) = (arguments.flag("exclusive"), arguments.flag("reverse"));
    Prepared::one(move |call| functions::cumsum(call.input(0)?, axis, exclusive, reverse))
}

fn flip(arguments: &Arguments<'_>) -> Result<Prepared, Fault> {
    let axes = arguments.integers("axes");
    Prepared::one(move |call| functions::flip(call.input(0)?, &axes[..]))
}

fn interpolate(arguments: &Arguments<'_>) -> Result<Prepared, Fault> {
    let output_size = arguments.counts("output_size")?;
    let how = Interpolation {
        mode: named::<InterpolationMode>(arguments.text("mode"))?,
        align_corners: arguments.flag("align_corners"),
        half_pixel: arguments.flag("half_pixel"),
        half_pixel_for_nn: arguments.flag("half_pixel_for_nn"),
        channel_last: arguments.flag("channel_last"),
    };
    Prepared::one(move |call| functions::interpolate(call.input(0)?, None, Some(&output_size), how))
}

fn named<T: FromStr<Err = Error>>(name: &str) -> Result<T, Fault> {
    name.parse().map_err(|error: Error| Fault::new(error.to_string()))
}

fn max(arguments: &Arguments<'_>) -> Result<Prepared, Fault> {
    let (axes, keep_dims) = (arguments.integers("axes"), arguments.flag("keep_dims"));
    with_index!(arguments, move |call: &Call<'_>| functions::max_with_index(
        call.input(0)?,
        &axes[..],
        keep_dims
    ))
}

fn min(arguments: &Arguments<'_>) -> Result<Prepared, Fault> {
    let (axes, keep_dims) = (arguments.integers("axes"), arguments.flag("keep_dims"));
    with_index!(arguments, move |call: &Call<'_>| functions::min_with_index(
        call.input(0)?,
        &axes[..],
        keep_dims
    ))
}

fn sort(arguments: &Arguments<'_>) -> Result<Prepared, Fault> {
    let (axis, reverse) = (arguments.integer("axis"), arguments.flag("reverse"));
    with_index!(arguments, move |call: &Call<'_>| functions::sort_with_index(call.input(0)?, axis, reverse))
}

fn norm(arguments: &Arguments<'_>) -> Result<Prepared, Fault> {
    let (p, axes, keep_dims) =
        (arguments.number("p"), arguments.integers("axes"), arguments.flag("keep_dims"));
    Prepared::one(move |call| functions::norm(call.input(0)?, p, &axes[..], keep_dims))
}

fn norm_normalization(arguments: &Arguments<'_>) -> Result<Prepared, Fault> {
    let (p, axes, eps) = (arguments.number("p"), arguments.integers("axes"), arguments.number("eps"));
    Prepared::one(move |call| functions::norm_normalization(call.input(0)?, p, &axes[..], eps))
}

fn pad(arguments: &Arguments<'_>) -> Result<Prepared, Fault> {
    let (pad_width, mode) = (arguments.counts("pad_width")?, named::<PadMode>(arguments.text("mode"))?);
    let constant_value = arguments.number("constant_value");
    Prepared::one(move |call| functions::pad(call.input(0)?, &pad_width, mode, constant_value))
}

fn sized(values: Vec<i64>) -> Vec<isize> {
    values.into_iter().map(|value| isize::try_from(value).unwrap_or(isize::MAX)).collect()
}

fn shift(arguments: &Arguments<'_>) -> Result<Prepared, Fault> {
    let shifts = sized(arguments.integers("shifts"));
    let border_mode = named::<BorderMode>(arguments.text("border_mode"))?;
    Prepared::one(move |call| functions::shift(call.input(0)?, &shifts, border_mode))
}

fn slice(arguments: &Arguments<'_>) -> Result<Prepared, Fault> {
    // What NNabla writes for a start, stop or step that was not given.
    const NONE: isize = 0x7fff_ffff;
    let given = |name: &str| {
        sized(arguments.integers(name)).into_iter().map(|value| Some(value).filter(|&value| value != NONE))
    };
    let (start, stop): (Vec<_>, Vec<_>) = (given("start").collect(), given("stop").collect());
    let step: Vec<isize> = given("step").map(|step| step.unwrap_or(1)).collect();
    if start.len() != stop.len() || start.len() != step.len() {
        return Err(Fault::new("must have as many numbers in `start` as in `stop` and `step`"));
    }
    Prepared::one(move |call| functions::slice(call.input(0)?, &start, &stop, &step))
}

fn tile(arguments: &Arguments<'_>) -> Result<Prepared, Fault> {
    let reps = arguments.counts("reps")?;
    Prepared::one(move |call| functions::tile(call.input(0)?, Dims::from(&reps[..])))
}

fn top_n_error(arguments: &Arguments<'_>) -> Result<Prepared, Fault> {
    let (axis, n) = (arguments.integer("axis"), arguments.count("n")?);
    Prepared::one(move |call| functions::top_n_error(call.input(0)?, call.input(1)?, axis, n))
}

fn transpose(arguments: &Arguments<'_>) -> Result<Prepared, Fault> {
    let axes = arguments.integers("axes");
    Prepared::one(move |call| functions::transpose(call.input(0)?, &axes[..]))
}

fn unpooling(arguments: &Arguments<'_>) -> Result<Prepared, Fault> {
    let (kernel, channel_last) = (arguments.per_axis("kernel", 1)?, arguments.flag("channel_last"));
    Prepared::one(move |call| functions::unpooling(call.input(0)?, &kernel, channel_last))
}
