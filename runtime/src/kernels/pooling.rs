//! Pooling: each plane on its own.

use std::array;
use std::ops::Range;

use super::parallel::{for_each_chunk, for_each_chunk2};
use super::simd::{Has, Job, Level, Simd};
use super::{Float, Window};

/// The largest value of each window and where in its plane it stands; of equal values the first.
///
/// Padding never wins, and every window must see at least one input.
pub(crate) fn max_pool<T: Float>(window: &Window, x: &[T], y: &mut [T], positions: &mut [u32]) {
    let (n_inputs, n_outputs) = (window.n_inputs(), window.n_outputs());
    let work = y.len().saturating_mul(window.n_taps());
    let level = Level::detect();
    for_each_chunk2((y, n_outputs), (positions, n_outputs), work, |plane, y, positions| {
        let x = &x[plane * n_inputs..][..n_inputs];
        T::run_narrow(level, MaxPool { window, x, y, positions });
    });
}

/// The windows of one plane.
struct MaxPool<'a, T> {
    window: &'a Window,
    x: &'a [T],
    y: &'a mut [T],
    positions: &'a mut [u32],
}

impl<T: Float> Job<T> for MaxPool<'_, T> {
    #[inline(always)]
    fn run<V: Simd<T>>(self, _: Has<V>) {
        let Self { window, x, y, positions } = self;
        let [_, height, width] = window.output;
        if y.is_empty() {
            return;
        }
        let inner = columns_inside(window);
        let rows = y.chunks_exact_mut(width).zip(positions.chunks_exact_mut(width));
        for (i, (y, positions)) in rows.enumerate() {
            let (planes, rows) = (window.inputs_covered(0, i / height), window.inputs_covered(1, i % height));
            let mut first = true;
            for row in planes.flat_map(|plane| rows.clone().map(move |row| plane * window.input[1] + row)) {
                let start = row * window.input[2];
                let x = &x[start..][..window.input[2]];
                for column in (0..inner.start).chain(inner.end..width) {
                    let covered = window.inputs_covered(2, column);
                    let best = (!first).then_some((y[column], positions[column]));
                    let values = covered.clone().map(|i| (x[i], (start + i) as u32));
                    if let Some(best) = best.into_iter().chain(values).reduce(larger) {
                        (y[column], positions[column]) = best;
                    }
                }
                let source = (inner.start * window.stride[2]).saturating_sub(window.pad[2]);
                let strip = Strip {
                    first,
                    x: &x[source.min(x.len())..],
                    position: (start + source) as u32,
                    y: &mut y[inner.clone()],
                    positions: &mut positions[inner.clone()],
                };
                // The compiler makes vectors of the common sizes.
                match (window.kernel[2], window.stride[2]) {
                    (2, 2) => strip.update(2, 2),
                    (3, 2) => strip.update(3, 2),
                    (3, 1) => strip.update(3, 1),
                    (kernel, stride) => strip.update(kernel, stride),
                }
                first = false;
            }
        }
    }
}

/// The second, if it is larger.
#[inline(always)]
fn larger<T: Float>(best: (T, u32), other: (T, u32)) -> (T, u32) {
    if other.0 > best.0 { other } else { best }
}

/// The outputs on the last axis whose windows see no padding.
fn columns_inside(window: &Window) -> Range<usize> {
    let (pad, stride) = (window.pad[2], window.stride[2]);
    let end = match (window.input[2] + pad).checked_sub(window.kernel[2]) {
        Some(last) => (last / stride + 1).min(window.output[2]),
        None => 0,
    };
    pad.div_ceil(stride).min(end)..end
}

/// The outputs of a row whose windows lie inside, and a row of the input.
struct Strip<'a, T> {
    /// Whether there is no largest value yet.
    first: bool,
    /// The input from the first window on, and the position of its first element in the plane.
    x: &'a [T],
    position: u32,
    y: &'a mut [T],
    positions: &'a mut [u32],
}

