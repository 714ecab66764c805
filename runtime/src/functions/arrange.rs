//! Functions that rearrange, repeat or drop elements.

use std::str::FromStr;

use candle_core::Tensor;

use super::places::taken;
use super::pooling::n_spatial;
use crate::kernels::places::{Along, HOLE, Places};
use crate::told::{Form, UNSAID, told};
use crate::{Axes, Axis, Dims, Error, PerAxis, Result, check};

/// Permutes the axes: axis `k` of the output is axis `axes[k]` of the input.
///
/// # Errors
/// [`Error::InvalidArgument`] if `axes` does not name each axis once.
///
/// # Source
/// NNabla `F.transpose`.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// let x = Tensor::new(&[[1f32, 2., 3.], [4., 5., 6.]], &Device::Cpu)?;
/// let y = layerfn::functions::transpose(&x, (1, 0))?;
/// assert_eq!(y.to_vec2::<f32>()?, [[1., 4.], [2., 5.], [3., 6.]]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn transpose(inp: &Tensor, axes: impl Into<Axes>) -> Result<Tensor> {
    let order = axes.into().resolve("axes", inp.dims())?;
    if order.len() != inp.rank() {
        return Err(Error::invalid("axes", format!("must name each of the {} axes", inp.rank()), order));
    }
    permuted(inp, &order)
}

/// Permutes the axes of `inp`; `order` contains each of them.
pub(super) fn permuted(inp: &Tensor, order: &[usize]) -> Result<Tensor> {
    let axes: Vec<_> = order.iter().map(|axis| Along::all(inp.dims()[*axis])).collect();
    let dims: Vec<_> = axes.iter().map(Along::len).collect();
    told(
        || Form::new("Transpose", &[inp]).with("axes", order),
        || {
            let order = order.to_vec();
            taken("transpose", inp, Places { order, axes }, 0.0, &dims)
        },
    )
}

/// Exchanges two axes.
///
/// # Errors
/// [`Error::InvalidArgument`] if there is no such axis.
///
/// # Example
/// ```
/// use candle_core::{DType, Device, Tensor};
/// let x = Tensor::zeros((2, 3, 4), DType::F32, &Device::Cpu)?;
/// assert_eq!(layerfn::functions::swapaxes(&x, 0, -1)?.dims(), [4, 3, 2]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn swapaxes(inp: &Tensor, axis1: impl Into<Axis>, axis2: impl Into<Axis>) -> Result<Tensor> {
    let mut order: Vec<usize> = (0..inp.rank()).collect();
    let (axis1, axis2) =
        (axis1.into().resolve("axis1", inp.dims())?, axis2.into().resolve("axis2", inp.dims())?);
    order.swap(axis1, axis2);
    permuted(inp, &order)
}

/// Moves axis `from` to position `to`; the others keep their order.
pub(crate) fn moved(inp: &Tensor, from: usize, to: usize) -> Result<Tensor> {
    let mut order: Vec<usize> = (0..inp.rank()).collect();
    let axis = order.remove(from);
    order.insert(to, axis);
    permuted(inp, &order)
}

/// Reverses the elements along some axes; NNabla's default is the last axis, `-1`.
///
/// # Errors
/// [`Error::InvalidArgument`] if there is no such axis, or one is repeated.
///
/// # Source
/// NNabla `F.flip`.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// let x = Tensor::new(&[[1f32, 2., 3.], [4., 5., 6.]], &Device::Cpu)?;
/// let y = layerfn::functions::flip(&x, -1)?;
/// assert_eq!(y.to_vec2::<f32>()?, [[3., 2., 1.], [6., 5., 4.]]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn flip(inp: &Tensor, axes: impl Into<Axes>) -> Result<Tensor> {
    let axes = axes.into().resolve("axes", inp.dims())?;
    let along = inp.dims().iter().enumerate().map(|(axis, &n)| match axes.contains(&axis) && n > 0 {
        true => Along::Steps { n, start: n - 1, step: -1, len: n },
        false => Along::all(n),
    });
    told(
        || Form::new("Flip", &[inp]).with("axes", &axes[..]),
        || taken("flip", inp, Places::in_order(along.collect()), 0.0, inp.dims()),
    )
}

