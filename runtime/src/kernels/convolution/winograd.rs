//! Convolutions with a kernel of 3 x 3 in steps of 1, by Winograd's algorithm F(2 x 2, 3 x 3).
//!
//! A tile of 2 x 2 outputs sees 4 x 4 inputs. A transform turns these into 16 numbers, another one the kernel. Their
//! products are summed over the maps, which is a product of matrices for each of the 16 positions, and a third transform
//! of the 16 sums gives the tile: 16 multiplications for each pair of maps instead of 36. (A. Lavin, S. Gray, "Fast
//! Algorithms for Convolutional Neural Networks", 2015; with the signs of the last row of two transforms exchanged, so that
//! nothing is negated.) The gradient of the weights goes the same way back.
//!
//! Everything works on vectors of neighbouring maps, so images are copied with the maps of a pixel together.
#![allow(unsafe_code)] // unchecked access in loops over tiles, after a check of each slice
#![allow(clippy::needless_range_loop)] // squares of vectors are filled column by column and read row by row

use std::array;
use std::ops::Range;

use super::super::memory::unfilled;
use super::super::pool::n_threads;
use super::super::simd::{Has, Job, Level, Simd, Transpose};
use super::super::sum::LongSums;
use super::super::{Float, parallel};
use super::Convolution;
use super::spatial::{ENOUGH, Weights, padded_bias};

/// Numbers of a transformed tile or kernel.
const POSITIONS: usize = 16;

const N_TAPS: usize = 9;

/// Most rows of a product that are summed at a time.
const MAX_ROWS: usize = 14;

/// Elements between the positions of a scratch matrix in excess, lest they all fall into the same lines of the cache.
const GAP: usize = 16;

/// How the outputs of an image fall into tiles, for one group of maps.
pub(super) struct Tiling {
    /// Rows and columns.
    source: [usize; 2],
    out: [usize; 2],
    /// Rows and columns of zeros before the source.
    pad: [usize; 2],
    source_maps: usize,
    out_maps: usize,
    /// Whether the taps are passed in reverse.
    flipped: bool,
}

impl Tiling {
    /// From input to output, if this way is the faster one.
    pub(super) fn forward(conv: &Convolution) -> Option<Self> {
        let [_, height, width] = conv.window.pad;
        let maps = (conv.inmaps / conv.group, conv.outmaps / conv.group);
        Self::new(conv, conv.window.input, conv.window.output, [height, width], maps, false)
    }

    /// From the output's gradient to the input's.
    pub(super) fn transposed(conv: &Convolution) -> Option<Self> {
        let [_, height, width] = conv.window.pad;
        let pad = [2usize.checked_sub(height)?, 2usize.checked_sub(width)?];
        let maps = (conv.outmaps / conv.group, conv.inmaps / conv.group);
        Self::new(conv, conv.window.output, conv.window.input, pad, maps, true)
    }

    fn new(
        conv: &Convolution,
        [depth, source @ ..]: [usize; 3],
        [_, out @ ..]: [usize; 3],
        pad: [usize; 2],
        (source_maps, out_maps): (usize, usize),
        flipped: bool,
    ) -> Option<Self> {
        /// With fewer maps the transforms cost more than the products save.
        const MIN_MAPS: usize = 12;
        /// With fewer tiles the transform of the weights does.
        const MIN_TILES: usize = 32;

        let window = &conv.window;
        let is_flat = depth == 1 && window.kernel == [1, 3, 3] && window.pad[0] == 0;
        let is_plain = window.stride == [1; 3] && window.dilation[1..] == [1, 1];
        let tiling = Self { source, out, pad, source_maps, out_maps, flipped };
        let n_tiles = conv.n_images * tiling.rows() * tiling.columns();
        let pays = source_maps.min(out_maps) >= MIN_MAPS && n_tiles >= MIN_TILES;
        (is_flat && is_plain && pays).then_some(tiling)
    }

    /// Rows of tiles.
    fn rows(&self) -> usize {
        self.out[0].div_ceil(2)
    }

    /// Tiles of a row.
    fn columns(&self) -> usize {
        self.out[1].div_ceil(2)
    }

    fn n_outs(&self) -> usize {
        self.out.iter().product()
    }

    /// The source with what the tiles see around it.
    fn frame<T: Float>(&self, level: Level) -> Frame<T> {
        Frame::new(level, [2 * self.rows() + 2, 2 * self.columns() + 2], self.source_maps)
    }

