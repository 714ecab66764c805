//! Recurrent cells and sequences of their steps.

use std::array;

use candle_core::{Result, Tensor};

use super::affine;
use super::rule::attach;
use crate::functions::cell::{Cell, Layer, LstmCell};
use crate::number::{Composed, Traced, fused_stacked};

/// The new `h` and `c`.
pub(crate) fn lstm_cell(x: &Tensor, h: &Tensor, c: &Tensor, w: &Tensor, b: &Tensor) -> Result<[Tensor; 2]> {
    if c.elem_count() == 0 {
        return Ok([c.clone(), c.clone()]); // candle panics on parts of nothing
    }
    let inputs = Tensor::cat(&[x, h], 1)?;
    let pre = affine(&inputs, w, Some(b), 1)?;
    let (kept, before) = (pre.detach(), [h.detach(), c.detach()]);
    let after = Tensor::stack(&step(LstmCell, &kept, before.each_ref())?, 0)?;
    let both = attach("lstm_cell", &[&pre, c], &after, move |slopes, _| {
        let slopes = [slopes.get(0)?, slopes.get(1)?];
        let (dpre, [_, dc]) = step_back(LstmCell, &kept, before.each_ref(), slopes.each_ref())?;
        Ok(vec![Some(dpre), Some(dc)])
    })?;
    Ok([both.get(0)?, both.get(1)?])
}

/// The states after a step, from pre-activations `(N, P, state)` and states `(N, state)`.
fn step<C: Cell<P, S>, const P: usize, const S: usize>(
    cell: C,
    pre: &Tensor,
    before: [&Tensor; S],
) -> Result<[Tensor; S]> {
    let formula = |pre: [Traced; P], [before]: [[Traced; S]; 1]| {
        let (_, after) = cell.forward(pre, before);
        [Vec::new(), after.into()]
    };
    if let Some(all) = fused_stacked(pre, [before], formula)? {
        return parts(&all, 0, before[0]);
    }
    let (_, after) = cell.forward(parts_of(pre), before.map(Composed::from));
    computed(after)
}

/// The gradients of the pre-activations and of the states before, from those of the states after.
fn step_back<C: Cell<P, S>, const P: usize, const S: usize>(
    cell: C,
    pre: &Tensor,
    before: [&Tensor; S],
    slopes: [&Tensor; S],
) -> Result<(Tensor, [Tensor; S])> {
    let formula = |pre: [Traced; P], [before, slopes]: [[Traced; S]; 2]| {
        let (gates, _) = cell.forward(pre, before.clone());
        let (dpre, back) = cell.backward(gates, before, slopes);
        [dpre.into(), back.into()]
    };
    if let Some(all) = fused_stacked(pre, [before, slopes], formula)? {
        let dpre = all.narrow(0, 0, pre.elem_count())?.reshape(pre.shape())?;
        return Ok((dpre, parts(&all, pre.elem_count(), before[0])?));
    }
    let (gates, _) = cell.forward(parts_of(pre), before.map(Composed::from));
    let (dpre, back) = cell.backward(gates, before.map(Composed::from), slopes.map(Composed::from));
    Ok((Tensor::stack(&computed(dpre)?, 1)?, computed(back)?))
}

/// Tensors like `like` that lie one behind the other.
fn parts<const S: usize>(all: &Tensor, start: usize, like: &Tensor) -> Result<[Tensor; S]> {
    let n = like.elem_count();
    collected(array::from_fn(|s| all.narrow(0, start + s * n, n)?.reshape(like.shape())))
}

fn parts_of<const P: usize>(pre: &Tensor) -> [Composed; P] {
    array::from_fn(|p| Composed(pre.narrow(1, p, 1).and_then(|part| part.squeeze(1))))
}

fn computed<const N: usize>(values: [Composed; N]) -> Result<[Tensor; N]> {
    collected(values.map(|value| value.0))
}

fn collected<const N: usize>(tensors: [Result<Tensor>; N]) -> Result<[Tensor; N]> {
    let tensors = tensors.into_iter().collect::<Result<Vec<_>>>()?;
    tensors.try_into().map_err(|_| candle_core::Error::msg("an array has changed its length"))
}

/// One layer in one direction: the outputs `(T, N, state)` and the last states, from the inputs `(T, N, I)`, the weights
/// `(.., state, I + state)` and the bias `(.., state)`, which may be empty.
pub(crate) fn layer<C: Layer<P, S>, const P: usize, const S: usize>(
    cell: C,
    [x, w, b]: [&Tensor; 3],
    first: [&Tensor; S],
    reverse: bool,
) -> Result<(Tensor, [Tensor; S])> {
    let ((n_steps, n, inmaps), state) = (x.dims3()?, first[0].dim(1)?);
    let w = w.reshape((C::N_WEIGHTS, state, inmaps + state))?;
    let of_inputs =
        gathered(&w.narrow(2, 0, inmaps)?, (0..P).map(|gate| Some(gate).filter(|&g| g < C::N_WEIGHTS)))?;
    let place = |gate: usize| {
        C::RECURRENT.iter().find_map(|part| {
            let block = gate.checked_sub(part.gate)?;
            (block < part.weights.len()).then(|| part.weights.start + block)
        })
    };
    let recurrent = gathered(&w.narrow(2, inmaps, state)?, (0..P).map(place))?;
    let mut of_inputs = x.reshape((n_steps * n, inmaps))?.matmul(&of_inputs.t()?)?;
    if b.elem_count() > 0 {
        of_inputs = of_inputs.broadcast_add(&b.reshape((1, P * state))?)?;
    }
    let of_inputs = of_inputs.reshape((n_steps, n, P, state))?;
    let all = sequence(cell, &of_inputs, &Tensor::stack(&first, 0)?, &recurrent, reverse)?;
    Ok((all.narrow(0, 0, n_steps)?, collected(array::from_fn(|s| all.get(n_steps + s)))?))
}

