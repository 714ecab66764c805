//! Convolution and its two gradients; deconvolution is the same with the roles exchanged.
//!
//! [`Convolution`] picks an algorithm by the sizes: direct loops for depthwise, a plain product for 1x1, otherwise
//! blocks of gathered pixels times the weights. Further algorithms belong behind the same three functions.

use std::ops::Range;

use super::depthwise;
use super::gemm::{Mat, MatMut, Threads, gemm};
use super::parallel;
use super::{Float, Window};

/// Bytes of gathered pixels that one product takes at a time: they stay in a core's second-level cache.
const BLOCK_BYTES: usize = 256 << 10;

/// The same where all threads work on one image and each block costs them a meeting.
const SHARED_BLOCK_BYTES: usize = 4 << 20;

/// Most parts into which the batch is cut for the weight gradient; fixed, so that sums are the same on every machine.
const MAX_PARTS: usize = 16;

/// Most bytes for the partial weight gradients together.
const PARTIAL_BYTES: usize = 64 << 20;

/// Sizes of a convolution: `n_images` images with `inmaps` channels of `window.input` become images with `outmaps`
/// channels of `window.output`. Weights are `(outmaps, inmaps / group, taps)`.
#[derive(Clone, Debug)]
pub(crate) struct Convolution {
    pub(crate) n_images: usize,
    pub(crate) inmaps: usize,
    pub(crate) outmaps: usize,
    pub(crate) group: usize,
    pub(crate) window: Window,
}

impl Convolution {
    /// `y = w * x + b`.
    pub(crate) fn forward<T: Float>(&self, x: &[T], w: &[T], b: Option<&[T]>, y: &mut [T]) {
        if self.is_depthwise() {
            depthwise::forward(self, x, w, b, y);
            return;
        }
        let threads = self.threads();
        self.for_each_image(y, self.output_len(), threads, |columns, n, y| {
            let x = &x[n * self.input_len()..][..self.input_len()];
            if let Some(b) = b {
                fill_channels(y, b);
            }
            for g in 0..self.group {
                let x = &x[g * self.group_input_len()..][..self.group_input_len()];
                let w = Mat::new(
                    self.group_weights(w, g),
                    self.group_outmaps(),
                    self.n_weights_per_map(),
                    self.n_weights_per_map(),
                );
                let y = &mut y[g * self.group_output_len()..][..self.group_output_len()];
                self.for_each_block::<T>(threads, |pixels| {
                    let gathered = self.gathered(x, &pixels, columns, threads);
                    let y = MatMut::new(
                        &mut y[pixels.start..],
                        self.group_outmaps(),
                        pixels.len(),
                        self.n_pixels(),
                    );
                    gemm(y, w, gathered, b.is_some(), threads);
                });
            }
        });
    }

    /// `dx = transpose of w * dy`, plus `offset` per input channel if given (the bias of a deconvolution).
    pub(crate) fn data_gradient<T: Float>(&self, dy: &[T], w: &[T], offset: Option<&[T]>, dx: &mut [T]) {
        if self.is_depthwise() {
            depthwise::data_gradient(self, dy, w, offset, dx);
            return;
        }
        let threads = self.threads();
        self.for_each_image(dx, self.input_len(), threads, |columns, n, dx| {
            let dy = &dy[n * self.output_len()..][..self.output_len()];
            match offset {
                Some(offset) => fill_channels(dx, offset),
                None => dx.fill(T::ZERO),
            }
            for g in 0..self.group {
                let dy = &dy[g * self.group_output_len()..][..self.group_output_len()];
                let k = self.n_weights_per_map();
                let w = Mat::new(self.group_weights(w, g), self.group_outmaps(), k, k).t();
                let dx = &mut dx[g * self.group_input_len()..][..self.group_input_len()];
                self.for_each_block::<T>(threads, |pixels| {
                    let dy =
                        Mat::new(&dy[pixels.start..], self.group_outmaps(), pixels.len(), self.n_pixels());
                    if self.window.is_pointwise() {
                        let dx = MatMut::new(&mut dx[pixels.start..], k, pixels.len(), self.n_pixels());
                        gemm(dx, w, dy, true, threads);
                    } else {
                        let columns = scratch(columns, k * pixels.len());
                        gemm(MatMut::new(columns, k, pixels.len(), pixels.len()), w, dy, false, threads);
                        self.window.scatter_add(columns, &pixels, dx, threads == Threads::All);
                    }
                });
            }
        });
    }

    /// `dw = sum over images of dy * x`.
    pub(crate) fn weight_gradient<T: Float>(&self, x: &[T], dy: &[T], dw: &mut [T]) {
        if self.is_depthwise() {
            depthwise::weight_gradient(self, x, dy, dw);
            return;
        }
        let n_parts = self.n_parts::<T>();
        if n_parts <= 1 {
            dw.fill(T::ZERO);
            self.add_weight_gradient(0..self.n_images, x, dy, dw, &mut Vec::new(), Threads::All);
            return;
        }
        let images_per_part = self.n_images.div_ceil(n_parts);
        let mut partial = vec![T::ZERO; n_parts * dw.len()];
        parallel::for_each_chunk(&mut partial, dw.len(), self.n_products(), Vec::new, |columns, part, dw| {
            let first = (part * images_per_part).min(self.n_images);
            let images = first..(first + images_per_part).min(self.n_images);
            self.add_weight_gradient(images, x, dy, dw, columns, Threads::One);
        });
        let len = dw.len();
        parallel::for_each_chunk(
            dw,
            1 << 12,
            partial.len(),
            || (),
            |(), chunk, dw| {
                dw.fill(T::ZERO);
                for part in partial.chunks(len) {
                    for (sum, addend) in dw.iter_mut().zip(&part[chunk << 12..]) {
                        *sum += *addend;
                    }
                }
            },
        );
    }

