//! The gradient with respect to the weights.
//!
//! Each weight's gradient is the sum over pixels of what its tap sees times the output's gradient. A tile of taps
//! stays in registers while all pixels of an image go by: with many output maps a vector holds one tap of neighbouring
//! maps, with few it holds one tap's addends of neighbouring pixels.
#![allow(unsafe_code)] // unchecked access in the innermost loops, after one check a tile and row

use std::array;
use std::marker::PhantomData;

use super::super::simd::{Has, Job, Level, Simd, Transpose};
use super::super::sum::LongSums;
use super::super::{Float, parallel};
use super::Convolution;
use super::correlation::{Correlation, Pad, PaddedRows, Step};
use super::spatial::{ENOUGH, lanes_for};

/// Most taps of a tile.
const MAX_TAPS: usize = 9;

/// Pixels that are summed before their sum is added to that of all: longer sums lose digits.
const STRIP: usize = 256;

/// `dw = sum over images of dy * x`.
pub(super) fn gradient<T: Float>(level: Level, conv: &Convolution, x: &[T], dy: &[T], dw: &mut [T]) {
    let sum = Sum::new::<T>(level, conv);
    let part_len = conv.group * sum.group_len();
    if part_len == 0 || conv.window.n_outputs() == 0 {
        dw.fill(T::ZERO);
        return;
    }
    // Groups that are many need no parts.
    let n_parts = if conv.group >= ENOUGH { 1 } else { conv.n_parts::<T>(part_len) };
    let images_at_once = conv.n_images.div_ceil(n_parts).max(1);
    let n_parts = conv.n_images.div_ceil(images_at_once).max(1);
    let mut sums = vec![T::ZERO; n_parts * part_len];
    let work = conv.n_products();
    if conv.group >= ENOUGH || n_parts > 1 {
        let chunk = if n_parts > 1 { part_len } else { sum.group_len() };
        let groups_at_once = chunk / sum.group_len();
        parallel::for_each_chunk(
            &mut sums,
            chunk,
            work,
            || Memory::new(&sum),
            |memory, i, sums| {
                let first_image = if n_parts > 1 { i * images_at_once } else { 0 };
                let first_group = if n_parts > 1 { 0 } else { i };
                let mut sums = LongSums::new(sums);
                for n in first_image..(first_image + images_at_once).min(conv.n_images) {
                    let sums = sums.next(sum.n_addends());
                    for (g, sums) in
                        (first_group..first_group + groups_at_once).zip(sums.chunks_mut(sum.group_len()))
                    {
                        let dy = sum.prepare(memory, n * conv.group + g, x, dy);
                        for (block, sums) in sums.chunks_mut(sum.block_len()).enumerate() {
                            sum.add(block, &memory.padded, dy.unwrap_or(&memory.dy), sums);
                        }
                    }
                }
                sums.finish();
            },
        );
    } else {
        let mut memory = Memory::new(&sum);
        let mut sums = LongSums::new(&mut sums);
        for n in 0..conv.n_images {
            for (g, sums) in sums.next(sum.n_addends()).chunks_mut(sum.group_len()).enumerate() {
                let dy = sum.prepare(&mut memory, n * conv.group + g, x, dy);
                parallel::for_each_chunk(
                    sums,
                    sum.block_len(),
                    work,
                    || (),
                    |(), block, sums| {
                        sum.add(block, &memory.padded, dy.unwrap_or(&memory.dy), sums);
                    },
                );
            }
        }
        sums.finish();
    }
    sum.finish(&sums, dw);
}

/// What is summed for one group.
struct Sum<'a> {
    level: Level,
    conv: &'a Convolution,
    corr: Correlation,
    n_weights: usize,
    /// Maps of a vector; 1 where vectors hold pixels.
    lanes: usize,
}

/// Scratch memory: a group's padded input and, where vectors hold maps, for each vector the gradient of the output with
/// the lanes of a pixel together.
struct Memory<T> {
    padded: Vec<T>,
    dy: Vec<T>,
}

impl<T: Float> Memory<T> {
    fn new(sum: &Sum<'_>) -> Self {
        let dy = if sum.lanes == 1 { 0 } else { sum.padded_maps() * sum.corr.n_outs() };
        Self { padded: vec![T::ZERO; sum.corr.padded_len()], dy: vec![T::ZERO; dy] }
    }
}

