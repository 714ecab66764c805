//! A convolution, or its transpose, as sums over a padded copy of its source.
//!
//! `out[o, p] = sum over steps of w[o, step] * padded[base(p) + step.source]`: neighbouring pixels of an output row
//! read neighbouring elements of the copy, whatever the kernel, the stride and the dilation are. For this the copy
//! keeps positions of equal remainder modulo the stride together; and the transpose of a strided convolution falls
//! into phases, the outputs of equal remainder, each with the taps that reach it.

use std::ops::Range;

use super::super::simd::{Has, Job, Simd};
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
    list: Vec<Step>,
    reach: Step,
}

impl Steps {
    fn new(list: Vec<Step>) -> Self {
        Self { reach: Step::reach(&list), list }
    }

    pub(super) fn list(&self) -> &[Step] {
        &self.list
    }

    /// [`Step::reach`] of all: kernels rely on it, so nobody else makes or changes steps.
    pub(super) fn reach(&self) -> Step {
        self.reach
    }
}

impl Step {
    /// One more than the largest `source`, and than the largest `weight`; 0 if there is no step.
    pub(super) fn reach(list: &[Self]) -> Self {
        let end = |f: fn(&Self) -> usize| list.iter().map(f).max().map_or(0, |last| last + 1);
        Self { source: end(|step| step.source), weight: end(|step| step.weight) }
    }
}

/// What a correlation sums, for one group of channels.
#[derive(Clone, Debug)]
pub(super) struct Correlation {
    /// Maps of a group.
    pub(super) source_maps: usize,
    pub(super) out_maps: usize,
    axes: [Axis; 3],
    /// The steps of each class of outputs, those of the last axis next to each other. Weights stand in the order
    /// (source map, tap).
    classes: Vec<Steps>,
    rows: Vec<Row>,
}

/// A row of outputs: where in the padded source its steps count from, and its first class.
#[derive(Clone, Copy, Debug)]
struct Row {
    base: usize,
    class: usize,
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

/// What becomes of taps that see a whole row of padding.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum PaddedRows {
    /// They are steps too, so that all rows (of a phase) have the same steps.
    Kept,
    /// They are not steps, which spares the multiplications by zero.
    Skipped,
}

impl Correlation {
    /// From input to output.
    pub(super) fn forward(conv: &Convolution, padded_rows: PaddedRows) -> Self {
        let axes = std::array::from_fn(|axis| Axis::forward(&conv.window, axis, padded_rows));
        Self::new(conv.inmaps / conv.group, conv.outmaps / conv.group, axes, conv.window.n_taps())
    }

    /// From the output's gradient to the input's.
    pub(super) fn transposed(conv: &Convolution) -> Self {
        let axes = std::array::from_fn(|axis| Axis::transposed(&conv.window, axis));
        Self::new(conv.outmaps / conv.group, conv.inmaps / conv.group, axes, conv.window.n_taps())
    }

    fn new(source_maps: usize, out_maps: usize, axes: [Axis; 3], n_taps: usize) -> Self {
        let [depth, height, width] = &axes;
        let pitch = width.padded_len();
        let row_len = source_maps * pitch;
        let steps = |d: &[AxisTap], h: &[AxisTap], w: &[AxisTap]| {
            let mut steps = Vec::with_capacity(source_maps * d.len() * h.len() * w.len());
            for map in 0..source_maps {
                for d in d {
                    for h in h {
                        let source = (d.offset * height.padded_len() + h.offset) * row_len + map * pitch;
                        let weight = map * n_taps + d.weight + h.weight;
                        let step =
                            |w: &AxisTap| Step { source: source + w.offset, weight: weight + w.weight };
                        steps.extend(w.iter().map(step));
                    }
                }
            }
            Steps::new(steps)
        };
        let mut classes = Vec::new();
        for d in &depth.classes {
            for h in &height.classes {
                classes.extend(width.classes.iter().map(|w| steps(d, h, w)));
            }
        }
        let mut rows = Vec::with_capacity(depth.out * height.out);
        for d in 0..depth.out {
            for h in 0..height.out {
                let class = depth.class_of[d] * height.classes.len() + height.class_of[h];
                rows.push(Row {
                    base: ((d / depth.step) * height.padded_len() + h / height.step) * row_len,
                    class: class * width.classes.len(),
                });
            }
        }
        Self { source_maps, out_maps, axes, classes, rows }
    }

    pub(super) fn n_sources(&self) -> usize {
        self.axes.iter().map(|axis| axis.source).product()
    }

    pub(super) fn n_outs(&self) -> usize {
        self.axes.iter().map(|axis| axis.out).product()
    }