/// The elements from `start` to before `stop` in steps of `step`, on as many of the last axes as the lists have
/// entries.
///
/// It works like a Python slice: negative numbers count from the end, `None` stands for the respective end, and
/// indices that are out of range are clipped. An empty list stands for `None`, or for a `step` of 1, on each
/// axis.
///
/// # Errors
/// [`Error::InvalidArgument`] if the lists have different lengths or are longer than the rank of the input, or
/// a step is 0.
///
/// # Source
/// NNabla `F.slice`, which returns zeros where a negative step goes beyond the beginning.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// use layerfn::functions::slice;
/// let x = Tensor::new(&[1f32, 2., 3., 4., 5.], &Device::Cpu)?;
/// assert_eq!(slice(&x, &[Some(1)], &[Some(-1)], &[2])?.to_vec1::<f32>()?, [2., 4.]);
/// assert_eq!(slice(&x, &[], &[], &[-2])?.to_vec1::<f32>()?, [5., 3., 1.]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn slice(
    inp: &Tensor,
    start: &[Option<isize>],
    stop: &[Option<isize>],
    step: &[isize],
) -> Result<Tensor> {
    let n = start.len().max(stop.len()).max(step.len());
    for (argument, len) in [("start", start.len()), ("stop", stop.len()), ("step", step.len())] {
        if len != n && len != 0 {
            return Err(Error::invalid(
                argument,
                format!("must have {n} entries as the longest of the lists"),
                len,
            ));
        }
    }
    let (leading, sliced) = last_axes("start", inp, n)?;
    let along = sliced.iter().enumerate().map(|(i, &n)| {
        let at = |list: &[Option<isize>]| list.get(i).copied().flatten();
        steps(n, at(start), at(stop), step.get(i).copied().unwrap_or(1))
    });
    let along: Vec<_> = leading.iter().map(|n| Ok(Along::all(*n))).chain(along).collect::<Result<_>>()?;
    let places = Places::in_order(along);
    let dims = places.dims();
    let form = || {
        let front = leading.len();
        let of = |list: &[Option<isize>], whole: isize| -> Vec<isize> {
            let given = (0..n).map(|i| list.get(i).copied().flatten().unwrap_or(UNSAID));
            std::iter::repeat_n(whole, front).chain(given).collect()
        };
        let step = (0..n).map(|i| step.get(i).copied().unwrap_or(1));
        let step: Vec<isize> = std::iter::repeat_n(1, front).chain(step).collect();
        let (start, stop) = (of(start, 0), of(stop, UNSAID));
        Form::new("Slice", &[inp]).with("start", &start[..]).with("stop", &stop[..]).with("step", &step[..])
    };
    told(form, || taken("slice", inp, places, 0.0, &dims))
}

/// Python's `slice(start, stop, step).indices(n)`.
fn steps(n: usize, start: Option<isize>, stop: Option<isize>, step: isize) -> Result<Along> {
    if step == 0 {
        return Err(Error::invalid("step", "must not be 0", step));
    }
    // Sizes of tensors fit an isize.
    let size = n as isize;
    let (least, most) = if step > 0 { (0, size) } else { (-1, size - 1) };
    let end = |given: Option<isize>, default: isize| match given {
        Some(at) if at < 0 => (at + size).clamp(least, most),
        Some(at) => at.min(most),
        None => default,
    };
    let (first, last) = if step > 0 { (0, size) } else { (size - 1, -1) };
    let (start, stop) = (end(start, first), end(stop, last));
    let distance = if step > 0 { stop - start } else { start - stop };
    let len = usize::try_from(distance).map_or(0, |distance| distance.div_ceil(step.unsigned_abs()));
    let start = if len == 0 { 0 } else { start.unsigned_abs() };
    // A step that is never taken may be of any size.
    let step = if len > 1 { step } else { 1 };
    Ok(Along::Steps { n, start, step, len })
}

/// The sizes of the axes before the last `n` ones, and of these.
fn last_axes<'a>(argument: &'static str, inp: &'a Tensor, n: usize) -> Result<(&'a [usize], &'a [usize])> {
    let dims = inp.dims();
    let at = dims.len().checked_sub(n).ok_or_else(|| {
        Error::invalid(argument, format!("must have at most {} entries, one an axis", dims.len()), n)
    })?;
    Ok(dims.split_at(at))
}