    /// Rows of tiles that are worked on at a time, so that what the products read and write stays in the cache.
    fn rows_at_once(&self) -> usize {
        /// Elements of a position of the source.
        const ELEMENTS: usize = 1 << 11;
        const MIN_TILES: usize = 24;
        const MAX_TILES: usize = 96;

        let maps = self.source_maps.max(self.out_maps);
        let n_tiles = (ELEMENTS / maps).clamp(MIN_TILES, MAX_TILES);
        let rows = (n_tiles / self.columns()).max(1);
        // Strips of nearly equal heights.
        self.rows().div_ceil(self.rows().div_ceil(rows))
    }
}

/// A copy of an image's maps with those of a pixel together, and zeros around it.
struct Frame<T> {
    /// Pixels of a row.
    columns: usize,
    /// Elements of a pixel: whole vectors.
    maps: usize,
    data: Vec<T>,
}

impl<T: Float> Frame<T> {
    fn new(level: Level, [rows, columns]: [usize; 2], n_maps: usize) -> Self {
        let maps = n_maps.next_multiple_of(T::lanes(level));
        Self { columns, maps, data: vec![T::ZERO; rows * columns * maps] }
    }

    /// Puts an image of this size `at` a place; what is around it is never written.
    fn fill(&mut self, level: Level, image: &[T], [rows, columns]: [usize; 2], at: [usize; 2]) {
        let len = rows * columns;
        for row in 0..rows {
            let to = &mut self.data[((at[0] + row) * self.columns + at[1]) * self.maps..];
            let job = Transpose {
                from: &image[row * columns..],
                from_stride: len,
                rows: image.len() / len,
                columns,
                to,
                to_stride: self.maps,
            };
            T::run(level, job);
        }
    }
}

/// A matrix for each position, one after the other.
struct Matrices<T> {
    /// From a position to the next.
    distance: usize,
    data: Vec<T>,
}

impl<T: Float> Matrices<T> {
    /// Matrices of arbitrary contents.
    fn new(len: usize) -> Self {
        let distance = len + GAP;
        Self { distance, data: unfilled(POSITIONS * distance) }
    }
}

/// `dest = bias + weights * source`.
pub(super) fn correlate<T: Float>(
    level: Level,
    conv: &Convolution,
    tiling: &Tiling,
    w: Weights<'_, T>,
    bias: Option<&[T]>,
    source: &[T],
    dest: &mut [T],
) {
    let group_len = tiling.out_maps * tiling.n_outs();
    if dest.is_empty() {
        return;
    }
    let weighted = WinogradWeights::new(level, conv, tiling, w, bias);
    let source_len = source.len() * group_len / dest.len();
    let source_of = |i: usize| &source[i * source_len..][..source_len];
    let scratch = || Scratch::new(level, tiling);
    let (n_items, work) = (dest.len() / group_len, conv.n_products());
    if n_items >= ENOUGH {
        parallel::for_each_chunk(dest, group_len, work, scratch, |scratch, i, dest| {
            weighted.image(scratch, i % conv.group, 0, source_of(i), dest);
        });
    } else {
        // Every thread transforms the whole image, which is little beside the products with its share of the maps.
        let n_blocks = tiling.out_maps.div_ceil(weighted.block_maps());
        let blocks_at_once = n_blocks.div_ceil(n_threads());
        let len = blocks_at_once * weighted.block_maps() * tiling.n_outs();
        for (i, dest) in dest.chunks_mut(group_len).enumerate() {
            parallel::for_each_chunk(dest, len, work / n_items, scratch, |scratch, part, dest| {
                weighted.image(scratch, i % conv.group, part * blocks_at_once, source_of(i), dest);
            });
        }
    }
}

/// A correlation with its transformed weights.
struct WinogradWeights<'a, T> {
    level: Level,
    tiling: &'a Tiling,
    /// For each group and block of maps, for each position: the weights from all source maps to the maps of the block.
    weights: Vec<T>,
    /// For each group and map the first addend.
    bias: Vec<T>,
}

/// A thread's memory.
struct Scratch<T> {
    frame: Frame<T>,
    /// The transformed source of a strip: for each position and tile all maps.
    source: Matrices<T>,
    /// For each position and tile the sums of a block of maps.
    sums: Matrices<T>,
    /// Finished pixels, each with the maps of the block.
    pixels: Vec<T>,
}