    fn add_weight_gradient<T: Float>(
        &self,
        images: Range<usize>,
        x: &[T],
        dy: &[T],
        dw: &mut [T],
        columns: &mut Vec<T>,
        threads: Threads,
    ) {
        let k = self.n_weights_per_map();
        for n in images {
            let x = &x[n * self.input_len()..][..self.input_len()];
            let dy = &dy[n * self.output_len()..][..self.output_len()];
            for g in 0..self.group {
                let x = &x[g * self.group_input_len()..][..self.group_input_len()];
                let dy = &dy[g * self.group_output_len()..][..self.group_output_len()];
                let dw = &mut dw[g * self.group_outmaps() * k..][..self.group_outmaps() * k];
                self.for_each_block::<T>(threads, |pixels| {
                    let gathered = self.gathered(x, &pixels, columns, threads);
                    let dy =
                        Mat::new(&dy[pixels.start..], self.group_outmaps(), pixels.len(), self.n_pixels());
                    gemm(MatMut::new(dw, self.group_outmaps(), k, k), dy, gathered.t(), true, threads);
                });
            }
        }
    }

    /// What the taps see at some pixels, as a matrix `(inmaps / group * taps, pixels)`.
    fn gathered<'a, T: Float>(
        &self,
        x: &'a [T],
        pixels: &Range<usize>,
        columns: &'a mut Vec<T>,
        threads: Threads,
    ) -> Mat<'a, T> {
        let k = self.n_weights_per_map();
        if self.window.is_pointwise() {
            return Mat::new(&x[pixels.start..], k, pixels.len(), self.n_pixels());
        }
        let columns = scratch(columns, k * pixels.len());
        self.window.gather(x, pixels, columns, threads == Threads::All);
        Mat::new(columns, k, pixels.len(), pixels.len())
    }

    /// One image a thread, or all threads on an only image.
    fn for_each_image<T: Float>(
        &self,
        out: &mut [T],
        len: usize,
        threads: Threads,
        f: impl Fn(&mut Vec<T>, usize, &mut [T]) + Send + Sync,
    ) {
        let work = if threads == Threads::One { self.n_products() } else { 0 };
        parallel::for_each_chunk(out, len, work, Vec::new, f);
    }

    fn for_each_block<T>(&self, threads: Threads, mut f: impl FnMut(Range<usize>)) {
        let n_pixels = self.n_pixels();
        let bytes = if threads == Threads::All { SHARED_BLOCK_BYTES } else { BLOCK_BYTES };
        let block = match self.window.is_pointwise() {
            true => n_pixels,
            false => (bytes / (self.n_weights_per_map() * size_of::<T>()).max(1)).max(64) & !15,
        };
        let mut start = 0;
        while start < n_pixels {
            let end = (start + block).min(n_pixels);
            f(start..end);
            start = end;
        }
    }

    fn threads(&self) -> Threads {
        if self.n_images == 1 && parallel::worthwhile(self.n_products()) {
            Threads::All
        } else {
            Threads::One
        }
    }

    fn n_parts<T>(&self) -> usize {
        let weights = self.outmaps * self.n_weights_per_map() * size_of::<T>();
        MAX_PARTS.min(PARTIAL_BYTES / weights.max(1)).min(self.n_images)
    }

    pub(crate) fn is_depthwise(&self) -> bool {
        self.group == self.inmaps && self.group > 1
    }

    /// Multiplications of one pass, to decide about threads.
    pub(crate) fn n_products(&self) -> usize {
        self.n_images
            .saturating_mul(self.outmaps)
            .saturating_mul(self.n_weights_per_map())
            .saturating_mul(self.n_pixels())
    }

    pub(crate) fn n_pixels(&self) -> usize {
        self.window.n_outputs()
    }

    fn n_weights_per_map(&self) -> usize {
        self.inmaps / self.group * self.window.n_taps()
    }

    fn group_outmaps(&self) -> usize {
        self.outmaps / self.group
    }

    fn group_weights<'a, T>(&self, w: &'a [T], g: usize) -> &'a [T] {
        let len = self.group_outmaps() * self.n_weights_per_map();
        &w[g * len..][..len]
    }

    pub(crate) fn input_len(&self) -> usize {
        self.inmaps * self.window.n_inputs()
    }

    pub(crate) fn output_len(&self) -> usize {
        self.outmaps * self.n_pixels()
    }

    fn group_input_len(&self) -> usize {
        self.input_len() / self.group
    }

    fn group_output_len(&self) -> usize {
        self.output_len() / self.group
    }
}

/// The first `len` elements of a scratch vector that grows as needed.
fn scratch<T: Float>(memory: &mut Vec<T>, len: usize) -> &mut [T] {
    if memory.len() < len {
        memory.resize(len, T::ZERO);
    }
    &mut memory[..len]
}

/// Fills channel `c` of an image with `values[c]`.
fn fill_channels<T: Float>(image: &mut [T], values: &[T]) {
    let len = image.len() / values.len().max(1);
    if len > 0 {
        for (channel, value) in image.chunks_mut(len).zip(values) {
            channel.fill(*value);
        }
    }
}
