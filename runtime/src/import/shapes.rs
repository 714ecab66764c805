//! Operators that move elements, change shapes or reduce axes.

use candle_core::{DType, Device, Tensor};

use super::call::{Call, Function, axis, counts, integers, number, of_kind, one, shaped};
use super::maps::expanded;
use crate::functions::{self, Interpolation, InterpolationMode, PadMode};
use crate::{Error, Result, check};

macro_rules! reduction {
    ($op:literal, $function:expr) => {
        ($op, (|call| one(reduced(call, $function)?)) as Function)
    };
}

macro_rules! place_of_extreme {
    ($op:literal, $function:path) => {
        (
            $op,
            (|call| {
                let x = of_kind(call.input(0)?, false)?;
                let axis = call.axis(0, x.rank())?;
                let (_, index) = $function(&x, axis, call.int("keepdims", 1) != 0)?;
                one(index.to_dtype(DType::I64)?)
            }) as Function,
        )
    };
}

pub(super) static OPS: &[(&str, Function)] = &[
    place_of_extreme!("ArgMax", functions::max_with_index),
    place_of_extreme!("ArgMin", functions::min_with_index),
    ("Concat", |call| {
        let inputs = (0..call.inputs.len()).map(|n| call.input(n)).collect::<Result<Vec<_>>>()?;
        let rank = inputs.first().map_or(0, |x| x.rank());
        one(functions::concatenate(&inputs, call.axis(0, rank)?)?)
    }),
    ("Constant", constant),
    ("ConstantOfShape", |call| {
        let dims = counts("shape", &integers(call.input(0)?)?)?;
        let value = call.constant.map(number).transpose()?.unwrap_or(0.0);
        check::tensor("shape", &dims, DType::F64)?;
        match call.constant.is_some_and(|constant| !constant.dtype().is_float()) {
            true => one(Tensor::full(value as i64, dims, &Device::Cpu)?),
            false => one(functions::constant(value, dims, &Device::Cpu)?),
        }
    }),
    ("CumSum", |call| {
        let x = call.input(0)?;
        let axis = axis(number(call.input(1)?)? as i64, x.rank())?;
        one(functions::cumsum(x, axis, call.int("exclusive", 0) != 0, call.int("reverse", 0) != 0)?)
    }),
    ("Expand", |call| {
        let x = call.input(0)?;
        let mut dims = counts("shape", &integers(call.input(1)?)?)?;
        // A size of 1 in the shape leaves the input's.
        while dims.len() < x.rank() {
            dims.insert(0, 1);
        }
        let front = dims.len() - x.rank();
        for (size, &own) in dims[front..].iter_mut().zip(x.dims()) {
            *size = if *size == 1 { own } else { *size };
        }
        one(if x.dtype().is_float() { expanded(x, &dims)? } else { x.broadcast_as(dims)?.contiguous()? })
    }),
    ("Flatten", |call| {
        let x = call.input(0)?;
        let at = match call.int("axis", 1) {
            at if at == x.rank() as i64 => x.rank(),
            at => axis(at, x.rank())?,
        };
        let (front, behind) = x.dims().split_at(at);
        one(shaped(x, &[check::count("input", front)?, check::count("input", behind)?])?)
    }),
    ("Gather", gather),
    ("GatherElements", gather_elements),
    ("OneHot", |call| {
        let depth = counts("depth", &[number(call.input(1)?)? as i64])?;
        let values = of_kind(call.input(2)?, false)?;
        if values.flatten_all()?.to_vec1::<f32>()? != [0.0, 1.0] || call.int("axis", -1) != -1 {
            return Err(call.unsupported("values", "must be 0 and 1 along the last axis"));
        }
        let x = of_kind(call.input(0)?, true)?;
        one(functions::one_hot(&shaped(&x, &[x.dims(), &[1]].concat())?, depth)?)
    }),
    ("Pad", pad),
    ("Range", |call| {
        let [start, limit, delta] = [0, 1, 2].map(|n| call.input(n));
        let (start, limit, delta) = (start?, limit?, delta?);
        let whole = !start.dtype().is_float();
        let values = functions::arange(number(start)?, number(limit)?, number(delta)?, &Device::Cpu)?;
        one(of_kind(&values, whole)?)
    }),
    reduction!("ReduceL1", |x, axes, keep| functions::norm(x, 1.0, axes, keep)),
    reduction!("ReduceL2", |x, axes, keep| functions::norm(x, 2.0, axes, keep)),
    reduction!("ReduceMax", functions::max),
    reduction!("ReduceMean", functions::mean),
    reduction!("ReduceMin", functions::min),
    reduction!("ReduceProd", functions::prod),
    reduction!("ReduceSum", functions::sum),
    reduction!("ReduceSumSquare", |x, axes, keep| functions::sum(&functions::mul2(x, x)?, axes, keep)),
    ("Reshape", reshape),
    ("Resize", resize),
    ("Shape", |call| {
        let rank = call.input(0)?.rank() as i64;
        let end = |name: &str, absent: i64| {
            let at = call.int(name, absent);
            (if at < 0 { at.saturating_add(rank) } else { at }).clamp(0, rank) as usize
        };
        let (start, end) = (end("start", 0), end("end", rank));
        let dims = call.input(0)?.dims().get(start..end).unwrap_or_default();
        let sizes: Vec<i64> = dims.iter().map(|&size| size as i64).collect();
        let n = sizes.len();
        one(Tensor::from_vec(sizes, n, &Device::Cpu)?)
    }),
    ("Slice", slice),
    ("Softmax", |call| {
        let x = call.input(0)?;
        one(functions::softmax(x, call.axis(-1, x.rank())?)?)
    }),
    ("LogSoftmax", |call| {
        let x = call.input(0)?;
        one(functions::log_softmax(x, call.axis(-1, x.rank())?)?)
    }),
    ("Split", split),
    ("Squeeze", |call| {
        let x = call.input(0)?;
        let axes = call.axes(1, x.rank())?;
        let gone = |n: usize, size: usize| axes.as_ref().map_or(size == 1, |axes| axes.contains(&n));
        let dims = x.dims().iter().enumerate().filter(|&(n, &size)| !gone(n, size)).map(|(_, &size)| size);
        one(shaped(x, &dims.collect::<Vec<_>>())?)
    }),
    ("Tile", |call| {
        let x = call.input(0)?;
        let reps = counts("repeats", &integers(call.input(1)?)?)?;
        one(functions::tile(x, reps)?)
    }),
    ("TopK", top_k),
    ("Transpose", |call| {
        let x = call.input(0)?;
        let reversed = || (0..x.rank()).rev().collect();
        one(functions::transpose(x, call.counts("perm")?.unwrap_or_else(reversed))?)
    }),
    ("Unsqueeze", |call| {
        let x = call.input(0)?;
        let axes = call.list("axes", 1)?.unwrap_or_default();
        let rank = x.rank() + axes.len();
        let axes = axes.into_iter().map(|of| axis(of, rank)).collect::<Result<Vec<_>>>()?;
        let mut sizes = x.dims().iter();
        let dims = (0..rank).map(|n| if axes.contains(&n) { 1 } else { sizes.next().copied().unwrap_or(1) });
        one(shaped(x, &dims.collect::<Vec<_>>())?)
    }),
];

