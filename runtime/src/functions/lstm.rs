//! One step of an LSTM cell.

use candle_core::Tensor;

use super::composed;
use super::graph::{attach, tracked};
use super::node::{compute, element_count, for_float, widened, without_kernels};
use crate::kernels::lstm;
use crate::{Error, Result};

/// One step of an LSTM cell from the gates' pre-activations; returns the new `h` and `c`.
///
/// `c' = sigmoid(f) c + sigmoid(i) tanh(g)` and `h' = sigmoid(o) tanh(c')`.
///
/// # Shapes
/// - `gates`: `(N.., 4, state)`: input `i`, output `o`, forget `f`, candidate `g`, in NNabla's order
/// - `c`, both results: `(N.., state)`
///
/// # Errors
/// [`Error::InvalidArgument`] if the shapes do not fit together.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// let gates = Tensor::new(&[[[-100f64], [100.], [100.], [0.]]], &Device::Cpu)?; // keep all, add nothing, show all
/// let c = Tensor::new(&[[0.5f64]], &Device::Cpu)?;
/// let (h, c) = layerfn::functions::lstm_step(&gates, &c)?;
/// assert_eq!(c.to_vec2::<f64>()?, [[0.5]]);
/// assert_eq!(h.to_vec2::<f64>()?, [[0.5f64.tanh()]]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn lstm_step(gates: &Tensor, c: &Tensor) -> Result<(Tensor, Tensor)> {
    let (&state, batch) =
        c.dims().split_last().ok_or_else(|| Error::invalid("c", "must have shape (N.., state)", c.dims()))?;
    let wanted = [batch, &[4, state]].concat();
    if gates.dims() != wanted {
        return Err(Error::invalid(
            "gates",
            format!("must have shape {wanted:?} for a state {:?}", c.dims()),
            gates.dims(),
        ));
    }
    element_count(&wanted)?;
    let compose = |t: &[Tensor]| composed::lstm_step(&t[0], &t[1]);
    if let Some([h, c]) = without_kernels("lstm_step", &[gates, c], compose)? {
        return Ok((h, c));
    }
    let dtype = c.dtype();
    let [gates, c] = widened("lstm_step", [gates, c])?;
    let (h, c) = for_float!(gates.dtype(), T => {
        let value = compute::<T, 2>(c.dims(), [&gates, &c], |[gates, c], new| lstm::cell(gates, c, state, new))?;
        let (g, old, needed) = (gates.clone(), c.clone(), tracked([&gates, &c]));
        let new = attach("lstm_cell_state", [&gates, &c], value, move |dnew| {
            let (mut dgates, mut dc) = (None, None);
            if needed[0] {
                let value = compute::<T, 3>(g.dims(), [&g, &old, dnew], |[gates, c, dnew], dgates| {
                    lstm::cell_gates_gradient(gates, c, dnew, state, dgates);
                })?;
                dgates = Some(value.into_tensor()?);
            }
            if needed[1] {
                let value = compute::<T, 2>(old.dims(), [&g, dnew], |[gates, dnew], dc| {
                    lstm::cell_state_gradient(gates, dnew, state, dc);
                })?;
                dc = Some(value.into_tensor()?);
            }
            Ok([dgates, dc])
        })?;
        let value = compute::<T, 2>(c.dims(), [&gates, &new], |[gates, c], h| lstm::output(gates, c, state, h))?;
        let (g, state_now, needed) = (gates.clone(), new.clone(), tracked([&gates, &new]));
        let h = attach("lstm_output", [&gates, &new], value, move |dh| {
            let (mut dgates, mut dc) = (None, None);
            if needed[0] {
                let value = compute::<T, 3>(g.dims(), [&g, &state_now, dh], |[gates, c, dh], dgates| {
                    lstm::output_gates_gradient(gates, c, dh, state, dgates);
                })?;
                dgates = Some(value.into_tensor()?);
            }
            if needed[1] {
                let value = compute::<T, 3>(state_now.dims(), [&g, &state_now, dh], |[gates, c, dh], dc| {
                    lstm::output_state_gradient(gates, c, dh, state, dc);
                })?;
                dc = Some(value.into_tensor()?);
            }
            Ok([dgates, dc])
        })?;
        Ok::<_, Error>((h, new))
    })?;
    Ok((h.to_dtype(dtype)?, c.to_dtype(dtype)?))
}
