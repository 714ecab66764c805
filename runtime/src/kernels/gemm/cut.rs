//! How a part of a product is cut, so that what the tiles use stays in the caches.

use std::ops::Range;

use super::super::Float;
use super::super::simd::Level;
use super::Mat;
use super::pack::PACKED_ROWS;
use super::tile::is_wide;

/// Bytes of a packed panel, which is to stay in the nearest cache beside a tile's rows of the left matrix.
const PANEL_BYTES: usize = 20 << 10;
/// Bytes of a packed block of the left matrix, which is to stay in the next cache.
const BLOCK_BYTES: usize = 256 << 10;
/// Most terms of a sum that a tile keeps in a register: the sums of longer ones lose digits.
const MAX_DEPTH: usize = 128;
/// Panels from which packing the left matrix pays although its rows are contiguous.
const PACK_ROWS_FROM: usize = 6;
/// Rows of the right matrix that are read beside each other.
const STREAMS: usize = 16;

/// Rows and columns of a tile.
pub(super) fn tile_size<T: Float>(level: Level) -> [usize; 2] {
    let [rows, vectors] = if is_wide::<T>(level) { [8, 3] } else { [6, 2] };
    [rows, vectors * T::lanes(level)]
}

/// The `index`-th of `count` parts of `0..len`, cut at multiples of `unit`.
pub(super) fn part(len: usize, unit: usize, count: usize, index: usize) -> Range<usize> {
    let units = len.div_ceil(unit);
    let end = |index: usize| (units * index / count * unit).min(len);
    end(index)..end(index + 1)
}

/// The tiles, panels and blocks of some rows and columns.
pub(super) struct Cut {
    pub(super) rows: Range<usize>,
    pub(super) cols: Range<usize>,
    depth: usize,
    /// Columns of a panel.
    pub(super) panel: usize,
    pub(super) n_panels: usize,
    pub(super) n_depths: usize,
    n_tiles: usize,
    pub(super) n_blocks: usize,
    /// Whether the left matrix is packed.
    pub(super) pack_left: bool,
}

impl Cut {
    pub(super) fn new<T: Float>(
        level: Level,
        left: Mat<'_, T>,
        right: Mat<'_, T>,
        rows: Range<usize>,
        cols: Range<usize>,
    ) -> Self {
        let (depth, [tile_rows, panel]) = (left.cols, tile_size::<T>(level));
        // A panel that is used once is not packed; a few rows at a time are read from memory in their order then.
        let is_streamed = left.rows <= tile_rows
            && !right.transposed
            && depth * right.stride * size_of::<T>() > BLOCK_BYTES;
        let most = if is_streamed { STREAMS } else { MAX_DEPTH.min(PANEL_BYTES / panel / size_of::<T>()) };
        let n_depths = depth.div_ceil(most).max(1);
        let (n_panels, n_tiles) = (cols.len().div_ceil(panel), rows.len().div_ceil(tile_rows));
        let pack_left = n_panels > 1 && (left.transposed || n_panels >= PACK_ROWS_FROM);
        let packed_tile = depth.div_ceil(n_depths).max(1) * PACKED_ROWS * size_of::<T>();
        let n_blocks = n_tiles.div_ceil((BLOCK_BYTES / packed_tile).max(1));
        Self { rows, cols, depth, panel, n_panels, n_depths, n_tiles, n_blocks, pack_left }
    }

    /// Most depths of a block.
    fn max_depth(&self) -> usize {
        self.depth.div_ceil(self.n_depths)
    }

    /// Elements of a packed panel.
    pub(super) fn panel_len(&self) -> usize {
        self.max_depth() * self.panel
    }

    /// Elements of a packed block of the left matrix.
    pub(super) fn block_len(&self) -> usize {
        if self.pack_left { self.n_tiles.div_ceil(self.n_blocks) * self.max_depth() * PACKED_ROWS } else { 0 }
    }

    pub(super) fn depths(&self, index: usize) -> Range<usize> {
        let end = |index: usize| self.depth * index / self.n_depths;
        end(index)..end(index + 1)
    }

    /// The tiles of a block.
    pub(super) fn tiles(&self, block: usize) -> Range<usize> {
        let end = |block: usize| self.n_tiles * block / self.n_blocks;
        end(block)..end(block + 1)
    }

    /// The rows of a tile, counted from the first of all: nearly equal heights instead of a low tile at the end.
    pub(super) fn rows_of(&self, tile: usize) -> Range<usize> {
        let end = |tile: usize| self.rows.len() * tile / self.n_tiles;
        end(tile)..end(tile + 1)
    }

    /// The columns of a panel, counted from the first of all.
    pub(super) fn cols_of(&self, panel: usize) -> Range<usize> {
        panel * self.panel..self.cols.len().min((panel + 1) * self.panel)
    }
}
