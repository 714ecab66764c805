//! The formulas of recurrent cells, written once for the kernels, for candle's operations and for CUDA.

use std::ops::Range;

use super::activation::positive_part;
use crate::kernels::{Float, cell};
use crate::number::{Looped, Number, looped, unlooped};

/// The formula of a cell for one unit, with `P` pre-activations and `S` states, the first of which is the
/// output.
pub(super) trait Cell<const P: usize, const S: usize>: Copy + Send + Sync + 'static {
    /// The activations, and the states after the step.
    fn forward<V: Number>(self, pre: [V; P], before: [V; S]) -> ([V; P], [V; S]);

    /// Computes the gradients of the pre-activations and of the states before the step from those of the states
    /// after it. For the state that also acts through the pre-activations, only the direct part is included.
    fn backward<V: Number>(self, gates: [V; P], before: [V; S], slopes: [V; S]) -> ([V; P], [V; S]);
}

/// A cell of a layer over a sequence: its pre-activations are products of weights with the input and with the
/// output of the previous step. The first blocks receive those of the input.
pub(super) trait Layer<const P: usize, const S: usize>: Cell<P, S> {
    /// The pre-activations that the output of the previous step contributes to, in the order of the weights.
    const RECURRENT: &'static [Recurrent];

    /// Blocks of the weights.
    const N_WEIGHTS: usize = {
        let last = &Self::RECURRENT[Self::RECURRENT.len() - 1];
        last.weights.end
    };
}

/// Blocks of the weights, and the pre-activations that their products are added to.
pub(super) struct Recurrent {
    pub(super) weights: Range<usize>,
    /// The first of them.
    pub(super) gate: usize,
}

/// `h' = f(a)`, where `f` is ReLU or the hyperbolic tangent.
#[derive(Clone, Copy)]
pub(super) struct Elman<const RELU: bool>;

impl<const RELU: bool> Cell<1, 1> for Elman<RELU> {
    #[inline(always)]
    fn forward<V: Number>(self, [a]: [V; 1], _: [V; 1]) -> ([V; 1], [V; 1]) {
        let h = if RELU { positive_part(&a) } else { a.tanh() };
        ([h.clone()], [h])
    }

    #[inline(always)]
    fn backward<V: Number>(self, [h]: [V; 1], _: [V; 1], [dh]: [V; 1]) -> ([V; 1], [V; 1]) {
        let zero = dh.constant(0.0);
        let da = if RELU {
            V::select(h.above(0.0), || dh, || zero.clone())
        } else {
            dh * (h.clone() * h).complement()
        };
        ([da], [zero])
    }
}

impl<const RELU: bool> Layer<1, 1> for Elman<RELU> {
    const RECURRENT: &'static [Recurrent] = &[Recurrent { weights: 0..1, gate: 0 }];
}

/// Long short-term memory with the gates in the order of NNabla's layer over sequences: input, forget,
/// candidate, output.
///
/// `c' = σ(f) c + σ(i) tanh(g)` and `h' = σ(o) tanh(c')`.
#[derive(Clone, Copy)]
pub(super) struct Lstm;

impl Cell<4, 2> for Lstm {
    #[inline(always)]
    fn forward<V: Number>(self, [i, f, g, o]: [V; 4], [_, c]: [V; 2]) -> ([V; 4], [V; 2]) {
        let (i, f, g, o) = (i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid());
        let c = f.clone() * c + i.clone() * g.clone();
        let h = o.clone() * c.clone().tanh();
        ([i, f, g, o], [h, c])
    }

    #[inline(always)]
    fn backward<V: Number>(self, gates: [V; 4], [_, c]: [V; 2], [dh, dc]: [V; 2]) -> ([V; 4], [V; 2]) {
        let [i, f, g, o] = gates;
        let shown = (f.clone() * c.clone() + i.clone() * g.clone()).tanh();
        let through = dc + dh.clone() * o.clone() * (shown.clone() * shown.clone()).complement();
        let di = through.clone() * g.clone() * i.clone() * i.clone().complement();
        let df = through.clone() * c * f.clone() * f.clone().complement();
        let dg = through.clone() * i * (g.clone() * g).complement();
        let none = dh.constant(0.0);
        let d_o = dh * shown * o.clone() * o.complement();
        ([di, df, dg, d_o], [none, through * f])
    }
}