impl<T: Float> Scratch<T> {
    fn new(level: Level, tiling: &Tiling) -> Self {
        let frame = tiling.frame(level);
        let rows = tiling.rows_at_once();
        let (n_tiles, block) = (rows * tiling.columns(), 2 * T::lanes(level));
        Self {
            source: Matrices::new(n_tiles * frame.maps),
            sums: Matrices::new(n_tiles * block),
            pixels: unfilled(2 * rows * tiling.out[1] * block),
            frame,
        }
    }
}

impl<'a, T: Float> WinogradWeights<'a, T> {
    fn new(
        level: Level,
        conv: &Convolution,
        tiling: &'a Tiling,
        w: Weights<'_, T>,
        bias: Option<&[T]>,
    ) -> Self {
        let &Tiling { source_maps, out_maps, flipped, .. } = tiling;
        let lanes = T::lanes(level);
        let vectors = out_maps.div_ceil(lanes);
        let block_len = 2 * lanes * POSITIONS * source_maps;
        let group_len = vectors * lanes * POSITIONS * source_maps;
        let mut weights = unfilled(conv.group * group_len);
        let n_weights = weights.len();
        for (group, weights) in weights.chunks_mut(group_len).enumerate() {
            parallel::for_each_chunk(weights, block_len, n_weights, Vec::new, |packed, block, to| {
                packed.resize(lanes * N_TAPS * source_maps, T::ZERO);
                let vectors = to.len() / (block_len / 2);
                for vector in 0..vectors {
                    let first = (2 * block + vector) * lanes;
                    let maps = first..(first + lanes).min(out_maps);
                    w.pack(level, (source_maps, out_maps), group, maps, lanes, packed);
                    T::run(level, TransformWeights { packed, flipped, vectors, vector, to });
                }
            });
        }
        let bias = padded_bias(bias, conv.group, out_maps, vectors * lanes);
        Self { level, tiling, weights, bias }
    }

    /// Maps that are computed at a time.
    fn block_maps(&self) -> usize {
        2 * T::lanes(self.level)
    }

    /// Computes the maps of an image from block `first_block` of a group on.
    fn image(
        &self,
        scratch: &mut Scratch<T>,
        group: usize,
        first_block: usize,
        source: &[T],
        dest: &mut [T],
    ) {
        let &Self { level, tiling, .. } = self;
        let (lanes, block_maps, n_outs) = (T::lanes(level), self.block_maps(), tiling.n_outs());
        let group_maps = tiling.out_maps.next_multiple_of(lanes);
        let map_len = POSITIONS * tiling.source_maps;
        let Scratch { frame, source: transformed, sums, pixels } = scratch;
        frame.fill(level, source, tiling.source, tiling.pad);
        let rows_at_once = tiling.rows_at_once();
        for first_row in (0..tiling.rows()).step_by(rows_at_once) {
            let rows = first_row..(first_row + rows_at_once).min(tiling.rows());
            let n_tiles = rows.len() * tiling.columns();
            let n_pixels = (2 * rows.len()).min(tiling.out[0] - 2 * first_row) * tiling.out[1];
            let to = Spread { matrices: transformed, first: 0, maps: frame.maps };
            T::run(level, TransformSource { frame, rows: rows.clone(), columns: tiling.columns(), to });
            for (block, dest) in (first_block..).zip(dest.chunks_mut(block_maps * n_outs)) {
                let first = block * block_maps;
                let maps =
                    group * group_maps + first..group * group_maps + (first + block_maps).min(group_maps);
                let n_lanes = maps.len();
                let products = Products {
                    n_rows: n_tiles,
                    depth: tiling.source_maps,
                    left: &transformed.data,
                    left_strides: [transformed.distance, frame.maps, 1],
                    right: &self.weights[maps.start * map_len..maps.end * map_len],
                    right_distance: tiling.source_maps * n_lanes,
                    sums: &mut sums.data,
                    sums_distance: sums.distance,
                };
                products.compute::<false>(level, n_lanes / lanes);
                T::run(
                    level,
                    TransformSums {
                        sums,
                        bias: &self.bias[maps],
                        rows: rows.len(),
                        width: tiling.out[1],
                        pixels,
                    },
                );
                T::run(
                    level,
                    Transpose {
                        from: pixels,
                        from_stride: n_lanes,
                        rows: n_pixels,
                        columns: dest.len() / n_outs,
                        to: &mut dest[2 * first_row * tiling.out[1]..],
                        to_stride: n_outs,
                    },
                );
            }
        }
    }
}

