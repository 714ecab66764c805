//! A product as parts for threads, and the loops over the tiles of a part.
#![allow(unsafe_code)] // threads write to their rows and columns of one result

use std::ops::Range;
use std::slice;

use super::super::Float;
use super::super::pool::Team;
use super::super::simd::{Level, Transpose};
use super::cut::{Cut, part, tile_size};
use super::pack::{PACKED_ROWS, Workspace, pack_columns, pack_rows};
use super::tile::{First, Tile};
use super::{Mat, MatMut, Start, Threads, row};

/// A pointer that several threads write through, each to elements of its own.
#[derive(Clone, Copy)]
struct Shared<T>(*mut T);

// SAFETY: whoever makes one sees to it that threads write to different elements.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}

/// `out = start + left * right`, or the transpose of `left * right` if `swapped`.
struct Product<'a, T> {
    level: Level,
    out: Shared<T>,
    row_stride: usize,
    left: Mat<'a, T>,
    right: Mat<'a, T>,
    start: Start<'a, T>,
    swapped: bool,
}

/// `out = start + lhs * rhs`, of sizes that fit and are not 0.
pub(super) fn run<T: Float>(
    level: Level,
    out: MatMut<'_, T>,
    lhs: Mat<'_, T>,
    rhs: Mat<'_, T>,
    start: Start<'_, T>,
    threads: Threads,
) {
    /// Multiplications from which a second thread is worth waking.
    const MIN_PRODUCTS: usize = 1 << 19;
    /// Elements that a task has at least on each side, where there are as many.
    const MIN_SIDE: usize = 48;

    if out.rows == 1 {
        // It waits for memory, not for a processor.
        return row::product(level, &mut out.data[..out.cols], lhs, rhs, start);
    }
    let MatMut { data: out, rows: m, cols: n, row_stride } = out;
    // Columns of the right matrix go into vectors. Where they would have to be transposed for that and the rows of the left
    // one are fewer, these do instead: the transposed product is computed.
    let swapped = rhs.transposed && n > m && m >= 12;
    let (left, right) = if swapped { (rhs.t(), lhs.t()) } else { (lhs, rhs) };
    let is_large = m.saturating_mul(n).saturating_mul(lhs.cols) >= MIN_PRODUCTS;
    let team = match threads {
        Threads::All if is_large => Team::gather(),
        _ => Team::alone(),
    };
    let n_tasks = if team.len() == 1 { 1 } else { 2 * team.len() };
    let col_tasks = n_tasks.min(right.cols.div_ceil(MIN_SIDE));
    let row_tasks = (n_tasks / col_tasks).min(left.rows.div_ceil(MIN_SIDE));
    let [tile_rows, panel] = tile_size::<T>(level);
    let product = Product { level, out: Shared(out.as_mut_ptr()), row_stride, left, right, start, swapped };
    let compute = |(): &mut (), task: usize| {
        let rows = part(left.rows, tile_rows, row_tasks, task / col_tasks);
        let cols = part(right.cols, panel, col_tasks, task % col_tasks);
        // SAFETY: the caller has found the matrices inside their slices, and each task has rows and columns of its own.
        unsafe { product.compute(rows, cols) }
    };
    team.for_each(row_tasks * col_tasks, || (), compute);
}

impl<T: Float> Product<'_, T> {
    /// Computes these rows and columns of `left * right`.
    ///
    /// # Safety
    /// The matrices fit their slices, the rows and columns fit the product, and no other thread uses these elements of
    /// the result.
    unsafe fn compute(&self, rows: Range<usize>, cols: Range<usize>) {
        let &Self { level, out, row_stride, left, right, swapped, .. } = self;
        let cut = Cut::new(level, left, right, rows.clone(), cols.clone());
        let sums_len = if swapped { rows.len() * cols.len() } else { 0 };
        let mut workspace = Workspace::take();
        let [packed, block, sums] = workspace.slices::<T, 3>([cut.panel_len(), cut.block_len(), sums_len]);
        let (to, to_stride) = if swapped {
            (sums.as_mut_ptr(), cols.len())
        } else {
            // SAFETY: inside the result.
            (unsafe { out.0.add(rows.start * row_stride + cols.start) }, row_stride)
        };
        let tiles = Tiles { product: self, cut: &cut, packed: packed.as_mut_ptr(), to, to_stride };
        for d in 0..cut.n_depths {
            for b in 0..cut.n_blocks {
                tiles.pack_block(d, b, block);
                for p in 0..cut.n_panels {
                    // SAFETY: as the caller vouches; `packed` has room for a panel, `block` is packed if it is to be.
                    unsafe { tiles.panel(d, b, p, block) }
                }
            }
        }
        if swapped {
            // SAFETY: as the caller vouches.
            unsafe { self.merge(sums, rows, cols) }
        }
    }

    /// Writes the transpose of `sums`, which are those of these rows and columns, added to the start.
    ///
    /// # Safety
    /// As for [`compute`](Self::compute).
    unsafe fn merge(&self, sums: &[T], rows: Range<usize>, cols: Range<usize>) {
        /// Rows that are transposed at once, beside each other in the result.
        const ROWS: usize = 64;
        /// Columns at once, below each other in the result.
        const COLS: usize = 16;

        let n_cols = cols.len();
        let mut square = [T::ZERO; ROWS * COLS];
        for i in (0..rows.len()).step_by(ROWS) {
            let n_rows = ROWS.min(rows.len() - i);
            for j in (0..n_cols).step_by(COLS) {
                let columns = COLS.min(n_cols - j);
                let from = &sums[i * n_cols + j..];
                let to = &mut square[..];
                T::run(
                    self.level,
                    Transpose { from, from_stride: n_cols, rows: n_rows, columns, to, to_stride: ROWS },
                );
                for (j, sums) in (cols.start + j..).zip(square.chunks_exact(ROWS).take(columns)) {
                    // SAFETY: inside the result, and of this task alone.
                    unsafe { self.merge_row(j, rows.start + i, &sums[..n_rows]) }
                }
            }
        }
    }

    /// Adds `sums` to the start of row `row` of the result, from column `first` on.
    ///
    /// # Safety
    /// They are inside the result, and nobody else uses these elements.
    unsafe fn merge_row(&self, row: usize, first: usize, sums: &[T]) {
        // SAFETY: as the caller vouches.
        let to =
            unsafe { slice::from_raw_parts_mut(self.out.0.add(row * self.row_stride + first), sums.len()) };
        match self.start {
            Start::Zero => to.copy_from_slice(sums),
            Start::Kept => to.iter_mut().zip(sums).for_each(|(to, sum)| *to += *sum),
            Start::Columns(values) => {
                let values = to.iter_mut().zip(&values[first..]);
                values.zip(sums).for_each(|((to, value), sum)| *to = *value + *sum);
            }
            Start::Rows(values) => to.iter_mut().zip(sums).for_each(|(to, sum)| *to = values[row] + *sum),
        }
    }
}

