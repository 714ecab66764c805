//! Tensors made from numbers.

use candle_core::{DType, Device, Tensor};

use crate::told::{Form, told};
use crate::{Dims, Error, Result, check};

/// A tensor filled with one value, of type `f32`.
///
/// # Errors
/// [`Error::InvalidArgument`] if `val` is not finite in `f32`, or there is no memory for so many.
///
/// # Source
/// NNabla `F.constant`.
///
/// # Example
/// ```
/// use candle_core::Device;
/// let y = layerfn::functions::constant(2.5, (2, 2), &Device::Cpu)?;
/// assert_eq!(y.to_vec2::<f32>()?, [[2.5, 2.5], [2.5, 2.5]]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn constant(val: f64, shape: impl Into<Dims>, device: &Device) -> Result<Tensor> {
    check::within("val", val, ..)?;
    let shape = shape.into();
    check::tensor("shape", &shape, DType::F32)?;
    told(
        || Form::new("Constant", &[]).with("val", val).with("shape", &shape[..]),
        || Ok(Tensor::full(val as f32, &*shape, device)?),
    )
}

/// The numbers from `start` to before `stop` in steps of `step`, of type `f32`. NNabla's default for `step` is 1.
///
/// # Errors
/// [`Error::InvalidArgument`] if a number is not finite in `f32`, `step` is 0, or there is no memory for so many.
///
/// # Source
/// NNabla `F.arange`.
///
/// # Example
/// ```
/// use candle_core::Device;
/// let y = layerfn::functions::arange(5., 0., -2., &Device::Cpu)?;
/// assert_eq!(y.to_vec1::<f32>()?, [5., 3., 1.]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn arange(start: f64, stop: f64, step: f64, device: &Device) -> Result<Tensor> {
    for (argument, value) in [("start", start), ("stop", stop), ("step", step)] {
        check::within(argument, value, ..)?;
    }
    if step == 0.0 {
        return Err(Error::invalid("step", "must not be 0", step));
    }
    let len = ((stop - start) / step).ceil().max(0.0) as usize;
    check::tensor("stop", &[len], DType::F32)?;
    Ok(Tensor::from_iter((0..len).map(|i| (start + i as f64 * step) as f32), device)?)
}