/// `dw = sum over images of dy * x`; `tiling` is that of the forward pass.
pub(super) fn weight_gradient<T: Float>(
    level: Level,
    conv: &Convolution,
    tiling: &Tiling,
    x: &[T],
    dy: &[T],
    dw: &mut [T],
) {
    let lanes = T::lanes(level);
    let &Tiling { source_maps, out_maps, .. } = tiling;
    let padded_maps = out_maps.next_multiple_of(lanes);
    let group_len = POSITIONS * source_maps * padded_maps;
    let part_len = conv.group * group_len;
    let images_at_once = conv.n_images.div_ceil(conv.n_parts::<T>(part_len)).max(1);
    let n_parts = conv.n_images.div_ceil(images_at_once).max(1);
    let mut sums = vec![T::ZERO; n_parts * part_len];
    let (x_len, dy_len) = (x.len() / (conv.n_images * conv.group), dy.len() / (conv.n_images * conv.group));
    let memory = || GradientScratch::new(level, tiling);
    parallel::for_each_chunk(&mut sums, part_len, conv.n_products(), memory, |memory, part, sums| {
        let first = part * images_at_once;
        let images = first..(first + images_at_once).min(conv.n_images);
        for (group, sums) in sums.chunks_mut(group_len).enumerate() {
            let mut sums = LongSums::new(sums);
            for n in images.clone() {
                let i = n * conv.group + group;
                let (x, dy) = (&x[i * x_len..][..x_len], &dy[i * dy_len..][..dy_len]);
                memory.add_image(level, tiling, x, dy, &mut sums);
            }
            memory.flush(level, tiling, &mut sums);
            sums.finish();
        }
    });
    // The parts are added, transformed and brought into the order of the weights, block for block.
    let block_len = 2 * lanes * POSITIONS * source_maps;
    for (group, dw) in dw.chunks_mut(out_maps * source_maps * N_TAPS).enumerate() {
        let n_sums = n_parts * group_len;
        parallel::for_each_chunk(
            dw,
            2 * lanes * source_maps * N_TAPS,
            n_sums,
            Vec::new,
            |total, block, dw| {
                let start = group * group_len + block * block_len;
                let len = block_len.min((group + 1) * group_len - start);
                total.clear();
                total.extend_from_slice(&sums[start..][..len]);
                for part in sums.chunks(part_len).skip(1) {
                    for (total, addend) in total.iter_mut().zip(&part[start..]) {
                        *total += *addend;
                    }
                }
                let n_vectors = len / (block_len / 2);
                let mut taps: Vec<T> = unfilled(lanes * N_TAPS * source_maps);
                for (vector, dw) in dw.chunks_mut(lanes * source_maps * N_TAPS).enumerate() {
                    T::run(
                        level,
                        TransformGradient { sums: total, vectors: n_vectors, vector, taps: &mut taps },
                    );
                    let n_weights = source_maps * N_TAPS;
                    T::run(
                        level,
                        Transpose {
                            from: &taps,
                            from_stride: lanes,
                            rows: n_weights,
                            columns: dw.len() / n_weights,
                            to: dw,
                            to_stride: n_weights,
                        },
                    );
                }
            },
        );
    }
}

/// A thread's memory for the gradient of the weights.
struct GradientScratch<T> {
    x: Frame<T>,
    dy: Frame<T>,
    /// For each position and tile all maps of the input.
    source: Matrices<T>,
    /// For each block of maps and position: for each tile the maps' gradients.
    gradient: Vec<Matrices<T>>,
    /// Tiles that there is room for.
    capacity: usize,
    /// Tiles that wait for their products.
    n_tiles: usize,
}

impl<T: Float> GradientScratch<T> {
    fn new(level: Level, tiling: &Tiling) -> Self {
        let block = 2 * T::lanes(level);
        let x = tiling.frame(level);
        let dy = Frame::new(level, [2 * tiling.rows(), 2 * tiling.columns()], tiling.out_maps);
        // Small images wait for others, since products of few rows are slow.
        let strip = tiling.rows_at_once() * tiling.columns();
        let capacity = strip.max(Tiling::MIN_WAITING / strip * strip);
        let gradient = (0..dy.maps).step_by(block);
        let gradient = gradient.map(|first| Matrices::new(capacity * block.min(dy.maps - first))).collect();
        Self { source: Matrices::new(capacity * x.maps), gradient, x, dy, capacity, n_tiles: 0 }
    }

