//! Functions that move elements, put them together or reduce them.

use candle_core::{DType, Device, Tensor};
use layerfn::functions::{self as f, BorderMode, Interpolation, InterpolationMode, PadMode};
use layerfn::{Axes, Result};
use layerfn_tests::{assert_close, assert_gradients, both_paths, flat, gate, gradients, values};

/// A function of one tensor, and sizes to try it on.
type Case = (&'static str, fn(&Tensor) -> Result<Tensor>, &'static [&'static [usize]]);

const MOVES: &[Case] = &[
    ("transpose", |x| f::transpose(x, (2, 0, 1)), &[&[2, 3, 4], &[0, 3, 4], &[17, 20, 33], &[1, 40, 48]]),
    ("transpose of images", |x| f::transpose(x, (0, 2, 3, -3)), &[&[2, 3, 4, 5], &[3, 16, 9, 32]]),
    ("swapaxes", |x| f::swapaxes(x, 0, -1), &[&[2, 3, 4], &[40, 33]]),
    ("flip", |x| f::flip(x, (0, 2)), &[&[2, 3, 4], &[0, 3, 2]]),
    (
        "slice",
        |x| f::slice(x, &[Some(1), Some(-3)], &[None, None], &[2, 1]),
        &[&[2, 5, 4], &[5, 4], &[0, 5, 4]],
    ),
    ("slice backwards", |x| f::slice(x, &[], &[], &[-1, -2]), &[&[2, 5, 4], &[3, 70]]),
    ("slice of nothing", |x| f::slice(x, &[Some(3)], &[Some(3)], &[]), &[&[2, 5]]),
    ("broadcast", |x| f::broadcast(x, (2, 3, 4)), &[&[1, 3, 1], &[4], &[], &[2, 3, 4]]),
    ("broadcast of nothing", |x| f::broadcast(x, (0, 3, 4)), &[&[3, 1]]),
    ("tile", |x| f::tile(x, (2, 1, 3)), &[&[2, 3], &[2, 1, 2], &[0, 2], &[3, 2, 2, 4]]),
    ("unpooling", |x| f::unpooling(x, &(2, 3).into(), false), &[&[2, 3, 4], &[2, 2], &[0, 2, 2]]),
    ("unpooling with channels last", |x| f::unpooling(x, &(2, 1).into(), true), &[&[2, 3, 4, 2]]),
    ("pad", |x| f::pad(x, &[1, 2, 0, 3], PadMode::Constant, 0.5), &[&[2, 3, 4], &[0, 3, 4], &[2, 0, 3]]),
    ("reflect", |x| f::pad(x, &[1, 2, 7, 5], PadMode::Reflect, 0.0), &[&[2, 3, 4], &[1, 3], &[0, 3, 4]]),
    ("repeat", |x| f::pad(x, &[1, 2, 0, 3], PadMode::Repeat, 0.0), &[&[2, 3, 4], &[0, 3, 4]]),
    ("shift", |x| f::shift(x, &[1, -2], BorderMode::Nearest), &[&[2, 4, 5], &[3, 3], &[0, 2, 2]]),
    ("shift with reflection", |x| f::shift(x, &[-9, 3], BorderMode::Reflect), &[&[2, 4, 5]]),
    ("reshape", |x| f::reshape(x, &[3, -1]), &[&[2, 3, 4], &[6]]),
    ("flatten", |x| f::flatten(x, -2), &[&[2, 3, 4], &[0, 3, 4]]),
    ("matrix_diag", f::matrix_diag, &[&[2, 3], &[4], &[0, 2], &[2, 0]]),
    ("matrix_diag_part", f::matrix_diag_part, &[&[2, 3, 3], &[2, 4], &[0, 2, 2]]),
];

const REDUCTIONS: &[Case] = &[
    ("sum", |x| f::sum(x, .., false), &[&[2, 3], &[], &[0, 3], &[3, 70, 40]]),
    (
        "sum over an axis",
        |x| f::sum(x, 1, false),
        &[&[2, 3, 4], &[2, 0, 3], &[0, 3], &[5, 300, 30], &[1, 90, 3]],
    ),
    ("sum over two axes", |x| f::sum(x, (-1, 0), true), &[&[2, 3, 4], &[20, 3, 70], &[2, 0, 4]]),
    ("sum over no axis", |x| f::sum(x, (), false), &[&[2, 3]]),
    ("mean", |x| f::mean(x, (0, 2), false), &[&[2, 3, 4], &[2, 3, 4, 5]]),
    ("reduce_sum", f::reduce_sum, &[&[2, 3]]),
    ("reduce_mean", f::reduce_mean, &[&[2, 3]]),
    ("max", |x| f::max(x, 1, false), &[&[2, 3, 4], &[0, 3], &[3, 40, 20]]),
    ("max over two axes", |x| f::max(x, (0, 2), true), &[&[2, 3, 4]]),
    ("min", |x| f::min(x, .., false), &[&[2, 3, 4], &[1]]),
    ("prod", |x| f::prod(x, 1, false), &[&[2, 3, 4], &[2, 0, 4], &[2, 1, 3], &[2, 7]]),
    ("prod over two axes", |x| f::prod(x, (0, 2), true), &[&[2, 3, 2]]),
    ("norm", |x| f::norm(x, 2.0, -1, false), &[&[2, 3], &[0, 3], &[2, 70]]),
    ("norm of order 3", |x| f::norm(x, 3.0, (0, 2), true), &[&[2, 3, 4]]),
    ("norm of order 1", |x| f::norm(x, 1.0, 1, false), &[&[2, 3, 4]]),
    ("norm_normalization", |x| f::norm_normalization(x, 2.0, 1, 1e-12), &[&[2, 3], &[2, 3, 4], &[0, 3]]),
    ("normalization of order 3", |x| f::norm_normalization(x, 3.0, (0, 2), 1e-3), &[&[2, 3, 4]]),
    ("normalization of short vectors", |x| f::norm_normalization(x, 2.0, 0, 100.0), &[&[3, 2]]),
    ("cumsum", |x| f::cumsum(x, 1, false, false), &[&[2, 3, 4], &[2, 5], &[0, 3], &[2, 0, 3]]),
    ("cumsum from the end", |x| f::cumsum(x, -2, true, true), &[&[2, 3, 4], &[9, 2], &[1, 2]]),
    ("sort", |x| f::sort(x, 1, false), &[&[2, 5], &[2, 4, 3], &[0, 3]]),
    ("sort from the largest on", |x| f::sort(x, -1, true), &[&[2, 5]]),
    ("tensor_normalization", |x| Ok(f::tensor_normalization(x, 1, None, None, 0.1)?.0), &[&[3, 4, 2]]),
    ("weight_standardization", |x| Ok(f::weight_standardization(x, 0, 0.1)?.0), &[&[3, 2, 2]]),
];

#[test]
fn moved_elements_take_their_gradients_along() {
    for (name, function, shapes) in MOVES.iter().chain(REDUCTIONS) {
        for dims in *shapes {
            println!("{name} {dims:?}");
            gate(|t| function(&t[0]), &[values(*dims, 1)]);
        }
    }
}

#[test]
fn interpolation_of_every_kind() {
    let plain = Interpolation::default();
    let kinds = [
        plain,
        Interpolation { align_corners: true, ..plain },
        Interpolation { half_pixel: true, ..plain },
        Interpolation { mode: InterpolationMode::Nearest, ..plain },
        Interpolation { mode: InterpolationMode::Nearest, half_pixel_for_nn: true, ..plain },
        Interpolation { channel_last: true, half_pixel: true, ..plain },
        Interpolation { channel_last: true, mode: InterpolationMode::Nearest, ..plain },
    ];
    let shapes: [(&[usize], &[usize]); 6] = [
        (&[2, 3, 4, 3], &[5, 7]),
        (&[2, 7, 6, 2], &[3, 1]),
        (&[2, 5, 3], &[8]),
        (&[1, 2, 2, 3, 2], &[3, 2, 4]),
        (&[0, 3, 4, 3], &[5, 7]),
        (&[1, 3, 30, 20], &[2, 45]),
    ];
    for how in kinds {
        for (dims, sizes) in shapes {
            gate(|t| f::interpolate(&t[0], None, Some(sizes), how), &[values(dims, 1)]);
        }
    }
}

#[test]
fn joined_and_parted() {
    let of =
        |dims: &[&[usize]]| dims.iter().zip(1..).map(|(dims, seed)| values(*dims, seed)).collect::<Vec<_>>();
    let all = |t: &[Tensor]| t.iter().collect::<Vec<_>>().len();
    assert_eq!(all(&[]), 0);
    for shapes in [
        &[&[2, 3, 4][..], &[2, 1, 4], &[2, 2, 4]][..],
        &[&[2, 3], &[2, 0], &[2, 1], &[2, 4], &[2, 2]],
        &[&[0, 3, 2], &[0, 1, 2]],
        &[&[3, 4]],
    ] {
        gate(|t| f::concatenate(&t.iter().collect::<Vec<_>>(), 1), &of(shapes));
    }
    gate(|t| f::concatenate(&t.iter().collect::<Vec<_>>(), -1), &of(&[&[2], &[3]]));
    for axis in [0, 1, -1] {
        gate(|t| f::stack(&t.iter().collect::<Vec<_>>(), axis), &of(&[&[2, 3], &[2, 3], &[2, 3]]));
        // Each part on its own, two of them together, and one left out.
        gate(|t| Ok(f::split(&t[0], axis)?.swap_remove(1)), &[values([2, 3, 4], 1)]);
        gate(
            |t| {
                let parts = f::split(&t[0], axis)?;
                Ok((&parts[0] * &parts[1])?)
            },
            &[values([2, 3, 4], 1)],
        );
    }
    assert!(f::split(&values([2, 0], 1), 1).unwrap().is_empty());
    assert!(f::concatenate(&[], 0).is_err());
}

#[test]
fn products_of_batches() {
    for (a, b, of_a, of_b) in [
        (&[2, 3, 4][..], &[2, 4, 5][..], false, false),
        (&[2, 4, 3], &[2, 4, 5], true, false),
        (&[2, 3, 4], &[2, 5, 4], false, true),
        (&[2, 2, 4, 3], &[2, 2, 5, 4], true, true),
        (&[2, 1, 3, 4], &[1, 3, 4, 2], false, false),
        (&[2, 3, 3, 4], &[4, 2], false, false),
        (&[3, 4], &[2, 4, 2], false, false),
        (&[4, 3], &[4, 2], true, false),
        (&[2, 70, 80], &[2, 80, 90], false, false),
        (&[0, 3, 4], &[0, 4, 2], false, false),
        (&[2, 3, 0], &[2, 0, 2], false, false),
    ] {
        gate(|t| f::batch_matmul(&t[0], &t[1], of_a, of_b), &[values(a, 1), values(b, 2)]);
    }
    for (a, b) in [(&[2, 3, 4][..], &[2, 3, 4][..]), (&[4], &[4, 2]), (&[2, 3, 4], &[3, 4, 2])] {
        assert!(f::batch_matmul(&values(a, 1), &values(b, 2), false, false).is_err());
    }
}

fn indices(dims: &[usize], of: &[u32]) -> Tensor {
    Tensor::from_slice(of, dims, &Device::Cpu).unwrap()
}

#[test]
fn looked_up_and_put_down() {
    let x = [values([3, 4, 2], 1)];
    gate(|t| f::gather(&t[0], &indices(&[2, 2], &[3, 0, 3, 1]), 1, 0), &x);
    gate(|t| f::gather(&t[0], &indices(&[3, 2], &[3, 0, 3, 1, 2, 2]), 1, 1), &x);
    gate(|t| f::gather(&t[0], &indices(&[3, 1], &[1, 0, 1]), -1, 1), &x);
    gate(|t| f::gather(&t[0], &indices(&[0], &[]), 0, 0), &x);
    gate(|t| f::gather_nd(&t[0], &indices(&[2, 3], &[2, 0, 2, 1, 3, 1])), &x);
    gate(|t| f::gather_nd(&t[0], &indices(&[3, 1, 2], &[2, 2, 1, 1, 0, 0])), &x);
    let places = indices(&[1, 3], &[4, 1, 4]);
    for add in [false, true] {
        gate(|t| f::scatter_nd(&t[0], &places, (5, 4, 2), add), &x);
        gate(
            |t| f::scatter_nd(&t[0], &indices(&[2, 2], &[1, 1, 0, 0]), (2, 3, 3), add),
            &[values([2, 3], 1)],
        );
    }
    both_paths(|| {
        let x = Tensor::new(&[9f32, 10., 11., 12.], &Device::Cpu).unwrap();
        let places = indices(&[1, 4], &[3, 1, 3, 7]);
        assert_eq!(flat(&f::scatter_nd(&x, &places, 8, false).unwrap()), [0., 10., 0., 11., 0., 0., 0., 12.]);
        assert_eq!(flat(&f::scatter_nd(&x, &places, 8, true).unwrap()), [0., 10., 0., 20., 0., 0., 0., 12.]);
        assert!(
            f::scatter_nd(&x, &places, 7, true)
                .unwrap_err()
                .to_string()
                .contains("`indices` must hold indices")
        );
    });
}

/// Of several equal elements the first one is taken, whatever order the axes are named in.
#[test]
fn places_of_the_extremes() {
    both_paths(|| {
        let x = Tensor::new(&[[1f32, 3., 3.], [5., 5., 2.]], &Device::Cpu).unwrap();
        let both = |(y, index): (Tensor, Tensor)| (flat(&y), flat(&index));
        assert_eq!(both(f::max_with_index(&x, 1, false).unwrap()), (vec![3., 5.], vec![1., 0.]));
        assert_eq!(both(f::max_with_index(&x, .., false).unwrap()), (vec![5.], vec![3.]));
        assert_eq!(both(f::min_with_index(&x, (1, 0), true).unwrap()), (vec![1.], vec![0.]));
        assert_eq!(both(f::min_with_index(&x, (), false).unwrap()).1, [0.; 6]);
        let ties = Tensor::new(&[[2f64, 2., 1.]], &Device::Cpu).unwrap();
        let dy = Tensor::ones(1, DType::F64, &Device::Cpu).unwrap();
        let got = gradients(|t| f::max(&t[0], 1, false), &[ties], &dy, |_| true);
        assert_eq!(flat(got[0].as_ref().unwrap()), [1., 0., 0.]);
        let sorted = |reverse| both(f::sort_with_index(&x, 1, reverse).unwrap());
        assert_eq!(sorted(false), (vec![1., 3., 3., 2., 5., 5.], vec![0., 1., 2., 2., 0., 1.]));
        assert_eq!(sorted(true), (vec![3., 3., 1., 5., 5., 2.], vec![1., 2., 0., 0., 1., 2.]));
        for nothing in
            [f::max(&x.narrow(1, 0, 0).unwrap(), 1, false), f::mean(&x.narrow(0, 0, 0).unwrap(), 0, false)]
        {
            assert!(nothing.unwrap_err().to_string().contains("must have elements along the axes"));
        }
    });
}

/// Vectors of zeros have a norm of 0, no direction, and no gradient.
#[test]
fn norms_of_zeros_are_no_trouble() {
    both_paths(|| {
        let x = Tensor::new(&[[0f64, 0.], [3., -4.]], &Device::Cpu).unwrap();
        for p in [1.0, 2.0, 3.0] {
            let dy = Tensor::ones(2, DType::F64, &Device::Cpu).unwrap();
            let got = gradients(|t| f::norm(&t[0], p, 1, false), std::slice::from_ref(&x), &dy, |_| true);
            assert_eq!(flat(got[0].as_ref().unwrap())[..2], [0., 0.]);
            let y = f::norm_normalization(&x, p, 1, 1e-12).unwrap();
            assert_eq!(flat(&y)[..2], [0., 0.]);
        }
    });
}

/// Products with one zero and with two.
#[test]
fn products_with_zeros_have_gradients() {
    both_paths(|| {
        let x = Tensor::new(&[[2f64, 0., 3.], [0., 5., 0.]], &Device::Cpu).unwrap();
        let dy = Tensor::ones(2, DType::F64, &Device::Cpu).unwrap();
        let got = gradients(|t| f::prod(&t[0], 1, false), &[x], &dy, |_| true);
        assert_eq!(flat(got[0].as_ref().unwrap()), [0., 6., 0., 0., 0., 0.]);
    });
}

#[test]
fn statistics_flow_back_and_shift_and_scale_have_any_shape() {
    let inputs = [values([3, 4, 2], 1), values([1, 4, 1], 2), values([1, 4, 1], 3)];
    gate(|t| Ok(f::tensor_normalization(&t[0], 1, Some(&t[1]), Some(&t[2]), 0.1)?.0), &inputs);
    let inputs = [values([3, 4, 2], 1), values([4, 2], 2), values([3, 4, 2], 3)];
    gate(|t| Ok(f::tensor_normalization(&t[0], 0, Some(&t[1]), Some(&t[2]), 0.1)?.0), &inputs);
    // Of half precisions the statistics are f32.
    // Shapes that cannot be, or for which there is no memory, are errors.
    let x = Tensor::ones((2, 3), DType::F32, &Device::Cpu).unwrap();
    for dims in [vec![2, 1, 2, 3], vec![1 << 40, 1], vec![1 << 45], vec![4, 3]] {
        let large = Tensor::ones(1, DType::F32, &Device::Cpu).unwrap().broadcast_as(dims.clone()).unwrap();
        for [beta, gamma] in [[Some(&large), None], [None, Some(&large)]] {
            assert!(f::tensor_normalization(&x, 1, beta, gamma, 0.1).is_err(), "{dims:?}");
        }
    }
    assert_gradients(|t| Ok(f::tensor_normalization(&t[0], -1, None, None, 0.1)?.2), &inputs[..1]);
}

/// Indices and labels are moved too.
#[test]
fn integers_may_be_moved() {
    both_paths(|| {
        let x = indices(&[2, 3], &[1, 2, 3, 4, 5, 6]);
        let u32s = |x: Tensor| x.flatten_all().unwrap().to_vec1::<u32>().unwrap();
        assert_eq!(u32s(f::transpose(&x, (1, 0)).unwrap()), [1, 4, 2, 5, 3, 6]);
        assert_eq!(u32s(f::pad(&x, &[1, 0], PadMode::Constant, 7.0).unwrap()), [7, 1, 2, 3, 7, 4, 5, 6]);
        assert_eq!(u32s(f::concatenate(&[&x, &x], 0).unwrap())[6..], [1, 2, 3, 4, 5, 6]);
        assert_eq!(u32s(f::split(&x, 0).unwrap().remove(1)), [4, 5, 6]);
        assert_eq!(u32s(f::broadcast(&x, (2, 2, 3)).unwrap())[..6], [1, 2, 3, 4, 5, 6]);
    });
}

#[test]
fn what_does_not_fit_is_an_error_in_words() {
    let x = values([2, 3], 1);
    let text = |result: Result<Tensor>| result.unwrap_err().to_string();
    for (error, part) in [
        (text(f::transpose(&x, 0)), "`axes` must name each of the 2 axes, got [0]"),
        (
            text(f::flip(&x, Axes::from((0, -2)))),
            "`axes` must be different axes of the input [2, 3], got [0, -2]",
        ),
        (text(f::slice(&x, &[], &[], &[0])), "`step` must not be 0"),
        (text(f::slice(&x, &[None; 3], &[], &[])), "`start` must have at most 2 entries, one an axis, got 3"),
        (
            text(f::slice(&x, &[None], &[None; 2], &[])),
            "`start` must have 2 entries as the longest of the lists, got 1",
        ),
        (text(f::broadcast(&x, (3, 3))), "`shape` must be one that [2, 3] can be repeated to, got [3, 3]"),
        (
            text(f::pad(&x, &[1], PadMode::Constant, 0.0)),
            "`pad_width` must have two numbers for each axis, got [1]",
        ),
        (
            text(f::pad(&values([2, 0], 1), &[1, 1], PadMode::Reflect, 0.0)),
            "must have elements to be reflected",
        ),
        (text(f::reshape(&x, &[4, -1])), "`shape` must be one for the elements of [2, 3], got [4, -1]"),
        (text(f::reshape(&x, &[-1, -1])), "`shape` must have no size below 0, but one of -1"),
        (
            text(f::concatenate(&[&x, &values([3, 3], 1)], 1)),
            "must have the sizes of the first, [2, 3], but on axis 1",
        ),
        (text(f::stack(&[&x, &values([3], 1)], 0)), "must have the shape of the first, [2, 3]"),
        (text(f::sum(&x, 2, false)), "`axis` must be different axes of the input [2, 3], got [2]"),
        (text(f::norm(&x, 0.5, .., false)), "`p` must be at least 1"),
        (text(f::interpolate(&x, None, None, Interpolation::default())), "one to three axes"),
        (
            text(f::interpolate(&x, Some(&[0.1]), None, Interpolation::default())),
            "`scale` must keep at least one element on each of the spatial axes [3], got [0]",
        ),
        (
            text(f::interpolate(&x, Some(&[2.0]), Some(&[6]), Interpolation::default())),
            "`output_size` in its place",
        ),
        (
            text(f::gather(&x, &indices(&[1], &[3]), 1, 0)),
            "`indices` must hold indices from 0 to 2 (`n` is 3), got 3",
        ),
        (
            text(f::one_hot(&indices(&[1, 1], &[3]), 3)),
            "`inp` must hold indices from 0 to 2 (`shape` is 3), got 3",
        ),
        (
            text(f::top_n_error(&x, &indices(&[2], &[0, 0]), -1, 1)),
            "`target` must have shape [2, 1] for this input",
        ),
    ] {
        assert!(error.contains(part), "{error}");
    }
    let how = Interpolation { align_corners: true, half_pixel: true, ..Default::default() };
    assert!(
        text(f::interpolate(&x, None, Some(&[6]), how))
            .contains("`half_pixel` must be false with `align_corners`")
    );
}

/// Sizes of more elements than there are beside one of none.
#[test]
fn nothing_may_be_ever_so_long() {
    both_paths(|| {
        let x = Tensor::zeros((1usize << 40, 0, 3), DType::F32, &Device::Cpu).unwrap();
        assert_eq!(f::transpose(&x, (2, 0, 1)).unwrap().dims(), [3, 1 << 40, 0]);
        assert_eq!(f::slice(&x, &[Some(1)], &[], &[]).unwrap().dims(), [1 << 40, 0, 2]);
        assert_eq!(f::concatenate(&[&x, &x], 2).unwrap().dims(), [1 << 40, 0, 6]);
        assert_eq!(f::sum(&x, (0, 2), false).unwrap().dims(), [0]);
    });
}

/// A network file's shapes: each function as it stands there, one behind the other.
#[test]
fn functions_are_one_graph() {
    gate(
        |t| {
            let x = f::pad(&t[0], &[1, 1, 2, 0], PadMode::Reflect, 0.0)?;
            let x = f::interpolate(
                &x,
                None,
                Some(&[5, 9]),
                Interpolation { half_pixel: true, ..Default::default() },
            )?;
            let x = f::slice(&x, &[Some(1), Some(0)], &[Some(5), Some(9)], &[1, 2])?;
            let x = f::flip(&f::stack(&[&x, &x], 1)?, 3)?;
            f::max(&f::cumsum(&x, 2, false, true)?, (1, 3), false)
        },
        &[values([2, 3, 4], 1)],
    );
    let y = f::mean(&values([2, 3, 4], 1), (0, 1), false).unwrap();
    assert_close(&y, &values([2, 3, 4], 1).mean((0, 1)).unwrap(), 1e-12, "mean");
}
