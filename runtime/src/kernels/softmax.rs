//! Softmax and what is made of it, along the middle axis of `(outer, len, inner)`. Sums are `f64`, as there may be very many
//! classes.

use super::Float;
use super::parallel::for_each_chunk;

/// The last two axes of a tensor seen as `(outer, len, inner)`; softmax runs along `len`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lanes {
    pub(crate) len: usize,
    pub(crate) inner: usize,
}

impl Lanes {
    fn block(&self) -> usize {
        self.len * self.inner
    }

    /// Where element `k` of lane `i` stands.
    fn place(&self, i: usize, k: usize) -> usize {
        i / self.inner * self.block() + i % self.inner + k * self.inner
    }

    /// Calls `f(i, lane, block)` for each lane: element `k` of the lane stands at `lane + k * inner` of its block of
    /// `out` and of the inputs, where blocks start at `i * len * inner`.
    fn for_each<T: Float>(&self, out: &mut [T], f: impl Fn(usize, usize, &mut [T]) + Send + Sync) {
        let work = out.len() * 4;
        for_each_chunk(
            out,
            self.block(),
            work,
            || (),
            |(), i, out| {
                for lane in 0..self.inner {
                    f(i, lane, out);
                }
            },
        );
    }
}

/// `y = exp(x) / sum of exp(x)`.
pub(crate) fn softmax<T: Float>(lanes: Lanes, x: &[T], y: &mut [T]) {
    lanes.for_each(y, |i, lane, y| {
        let x = &x[i * lanes.block() + lane..];
        let largest = largest(lanes, x);
        let mut total = 0.0;
        for (y, x) in y[lane..].iter_mut().step_by(lanes.inner).zip(x.iter().step_by(lanes.inner)) {
            *y = (*x - largest).exp();
            total += y.wide();
        }
        let total = T::of(total);
        for y in y[lane..].iter_mut().step_by(lanes.inner) {
            *y = *y / total;
        }
    });
}

/// `dx = y (dy - sum of dy y)`.
pub(crate) fn softmax_gradient<T: Float>(lanes: Lanes, y: &[T], dy: &[T], dx: &mut [T]) {
    lanes.for_each(dx, |i, lane, dx| {
        let start = i * lanes.block() + lane;
        let range = start..(i + 1) * lanes.block();
        let pairs = || y[range.clone()].iter().zip(&dy[range.clone()]).step_by(lanes.inner);
        let total = T::of(pairs().fold(0.0, |total, (y, dy)| total + (*y * *dy).wide()));
        for (dx, (y, dy)) in dx[lane..].iter_mut().step_by(lanes.inner).zip(pairs()) {
            *dx = *y * (*dy - total);
        }
    });
}

/// `y = x - log(sum of exp(x))`.
pub(crate) fn log_softmax<T: Float>(lanes: Lanes, x: &[T], y: &mut [T]) {
    lanes.for_each(y, |i, lane, y| {
        let x = &x[i * lanes.block() + lane..];
        let normalizer = log_sum_exp(lanes, x);
        for (y, x) in y[lane..].iter_mut().step_by(lanes.inner).zip(x.iter().step_by(lanes.inner)) {
            *y = *x - normalizer;
        }
    });
}

/// `dx = dy - exp(y) sum of dy`.
pub(crate) fn log_softmax_gradient<T: Float>(lanes: Lanes, y: &[T], dy: &[T], dx: &mut [T]) {
    lanes.for_each(dx, |i, lane, dx| {
        let start = i * lanes.block() + lane;
        let range = start..(i + 1) * lanes.block();
        let pairs = || y[range.clone()].iter().zip(&dy[range.clone()]).step_by(lanes.inner);
        let total = T::of(pairs().fold(0.0, |total, (_, dy)| total + dy.wide()));
        for (dx, (y, dy)) in dx[lane..].iter_mut().step_by(lanes.inner).zip(pairs()) {
            *dx = *dy - y.exp() * total;
        }
    });
}

/// `loss = log(sum of exp(x)) - x[label]` for each lane, and the first term by itself for the gradient. A lane without a
/// label is not counted: its loss is 0.
///
/// Labels must be smaller than `len`.
pub(crate) fn cross_entropy<T: Float>(
    lanes: Lanes,
    x: &[T],
    labels: &[Option<usize>],
    loss: &mut [T],
    normalizers: &mut [T],
) {
    for (i, ((loss, normalizer), label)) in loss.iter_mut().zip(normalizers).zip(labels).enumerate() {
        let Some(label) = label else {
            *loss = T::ZERO;
            continue;
        };
        let x = &x[i / lanes.inner * lanes.block() + i % lanes.inner..];
        *normalizer = log_sum_exp(lanes, x);
        *loss = *normalizer - x[label * lanes.inner];
    }
}

/// `dx = (exp(x - normalizer) - [k = label]) dloss`, 0 without a label.
pub(crate) fn cross_entropy_gradient<T: Float>(
    lanes: Lanes,
    x: &[T],
    (labels, normalizers): (&[Option<usize>], &[T]),
    dloss: &[T],
    dx: &mut [T],
) {
    lanes.for_each(dx, |i, lane, dx| {
        let x = &x[i * lanes.block() + lane..];
        let lane_index = i * lanes.inner + lane;
        let (normalizer, dloss) = (normalizers[lane_index], dloss[lane_index]);
        let Some(label) = labels[lane_index] else {
            dx[lane..].iter_mut().step_by(lanes.inner).for_each(|dx| *dx = T::ZERO);
            return;
        };
        for (dx, x) in dx[lane..].iter_mut().step_by(lanes.inner).zip(x.iter().step_by(lanes.inner)) {
            *dx = (*x - normalizer).exp() * dloss;
        }
        let dx = &mut dx[lane + label * lanes.inner];
        *dx = *dx - dloss;
    });
}

/// The element of each lane at its label, `other` where there is none.
pub(crate) fn pick<T: Float>(lanes: Lanes, x: &[T], labels: &[Option<usize>], other: T, y: &mut [T]) {
    for (i, (y, label)) in y.iter_mut().zip(labels).enumerate() {
        *y = label.map_or(other, |label| x[lanes.place(i, label)]);
    }
}

/// The transpose of [`pick`], into zeros.
pub(crate) fn put_back<T: Float>(lanes: Lanes, labels: &[Option<usize>], dy: &[T], dx: &mut [T]) {
    for (i, (dy, label)) in dy.iter().zip(labels).enumerate() {
        if let Some(label) = label {
            dx[lanes.place(i, *label)] = *dy;
        }
    }
}

/// The largest element of the lane that starts at `x[0]`.
fn largest<T: Float>(lanes: Lanes, x: &[T]) -> T {
    let lane = x.iter().step_by(lanes.inner).take(lanes.len);
    lane.copied().reduce(Float::max).unwrap_or_default()
}

/// Logarithm of the sum of exponentials of the lane that starts at `x[0]`.
fn log_sum_exp<T: Float>(lanes: Lanes, x: &[T]) -> T {
    let largest = largest(lanes, x);
    let lane = x.iter().step_by(lanes.inner).take(lanes.len);
    let total = lane.fold(0.0, |total, x| total + (*x - largest).exp().wide());
    largest + T::of(total).ln()
}
