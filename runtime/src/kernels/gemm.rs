//! Matrix products.
//!
//! The innermost loop keeps a tile of the result in registers: a few rows of the left matrix, whose elements are
//! broadcast, times a *panel* of columns of the right one. A panel is copied once for all rows, by the first tile while
//! it computes. The copy stays in the nearest cache; the sum over `k` is cut into blocks for that, by the sizes alone.

use std::array;
use std::cell::Cell;
use std::ops::Range;

use super::Float;
use super::pool::Team;
use super::simd::{Job, Level, Simd, Transpose, prefetch};

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

    /// The transposed matrix over the same elements.
    pub(crate) fn t(self) -> Self {
        Self { rows: self.cols, cols: self.rows, transposed: !self.transposed, ..self }
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

/// Who computes a product.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Threads {
    /// The calling thread.
    One,
    /// Every thread of the pool; the tiles are dealt out, a sum is never split.
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

    let MatMut { data: out, rows: m, cols: n, row_stride } = out;
    let k = lhs.cols;
    assert!(lhs.rows == m && rhs.rows == k && rhs.cols == n, "a kernel multiplied matrices of unequal sizes");
    let start_fits = match start {
        Start::Zero | Start::Kept => true,
        Start::Columns(values) => values.len() == n,
        Start::Rows(values) => values.len() == m,
    };
    assert!(
        fits(out.len(), m, n, row_stride)
            && (m <= 1 || row_stride >= n)
            && lhs.fits()
            && rhs.fits()
            && start_fits,
        "a kernel's matrix does not fit its slice"
    );
    if m == 0 || n == 0 {
        return;
    }
    if k == 0 {
        for (i, out) in out[..(m - 1) * row_stride + n].chunks_mut(row_stride.max(n)).enumerate() {
            match start {
                Start::Zero => out[..n].fill(T::ZERO),
                Start::Kept => {}
                Start::Columns(values) => out[..n].copy_from_slice(values),
                Start::Rows(values) => out[..n].fill(values[i]),
            }
        }
        return;
    }
    if k == 1 && !rhs.transposed && matches!(start, Start::Zero | Start::Kept) {
        let (out, row_stride) = (&mut out[..(m - 1) * row_stride + n], row_stride.max(n));
        let (a, a_stride, b) = (lhs.data, lhs.strides()[0].max(1), &rhs.data[..n]);
        return T::run(level, Outer { out, row_stride, a, a_stride, b, kept: matches!(start, Start::Kept) });
    }
    // Columns of the right matrix go into vectors. Where they would have to be transposed for that and the rows of the left
    // one are fewer, these do instead: the transposed product is computed.
    let swapped = rhs.transposed && n > m && m >= 12;
    let (left, right) = if swapped { (rhs.t(), lhs.t()) } else { (lhs, rhs) };
    let is_large = m.saturating_mul(n).saturating_mul(k) >= MIN_PRODUCTS;
    // A row alone waits for memory, not for a processor, and where its vectors end must not depend on the tasks.
    let team = match threads {
        Threads::All if is_large && left.rows > 1 => Team::gather(),
        _ => Team::alone(),
    };
    let n_tasks = if team.len() == 1 { 1 } else { 2 * team.len() };
    let col_tasks = n_tasks.min(right.cols.div_ceil(MIN_SIDE));
    let row_tasks = (n_tasks / col_tasks).min(left.rows.div_ceil(MIN_SIDE));
    let product = Product { level, out: Shared(out.as_mut_ptr()), row_stride, left, right, start, swapped };
    let [tile_rows, panel] = product.tile();
    let run = |(): &mut (), task: usize| {
        let rows = part(left.rows, tile_rows, row_tasks, task / col_tasks);
        let cols = part(right.cols, panel, col_tasks, task % col_tasks);
        // SAFETY: the assertions have found the matrices inside their slices, and each task has rows and columns of its
        // own.
        #[allow(unsafe_code)]
        unsafe {
            product.compute(rows, cols);
        }
    };
    team.for_each(row_tasks * col_tasks, || (), run);
}

