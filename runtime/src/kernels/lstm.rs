//! The pointwise half of an LSTM cell; gates are `(n, 4, state)` in the order input, output, forget, candidate.

use super::Float;
use super::parallel::for_each_part;
use super::simd::{Has, Job, Level, Simd};

/// The four gates of a sample.
fn gates_of<T>(gates: &mut [T]) -> [&mut [T]; 4] {
    let state = gates.len() / 4;
    let (input, rest) = gates.split_at_mut(state);
    let (output, rest) = rest.split_at_mut(state);
    let (forget, candidate) = rest.split_at_mut(state);
    [input, output, forget, candidate]
}

/// What happens to one sample, in loops so simple that each becomes vector instructions.
struct Forward<'a, T> {
    gates: &'a mut [T],
    c: &'a [T],
    h: &'a mut [T],
    new: &'a mut [T],
    squashed: &'a mut [T],
}

impl<T: Float> Job<T> for Forward<'_, T> {
    #[inline(always)]
    fn run<V: Simd<T>>(self, _: Has<V>) {
        if V::FUSED { self.step::<true>() } else { self.step::<false>() }
    }
}

impl<T: Float> Forward<'_, T> {
    #[inline(always)]
    fn step<const FUSED: bool>(self) {
        let Self { gates, c, h, new, squashed } = self;
        let (sigmoids, candidate) = gates.split_at_mut(3 * c.len());
        sigmoids.iter_mut().for_each(|gate| *gate = gate.sigmoid_in::<FUSED>());
        candidate.iter_mut().for_each(|gate| *gate = gate.tanh_in::<FUSED>());
        let [input, output, forget, candidate] = gates_of(gates);
        for ((((new, forget), c), input), candidate) in
            new.iter_mut().zip(&*forget).zip(c).zip(&*input).zip(&*candidate)
        {
            *new = *forget * *c + *input * *candidate;
        }
        squashed.iter_mut().zip(&*new).for_each(|(squashed, new)| *squashed = new.tanh_in::<FUSED>());
        h.iter_mut()
            .zip(&*output)
            .zip(&*squashed)
            .for_each(|((h, output), squashed)| *h = *output * *squashed);
    }
}

/// What happens to one sample on the way back.
struct Backward<'a, T> {
    /// Input, output, forget, candidate, `tanh(c')`, `c`, and the gradients of `h` and `c'`.
    given: [&'a [T]; 8],
    /// The gradients of the four gates and of `c`.
    wanted: [&'a mut [T]; 5],
}

impl<T: Float> Backward<'_, T> {
    /// The gradients of `N` elements, from and to memory that nothing else refers to.
    #[inline(always)]
    fn block<const N: usize>(
        [input, output, forget, candidate, squashed, c, dh, dnew]: [[T; N]; 8],
    ) -> [[T; N]; 5] {
        let mut wanted = [[T::ZERO; N]; 5];
        for k in 0..N {
            let (i, o, f, g, t) = (input[k], output[k], forget[k], candidate[k], squashed[k]);
            let dnew = dnew[k] + dh[k] * o * (T::ONE - t * t);
            wanted[0][k] = dnew * g * i * (T::ONE - i);
            wanted[1][k] = dh[k] * t * o * (T::ONE - o);
            wanted[2][k] = dnew * c[k] * f * (T::ONE - f);
            wanted[3][k] = dnew * i * (T::ONE - g * g);
            wanted[4][k] = dnew * f;
        }
        wanted
    }
}

impl<T: Float> Job<T> for Backward<'_, T> {
    #[inline(always)]
    fn run<V: Simd<T>>(self, _: Has<V>) {
        const BLOCK: usize = 32;

        let Self { given, wanted } = self;
        let given = given.map(|values| values.as_chunks::<BLOCK>());
        let mut wanted = wanted.map(|values| values.as_chunks_mut::<BLOCK>());
        for i in 0..given[0].0.len() {
            let values = Self::block(given.map(|(blocks, _)| blocks[i]));
            for ((blocks, _), values) in wanted.iter_mut().zip(values) {
                blocks[i] = values;
            }
        }
        for i in 0..given[0].1.len() {
            let values = Self::block(given.map(|(_, rest)| [rest[i]]));
            for ((_, rest), [value]) in wanted.iter_mut().zip(values) {
                rest[i] = value;
            }
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
            let c = &c[n * state..][..state];
            T::run(Level::detect(), Forward { gates, c, h, new, squashed });
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
            let given = [input, output, forget, candidate, squashed, c, dh, dnew];
            let [dinput, doutput, dforget, dcandidate] = gates_of(dgates);
            T::run(Level::detect(), Backward { given, wanted: [dinput, doutput, dforget, dcandidate, dc] });
        });
    }
}
