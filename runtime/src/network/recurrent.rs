//! Layers that run along an axis of their input.

use candle_core::Tensor;

use super::Stage;
use crate::{Error, Result};

/// Runs a cell along `axis` of `x`, from zero states, and stacks its outputs along that axis.
///
/// `cell` gets the input of a step and the two states, of shape `(batch, state_size)`, and returns their next values;
/// the first is the output. Its layers share their parameters between the steps. The batch is the first axis of what
/// is left of `x`.
///
/// ```
/// use layerfn::prelude::*;
/// use layerfn::recur;
///
/// fn last_step(x: &Tensor) -> layerfn::Result<Tensor> {
///     Ok(x.get_on_dim(1, x.dim(1)? - 1)?)
/// }
///
/// let net = network! { lstm1: recur(1, 16, |x, h, c| lstm(x, h, c, 16)) -> last_step -> affine(3) };
/// let x = Tensor::zeros((2, 5, 8), DType::F32, &Device::Cpu)?;
/// assert_eq!(net.forward(&x)?.dims(), [2, 3]);
/// # Ok::<(), layerfn::Error>(())
/// ```
///
/// # Errors
/// [`Error::InvalidArgument`] if `x` has no such axis or no steps; those of the cell.
pub fn recur<S>(
    x: &Tensor,
    axis: usize,
    state_size: usize,
    cell: impl Fn(&Tensor, &Tensor, &Tensor) -> S,
) -> Result<Tensor>
where
    S: Stage<Output = (Tensor, Tensor)>,
{
    let n_steps = match x.dims().get(axis) {
        Some(&n_steps) if n_steps > 0 && x.rank() > 1 => n_steps,
        _ => {
            return Err(Error::invalid(
                "axis",
                format!("must be an axis of {:?} with steps", x.dims()),
                axis,
            ));
        }
    };
    let step = |t: usize| x.get_on_dim(axis, t)?.contiguous();
    let first = step(0)?;
    let zeros = Tensor::zeros((first.dim(0)?, state_size), x.dtype(), x.device())?;
    let (mut h, mut c) = cell(&first, &zeros, &zeros).run()?;
    let mut outputs = vec![h.clone()];
    for t in 1..n_steps {
        (h, c) = cell(&step(t)?, &h, &c).run()?;
        outputs.push(h.clone());
    }
    Ok(Tensor::stack(&outputs, axis)?)
}
