//! Embeddings of positions: learned, and by rotation.

use candle_core::Tensor;

use super::composed;
use super::graph::{attach, tracked};
use super::node::{compute, for_float, in_type, widened, without_kernels};
use super::parts;
use crate::kernels::{Positions, add_positions, rotate, sum_positions};
use crate::told::listens;
use crate::{Error, Result, check};

/// `y = x + w[position]`: adds a row of a table to each position.
///
/// # Shapes
/// - `inp` and output: any; the positions are on `axis`, the features on the last one
/// - `w`: `(most positions, features)`
///
/// # Errors
/// [`Error::InvalidArgument`] if `axis` is the last axis or does not exist, or `w` has too few rows or another
/// number of features.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// let x = Tensor::new(&[[1f32, 1.], [2., 2.]], &Device::Cpu)?;
/// let w = Tensor::new(&[[0f32, 10.], [20., 30.], [40., 50.]], &Device::Cpu)?;
/// let y = layerfn::functions::add_position_embedding(&x, &w, 0)?;
/// assert_eq!(y.to_vec2::<f32>()?, [[1., 11.], [22., 32.]]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn add_position_embedding(inp: &Tensor, w: &Tensor, axis: usize) -> Result<Tensor> {
    let positions = split(inp, axis)?;
    if w.rank() != 2 || w.dims()[0] < positions.n || w.dims()[1] != positions.features {
        let Positions { n, features, .. } = positions;
        let reason = format!("must have the shape ({n} or more positions, {features})");
        return Err(Error::invalid("W", reason, w.dims()));
    }
    if listens() {
        return parts::add_positions(inp, w, axis);
    }
    let compose = |t: &[Tensor]| Ok([composed::position::add(&t[0], &t[1], positions)?]);
    if let Some([y]) = without_kernels("add_position_embedding", &[inp, w], compose)? {
        return Ok(y);
    }
    let dtype = inp.dtype();
    let [inp, w] = widened("add_position_embedding", [inp, w])?;
    let y = for_float!(inp.dtype(), T => {
        let y = compute::<T, 2>(inp.dims(), [&inp, &w], |[x, w], y| add_positions(positions, x, w, y))?;
        let (needed, dims) = (tracked([&inp, &w]), w.dims().to_vec());
        attach("add_position_embedding", [&inp, &w], y, move |dy| {
            let dw = || compute::<T, 1>(&*dims, [dy], |[dy], dw| sum_positions(positions, dy, dw))?.into_tensor();
            Ok([needed[0].then(|| dy.clone()), needed[1].then(dw).transpose()?])
        })
    })?;
    in_type(y, dtype)
}

/// Computes the stage [`rotary_position_embedding`](fn@crate::rotary_position_embedding).
///
/// # Errors
/// [`Error::InvalidArgument`] if `axis` is the last axis or does not exist, the number of features is odd, or
/// `base` is not positive.
pub fn rotary_position_embedding(inp: &Tensor, axis: usize, base: f64) -> Result<Tensor> {
    let positions = split(inp, axis)?;
    if !positions.features.is_multiple_of(2) {
        return Err(Error::invalid("inp", "must have an even number of features", inp.dims()));
    }
    check::positive("base", base)?;
    check::tensor("inp", &[positions.n, positions.features], inp.dtype())?;
    if listens() {
        return parts::rotate(inp, positions, base);
    }
    let compose = |t: &[Tensor]| Ok([composed::position::rotate(&t[0], positions, base)?]);
    if let Some([y]) = without_kernels("rotary_position_embedding", &[inp], compose)? {
        return Ok(y);
    }
    let [x] = widened("rotary_position_embedding", [inp])?;
    let y = for_float!(x.dtype(), T => {
        let y = compute::<T, 1>(x.dims(), [&x], |[x], y| rotate(positions, base, 1.0, x, y))?;
        attach("rotary_position_embedding", [&x], y, move |dy| {
            let dx = compute::<T, 1>(dy.dims(), [dy], |[dy], dx| rotate(positions, base, -1.0, dy, dx))?;
            Ok([Some(dx.into_tensor()?)])
        })
    })?;
    in_type(y, inp.dtype())
}

/// The axes before, at, between and behind.
fn split(inp: &Tensor, axis: usize) -> Result<Positions> {
    check::input("inp", inp)?;
    let dims = inp.dims();
    if axis.saturating_add(1) >= dims.len() {
        let reason = format!("must be an axis of the input {dims:?} before the last one");
        return Err(Error::invalid("axis", reason, axis));
    }
    let (between, features) = (&dims[axis + 1..dims.len() - 1], dims[dims.len() - 1]);
    Ok(Positions { n: dims[axis], between: check::count("inp", between)?, features })
}
