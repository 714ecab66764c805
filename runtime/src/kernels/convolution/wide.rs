//! The kernel for many output maps: a vector holds one pixel of neighbouring maps.
//!
//! A tile of pixels times one or two vectors of maps stays in registers while all steps are added: each step loads
//! the maps' weights and multiplies them with every pixel's source element. So the work is nothing but
//! multiplications, whatever the sizes are, and only a ragged last vector of maps is wasted.
#![allow(unsafe_code)] // unchecked access in the innermost loop, after one check a tile

use std::array;

use super::super::Float;
use super::super::simd::{Has, Job, Level, Simd, Transpose};
use super::correlation::{Correlation, Steps};

/// Elements of the finished pixels that wait for their transposition into planes: half of a first-level cache.
const BUFFER: usize = 1 << 12;

/// Most pixels of a tile.
const MAX_PIXELS: usize = 14;

/// One or two vectors of output maps.
pub(super) struct Block<'a, T> {
    pub(super) corr: &'a Correlation,
    /// The padded source.
    pub(super) source: &'a [T],
    /// For each vector the weights of all steps, each for all lanes.
    pub(super) weights: &'a [T],
    /// What each lane starts from.
    pub(super) bias: &'a [T],
}

impl<T: Float> Block<'_, T> {
    /// Computes the planes of the block's maps, of which the last vector may have fewer than lanes.
    pub(super) fn compute(&self, level: Level, buffer: &mut Vec<T>, planes: &mut [T]) {
        let (n_outs, row_len) = (self.corr.n_outs(), self.corr.row_len());
        let n_maps = planes.len() / n_outs;
        let lanes = self.bias.len();
        let rows_at_once = (BUFFER / (row_len * lanes)).max(1);
        buffer.resize(rows_at_once * row_len * lanes, T::ZERO);
        for first in (0..self.corr.n_rows()).step_by(rows_at_once) {
            let rows = first..(first + rows_at_once).min(self.corr.n_rows());
            let n_pixels = rows.len() * row_len;
            for (row, out) in rows.zip(buffer.chunks_exact_mut(row_len * lanes)) {
                self.row(level, row, out);
            }
            T::run(
                level,
                Transpose {
                    from: buffer,
                    from_stride: lanes,
                    rows: n_pixels,
                    columns: n_maps,
                    to: &mut planes[first * row_len..],
                    to_stride: n_outs,
                },
            );
        }
    }

    /// Computes the pixels of a row, each with all lanes.
    fn row(&self, level: Level, row: usize, out: &mut [T]) {
        let lanes = self.bias.len();
        let n_vectors = lanes / T::lanes(level);
        let most = MAX_PIXELS.min(T::registers(level) / n_vectors);
        for start in 0..self.corr.n_pieces() {
            let piece = self.corr.piece(row, start);
            let n_tiles = piece.len.div_ceil(most);
            for i in 0..n_tiles {
                let (begin, end) = (i * piece.len / n_tiles, (i + 1) * piece.len / n_tiles);
                let tile = Pixels {
                    steps: piece.steps,
                    source: self.source.get(piece.base + begin..).unwrap_or_default(),
                    weights: self.weights,
                    bias: self.bias,
                    out: &mut out[(begin * piece.step + start) * lanes..],
                    out_step: piece.step * lanes,
                };
                match n_vectors {
                    1 => tile.of_pixels::<1>(level, end - begin),
                    _ => tile.of_pixels::<2>(level, end - begin),
                }
            }
        }
    }
}

/// Neighbouring pixels times some vectors of maps.
struct Pixels<'a, T> {
    steps: &'a Steps,
    source: &'a [T],
    weights: &'a [T],
    bias: &'a [T],
    out: &'a mut [T],
    out_step: usize,
}

impl<T: Float> Pixels<'_, T> {
    fn of_pixels<const VECTORS: usize>(self, level: Level, n_pixels: usize) {
        macro_rules! dispatch {
            ($($n:literal)*) => {
                match n_pixels {
                    $($n => T::run(level, FixedPixels::<T, $n, VECTORS>(self)),)*
                    _ => unreachable!("a tile of {n_pixels} pixels"),
                }
            };
        }
        dispatch!(1 2 3 4 5 6 7 8 9 10 11 12 13 14);
    }
}

struct FixedPixels<'a, T, const PIXELS: usize, const VECTORS: usize>(Pixels<'a, T>);

impl<T: Float, const PIXELS: usize, const VECTORS: usize> Job<T> for FixedPixels<'_, T, PIXELS, VECTORS> {
    #[inline(always)]
    fn run<V: Simd<T>>(self, _: Has<V>) {
        let Pixels { steps, source, weights, bias, out, out_step } = self.0;
        if PIXELS * VECTORS > V::REGISTERS {
            unreachable!("a tile too large for the registers");
        }
        let vector_len = weights.len() / VECTORS;
        let (list, reach) = (steps.list(), steps.reach());
        assert!(list.is_empty() || reach.source + PIXELS - 1 <= source.len());
        assert!(reach.weight * V::LANES <= vector_len);
        assert!(bias.len() == VECTORS * V::LANES);
        assert!((PIXELS - 1) * out_step + VECTORS * V::LANES <= out.len());
        // SAFETY: `Has` shows the instructions; `reach` is above every step's numbers, so
        // the assertions keep all pointers inside their slices.
        unsafe {
            let mut sums: [[V; VECTORS]; PIXELS] =
                [array::from_fn(|v| V::load(bias.as_ptr().add(v * V::LANES))); PIXELS];
            for step in list {
                let weights = weights.as_ptr().add(step.weight * V::LANES);
                let weights: [V; VECTORS] = array::from_fn(|v| V::load(weights.add(v * vector_len)));
                let source = source.as_ptr().add(step.source);
                for (p, sums) in sums.iter_mut().enumerate() {
                    let value = V::splat(*source.add(p));
                    for (sum, weight) in sums.iter_mut().zip(weights) {
                        *sum = weight.mul_add(value, *sum);
                    }
                }
            }
            for (p, sums) in sums.into_iter().enumerate() {
                for (v, sum) in sums.into_iter().enumerate() {
                    sum.store(out.as_mut_ptr().add(p * out_step + v * V::LANES));
                }
            }
        }
    }
}