/// Blocks of weights `(blocks, state, columns)` stacked, `(P state, columns)`, with zeros where there is none.
fn gathered(w: &Tensor, blocks: impl Iterator<Item = Option<usize>>) -> Result<Tensor> {
    let (_, state, columns) = w.dims3()?;
    let blocks = blocks.map(|block| match block {
        Some(block) => w.get(block)?.contiguous(),
        None => Tensor::zeros((state, columns), w.dtype(), w.device()),
    });
    Tensor::cat(&blocks.collect::<Result<Vec<_>>>()?, 0)
}

/// All steps of a cell. From the inputs' part of the pre-activations `(T, N, P, state)`, the first states `(S, N, state)` and the
/// recurrent weights `(P state, state)`: the outputs of all steps and the last states, `(T + S, N, state)`.
fn sequence<C: Cell<P, S>, const P: usize, const S: usize>(
    cell: C,
    of_inputs: &Tensor,
    first: &Tensor,
    w: &Tensor,
    reverse: bool,
) -> Result<Tensor> {
    let run = Run { cell, of_inputs: of_inputs.detach(), w: w.detach(), reverse };
    let is_kept = [of_inputs, first, w].iter().any(|input| input.track_op());
    let (result, kept) = run.forward(&first.detach(), is_kept)?;
    attach("recurrent layer", &[of_inputs, first, w], &result, move |slopes, needed| {
        run.backward(slopes, &kept, needed)
    })
}

struct Run<C> {
    cell: C,
    of_inputs: Tensor,
    w: Tensor,
    reverse: bool,
}

/// What the backward pass needs of a step.
struct Kept<const S: usize> {
    pre: Tensor,
    before: [Tensor; S],
}

impl<C> Run<C> {
    /// The steps in the order of their computation.
    fn order(&self) -> impl DoubleEndedIterator<Item = usize> + ExactSizeIterator + use<C> {
        let (n, reverse) = (self.of_inputs.dims()[0], self.reverse);
        (0..n).map(move |i| if reverse { n - 1 - i } else { i })
    }

    fn forward<const P: usize, const S: usize>(
        &self,
        first: &Tensor,
        is_kept: bool,
    ) -> Result<(Tensor, Vec<Kept<S>>)>
    where
        C: Cell<P, S>,
    {
        let mut kept = Vec::new();
        let mut outputs = Vec::with_capacity(self.of_inputs.dims()[0] + S);
        let mut states: [Tensor; S] = collected(array::from_fn(|s| first.get(s)))?;
        let transposed = self.w.t()?.contiguous()?;
        for t in self.order() {
            let of_input = self.of_inputs.get(t)?;
            let pre = (&of_input + states[0].matmul(&transposed)?.reshape(of_input.shape())?)?;
            let after = step(self.cell, &pre, states.each_ref())?;
            outputs.push(after[0].clone());
            if is_kept {
                kept.push(Kept { pre, before: states });
            }
            states = after;
        }
        if self.reverse {
            outputs.reverse();
        }
        outputs.extend(states);
        Ok((Tensor::stack(&outputs, 0)?, kept))
    }

    fn backward<const P: usize, const S: usize>(
        &self,
        slopes: &Tensor,
        kept: &[Kept<S>],
        needed: &[bool],
    ) -> Result<Vec<Option<Tensor>>>
    where
        C: Cell<P, S>,
    {
        let n_steps = self.of_inputs.dims()[0];
        let mut states: [Tensor; S] = collected(array::from_fn(|s| slopes.get(n_steps + s)))?;
        let mut dpres = Vec::with_capacity(n_steps);
        for (t, kept) in self.order().zip(kept).rev() {
            states[0] = (&states[0] + slopes.get(t)?)?;
            let (dpre, mut back) =
                step_back(self.cell, &kept.pre, kept.before.each_ref(), states.each_ref())?;
            back[0] = (&back[0] + rows(&dpre)?.matmul(&self.w)?)?;
            dpres.push(dpre);
            states = back;
        }
        dpres.reverse(); // now in the order of the computation, as what is kept
        let dw = || {
            let before: Vec<_> = kept.iter().map(|kept| &kept.before[0]).collect();
            let all = dpres.iter().map(rows).collect::<Result<Vec<_>>>()?;
            Tensor::cat(&all, 0)?.t()?.matmul(&Tensor::cat(&before, 0)?)
        };
        let dw = needed[2].then(dw).transpose()?;
        if self.reverse {
            dpres.reverse();
        }
        let dinputs = needed[0].then(|| Tensor::stack(&dpres, 0)).transpose()?;
        Ok(vec![dinputs, needed[1].then(|| Tensor::stack(&states, 0)).transpose()?, dw])
    }
}

/// `(N, P, state)` as `(N, P state)`.
fn rows(pre: &Tensor) -> Result<Tensor> {
    pre.reshape((pre.dim(0)?, ()))
}
