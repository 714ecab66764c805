//! Convolutions whose every group has one input channel: direct loops, a row at a time.

use super::parallel;
use super::{Convolution, Float, Window};

/// `y = w * x + b`.
pub(crate) fn forward<T: Float>(conv: &Convolution, x: &[T], w: &[T], b: Option<&[T]>, y: &mut [T]) {
    let (window, multiplier) = (&conv.window, conv.outmaps / conv.group);
    let (n_inputs, n_taps) = (window.n_inputs(), window.n_taps());
    parallel::for_each_chunk(
        y,
        conv.n_pixels(),
        conv.n_products(),
        || (),
        |(), plane, y| {
            let (n, o) = (plane / conv.outmaps, plane % conv.outmaps);
            let x = &x[(n * conv.inmaps + o / multiplier) * n_inputs..][..n_inputs];
            let w = &w[o * n_taps..][..n_taps];
            y.fill(b.map_or(T::ZERO, |b| b[o]));
            for_each_row(window, |tap, row| {
                let x = &x[row.input..][..row.input_len];
                let y = &mut y[row.output..][..row.len];
                let w = w[tap];
                if row.stride == 1 {
                    for (y, x) in y.iter_mut().zip(x) {
                        *y += w * *x;
                    }
                } else {
                    for (y, x) in y.iter_mut().zip(x.iter().step_by(row.stride)) {
                        *y += w * *x;
                    }
                }
            });
        },
    );
}

/// `dx = transpose of w * dy`, plus `offset` per channel if given.
pub(crate) fn data_gradient<T: Float>(
    conv: &Convolution,
    dy: &[T],
    w: &[T],
    offset: Option<&[T]>,
    dx: &mut [T],
) {
    let (window, multiplier) = (&conv.window, conv.outmaps / conv.group);
    let (n_outputs, n_taps) = (window.n_outputs(), window.n_taps());
    parallel::for_each_chunk(
        dx,
        window.n_inputs(),
        conv.n_products(),
        || (),
        |(), plane, dx| {
            let (n, c) = (plane / conv.inmaps, plane % conv.inmaps);
            dx.fill(offset.map_or(T::ZERO, |offset| offset[c]));
            for o in c * multiplier..(c + 1) * multiplier {
                let dy = &dy[(n * conv.outmaps + o) * n_outputs..][..n_outputs];
                let w = &w[o * n_taps..][..n_taps];
                for_each_row(window, |tap, row| {
                    let dx = &mut dx[row.input..][..row.input_len];
                    let dy = &dy[row.output..][..row.len];
                    let w = w[tap];
                    if row.stride == 1 {
                        for (dx, dy) in dx.iter_mut().zip(dy) {
                            *dx += w * *dy;
                        }
                    } else {
                        for (dx, dy) in dx.iter_mut().step_by(row.stride).zip(dy) {
                            *dx += w * *dy;
                        }
                    }
                });
            }
        },
    );
}

/// `dw = sum over images of dy * x`.
pub(crate) fn weight_gradient<T: Float>(conv: &Convolution, x: &[T], dy: &[T], dw: &mut [T]) {
    let (window, multiplier) = (&conv.window, conv.outmaps / conv.group);
    let (n_inputs, n_outputs) = (window.n_inputs(), window.n_outputs());
    parallel::for_each_chunk(
        dw,
        window.n_taps(),
        conv.n_products(),
        || (),
        |(), o, dw| {
            dw.fill(T::ZERO);
            for n in 0..conv.n_images {
                let x = &x[(n * conv.inmaps + o / multiplier) * n_inputs..][..n_inputs];
                let dy = &dy[(n * conv.outmaps + o) * n_outputs..][..n_outputs];
                for_each_row(window, |tap, row| {
                    let x = &x[row.input..][..row.input_len];
                    dw[tap] += dot(&dy[row.output..][..row.len], x, row.stride);
                });
            }
        },
    );
}

/// A piece of an output row and the input it sees through one tap.
struct Row {
    input: usize,
    input_len: usize,
    output: usize,
    len: usize,
    stride: usize,
}

fn for_each_row(window: &Window, mut f: impl FnMut(usize, &Row)) {
    let [_, in_height, in_width] = window.input;
    let [_, out_height, out_width] = window.output;
    let stride = window.stride[2];
    window.for_each_tap(|tap, [depth, height, width]| {
        let columns = window.outputs_inside(2, width);
        if columns.is_empty() {
            return;
        }
        let first = columns.start * stride + width * window.dilation[2] - window.pad[2];
        for plane in window.outputs_inside(0, depth) {
            let in_plane = plane * window.stride[0] + depth * window.dilation[0] - window.pad[0];
            for row in window.outputs_inside(1, height) {
                let in_row = row * window.stride[1] + height * window.dilation[1] - window.pad[1];
                let row = Row {
                    input: (in_plane * in_height + in_row) * in_width + first,
                    input_len: (columns.len() - 1) * stride + 1,
                    output: (plane * out_height + row) * out_width + columns.start,
                    len: columns.len(),
                    stride,
                };
                f(tap, &row);
            }
        }
    });
}

/// Sum of products in eight running sums, which the compiler can keep in one register.
fn dot<T: Float>(a: &[T], b: &[T], b_stride: usize) -> T {
    let mut sums = [T::ZERO; 8];
    if b_stride == 1 {
        let (a_chunks, b_chunks) = (a.chunks_exact(8), b.chunks_exact(8));
        for (a, b) in a_chunks.remainder().iter().zip(b_chunks.remainder()) {
            sums[0] += *a * *b;
        }
        for (a, b) in a_chunks.zip(b_chunks) {
            for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
                *sum += *a * *b;
            }
        }
    } else {
        for (a, b) in a.iter().zip(b.iter().step_by(b_stride)) {
            sums[0] += *a * *b;
        }
    }
    sums.iter().fold(T::ZERO, |total, sum| total + *sum)
}