impl<'a> Sum<'a> {
    fn new<T: Float>(level: Level, conv: &'a Convolution) -> Self {
        let corr = Correlation::forward(conv, PaddedRows::Kept);
        let lanes = lanes_for::<T>(level, corr.out_maps);
        Self { level, conv, n_weights: corr.source_maps * conv.window.n_taps(), lanes, corr }
    }

    /// What an image adds to a sum: a strip's sum for each strip.
    fn n_addends(&self) -> usize {
        self.corr.n_outs().div_ceil(STRIP)
    }

    fn padded_maps(&self) -> usize {
        self.corr.out_maps.next_multiple_of(self.lanes)
    }

    /// Sums of a group: for each vector of maps and weight all lanes.
    fn group_len(&self) -> usize {
        self.padded_maps() * self.n_weights
    }

    /// Sums of the maps that are computed at a time.
    fn block_len(&self) -> usize {
        self.block_maps() * self.n_weights
    }

    fn block_maps(&self) -> usize {
        if self.lanes == 1 { 1 } else { 2 * self.lanes }
    }

    /// Brings input and output gradient of a group of an image (the `i`-th group of all) into the kernels' order; the
    /// gradient is returned if it is in that order already.
    fn prepare<'b, T: Float>(
        &self,
        memory: &mut Memory<T>,
        i: usize,
        x: &[T],
        dy: &'b [T],
    ) -> Option<&'b [T]> {
        let (n_sources, n_outs) = (self.corr.n_sources(), self.corr.n_outs());
        let (x_len, dy_len) = (self.corr.source_maps * n_sources, self.corr.out_maps * n_outs);
        let x = &x[i * x_len..][..x_len];
        T::run_narrow(self.level, Pad { corr: &self.corr, source: x, padded: &mut memory.padded });
        let dy = &dy[i * dy_len..][..dy_len];
        if self.lanes == 1 {
            return Some(dy);
        }
        for (vector, to) in memory.dy.chunks_mut(self.lanes * n_outs).enumerate() {
            let first = vector * self.lanes;
            let rows = self.lanes.min(self.corr.out_maps - first);
            let from = &dy[first * n_outs..];
            T::run(
                self.level,
                Transpose { from, from_stride: n_outs, rows, columns: n_outs, to, to_stride: self.lanes },
            );
        }
        None
    }

    /// Adds an image's part to the sums of one block of maps.
    fn add<T: Float>(&self, block: usize, padded: &[T], dy: &[T], sums: &mut [T]) {
        let n_outs = self.corr.n_outs();
        let dy = &dy[block * self.block_maps() * n_outs..];
        let dy = &dy[..(sums.len() / self.n_weights * n_outs).min(dy.len())];
        let n_vectors = sums.len() / (self.n_weights * self.lanes);
        let most = MAX_TAPS.min(T::registers(self.level) / n_vectors);
        let steps = &self.corr.piece(0, 0).steps.list();
        let n_tiles = steps.len().div_ceil(most);
        for i in 0..n_tiles {
            let steps = &steps[i * steps.len() / n_tiles..(i + 1) * steps.len() / n_tiles];
            let tile = Taps { corr: &self.corr, steps, source: padded, dy, sums };
            match (self.lanes, n_vectors) {
                (1, _) => tile.of_pixels(self.level),
                (_, 1) => tile.of_maps::<1>(self.level),
                _ => tile.of_maps::<2>(self.level),
            }
        }
    }

    /// Adds the parts and puts the sums into the order of the weights.
    fn finish<T: Float>(&self, sums: &[T], dw: &mut [T]) {
        let part_len = self.conv.group * self.group_len();
        let vector_len = self.n_weights * self.lanes;
        let group_len = self.corr.out_maps * self.n_weights;
        parallel::for_each_chunk(dw, group_len, sums.len(), Vec::new, |total, group, dw| {
            for (vector, dw) in dw.chunks_mut(vector_len).enumerate() {
                let first = group * self.group_len() + vector * vector_len;
                total.clear();
                total.extend_from_slice(&sums[first..][..vector_len]);
                for part in sums.chunks(part_len).skip(1) {
                    for (total, addend) in total.iter_mut().zip(&part[first..]) {
                        *total += *addend;
                    }
                }
                T::run(
                    self.level,
                    Transpose {
                        from: total,
                        from_stride: self.lanes,
                        rows: self.n_weights,
                        columns: dw.len() / self.n_weights,
                        to: dw,
                        to_stride: self.n_weights,
                    },
                );
            }
        });
    }
}

