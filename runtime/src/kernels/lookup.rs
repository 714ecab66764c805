//! Rows of a table by index.

use super::Float;
use super::parallel::for_each_chunk;

/// `out[i] = table[indices[i]]`, rows of `len` elements; indices must be inside the table.
pub(crate) fn gather_rows<T: Float>(table: &[T], indices: &[usize], len: usize, out: &mut [T]) {
    let work = out.len();
    for_each_chunk(
        out,
        len,
        work,
        || (),
        |(), i, out| {
            out.copy_from_slice(&table[indices[i] * len..][..len]);
        },
    );
}

/// `table[indices[i]] += rows[i]`, in the order of `i`.
pub(crate) fn scatter_add_rows<T: Float>(rows: &[T], indices: &[usize], len: usize, table: &mut [T]) {
    if len == 0 {
        return;
    }
    for (row, index) in rows.chunks_exact(len).zip(indices) {
        for (sum, addend) in table[index * len..][..len].iter_mut().zip(row) {
            *sum += *addend;
        }
    }
}