/// Repeats axes of size 1 until the tensor has the sizes `shape`; new axes are added at the front.
///
/// # Errors
/// [`Error::InvalidArgument`] if another axis does not have the requested size, or the input has more axes than
/// `shape`.
///
/// # Source
/// NNabla `F.broadcast`.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// let x = Tensor::new(&[[1f32], [2.]], &Device::Cpu)?;
/// let y = layerfn::functions::broadcast(&x, (2, 3))?;
/// assert_eq!(y.to_vec2::<f32>()?, [[1., 1., 1.], [2., 2., 2.]]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn broadcast(inp: &Tensor, shape: impl Into<Dims>) -> Result<Tensor> {
    let shape = shape.into();
    let fits = |n: &usize, size: &usize| n == size || *n == 1;
    let pairs = || inp.dims().iter().rev().zip(shape.iter().rev());
    if inp.rank() > shape.len() || !pairs().all(|(n, size)| fits(n, size)) {
        return Err(Error::invalid(
            "shape",
            format!("must be one that {:?} can be repeated to", inp.dims()),
            &*shape,
        ));
    }
    let new = shape.len() - inp.rank();
    let along = shape.iter().enumerate().map(|(axis, &size)| {
        match axis.checked_sub(new).map(|axis| inp.dims()[axis]) {
            Some(n) if n == size => Along::all(n),
            _ => Along::repeated(size),
        }
    });
    told(
        || Form::new("Broadcast", &[inp]).with("shape", &shape[..]),
        || taken("broadcast", inp, Places::in_order(along.collect()), 0.0, &shape),
    )
}

/// Repeats the input `reps` times along each of the last axes. Missing axes are added at the front.
///
/// # Errors
/// [`Error::InvalidArgument`] if the result would have more elements than there is memory for.
///
/// # Source
/// NNabla `F.tile`.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// let x = Tensor::new(&[1f32, 2.], &Device::Cpu)?;
/// let y = layerfn::functions::tile(&x, (2, 2))?;
/// assert_eq!(y.to_vec2::<f32>()?, [[1., 2., 1., 2.], [1., 2., 1., 2.]]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn tile(inp: &Tensor, reps: impl Into<Dims>) -> Result<Tensor> {
    let reps = reps.into();
    let rank = inp.rank().max(reps.len());
    let padded = |sizes: &[usize]| [&vec![1; rank - sizes.len()], sizes].concat();
    let (sizes, reps) = (padded(inp.dims()), padded(&reps));
    let pairs = || sizes.iter().zip(&reps);
    let dims: Option<Vec<_>> = pairs().map(|(n, reps)| n.checked_mul(*reps)).collect();
    let dims = dims.ok_or_else(|| {
        Error::invalid("reps", "must not make the result too large to count its elements", &reps)
    })?;
    check::tensor("reps", &dims, inp.dtype())?;
    let along = pairs().flat_map(|(n, reps)| [Along::repeated(*reps), Along::all(*n)]);
    told(
        || Form::new("Tile", &[inp]).with("reps", &reps[..]),
        || taken("tile", inp, Places::in_order(along.collect()), 0.0, &dims),
    )
}

/// Repeats each element `kernel` times along each of the last axes: the opposite of pooling.
///
/// # Shapes
/// - `inp`: `(N.., L1, .., Ld)`; `kernel` applies to as many of the last axes as it has numbers, or, if it is a
///   single integer, to all but the first two; with `channel_last` the axis of the channels follows them
/// - output: `Li' = Li kernel`
///
/// # Errors
/// [`Error::InvalidArgument`] if the input has fewer axes, or the result needs more memory than there is.
///
/// # Source
/// NNabla `F.unpooling`, which does not support `channel_last` on the CPU.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// let x = Tensor::new(&[[1f32, 2.]], &Device::Cpu)?;
/// let y = layerfn::functions::unpooling(&x, &[2].into(), false)?;
/// assert_eq!(y.to_vec2::<f32>()?, [[1., 1., 2., 2.]]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn unpooling(inp: &Tensor, kernel: &PerAxis, channel_last: bool) -> Result<Tensor> {
    let kernel = kernel.resolve("kernel", n_spatial(inp, kernel))?;
    let behind = usize::from(channel_last);
    let (leading, _) = last_axes("kernel", inp, kernel.len() + behind)?;
    let sizes = &kernel;
    let form =
        || Form::new("Unpooling", &[inp]).with("kernel", &sizes[..]).with("channel_last", channel_last);
    let factors = vec![1; leading.len()]
        .into_iter()
        .chain(kernel.iter().copied())
        .chain(vec![1; behind])
        .collect::<Vec<_>>();
    let pairs = || inp.dims().iter().zip(&factors);
    let dims: Option<Vec<_>> = pairs().map(|(n, factor)| n.checked_mul(*factor)).collect();
    let dims = dims.ok_or_else(|| {
        Error::invalid("kernel", "must not make the result too large to count its elements", &factors)
    })?;
    check::tensor("kernel", &dims, inp.dtype())?;
    let along = pairs().flat_map(|(n, factor)| [Along::all(*n), Along::repeated(*factor)]);
    told(form, || taken("unpooling", inp, Places::in_order(along.collect()), 0.0, &dims))
}

