//! Checks of arguments: numbers in range, sizes that can be counted and held in memory, types of elements.

use std::ops::{Bound, RangeBounds};

use candle_core::{DType, Device, Tensor};

use crate::{Error, Result};

/// Checks that a number is in `range` and finite, also as an `f32`.
pub(crate) fn within(argument: &'static str, value: f64, range: impl RangeBounds<f64>) -> Result<()> {
    if (value as f32).is_finite() && range.contains(&value) {
        return Ok(());
    }
    let reason = match (range.start_bound(), range.end_bound()) {
        (Bound::Unbounded, Bound::Unbounded) => "must be finite in f32".to_owned(),
        (Bound::Included(least), Bound::Unbounded) => format!("must be at least {least} and finite in f32"),
        (Bound::Excluded(limit), Bound::Unbounded) => format!("must be above {limit} and finite in f32"),
        (start, end) => {
            let start = match start {
                Bound::Included(start) => format!("[{start}"),
                Bound::Excluded(start) => format!("({start}"),
                Bound::Unbounded => "(-inf".to_owned(),
            };
            let end = match end {
                Bound::Included(end) => format!("{end}]"),
                Bound::Excluded(end) => format!("{end})"),
                Bound::Unbounded => "inf)".to_owned(),
            };
            format!("must be in {start}, {end}")
        }
    };
    Err(Error::invalid(argument, reason, value))
}

/// Checks that a number is above 0, also as an `f32`.
pub(crate) fn positive(argument: &'static str, value: f64) -> Result<()> {
    within(argument, value, (Bound::Excluded(0.0), Bound::Unbounded))?;
    if value as f32 > 0.0 {
        return Ok(());
    }
    Err(Error::invalid(argument, "must be above 0 in f32 as well", value))
}

/// Product of `sizes`: the number of elements of a tensor of this shape.
pub(crate) fn count(argument: &'static str, sizes: &[usize]) -> Result<usize> {
    count_of(argument, &[sizes])
}

/// [`count`] of a shape in parts.
fn count_of(argument: &'static str, parts: &[&[usize]]) -> Result<usize> {
    let (mut n, mut is_empty, mut fits) = (1_usize, false, true);
    for part in parts {
        for &size in *part {
            // A size of 0 does not make the others valid: candle multiplies them one by one.
            is_empty |= size == 0;
            let (product, overflows) = n.overflowing_mul(size.max(1));
            n = product;
            fits &= !overflows;
        }
    }
    if fits && n <= isize::MAX as usize {
        return Ok(if is_empty { 0 } else { n });
    }
    Err(Error::invalid(argument, "must not give more elements than can be counted", parts.concat()))
}

/// Checks that the system can allocate `len` elements of type `T`.
pub(crate) fn memory<T>(argument: &'static str, len: usize) -> Result<()> {
    memory_of(argument, len, size_of::<T>())
}

/// [`memory`] for a tensor of these sizes and this type; returns the number of elements.
pub(crate) fn tensor(argument: &'static str, sizes: &[usize], dtype: DType) -> Result<usize> {
    tensor_of(argument, &[sizes], dtype)
}

/// [`tensor`] of a shape in parts.
pub(crate) fn tensor_of(argument: &'static str, parts: &[&[usize]], dtype: DType) -> Result<usize> {
    let len = count_of(argument, parts)?;
    memory_of(argument, len, dtype.size_in_bytes().max(1))?;
    Ok(len)
}

/// A tensor of zeros, if there is enough memory.
pub(crate) fn zeros(
    argument: &'static str,
    sizes: &[usize],
    dtype: DType,
    device: &Device,
) -> Result<Tensor> {
    if device.is_cpu() {
        tensor(argument, sizes, dtype)?;
    } else {
        count(argument, sizes)?;
    }
    Ok(Tensor::zeros(sizes, dtype, device)?)
}

/// Smaller allocations are not probed: if one fails, there is no memory for an error message either.
const PROBE_FROM: usize = 1 << 24;