    /// Adds an image's part to the sums, or keeps it for later.
    fn add_image(&mut self, level: Level, tiling: &Tiling, x: &[T], dy: &[T], sums: &mut LongSums<'_, T>) {
        self.x.fill(level, x, tiling.source, tiling.pad);
        self.dy.fill(level, dy, tiling.out, [0, 0]);
        let (columns, at_once, block) = (tiling.columns(), tiling.rows_at_once(), 2 * T::lanes(level));
        for first in (0..tiling.rows()).step_by(at_once) {
            let rows = first..(first + at_once).min(tiling.rows());
            if self.n_tiles + rows.len() * columns > self.capacity {
                self.flush(level, tiling, sums);
            }
            let to = Spread { matrices: &mut self.source, first: self.n_tiles, maps: self.x.maps };
            T::run(level, TransformSource { frame: &self.x, rows: rows.clone(), columns, to });
            for (i, matrices) in self.gradient.iter_mut().enumerate() {
                let maps = i * block..((i + 1) * block).min(self.dy.maps);
                let to = Spread { matrices, first: self.n_tiles, maps: maps.len() };
                T::run(
                    level,
                    TransformOutputs {
                        frame: &self.dy,
                        first_map: maps.start,
                        rows: rows.clone(),
                        columns,
                        to,
                    },
                );
            }
            self.n_tiles += rows.len() * columns;
        }
    }

    /// Adds the products of the tiles that wait.
    fn flush(&mut self, level: Level, tiling: &Tiling, sums: &mut LongSums<'_, T>) {
        let sums = sums.next(1);
        let lanes = T::lanes(level);
        let block_len = 2 * lanes * POSITIONS * tiling.source_maps;
        for (gradient, sums) in self.gradient.iter().zip(sums.chunks_mut(block_len)) {
            let sums_distance = sums.len() / POSITIONS;
            let products = Products {
                n_rows: tiling.source_maps,
                depth: self.n_tiles,
                left: &self.source.data,
                left_strides: [self.source.distance, 1, self.x.maps],
                right: &gradient.data,
                right_distance: gradient.distance,
                sums,
                sums_distance,
            };
            products.compute::<true>(level, sums_distance / tiling.source_maps / lanes);
        }
        self.n_tiles = 0;
    }
}

impl Tiling {
    /// Tiles of small images that are collected for a product over them.
    const MIN_WAITING: usize = 48;
}

/// A product of matrices for each position: `sums = left * right`, or added to what is there.
struct Products<'a, T> {
    n_rows: usize,
    depth: usize,
    left: &'a [T],
    /// From a position, from a row and from a depth to the next.
    left_strides: [usize; 3],
    /// For each position and depth one or two vectors.
    right: &'a [T],
    right_distance: usize,
    /// For each position and row as many vectors.
    sums: &'a mut [T],
    sums_distance: usize,
}

impl<T: Float> Products<'_, T> {
    fn compute<const ADD: bool>(self, level: Level, n_vectors: usize) {
        match n_vectors {
            1 => T::run(level, FixedProducts::<T, 1, ADD>(self)),
            _ => T::run(level, FixedProducts::<T, 2, ADD>(self)),
        }
    }
}

struct FixedProducts<'a, T, const VECTORS: usize, const ADD: bool>(Products<'a, T>);

impl<T: Float, const VECTORS: usize, const ADD: bool> Job<T> for FixedProducts<'_, T, VECTORS, ADD> {
    #[inline(always)]
    fn run<V: Simd<T>>(self, _: Has<V>) {
        let Products { n_rows, depth, left, left_strides, right, right_distance, sums, sums_distance } =
            self.0;
        let [left_distance, row_stride, depth_stride] = left_strides;
        if n_rows == 0 || depth == 0 {
            assert!(ADD, "sums without addends");
            return;
        }
        let width = VECTORS * V::LANES;
        let last = POSITIONS - 1;
        assert!(last * left_distance + (n_rows - 1) * row_stride + (depth - 1) * depth_stride < left.len());
        assert!(last * right_distance + depth * width <= right.len());
        assert!(last * sums_distance + n_rows * width <= sums.len());
        let n_tiles = n_rows.div_ceil(MAX_ROWS.min(V::REGISTERS / VECTORS));
        for position in 0..POSITIONS {
            let (left, right) = (&left[position * left_distance..], &right[position * right_distance..]);
            let sums = &mut sums[position * sums_distance..];
            for tile in 0..n_tiles {
                let (begin, end) = (tile * n_rows / n_tiles, (tile + 1) * n_rows / n_tiles);
                let left = left[begin * row_stride..].as_ptr();
                let (right, sums) = (right.as_ptr(), sums[begin * width..].as_mut_ptr());
                macro_rules! dispatch {
                    ($($n:literal)*) => {
                        match end - begin {
                            // SAFETY: `Has` shows the instructions, and the assertions keep
                            // all rows, depths and vectors inside the slices.
                            $($n => unsafe {
                                product::<T, V, $n, VECTORS, ADD>(depth, left, row_stride, depth_stride, right, sums);
                            },)*
                            n => unreachable!("a tile of {n} rows"),
                        }
                    };
                }
                dispatch!(1 2 3 4 5 6 7 8 9 10 11 12 13 14);
            }
        }
    }
}

