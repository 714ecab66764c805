//! Quantizers: their values, and which gradients pass (differences would only find zeros).

use candle_core::{DType, Device, Tensor};
use layerfn::Result;
use layerfn::functions::*;
use layerfn_tests::{assert_precisions_agree, assert_threads_agree, flat, gradients, values};

fn tensor(values: &[f64]) -> Tensor {
    Tensor::new(values, &Device::Cpu).unwrap()
}

/// The gradient of the sum of `f(x)`.
#[track_caller]
fn slopes(f: impl Fn(&Tensor) -> Result<Tensor>, x: &Tensor) -> Vec<f64> {
    let got = gradients(|t| f(&t[0]), std::slice::from_ref(x), &x.ones_like().unwrap(), |_| true);
    flat(got[0].as_ref().unwrap())
}

#[track_caller]
fn check(f: impl Fn(&Tensor) -> Result<Tensor>, x: &[f64], y: &[f64], slope: &[f64]) {
    for dtype in [DType::F64, DType::F32, DType::F16, DType::BF16] {
        let x = tensor(x).to_dtype(dtype).unwrap();
        assert_eq!(flat(&f(&x).unwrap()), y, "{dtype:?}");
        assert_eq!(slopes(&f, &x), slope, "{dtype:?}");
    }
}

#[test]
fn binary_connect_passes_every_gradient() {
    check(binary_connect, &[-3., -0.5, -0., 0., 2.], &[-1., -1., 1., 1., 1.], &[1.; 5]);
}

#[test]
fn binary_weight_takes_the_mean_modulus_of_each_output() {
    let w = values([2, 3, 4], 1);
    let abs = w.abs().unwrap();
    for (layout, want) in
        [(WeightLayout::Affine, abs.mean(0).unwrap()), (WeightLayout::Convolution, abs.mean((1, 2)).unwrap())]
    {
        let (weight, binary, alpha) = binary_weight(&w, layout).unwrap();
        layerfn_tests::assert_close(&alpha, &want, 1e-14, "alpha");
        let sign = w.sign().unwrap();
        assert_eq!(flat(&binary), flat(&sign));
        let want = match layout {
            WeightLayout::Affine => sign.broadcast_mul(&want).unwrap(),
            WeightLayout::Convolution => sign.broadcast_mul(&want.reshape((2, 1, 1)).unwrap()).unwrap(),
        };
        layerfn_tests::assert_close(&weight, &want, 1e-14, "alpha wb");
        assert_eq!(slopes(|w| Ok(binary_weight(w, layout)?.0), &w), [1.0; 24]);
        let var = candle_core::Var::from_tensor(&w).unwrap();
        let (weight, binary, alpha) = binary_weight(var.as_tensor(), layout).unwrap();
        assert!(weight.track_op() && !binary.track_op() && !alpha.track_op());
    }
    let (y, ..) = binary_weight(&tensor(&[-1., 3.]), WeightLayout::Affine).unwrap();
    assert_eq!(flat(&y), [-2., 2.]);
    assert!(binary_weight(&values([0, 3], 1), WeightLayout::Affine).is_err());
    assert!(binary_weight(&values([], 1), WeightLayout::Convolution).is_err());
}

#[test]
fn fixed_point_rounds_halves_away_from_zero() {
    let x = [-2.25, -1.75, -1.5, -0.75, -0.25, 0., 0.2, 0.25, 1.5, 1.6];
    let y = [-1.5, -1.5, -1.5, -1., -0.5, 0., 0., 0.5, 1.5, 1.5];
    check(|x| fixed_point_quantize(x, true, 3, 0.5, false), &x, &y, &[1.; 10]);
    check(|x| fixed_point_quantize(x, true, 3, 0.5, true), &x, &y, &[0., 0., 1., 1., 1., 1., 1., 1., 1., 0.]);
    let y = [0., 0., 0., 0., 0., 0., 0., 0.5, 1.5, 1.5];
    check(
        |x| fixed_point_quantize(x, false, 2, 0.5, true),
        &x,
        &y,
        &[0., 0., 0., 0., 0., 1., 1., 1., 1., 0.],
    );
    for (sign, n, delta) in
        [(true, 1, 1.), (false, 0, 1.), (false, 65, 1.), (true, 2, 0.), (true, 2, f64::NAN)]
    {
        assert!(fixed_point_quantize(&tensor(&[1.]), sign, n, delta, true).is_err());
    }
}

#[test]
fn pow2_keeps_small_gradients() {
    // n' = 2: powers from 2 down to 1/4; 0 below sqrt(1/2) / 4
    let x = [-9., -2., -0.3, -0.1, -0., 0., 0.1, 0.2, 0.4, 0.7, 2.5, 3.];
    let f = |sign, with_zero, n, fine| move |x: &Tensor| pow2_quantize(x, sign, with_zero, n, 1, fine);
    let y = [-2., -2., -0.25, 0., 0., 0., 0., 0.25, 0.5, 0.5, 2., 2.];
    let slope = [0., 1., 1., 1., 1., 1., 1., 1., 1., 1., 1., 0.];
    check(f(true, true, 4, true), &x, &y, &slope);
    check(f(true, true, 4, false), &x, &y, &[1.; 12]);
    let y = [-2., -2., -0.25, -0.25, 0.25, 0.25, 0.25, 0.25, 0.5, 0.5, 2., 2.];
    check(f(true, false, 3, true), &x, &y, &slope);
    let slope = [0., 0., 0., 0., 1., 1., 1., 1., 1., 1., 1., 0.];
    let y = [0., 0., 0., 0., 0., 0., 0., 0.25, 0.5, 0.5, 2., 2.];
    check(f(false, true, 3, true), &x, &y, &slope);
    let y = [0.25, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25, 0.5, 0.5, 2., 2.];
    check(f(false, false, 2, true), &x, &y, &slope);
    for (sign, with_zero, n) in
        [(true, true, 2), (false, false, 0), (true, false, 66), (false, true, usize::MAX)]
    {
        assert!(pow2_quantize(&tensor(&[1.]), sign, with_zero, n, 1, true).is_err());
    }
}