fn memory_of(argument: &'static str, len: usize, size: usize) -> Result<()> {
    let bytes = len.checked_mul(size);
    if bytes.is_some_and(|bytes| bytes < PROBE_FROM) {
        return Ok(());
    }
    match bytes.map(|bytes| Vec::<u8>::new().try_reserve_exact(bytes)) {
        Some(Ok(())) => Ok(()),
        _ => Err(Error::invalid(
            argument,
            format!("must not ask for more memory than there is, {len} elements of {size} bytes"),
            len,
        )),
    }
}

/// Checks that a tensor holds floating-point numbers.
pub(crate) fn float(argument: &'static str, tensor: &Tensor) -> Result<()> {
    match tensor.dtype() {
        DType::F16 | DType::BF16 | DType::F32 | DType::F64 => Ok(()),
        other => Err(Error::invalid(argument, "must hold f32, f64, f16 or bf16 numbers", other)),
    }
}

/// Checks that a tensor has the shape and the type of another.
pub(crate) fn like(
    argument: &'static str,
    tensor: &Tensor,
    other: &'static str,
    model: &Tensor,
) -> Result<()> {
    let kind = |tensor: &Tensor| format!("{:?} {:?}", tensor.dtype(), tensor.dims());
    if kind(tensor) == kind(model) {
        return Ok(());
    }
    let reason = format!("must have the type and the shape of `{other}`, {}", kind(model));
    Err(Error::invalid(argument, reason, format_args!("{}", kind(tensor))))
}

/// As [`float`], but also accepts bytes that are 0 or 1.
pub(crate) fn float_or_bytes(argument: &'static str, tensor: &Tensor) -> Result<()> {
    match tensor.dtype() {
        DType::U8 => Ok(()),
        _ => float(argument, tensor).map_err(|_| {
            Error::invalid(
                argument,
                "must hold floating-point numbers, or bytes that are 0 or 1",
                tensor.dtype(),
            )
        }),
    }
}

/// As [`float`], and checks that there is memory for a contiguous copy in the type of the computation.
pub(crate) fn input(argument: &'static str, input: &Tensor) -> Result<()> {
    float(argument, input)?;
    let half = matches!(input.dtype(), DType::F16 | DType::BF16);
    if !half && input.is_contiguous() {
        return Ok(());
    }
    tensor(argument, input.dims(), if half { DType::F32 } else { input.dtype() }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text<T: std::fmt::Debug>(result: Result<T>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn numbers_stay_in_their_range() {
        for value in [0.0, 0.5, 1.0 - f64::EPSILON] {
            within("p", value, 0.0..1.0).unwrap();
        }
        for value in [-1e-300, 1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(text(within("p", value, 0.0..1.0)), format!("`p` must be in [0, 1), got {value:?}"));
        }
        assert_eq!(text(within("p", 1e39, 0.0..)), "`p` must be at least 0 and finite in f32, got 1e39");
        assert_eq!(text(within("p", f64::NAN, ..)), "`p` must be finite in f32, got NaN");
        assert_eq!(text(positive("p", 0.0)), "`p` must be above 0 and finite in f32, got 0.0");
        assert_eq!(text(positive("p", 1e-60)), "`p` must be above 0 in f32 as well, got 1e-60");
    }

    #[test]
    fn sizes_are_counted_or_refused() {
        assert_eq!(count("inp", &[2, 3]).unwrap(), 6);
        assert_eq!(count("inp", &[1 << 40, 0]).unwrap(), 0);
        assert_eq!(count("inp", &[]).unwrap(), 1);
        for sizes in [&[1 << 63, 2][..], &[usize::MAX, 2], &[1 << 40, 0, 1 << 40], &[1 << 63]] {
            assert!(text(count("inp", sizes)).contains("`inp` must not give more elements"), "{sizes:?}");
        }
        memory::<f64>("inp", 0).unwrap();
        memory::<f64>("inp", 1 << 22).unwrap();
        for len in [1 << 50, 1 << 61, usize::MAX] {
            assert!(text(memory::<f64>("inp", len)).contains("more memory than there is"), "{len}");
        }
    }
}
