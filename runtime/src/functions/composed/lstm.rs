//! One step of an LSTM cell.

use candle_core::{Result, Tensor};

use super::affine;
use super::rule::attach;
use crate::device::{Arguments, fused};
use crate::kernels::cuda::Kernel;
use crate::number::{Composed, Number};

pub(crate) fn lstm_cell(x: &Tensor, h: &Tensor, c: &Tensor, w: &Tensor, b: &Tensor) -> Result<[Tensor; 2]> {
    if c.elem_count() == 0 {
        return Ok([c.clone(), c.clone()]); // candle panics on parts of nothing
    }
    let inputs = Tensor::cat(&[x, h], 1)?;
    let gates = affine(&inputs, w, Some(b), 1)?;
    if let Some(both) = in_one_kernel(&gates, c)? {
        return Ok([both.get(0)?, both.get(1)?]);
    }
    let gate = |index: usize| gates.narrow(1, index, 1)?.squeeze(1);
    let (input, output, forget, candidate) = (gate(0)?, gate(1)?, gate(2)?, gate(3)?);
    let new = ((sigmoid(&forget)? * c)? + (sigmoid(&input)? * candidate.tanh()?)?)?;
    Ok([(sigmoid(&output)? * new.tanh()?)?, new])
}

fn sigmoid(x: &Tensor) -> Result<Tensor> {
    Composed::from(x).sigmoid().0
}

/// The new `h` and `c`, one upon the other, from gates `(N, 4, state)`, if there is a kernel for that here.
fn in_one_kernel(gates: &Tensor, c: &Tensor) -> Result<Option<Tensor>> {
    let (n, dims, state) = (c.elem_count(), c.dims().to_vec(), c.dim(1)?);
    let run = move |name, inputs: &[&Tensor], len| {
        fused(Kernel::named(name), n, Arguments { sizes: &[state], numbers: &[], inputs }, len)
    };
    let both_dims = [&[2], &dims[..]].concat();
    let Some(both) = run("lstm_forward", &[gates, c], 2 * n)? else { return Ok(None) };
    let (kept, before) = (gates.detach(), c.detach());
    let both = attach("lstm_cell", &[gates, c], &both.reshape(both_dims)?, move |gradient, _| {
        let Some(out) = run("lstm_backward", &[&kept, &before, gradient], 5 * n)? else {
            candle_core::bail!("NVRTC is gone since the forward pass")
        };
        let part = |start, len| out.narrow(0, start, len)?.contiguous();
        Ok(vec![Some(part(0, 4 * n)?.reshape(kept.shape())?), Some(part(4 * n, n)?.reshape(&dims[..])?)])
    })?;
    Ok(Some(both))
}