/// Some rows of a product.
///
/// # Safety
/// The processor has V's instructions; `left`, `right` and `sums` have the rows, depths and vectors.
#[inline(always)]
unsafe fn product<T: Float, V: Simd<T>, const ROWS: usize, const VECTORS: usize, const ADD: bool>(
    depth: usize,
    left: *const T,
    row_stride: usize,
    depth_stride: usize,
    right: *const T,
    to: *mut T,
) {
    if ROWS * VECTORS > V::REGISTERS {
        unreachable!("a tile too large for the registers");
    }
    // SAFETY: as the caller vouches.
    unsafe {
        let at = |row: usize, v: usize| (row * VECTORS + v) * V::LANES;
        let mut sums = [[V::splat(T::ZERO); VECTORS]; ROWS];
        for d in 0..depth {
            let right: [V; VECTORS] = array::from_fn(|v| V::load(right.add((d * VECTORS + v) * V::LANES)));
            for (row, sums) in sums.iter_mut().enumerate() {
                let value = V::splat(*left.add(row * row_stride + d * depth_stride));
                for (sum, right) in sums.iter_mut().zip(right) {
                    *sum = right.mul_add(value, *sum);
                }
            }
        }
        for (row, sums) in sums.into_iter().enumerate() {
            for (v, sum) in sums.into_iter().enumerate() {
                let to = to.add(at(row, v));
                let sum = if ADD { sum.add(V::load(to)) } else { sum };
                sum.store(to);
            }
        }
    }
}

/// Where transformed tiles go: from tile `first` on, `maps` elements each.
struct Spread<'a, T> {
    matrices: &'a mut Matrices<T>,
    first: usize,
    maps: usize,
}

impl<T: Float> Spread<'_, T> {
    /// Whether so many tiles have room.
    fn has_room(&self, n_tiles: usize) -> bool {
        (self.first + n_tiles) * self.maps <= self.matrices.distance - GAP
            && self.matrices.data.len() == POSITIONS * self.matrices.distance
    }
}

/// `d -> B' d B` for the 4 x 4 pixels `d` that each tile of some rows sees.
struct TransformSource<'a, T> {
    frame: &'a Frame<T>,
    rows: Range<usize>,
    columns: usize,
    to: Spread<'a, T>,
}

impl<T: Float> Job<T> for TransformSource<'_, T> {
    #[inline(always)]
    fn run<V: Simd<T>>(self, _: Has<V>) {
        let Self { frame, rows, columns, to } = self;
        let (maps, pitch) = (frame.maps, frame.columns * frame.maps);
        assert!(maps.is_multiple_of(V::LANES) && to.maps == maps && to.has_room(rows.len() * columns));
        assert!((2 * rows.end + 2) * pitch <= frame.data.len() && 2 * columns + 2 <= frame.columns);
        let distance = to.matrices.distance;
        let mut target = to.first * maps;
        for row in rows {
            for column in 0..columns {
                let source = 2 * row * pitch + 2 * column * maps;
                for map in (0..maps).step_by(V::LANES) {
                    // SAFETY: `Has` shows the instructions; by the assertions the pixels are
                    // in the frame and the tiles have room.
                    unsafe {
                        let source = frame.data.as_ptr().add(source + map);
                        let target = to.matrices.data.as_mut_ptr().add(target + map);
                        let mut lines = [[V::splat(T::ZERO); 4]; 4];
                        for s in 0..4 {
                            let at = source.add(s * maps);
                            let (a, b) = (V::load(at), V::load(at.add(pitch)));
                            let (c, d) = (V::load(at.add(2 * pitch)), V::load(at.add(3 * pitch)));
                            lines[0][s] = a.sub(c);
                            lines[1][s] = b.add(c);
                            lines[2][s] = c.sub(b);
                            lines[3][s] = d.sub(b);
                        }
                        for (r, [a, b, c, d]) in lines.into_iter().enumerate() {
                            let target = target.add(4 * r * distance);
                            a.sub(c).store(target);
                            b.add(c).store(target.add(distance));
                            c.sub(b).store(target.add(2 * distance));
                            d.sub(b).store(target.add(3 * distance));
                        }
                    }
                }
                target += maps;
            }
        }
    }
}