/// Whether `rows` rows of `cols` elements that start `stride` apart end inside a slice of `len` elements.
fn fits(len: usize, rows: usize, cols: usize, stride: usize) -> bool {
    let (Some(last_row), Some(last_col)) = (rows.checked_sub(1), cols.checked_sub(1)) else {
        return true;
    };
    last_row.checked_mul(stride).and_then(|row| row.checked_add(last_col)).is_some_and(|last| last < len)
}

/// The `index`-th of `count` parts of `0..len`, cut at multiples of `unit`.
fn part(len: usize, unit: usize, count: usize, index: usize) -> Range<usize> {
    let units = len.div_ceil(unit);
    let end = |index: usize| (units * index / count * unit).min(len);
    end(index)..end(index + 1)
}

/// A pointer that several threads write through, each to elements of its own.
#[derive(Clone, Copy)]
struct Shared<T>(*mut T);

// SAFETY: whoever makes one sees to it that threads write to different elements.
#[allow(unsafe_code)]
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
#[allow(unsafe_code)]
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

/// From a depth to the next in a packed tile of the left matrix, at least its rows.
const PACKED_ROWS: usize = 8;
/// Panels from which packing the left matrix pays although its rows are contiguous.
const PACK_ROWS_FROM: usize = 6;
/// Bytes of a packed panel, which is to stay in the nearest cache beside a tile's rows of the left matrix.
const PANEL_BYTES: usize = 20 << 10;
/// Bytes of a packed block of the left matrix, which is to stay in the next cache.
const BLOCK_BYTES: usize = 256 << 10;

/// Rows of the right matrix that a tile asks for before it copies them: each lies on a page of its own where the rows are
/// long, so the processor does not guess them.
const AHEAD: usize = 24;

/// Rows of the right matrix that are read beside each other.
const STREAMS: usize = 16;