fn reduced(call: &Call<'_>, f: impl Fn(&Tensor, Vec<usize>, bool) -> Result<Tensor>) -> Result<Tensor> {
    let x = of_kind(call.input(0)?, false)?;
    let whole = !call.input(0)?.dtype().is_float();
    let axes = call.axes(1, x.rank())?.filter(|axes| !axes.is_empty());
    let axes = match axes {
        None if call.int("noop_with_empty_axes", 0) != 0 => return Ok(call.input(0)?.clone()),
        axes => axes.unwrap_or_else(|| (0..x.rank()).collect()),
    };
    of_kind(&f(&x, axes, call.int("keepdims", 1) != 0)?, whole)
}

fn constant(call: &Call<'_>) -> Result<Vec<Tensor>> {
    if let Some(constant) = call.constant {
        return one(constant.clone());
    }
    if call.has("value_float") {
        return one(Tensor::new(call.float("value_float", 0.0) as f32, &Device::Cpu)?);
    }
    if call.has("value_int") {
        return one(Tensor::new(call.int("value_int", 0), &Device::Cpu)?);
    }
    if let Some(values) = call.ints("value_ints") {
        return one(Tensor::new(values, &Device::Cpu)?);
    }
    Err(call.unsupported("value", "must be a tensor, a number or a list of integers"))
}