/// `e -> A e A'` for the 2 x 2 pixels `e` of each tile of some rows.
struct TransformOutputs<'a, T> {
    frame: &'a Frame<T>,
    /// Where in the frame the maps begin.
    first_map: usize,
    rows: Range<usize>,
    columns: usize,
    to: Spread<'a, T>,
}

impl<T: Float> Job<T> for TransformOutputs<'_, T> {
    #[inline(always)]
    fn run<V: Simd<T>>(self, _: Has<V>) {
        let Self { frame, first_map, rows, columns, to } = self;
        let pitch = frame.columns * frame.maps;
        assert!(to.maps.is_multiple_of(V::LANES) && to.has_room(rows.len() * columns));
        assert!(first_map + to.maps <= frame.maps && 2 * columns <= frame.columns);
        assert!(2 * rows.end * pitch <= frame.data.len());
        let distance = to.matrices.distance;
        let mut target = to.first * to.maps;
        for row in rows {
            for column in 0..columns {
                let source = 2 * row * pitch + 2 * column * frame.maps + first_map;
                for map in (0..to.maps).step_by(V::LANES) {
                    // SAFETY: as in `TransformSource`.
                    unsafe {
                        let source = frame.data.as_ptr().add(source + map);
                        let target = to.matrices.data.as_mut_ptr().add(target + map);
                        let mut lines = [[V::splat(T::ZERO); 2]; 4];
                        for s in 0..2 {
                            let at = source.add(s * frame.maps);
                            let (upper, lower) = (V::load(at), V::load(at.add(pitch)));
                            lines[0][s] = upper;
                            lines[1][s] = upper.add(lower);
                            lines[2][s] = upper.sub(lower);
                            lines[3][s] = lower;
                        }
                        for (r, [left, right]) in lines.into_iter().enumerate() {
                            let target = target.add(4 * r * distance);
                            left.store(target);
                            left.add(right).store(target.add(distance));
                            left.sub(right).store(target.add(2 * distance));
                            right.store(target.add(3 * distance));
                        }
                    }
                }
                target += to.maps;
            }
        }
    }
}

/// `m -> A' m A + bias` for the sums `m` of each tile of some rows; makes pixels, each with all lanes.
struct TransformSums<'a, T> {
    sums: &'a Matrices<T>,
    bias: &'a [T],
    /// Rows of tiles.
    rows: usize,
    /// Pixels of a row; a last tile may have a column too many.
    width: usize,
    pixels: &'a mut [T],
}

impl<T: Float> Job<T> for TransformSums<'_, T> {
    #[inline(always)]
    fn run<V: Simd<T>>(self, _: Has<V>) {
        let Self { sums, bias, rows, width, pixels } = self;
        let (lanes, columns, distance) = (bias.len(), width.div_ceil(2), sums.distance);
        assert!(lanes.is_multiple_of(V::LANES) && 2 * rows * width * lanes <= pixels.len());
        assert!((POSITIONS - 1) * distance + rows * columns * lanes <= sums.data.len());
        for row in 0..rows {
            for column in 0..columns {
                for lane in (0..lanes).step_by(V::LANES) {
                    // SAFETY: `Has` shows the instructions; by the assertions the tiles are
                    // in the sums and the pixels have room.
                    unsafe {
                        let source = sums.data.as_ptr().add((row * columns + column) * lanes + lane);
                        let target = pixels.as_mut_ptr().add((2 * row * width + 2 * column) * lanes + lane);
                        let bias = V::load(bias.as_ptr().add(lane));
                        let mut lines = [[V::splat(T::ZERO); 4]; 2];
                        for r in 0..4 {
                            let at = source.add(4 * r * distance);
                            let (a, b) = (V::load(at), V::load(at.add(distance)));
                            let (c, d) = (V::load(at.add(2 * distance)), V::load(at.add(3 * distance)));
                            lines[0][r] = a.add(b.add(c));
                            lines[1][r] = b.sub(c).add(d);
                        }
                        let n_columns = (width - 2 * column).min(2);
                        for (s, [a, b, c, d]) in lines.into_iter().enumerate().take(n_columns) {
                            a.add(b.add(c)).add(bias).store(target.add(s * lanes));
                            b.sub(c).add(d).add(bias).store(target.add((width + s) * lanes));
                        }
                    }
                }
            }
        }
    }
}

