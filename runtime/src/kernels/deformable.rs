//! Images sampled where offsets say, as columns for a product, and the way back.

use super::Float;
use super::parallel::{for_each_chunk, for_each_chunk2};

/// Sizes of the samples of one image; the two numbers of an axis are those of rows and of columns.
#[derive(Clone, Debug)]
pub(crate) struct Sampling {
    pub(crate) channels: usize,
    /// Groups of channels that have offsets in common.
    pub(crate) groups: usize,
    pub(crate) input: [usize; 2],
    pub(crate) output: [usize; 2],
    pub(crate) kernel: [usize; 2],
    pub(crate) pad: [usize; 2],
    pub(crate) stride: [usize; 2],
    pub(crate) dilation: [usize; 2],
}

/// What one sample is made of.
#[derive(Clone, Copy)]
pub(crate) struct Sample<T> {
    /// The places of the four pixels around it, [`OUTSIDE`] for one that is not in the image.
    at: [usize; 4],
    /// Their weights, and how these change with the row and the column of the sample.
    weights: [[T; 4]; 3],
    mask: T,
    /// The place of its offsets and its mask in their planes.
    place: usize,
}

/// No image has so many pixels.
const OUTSIDE: usize = usize::MAX;

impl<T: Float> Sample<T> {
    /// The sum of the four pixels with the weights `by`.
    #[inline(always)]
    fn of(&self, plane: &[T], by: usize) -> T {
        let mut sum = T::ZERO;
        for (at, weight) in self.at.iter().zip(self.weights[by]) {
            if let Some(pixel) = plane.get(*at) {
                sum += *pixel * weight;
            }
        }
        sum
    }
}

impl Sampling {
    pub(crate) fn n_inputs(&self) -> usize {
        self.input.iter().product()
    }

    pub(crate) fn n_outputs(&self) -> usize {
        self.output.iter().product()
    }

    pub(crate) fn n_taps(&self) -> usize {
        self.kernel.iter().product()
    }

    /// Where the sample of a tap for an output is without offsets, and the place of its offsets in their planes.
    pub(crate) fn position(&self, tap: usize, output: usize) -> ([f64; 2], usize) {
        let tap = [tap / self.kernel[1], tap % self.kernel[1]];
        let output = [output / self.output[1], output % self.output[1]];
        let at = |axis: usize| {
            let moved = output[axis] * self.stride[axis] + tap[axis] * self.dilation[axis];
            moved as f64 - self.pad[axis] as f64
        };
        ([at(0), at(1)], output[0] * self.stride[0] * self.input[1] + output[1] * self.stride[1])
    }

    /// All samples of an image, `(groups, taps, outputs)`, from its offsets `(groups, taps, 2, H, W)` and its mask `(groups,
    /// taps, H, W)`. `corners` gives the weights of four pixels and their slopes for a place between them.
    pub(crate) fn samples<T: Float>(
        &self,
        offset: &[T],
        mask: Option<&[T]>,
        corners: impl Fn([T; 2]) -> [[T; 4]; 3] + Sync,
    ) -> Vec<Sample<T>> {
        let (n_inputs, n_outputs, n_taps) = (self.n_inputs(), self.n_outputs(), self.n_taps());
        let none = Sample { at: [OUTSIDE; 4], weights: [[T::ZERO; 4]; 3], mask: T::ONE, place: 0 };
        let mut samples = vec![none; self.groups * n_taps * n_outputs];
        let work = samples.len() * 16;
        for_each_chunk(
            &mut samples,
            n_outputs,
            work,
            || (),
            |(), plane, samples| {
                let offset = &offset[2 * plane * n_inputs..][..2 * n_inputs];
                let mask = mask.map(|mask| &mask[plane * n_inputs..][..n_inputs]);
                for (output, sample) in samples.iter_mut().enumerate() {
                    let (position, place) = self.position(plane % n_taps, output);
                    sample.place = place;
                    sample.mask = mask.map_or(T::ONE, |mask| mask[place]);
                    let moved = [offset[place], offset[n_inputs + place]];
                    self.put(sample, [0, 1].map(|axis| T::of(position[axis]) + moved[axis]), &corners);
                }
            },
        );
        samples
    }

