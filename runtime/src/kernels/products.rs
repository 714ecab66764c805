//! Products of many matrices.

use super::Float;
use super::gemm::{Mat, MatMut, Start, Threads, gemm};
use super::parallel::for_each_chunk;

/// Multiplications of one product up to which the products are dealt out, and not the tiles of each.
const SMALL: usize = 1 << 18;

/// Matrices of one size behind each other.
#[derive(Clone, Copy)]
pub(crate) struct Matrices<'a, T> {
    data: &'a [T],
    /// As they lie there.
    rows: usize,
    cols: usize,
    transposed: bool,
}

impl<'a, T> Matrices<'a, T> {
    pub(crate) fn new(data: &'a [T], rows: usize, cols: usize) -> Self {
        Self { data, rows, cols, transposed: false }
    }

    /// The transposed ones.
    pub(crate) fn t(self) -> Self {
        Self { transposed: !self.transposed, ..self }
    }

    /// The transposed ones if asked for.
    pub(crate) fn t_if(self, asked: bool) -> Self {
        if asked { self.t() } else { self }
    }

    fn sizes(&self) -> [usize; 2] {
        if self.transposed { [self.cols, self.rows] } else { [self.rows, self.cols] }
    }

    fn get(&self, i: usize) -> Mat<'a, T> {
        let len = self.rows * self.cols;
        let mat = Mat::new(&self.data[i * len..][..len], self.rows, self.cols, self.cols);
        if self.transposed { mat.t() } else { mat }
    }
}

/// `out = lhs * rhs`, each with its own.
pub(crate) fn products<T: Float>(lhs: Matrices<'_, T>, rhs: Matrices<'_, T>, out: &mut [T]) {
    let ([rows, inner], [_, cols]) = (lhs.sizes(), rhs.sizes());
    let len = rows * cols;
    let one = |i: usize, out: &mut [T], threads: Threads| {
        gemm(MatMut::new(out, rows, cols, cols), lhs.get(i), rhs.get(i), Start::Zero, threads);
    };
    if len.saturating_mul(inner) <= SMALL {
        let work = out.len().saturating_mul(inner.max(1));
        for_each_chunk(out, len, work, || (), |(), i, out| one(i, out, Threads::One));
    } else {
        out.chunks_exact_mut(len).enumerate().for_each(|(i, out)| one(i, out, Threads::All));
    }
}
