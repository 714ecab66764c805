//! Layers that run along an axis of their input.

use candle_core::Tensor;

use super::{Stage, Value};
use crate::told::{Form, told};
use crate::{Error, Result, check, is_training};

/// Runs a cell along `axis` of `x`, from zero states, and stacks its outputs along that axis.
///
/// `cell` receives the input of a step and two states of shape `(batch, state_size)`. It returns their next
/// values, or only the first if it does not need a second, as [`gru_cell`](fn@crate::gru_cell) does; the first
/// is the output. Its layers share their parameters between the steps. The batch is the first axis of `x` other
/// than `axis`. In [`test_mode`](crate::test_mode), neither the steps nor the result keep a graph.
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
    S: Stage<Output: CellOutput>,
{
    check_axis(x, axis)?;
    let batch = x.dims()[usize::from(axis == 0)];
    let zeros = check::zeros("state_size", &[batch, state_size], x.dtype(), x.device())?;
    recur_from(x, axis, (&zeros, &zeros), cell).map(|(y, ..)| y)
}

/// As [`recur`], from the given states; returns the outputs and the two states after the last step.
///
/// Use this to run a sequence in pieces. `detach` between them cuts the gradient: truncated backpropagation
/// through time.
///
/// ```
/// use layerfn::prelude::*;
/// use layerfn::{recur, recur_from};
///
/// let x = Tensor::ones((2, 6, 8), DType::F32, &Device::Cpu)?;
/// let (mut h, mut c) = (Tensor::zeros((2, 4), DType::F32, &Device::Cpu)?, Tensor::zeros((2, 4), DType::F32, &Device::Cpu)?);
/// let mut pieces = Vec::new();
/// for piece in x.chunk(3, 1)? {
///     let (y, h_last, c_last) = recur_from(&piece, 1, (&h, &c), |x, h, c| lstm(x, h, c, 4))?;
///     // A loss of `y` and a solver's update come here.
///     (h, c) = (h_last.detach(), c_last.detach());
///     pieces.push(y);
/// }
/// let whole = recur(&x, 1, 4, |x, h, c| lstm(x, h, c, 4))?;
/// assert_eq!(Tensor::cat(&pieces, 1)?.to_vec3::<f32>()?, whole.to_vec3::<f32>()?);
/// # Ok::<(), layerfn::Error>(())
/// ```
///
/// # Errors
/// As [`recur`].
pub fn recur_from<S>(
    x: &Tensor,
    axis: usize,
    (h, c): (&Tensor, &Tensor),
    cell: impl Fn(&Tensor, &Tensor, &Tensor) -> S,
) -> Result<(Tensor, Tensor, Tensor)>
where
    S: Stage<Output: CellOutput>,
{
    check_axis(x, axis)?;
    let (mut h, mut c) = (h.clone(), c.clone());
    let n_steps = x.dims()[axis];
    check::memory::<Tensor>("x", n_steps)?;
    let mut step = x.dims().to_vec();
    step.remove(axis);
    check::tensor("x", &step, x.dtype())?;
    let mut outputs = Vec::with_capacity(n_steps);
    for t in 0..n_steps {
        let step = x.get_on_dim(axis, t)?;
        let step = told(|| Form::new("Identity", &[&step]), || Ok(step.contiguous()?))?;
        (h, c) = cell(&step, &h, &c).run()?.or_second(c);
        if !is_training() {
            (h, c) = (h.detach(), c.detach());
        }
        outputs.push(h.clone());
    }
    check::tensor("x", &[&[n_steps], h.dims()].concat(), h.dtype())?;
    let all: Vec<_> = outputs.iter().collect();
    let y = told(|| Form::new("Stack", &all).with("axis", axis), || Ok(Tensor::stack(&all, axis)?))?;
    Ok((y, h, c))
}

/// The return value of a cell: its output, and a second state if it has one.
#[diagnostic::on_unimplemented(
    message = "a cell returns its next output, or that and a second state, not `{Self}`"
)]
pub trait CellOutput: Value {
    /// The output and the second state, which is `before` where the cell has none.
    fn or_second(self, before: Tensor) -> (Tensor, Tensor);
}

impl CellOutput for Tensor {
    fn or_second(self, before: Tensor) -> (Tensor, Tensor) {
        (self, before)
    }
}

impl CellOutput for (Tensor, Tensor) {
    fn or_second(self, _: Tensor) -> (Tensor, Tensor) {
        self
    }
}

fn check_axis(x: &Tensor, axis: usize) -> Result<()> {
    match x.dims().get(axis) {
        Some(&n_steps) if n_steps > 0 && x.rank() > 1 => Ok(()),
        _ => Err(Error::invalid(
            "axis",
            format!("must be an axis of the shape {:?} whose size is at least 1", x.dims()),
            axis,
        )),
    }
}
