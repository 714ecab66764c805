//! A window sliding over up to three spatial axes, as convolution and pooling have it.

use std::ops::Range;

use super::Float;
use super::parallel;

/// Sizes of a sliding window; spaces of fewer than three axes have leading axes of size 1.
///
/// Position `o` of the output looks at the inputs `o * stride - pad + tap * dilation`, for each `tap` of the kernel.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    pub(crate) input: [usize; 3],
    pub(crate) output: [usize; 3],
    pub(crate) kernel: [usize; 3],
    pub(crate) pad: [usize; 3],
    pub(crate) stride: [usize; 3],
    pub(crate) dilation: [usize; 3],
}

/// The pixels of one output row from `start` on: `dest` says where they stand in a block of pixels.
struct Segment {
    plane: usize,
    row: usize,
    columns: Range<usize>,
    dest: usize,
}

impl Window {
    pub(crate) fn n_inputs(&self) -> usize {
        self.input.iter().product()
    }

    pub(crate) fn n_outputs(&self) -> usize {
        self.output.iter().product()
    }

    pub(crate) fn n_taps(&self) -> usize {
        self.kernel.iter().product()
    }

    /// Whether each output sees exactly the input at its own place.
    pub(crate) fn is_pointwise(&self) -> bool {
        self.kernel == [1; 3] && self.stride == [1; 3] && self.pad == [0; 3]
    }

    /// The input position that `tap` of the window at output `o` sees on `axis`, if it is not padding.
    pub(crate) fn source(&self, axis: usize, o: usize, tap: usize) -> Option<usize> {
        let shifted = o * self.stride[axis] + tap * self.dilation[axis];
        shifted.checked_sub(self.pad[axis]).filter(|&position| position < self.input[axis])
    }

    /// The outputs on `axis` whose `tap` sees an input and no padding.
    pub(crate) fn outputs_inside(&self, axis: usize, tap: usize) -> Range<usize> {
        let shift = tap * self.dilation[axis];
        let (pad, stride) = (self.pad[axis], self.stride[axis]);
        let low = pad.saturating_sub(shift).div_ceil(stride);
        let high = (self.input[axis] + pad).saturating_sub(shift).div_ceil(stride).min(self.output[axis]);
        low.min(high)..high
    }

    /// The inputs on `axis` that the window at output `o` covers (dilation 1).
    pub(crate) fn inputs_covered(&self, axis: usize, o: usize) -> Range<usize> {
        let start = o * self.stride[axis];
        let end = (start + self.kernel[axis]).saturating_sub(self.pad[axis]).min(self.input[axis]);
        start.saturating_sub(self.pad[axis]).min(end)..end
    }

    /// Writes what each tap sees at the output pixels `pixels`: row `(channel, tap)` of `columns`, in the order of
    /// the weights, holds one value per pixel.
    pub(crate) fn gather<T: Float>(
        &self,
        image: &[T],
        pixels: &Range<usize>,
        columns: &mut [T],
        in_parallel: bool,
    ) {
        if self.n_inputs() == 0 {
            columns.fill(T::ZERO); // only padding to see
            return;
        }
        let n_channels = image.len() / self.n_inputs();
        let per_channel = self.n_taps() * pixels.len();
        let columns = &mut columns[..n_channels * per_channel];
        let work = if in_parallel { columns.len() } else { 0 };
        parallel::for_each_chunk(
            columns,
            per_channel,
            work,
            || (),
            |(), channel, columns| {
                let image = &image[channel * self.n_inputs()..][..self.n_inputs()];
                self.for_each_tap(|tap, taps| {
                    self.gather_tap(image, taps, pixels, &mut columns[tap * pixels.len()..][..pixels.len()]);
                });
            },
        );
    }

    /// The transpose of [`Window::gather`]: adds each value of `columns` to the input it was taken from.
    pub(crate) fn scatter_add<T: Float>(
        &self,
        columns: &[T],
        pixels: &Range<usize>,
        image: &mut [T],
        in_parallel: bool,
    ) {
        let per_channel = self.n_taps() * pixels.len();
        let work = if in_parallel { columns.len() } else { 0 };
        parallel::for_each_chunk(
            image,
            self.n_inputs(),
            work,
            || (),
            |(), channel, image| {
                let columns = &columns[channel * per_channel..][..per_channel];
                self.for_each_tap(|tap, taps| {
                    self.scatter_tap(&columns[tap * pixels.len()..][..pixels.len()], taps, pixels, image);
                });
            },
        );
    }

    /// Calls `f(index, [depth, height, width])` for each tap of the kernel in row-major order.
    pub(crate) fn for_each_tap(&self, mut f: impl FnMut(usize, [usize; 3])) {
        let [depth, height, width] = self.kernel;
        let mut index = 0;
        for d in 0..depth {
            for h in 0..height {
                for w in 0..width {
                    f(index, [d, h, w]);
                    index += 1;
                }
            }
        }
    }

