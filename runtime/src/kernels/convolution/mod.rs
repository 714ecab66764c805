//! Convolution and its two gradients; deconvolution is the same with the roles exchanged.
//!
//! A kernel of 1 is a product of matrices ([`pointwise`]), one of 3 x 3 in steps of 1 is the products of [`winograd`].
//! Everything else is a [`correlation`], whose kernels ([`wide`], [`narrow`] and those in [`weights`]) read a padded copy of
//! an image; nothing is gathered.

mod correlation;
mod narrow;
mod pointwise;
mod spatial;
#[cfg(test)]
mod tests;
mod weights;
mod wide;
mod winograd;

use self::correlation::{Correlation, PaddedRows};
use self::spatial::Weights;
use self::winograd::Tiling;
use super::simd::Level;
use super::{Float, Window};

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
        self.forward_at(Level::detect(), x, w, b, y);
    }

    fn forward_at<T: Float>(&self, level: Level, x: &[T], w: &[T], b: Option<&[T]>, y: &mut [T]) {
        if self.is_product() {
            pointwise::forward(self, x, w, b, y);
        } else {
            let n_taps = self.window.n_taps();
            let w = Weights { data: w, n_taps, out_stride: self.n_weights_per_map(), source_stride: n_taps };
            match Tiling::forward(self) {
                Some(tiling) => winograd::correlate(level, self, &tiling, w, b, x, y),
                None => {
                    let corr = Correlation::forward(self, PaddedRows::Skipped);
                    spatial::correlate(level, self, &corr, w, b, x, y);
                }
            }
        }
    }

    /// `dx = transpose of w * dy`, plus `offset` per input channel if given (the bias of a deconvolution).
    pub(crate) fn data_gradient<T: Float>(&self, dy: &[T], w: &[T], offset: Option<&[T]>, dx: &mut [T]) {
        self.data_gradient_at(Level::detect(), dy, w, offset, dx);
    }

    fn data_gradient_at<T: Float>(
        &self,
        level: Level,
        dy: &[T],
        w: &[T],
        offset: Option<&[T]>,
        dx: &mut [T],
    ) {
        if self.is_product() {
            pointwise::data_gradient(self, dy, w, offset, dx);
        } else {
            let n_taps = self.window.n_taps();
            let w = Weights { data: w, n_taps, out_stride: n_taps, source_stride: self.n_weights_per_map() };
            match Tiling::transposed(self) {
                Some(tiling) => winograd::correlate(level, self, &tiling, w, offset, dy, dx),
                None => {
                    let corr = Correlation::transposed(self);
                    spatial::correlate(level, self, &corr, w, offset, dy, dx);
                }
            }
        }
    }

    /// `dw = sum over images of dy * x`.
    pub(crate) fn weight_gradient<T: Float>(&self, x: &[T], dy: &[T], dw: &mut [T]) {
        self.weight_gradient_at(Level::detect(), x, dy, dw);
    }

    fn weight_gradient_at<T: Float>(&self, level: Level, x: &[T], dy: &[T], dw: &mut [T]) {
        if self.is_product() {
            pointwise::weight_gradient(self, x, dy, dw);
        } else if let Some(tiling) = Tiling::forward(self) {
            winograd::weight_gradient(level, self, &tiling, x, dy, dw);
        } else {
            weights::gradient(level, self, x, dy, dw);
        }
    }

    /// Whether each pixel's outputs are a matrix times its inputs.
    fn is_product(&self) -> bool {
        self.window.is_pointwise() && self.group == 1
    }

    /// Multiplications of one pass, to decide about threads.
    fn n_products(&self) -> usize {
        self.n_images
            .saturating_mul(self.outmaps)
            .saturating_mul(self.n_weights_per_map())
            .saturating_mul(self.window.n_outputs())
    }

    fn n_weights_per_map(&self) -> usize {
        self.inmaps / self.group * self.window.n_taps()
    }

    /// Into how many parts a sum over the images is cut so that threads can share it, for `n_sums` sums: by the sizes
    /// alone, since the order of addends decides about the last bits.
    fn n_parts<T>(&self, n_sums: usize) -> usize {
        const MAX_PARTS: usize = 16;
        const MAX_BYTES: usize = 64 << 20;
        MAX_PARTS.min(MAX_BYTES / (n_sums * size_of::<T>()).max(1)).min(self.n_images).max(1)
    }
}