impl<T: Float> Product<'_, T> {
    /// Whether the processor has registers for tiles of 8 rows and 3 vectors instead of 6 and 2.
    fn is_wide(&self) -> bool {
        T::registers(self.level) >= WIDE_FROM
    }

    /// Rows and columns of a tile.
    fn tile(&self) -> [usize; 2] {
        let [rows, vectors] = if self.is_wide() { [8, 3] } else { [6, 2] };
        [rows, vectors * T::lanes(self.level)]
    }

    /// Computes these rows and columns of `left * right`.
    ///
    /// # Safety
    /// The matrices fit their slices, the rows and columns fit the product, and no other thread uses these elements of
    /// the result.
    #[allow(unsafe_code)]
    unsafe fn compute(&self, rows: Range<usize>, cols: Range<usize>) {
        let &Self { level, out, row_stride, left, right, start, swapped } = self;
        if left.rows == 1 {
            // SAFETY: as the caller vouches.
            return unsafe { self.compute_row(cols) };
        }
        let (n_rows, n_cols, depth) = (rows.len(), cols.len(), left.cols);
        let [tile_rows, panel] = self.tile();
        let n_panels = n_cols.div_ceil(panel);
        // A panel that is used once is not packed; a few rows at a time are read from memory in their order then.
        let is_streamed = left.rows <= tile_rows
            && !right.transposed
            && depth * right.stride * size_of::<T>() > BLOCK_BYTES;
        let most = if is_streamed { STREAMS } else { PANEL_BYTES / panel / size_of::<T>() };
        let n_depths = depth.div_ceil(most).max(1);
        let max_depth = depth.div_ceil(n_depths);
        let pack_left = n_panels > 1 && (left.transposed || n_panels >= PACK_ROWS_FROM);
        let n_tiles = n_rows.div_ceil(tile_rows);
        let n_blocks =
            n_tiles.div_ceil((BLOCK_BYTES / (max_depth.max(1) * PACKED_ROWS * size_of::<T>())).max(1));
        // Tiles of nearly equal heights instead of a low one at the end.
        let rows_of = |tile: usize| n_rows * tile / n_tiles..n_rows * (tile + 1) / n_tiles;

        let block_len = if pack_left { n_tiles.div_ceil(n_blocks) * max_depth * PACKED_ROWS } else { 0 };
        let sums_len = if swapped { n_rows * n_cols } else { 0 };
        let mut workspace = Workspace::take();
        let [packed, block, sums] = workspace.slices::<T, 3>([max_depth * panel, block_len, sums_len]);
        let (c, c_stride) = if swapped {
            (sums.as_mut_ptr(), n_cols)
        } else {
            // SAFETY: inside the result.
            (unsafe { out.0.add(rows.start * row_stride + cols.start) }, row_stride)
        };
        for d in 0..n_depths {
            let depths = depth * d / n_depths..depth * (d + 1) / n_depths;
            let k = depths.len();
            for b in 0..n_blocks {
                let tiles = n_tiles * b / n_blocks..n_tiles * (b + 1) / n_blocks;
                if pack_left {
                    for (tile, to) in tiles.clone().zip(block.chunks_exact_mut((k * PACKED_ROWS).max(1))) {
                        let rows_of = rows_of(tile);
                        pack_rows(level, left, rows.start + rows_of.start, rows_of.len(), depths.clone(), to);
                    }
                }
                for p in 0..n_panels {
                    let col = p * panel;
                    let width = panel.min(n_cols - col);
                    let is_direct = !right.transposed && width == panel;
                    if !is_direct {
                        pack_columns(
                            level,
                            right,
                            depths.clone(),
                            cols.start + col..cols.start + col + width,
                            panel,
                            packed,
                        );
                    }
                    for tile in tiles.clone() {
                        let tile_rows = rows_of(tile);
                        let row = tile_rows.start;
                        let (is_first, is_only) = (tile == tiles.start, tiles.len() == 1);
                        let (b, b_stride) = if is_direct && is_first {
                            (
                                right.data[right.offset(depths.start, cols.start + col)..].as_ptr(),
                                right.stride,
                            )
                        } else {
                            (packed.as_ptr(), panel)
                        };
                        let (a, [a_row, a_depth]) = if pack_left {
                            (block[(tile - tiles.start) * k * PACKED_ROWS..].as_ptr(), [1, PACKED_ROWS])
                        } else {
                            (
                                left.data[left.offset(rows.start + row, depths.start)..].as_ptr(),
                                left.strides(),
                            )
                        };
                        let start = match start {
                            _ if d > 0 => First::Kept,
                            Start::Zero => First::Zero,
                            _ if swapped => First::Zero,
                            Start::Kept => First::Kept,
                            Start::Columns(values) => First::Columns(values[cols.start + col..].as_ptr()),
                            Start::Rows(values) => First::Rows(values[rows.start + row..].as_ptr()),
                        };
                        let tile = Tile {
                            k,
                            a,
                            a_row,
                            a_depth,
                            b,
                            b_stride,
                            packed: packed.as_mut_ptr(),
                            // SAFETY: inside the result.
                            c: unsafe { c.add(row * c_stride + col) },
                            c_stride,
                            width,
                            start,
                        };
                        // SAFETY: all that the tile reads and writes lies inside the matrices and the workspace.
                        unsafe {
                            tile.run(
                                level,
                                tile_rows.len(),
                                self.is_wide(),
                                is_direct && is_first && !is_only,
                                pack_left,
                            );
                        }
                    }
                }
            }
        }
        if swapped {
            // SAFETY: as the caller vouches.
            unsafe { self.merge(sums, rows, cols) }
        }
    }

    /// [`compute`](Self::compute) where the left matrix is a row.
    ///
    /// # Safety
    /// As for [`compute`](Self::compute).
    #[allow(unsafe_code)]
    unsafe fn compute_row(&self, cols: Range<usize>) {
        let &Self { level, out, left, right, start, .. } = self;
        // SAFETY: inside the result, and of this task alone.
        let out = unsafe { std::slice::from_raw_parts_mut(out.0.add(cols.start), cols.len()) };
        match start {
            Start::Zero => out.fill(T::ZERO),
            Start::Kept => {}
            Start::Columns(values) => out.copy_from_slice(&values[cols.clone()]),
            Start::Rows(values) => out.fill(values[0]),
        }
        let (a_stride, b) = (left.strides()[1], &right.data[right.offset(0, cols.start)..]);
        let product = RowProduct { out, a: left.data, a_stride, b, b_stride: right.stride, depth: left.cols };
        if right.transposed {
            T::run(level, AddDots(product));
        } else {
            T::run(level, AddRows(product));
        }
    }

    /// Writes the transpose of `sums`, which are those of these rows and columns, added to the start.
    ///
    /// # Safety
    /// As for [`compute`](Self::compute).
    #[allow(unsafe_code)]
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
                    let (first, sums) = (rows.start + i, &sums[..n_rows]);
                    // SAFETY: inside the result, and of this task alone.
                    let to = unsafe {
                        std::slice::from_raw_parts_mut(self.out.0.add(j * self.row_stride + first), n_rows)
                    };
                    match self.start {
                        Start::Zero => to.copy_from_slice(sums),
                        Start::Kept => to.iter_mut().zip(sums).for_each(|(to, sum)| *to += *sum),
                        Start::Columns(values) => {
                            let values = to.iter_mut().zip(&values[first..]);
                            values.zip(sums).for_each(|((to, value), sum)| *to = *value + *sum);
                        }
                        Start::Rows(values) => {
                            to.iter_mut().zip(sums).for_each(|(to, sum)| *to = values[j] + *sum)
                        }
                    }
                }
            }
        }
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
    #[allow(unsafe_code)]
    fn run<V: Simd<T>>(self) {
        /// Rows of `b` for which `out` is read and written once.
        const ROWS: usize = 8;
        /// Vectors of `out` in registers.
        const VECTORS: usize = 4;

        let RowProduct { out, a, a_stride, b, b_stride, depth } = self.0;
        let n = out.len();
        let whole = n - n % (VECTORS * V::LANES);
        for first in (0..depth).step_by(ROWS) {
            let rows = ROWS.min(depth - first);
            assert!((first + rows - 1) * b_stride + n <= b.len(), "a matrix is cut short");
            for j in (0..whole).step_by(VECTORS * V::LANES) {
                // SAFETY: these columns are in `out` and, by the assertion, in the rows of `b`.
                unsafe {
                    let (to, from) = (out.as_mut_ptr().add(j), b.as_ptr().add(first * b_stride + j));
                    let mut sums: [V; VECTORS] = array::from_fn(|v| V::load(to.add(v * V::LANES)));
                    for d in 0..rows {
                        let factor = V::splat(a[(first + d) * a_stride]);
                        for (v, sum) in sums.iter_mut().enumerate() {
                            *sum = factor.mul_add(V::load(from.add(d * b_stride + v * V::LANES)), *sum);
                        }
                    }
                    for (v, sum) in sums.into_iter().enumerate() {
                        sum.store(to.add(v * V::LANES));
                    }
                }
            }
            for d in first..first + rows {
                let (factor, b) = (a[d * a_stride], &b[d * b_stride..][..n]);
                for (out, b) in out[whole..].iter_mut().zip(&b[whole..]) {
                    *out += factor * *b;
                }
            }
        }
    }
}

