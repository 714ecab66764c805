//! Products whose sums are so long that rounding would add up.

use super::super::Float;
use super::super::simd::Level;
use super::super::sum::{LongSums, MOST};
use super::{Mat, MatMut, Start, Threads, fill, gemm_at};

/// Elements of the result that are computed at a time, and most rows of them.
const ELEMENTS: usize = 1 << 16;
const ROWS: usize = 256;

/// Terms that are summed in `T`: by tiles in sums of about a hundred, by few rows in sums of 8 or 16.
const DEPTH: usize = 1 << 10;

/// Whether sums of `k` terms need the help of `f64`. With few rows it costs nothing, as they wait for memory.
pub(super) fn is_long<T: Float>(rows: usize, k: usize) -> bool {
    let most = if rows <= 8 { DEPTH } else { 4 * DEPTH };
    size_of::<T>() < size_of::<f64>() && k > most
}

/// `out = start + lhs * rhs`, whose parts are summed in `f64`.
pub(super) fn product<T: Float>(
    level: Level,
    mut out: MatMut<'_, T>,
    lhs: Mat<'_, T>,
    rhs: Mat<'_, T>,
    start: Start<'_, T>,
    threads: Threads,
) {
    fill(&mut out, start);
    let MatMut { data, rows: m, cols: n, row_stride } = out;
    let k = lhs.cols;
    let (row_step, mut sums) = (ROWS.min(m), Vec::new());
    let col_step = (ELEMENTS / row_step).next_multiple_of(super::tile::MAX_PANEL);
    for row in (0..m).step_by(row_step) {
        let rows = row..m.min(row + row_step);
        for col in (0..n).step_by(col_step) {
            let cols = col..n.min(col + col_step);
            let width = cols.len();
            let mut out = MatMut::new(&mut data[row * row_stride + col..], rows.len(), width, row_stride);
            sums.clear();
            out.rows().for_each(|out| sums.extend_from_slice(out));
            let mut long = LongSums::new(&mut sums);
            for depth in (0..k).step_by(DEPTH) {
                let depths = depth..k.min(depth + DEPTH);
                let (lhs, rhs) =
                    (lhs.part(rows.clone(), depths.clone()), rhs.part(depths.clone(), cols.clone()));
                let part = MatMut::new(long.next(MOST), rows.len(), width, width);
                gemm_at(level, part, lhs, rhs, Start::Kept, threads);
            }
            long.finish();
            out.rows().zip(sums.chunks(width)).for_each(|(out, sums)| out.copy_from_slice(sums));
        }
    }
}
