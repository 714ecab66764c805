//! Runs a correlation over all images and groups, with the kernel that suits its sizes.

use std::ops::Range;

use super::super::simd::{Level, Transpose};
use super::super::{Float, parallel};
use super::Convolution;
use super::correlation::{Correlation, Pad};
use super::narrow::{self, Plane};
use super::wide::Block;

/// From so many images times groups on, each is one thread's; fewer share the threads.
pub(super) const ENOUGH: usize = 8;

/// A correlation with its weights in the order in which the kernel reads them.
struct Weighted<'a, T> {
    level: Level,
    corr: &'a Correlation,
    n_weights: usize,
    /// Maps of a vector; 1 for the kernel that has pixels in its vectors.
    lanes: usize,
    w: Weights<'a, T>,
    /// For each group and vector of maps: the weights of all steps, each for all lanes. None where each is used once only:
    /// it is packed then when it is used, in memory that is in a cache still.
    weights: Option<Vec<T>>,
    /// For each group and vector the lanes' first addends.
    bias: Vec<T>,
}

/// A thread's memory: the weights of a block, and what the kernels need.
type Scratch<T> = (Vec<T>, Vec<T>);

/// `dest = bias + weights * source`.
pub(super) fn correlate<T: Float>(
    level: Level,
    conv: &Convolution,
    corr: &Correlation,
    w: Weights<'_, T>,
    bias: Option<&[T]>,
    source: &[T],
    dest: &mut [T],
) {
    let group_len = corr.out_maps * corr.n_outs();
    if dest.is_empty() {
        return;
    }
    let weighted = Weighted::new(level, conv, corr, w, bias);
    let source_len = corr.source_maps * corr.n_sources();
    let source_of = |i: usize| &source[i * source_len..][..source_len];
    let memory = || vec![T::ZERO; corr.padded_len() + narrow::SLACK];
    if dest.len() / group_len >= ENOUGH {
        let scratch = || (memory(), Scratch::default());
        parallel::for_each_chunk(
            dest,
            group_len,
            conv.n_products(),
            scratch,
            |(padded, scratch), i, dest| {
                T::run_narrow(level, Pad { corr, source: source_of(i), padded });
                for (block, dest) in dest.chunks_mut(weighted.block_len()).enumerate() {
                    weighted.block(i % conv.group, block, padded, scratch, dest);
                }
            },
        );
    } else {
        let mut padded = memory();
        let work = conv.n_products() / (dest.len() / group_len);
        for (i, dest) in dest.chunks_mut(group_len).enumerate() {
            T::run_narrow(level, Pad { corr, source: source_of(i), padded: &mut padded });
            parallel::for_each_chunk(
                dest,
                weighted.block_len(),
                work,
                Scratch::default,
                |scratch, block, dest| {
                    weighted.block(i % conv.group, block, &padded, scratch, dest);
                },
            );
        }
    }
}

impl<'a, T: Float> Weighted<'a, T> {
    fn new(
        level: Level,
        conv: &Convolution,
        corr: &'a Correlation,
        w: Weights<'a, T>,
        bias: Option<&[T]>,
    ) -> Self {
        let lanes = lanes_for::<T>(level, corr.out_maps);
        let n_weights = corr.source_maps * conv.window.n_taps();
        let vectors = corr.out_maps.div_ceil(lanes);
        let bias = padded_bias(bias, conv.group, corr.out_maps, vectors * lanes);
        let mut weighted = Self { level, corr, n_weights, lanes, w, weights: None, bias };
        if conv.n_images > 1 {
            let mut weights = vec![T::ZERO; conv.group * vectors * n_weights * lanes];
            let work = weights.len();
            parallel::for_each_chunk(
                &mut weights,
                n_weights * lanes,
                work,
                || (),
                |(), vector, weights| {
                    weighted.pack(vector, weights);
                },
            );
            weighted.weights = Some(weights);
        }
        weighted
    }

