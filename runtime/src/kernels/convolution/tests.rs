//! Every level of the processor against the definition, over awkward sizes.

use super::*;

fn window(axes: [[usize; 5]; 3]) -> Option<Window> {
    let column = |i: usize| axes.map(|axis| axis[i]);
    let mut output = [0; 3];
    for (output, [size, kernel, pad, stride, dilation]) in output.iter_mut().zip(axes) {
        *output = (size + 2 * pad).checked_sub(dilation * (kernel - 1) + 1)? / stride + 1;
    }
    Some(Window {
        input: column(0),
        output,
        kernel: column(1),
        pad: column(2),
        stride: column(3),
        dilation: column(4),
    })
}

/// Sizes that reach every kernel, with whole and ragged vectors and tiles.
fn convolutions() -> Vec<Convolution> {
    const ONE: [usize; 5] = [1, 1, 0, 1, 1];
    // (size, kernel, pad, stride, dilation) of each axis
    let windows = [
        [ONE, [9, 3, 1, 1, 1], [31, 3, 1, 1, 1]],
        [ONE, [12, 5, 0, 1, 1], [12, 5, 0, 1, 1]],
        [ONE, [11, 7, 3, 2, 1], [10, 7, 3, 2, 1]],
        [ONE, [7, 1, 0, 2, 1], [8, 1, 0, 3, 1]],
        [ONE, ONE, [70, 3, 2, 1, 2]],
        [ONE, ONE, [5, 2, 4, 3, 1]],
        [ONE, [3, 3, 5, 1, 1], [4, 2, 7, 4, 3]],
        [[4, 2, 1, 2, 1], [5, 3, 0, 1, 2], [9, 3, 2, 2, 2]],
        [ONE, [6, 1, 0, 1, 1], [5, 1, 0, 1, 1]],
        [ONE, [3, 2, 1, 1, 1], [0, 2, 1, 1, 1]],
        [ONE, [2, 1, 0, 5, 1], [2, 1, 3, 5, 1]],
        [ONE, [10, 3, 0, 1, 1], [7, 3, 2, 1, 1]],
    ];
    // (images, groups, input maps of a group, output maps of a group)
    let maps = [
        (9, 1, 3, 17),
        (2, 1, 4, 48),
        (1, 1, 2, 70),
        (3, 1, 5, 3),
        (1, 1, 33, 1),
        (2, 5, 1, 1),
        (3, 4, 1, 2),
        (4, 2, 3, 12),
        (3, 1, 13, 20),
        (1, 2, 36, 12),
        (9, 1, 12, 15),
        (0, 1, 2, 2),
        (2, 1, 0, 3),
        (2, 1, 3, 0),
    ];
    let mut convolutions = Vec::new();
    for window in windows.map(|axes| window(axes).unwrap()) {
        for (n_images, group, inmaps, outmaps) in maps {
            let (inmaps, outmaps) = (group * inmaps, group * outmaps);
            convolutions.push(Convolution { n_images, inmaps, outmaps, group, window: window.clone() });
        }
    }
    convolutions
}

fn values<T: Float>(n: usize, seed: usize) -> Vec<T> {
    (0..n).map(|i| T::of(((i * 7919 + seed * 104_729) % 2003) as f64 / 1001.0 - 1.0)).collect()
}

/// The input position that `tap` of the window at output `o` sees on `axis`, if it is not padding.
fn source(window: &Window, axis: usize, o: usize, tap: usize) -> Option<usize> {
    let shifted = o * window.stride[axis] + tap * window.dilation[axis];
    shifted.checked_sub(window.pad[axis]).filter(|&position| position < window.input[axis])
}

/// The place of element `i` in an array of three axes.
fn place(i: usize, [_, height, width]: [usize; 3]) -> [usize; 3] {
    [i / width / height, i / width % height, i % width]
}

/// Calls `f(x index, w index, y index)` for each product.
fn for_each_product(conv: &Convolution, mut f: impl FnMut(usize, usize, usize)) {
    let window = &conv.window;
    let [_, height, width] = window.input;
    let (group_in, group_out) = (conv.inmaps / conv.group, conv.outmaps / conv.group);
    for y in 0..conv.n_images * conv.outmaps * window.n_outputs() {
        let (map, pixel) = (y / window.n_outputs(), place(y % window.n_outputs(), window.output));
        let (n, o) = (map / conv.outmaps, map % conv.outmaps);
        for (c, tap) in (0..group_in).flat_map(|c| (0..window.n_taps()).map(move |tap| (c, tap))) {
            let taps = place(tap, window.kernel);
            let source = |axis| source(window, axis, pixel[axis], taps[axis]);
            if let (Some(d), Some(h), Some(w)) = (source(0), source(1), source(2)) {
                let plane = n * conv.inmaps + o / group_out * group_in + c;
                let x = plane * window.n_inputs() + (d * height + h) * width + w;
                f(x, (o * group_in + c) * window.n_taps() + tap, y);
            }
        }
    }
}

fn assert_close<T: Float>(got: &[T], want: &[f64], tolerance: f64, what: &str) {
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let error = (got.wide() - want).abs();
        assert!(error <= tolerance * (1.0 + want.abs()), "{what}: element {i} is {got:?}, not {want}");
    }
}

fn check<T: Float>(tolerance: f64) {
    for conv in convolutions() {
        let n_weights = conv.outmaps * conv.n_weights_per_map();
        let x = values::<T>(conv.n_images * conv.inmaps * conv.window.n_inputs(), 1);
        let w = values::<T>(n_weights, 2);
        let dy = values::<T>(conv.n_images * conv.outmaps * conv.window.n_outputs(), 3);
        let (b, offset) = (values::<T>(conv.outmaps, 4), values::<T>(conv.inmaps, 5));

        let per_map = |values: &[T], len: usize, i: usize| values[i / len % values.len()].wide();
        let mut y: Vec<f64> = (0..dy.len()).map(|i| per_map(&b, conv.window.n_outputs(), i)).collect();
        let mut dx: Vec<f64> = (0..x.len()).map(|i| per_map(&offset, conv.window.n_inputs(), i)).collect();
        let mut dw = vec![0.0; n_weights];
        for_each_product(&conv, |i, j, o| {
            y[o] += x[i].wide() * w[j].wide();
            dx[i] += dy[o].wide() * w[j].wide();
            dw[j] += dy[o].wide() * x[i].wide();
        });

        for level in Level::all() {
            let what = |pass: &str| format!("{pass} at {level:?} of {conv:?}");
            let mut got = vec![T::of(9.0); y.len()];
            conv.forward_at(level, &x, &w, Some(&b), &mut got);
            assert_close(&got, &y, tolerance, &what("forward"));
            let mut got = vec![T::of(9.0); dx.len()];
            conv.data_gradient_at(level, &dy, &w, Some(&offset), &mut got);
            assert_close(&got, &dx, tolerance, &what("data gradient"));
            let mut got = vec![T::of(9.0); n_weights];
            conv.weight_gradient_at(level, &x, &dy, &mut got);
            assert_close(&got, &dw, 10.0 * tolerance, &what("weight gradient"));
        }
    }
}

#[test]
fn f32_convolutions_are_their_definition_at_every_level() {
    check::<f32>(1e-4);
}

#[test]
fn f64_convolutions_are_their_definition_at_every_level() {
    check::<f64>(1e-12);
}
