//! Products with a row alone, which wait for memory, and with a column alone.
#![allow(unsafe_code)] // unchecked access in the innermost loops, after one check of each slice

use std::array;

use super::super::Float;
use super::super::simd::{Has, Job, Level, Simd};
use super::{Mat, MatMut, Start};

/// `out = start + lhs * rhs` for one row `lhs`.
pub(super) fn product<T: Float>(
    level: Level,
    out: &mut [T],
    lhs: Mat<'_, T>,
    rhs: Mat<'_, T>,
    start: Start<'_, T>,
) {
    match start {
        Start::Zero => out.fill(T::ZERO),
        Start::Kept => {}
        Start::Columns(values) => out.copy_from_slice(values),
        Start::Rows(values) => out.fill(values[0]),
    }
    let product = RowProduct {
        out,
        a: lhs.data,
        a_stride: lhs.strides()[1],
        b: rhs.data,
        b_stride: rhs.stride,
        depth: lhs.cols,
    };
    if rhs.transposed {
        T::run(level, AddDots(product));
    } else {
        T::run(level, AddRows(product));
    }
}

/// `out += a * b` for a row `a`.
struct RowProduct<'a, T> {
    out: &'a mut [T],
    a: &'a [T],
    a_stride: usize,
    b: &'a [T],
    b_stride: usize,
    depth: usize,
}

/// With a row-major `b`.
struct AddRows<'a, T>(RowProduct<'a, T>);

impl<T: Float> Job<T> for AddRows<'_, T> {
    #[inline(always)]
    fn run<V: Simd<T>>(self, _: Has<V>) {
        /// Rows of `b` that are summed before they are added to `out`.
        const ROWS: usize = 8;
        /// Vectors of `out` in registers.
        const VECTORS: usize = 4;
        /// Columns that are not whole vectors.
        const MAX_REST: usize = 63;

        const { assert!(VECTORS * V::LANES <= MAX_REST + 1) };
        let RowProduct { out, a, a_stride, b, b_stride, depth } = self.0;
        let n = out.len();
        let whole = n - n % (VECTORS * V::LANES);
        for first in (0..depth).step_by(ROWS) {
            let rows = ROWS.min(depth - first);
            assert!((first + rows - 1) * b_stride + n <= b.len(), "a matrix is cut short");
            for j in (0..whole).step_by(VECTORS * V::LANES) {
                // SAFETY: `Has` shows the instructions; these columns are in `out` and, by the assertion, in the rows of `b`.
                unsafe {
                    let (to, from) = (out.as_mut_ptr().add(j), b.as_ptr().add(first * b_stride + j));
                    let mut sums = [V::splat(T::ZERO); VECTORS];
                    for d in 0..rows {
                        let factor = V::splat(a[(first + d) * a_stride]);
                        for (v, sum) in sums.iter_mut().enumerate() {
                            *sum = factor.mul_add(V::load(from.add(d * b_stride + v * V::LANES)), *sum);
                        }
                    }
                    for (v, sum) in sums.into_iter().enumerate() {
                        let to = to.add(v * V::LANES);
                        sum.add(V::load(to)).store(to);
                    }
                }
            }
            if whole == n {
                continue;
            }
            let mut sums = [T::ZERO; MAX_REST];
            for d in first..first + rows {
                let (factor, b) = (a[d * a_stride], &b[d * b_stride..][..n]);
                for (sum, b) in sums.iter_mut().zip(&b[whole..]) {
                    *sum += factor * *b;
                }
            }
            out[whole..].iter_mut().zip(sums).for_each(|(out, sum)| *out += sum);
        }
    }
}

/// With a `b` that stands column by column.
struct AddDots<'a, T>(RowProduct<'a, T>);