impl<T: Float> Strip<'_, T> {
    /// Takes the row into account, some outputs at a time so that the compiler can use vectors.
    #[inline(always)]
    fn update(mut self, kernel: usize, stride: usize) {
        const PART: usize = 8;
        let (y_parts, y_rest) = std::mem::take(&mut self.y).as_chunks_mut::<PART>();
        let (position_parts, position_rest) = std::mem::take(&mut self.positions).as_chunks_mut::<PART>();
        for (y, positions) in y_parts.iter_mut().zip(position_parts) {
            self.update_part(y, positions, kernel, stride);
        }
        for (y, position) in y_rest.iter_mut().zip(position_rest) {
            self.update_part(array::from_mut(y), array::from_mut(position), kernel, stride);
        }
    }

    /// Updates the next `N` outputs.
    #[inline(always)]
    fn update_part<const N: usize>(
        &mut self,
        y: &mut [T; N],
        positions: &mut [u32; N],
        kernel: usize,
        stride: usize,
    ) {
        let x = &self.x[..(N - 1) * stride + kernel];
        let position_of = |i: usize, tap: usize| self.position + (i * stride + tap) as u32;
        let (mut largest, mut best) = (*y, *positions);
        if self.first {
            largest = array::from_fn(|i| x[i * stride]);
            best = array::from_fn(|i| position_of(i, 0));
        }
        for tap in usize::from(self.first)..kernel {
            let values: [T; N] = array::from_fn(|i| x[i * stride + tap]);
            for i in 0..N {
                let is_larger = values[i] > largest[i];
                best[i] = if is_larger { position_of(i, tap) } else { best[i] };
                largest[i] = if is_larger { values[i] } else { largest[i] };
            }
        }
        (*y, *positions) = (largest, best);
        self.x = self.x.get(N * stride..).unwrap_or_default();
        self.position = self.position.wrapping_add((N * stride) as u32);
    }
}

/// `dx[position of the largest] += dy`.
pub(crate) fn max_pool_gradient<T: Float>(window: &Window, positions: &[u32], dy: &[T], dx: &mut [T]) {
    let n_outputs = window.n_outputs();
    let work = dx.len();
    for_each_chunk(
        dx,
        window.n_inputs(),
        work,
        || (),
        |(), plane, dx| {
            let range = plane * n_outputs..(plane + 1) * n_outputs;
            dx.fill(T::ZERO);
            for (position, dy) in positions[range.clone()].iter().zip(&dy[range]) {
                dx[*position as usize] += *dy;
            }
        },
    );
}

/// What the sum of a window is divided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Divisor {
    /// Nothing.
    One,
    /// The inputs of the window.
    Inputs,
    /// The inputs of the window and the zeros of its padding.
    Padded,
}

/// The sum of each window, divided.
pub(crate) fn sum_pool<T: Float>(window: &Window, by: Divisor, x: &[T], y: &mut [T]) {
    let n_inputs = window.n_inputs();
    let work = y.len().saturating_mul(window.n_taps());
    for_each_chunk(
        y,
        window.n_outputs(),
        work,
        || (),
        |(), plane, y| {
            let x = &x[plane * n_inputs..][..n_inputs];
            for_each_output(window, |o, covered| {
                let divisor = by.of(window, o, &covered);
                let [planes, rows, columns] = covered;
                let mut sum = 0.0; // a window may be a whole image
                for plane in planes {
                    for row in rows.clone() {
                        let start = (plane * window.input[1] + row) * window.input[2];
                        sum += x[start + columns.start..start + columns.end]
                            .iter()
                            .fold(0.0, |sum, x| sum + x.wide());
                    }
                }
                y[o] = T::of(sum / divisor);
            });
        },
    );
}