impl Layer<4, 2> for Lstm {
    const RECURRENT: &'static [Recurrent] = &[Recurrent { weights: 0..4, gate: 0 }];
}

/// [`Lstm`] with the gates in the order of NNabla's cell: input, output, forget, candidate.
#[derive(Clone, Copy)]
pub(super) struct LstmCell;

impl Cell<4, 2> for LstmCell {
    #[inline(always)]
    fn forward<V: Number>(self, [i, o, f, g]: [V; 4], before: [V; 2]) -> ([V; 4], [V; 2]) {
        let ([i, f, g, o], after) = Lstm.forward([i, f, g, o], before);
        ([i, o, f, g], after)
    }

    #[inline(always)]
    fn backward<V: Number>(self, gates: [V; 4], before: [V; 2], slopes: [V; 2]) -> ([V; 4], [V; 2]) {
        let [i, o, f, g] = gates;
        let ([i, f, g, o], back) = Lstm.backward([i, f, g, o], before, slopes);
        ([i, o, f, g], back)
    }
}

/// Gated recurrent unit. Its pre-activations are those of the reset gate, of the update gate, and two for the
/// candidate: that of the input and that of the state.
///
/// `n = tanh(a + σ(r) q)` and `h' = (1 − σ(z)) n + σ(z) h`.
#[derive(Clone, Copy)]
pub(super) struct Gru;

impl Cell<4, 1> for Gru {
    #[inline(always)]
    fn forward<V: Number>(self, [r, z, a, q]: [V; 4], [h]: [V; 1]) -> ([V; 4], [V; 1]) {
        let (r, z) = (r.sigmoid(), z.sigmoid());
        let n = (a + r.clone() * q.clone()).tanh();
        let next = z.clone().complement() * n.clone() + z.clone() * h;
        ([r, z, n, q], [next])
    }

    #[inline(always)]
    fn backward<V: Number>(self, [r, z, n, q]: [V; 4], [h]: [V; 1], [dh]: [V; 1]) -> ([V; 4], [V; 1]) {
        let da = dh.clone() * z.clone().complement() * (n.clone() * n.clone()).complement();
        let dz = dh.clone() * (h - n) * z.clone() * z.clone().complement();
        let dr = da.clone() * q * r.clone() * r.clone().complement();
        let dq = da.clone() * r;
        ([dr, dz, da, dq], [dh * z])
    }
}

impl Layer<4, 1> for Gru {
    const RECURRENT: &'static [Recurrent] =
        &[Recurrent { weights: 0..2, gate: 0 }, Recurrent { weights: 2..3, gate: 3 }];
}

/// A cell for the kernels.
#[derive(Clone, Copy)]
pub(super) struct OnSlices<C>(pub(super) C);

impl<T: Float, C: Cell<P, S>, const P: usize, const S: usize> cell::Unit<T, P, S> for OnSlices<C> {
    #[inline(always)]
    fn forward<const FUSED: bool>(self, pre: [T; P], before: [T; S]) -> ([T; P], [T; S]) {
        let (gates, after) = self.0.forward::<Looped<T, FUSED>>(looped(pre), looped(before));
        (unlooped(gates), unlooped(after))
    }

    #[inline(always)]
    fn backward<const FUSED: bool>(self, gates: [T; P], before: [T; S], slopes: [T; S]) -> ([T; P], [T; S]) {
        let (gates, before, slopes) = (looped(gates), looped(before), looped(slopes));
        let (dgates, back) = self.0.backward::<Looped<T, FUSED>>(gates, before, slopes);
        (unlooped(dgates), unlooped(back))
    }
}
