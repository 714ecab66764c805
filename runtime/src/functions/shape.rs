//! Changes of the shape.

use candle_core::Tensor;

use crate::told::{Form, told};
use crate::{Axis, Error, Result, check};

/// Reshapes the tensor; one size may be -1, and is then inferred from the others.
///
/// # Errors
/// [`Error::InvalidArgument`] if the number of elements differs, or cannot be divided by the other sizes.
///
/// # Source
/// NNabla `F.reshape`.
///
/// # Example
/// ```
/// use candle_core::{DType, Device, Tensor};
/// let x = Tensor::zeros((2, 3, 4), DType::F32, &Device::Cpu)?;
/// assert_eq!(layerfn::functions::reshape(&x, &[4, -1])?.dims(), [4, 6]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn reshape(inp: &Tensor, shape: &[isize]) -> Result<Tensor> {
    let n = check::count("inp", inp.dims())?;
    let wrong =
        || Error::invalid("shape", format!("must be one for the elements of {:?}", inp.dims()), shape);
    let mut dims = Vec::with_capacity(shape.len());
    let mut left = None;
    for (axis, size) in shape.iter().enumerate() {
        dims.push(match usize::try_from(*size) {
            Ok(size) => size,
            Err(_) if *size == -1 && left.is_none() => {
                left = Some(axis);
                1
            }
            Err(_) => return Err(Error::invalid("shape", "must have no size below 0, but one of -1", shape)),
        });
    }
    let others = check::count("shape", &dims)?;
    if let Some(axis) = left {
        dims[axis] = n.checked_div(others).ok_or_else(wrong)?;
    }
    if check::count("shape", &dims)? != n {
        return Err(wrong());
    }
    reshaped(inp, &dims)
}

/// Reshapes the elements to `dims`, whose number of elements is the same; views are copied.
fn reshaped(inp: &Tensor, dims: &[usize]) -> Result<Tensor> {
    if !inp.is_contiguous() {
        check::tensor("inp", dims, inp.dtype())?;
    }
    told(|| Form::new("Reshape", &[inp]).with("shape", dims), || Ok(inp.reshape(dims)?))
}

/// Flattens the axes from `base_axis` on: `(N.., D..)` becomes `(N.., product of D..)`.
///
/// # Errors
/// [`Error::InvalidArgument`] if the input has fewer axes than `base_axis`.
///
/// # Example
/// ```
/// use candle_core::{DType, Device, Tensor};
/// let x = Tensor::zeros((2, 3, 4), DType::F32, &Device::Cpu)?;
/// assert_eq!(layerfn::functions::flatten(&x, 1)?.dims(), [2, 12]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn flatten(inp: &Tensor, base_axis: impl Into<Axis>) -> Result<Tensor> {
    let (samples, sample) = inp.dims().split_at(base_axis.into().split("base_axis", inp.dims())?);
    reshaped(inp, &[samples, &[check::count("inp", sample)?]].concat())
}

/// Returns the tensor, but no gradient flows back through it.
///
/// # Errors
/// None; it returns a `Result` so that it can be a stage of a network.
///
/// # Source
/// NNabla `F.unlink`.
///
/// # Example
/// ```
/// use candle_core::{DType, Device, Tensor, Var};
/// let w = Var::ones(2, DType::F32, &Device::Cpu)?;
/// let y = layerfn::functions::unlink(&w)?;
/// assert!(!y.track_op());
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn unlink(inp: &Tensor) -> Result<Tensor> {
    Ok(inp.detach())
}
