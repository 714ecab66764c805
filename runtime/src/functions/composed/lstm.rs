//! One step of an LSTM cell.

use candle_core::{Result, Tensor};

use super::activation::sigmoid;

/// The new `h` and `c` from gates `(N.., 4, state)`: input, output, forget, candidate.
pub(crate) fn lstm_step(gates: &Tensor, c: &Tensor) -> Result<[Tensor; 2]> {
    if c.elem_count() == 0 {
        return Ok([c.clone(), c.clone()]); // candle panics on parts of nothing
    }
    let axis = gates.rank() - 2;
    let gate = |index: usize| gates.narrow(axis, index, 1)?.squeeze(axis);
    let (input, output, forget, candidate) = (gate(0)?, gate(1)?, gate(2)?, gate(3)?);
    let new = ((sigmoid(&forget)? * c)? + (sigmoid(&input)? * candidate.tanh()?)?)?;
    Ok([(sigmoid(&output)? * new.tanh()?)?, new])
}
