//! A convolution, or its transpose, as sums over a padded copy of its source.
//!
//! `out[o, p] = sum over steps of w[o, step] * padded[base(p) + step.source]`: neighbouring pixels of an output row
//! read neighbouring elements of the copy, whatever the kernel, the stride and the dilation are. For this the copy
//! keeps positions of equal remainder modulo the stride together; and the transpose of a strided convolution falls
//! into phases, the outputs of equal remainder, each with the taps that reach it.

use std::ops::Range;

use super::super::{Float, Window};
use super::Convolution;

/// One addend of every output: an element of the padded source, counted from the output's base, times a weight,
/// counted from the first of its map (or vector of maps).
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) source: usize,
    pub(super) weight: usize,
}

/// The addends of the outputs of one phase.
#[derive(Clone, Debug)]
pub(super) struct Steps {
    pub(super) list: Vec<Step>,
    /// One more than the largest `source`, and than the largest `weight`; 0 if there is no step.
    pub(super) reach: Step,
}

impl Steps {
    fn new(list: Vec<Step>) -> Self {
        Self { reach: Self::reach(&list), list }
    }

    /// One more than the largest numbers.
    pub(super) fn reach(list: &[Step]) -> Step {
        let end = |f: fn(&Step) -> usize| list.iter().map(f).max().map_or(0, |last| last + 1);
        Step { source: end(|step| step.source), weight: end(|step| step.weight) }
    }
}

/// What a correlation sums, for one group of channels.
#[derive(Clone, Debug)]
pub(super) struct Correlation {
    /// Maps of a group.
    pub(super) source_maps: usize,
    pub(super) out_maps: usize,
    axes: [Axis; 3],
    /// The steps of each phase, the phases of the last axis next to each other. Weights stand in the order
    /// (source map, tap).
    phases: Vec<Steps>,
}

/// Pixels of an output row that have the same steps.
pub(super) struct Piece<'a> {
    pub(super) steps: &'a Steps,
    /// Where in the padded source the steps of the first pixel count from; those of the next ones follow.
    pub(super) base: usize,
    /// Distance of the pixels in the row.
    pub(super) step: usize,
    pub(super) len: usize,
}

/// One axis of a correlation.
#[derive(Clone, Debug)]
struct Axis {
    source: usize,
    out: usize,
    /// Distance of source positions of the same phase, and the phases (remainders) that the copy keeps.
    split: usize,
    kept: Vec<usize>,
    /// The copy of a phase holds its positions `first..first + len`; those outside of the source are 0.
    first: isize,
    len: usize,
    /// Output `g + j * step` is output `j` of phase `g`.
    step: usize,
    phases: Vec<Vec<AxisTap>>,
}

/// A tap that sees element `offset + j` of the copied axis at output `j` of a phase.
#[derive(Clone, Copy, Debug)]
struct AxisTap {
    tap: usize,
    offset: usize,
}

impl Correlation {
    /// From input to output.
    pub(super) fn forward(conv: &Convolution) -> Self {
        let axes = std::array::from_fn(|axis| Axis::forward(&conv.window, axis));
        Self::new(conv.inmaps / conv.group, conv.outmaps / conv.group, axes, conv.window.n_taps())
    }

    /// From the output's gradient to the input's.
    pub(super) fn transposed(conv: &Convolution) -> Self {
        let axes = std::array::from_fn(|axis| Axis::transposed(&conv.window, axis));
        Self::new(conv.outmaps / conv.group, conv.inmaps / conv.group, axes, conv.window.n_taps())
    }

    fn new(source_maps: usize, out_maps: usize, axes: [Axis; 3], n_taps: usize) -> Self {
        let [depth, height, width] = &axes;
        let mut phases = Vec::new();
        for d in &depth.phases {
            for h in &height.phases {
                for w in &width.phases {
                    phases.push((d, h, w));
                }
            }
        }
        let row = source_maps * width.padded_len();
        let steps = |(d, h, w): (&Vec<AxisTap>, &Vec<AxisTap>, &Vec<AxisTap>)| {
            let mut list = Vec::with_capacity(source_maps * d.len() * h.len() * w.len());
            for map in 0..source_maps {
                for d in d {
                    for h in h {
                        for w in w {
                            list.push(Step {
                                source: (d.offset * height.padded_len() + h.offset) * row
                                    + map * width.padded_len()
                                    + w.offset,
                                weight: map * n_taps + d.tap + h.tap + w.tap,
                            });
                        }
                    }
                }
            }
            Steps::new(list)
        };
        let phases = phases.into_iter().map(steps).collect();
        Self { source_maps, out_maps, axes, phases }
    }

    pub(super) fn n_sources(&self) -> usize {
        self.axes.iter().map(|axis| axis.source).product()
    }

    pub(super) fn n_outs(&self) -> usize {
        self.axes.iter().map(|axis| axis.out).product()
    }

    pub(super) fn n_rows(&self) -> usize {
        self.axes[0].out * self.axes[1].out
    }

    pub(super) fn row_len(&self) -> usize {
        self.axes[2].out
    }

    /// Elements of the padded copy of a group's maps.
    pub(super) fn padded_len(&self) -> usize {
        self.source_maps * self.axes.iter().map(Axis::padded_len).product::<usize>()
    }