#[test]
fn prune_keeps_ties_with_the_threshold() {
    let x = [0.5, -0.5, 2., -1., 0., 3.];
    check(|x| prune(x, 0.), &x, &x, &[1.; 6]);
    check(|x| prune(x, 0.5), &x, &[0.5, -0.5, 2., -1., 0., 3.], &[1.; 6]); // the threshold is the second 0.5
    check(|x| prune(x, 0.6), &x, &[0., 0., 2., -1., 0., 3.], &[1.; 6]);
    check(|x| prune(x, 1.), &x, &[0.; 6], &[1.; 6]);
    assert_eq!(prune(&values([0, 2], 1), 0.5).unwrap().dims(), [0, 2]);
    for rate in [-0.1, 1.1, f64::NAN] {
        assert!(prune(&tensor(&[1.]), rate).is_err());
    }
}

#[test]
fn quantizers_agree_on_threads_and_strides() {
    let x = values([100, 1000], 1);
    let functions: [fn(&Tensor) -> Result<Tensor>; 4] = [
        |x| fixed_point_quantize(x, true, 4, 0.125, true),
        |x| pow2_quantize(x, true, true, 4, -1, true),
        |x| prune(x, 0.4),
        |x| Ok(binary_weight(x, WeightLayout::Affine)?.0),
    ];
    for f in functions {
        assert_threads_agree(|t| f(&t[0]), std::slice::from_ref(&x));
        let transposed = x.t().unwrap();
        let want = f(&transposed.contiguous().unwrap()).unwrap();
        assert_eq!(flat(&f(&transposed).unwrap()), flat(&want));
    }
    assert_precisions_agree(|t| binary_connect(&t[0]), &[x]);
}

#[test]
fn inq_rounds_fixed_weights_to_powers_of_two() {
    let w = tensor(&[5., -3.1, -2.9, 1.4, 0.7, 0.2, -0.1, 0.]);
    let all = w.ones_like().unwrap();
    // n1 = 2; with 4 bits n2 = -1, so that 0 starts below 1/4
    assert_eq!(flat(&inq_quantize(&w, &all, 4).unwrap()), [4., -4., -2., 1., 0.5, 0., 0., 0.]);
    // n2 = n1 with 2 bits: below 2 is 0
    assert_eq!(flat(&inq_quantize(&w, &all, 2).unwrap()), [4., -4., -4., 0., 0., 0., 0., 0.]);
    let some = tensor(&[0., 0., 1., 0., 1., 0., 1., 0.]).to_dtype(DType::U8).unwrap();
    let got = inq_quantize(&w, &some, 4).unwrap();
    assert_eq!(flat(&got), [5., -3.1, -2., 1.4, 0.5, 0.2, 0., 0.]);
    let zeros = w.zeros_like().unwrap();
    assert_eq!(flat(&inq_quantize(&zeros, &all, 4).unwrap()), [0.; 8]);
    for num_bits in [0, 1, 33] {
        assert!(inq_quantize(&w, &all, num_bits).is_err());
    }
    assert!(inq_quantize(&w, &tensor(&[1.]), 4).is_err());
    assert!(inq_quantize(&tensor(&[f64::INFINITY]), &tensor(&[0.]), 4).is_err());
    assert!(inq_quantize(&tensor(&[f64::NAN]), &tensor(&[1.]), 4).is_err());
}

#[test]
fn inq_selects_half_of_what_still_learns() {
    let w = tensor(&[0.1, -0.9, 0.5, 0.7, 0.2, 0.3, 0.6]);
    let mut fixed = w.zeros_like().unwrap().to_dtype(DType::I64).unwrap();
    for want in [
        [0., 1., 0., 1., 0., 0., 1.],
        [0., 1., 1., 1., 0., 1., 1.],
        [0., 1., 1., 1., 1., 1., 1.],
        [0., 1., 1., 1., 1., 1., 1.], // the last one is not the largest of all
    ] {
        fixed = inq_select_largest(&w, &fixed).unwrap();
        assert_eq!(fixed.dtype(), DType::I64);
        assert_eq!(flat(&fixed), want);
    }
    let last = tensor(&[1., 0.]);
    assert_eq!(flat(&inq_select_largest(&tensor(&[1., 2.]), &last).unwrap()), [1., 1.]);
    assert!(inq_select_largest(&w, &last).is_err());

    let mut draws = [9, 0x7fff_ffff, 0, 0x8000_0000, 0, 0].into_iter();
    let fixed = tensor(&[0., 1., 0., 0.]);
    let got = inq_select_random(&fixed, &mut || draws.next().unwrap()).unwrap();
    assert_eq!(flat(&got), [1., 1., 0., 1.]);
}