impl<T: Float> Job<T> for AddDots<'_, T> {
    #[inline(always)]
    fn run<V: Simd<T>>(self, has: Has<V>) {
        /// Columns of `b` beside each other: their sums do not wait for one another.
        const COLS: usize = 8;

        let RowProduct { out, a, a_stride, b, b_stride, depth } = self.0;
        if a_stride != 1 {
            for (j, out) in out.iter_mut().enumerate() {
                let (a, b) = (a.iter().step_by(a_stride.max(1)), &b[j * b_stride..][..depth]);
                *out += T::of(b.iter().zip(a).fold(0.0, |sum, (b, a)| sum + (*a * *b).wide()));
            }
            return;
        }
        let a = &a[..depth];
        let (whole, rest) = out.as_chunks_mut::<COLS>();
        for (j, out) in whole.iter_mut().enumerate() {
            add_dots::<T, V, COLS>(has, out, a, &b[j * COLS * b_stride..], b_stride);
        }
        let done = whole.len() * COLS;
        for (j, out) in rest.iter_mut().enumerate() {
            add_dots::<T, V, 1>(has, array::from_mut(out), a, &b[(done + j) * b_stride..], b_stride);
        }
    }
}

/// Adds the products of `a` with so many columns.
#[inline(always)]
fn add_dots<T: Float, V: Simd<T>, const COLS: usize>(
    _: Has<V>,
    out: &mut [T; COLS],
    a: &[T],
    b: &[T],
    b_stride: usize,
) {
    /// Vectors that are summed before they are added to the others.
    const RUN: usize = 32;

    let whole = a.len() - a.len() % V::LANES;
    assert!((COLS - 1) * b_stride + a.len() <= b.len(), "a matrix is cut short");
    // SAFETY: `Has` shows the instructions; the assertion has found the columns inside `b`.
    let totals = unsafe {
        let mut totals = [V::splat(T::ZERO); COLS];
        for first in (0..whole).step_by(RUN * V::LANES) {
            let mut sums = [V::splat(T::ZERO); COLS];
            for d in (first..whole.min(first + RUN * V::LANES)).step_by(V::LANES) {
                let a = V::load(a.as_ptr().add(d));
                for (j, sum) in sums.iter_mut().enumerate() {
                    *sum = a.mul_add(V::load(b.as_ptr().add(j * b_stride + d)), *sum);
                }
            }
            for (total, sum) in totals.iter_mut().zip(sums) {
                *total = total.add(sum);
            }
        }
        totals.map(|total| total.sum())
    };
    for (j, (out, mut sum)) in out.iter_mut().zip(totals).enumerate() {
        for d in whole..a.len() {
            sum += a[d] * b[j * b_stride + d];
        }
        *out += sum;
    }
}

/// `out = lhs * rhs`, or added to it if `kept`, for a left matrix of one column and a row-major right one.
pub(super) fn outer<T: Float>(
    level: Level,
    out: MatMut<'_, T>,
    lhs: Mat<'_, T>,
    rhs: Mat<'_, T>,
    kept: bool,
) {
    let MatMut { data, rows, cols, row_stride } = out;
    let out = &mut data[..(rows - 1) * row_stride + cols];
    let (a, a_stride, b) = (lhs.data, lhs.strides()[0].max(1), &rhs.data[..cols]);
    T::run(level, Outer { out, row_stride, a, a_stride, b, kept });
}

/// `out = a * b`, or added to it, for a column `a` and a row `b`.
struct Outer<'a, T> {
    out: &'a mut [T],
    row_stride: usize,
    a: &'a [T],
    a_stride: usize,
    b: &'a [T],
    kept: bool,
}

impl<T: Float> Job<T> for Outer<'_, T> {
    #[inline(always)]
    fn run<V: Simd<T>>(self, _: Has<V>) {
        let Self { out, row_stride, a, a_stride, b, kept } = self;
        for (out, a) in out.chunks_mut(row_stride).zip(a.iter().step_by(a_stride)) {
            let out = &mut out[..b.len()];
            if kept {
                out.iter_mut().zip(b).for_each(|(out, b)| *out += *a * *b);
            } else {
                out.iter_mut().zip(b).for_each(|(out, b)| *out = *a * *b);
            }
        }
    }
}