    /// Copies the maps of a group into `padded`, of which the elements that are padding must be 0 already and stay so.
    /// Its order is (depth, height, map, width), so that what a row of outputs needs stands close together.
    pub(super) fn pad<T: Float>(&self, source: &[T], padded: &mut [T]) {
        let [depth, height, width] = &self.axes;
        let (map_len, pitch) = (self.n_sources(), width.padded_len());
        let mut dest = 0;
        for d in 0..depth.padded_len() {
            for h in 0..height.padded_len() {
                if let (Some(d), Some(h)) = (depth.source_of(d), height.source_of(h)) {
                    let row = (d * height.source + h) * width.source;
                    for map in 0..self.source_maps {
                        let source = &source[map * map_len + row..][..width.source];
                        width.pad(source, &mut padded[dest + map * pitch..][..pitch]);
                    }
                }
                dest += self.source_maps * pitch;
            }
        }
    }

    /// Into how many pieces a row of outputs falls.
    pub(super) fn n_pieces(&self) -> usize {
        self.axes[2].phases.len()
    }

    /// The pixels `start, start + n_pieces, ..` of output row `row`.
    pub(super) fn piece(&self, row: usize, start: usize) -> Piece<'_> {
        let [depth, height, width] = &self.axes;
        let (d, h) = (row / height.out, row % height.out);
        let padded_row = (d / depth.step) * height.padded_len() + h / height.step;
        let phase = (d % depth.step) * height.phases.len() + h % height.step;
        Piece {
            steps: &self.phases[phase * width.phases.len() + start],
            base: padded_row * self.source_maps * width.padded_len(),
            step: width.step,
            len: (width.out - start).div_ceil(width.step),
        }
    }
}

impl Axis {
    fn forward(window: &Window, axis: usize) -> Self {
        let stride = window.stride[axis];
        let sees = |tap| {
            let shift = (tap * window.dilation[axis]) as isize - window.pad[axis] as isize;
            (tap, shift.rem_euclid(stride as isize) as usize, shift.div_euclid(stride as isize))
        };
        let taps = (0..window.kernel[axis]).map(sees).collect();
        Self::new(window.input[axis], window.output[axis], stride, 1, vec![taps], tap_weight(window, axis))
    }

    fn transposed(window: &Window, axis: usize) -> Self {
        let stride = window.stride[axis];
        let phases = (0..stride.min(window.input[axis])).map(|phase| {
            let reaching = |tap| {
                let shift = (phase + window.pad[axis]) as isize - (tap * window.dilation[axis]) as isize;
                let exact = shift.rem_euclid(stride as isize) == 0;
                exact.then(|| (tap, 0, shift.div_euclid(stride as isize)))
            };
            (0..window.kernel[axis]).filter_map(reaching).collect()
        });
        let phases = phases.collect();
        Self::new(window.output[axis], window.input[axis], 1, stride, phases, tap_weight(window, axis))
    }

    /// `phases` lists, for each phase of the outputs, taps with the phase of the source that they see and the distance
    /// from the output's index to the position in it. Taps that see padding only are left out.
    fn new(
        source: usize,
        out: usize,
        split: usize,
        step: usize,
        mut phases: Vec<Vec<(usize, usize, isize)>>,
        tap_weight: usize,
    ) -> Self {
        for (phase, taps) in phases.iter_mut().enumerate() {
            let count = (out - phase.min(out)).div_ceil(step) as isize;
            taps.retain(|&(_, remainder, shift)| {
                let end = source.saturating_sub(remainder).div_ceil(split) as isize;
                shift + count > 0 && shift < end
            });
        }
        let seen = || phases.iter().flatten();
        let mut kept: Vec<usize> = seen().map(|tap| tap.1).collect();
        kept.sort_unstable();
        kept.dedup();
        let first = seen().map(|tap| tap.2).min().unwrap_or(0);
        let last = seen().map(|tap| tap.2).max().unwrap_or(0);
        let len = out.div_ceil(step) + (last - first) as usize;
        let offset = |(tap, remainder, shift): (usize, usize, isize)| {
            let kept = kept.partition_point(|&kept| kept < remainder);
            AxisTap { tap: tap * tap_weight, offset: kept * len + (shift - first) as usize }
        };
        let phases = phases.into_iter().map(|taps| taps.into_iter().map(offset).collect()).collect();
        Self { source, out, split, kept, first, len, step, phases }
    }

    fn padded_len(&self) -> usize {
        self.kept.len() * self.len
    }

    /// The source position whose copy is element `i`.
    fn source_of(&self, i: usize) -> Option<usize> {
        let position = ((i % self.len) as isize + self.first) * self.split as isize;
        let position = usize::try_from(position + self.kept[i / self.len] as isize).ok()?;
        (position < self.source).then_some(position)
    }

    fn pad<T: Copy>(&self, source: &[T], padded: &mut [T]) {
        for (phase, &remainder) in self.kept.iter().enumerate() {
            let Range { start, end } = self.inside(remainder);
            if start >= end {
                continue;
            }
            let position = (start as isize + self.first) as usize * self.split + remainder;
            let (source, padded) = (&source[position..], &mut padded[phase * self.len..][start..end]);
            if self.split == 1 {
                padded.copy_from_slice(&source[..padded.len()]);
            } else {
                for (padded, source) in padded.iter_mut().zip(source.iter().step_by(self.split)) {
                    *padded = *source;
                }
            }
        }
    }

    /// The elements of a phase's copy that are no padding.
    fn inside(&self, remainder: usize) -> Range<usize> {
        let end = self.source.saturating_sub(remainder).div_ceil(self.split) as isize - self.first;
        let start = (-self.first).max(0) as usize;
        start..(end.max(0) as usize).min(self.len)
    }
}

/// How far apart weights of neighbouring taps on an axis are.
fn tap_weight(window: &Window, axis: usize) -> usize {
    window.kernel[axis + 1..].iter().product()
}
