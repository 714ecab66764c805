//! The pointwise half of an LSTM cell; gates are `(n, 4, state)` in the order input, output, forget, candidate.

use super::Float;
use super::parallel::for_each_part;
use super::simd::{Job, Level, Simd};

/// The four gates of a sample.
fn gates_of<T>(gates: &mut [T]) -> [&mut [T]; 4] {
    let state = gates.len() / 4;
    let (input, rest) = gates.split_at_mut(state);
    let (output, rest) = rest.split_at_mut(state);
    let (forget, candidate) = rest.split_at_mut(state);
    [input, output, forget, candidate]
}

/// What happens to one sample.
struct Forward<'a, T> {
    gates: [&'a mut [T]; 4],
    c: &'a [T],
    h: &'a mut [T],
    new: &'a mut [T],
    squashed: &'a mut [T],
}

impl<T: Float> Job<T> for Forward<'_, T> {
    #[inline(always)]
    fn run<V: Simd<T>>(self) {
        let Self { gates: [input, output, forget, candidate], c, h, new, squashed } = self;
        for k in 0..c.len() {
            input[k] = input[k].sigmoid();
            output[k] = output[k].sigmoid();
            forget[k] = forget[k].sigmoid();
            candidate[k] = candidate[k].tanh();
            new[k] = forget[k] * c[k] + input[k] * candidate[k];
            squashed[k] = new[k].tanh();
            h[k] = output[k] * squashed[k];
        }
    }
}

/// Sizes of a cell.
#[derive(Clone, Copy)]
pub(crate) struct Cell {
    pub(crate) samples: usize,
    pub(crate) state: usize,
}

/// What a step has computed: all that the backward pass needs besides the state before.
#[derive(Clone, Copy)]
pub(crate) struct Step<'a, T> {
    /// The activated gates.
    pub(crate) gates: &'a [T],
    /// `tanh(c')`.
    pub(crate) squashed: &'a [T],
    /// The state before.
    pub(crate) c: &'a [T],
}

impl Cell {
    /// `c' = f c + i g` and `h = o tanh(c')`; `gates` turn from pre-activations into activations.
    pub(crate) fn forward<T: Float>(&self, gates: &mut [T], c: &[T], [h, new, squashed]: [&mut [T]; 3]) {
        let (state, work) = (self.state, gates.len() * 8);
        for_each_part([gates, h, new, squashed], self.samples, work, |n, [gates, h, new, squashed]| {
            let [input, output, forget, candidate] = gates_of(gates);
            let c = &c[n * state..][..state];
            T::run(
                Level::detect(),
                Forward { gates: [input, output, forget, candidate], c, h, new, squashed },
            );
        });
    }

    /// From the gradients of `h` and `c'` those of the pre-activations and of `c`.
    pub(crate) fn backward<T: Float>(
        &self,
        step: Step<'_, T>,
        [dh, dnew]: [Option<&[T]>; 2],
        dgates: &mut [T],
        dc: &mut [T],
    ) {
        let (state, work) = (self.state, dgates.len() * 4);
        let zeros = vec![T::ZERO; state];
        for_each_part([dgates, dc], self.samples, work, |n, [dgates, dc]| {
            let gates = &step.gates[n * 4 * state..][..4 * state];
            let (input, output) = (&gates[..state], &gates[state..2 * state]);
            let (forget, candidate) = (&gates[2 * state..3 * state], &gates[3 * state..]);
            let (squashed, c) = (&step.squashed[n * state..][..state], &step.c[n * state..][..state]);
            let dh = dh.map_or(&zeros[..], |dh| &dh[n * state..][..state]);
            let dnew = dnew.map_or(&zeros[..], |dnew| &dnew[n * state..][..state]);
            let [dinput, doutput, dforget, dcandidate] = gates_of(dgates);
            for k in 0..state {
                let (i, o, f, g, t) = (input[k], output[k], forget[k], candidate[k], squashed[k]);
                let dnew = dnew[k] + dh[k] * o * (T::ONE - t * t);
                dinput[k] = dnew * g * i * (T::ONE - i);
                doutput[k] = dh[k] * t * o * (T::ONE - o);
                dforget[k] = dnew * c[k] * f * (T::ONE - f);
                dcandidate[k] = dnew * i * (T::ONE - g * g);
                dc[k] = dnew * f;
            }
        });
    }
}
