//! Every level of the processor against the definition, over awkward sizes and layouts.

use super::super::with_threads;
use super::*;

/// Numbers without a pattern, in [-1, 1).
fn values<T: Float>(n: usize, seed: u64) -> Vec<T> {
    let mut state = seed;
    let next = move |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        T::of((state >> 40) as f64 / f64::from(1 << 23) - 1.0)
    };
    (0..n).map(next).collect()
}

/// Every way in which the matrices may stand in memory and the product may start.
fn check<T: Float>(level: Level, [m, n, k]: [usize; 3], tolerance: f64) {
    let (padding, out_stride) = (3, n + 2);
    for case in 0..16 {
        let (left_turned, right_turned) = (case & 1 == 1, case & 2 == 2);
        let (left_rows, left_cols) = if left_turned { (k, m) } else { (m, k) };
        let (right_rows, right_cols) = if right_turned { (n, k) } else { (k, n) };
        let left = values::<T>(left_rows * (left_cols + padding), 1);
        let right = values::<T>(right_rows * (right_cols + padding), 2);
        let lhs = Mat::new(&left, left_rows, left_cols, left_cols + padding);
        let rhs = Mat::new(&right, right_rows, right_cols, right_cols + padding);
        let lhs = if left_turned { lhs.t() } else { lhs };
        let rhs = if right_turned { rhs.t() } else { rhs };
        let (by_row, by_column) = (values::<T>(m, 3), values::<T>(n, 4));
        let start = match case / 4 {
            0 => Start::Zero,
            1 => Start::Kept,
            2 => Start::Columns(&by_column),
            _ => Start::Rows(&by_row),
        };
        let before = values::<T>(m * out_stride, 5);
        let mut out = before.clone();
        gemm_at(level, MatMut::new(&mut out, m, n, out_stride), lhs, rhs, start, Threads::One);
        for i in 0..m {
            for j in 0..n {
                let at = i * out_stride + j;
                let first = match start {
                    Start::Zero => T::ZERO,
                    Start::Kept => before[at],
                    Start::Columns(values) => values[j],
                    Start::Rows(values) => values[i],
                };
                let product = |d| left[lhs.offset(i, d)].wide() * right[rhs.offset(d, j)].wide();
                let exact = first.wide() + (0..k).map(product).sum::<f64>();
                let error = (out[at].wide() - exact).abs();
                assert!(error < tolerance, "{level:?} {m}x{n}x{k} {case} ({i}, {j}): {error}");
            }
            assert_eq!(out[i * out_stride + n..][..2], before[i * out_stride + n..][..2]);
        }
        for threads in [2, 3] {
            let mut again = before.clone();
            let result = MatMut::new(&mut again, m, n, out_stride);
            with_threads(threads, || gemm_at(level, result, lhs, rhs, start, Threads::All));
            assert_eq!(again, out, "{level:?} {m}x{n}x{k} {case}, {threads} threads");
        }
    }
}

#[test]
fn every_level_multiplies_ragged_matrices() {
    let ragged = [[1, 1, 1], [1, 67, 19], [5, 1, 40], [7, 50, 0], [13, 70, 33], [29, 20, 350], [50, 31, 1]];
    // Several blocks on each side, and enough for several threads.
    let large = [[6, 130, 700], [97, 110, 341], [300, 49, 330], [1, 800, 700]];
    for level in Level::all() {
        for sizes in ragged.into_iter().chain(large) {
            check::<f32>(level, sizes, 2e-4);
            check::<f64>(level, sizes, 1e-12);
        }
    }
}

#[test]
#[should_panic(expected = "does not fit")]
fn short_slices_are_caught() {
    let mut out = [0.0f32; 4];
    gemm(
        MatMut::new(&mut out, 2, 2, 2),
        Mat::new(&[1.0; 3], 2, 2, 2),
        Mat::new(&[1.0; 4], 2, 2, 2),
        Start::Zero,
        Threads::One,
    );
}

/// `start + Σ x · 0.1` of `k` terms, in every layout, to the last digits.
fn check_long(level: Level, x: f32, [m, n, k]: [usize; 3]) {
    let term = f64::from(x) * f64::from(0.1f32);
    let (left, right) = (vec![x; m * k], vec![0.1f32; k * n]);
    for case in 0..4 {
        let lhs = if case & 1 == 0 { Mat::new(&left, m, k, k) } else { Mat::new(&left, k, m, m).t() };
        let rhs = if case & 2 == 0 { Mat::new(&right, k, n, n) } else { Mat::new(&right, n, k, k).t() };
        let by_column = vec![0.5; n];
        let mut out = vec![f32::NAN; m * n];
        gemm_at(level, MatMut::new(&mut out, m, n, n), lhs, rhs, Start::Columns(&by_column), Threads::All);
        let exact = 0.5 + term * k as f64;
        let worst = out.iter().map(|out| (f64::from(*out) / exact - 1.0).abs()).fold(0.0, f64::max);
        assert!(worst < 1e-6, "{level:?} {m}x{n}x{k} {case}: {worst}");
    }
}

#[test]
fn long_sums_keep_their_last_digits() {
    for level in Level::all() {
        for sizes in [[1, 1, 10_000_000], [1, 70, 50_000], [3, 50, 100_000], [60, 2, 50_000], [1, 9, 1000]] {
            check_long(level, 1.0, sizes);
            check_long(level, 0.3, sizes);
        }
    }
}

#[test]
fn long_sums_start_from_what_is_asked_for() {
    for level in Level::all() {
        check::<f32>(level, [1, 60, 3000], 2e-3);
        check::<f32>(level, [5, 60, 5000], 2e-3);
        check::<f32>(level, [260, 2, 4100], 2e-3);
    }
}
