//! Matrix products by the `gemm` crate, behind bounds checks.

use super::Float;

/// A matrix inside a slice; element `(i, j)` stands at `i * row_stride + j * col_stride`.
#[derive(Clone, Copy)]
pub(crate) struct Mat<'a, T> {
    data: &'a [T],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a, T> Mat<'a, T> {
    /// A row-major matrix whose rows start `row_stride` elements apart.
    pub(crate) fn new(data: &'a [T], rows: usize, cols: usize, row_stride: usize) -> Self {
        Self { data, rows, cols, row_stride, col_stride: 1 }
    }

    /// The transposed matrix over the same elements.
    pub(crate) fn t(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
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
}

/// Who computes a product.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Threads {
    /// The calling thread.
    One,
    /// Every thread of the pool; the tiles are dealt out, a sum is never split.
    All,
}

/// `out = lhs * rhs`, or `out += lhs * rhs` with `accumulate`.
#[allow(unsafe_code)] // the gemm crate takes pointers; the checks below are what it asks for
pub(crate) fn gemm<T: Float>(
    out: MatMut<'_, T>,
    lhs: Mat<'_, T>,
    rhs: Mat<'_, T>,
    accumulate: bool,
    threads: Threads,
) {
    let MatMut { data: out, rows: m, cols: n, row_stride } = out;
    let k = lhs.cols;
    assert!(lhs.rows == m && rhs.rows == k && rhs.cols == n, "a kernel multiplied matrices of unequal sizes");
    assert!(
        fits(out.len(), m, n, row_stride, 1)
            && fits(lhs.data.len(), m, k, lhs.row_stride, lhs.col_stride)
            && fits(rhs.data.len(), k, n, rhs.row_stride, rhs.col_stride)
            && (m <= 1 || row_stride >= n),
        "a kernel's matrix does not fit its slice"
    );
    if m == 0 || n == 0 || k == 0 {
        if !accumulate {
            for row in 0..m {
                out[row * row_stride..][..n].fill(T::ZERO);
            }
        }
        return;
    }
    let parallelism = match threads {
        Threads::One => gemm::Parallelism::None,
        Threads::All => gemm::Parallelism::Rayon(rayon::current_num_threads()),
    };
    let alpha = if accumulate { T::ONE } else { T::ZERO };
    // SAFETY: `fits` has shown every element of the three matrices inside its slice (slices are at most isize::MAX
    // bytes long, so the strides fit isize); `out` is borrowed mutably, so it overlaps neither operand, and its
    // rows do not overlap each other. T is f32 or f64, the only implementors of Float.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            row_stride as isize,
            accumulate,
            lhs.data.as_ptr(),
            lhs.col_stride as isize,
            lhs.row_stride as isize,
            rhs.data.as_ptr(),
            rhs.col_stride as isize,
            rhs.row_stride as isize,
            alpha,
            T::ONE,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// Whether a `rows` x `cols` matrix with these strides ends inside a slice of `len` elements.
fn fits(len: usize, rows: usize, cols: usize, row_stride: usize, col_stride: usize) -> bool {
    let (Some(last_row), Some(last_col)) = (rows.checked_sub(1), cols.checked_sub(1)) else {
        return true;
    };
    let last = last_row
        .checked_mul(row_stride)
        .and_then(|row| last_col.checked_mul(col_stride).and_then(|col| row.checked_add(col)));
    last.is_some_and(|last| last < len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn product_accumulates_into_a_strided_matrix() {
        let a = [1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0];
        let b = [1.0f32, 0.0, 0.0, 1.0, 1.0, 1.0];
        let mut out = [1.0f32; 5];
        gemm(
            MatMut::new(&mut out, 2, 2, 3),
            Mat::new(&a, 2, 3, 3),
            Mat::new(&b, 3, 2, 2),
            true,
            Threads::One,
        );
        assert_eq!(out, [5.0, 6.0, 1.0, 11.0, 12.0]);
        gemm(
            MatMut::new(&mut out, 2, 2, 3),
            Mat::new(&a, 3, 2, 2).t(),
            Mat::new(&b, 3, 2, 2),
            false,
            Threads::All,
        );
        assert_eq!(out, [6.0, 8.0, 1.0, 8.0, 10.0]);
    }

    #[test]
    #[should_panic(expected = "does not fit")]
    fn short_slices_are_caught() {
        let mut out = [0.0f32; 4];
        gemm(
            MatMut::new(&mut out, 2, 2, 2),
            Mat::new(&[1.0; 3], 2, 2, 2),
            Mat::new(&[1.0; 4], 2, 2, 2),
            false,
            Threads::One,
        );
    }
}