    fn gather_tap<T: Float>(&self, image: &[T], taps: [usize; 3], pixels: &Range<usize>, dest: &mut [T]) {
        let inside = self.outputs_inside(2, taps[2]);
        self.for_each_segment(pixels, |segment| {
            let dest = &mut dest[segment.dest..][..segment.columns.len()];
            let Some(row) = self.source_row(taps, &segment) else {
                dest.fill(T::ZERO);
                return;
            };
            let row = &image[row * self.input[2]..][..self.input[2]];
            let (start, end) = clip(&inside, &segment.columns);
            dest[..start].fill(T::ZERO);
            dest[end..].fill(T::ZERO);
            if start == end {
                return;
            }
            let first = self.first_column(taps[2], segment.columns.start + start);
            let dest = &mut dest[start..end];
            if self.stride[2] == 1 {
                dest.copy_from_slice(&row[first..][..dest.len()]);
            } else {
                for (value, source) in dest.iter_mut().zip(row[first..].iter().step_by(self.stride[2])) {
                    *value = *source;
                }
            }
        });
    }

    fn scatter_tap<T: Float>(&self, source: &[T], taps: [usize; 3], pixels: &Range<usize>, image: &mut [T]) {
        let inside = self.outputs_inside(2, taps[2]);
        self.for_each_segment(pixels, |segment| {
            let Some(row) = self.source_row(taps, &segment) else {
                return;
            };
            let row = &mut image[row * self.input[2]..][..self.input[2]];
            let (start, end) = clip(&inside, &segment.columns);
            if start == end {
                return;
            }
            let first = self.first_column(taps[2], segment.columns.start + start);
            let source = &source[segment.dest..][start..end];
            if self.stride[2] == 1 {
                for (value, addend) in row[first..].iter_mut().zip(source) {
                    *value += *addend;
                }
            } else {
                for (value, addend) in row[first..].iter_mut().step_by(self.stride[2]).zip(source) {
                    *value += *addend;
                }
            }
        });
    }

    /// Cuts a range of flattened output pixels into pieces of rows.
    fn for_each_segment(&self, pixels: &Range<usize>, mut f: impl FnMut(Segment)) {
        let [_, height, width] = self.output;
        let mut pixel = pixels.start;
        while pixel < pixels.end {
            let (row, column) = (pixel / width, pixel % width);
            let len = (width - column).min(pixels.end - pixel);
            f(Segment {
                plane: row / height,
                row: row % height,
                columns: column..column + len,
                dest: pixel - pixels.start,
            });
            pixel += len;
        }
    }

    /// The flattened input row that a tap sees along a segment.
    fn source_row(&self, taps: [usize; 3], segment: &Segment) -> Option<usize> {
        let plane = self.source(0, segment.plane, taps[0])?;
        let row = self.source(1, segment.row, taps[1])?;
        Some(plane * self.input[1] + row)
    }

    /// The input column that a tap sees from output column `o`, which is known to be inside.
    fn first_column(&self, tap: usize, o: usize) -> usize {
        o * self.stride[2] + tap * self.dilation[2] - self.pad[2]
    }
}

/// The part of `columns` inside `inside`, counted from the start of `columns`.
fn clip(inside: &Range<usize>, columns: &Range<usize>) -> (usize, usize) {
    let start = inside.start.clamp(columns.start, columns.end) - columns.start;
    let end = inside.end.clamp(columns.start, columns.end) - columns.start;
    (start, end.max(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(input: usize, kernel: usize, pad: usize, stride: usize, dilation: usize) -> Window {
        let output = (input + 2 * pad - dilation * (kernel - 1) - 1) / stride + 1;
        Window {
            input: [1, 1, input],
            output: [1, 1, output],
            kernel: [1, 1, kernel],
            pad: [0, 0, pad],
            stride: [1, 1, stride],
            dilation: [1, 1, dilation],
        }
    }

    #[test]
    fn outputs_inside_agree_with_the_definition() {
        for (input, kernel, pad, stride, dilation) in
            [(5, 3, 1, 1, 1), (5, 3, 2, 2, 1), (7, 2, 3, 3, 2), (1, 1, 2, 1, 1), (4, 3, 5, 2, 1)]
        {
            let window = line(input, kernel, pad, stride, dilation);
            for tap in 0..kernel {
                let inside = window.outputs_inside(2, tap);
                for o in 0..window.output[2] {
                    assert_eq!(
                        inside.contains(&o),
                        window.source(2, o, tap).is_some(),
                        "{window:?} {tap} {o}"
                    );
                }
            }
        }
    }

    #[test]
    fn gather_of_a_block_is_a_part_of_the_whole() {
        let window = Window {
            input: [2, 3, 4],
            output: [2, 2, 3],
            kernel: [1, 2, 2],
            pad: [0, 1, 1],
            stride: [1, 2, 2],
            dilation: [1, 2, 1],
        };
        let image: Vec<f32> = (1..=48u8).map(f32::from).collect();
        let mut whole = vec![-1.0; 2 * 4 * 12];
        window.gather(&image, &(0..12), &mut whole, false);
        let mut block = vec![-1.0; 2 * 4 * 5];
        window.gather(&image, &(4..9), &mut block, true);
        for row in 0..8 {
            assert_eq!(block[row * 5..][..5], whole[row * 12 + 4..][..5]);
        }
    }
}