    pub(super) fn n_rows(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn row_len(&self) -> usize {
        self.axes[2].out
    }

    /// Elements of the padded copy of a group's maps.
    pub(super) fn padded_len(&self) -> usize {
        self.source_maps * self.axes.iter().map(Axis::padded_len).product::<usize>()
    }

    /// Into how many pieces a row of outputs falls.
    pub(super) fn n_pieces(&self) -> usize {
        self.axes[2].classes.len()
    }

    /// The pixels `start, start + n_pieces, ..` of output row `row`.
    #[inline(always)]
    pub(super) fn piece(&self, row: usize, start: usize) -> Piece<'_> {
        let Row { base, class } = self.rows[row];
        let width = &self.axes[2];
        let len = if width.step == 1 { width.out } else { (width.out - start).div_ceil(width.step) };
        Piece { steps: &self.classes[class + start], base, step: width.step, len }
    }
}

/// Copies the maps of a group into `padded`, of which the elements that are padding must be 0 already and stay so.
/// Its order is (depth, height, map, width), so that what a row of outputs needs stands close together.
pub(super) struct Pad<'a, T> {
    pub(super) corr: &'a Correlation,
    pub(super) source: &'a [T],
    pub(super) padded: &'a mut [T],
}

impl<T: Float> Job<T> for Pad<'_, T> {
    #[inline(always)]
    fn run<V: Simd<T>>(self, _: Has<V>) {
        let Self { corr, source, padded } = self;
        let [depth, height, width] = &corr.axes;
        let (map_len, pitch) = (corr.n_sources(), width.padded_len());
        if corr.padded_len() == 0 || map_len == 0 {
            return;
        }
        let mut rows = padded.chunks_exact_mut(corr.source_maps * pitch);
        for d in 0..depth.padded_len() {
            let d = depth.source_of(d);
            for (h, padded) in rows.by_ref().take(height.padded_len()).enumerate() {
                let (Some(d), Some(h)) = (d, height.source_of(h)) else { continue };
                let row = (d * height.source + h) * width.source;
                for (map, padded) in padded.chunks_exact_mut(pitch).enumerate() {
                    width.pad(&source[map * map_len + row..][..width.source], padded);
                }
            }
        }
    }
}

/// One axis of a correlation.
#[derive(Clone, Debug)]
struct Axis {
    source: usize,
    out: usize,
    /// Distance of source positions of the same phase, and the phases that the copy keeps.
    split: usize,
    kept: Vec<Kept>,
    /// The copy of a phase holds its positions `first..first + len`; those outside of the source are 0.
    first: isize,
    len: usize,
    /// Distance of outputs of the same phase: output `g + j * step` is output `j` of phase `g`.
    step: usize,
    /// The different lists of taps that outputs have, and which of them each output has.
    classes: Vec<Vec<AxisTap>>,
    class_of: Vec<usize>,
}

/// A phase of the source, and which elements of its copy are not padding.
#[derive(Clone, Debug)]
struct Kept {
    remainder: usize,
    inside: Range<usize>,
}

/// A tap that sees element `offset + j` of the copied axis at output `j` of a phase, and where its weight is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct AxisTap {
    offset: usize,
    weight: usize,
}

/// A tap that sees position `shift + j` of the source's phase `remainder` at output `j` of a phase.
#[derive(Clone, Copy)]
struct Sight {
    tap: usize,
    remainder: usize,
    shift: isize,
}

impl Axis {
    fn forward(window: &Window, axis: usize, padded_rows: PaddedRows) -> Self {
        let stride = window.stride[axis] as isize;
        let sight = |tap| {
            let shift = (tap * window.dilation[axis]) as isize - window.pad[axis] as isize;
            Sight { tap, remainder: shift.rem_euclid(stride) as usize, shift: shift.div_euclid(stride) }
        };
        let phases = vec![(0..window.kernel[axis]).map(sight).collect()];
        let sizes = (window.input[axis], window.output[axis]);
        Self::new(
            sizes,
            (window.stride[axis], 1),
            phases,
            weight_distance(window, axis),
            axis < 2 && padded_rows == PaddedRows::Skipped,
        )
    }

    fn transposed(window: &Window, axis: usize) -> Self {
        let stride = window.stride[axis];
        let phase = |phase| {
            let sight = |tap| {
                let shift = (phase + window.pad[axis]) as isize - (tap * window.dilation[axis]) as isize;
                let reaches = shift.rem_euclid(stride as isize) == 0;
                reaches.then(|| Sight { tap, remainder: 0, shift: shift.div_euclid(stride as isize) })
            };
            (0..window.kernel[axis]).filter_map(sight).collect()
        };
        let phases = (0..stride.min(window.input[axis])).map(phase).collect();
        let sizes = (window.output[axis], window.input[axis]);
        Self::new(sizes, (1, stride), phases, weight_distance(window, axis), axis < 2)
    }