/// `g -> G g G'` for the kernels `g` of a vector of maps.
struct TransformWeights<'a, T> {
    /// For each source map and tap all lanes.
    packed: &'a [T],
    flipped: bool,
    /// Vectors of the block, and which of them this is.
    vectors: usize,
    vector: usize,
    /// For each position and source map the block's vectors.
    to: &'a mut [T],
}

impl<T: Float> Job<T> for TransformWeights<'_, T> {
    #[inline(always)]
    fn run<V: Simd<T>>(self, _: Has<V>) {
        let Self { packed, flipped, vectors, vector, to } = self;
        let kernel_len = N_TAPS * V::LANES;
        let n_maps = packed.len() / kernel_len;
        let distance = n_maps * vectors * V::LANES;
        assert!(vector < vectors && POSITIONS * distance <= to.len());
        for (map, packed) in packed.chunks_exact(kernel_len).enumerate() {
            // SAFETY: `Has` shows the instructions; the assertion shows the room.
            unsafe {
                let half = V::splat(T::of(0.5));
                let zero = V::splat(T::ZERO);
                let mut lines = [[zero; 3]; 4];
                for s in 0..3 {
                    let tap = |r: usize| if flipped { N_TAPS - 1 - (3 * r + s) } else { 3 * r + s };
                    let [a, b, c] = [tap(0), tap(1), tap(2)];
                    let at = packed.as_ptr();
                    let (a, b) = (V::load(at.add(a * V::LANES)), V::load(at.add(b * V::LANES)));
                    let c = V::load(at.add(c * V::LANES));
                    lines[0][s] = a;
                    lines[1][s] = a.add(c).add(b).mul_add(half, zero);
                    lines[2][s] = a.add(c).sub(b).mul_add(half, zero);
                    lines[3][s] = c;
                }
                for (r, [a, b, c]) in lines.into_iter().enumerate() {
                    let at = 4 * r * distance + (map * vectors + vector) * V::LANES;
                    let at = to.as_mut_ptr().add(at);
                    a.store(at);
                    a.add(c).add(b).mul_add(half, zero).store(at.add(distance));
                    a.add(c).sub(b).mul_add(half, zero).store(at.add(2 * distance));
                    c.store(at.add(3 * distance));
                }
            }
        }
    }
}

/// `u -> G' u G` for the gradients `u` of a vector of transformed kernels.
struct TransformGradient<'a, T> {
    /// For each position and source map the block's vectors.
    sums: &'a [T],
    vectors: usize,
    vector: usize,
    /// For each source map and tap all lanes.
    taps: &'a mut [T],
}

impl<T: Float> Job<T> for TransformGradient<'_, T> {
    #[inline(always)]
    fn run<V: Simd<T>>(self, _: Has<V>) {
        let Self { sums, vectors, vector, taps } = self;
        let kernel_len = N_TAPS * V::LANES;
        let n_maps = taps.len() / kernel_len;
        let distance = n_maps * vectors * V::LANES;
        assert!(vector < vectors && POSITIONS * distance <= sums.len());
        for (map, taps) in taps.chunks_exact_mut(kernel_len).enumerate() {
            // SAFETY: as in `TransformWeights`.
            unsafe {
                let (half, zero) = (V::splat(T::of(0.5)), V::splat(T::ZERO));
                let mut lines = [[zero; 4]; 3];
                for s in 0..4 {
                    let at = sums.as_ptr().add(s * distance + (map * vectors + vector) * V::LANES);
                    let (a, b) = (V::load(at), V::load(at.add(4 * distance)));
                    let (c, d) = (V::load(at.add(8 * distance)), V::load(at.add(12 * distance)));
                    lines[0][s] = b.add(c).mul_add(half, a);
                    lines[1][s] = b.sub(c).mul_add(half, zero);
                    lines[2][s] = b.add(c).mul_add(half, d);
                }
                for (r, [a, b, c, d]) in lines.into_iter().enumerate() {
                    let at = taps.as_mut_ptr().add(3 * r * V::LANES);
                    b.add(c).mul_add(half, a).store(at);
                    b.sub(c).mul_add(half, zero).store(at.add(V::LANES));
                    b.add(c).mul_add(half, d).store(at.add(2 * V::LANES));
                }
            }
        }
    }
}