/// Some taps, summed over the pixels of an image.
struct Taps<'a, T> {
    corr: &'a Correlation,
    steps: &'a [Step],
    source: &'a [T],
    dy: &'a [T],
    sums: &'a mut [T],
}

impl<T: Float> Taps<'_, T> {
    fn of_maps<const VECTORS: usize>(self, level: Level) {
        macro_rules! dispatch {
            ($($n:literal)*) => {
                match self.steps.len() {
                    $($n => T::run(level, OfMaps::<T, $n, VECTORS>(self)),)*
                    n => unreachable!("a tile of {n} taps"),
                }
            };
        }
        dispatch!(1 2 3 4 5 6 7 8 9);
    }

    fn of_pixels(self, level: Level) {
        macro_rules! dispatch {
            ($($n:literal)*) => {
                match self.steps.len() {
                    $($n => T::run_narrow(level, OfPixels::<T, $n>(self)),)*
                    n => unreachable!("a tile of {n} taps"),
                }
            };
        }
        dispatch!(1 2 3 4 5 6 7 8 9);
    }
}

/// A tile whose vectors hold neighbouring maps.
struct OfMaps<'a, T, const TAPS: usize, const VECTORS: usize>(Taps<'a, T>);

impl<T: Float, const TAPS: usize, const VECTORS: usize> Job<T> for OfMaps<'_, T, TAPS, VECTORS> {
    #[inline(always)]
    fn run<V: Simd<T>>(self, _: Has<V>) {
        let Taps { corr, steps, source, dy, sums } = self.0;
        if TAPS * VECTORS > V::REGISTERS {
            unreachable!("a tile too large for the registers");
        }
        let steps: [Step; TAPS] = array::from_fn(|i| steps[i]);
        let reach = Step::reach(&steps);
        let (row_len, n_rows) = (corr.row_len(), corr.n_rows());
        let (vector_len, dy_len) = (sums.len() / VECTORS, dy.len() / VECTORS);
        assert!(reach.weight * V::LANES <= vector_len && n_rows * row_len * V::LANES <= dy_len);
        // SAFETY: `Has` shows the instructions; `reach` is above every step's numbers, so
        // the assertions, here and for each row, keep all pointers inside their slices.
        unsafe {
            let zero = V::splat(T::ZERO);
            let mut totals = [[zero; VECTORS]; TAPS];
            let sums = sums.as_mut_ptr();
            let places: [usize; TAPS] = array::from_fn(|i| steps[i].weight * V::LANES);
            let mut n_pixels = 0;
            for row in 0..n_rows {
                let base = corr.piece(row, 0).base;
                assert!(base + reach.source + row_len - 1 <= source.len());
                let sources: [*const T; TAPS] =
                    array::from_fn(|i| source.as_ptr().add(base + steps[i].source));
                let dy = dy.as_ptr().add(row * row_len * V::LANES);
                for first in (0..row_len).step_by(STRIP) {
                    let pixels = first..row_len.min(first + STRIP);
                    if n_pixels + pixels.len() > STRIP {
                        add_totals(totals, sums, places, vector_len);
                        totals = [[zero; VECTORS]; TAPS];
                        n_pixels = 0;
                    }
                    n_pixels += pixels.len();
                    for pixel in pixels {
                        let dy: [V; VECTORS] =
                            array::from_fn(|v| V::load(dy.add(pixel * V::LANES + v * dy_len)));
                        for (totals, source) in totals.iter_mut().zip(sources) {
                            let value = V::splat(*source.add(pixel));
                            for (total, dy) in totals.iter_mut().zip(dy) {
                                *total = dy.mul_add(value, *total);
                            }
                        }
                    }
                }
            }
            add_totals(totals, sums, places, vector_len);
        }
    }
}

/// Adds the totals to the sums at these places. No closure: those are not always compiled for the processor of the loop around.
///
/// # Safety
/// The processor has V's instructions, and the places have room for a vector at each multiple of `vector_len`.
#[inline(always)]
unsafe fn add_totals<T: Float, V: Simd<T>, const TAPS: usize, const VECTORS: usize>(
    totals: [[V; VECTORS]; TAPS],
    sums: *mut T,
    places: [usize; TAPS],
    vector_len: usize,
) {
    for (totals, place) in totals.into_iter().zip(places) {
        for (v, total) in totals.into_iter().enumerate() {
            // SAFETY: as the caller vouches.
            unsafe {
                let sum = sums.add(place + v * vector_len);
                total.add(V::load(sum)).store(sum);
            }
        }
    }
}

