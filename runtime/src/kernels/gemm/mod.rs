//! Matrix products.
//!
//! The innermost loop ([`tile`]) keeps a tile of the result in registers: a few rows of the left matrix, whose elements are
//! broadcast, times a *panel* of columns of the right one. A panel is copied once for all rows, by the first tile while
//! it computes. The copy stays in the nearest cache; the sum over `k` is cut into blocks for that ([`cut`]), by the sizes
//! alone. Longer sums end in `f64` ([`long`]).

mod cut;
mod long;
mod pack;
mod product;
mod row;
#[cfg(test)]
mod tests;
mod tile;

use std::ops::Range;

use super::Float;
use super::simd::Level;

/// A matrix inside a slice, row by row or column by column.
#[derive(Clone, Copy)]
pub(crate) struct Mat<'a, T> {
    data: &'a [T],
    rows: usize,
    cols: usize,
    /// From a row to the next, or from a column to the next if `transposed`.
    stride: usize,
    transposed: bool,
}

impl<'a, T> Mat<'a, T> {
    /// A row-major matrix whose rows start `stride` elements apart.
    pub(crate) fn new(data: &'a [T], rows: usize, cols: usize, stride: usize) -> Self {
        Self { data, rows, cols, stride, transposed: false }
    }

    pub(super) fn n_rows(&self) -> usize {
        self.rows
    }

    /// A row of a matrix that is not transposed.
    pub(super) fn row(&self, index: usize) -> &'a [T] {
        debug_assert!(!self.transposed, "the elements of the row are not contiguous");
        &self.data[index * self.stride..][..self.cols]
    }

    /// The transposed matrix over the same elements.
    pub(crate) fn t(self) -> Self {
        Self { rows: self.cols, cols: self.rows, transposed: !self.transposed, ..self }
    }

    /// Some of its rows and columns, neither of which may be empty.
    fn part(self, rows: Range<usize>, cols: Range<usize>) -> Self {
        let data = &self.data[self.offset(rows.start, cols.start)..];
        Self { data, rows: rows.len(), cols: cols.len(), ..self }
    }

    fn fits(&self) -> bool {
        let (rows, cols) = if self.transposed { (self.cols, self.rows) } else { (self.rows, self.cols) };
        fits(self.data.len(), rows, cols, self.stride)
    }

    /// From a row to the next and from a column to the next.
    fn strides(&self) -> [usize; 2] {
        if self.transposed { [1, self.stride] } else { [self.stride, 1] }
    }

    /// Elements before `(row, col)`.
    fn offset(&self, row: usize, col: usize) -> usize {
        let [row_stride, col_stride] = self.strides();
        row * row_stride + col * col_stride
    }
}

/// A row-major matrix to write into, with rows `row_stride` elements apart.
pub(crate) struct MatMut<'a, T> {
    data: &'a mut [T],
    rows: usize,
    cols: usize,
    row_stride: usize,
}

impl<'a, T> MatMut<'a, T> {
    pub(crate) fn new(data: &'a mut [T], rows: usize, cols: usize, row_stride: usize) -> Self {
        Self { data, rows, cols, row_stride }
    }

    /// Its rows.
    fn rows(&mut self) -> impl Iterator<Item = &mut [T]> {
        let (cols, stride) = (self.cols, self.row_stride.max(1));
        self.data.chunks_mut(stride).take(self.rows).map(move |row| &mut row[..cols])
    }
}

/// What the product is added to.
#[derive(Clone, Copy)]
pub(crate) enum Start<'a, T> {
    Zero,
    /// What stands in the result.
    Kept,
    /// A value for each column.
    Columns(&'a [T]),
    /// A value for each row.
    Rows(&'a [T]),
}

impl<T> Start<'_, T> {
    fn fits(&self, rows: usize, cols: usize) -> bool {
        match self {
            Start::Zero | Start::Kept => true,
            Start::Columns(values) => values.len() == cols,
            Start::Rows(values) => values.len() == rows,
        }
    }
}

/// Who computes a product.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Threads {
    /// The calling thread.
    One,
    /// As many threads as there are; the tiles are dealt out, a sum is never split.
    All,
}

/// `out = start + lhs * rhs`.
pub(crate) fn gemm<T: Float>(
    out: MatMut<'_, T>,
    lhs: Mat<'_, T>,
    rhs: Mat<'_, T>,
    start: Start<'_, T>,
    threads: Threads,
) {
    gemm_at(Level::detect(), out, lhs, rhs, start, threads);
}

fn gemm_at<T: Float>(
    level: Level,
    mut out: MatMut<'_, T>,
    lhs: Mat<'_, T>,
    rhs: Mat<'_, T>,
    start: Start<'_, T>,
    threads: Threads,
) {
    let (m, n, k) = (out.rows, out.cols, lhs.cols);
    assert!(lhs.rows == m && rhs.rows == k && rhs.cols == n, "a kernel multiplied matrices of unequal sizes");
    assert!(
        fits(out.data.len(), m, n, out.row_stride)
            && (m <= 1 || out.row_stride >= n)
            && lhs.fits()
            && rhs.fits()
            && start.fits(m, n),
        "a kernel's matrix does not fit its slice"
    );
    if m == 0 || n == 0 {
        return;
    }
    if m == 1 {
        out.row_stride = n; // there is no next row
    }
    if k == 0 {
        fill(&mut out, start);
    } else if k == 1 && !rhs.transposed && matches!(start, Start::Zero | Start::Kept) {
        row::outer(level, out, lhs, rhs, matches!(start, Start::Kept));
    } else if long::is_long::<T>(m, k) {
        long::product(level, out, lhs, rhs, start, threads);
    } else {
        product::run(level, out, lhs, rhs, start, threads);
    }
}

/// Puts the start where it is not yet.
fn fill<T: Float>(out: &mut MatMut<'_, T>, start: Start<'_, T>) {
    for (i, out) in out.rows().enumerate() {
        match start {
            Start::Zero => out.fill(T::ZERO),
            Start::Kept => {}
            Start::Columns(values) => out.copy_from_slice(values),
            Start::Rows(values) => out.fill(values[i]),
        }
    }
}

/// Whether `rows` rows of `cols` elements that start `stride` apart end inside a slice of `len` elements.
fn fits(len: usize, rows: usize, cols: usize, stride: usize) -> bool {
    let (Some(last_row), Some(last_col)) = (rows.checked_sub(1), cols.checked_sub(1)) else {
        return true;
    };
    last_row.checked_mul(stride).and_then(|row| row.checked_add(last_col)).is_some_and(|last| last < len)
}