/// The transpose of [`sum_pool`].
pub(crate) fn sum_pool_gradient<T: Float>(window: &Window, by: Divisor, dy: &[T], dx: &mut [T]) {
    let n_outputs = window.n_outputs();
    let work = dx.len();
    for_each_chunk(
        dx,
        window.n_inputs(),
        work,
        || (),
        |(), plane, dx| {
            let dy = &dy[plane * n_outputs..][..n_outputs];
            dx.fill(T::ZERO);
            for_each_output(window, |o, covered| {
                let share = dy[o] / T::of(by.of(window, o, &covered));
                let [planes, rows, columns] = covered;
                for plane in planes {
                    for row in rows.clone() {
                        let start = (plane * window.input[1] + row) * window.input[2];
                        for dx in &mut dx[start + columns.start..start + columns.end] {
                            *dx += share;
                        }
                    }
                }
            });
        },
    );
}

/// The inputs that a window covers, on each axis.
type Covered = [Range<usize>; 3];

impl Divisor {
    /// For output `o`. A window ends with the padding.
    fn of(self, window: &Window, o: usize, covered: &Covered) -> f64 {
        let [_, height, width] = window.output;
        let place = [o / width / height, o / width % height, o % width];
        (0..3).map(|axis| self.along(window, axis, place[axis], covered[axis].len()) as f64).product()
    }

    /// Its factor for one axis, where the window at output `o` covers `n_inputs`.
    pub(crate) fn along(self, window: &Window, axis: usize, o: usize, n_inputs: usize) -> usize {
        match self {
            Self::One => 1,
            Self::Inputs => n_inputs,
            Self::Padded => {
                let end = window.input[axis] + 2 * window.pad[axis];
                window.kernel[axis].min(end - o * window.stride[axis])
            }
        }
    }
}

/// Calls `f` with each output's index and the inputs that its window covers.
fn for_each_output(window: &Window, mut f: impl FnMut(usize, Covered)) {
    let [depth, height, width] = window.output;
    let mut o = 0;
    for plane in 0..depth {
        let planes = window.inputs_covered(0, plane);
        for row in 0..height {
            let rows = window.inputs_covered(1, row);
            for column in 0..width {
                f(o, [planes.clone(), rows.clone(), window.inputs_covered(2, column)]);
                o += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (size, kernel, pad, stride) of the last two axes; the last windows may reach over the end.
    #[test]
    fn max_pooling_is_its_definition() {
        for [size, kernel, pad, stride, extra] in [
            [24, 2, 0, 2, 0],
            [23, 2, 0, 2, 1],
            [31, 3, 1, 2, 0],
            [30, 3, 1, 1, 0],
            [9, 5, 2, 3, 1],
            [1, 3, 1, 1, 0],
            [2, 4, 3, 2, 0],
            [40, 2, 0, 5, 0],
        ] {
            let output = (size + 2 * pad - kernel) / stride + 1 + extra;
            let window = Window {
                input: [2, size, size],
                output: [1, output, output],
                kernel: [2, kernel, kernel],
                pad: [0, pad, pad],
                stride: [1, stride, stride],
                dilation: [1; 3],
            };
            // Many equal values, and NaN, which only a first element passes on.
            let value = |i: usize| if i.is_multiple_of(11) { f32::NAN } else { (i * 7919 % 13) as f32 };
            let x: Vec<f32> = (0..2 * window.n_inputs()).map(value).collect();
            let mut y = vec![0.0; 2 * window.n_outputs()];
            let mut positions = vec![0; y.len()];
            max_pool(&window, &x, &mut y, &mut positions);
            for plane in 0..2 {
                let x = &x[plane * window.n_inputs()..][..window.n_inputs()];
                for_each_output(&window, |o, [planes, rows, columns]| {
                    let mut covered = Vec::new();
                    for (plane, row) in planes.flat_map(|plane| rows.clone().map(move |row| (plane, row))) {
                        covered.extend(columns.clone().map(|column| (plane * size + row) * size + column));
                    }
                    let best =
                        covered.into_iter().reduce(|best, i| if x[i] > x[best] { i } else { best }).unwrap();
                    let o = plane * window.n_outputs() + o;
                    assert_eq!(positions[o] as usize, best, "{window:?}");
                    assert_eq!(y[o].to_bits(), x[best].to_bits(), "{window:?}");
                });
            }
        }
    }
}