fn gather(call: &Call<'_>) -> Result<Vec<Tensor>> {
    let (x, indices) = (call.input(0)?, of_kind(call.input(1)?, true)?);
    let axis = call.axis(0, x.rank())?;
    let size = x.dims()[axis] as i64;
    if indices.rank() == 0 && !indices.track_op() {
        // One place of the axis, which goes.
        let at = number(&indices)? as i64;
        let at = if at < 0 { at + size } else { at };
        if !(0..size).contains(&at) {
            return Err(Error::invalid("indices", format!("must be below {size}"), at));
        }
        let mut dims = x.dims().to_vec();
        dims.remove(axis);
        let mut start = vec![None; x.rank()];
        let mut stop = vec![None; x.rank()];
        (start[axis], stop[axis]) = (Some(at as isize), Some(at as isize + 1));
        let part = if x.dtype().is_float() {
            functions::slice(x, &start, &stop, &[])?
        } else {
            x.narrow(axis, at as usize, 1)?
        };
        return one(shaped(&part, &dims)?);
    }
    if x.dtype().is_float() {
        return one(match (axis, x.rank()) {
            (0, 2) => functions::embed(&indices, x)?,
            _ => functions::gather(x, &indices, axis, 0)?,
        });
    }
    let list: Vec<i64> =
        integers(&indices)?.into_iter().map(|at| if at < 0 { at + size } else { at }).collect();
    if list.iter().any(|at| !(0..size).contains(at)) {
        return Err(Error::invalid("indices", format!("must be below {size}"), list));
    }
    let n = list.len();
    let found = x.contiguous()?.index_select(&Tensor::from_vec(list, n, x.device())?, axis)?;
    one(found.reshape([&x.dims()[..axis], indices.dims(), &x.dims()[axis + 1..]].concat())?)
}

/// Numbers along an axis, of which each place of the others has its own list.
fn gather_elements(call: &Call<'_>) -> Result<Vec<Tensor>> {
    let (x, indices) = (of_kind(call.input(0)?, false)?, of_kind(call.input(1)?, true)?);
    let (axis, last) = (call.axis(0, x.rank())?, x.rank() - 1);
    let others = |dims: &[usize]| [&dims[..axis], &dims[axis + 1..]].concat();
    if indices.rank() != x.rank() || others(indices.dims()) != others(x.dims()) {
        let reason = format!("must have the sizes of the data, {:?}, but for axis {axis}", x.dims());
        return Err(Error::invalid("indices", reason, indices.dims()));
    }
    if axis == last {
        return one(functions::gather(&x, &indices, last, last)?);
    }
    let indices = indices.transpose(axis, last)?.contiguous()?;
    let y = functions::gather(&functions::swapaxes(&x, axis, last)?, &indices, last, last)?;
    one(functions::swapaxes(&y, axis, last)?)
}

fn pad(call: &Call<'_>) -> Result<Vec<Tensor>> {
    let x = call.input(0)?;
    let given = counts("pads", &call.list("pads", 1)?.unwrap_or_default())?;
    let n = given.len() / 2;
    let axes = match call.get(3) {
        Some(axes) => integers(axes)?.into_iter().map(|of| axis(of, x.rank())).collect::<Result<Vec<_>>>()?,
        None => (0..x.rank()).collect(),
    };
    if given.len() != 2 * axes.len() {
        return Err(Error::invalid(
            "pads",
            format!("must have two numbers for each of {} axes", axes.len()),
            given,
        ));
    }
    let mut widths = vec![0; 2 * x.rank()];
    for (i, &axis) in axes.iter().enumerate() {
        (widths[2 * axis], widths[2 * axis + 1]) = (given[i], given[n + i]);
    }
    let mode = match call.text("mode") {
        "" | "constant" => PadMode::Constant,
        "reflect" => PadMode::Reflect,
        "edge" => PadMode::Repeat,
        _ => return Err(call.unsupported("mode", "must be constant, reflect or edge")),
    };
    let value = call.get(2).map(number).transpose()?.unwrap_or_else(|| call.float("value", 0.0));
    one(functions::pad(x, &widths, mode, value)?)
}