    /// Packs the weights of a vector, counted over all groups.
    fn pack(&self, vector: usize, to: &mut [T]) {
        let &Correlation { source_maps, out_maps, .. } = self.corr;
        let vectors = out_maps.div_ceil(self.lanes);
        let first = vector % vectors * self.lanes;
        let maps = first..(first + self.lanes).min(out_maps);
        self.w.pack(self.level, (source_maps, out_maps), vector / vectors, maps, self.lanes, to);
    }

    /// Output maps that are computed at a time.
    fn block_maps(&self) -> usize {
        match self.lanes {
            1 => 1,
            lanes => 2 * lanes,
        }
    }

    /// Output elements of a block.
    fn block_len(&self) -> usize {
        self.block_maps() * self.corr.n_outs()
    }

    /// Computes a block of output maps of one image and group.
    fn block(
        &self,
        group: usize,
        block: usize,
        padded: &[T],
        (packed, buffer): &mut Scratch<T>,
        dest: &mut [T],
    ) {
        let group_maps = self.corr.out_maps.next_multiple_of(self.lanes);
        let first = block * self.block_maps();
        let maps =
            group * group_maps + first..group * group_maps + (first + self.block_maps()).min(group_maps);
        let weights = match &self.weights {
            Some(weights) => &weights[maps.start * self.n_weights..maps.end * self.n_weights],
            None => {
                packed.resize(maps.len() * self.n_weights, T::ZERO);
                let vectors = packed.chunks_mut((self.n_weights * self.lanes).max(1));
                for (vector, packed) in (maps.start / self.lanes..).zip(vectors) {
                    self.pack(vector, packed);
                }
                packed
            }
        };
        if self.lanes == 1 {
            let plane = Plane {
                corr: self.corr,
                source: padded,
                weights,
                bias: self.bias[maps.start],
                line: buffer,
                out: dest,
            };
            T::run_narrow(self.level, plane);
        } else {
            let block = Block { corr: self.corr, source: padded, weights, bias: &self.bias[maps] };
            block.compute(self.level, buffer, dest);
        }
    }
}

/// The weights of a convolution as a pass reads them: those from source map `m` to output map `o` of a group stand together
/// at `o * out_stride + m * source_stride`.
#[derive(Clone, Copy)]
pub(super) struct Weights<'a, T> {
    pub(super) data: &'a [T],
    pub(super) n_taps: usize,
    pub(super) out_stride: usize,
    pub(super) source_stride: usize,
}

impl<T: Float> Weights<'_, T> {
    /// Brings the weights of some output maps of a group into a vector's order: for each source map and tap, `lanes` maps.
    pub(super) fn pack(
        &self,
        level: Level,
        (source_maps, out_maps): (usize, usize),
        group: usize,
        maps: Range<usize>,
        lanes: usize,
        to: &mut [T],
    ) {
        let n_weights = source_maps * self.n_taps;
        let data = &self.data[group * out_maps * n_weights..][..out_maps * n_weights];
        // Where the weights of all source maps stand together, they are one matrix.
        let (runs, run) =
            if self.source_stride == self.n_taps { (1, n_weights) } else { (source_maps, self.n_taps) };
        for (m, to) in to.chunks_mut(run * lanes).enumerate().take(runs) {
            let from = &data[maps.start * self.out_stride + m * self.source_stride..];
            let job = Transpose {
                from,
                from_stride: self.out_stride,
                rows: maps.len(),
                columns: run,
                to,
                to_stride: lanes,
            };
            T::run(level, job);
        }
    }
}

/// The first addends of the maps of each group, followed by zeros up to `len`.
pub(super) fn padded_bias<T: Float>(bias: Option<&[T]>, group: usize, maps: usize, len: usize) -> Vec<T> {
    let mut padded = vec![T::ZERO; group * len];
    if let Some(bias) = bias {
        for (padded, bias) in padded.chunks_mut(len).zip(bias.chunks(maps)) {
            padded[..bias.len()].copy_from_slice(bias);
        }
    }
    padded
}

/// Maps of a vector for so many output maps: a vector that would stay half empty is better filled with pixels.
pub(super) fn lanes_for<T: Float>(level: Level, out_maps: usize) -> usize {
    let lanes = T::lanes(level);
    if out_maps * 2 > lanes { lanes } else { 1 }
}