/// The values that [`pad`] adds around the elements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PadMode {
    /// A number.
    #[default]
    Constant,
    /// The elements mirrored at the first and the last one, repeatedly if there are too few.
    Reflect,
    /// The first and the last element.
    Repeat,
}

impl PadMode {
    fn name(self) -> &'static str {
        match self {
            Self::Constant => "constant",
            Self::Reflect => "reflect",
            Self::Repeat => "repeat",
        }
    }
}

impl FromStr for PadMode {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "constant" => Ok(Self::Constant),
            "reflect" => Ok(Self::Reflect),
            "repeat" => Ok(Self::Repeat),
            other => Err(Error::invalid("mode", "must be `constant`, `reflect` or `repeat`", other)),
        }
    }
}

/// Adds elements before and after the last axes. `pad_width` has two numbers for each of them: how many before,
/// and how many after.
///
/// # Errors
/// [`Error::InvalidArgument`] if `pad_width` has an odd number of entries or more than two per axis, if there
/// is nothing to reflect or repeat, if `constant_value` is not finite in `f32`, or if there is not enough
/// memory for the result.
///
/// # Source
/// NNabla `F.pad`.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// use layerfn::functions::{PadMode, pad};
/// let x = Tensor::new(&[1f32, 2., 3.], &Device::Cpu)?;
/// assert_eq!(pad(&x, &[1, 2], PadMode::Constant, 9.)?.to_vec1::<f32>()?, [9., 1., 2., 3., 9., 9.]);
/// assert_eq!(pad(&x, &[2, 1], PadMode::Reflect, 0.)?.to_vec1::<f32>()?, [3., 2., 1., 2., 3., 2.]);
/// assert_eq!(pad(&x, &[1, 1], PadMode::Repeat, 0.)?.to_vec1::<f32>()?, [1., 1., 2., 3., 3.]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn pad(inp: &Tensor, pad_width: &[usize], mode: PadMode, constant_value: f64) -> Result<Tensor> {
    check::within("constant_value", constant_value, ..)?;
    if !pad_width.len().is_multiple_of(2) {
        return Err(Error::invalid("pad_width", "must have two numbers for each axis", pad_width));
    }
    let (leading, padded) = last_axes("pad_width", inp, pad_width.len() / 2)?;
    let widths = || pad_width.chunks_exact(2).zip(padded);
    let sizes: Option<Vec<_>> = widths().map(|(w, n)| n.checked_add(w[0])?.checked_add(w[1])).collect();
    let sizes = sizes.ok_or_else(|| {
        Error::invalid("pad_width", "must not make the result too large to count its elements", pad_width)
    })?;
    let dims = [leading, &sizes].concat();
    check::tensor("pad_width", &dims, inp.dtype())?;
    let along = widths().zip(&sizes).map(|((width, &n), &len)| {
        if width == [0, 0] {
            return Ok(Along::all(n));
        }
        if n == 0 && mode != PadMode::Constant {
            return Err(Error::invalid("inp", "must have elements to be reflected or repeated", inp.dims()));
        }
        from_outside(len, n, |i| {
            let at = i as isize - width[0] as isize;
            match mode {
                PadMode::Constant => usize::try_from(at).ok().filter(|at| *at < n).unwrap_or(HOLE),
                PadMode::Reflect if n == 1 => 0,
                PadMode::Reflect => mirrored(at, n, 2 * n - 2),
                PadMode::Repeat => at.clamp(0, n as isize - 1).unsigned_abs(),
            }
        })
    });
    let along: Vec<_> = leading.iter().map(|n| Ok(Along::all(*n))).chain(along).collect::<Result<_>>()?;
    let form = || {
        let form = Form::new("Pad", &[inp]).with("pad_width", pad_width).with("mode", mode.name());
        form.with("constant_value", constant_value)
    };
    told(form, || taken("pad", inp, Places::in_order(along), constant_value, &dims))
}