fn reshape(call: &Call<'_>) -> Result<Vec<Tensor>> {
    let (x, shape) = (call.input(0)?, integers(call.input(1)?)?);
    let keeps_zero = call.int("allowzero", 0) != 0;
    let size = |(n, &size): (usize, &i64)| match size {
        0 if !keeps_zero => x.dims().get(n).map_or(0, |&size| size as isize),
        size => isize::try_from(size).unwrap_or(isize::MAX),
    };
    let sizes: Vec<isize> = shape.iter().enumerate().map(size).collect();
    one(functions::reshape(x, &sizes)?)
}

fn resize(call: &Call<'_>) -> Result<Vec<Tensor>> {
    let x = call.input(0)?;
    let axes = match call.ints("axes") {
        Some(axes) => axes.iter().map(|&of| axis(of, x.rank())).collect::<Result<Vec<_>>>()?,
        None => (0..x.rank()).collect(),
    };
    let scales = call.get(2).filter(|scales| scales.elem_count() > 0);
    let sizes: Vec<usize> = match (scales, call.get(3)) {
        (Some(scales), _) => {
            let scales = of_kind(scales, false)?.flatten_all()?.to_vec1::<f32>()?;
            let size =
                |(&axis, scale): (&usize, f32)| (x.dims()[axis] as f64 * f64::from(scale)).floor() as usize;
            axes.iter().zip(scales).map(size).collect()
        }
        (None, Some(sizes)) => counts("sizes", &integers(sizes)?)?,
        (None, None) => return Err(call.unsupported("sizes", "must be given, or `scales`")),
    };
    if sizes.len() != axes.len() {
        return Err(Error::invalid(
            "sizes",
            format!("must have a number for each of {} axes", axes.len()),
            sizes,
        ));
    }
    let mut dims = x.dims().to_vec();
    axes.iter().zip(&sizes).for_each(|(&axis, &size)| dims[axis] = size);
    let Some(first) = (0..x.rank()).find(|&axis| dims[axis] != x.dims()[axis]) else { return one(x.clone()) };
    // Nearest and linear values of axes that stay are the elements themselves.
    let first = first.min(2.max(x.rank().saturating_sub(3)));
    let coordinates = call.text("coordinate_transformation_mode");
    let is_nearest = matches!(call.text("mode"), "" | "nearest");
    let how = match (call.text("mode"), coordinates, call.text("nearest_mode")) {
        ("" | "nearest", "asymmetric", "floor") => {
            Interpolation { mode: InterpolationMode::Nearest, ..Interpolation::default() }
        }
        ("" | "nearest", "" | "half_pixel", "" | "round_prefer_ceil" | "round_prefer_floor") => {
            Interpolation {
                mode: InterpolationMode::Nearest,
                half_pixel_for_nn: true,
                ..Interpolation::default()
            }
        }
        ("linear", "" | "half_pixel" | "pytorch_half_pixel", _) => {
            Interpolation { half_pixel: true, ..Interpolation::default() }
        }
        ("linear", "align_corners", _) => Interpolation { align_corners: true, ..Interpolation::default() },
        ("linear", "asymmetric", _) => Interpolation::default(),
        _ if is_nearest => {
            return Err(call.unsupported(
                "nearest_mode",
                "must be floor with asymmetric coordinates, or round with half_pixel",
            ));
        }
        _ => {
            return Err(call.unsupported(
                "mode",
                "must be nearest or linear, with half_pixel, align_corners or asymmetric coordinates",
            ));
        }
    };
    one(functions::interpolate(x, None, Some(&dims[first..]), how)?)
}