/// The tiles of a part of a product.
struct Tiles<'a, T> {
    product: &'a Product<'a, T>,
    cut: &'a Cut,
    /// Memory for a panel. All that is read of it is read through this pointer.
    packed: *mut T,
    /// Where the part's first element goes, and from a row to the next.
    to: *mut T,
    to_stride: usize,
}

impl<T: Float> Tiles<'_, T> {
    /// Packs the left matrix, if that pays.
    fn pack_block(&self, d: usize, b: usize, block: &mut [T]) {
        let (cut, &Product { level, left, .. }) = (self.cut, self.product);
        if !cut.pack_left {
            return;
        }
        let depths = cut.depths(d);
        let tiles = block.chunks_exact_mut((depths.len() * PACKED_ROWS).max(1));
        for (tile, to) in cut.tiles(b).zip(tiles) {
            let rows = cut.rows_of(tile);
            pack_rows(level, left, cut.rows.start + rows.start, rows.len(), depths.clone(), to);
        }
    }

    /// Computes the tiles of a block that have a panel's columns.
    ///
    /// # Safety
    /// As for [`Product::compute`]; `packed` has room for a panel, and `block` is packed if it is to be.
    unsafe fn panel(&self, d: usize, b: usize, p: usize, block: &[T]) {
        let (cut, &Product { level, right, .. }) = (self.cut, self.product);
        let (depths, tiles, cols) = (cut.depths(d), cut.tiles(b), cut.cols_of(p));
        // The first tile reads whole panels where they are, and packs them.
        let is_direct = !right.transposed && cols.len() == cut.panel;
        if !is_direct {
            // SAFETY: it has room for a panel, and nobody else refers to it.
            let packed = unsafe { slice::from_raw_parts_mut(self.packed, depths.len() * cut.panel) };
            let cols = cut.cols.start + cols.start..cut.cols.start + cols.end;
            pack_columns(level, right, depths.clone(), cols, cut.panel, packed);
        }
        for tile in tiles.clone() {
            let is_first = tile == tiles.start;
            let (b, b_stride) = if is_direct && is_first {
                let offset = right.offset(depths.start, cut.cols.start + cols.start);
                (right.data[offset..].as_ptr(), right.stride)
            } else {
                (self.packed.cast_const(), cut.panel)
            };
            let rows = cut.rows_of(tile);
            let (a, [a_row, a_depth]) = self.left_of(&rows, &depths, tile - tiles.start, block);
            let (n_rows, to_stride) = (rows.len(), self.to_stride);
            let tile = Tile {
                k: depths.len(),
                a,
                a_row,
                a_depth,
                b,
                b_stride,
                packed: self.packed,
                // SAFETY: inside the result.
                c: unsafe { self.to.add(rows.start * to_stride + cols.start) },
                c_stride: to_stride,
                width: cols.len(),
                start: self.first(d, rows.start, cols.start),
            };
            let packs = is_direct && is_first && tiles.len() > 1;
            // SAFETY: all that the tile reads and writes lies inside the matrices and the workspace.
            unsafe { tile.run(level, n_rows, packs, cut.pack_left) }
        }
    }

    /// Where the left matrix has a tile's rows, and its strides.
    fn left_of(
        &self,
        rows: &Range<usize>,
        depths: &Range<usize>,
        tile: usize,
        block: &[T],
    ) -> (*const T, [usize; 2]) {
        if self.cut.pack_left {
            return (block[tile * depths.len() * PACKED_ROWS..].as_ptr(), [1, PACKED_ROWS]);
        }
        let left = &self.product.left;
        let offset = left.offset(self.cut.rows.start + rows.start, depths.start);
        (left.data[offset..].as_ptr(), left.strides())
    }

    /// What a tile is added to in the `d`-th block of depths; the start comes in by [`Product::merge`] if it is swapped.
    fn first(&self, d: usize, row: usize, col: usize) -> First<T> {
        match self.product.start {
            _ if d > 0 => First::Kept,
            Start::Zero => First::Zero,
            _ if self.product.swapped => First::Zero,
            Start::Kept => First::Kept,
            Start::Columns(values) => First::Columns(values[self.cut.cols.start + col..].as_ptr()),
            Start::Rows(values) => First::Rows(values[self.cut.rows.start + row..].as_ptr()),
        }
    }
}