/// A table of `len` places.
fn from_outside(len: usize, n: usize, place: impl Fn(usize) -> usize) -> Result<Along> {
    check::memory::<usize>("inp", len)?;
    Ok(Along::Table { n, places: (0..len).map(place).collect() })
}

/// Index of `n` elements that repeat with `period`, alternating with their reverse order.
fn mirrored(at: isize, n: usize, period: usize) -> usize {
    let at = at.rem_euclid(period as isize).unsigned_abs();
    // The element after the last is the last but one, or the last again.
    if at < n { at } else { period - at - usize::from(period == 2 * n) }
}

/// The values that [`shift`] inserts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BorderMode {
    /// The first or the last element.
    #[default]
    Nearest,
    /// The elements mirrored at the border, before the first or after the last element.
    Reflect,
}

impl BorderMode {
    fn name(self) -> &'static str {
        match self {
            Self::Nearest => "nearest",
            Self::Reflect => "reflect",
        }
    }
}

impl FromStr for BorderMode {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "nearest" => Ok(Self::Nearest),
            "reflect" => Ok(Self::Reflect),
            other => Err(Error::invalid("border_mode", "must be `nearest` or `reflect`", other)),
        }
    }
}

/// Shifts along the last axes by one number of `shifts` each; positive numbers shift towards the end.
///
/// # Errors
/// [`Error::InvalidArgument`] if `shifts` is longer than the rank of the input.
///
/// # Source
/// NNabla `F.shift`.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// use layerfn::functions::{BorderMode, shift};
/// let x = Tensor::new(&[1f32, 2., 3., 4.], &Device::Cpu)?;
/// assert_eq!(shift(&x, &[1], BorderMode::Nearest)?.to_vec1::<f32>()?, [1., 1., 2., 3.]);
/// assert_eq!(shift(&x, &[-2], BorderMode::Reflect)?.to_vec1::<f32>()?, [3., 4., 4., 3.]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn shift(inp: &Tensor, shifts: &[isize], border_mode: BorderMode) -> Result<Tensor> {
    let (leading, shifted) = last_axes("shifts", inp, shifts.len())?;
    let along = shifts.iter().zip(shifted).map(|(&by, &n)| {
        if by == 0 || n == 0 {
            return Ok(Along::all(n));
        }
        let period = 2 * n as isize;
        from_outside(n, n, |i| match border_mode {
            BorderMode::Nearest => (i as isize).saturating_sub(by).clamp(0, n as isize - 1).unsigned_abs(),
            BorderMode::Reflect => mirrored(i as isize - by % period, n, 2 * n),
        })
    });
    let along: Vec<_> = leading.iter().map(|n| Ok(Along::all(*n))).chain(along).collect::<Result<_>>()?;
    let form = || Form::new("Shift", &[inp]).with("shifts", shifts).with("border_mode", border_mode.name());
    told(form, || taken("shift", inp, Places::in_order(along), 0.0, inp.dims()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reflections count on over the elements, whatever is on both sides.
    #[test]
    fn mirrors_have_no_end() {
        let at = |period: usize| (-7..9).map(|at| mirrored(at, 3, period)).collect::<Vec<_>>();
        assert_eq!(at(4), [1, 2, 1, 0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2, 1, 0]);
        assert_eq!(at(6), [0, 0, 1, 2, 2, 1, 0, 0, 1, 2, 2, 1, 0, 0, 1, 2]);
    }

    #[test]
    fn slices_are_those_of_python() {
        let places = |n, start, stop, step| steps(n, start, stop, step).unwrap().places();
        assert_eq!(places(5, None, None, -2), [4, 2, 0]);
        assert_eq!(places(5, Some(-2), Some(-100), -1), [3, 2, 1, 0]);
        assert_eq!(places(5, Some(-100), Some(100), 3), [0, 3]);
        assert_eq!(places(5, Some(3), Some(1), 1), [0; 0]);
        assert_eq!(places(5, Some(7), None, -4), [4, 0]);
        assert_eq!(places(0, None, None, -1), [0; 0]);
        assert_eq!(places(4, Some(1), None, isize::MAX), [1]);
        assert_eq!(places(4, None, None, isize::MIN), [3]);
        assert_eq!(places(4, Some(isize::MIN), Some(isize::MAX), 1), [0, 1, 2, 3]);
    }
}
