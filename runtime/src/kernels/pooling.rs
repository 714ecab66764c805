//! Pooling: each plane on its own.

use std::ops::Range;

use super::parallel::{for_each_chunk, for_each_chunk2};
use super::{Float, Window};

/// The largest value of each window and where in its plane it stands; of equal values the first.
///
/// Padding never wins, and every window must see at least one input.
pub(crate) fn max_pool<T: Float>(window: &Window, x: &[T], y: &mut [T], positions: &mut [u32]) {
    let (n_inputs, n_outputs) = (window.n_inputs(), window.n_outputs());
    let work = y.len().saturating_mul(window.n_taps());
    for_each_chunk2((y, n_outputs), (positions, n_outputs), work, |plane, y, positions| {
        let x = &x[plane * n_inputs..][..n_inputs];
        for_each_output(window, |o, [planes, rows, columns]| {
            let (mut best, mut position) = (None, 0);
            for plane in planes {
                for row in rows.clone() {
                    let start = (plane * window.input[1] + row) * window.input[2];
                    let range = start + columns.start..start + columns.end;
                    for (i, x) in range.clone().zip(&x[range]) {
                        if best.is_none_or(|best| *x > best) {
                            (best, position) = (Some(*x), i);
                        }
                    }
                }
            }
            y[o] = best.unwrap_or_default();
            positions[o] = position as u32; // the caller has checked that a plane's positions fit
        });
    });
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

/// The mean of each window; with `including_pad` zeros of the padding count as elements.
pub(crate) fn average_pool<T: Float>(window: &Window, including_pad: bool, x: &[T], y: &mut [T]) {
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
                let divisor = T::of(divisor(window, including_pad, o, &covered));
                let [planes, rows, columns] = covered;
                let mut sum = T::ZERO;
                for plane in planes {
                    for row in rows.clone() {
                        let start = (plane * window.input[1] + row) * window.input[2];
                        sum += x[start + columns.start..start + columns.end]
                            .iter()
                            .fold(T::ZERO, |sum, x| sum + *x);
                    }
                }
                y[o] = sum / divisor;
            });
        },
    );
}

/// The transpose of [`average_pool`].
pub(crate) fn average_pool_gradient<T: Float>(window: &Window, including_pad: bool, dy: &[T], dx: &mut [T]) {
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
                let share = dy[o] / T::of(divisor(window, including_pad, o, &covered));
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

/// How many elements the mean of output `o` is taken over. A window ends with the padding.
fn divisor(window: &Window, including_pad: bool, o: usize, covered: &Covered) -> f64 {
    let [_, height, width] = window.output;
    let place = [o / width / height, o / width % height, o % width];
    let mut count = 1.0;
    for axis in 0..3 {
        let len = if including_pad {
            let end = window.input[axis] + 2 * window.pad[axis];
            window.kernel[axis].min(end - place[axis] * window.stride[axis])
        } else {
            covered[axis].len()
        };
        count *= len as f64;
    }
    count
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