/// A tile whose vectors hold neighbouring pixels of one map.
struct OfPixels<'a, T, const TAPS: usize>(Taps<'a, T>);

impl<T: Float, const TAPS: usize> Job<T> for OfPixels<'_, T, TAPS> {
    #[inline(always)]
    fn run<V: Simd<T>>(self, has: Has<V>) {
        let Taps { corr, steps, source, dy, sums } = self.0;
        let steps: [Step; TAPS] = array::from_fn(|i| steps[i]);
        let reach = Step::reach(&steps);
        let row_len = corr.row_len();
        let whole = row_len - row_len % V::LANES;
        let mut sum = PixelSum::<T, V, TAPS>::new(has);
        for (row, dy) in dy.chunks_exact(row_len).enumerate() {
            let source = &source[corr.piece(row, 0).base..];
            assert!(reach.source + row_len - 1 <= source.len());
            for first in (0..whole).step_by(RUN * V::LANES) {
                let last = whole.min(first + RUN * V::LANES);
                for pixel in (first..last).step_by(V::LANES) {
                    // SAFETY: `Has` shows the instructions; `reach` is above every step's numbers, so the assertion keeps the
                    // pointers inside.
                    unsafe {
                        let dy = V::load(dy.as_ptr().add(pixel));
                        for (total, step) in sum.totals.iter_mut().zip(steps) {
                            *total = dy.mul_add(V::load(source.as_ptr().add(step.source + pixel)), *total);
                        }
                    }
                }
                sum.has_grown((last - first).div_ceil(V::LANES));
            }
            for (pixel, dy) in dy.iter().enumerate().skip(whole) {
                for (wide, step) in sum.wide.iter_mut().zip(steps) {
                    *wide += (*dy * source[step.source + pixel]).wide();
                }
            }
        }
        for (total, step) in sum.finish().into_iter().zip(steps) {
            sums[step.weight] += T::of(total);
        }
    }
}

/// Vectors of pixels that are summed before their sum is added to others, and how many such sums before they go into `f64`.
const RUN: usize = 32;
const RUNS: usize = 64;

/// The sums of some taps over ever more vectors of pixels.
struct PixelSum<T, V, const TAPS: usize> {
    has: Has<V>,
    /// Where the next vectors are added.
    totals: [V; TAPS],
    n_vectors: usize,
    runs: [V; TAPS],
    n_runs: usize,
    wide: [f64; TAPS],
    element: PhantomData<T>,
}

impl<T: Float, V: Simd<T>, const TAPS: usize> PixelSum<T, V, TAPS> {
    #[inline(always)]
    fn new(has: Has<V>) -> Self {
        // SAFETY: `Has` shows the instructions.
        let zero = unsafe { V::splat(T::ZERO) };
        let (totals, runs, wide) = ([zero; TAPS], [zero; TAPS], [0.0; TAPS]);
        Self { has, totals, n_vectors: 0, runs, n_runs: 0, wide, element: PhantomData }
    }

    /// After so many vectors have been added.
    #[inline(always)]
    fn has_grown(&mut self, n_vectors: usize) {
        self.n_vectors += n_vectors;
        if self.n_vectors >= RUN {
            self.end_run();
        }
    }

    #[inline(always)]
    fn end_run(&mut self) {
        for (run, total) in self.runs.iter_mut().zip(&mut self.totals) {
            // SAFETY: `Has` shows the instructions.
            unsafe {
                *run = run.add(*total);
                *total = V::splat(T::ZERO);
            }
        }
        self.n_vectors = 0;
        self.n_runs += 1;
        if self.n_runs == RUNS {
            self.widen();
        }
    }

    #[inline(always)]
    fn widen(&mut self) {
        const MAX_LANES: usize = 16;

        const { assert!(V::LANES <= MAX_LANES) };
        for (wide, run) in self.wide.iter_mut().zip(&self.runs) {
            let mut lanes = [T::ZERO; MAX_LANES];
            // SAFETY: `Has` shows the instructions, the assertion the room.
            unsafe { run.store(lanes.as_mut_ptr()) };
            for lane in lanes {
                *wide += lane.wide();
            }
        }
        self.runs = Self::new(self.has).runs;
        self.n_runs = 0;
    }

    #[inline(always)]
    fn finish(mut self) -> [f64; TAPS] {
        self.end_run();
        self.widen();
        self.wide
    }
}