    /// `phases` lists the taps of each phase of the outputs.
    fn new(
        (source, out): (usize, usize),
        (split, step): (usize, usize),
        mut phases: Vec<Vec<Sight>>,
        weight_distance: usize,
        skip_padding: bool,
    ) -> Self {
        let n_positions = |remainder: usize| source.saturating_sub(remainder).div_ceil(split) as isize;
        // Taps that see nothing but padding would only make the copy larger.
        for (phase, taps) in phases.iter_mut().enumerate() {
            let n_outs = (out - phase.min(out)).div_ceil(step) as isize;
            taps.retain(|tap| tap.shift + n_outs > 0 && tap.shift < n_positions(tap.remainder));
        }
        let shifts = || phases.iter().flatten().map(|tap| tap.shift);
        let (first, last) = (shifts().min().unwrap_or(0), shifts().max().unwrap_or(0));
        let len = out.div_ceil(step) + (last - first) as usize;
        let mut kept: Vec<usize> = phases.iter().flatten().map(|tap| tap.remainder).collect();
        kept.sort_unstable();
        kept.dedup();

        let tap = |tap: &Sight| AxisTap {
            offset: kept.partition_point(|&kept| kept < tap.remainder) * len + (tap.shift - first) as usize,
            weight: tap.tap * weight_distance,
        };
        let mut classes: Vec<Vec<AxisTap>> = Vec::new();
        let mut class_of: Vec<usize> = Vec::with_capacity(out);
        if skip_padding {
            for o in 0..out {
                let sees = |tap: &&Sight| {
                    let position = tap.shift + (o / step) as isize;
                    (0..n_positions(tap.remainder)).contains(&position)
                };
                let taps: Vec<_> = phases[o % step].iter().filter(sees).map(tap).collect();
                let known = classes.iter().position(|class| *class == taps);
                class_of.push(known.unwrap_or(classes.len()));
                if known.is_none() {
                    classes.push(taps);
                }
            }
        } else {
            classes.extend(phases.iter().map(|taps| taps.iter().map(tap).collect()));
            class_of.extend((0..out).map(|o| o % step));
        }

        let inside = |&remainder: &usize| {
            let end = (n_positions(remainder) - first).max(0) as usize;
            let start = (-first).max(0) as usize;
            Kept { remainder, inside: start..end.clamp(start, len.max(start)) }
        };
        let kept = kept.iter().map(inside).collect();
        Self { source, out, split, kept, first, len, step, classes, class_of }
    }

    fn padded_len(&self) -> usize {
        self.kept.len() * self.len
    }

    /// The source position whose copy is element `i`.
    fn source_of(&self, i: usize) -> Option<usize> {
        let Kept { remainder, inside } = &self.kept[i / self.len];
        inside.contains(&(i % self.len)).then(|| self.position(*remainder, i % self.len))
    }

    /// The source position of an element inside.
    #[inline(always)]
    fn position(&self, remainder: usize, i: usize) -> usize {
        (i as isize + self.first) as usize * self.split + remainder
    }

    #[inline(always)]
    fn pad<T: Copy>(&self, source: &[T], padded: &mut [T]) {
        for (phase, Kept { remainder, inside }) in self.kept.iter().enumerate() {
            if inside.is_empty() {
                continue;
            }
            let source = &source[self.position(*remainder, inside.start)..];
            let padded = &mut padded[phase * self.len..][inside.clone()];
            match self.split {
                1 => copy_short(&source[..padded.len()], padded),
                2 => {
                    let (last, padded) = padded.split_last_mut().expect("a range that is not empty");
                    *last = source[2 * padded.len()];
                    for (padded, source) in padded.iter_mut().zip(source.chunks_exact(2)) {
                        *padded = source[0];
                    }
                }
                split => {
                    for (padded, source) in padded.iter_mut().zip(source.iter().step_by(split)) {
                        *padded = *source;
                    }
                }
            }
        }
    }
}

/// Copies a row of an image, for which a call of the library's function would take longer than the copy.
#[inline(always)]
fn copy_short<T: Copy>(from: &[T], to: &mut [T]) {
    const PART: usize = 8;
    let (from_parts, from_rest) = from.as_chunks::<PART>();
    let (to_parts, to_rest) = to.as_chunks_mut::<PART>();
    for (to, from) in to_parts.iter_mut().zip(from_parts) {
        *to = *from;
    }
    for (to, from) in to_rest.iter_mut().zip(from_rest) {
        *to = *from;
    }
}

/// How far apart weights of neighbouring taps on an axis are.
fn weight_distance(window: &Window, axis: usize) -> usize {
    window.kernel[axis + 1..].iter().product()
}
