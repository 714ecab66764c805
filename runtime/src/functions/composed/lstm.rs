//! One step of an LSTM cell.

use candle_core::{Result, Tensor};

use super::activation::sigmoid;
use super::affine;

pub(crate) fn lstm_cell(x: &Tensor, h: &Tensor, c: &Tensor, w: &Tensor, b: &Tensor) -> Result<[Tensor; 2]> {
    if c.elem_count() == 0 {
        return Ok([c.clone(), c.clone()]); // candle panics on parts of nothing
    }
    let inputs = Tensor::cat(&[x, h], 1)?;
    let gates = affine(&inputs, w, Some(b), 1)?;
    let gate = |index: usize| gates.narrow(1, index, 1)?.squeeze(1);
    let (input, output, forget, candidate) = (gate(0)?, gate(1)?, gate(2)?, gate(3)?);
    let new = ((sigmoid(&forget)? * c)? + (sigmoid(&input)? * candidate.tanh()?)?)?;
    Ok([(sigmoid(&output)? * new.tanh()?)?, new])
}