fn slice(call: &Call<'_>) -> Result<Vec<Tensor>> {
    let x = call.input(0)?;
    let (starts, ends) =
        (call.list("starts", 1)?.unwrap_or_default(), call.list("ends", 2)?.unwrap_or_default());
    let axes = call.axes(3, x.rank())?.unwrap_or_else(|| (0..starts.len().min(x.rank())).collect());
    let steps = call.get(4).map(integers).transpose()?.unwrap_or_else(|| vec![1; axes.len()]);
    if starts.len() != axes.len() || ends.len() != axes.len() || steps.len() != axes.len() {
        return Err(Error::invalid("starts", "must be as many as `ends`, `axes` and `steps`", starts));
    }
    let (mut start, mut stop, mut step) = (vec![None; x.rank()], vec![None; x.rank()], vec![1; x.rank()]);
    for (i, &axis) in axes.iter().enumerate() {
        let size = x.dims()[axis] as i64;
        let by = steps[i];
        let at = |value: i64| isize::try_from(value).ok();
        start[axis] =
            if (by > 0 && starts[i] == 0) || starts[i] >= size && by < 0 { None } else { at(starts[i]) };
        let is_open = if by > 0 { ends[i] >= size } else { ends[i] < -size };
        stop[axis] = if is_open { None } else { at(ends[i]) };
        step[axis] = isize::try_from(by).unwrap_or(isize::MAX);
    }
    if x.dtype().is_float() {
        return one(functions::slice(x, &start, &stop, &step)?);
    }
    // Integers, such as shapes.
    let y = functions::slice(&x.to_dtype(DType::F64)?, &start, &stop, &step)?;
    one(y.to_dtype(DType::I64)?)
}

fn split(call: &Call<'_>) -> Result<Vec<Tensor>> {
    let x = call.input(0)?;
    let axis = call.axis(0, x.rank())?;
    let size = x.dims()[axis];
    let sizes = match call.list("split", 1)? {
        Some(sizes) => counts("split", &sizes)?,
        None => {
            let n =
                counts("num_outputs", &[call.int("num_outputs", call.node.output.len() as i64)])?[0].max(1);
            if n > size.max(1) {
                return Err(Error::invalid("num_outputs", format!("must be at most {size}"), n));
            }
            let each = size.div_ceil(n);
            (0..n).map(|i| each.min(size.saturating_sub(i * each))).collect()
        }
    };
    if sizes.iter().fold(0, |sum: usize, size| sum.saturating_add(*size)) != size {
        return Err(Error::invalid("split", format!("must add up to {size}"), sizes));
    }
    let mut next = 0;
    sizes
        .into_iter()
        .map(|size| {
            let (mut start, mut stop) = (vec![None; x.rank()], vec![None; x.rank()]);
            (start[axis], stop[axis]) = (Some(next as isize), Some((next + size) as isize));
            next += size;
            if x.dtype().is_float() {
                functions::slice(x, &start, &stop, &[])
            } else {
                Ok(x.narrow(axis, next - size, size)?)
            }
        })
        .collect()
}

/// The first of the sorted elements, and where they were.
fn top_k(call: &Call<'_>) -> Result<Vec<Tensor>> {
    let x = of_kind(call.input(0)?, false)?;
    let axis = call.axis(-1, x.rank())?;
    let k = counts("K", &[number(call.input(1)?)? as i64])?[0];
    if k > x.dims()[axis] {
        return Err(Error::invalid("K", format!("must be at most {}", x.dims()[axis]), k));
    }
    let (values, index) = functions::sort_with_index(&x, axis, call.int("largest", 1) != 0)?;
    let (mut start, mut stop) = (vec![None; x.rank()], vec![None; x.rank()]);
    (start[axis], stop[axis]) = (Some(0), Some(k as isize));
    let values = if k == x.dims()[axis] { values } else { functions::slice(&values, &start, &stop, &[])? };
    Ok(vec![values, index.narrow(axis, 0, k)?.to_dtype(DType::I64)?])
}
