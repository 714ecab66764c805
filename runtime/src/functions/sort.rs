//! Sorting.

use std::sync::Arc;

use candle_core::{Device, Tensor};

use super::composed;
use super::graph::attach;
use super::node::{compute, for_float, in_type, read, widened, without_kernels};
use super::reduce::lanes_along;
use crate::kernels::{Lanes, reduce};
use crate::told::{Form, told};
use crate::{Axis, Error, Result, check};

/// Sorts along an axis in ascending order, or with `reverse` in descending order; NNabla's default is the last
/// axis, `-1`. Equal elements keep their order, NaN comes last.
///
/// # Errors
/// [`Error::InvalidArgument`] if there is no such axis, or it has 2³² elements.
///
/// # Source
/// NNabla `F.sort`. Each element gets its own gradient here; NNabla passes it to another one if more than two
/// elements change places.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// let x = Tensor::new(&[3f32, 1., 2.], &Device::Cpu)?;
/// assert_eq!(layerfn::functions::sort(&x, -1, false)?.to_vec1::<f32>()?, [1., 2., 3.]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn sort(inp: &Tensor, axis: impl Into<Axis>, reverse: bool) -> Result<Tensor> {
    Ok(sort_with_index(inp, axis, reverse)?.0)
}

/// [`sort`], and the original index of each element along the axis, of type `u32`.
///
/// # Errors
/// As [`sort`].
///
/// # Source
/// NNabla `F.sort` with `with_index`; the second result is that of `only_index`.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// let x = Tensor::new(&[3f32, 1., 2.], &Device::Cpu)?;
/// let (_, index) = layerfn::functions::sort_with_index(&x, 0, true)?;
/// assert_eq!(index.to_vec1::<u32>()?, [0, 2, 1]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn sort_with_index(inp: &Tensor, axis: impl Into<Axis>, reverse: bool) -> Result<(Tensor, Tensor)> {
    let axis = axis.into();
    let at = axis.resolve("axis", inp.dims())?;
    told(
        || {
            Form::new("Sort", &[inp])
                .with("axis", at)
                .with("reverse", reverse)
                .with("with_index", true)
                .with("only_index", false)
        },
        || {
            let lanes = lanes_along(inp, axis)?;
            if u32::try_from(lanes.len).is_err() {
                return Err(Error::invalid(
                    "inp",
                    "must have fewer than 2^32 elements along the axis",
                    inp.dims(),
                ));
            }
            let [x] = widened("sort", [inp])?;
            let numbers = order(&x, lanes, reverse)?;
            let index = Tensor::from_slice(&numbers, inp.dims(), inp.device())?;
            let compose = |t: &[Tensor]| Ok([composed::reduce::pick(&t[0], lanes, &index)?]);
            if let Some([y]) = without_kernels("sort", &[inp], compose)? {
                return Ok((y, index));
            }
            let y = for_float!(x.dtype(), T => {
                let y = compute::<T, 1>(x.dims(), [&x], |[x], y| reduce::pick(lanes, &numbers, x, y))?;
                attach("sort", [&x], y, move |dy| {
                    let dx = compute::<T, 1>(dy.dims(), [dy], |[dy], dx| reduce::unpick(lanes, &numbers, dy, dx))?;
                    Ok([Some(dx.into_tensor()?)])
                })
            })?;
            Ok((in_type(y, inp.dtype())?, index))
        },
    )
}

/// The indices of the sorted elements; tensors on another device are copied to the CPU for this.
fn order(x: &Tensor, lanes: Lanes, reverse: bool) -> Result<Arc<[u32]>> {
    check::memory::<u32>("inp", x.elem_count())?;
    let mut numbers = vec![0; x.elem_count()];
    let x = x.detach().to_device(&Device::Cpu)?;
    for_float!(x.dtype(), T => read::<T, _, 1>([&x], |[x]| reduce::order(lanes, reverse, x, &mut numbers)))?;
    Ok(numbers.into())
}
