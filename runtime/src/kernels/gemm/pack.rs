//! Copies of parts of the matrices in the order in which tiles read them, and the memory for them.

use std::array;
use std::cell::Cell;
use std::ops::Range;

use super::super::Float;
use super::super::simd::{Level, Transpose};
use super::Mat;

/// From a depth to the next in a packed tile of the left matrix, at least its rows.
pub(super) const PACKED_ROWS: usize = 8;

/// `to[8 * d + i]` becomes the element of row `row + i` at depth `d`.
pub(super) fn pack_rows<T: Float>(
    level: Level,
    left: Mat<'_, T>,
    row: usize,
    n_rows: usize,
    depths: Range<usize>,
    to: &mut [T],
) {
    let from = &left.data[left.offset(row, depths.start)..];
    if left.transposed {
        for (d, to) in to.as_chunks_mut::<PACKED_ROWS>().0.iter_mut().enumerate() {
            let from = &from[d * left.stride..];
            match from.first_chunk::<PACKED_ROWS>() {
                Some(from) => *to = *from, // more than needed, but of a fixed length, so without a call
                None => to[..n_rows].copy_from_slice(&from[..n_rows]),
            }
        }
    } else {
        // Rows beyond the tile are copied too, as whole blocks are faster.
        let rows = PACKED_ROWS.min(left.rows - row);
        let columns = depths.len();
        T::run(
            level,
            Transpose { from, from_stride: left.stride, rows, columns, to, to_stride: PACKED_ROWS },
        );
    }
}

/// `to[panel * d + j]` becomes the element of column `cols.start + j` at depth `d`, and 0 for columns beyond the end.
pub(super) fn pack_columns<T: Float>(
    level: Level,
    right: Mat<'_, T>,
    depths: Range<usize>,
    cols: Range<usize>,
    panel: usize,
    to: &mut [T],
) {
    let from = &right.data[right.offset(depths.start, cols.start)..];
    let to = &mut to[..depths.len() * panel];
    if cols.len() < panel {
        to.fill(T::ZERO);
    }
    if right.transposed {
        let (rows, columns) = (cols.len(), depths.len());
        T::run(level, Transpose { from, from_stride: right.stride, rows, columns, to, to_stride: panel });
    } else {
        for (d, to) in to.chunks_exact_mut(panel).enumerate() {
            to[..cols.len()].copy_from_slice(&from[d * right.stride..][..cols.len()]);
        }
    }
}

/// A piece of memory at the start of a cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line([u8; 64]);

/// Bytes that a thread keeps for its next product.
const KEPT_BYTES: usize = 16 << 20;

thread_local! {
    /// Memory that products work in, kept because fresh memory costs more than copying into it.
    static LINES: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
}

/// The memory of this thread, put back in the end.
pub(super) struct Workspace(Vec<Line>);

impl Workspace {
    pub(super) fn take() -> Self {
        Self(LINES.take())
    }

    /// Slices of these lengths with arbitrary contents.
    pub(super) fn slices<T: Float, const N: usize>(&mut self, lens: [usize; N]) -> [&mut [T]; N] {
        const { assert!(align_of::<T>() <= align_of::<Line>()) };
        let lines = lens.map(|len| (len * size_of::<T>()).div_ceil(size_of::<Line>()));
        let needed = lines.iter().sum();
        if self.0.len() < needed {
            self.0.resize(needed, Line([0; 64]));
        }
        let mut rest = &mut self.0[..];
        array::from_fn(|i| {
            let (own, others) = std::mem::take(&mut rest).split_at_mut(lines[i]);
            rest = others;
            // SAFETY: the lines have room for so many elements and are aligned for them; all bits are valid floats.
            #[allow(unsafe_code)]
            unsafe {
                std::slice::from_raw_parts_mut(own.as_mut_ptr().cast::<T>(), lens[i])
            }
        })
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        if self.0.len() * size_of::<Line>() <= KEPT_BYTES {
            LINES.set(std::mem::take(&mut self.0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_keeps_little_memory() {
        let kept = || {
            let workspace = Workspace::take();
            workspace.0.capacity() * size_of::<Line>()
        };
        Workspace::take().slices::<f32, 2>([1000, 20]);
        assert!(kept() >= 4080);
        Workspace::take().slices::<f32, 1>([KEPT_BYTES]);
        assert!(kept() <= KEPT_BYTES);
    }
}
