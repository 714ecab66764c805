//! Errors of predictions, which have no gradient.

use candle_core::{DType, Device, Tensor};

use super::embed::{index, integers};
use super::reduce::lanes_along;
use crate::{Axis, Error, Result, check};

/// 1 if more than `n` scores along `axis` are at least that of the target, else 0. NNabla's defaults are the
/// last axis, `-1`, and `n = 1`. Scores equal to the target's count against it; a negative target does not
/// count as an error.
///
/// # Shapes
/// - `inp`: `(N.., C, L..)`, scores with the classes on `axis`
/// - `target`: `(N.., 1, L..)`, of an integer type
/// - output: as `target`, of the type of `inp`
///
/// # Errors
/// [`Error::InvalidArgument`] if the shapes do not fit together, a target is not below `C`, or `n` is 0.
///
/// # Source
/// NNabla `F.top_n_error`, which reads memory out of bounds if a target is out of range.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// use layerfn::functions::top_n_error;
/// let scores = Tensor::new(&[[0.5f32, 0.2, 0.3], [0.1, 0.6, 0.3]], &Device::Cpu)?;
/// let target = Tensor::new(&[[2u32], [1]], &Device::Cpu)?;
/// assert_eq!(top_n_error(&scores, &target, -1, 1)?.to_vec2::<f32>()?, [[1.], [0.]]);
/// assert_eq!(top_n_error(&scores, &target, -1, 2)?.to_vec2::<f32>()?, [[0.], [0.]]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn top_n_error(inp: &Tensor, target: &Tensor, axis: impl Into<Axis>, n: usize) -> Result<Tensor> {
    check::input("inp", inp)?;
    let axis = axis.into();
    let lanes = lanes_along(inp, axis)?;
    let mut dims = inp.dims().to_vec();
    dims[axis.resolve("axis", inp.dims())?] = 1;
    if target.dims() != dims {
        return Err(Error::invalid(
            "target",
            format!("must have shape {dims:?} for this input"),
            target.dims(),
        ));
    }
    if n == 0 {
        return Err(Error::invalid("n", "must be at least 1", n));
    }
    let targets = integers("target", target)?;
    check::tensor("inp", inp.dims(), DType::F64)?;
    let scores =
        inp.detach().to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
    let errors = targets.iter().enumerate().map(|(i, &target)| {
        if target < 0 {
            return Ok(0.0);
        }
        let start = i / lanes.inner * lanes.len * lanes.inner + i % lanes.inner;
        let score = |k: usize| scores[start + k * lanes.inner];
        let own = score(index("target", target, lanes.len, "C")?);
        let n_above = (0..lanes.len).filter(|&k| score(k) >= own).count();
        Ok(if n_above > n { 1.0 } else { 0.0 })
    });
    let errors: Vec<f32> = errors.collect::<Result<_>>()?;
    Ok(Tensor::from_vec(errors, dims, inp.device())?.to_dtype(inp.dtype())?)
}