/// With a `b` that stands column by column.
struct AddDots<'a, T>(RowProduct<'a, T>);

impl<T: Float> Job<T> for AddDots<'_, T> {
    #[inline(always)]
    fn run<V: Simd<T>>(self) {
        /// Columns of `b` beside each other: their sums do not wait for one another.
        const COLS: usize = 8;

        let RowProduct { out, a, a_stride, b, b_stride, depth } = self.0;
        if a_stride != 1 {
            for (j, out) in out.iter_mut().enumerate() {
                let (a, b) = (a.iter().step_by(a_stride.max(1)), &b[j * b_stride..][..depth]);
                *out += b.iter().zip(a).fold(T::ZERO, |sum, (b, a)| sum + *a * *b);
            }
            return;
        }
        let a = &a[..depth];
        let (whole, rest) = out.as_chunks_mut::<COLS>();
        for (j, out) in whole.iter_mut().enumerate() {
            add_dots::<T, V, COLS>(out, a, &b[j * COLS * b_stride..], b_stride);
        }
        let done = whole.len() * COLS;
        for (j, out) in rest.iter_mut().enumerate() {
            add_dots::<T, V, 1>(array::from_mut(out), a, &b[(done + j) * b_stride..], b_stride);
        }
    }
}

/// Adds the products of `a` with so many columns.
#[inline(always)]
#[allow(unsafe_code)]
fn add_dots<T: Float, V: Simd<T>, const COLS: usize>(out: &mut [T; COLS], a: &[T], b: &[T], b_stride: usize) {
    const MAX_LANES: usize = 16;

    let whole = a.len() - a.len() % V::LANES;
    assert!((COLS - 1) * b_stride + a.len() <= b.len() && V::LANES <= MAX_LANES, "a matrix is cut short");
    let mut lanes = [[T::ZERO; MAX_LANES]; COLS];
    // SAFETY: `run` is called where the processor has V's instructions; the assertion has found the columns inside `b`
    // and room for the lanes.
    unsafe {
        let mut sums = [V::splat(T::ZERO); COLS];
        for d in (0..whole).step_by(V::LANES) {
            let a = V::load(a.as_ptr().add(d));
            for (j, sum) in sums.iter_mut().enumerate() {
                *sum = a.mul_add(V::load(b.as_ptr().add(j * b_stride + d)), *sum);
            }
        }
        for (sum, lanes) in sums.into_iter().zip(&mut lanes) {
            sum.store(lanes.as_mut_ptr());
        }
    }
    for (j, (out, lanes)) in out.iter_mut().zip(lanes).enumerate() {
        let mut sum = T::ZERO;
        for lane in &lanes[..V::LANES] {
            sum += *lane;
        }
        for d in whole..a.len() {
            sum += a[d] * b[j * b_stride + d];
        }
        *out += sum;
    }
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
    fn run<V: Simd<T>>(self) {
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

/// `to[8 * d + i]` becomes the element of row `row + i` at depth `d`.
fn pack_rows<T: Float>(
    level: Level,
    left: Mat<'_, T>,
    row: usize,
    n_rows: usize,
    depths: Range<usize>,
    to: &mut [T],
) {
    let from = &left.data[left.offset(row, depths.start)..];
    if left.transposed {
        for (d, to) in to.chunks_exact_mut(PACKED_ROWS).enumerate() {
            let from = &from[d * left.stride..];
            match from.first_chunk::<PACKED_ROWS>() {
                Some(from) => to.copy_from_slice(from), // more than needed, but of a fixed length
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
fn pack_columns<T: Float>(
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

/// Registers from which tiles are wide.
const WIDE_FROM: usize = 24;

/// [`Start`] at a tile.
#[derive(Clone, Copy)]
enum First<T> {
    Zero,
    Kept,
    Columns(*const T),
    Rows(*const T),
}

/// `k` steps of the sums of a tile.
#[derive(Clone, Copy)]
struct Tile<T> {
    k: usize,
    a: *const T,
    a_row: usize,
    a_depth: usize,
    b: *const T,
    b_stride: usize,
    /// Where `PACK` copies what it reads of `b`.
    packed: *mut T,
    c: *mut T,
    c_stride: usize,
    /// Columns that are written.
    width: usize,
    start: First<T>,
}

impl<T: Float> Tile<T> {
    /// # Safety
    /// All that the pointers reach with these sizes is valid.
    #[allow(unsafe_code)]
    unsafe fn run(self, level: Level, n_rows: usize, is_wide: bool, pack: bool, is_packed: bool) {
        macro_rules! run {
            ($vectors:literal: $($rows:literal)+) => {
                match (n_rows, pack, is_packed) {
                    $(($rows, false, false) => T::run(level, Fixed::<T, $rows, $vectors, false, false>(self)),)+
                    $(($rows, false, true) => T::run(level, Fixed::<T, $rows, $vectors, false, true>(self)),)+
                    $(($rows, true, false) => T::run(level, Fixed::<T, $rows, $vectors, true, false>(self)),)+
                    $(($rows, true, true) => T::run(level, Fixed::<T, $rows, $vectors, true, true>(self)),)+
                    _ => unreachable!("a tile has no such height"),
                }
            };
        }
        if is_wide { run!(3: 1 2 3 4 5 6 7 8) } else { run!(2: 1 2 3 4 5 6) }
    }
}

/// A tile of `R` rows and `C` vectors. `PACK` copies the panel, `PACKED` says that the left matrix has been packed.
struct Fixed<T, const R: usize, const C: usize, const PACK: bool, const PACKED: bool>(Tile<T>);

impl<T: Float, const R: usize, const C: usize, const PACK: bool, const PACKED: bool> Job<T>
    for Fixed<T, R, C, PACK, PACKED>
{
    #[inline(always)]
    #[allow(unsafe_code)]
    fn run<V: Simd<T>>(self) {
        let Tile { k, a, a_row, a_depth, b, b_stride, packed, c, c_stride, width, start } = self.0;
        if (V::REGISTERS >= WIDE_FROM) != (C == 3) {
            unreachable!("tiles of this size are for other processors");
        }
        let [a_row, a_depth] = if PACKED { [1, PACKED_ROWS] } else { [a_row, a_depth] };
        let line = size_of::<Line>() / size_of::<T>();
        let b_ahead = b.wrapping_add(AHEAD * b_stride);
        // SAFETY: who has made the tile vouches for what is read and written.
        unsafe {
            let mut sums = [[V::splat(T::ZERO); C]; R];
            for i in 0..R {
                let row = c.wrapping_add(i * c_stride);
                for j in (0..C * V::LANES).step_by(line) {
                    prefetch(row.wrapping_add(j));
                }
                prefetch(row.wrapping_add(C * V::LANES - 1)); // one line more where the row is not aligned
            }
            for d in 0..k {
                let b: [V; C] = array::from_fn(|j| V::load(b.add(d * b_stride + j * V::LANES)));
                if PACK {
                    let row = b_ahead.wrapping_add(d * b_stride);
                    for j in (0..C * V::LANES).step_by(line) {
                        // At the ends of the lines: where the row is not aligned, the panel before has read the first one.
                        prefetch(row.wrapping_add(j + line - 1));
                    }
                    for (j, b) in b.iter().enumerate() {
                        b.store(packed.add((d * C + j) * V::LANES));
                    }
                }
                for (i, sums) in sums.iter_mut().enumerate() {
                    let a = V::splat(*a.add(i * a_row + d * a_depth));
                    for (sum, b) in sums.iter_mut().zip(b) {
                        *sum = a.mul_add(b, *sum);
                    }
                }
            }
            if width == C * V::LANES {
                let one = V::splat(T::ONE);
                for (i, sums) in sums.into_iter().enumerate() {
                    for (j, sum) in sums.into_iter().enumerate() {
                        let to = c.add(i * c_stride + j * V::LANES);
                        let sum = match start {
                            First::Zero => sum,
                            First::Kept => sum.mul_add(one, V::load(to)),
                            First::Columns(values) => sum.mul_add(one, V::load(values.add(j * V::LANES))),
                            First::Rows(values) => sum.mul_add(one, V::splat(*values.add(i))),
                        };
                        sum.store(to);
                    }
                }
                return;
            }
            let mut row = [T::ZERO; MAX_PANEL];
            for (i, sums) in sums.into_iter().enumerate() {
                for (j, sum) in sums.into_iter().enumerate() {
                    sum.store(row[j * V::LANES..].as_mut_ptr());
                }
                for (j, sum) in row[..width].iter().enumerate() {
                    let to = c.add(i * c_stride + j);
                    *to = match start {
                        First::Zero => *sum,
                        First::Kept => *to + *sum,
                        First::Columns(values) => *values.add(j) + *sum,
                        First::Rows(values) => *values.add(i) + *sum,
                    };
                }
            }
        }
    }
}

/// The most columns of a tile.
const MAX_PANEL: usize = 48;

/// A piece of memory at the start of a cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

thread_local! {
    /// Memory that products work in, kept because fresh memory costs more than copying into it.
    static LINES: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
}

/// The memory of this thread, put back in the end.
struct Workspace(Vec<Line>);

impl Workspace {
    fn take() -> Self {
        Self(LINES.take())
    }

    /// Slices of these lengths with arbitrary contents.
    fn slices<T: Float, const N: usize>(&mut self, lens: [usize; N]) -> [&mut [T]; N] {
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
        LINES.set(std::mem::take(&mut self.0));
    }
}

#[cfg(test)]
mod tests {
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
        let ragged =
            [[1, 1, 1], [1, 67, 19], [5, 1, 40], [7, 50, 0], [13, 70, 33], [29, 20, 350], [50, 31, 1]];
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
}
