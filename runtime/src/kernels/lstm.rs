//! The pointwise half of an LSTM cell; gates are `(n, 4, state)` in the order input, output, forget, candidate.

use super::Float;
use super::parallel::for_each_chunk;

/// The four gates of sample `n`, each `state` long.
fn gates_of<T>(gates: &[T], n: usize, state: usize) -> [&[T]; 4] {
    let gates = &gates[n * 4 * state..][..4 * state];
    [&gates[..state], &gates[state..2 * state], &gates[2 * state..3 * state], &gates[3 * state..]]
}

/// `c' = sigmoid(forget) c + sigmoid(input) tanh(candidate)`.
pub(crate) fn cell<T: Float>(gates: &[T], c: &[T], state: usize, new: &mut [T]) {
    let work = new.len() * 8;
    for_each_chunk(
        new,
        state,
        work,
        || (),
        |(), n, new| {
            let [input, _, forget, candidate] = gates_of(gates, n, state);
            let c = &c[n * state..][..state];
            for k in 0..state {
                new[k] = forget[k].sigmoid() * c[k] + input[k].sigmoid() * candidate[k].tanh();
            }
        },
    );
}

/// Gradient of [`cell`] for the gates; the output gate has none.
pub(crate) fn cell_gates_gradient<T: Float>(
    gates: &[T],
    c: &[T],
    dnew: &[T],
    state: usize,
    dgates: &mut [T],
) {
    let work = dgates.len() * 2;
    for_each_chunk(
        dgates,
        4 * state,
        work,
        || (),
        |(), n, dgates| {
            let [input, _, forget, candidate] = gates_of(gates, n, state);
            let (c, dnew) = (&c[n * state..][..state], &dnew[n * state..][..state]);
            for k in 0..state {
                let (i, f, g) = (input[k].sigmoid(), forget[k].sigmoid(), candidate[k].tanh());
                dgates[k] = dnew[k] * g * i * (T::ONE - i);
                dgates[state + k] = T::ZERO;
                dgates[2 * state + k] = dnew[k] * c[k] * f * (T::ONE - f);
                dgates[3 * state + k] = dnew[k] * i * (T::ONE - g * g);
            }
        },
    );
}

/// Gradient of [`cell`] for the old state: `dc = sigmoid(forget) dc'`.
pub(crate) fn cell_state_gradient<T: Float>(gates: &[T], dnew: &[T], state: usize, dc: &mut [T]) {
    let work = dc.len() * 2;
    for_each_chunk(
        dc,
        state,
        work,
        || (),
        |(), n, dc| {
            let [_, _, forget, _] = gates_of(gates, n, state);
            for ((dc, forget), dnew) in dc.iter_mut().zip(forget).zip(&dnew[n * state..]) {
                *dc = forget.sigmoid() * *dnew;
            }
        },
    );
}

/// `h' = sigmoid(output) tanh(c')`.
pub(crate) fn output<T: Float>(gates: &[T], c: &[T], state: usize, h: &mut [T]) {
    let work = h.len() * 4;
    for_each_chunk(
        h,
        state,
        work,
        || (),
        |(), n, h| {
            let [_, output, _, _] = gates_of(gates, n, state);
            for ((h, output), c) in h.iter_mut().zip(output).zip(&c[n * state..]) {
                *h = output.sigmoid() * c.tanh();
            }
        },
    );
}

/// Gradient of [`output`] for the gates, of which only the output gate has one.
pub(crate) fn output_gates_gradient<T: Float>(
    gates: &[T],
    c: &[T],
    dh: &[T],
    state: usize,
    dgates: &mut [T],
) {
    let work = dgates.len();
    for_each_chunk(
        dgates,
        4 * state,
        work,
        || (),
        |(), n, dgates| {
            let [_, output, _, _] = gates_of(gates, n, state);
            let (c, dh) = (&c[n * state..][..state], &dh[n * state..][..state]);
            dgates.fill(T::ZERO);
            for k in 0..state {
                let o = output[k].sigmoid();
                dgates[state + k] = dh[k] * c[k].tanh() * o * (T::ONE - o);
            }
        },
    );
}

/// Gradient of [`output`] for the new state.
pub(crate) fn output_state_gradient<T: Float>(gates: &[T], c: &[T], dh: &[T], state: usize, dc: &mut [T]) {
    let work = dc.len() * 4;
    for_each_chunk(
        dc,
        state,
        work,
        || (),
        |(), n, dc| {
            let [_, output, _, _] = gates_of(gates, n, state);
            for (((dc, output), c), dh) in
                dc.iter_mut().zip(output).zip(&c[n * state..]).zip(&dh[n * state..])
            {
                let t = c.tanh();
                *dc = *dh * output.sigmoid() * (T::ONE - t * t);
            }
        },
    );
}