    /// The pixels around `at`, if it is less than a pixel outside of the image.
    fn put<T: Float>(&self, sample: &mut Sample<T>, at: [T; 2], corners: impl Fn([T; 2]) -> [[T; 4]; 3]) {
        let size = self.input.map(|size| T::of(size as f64));
        if !(0..2).all(|axis| at[axis] > -T::ONE && at[axis] < size[axis]) {
            return; // an offset that is not a number, too
        }
        let low = at.map(|at| at.wide().floor());
        sample.weights = corners([at[0] - T::of(low[0]), at[1] - T::of(low[1])]);
        for (corner, at) in sample.at.iter_mut().enumerate() {
            let pixel = [low[0] + (corner / 2) as f64, low[1] + (corner % 2) as f64];
            let inside = |axis: usize| pixel[axis] >= 0.0 && pixel[axis] < self.input[axis] as f64;
            if inside(0) && inside(1) {
                *at = pixel[0] as usize * self.input[1] + pixel[1] as usize;
            }
        }
    }

    /// The samples of one channel among those of all groups.
    fn of_channel<'a, T>(&self, samples: &'a [Sample<T>], channel: usize) -> &'a [Sample<T>] {
        let n = self.n_taps() * self.n_outputs();
        &samples[channel / (self.channels / self.groups) * n..][..n]
    }

    /// What each tap sees: `columns (channels, taps, outputs)` of an image `x (channels, H, W)`.
    pub(crate) fn columns<T: Float>(&self, samples: &[Sample<T>], x: &[T], columns: &mut [T]) {
        let (len, work) = (self.n_taps() * self.n_outputs(), columns.len() * 8);
        for_each_chunk(
            columns,
            len,
            work,
            || (),
            |(), channel, columns| {
                let plane = &x[channel * self.n_inputs()..][..self.n_inputs()];
                for (column, sample) in columns.iter_mut().zip(self.of_channel(samples, channel)) {
                    *column = sample.of(plane, 0) * sample.mask;
                }
            },
        );
    }

    /// The gradient of an image from that of its columns.
    pub(crate) fn image_gradient<T: Float>(&self, samples: &[Sample<T>], dcolumns: &[T], dx: &mut [T]) {
        let (len, work) = (self.n_taps() * self.n_outputs(), dcolumns.len() * 8);
        for_each_chunk(
            dx,
            self.n_inputs(),
            work,
            || (),
            |(), channel, dx| {
                dx.fill(T::ZERO);
                let dcolumns = &dcolumns[channel * len..][..len];
                for (dcolumn, sample) in dcolumns.iter().zip(self.of_channel(samples, channel)) {
                    let slope = *dcolumn * sample.mask;
                    for (at, weight) in sample.at.iter().zip(sample.weights[0]) {
                        if let Some(pixel) = dx.get_mut(*at) {
                            *pixel += slope * weight;
                        }
                    }
                }
            },
        );
    }

    /// The gradients of the offsets and of the mask, from those of the columns.
    pub(crate) fn offset_gradients<T: Float>(
        &self,
        samples: &[Sample<T>],
        x: &[T],
        dcolumns: &[T],
        doffset: &mut [T],
        dmask: &mut [T],
    ) {
        let (n_inputs, n_outputs, n_taps) = (self.n_inputs(), self.n_outputs(), self.n_taps());
        let (per_group, work) = (self.channels / self.groups, dcolumns.len() * 16);
        for_each_chunk2((doffset, 2 * n_inputs), (dmask, n_inputs), work, |plane, doffset, dmask| {
            // Some are read by no output.
            doffset.fill(T::ZERO);
            dmask.fill(T::ZERO);
            let (drow, dcolumn) = doffset.split_at_mut(n_inputs);
            let (group, tap) = (plane / n_taps, plane % n_taps);
            let samples = &samples[plane * n_outputs..][..n_outputs];
            for channel in group * per_group..(group + 1) * per_group {
                let plane = &x[channel * n_inputs..][..n_inputs];
                let slopes = &dcolumns[(channel * n_taps + tap) * n_outputs..][..n_outputs];
                for (slope, sample) in slopes.iter().zip(samples) {
                    dmask[sample.place] += *slope * sample.of(plane, 0);
                    drow[sample.place] += *slope * sample.mask * sample.of(plane, 1);
                    dcolumn[sample.place] += *slope * sample.mask * sample.of(plane, 2);
                }
            }
        });
    }
}
