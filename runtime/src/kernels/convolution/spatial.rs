//! Runs a correlation over all images and groups, with the kernel that suits its sizes.

use super::super::simd::{Level, Transpose};
use super::super::{Float, parallel};
use super::Convolution;
use super::correlation::Correlation;
use super::narrow::{self, Plane};
use super::wide::Block;

/// From so many images times groups on, each is one thread's; fewer share the threads.
pub(super) const ENOUGH: usize = 8;

/// A correlation with its weights in the order in which the kernel reads them.
struct Plan<'a, T> {
    level: Level,
    corr: &'a Correlation,
    n_weights: usize,
    /// Maps of a vector; 1 for the kernel that has pixels in its vectors.
    lanes: usize,
    /// For each group and vector of maps: the weights of all steps, each for all lanes.
    weights: Vec<T>,
    /// For each group and vector the lanes' first addends.
    bias: Vec<T>,
}

/// `dest = bias + weights * source`; the source map `m` has its weights for output map `o` of a group at
/// `o * out_stride + m * source_stride`.
pub(super) fn correlate<T: Float>(
    level: Level,
    conv: &Convolution,
    corr: &Correlation,
    (w, out_stride, source_stride): (&[T], usize, usize),
    bias: Option<&[T]>,
    source: &[T],
    dest: &mut [T],
) {
    let group_len = corr.out_maps * corr.n_outs();
    if dest.is_empty() {
        return;
    }
    let plan = Plan::new(level, conv, corr, w, out_stride, source_stride, bias);
    let source_len = corr.source_maps * corr.n_sources();
    let source_of = |i: usize| &source[i * source_len..][..source_len];
    let memory = || vec![T::ZERO; corr.padded_len() + narrow::SLACK];
    if dest.len() / group_len >= ENOUGH {
        let scratch = || (memory(), Vec::new());
        parallel::for_each_chunk(dest, group_len, conv.n_products(), scratch, |(padded, buffer), i, dest| {
            corr.pad(source_of(i), padded);
            for (block, dest) in dest.chunks_mut(plan.block_len()).enumerate() {
                plan.block(i % conv.group, block, padded, buffer, dest);
            }
        });
    } else {
        let mut padded = memory();
        let work = conv.n_products() / (dest.len() / group_len);
        for (i, dest) in dest.chunks_mut(group_len).enumerate() {
            corr.pad(source_of(i), &mut padded);
            parallel::for_each_chunk(dest, plan.block_len(), work, Vec::new, |buffer, block, dest| {
                plan.block(i % conv.group, block, &padded, buffer, dest);
            });
        }
    }
}

impl<'a, T: Float> Plan<'a, T> {
    fn new(
        level: Level,
        conv: &Convolution,
        corr: &'a Correlation,
        w: &[T],
        out_stride: usize,
        source_stride: usize,
        bias: Option<&[T]>,
    ) -> Self {
        let lanes = lanes_for::<T>(level, corr.out_maps);
        let n_taps = conv.window.n_taps();
        let n_weights = corr.source_maps * n_taps;
        let vectors = corr.out_maps.div_ceil(lanes);
        let mut weights = vec![T::ZERO; conv.group * vectors * n_weights * lanes];
        let work = weights.len();
        parallel::for_each_chunk(
            &mut weights,
            n_weights * lanes,
            work,
            || (),
            |(), i, weights| {
                let (group, first) = (i / vectors, i % vectors * lanes);
                let n_maps = lanes.min(corr.out_maps - first);
                let w = &w[group * corr.out_maps * n_weights..][..corr.out_maps * n_weights];
                // Where the weights of all source maps stand together, they are one matrix.
                let (runs, run) =
                    if source_stride == n_taps { (1, n_weights) } else { (corr.source_maps, n_taps) };
                for (m, weights) in weights.chunks_mut(run * lanes).enumerate().take(runs) {
                    let from = &w[first * out_stride + m * source_stride..];
                    T::run(
                        level,
                        Transpose {
                            from,
                            from_stride: out_stride,
                            rows: n_maps,
                            columns: run,
                            to: weights,
                            to_stride: lanes,
                        },
                    );
                }
            },
        );
        let mut padded_bias = vec![T::ZERO; conv.group * vectors * lanes];
        if let Some(bias) = bias {
            for (padded, bias) in padded_bias.chunks_mut(vectors * lanes).zip(bias.chunks(corr.out_maps)) {
                padded[..bias.len()].copy_from_slice(bias);
            }
        }
        Self { level, corr, n_weights, lanes, weights, bias: padded_bias }
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
    fn block(&self, group: usize, block: usize, padded: &[T], buffer: &mut Vec<T>, dest: &mut [T]) {
        let group_maps = self.corr.out_maps.next_multiple_of(self.lanes);
        let first = block * self.block_maps();
        let maps =
            group * group_maps + first..group * group_maps + (first + self.block_maps()).min(group_maps);
        let weights = &self.weights[maps.start * self.n_weights..maps.end * self.n_weights];
        if self.lanes == 1 {
            let plane = Plane {
                corr: self.corr,
                source: padded,
                weights,
                bias: self.bias[maps.start],
                line: buffer,
                out: dest,
            };
            T::run(self.level.narrow(), plane);
        } else {
            let block = Block { corr: self.corr, source: padded, weights, bias: &self.bias[maps] };
            block.compute(self.level, buffer, dest);
        }
    }
}

/// Maps of a vector for so many output maps: a vector that would stay half empty is better filled with pixels.
pub(super) fn lanes_for<T: Float>(level: Level, out_maps: usize) -> usize {
    let lanes = T::lanes(level);
    if out_maps * 2 > lanes { lanes } else { 1 }
}
