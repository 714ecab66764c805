//! The kernel for few output maps, depthwise convolutions among them: a vector holds neighbouring pixels of one map.
#![allow(unsafe_code)] // unchecked access in the innermost loop, after one check a row

use super::super::Float;
use super::super::simd::{Has, Job, Simd};
use super::correlation::{Correlation, Steps};

/// Vectors of pixels that are summed at a time.
const MAX_VECTORS: usize = 8;

/// Elements that the padded source must have behind its end, since the last vector of a row may hold fewer pixels.
pub(super) const SLACK: usize = 8;

/// One output map.
pub(super) struct Plane<'a, T> {
    pub(super) corr: &'a Correlation,
    /// The padded source and [`SLACK`].
    pub(super) source: &'a [T],
    /// The weights of all steps.
    pub(super) weights: &'a [T],
    pub(super) bias: T,
    /// Scratch memory for a row.
    pub(super) line: &'a mut Vec<T>,
    pub(super) out: &'a mut [T],
}

impl<T: Float> Job<T> for Plane<'_, T> {
    #[inline(always)]
    fn run<V: Simd<T>>(self, has: Has<V>) {
        let Self { corr, source, weights, bias, line, out } = self;
        for (row, out) in out.chunks_exact_mut(corr.row_len()).enumerate() {
            for start in 0..corr.n_pieces() {
                let piece = corr.piece(row, start);
                let source = source.get(piece.base..).unwrap_or_default();
                if piece.step == 1 {
                    pixels(has, piece.steps, source, weights, bias, out);
                } else {
                    line.resize(piece.len, T::ZERO);
                    pixels(has, piece.steps, source, weights, bias, line);
                    for (out, value) in out[start..].iter_mut().step_by(piece.step).zip(&*line) {
                        *out = *value;
                    }
                }
            }
        }
    }
}

/// Neighbouring pixels, in as few parts of equal size as possible.
#[inline(always)]
fn pixels<T: Float, V: Simd<T>>(
    has: Has<V>,
    steps: &Steps,
    source: &[T],
    weights: &[T],
    bias: T,
    out: &mut [T],
) {
    let n_vectors = out.len().div_ceil(V::LANES);
    let vectors_at_once = n_vectors.div_ceil(n_vectors.div_ceil(MAX_VECTORS));
    for (i, out) in out.chunks_mut(vectors_at_once * V::LANES).enumerate() {
        let source = source.get(i * vectors_at_once * V::LANES..).unwrap_or_default();
        macro_rules! dispatch {
            ($($n:literal)*) => {
                match out.len().div_ceil(V::LANES) {
                    $($n => part::<T, V, $n>(has, steps, source, weights, bias, out),)*
                    _ => unreachable!("too many vectors"),
                }
            };
        }
        dispatch!(1 2 3 4 5 6 7 8);
    }
}

#[inline(always)]
fn part<T: Float, V: Simd<T>, const N: usize>(
    _: Has<V>,
    steps: &Steps,
    source: &[T],
    weights: &[T],
    bias: T,
    out: &mut [T],
) {
    let whole = (N - 1) * V::LANES;
    assert!(whole < out.len() && out.len() <= N * V::LANES && V::LANES <= SLACK);
    let (list, reach) = (steps.list(), steps.reach());
    assert!(list.is_empty() || reach.source + N * V::LANES - 1 <= source.len());
    assert!(reach.weight <= weights.len());
    // SAFETY: `Has` shows the instructions; `reach` is above every step's numbers, so the
    // assertions keep all pointers inside their slices.
    unsafe {
        let mut sums = [V::splat(bias); N];
        for step in list {
            let weight = V::splat(*weights.as_ptr().add(step.weight));
            let source = source.as_ptr().add(step.source);
            for (v, sum) in sums.iter_mut().enumerate() {
                *sum = weight.mul_add(V::load(source.add(v * V::LANES)), *sum);
            }
        }
        for (v, sum) in sums[..N - 1].iter().enumerate() {
            sum.store(out.as_mut_ptr().add(v * V::LANES));
        }
        let mut last = [T::ZERO; SLACK];
        sums[N - 1].store(last.as_mut_ptr());
        let rest = &mut out[whole..];
        rest.copy_from_slice(&last[..rest.len()]);
    }
}
