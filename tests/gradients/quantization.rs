//! Quantizers: their values, and which gradients pass (differences would only find zeros).

use candle_core::{DType, Device, Tensor};
use layerfn::functions::*;
use layerfn::{Result, Rng};
use layerfn_tests::{
    assert_close, assert_composed_agrees, assert_precisions_agree, assert_threads_agree, both_paths, flat,
    gradients, values,
};

fn tensor(values: &[f64]) -> Tensor {
    Tensor::new(values, &Device::Cpu).unwrap()
}

fn fixed_point(x: &Tensor, sign: bool, n: usize, delta: f64, ste_fine_grained: bool) -> Result<Tensor> {
    FixedPoint { sign, n, delta, ste_fine_grained }.checked()?.apply(x)
}

fn pow2(x: &Tensor, sign: bool, with_zero: bool, n: usize, m: i32, ste_fine_grained: bool) -> Result<Tensor> {
    Pow2 { sign, with_zero, n, m, ste_fine_grained }.checked()?.apply(x)
}

fn prune(x: &Tensor, rate: f64) -> Result<Tensor> {
    Prune { rate }.checked()?.apply(x)
}

/// The gradient of the sum of `f(x)`.
#[track_caller]
fn slopes(f: impl Fn(&Tensor) -> Result<Tensor>, x: &Tensor) -> Vec<f64> {
    let got = gradients(|t| f(&t[0]), std::slice::from_ref(x), &x.ones_like().unwrap(), |_| true);
    flat(got[0].as_ref().unwrap())
}

#[track_caller]
fn check(f: impl Fn(&Tensor) -> Result<Tensor>, x: &[f64], y: &[f64], slope: &[f64]) {
    both_paths(|| {
        for dtype in [DType::F64, DType::F32, DType::F16, DType::BF16] {
            let x = tensor(x).to_dtype(dtype).unwrap();
            assert_eq!(flat(&f(&x).unwrap()), y, "{dtype:?}");
            assert_eq!(slopes(&f, &x), slope, "{dtype:?}");
        }
    });
}

#[test]
fn binary_connect_passes_every_gradient() {
    for zero in [1.0, -1.0, 0.0] {
        let signs = [-1., -1., zero, zero, 1.];
        check(|w| binary_connect(w, zero), &[-3., -0.5, -0., 0., 2.], &signs, &[1.; 5]);
    }
    assert!(binary_connect(&tensor(&[1.]), f64::NAN).is_err());
}

#[test]
fn binary_weight_takes_the_mean_modulus_of_each_output() {
    both_paths(|| {
        let w = values([2, 3, 4], 1);
        let abs = w.abs().unwrap();
        let sign = w.sign().unwrap();
        for (inputs, alpha, kept) in
            [(0..1, abs.mean(0).unwrap(), vec![1, 3, 4]), (1..3, abs.mean((1, 2)).unwrap(), vec![2, 1, 1])]
        {
            let got = binary_weight(&w, inputs.clone(), 1.0).unwrap();
            assert_close(&got.alpha, &alpha, 1e-14, "alpha");
            assert_eq!(flat(&got.wb), flat(&sign));
            let want = sign.broadcast_mul(&alpha.reshape(kept).unwrap()).unwrap();
            assert_close(&got.output, &want, 1e-14, "alpha wb");
            assert_eq!(slopes(|w| Ok(binary_weight(w, inputs.clone(), 1.0)?.output), &w), [1.0; 24]);
            let var = candle_core::Var::from_tensor(&w).unwrap();
            let got = binary_weight(var.as_tensor(), inputs, 1.0).unwrap();
            assert!(got.output.track_op() && !got.wb.track_op() && !got.alpha.track_op());
        }
        assert!(binary_weight(&w, 3..4, 1.0).is_err());
    });
}

#[test]
fn straight_through_replaces_values_and_no_gradients() {
    both_paths(|| {
        let (x, value) = (values([3, 4], 1), values([3, 4], 2));
        assert_eq!(flat(&straight_through(&x, &value).unwrap()), flat(&value));
        assert_eq!(slopes(|x| straight_through(x, &value), &x), [1.0; 12]);
        assert!(straight_through(&x, &values([4, 3], 1)).is_err());
    });
}

#[test]
fn fixed_point_rounds_in_the_precisions_of_nnabla() {
    both_paths(|| {
        // Just below a half in f32: adding the half in f32 would round up to 1.
        let x = Tensor::new(&[0.499_999_97f32], &Device::Cpu).unwrap();
        assert_eq!(flat(&fixed_point(&x, true, 8, 1.0, true).unwrap()), [0.0]);
        // The bound is a multiple of delta as an f32 number.
        for (n, delta) in [(8, 0.1f64), (5, 0.3), (9, 0.7), (13, 0.0007)] {
            let max = ((2f64.powi(n - 1) - 1.0) * f64::from(delta as f32)) as f32;
            let x = Tensor::new(&[1e9f32, -1e9], &Device::Cpu).unwrap();
            let y = fixed_point(&x, true, n as usize, delta, true).unwrap();
            assert_eq!(y.to_vec1::<f32>().unwrap(), [max, -max]);
        }
    });
}

#[test]
fn fixed_point_rounds_halves_away_from_zero() {
    let x = [-2.25, -1.75, -1.5, -0.75, -0.25, 0., 0.2, 0.25, 1.5, 1.6];
    let y = [-1.5, -1.5, -1.5, -1., -0.5, 0., 0., 0.5, 1.5, 1.5];
    check(|x| fixed_point(x, true, 3, 0.5, false), &x, &y, &[1.; 10]);
    check(|x| fixed_point(x, true, 3, 0.5, true), &x, &y, &[0., 0., 1., 1., 1., 1., 1., 1., 1., 0.]);
    let y = [0., 0., 0., 0., 0., 0., 0., 0.5, 1.5, 1.5];
    check(|x| fixed_point(x, false, 2, 0.5, true), &x, &y, &[0., 0., 0., 0., 0., 1., 1., 1., 1., 0.]);
    for (sign, n, delta) in
        [(true, 1, 1.), (false, 0, 1.), (false, 31, 1.), (true, 2, 0.), (true, 2, f64::NAN)]
    {
        assert!(fixed_point(&tensor(&[1.]), sign, n, delta, true).is_err());
    }
}

#[test]
fn pow2_keeps_small_gradients() {
    // n' = 2: powers from 2 down to 1/4; 0 below sqrt(1/2) / 4
    let x = [-9., -2., -0.3, -0.1, -0., 0., 0.1, 0.2, 0.4, 0.7, 2.5, 3.];
    let f = |sign, with_zero, n, fine| move |x: &Tensor| pow2(x, sign, with_zero, n, 1, fine);
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
        [(true, true, 2), (false, false, 0), (true, false, 32), (false, true, usize::MAX)]
    {
        assert!(pow2(&tensor(&[1.]), sign, with_zero, n, 1, true).is_err());
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
        |x| fixed_point(x, true, 4, 0.125, true),
        |x| pow2(x, true, true, 4, -1, true),
        |x| prune(x, 0.4),
        |x| Ok(binary_weight(x, 0..1, 1.0)?.output),
    ];
    for f in functions {
        assert_threads_agree(|t| f(&t[0]), std::slice::from_ref(&x));
        let transposed = x.t().unwrap();
        let want = f(&transposed.contiguous().unwrap()).unwrap();
        assert_eq!(flat(&f(&transposed).unwrap()), flat(&want));
    }
    assert_precisions_agree(|t| binary_connect(&t[0], 1.0), &[x]);
}

#[test]
fn quantizers_give_the_same_bits_without_kernels() {
    // Around the places where rounding decides, and what is special; an f64 has no rounding to hide the logarithm's own
    // error exactly there.
    let near = |x: f64| [x * (1.0 - 1e-7), x, x * (1.0 + 1e-7)];
    let ties = (-8..8).flat_map(|k| near(2f64.powf(f64::from(k) / 2.0))).flat_map(|x| [x, -x]);
    let special = [0.0, 1e-300, f64::INFINITY, f64::NAN];
    let ties = tensor(&ties.chain(special).collect::<Vec<_>>()).to_dtype(DType::F32).unwrap();
    for x in [ties, values([1000], 3), values([1000], 4).to_dtype(DType::F32).unwrap()] {
        for (sign, zero, fine) in
            [(true, true, true), (true, false, true), (false, true, false), (false, false, true)]
        {
            let functions: [&dyn Fn() -> Tensor; 3] = [
                &|| fixed_point(&x, sign, 4, 0.3, fine).unwrap(),
                &|| pow2(&x, sign, zero, 5, 1, fine).unwrap(),
                &|| pow2(&x, sign, zero, 8, 1, fine).unwrap(),
            ];
            for f in functions {
                let (got, want) = (flat(&layerfn::__private::composed(f)), flat(&f()));
                for ((x, got), want) in flat(&x).into_iter().zip(got).zip(want) {
                    assert_eq!(got.to_bits(), want.to_bits(), "{x}: {got}, with kernels {want}");
                }
            }
        }
    }
}

fn schedule(num_bits: usize, inq_iterations: &[usize], selection_algorithm: SelectionAlgorithm) -> Inq {
    Inq { num_bits, inq_iterations: inq_iterations.to_vec(), selection_algorithm, seed: 313 }
        .checked()
        .unwrap()
}

fn count() -> Tensor {
    Tensor::zeros(Inq::STATE, DType::F32, &Device::Cpu).unwrap()
}

#[test]
fn inq_rounds_fixed_weights_to_powers_of_two() {
    let w = tensor(&[5., -3.1, -2.9, 1.4, 0.7, 0.2, -0.1, 0.]);
    let all = w.ones_like().unwrap();
    let round = |w: &Tensor, i: &Tensor, num_bits| {
        let inq = schedule(num_bits, &[], SelectionAlgorithm::LargestAbs);
        flat(&inq.step(w, i, w, &count(), &Rng::new(1)).unwrap().w)
    };
    // n1 = 2; with 4 bits n2 = -1, so that 0 starts below 1/4
    assert_eq!(round(&w, &all, 4), [4., -4., -2., 1., 0.5, 0., 0., 0.]);
    // n2 = n1 with 2 bits: below 2 is 0
    assert_eq!(round(&w, &all, 2), [4., -4., -4., 0., 0., 0., 0., 0.]);
    let some = tensor(&[0., 0., 1., 0., 1., 0., 1., 0.]);
    assert_eq!(round(&w, &some, 4), [5., -3.1, -2., 1.4, 0.5, 0.2, 0., 0.]);
    assert_eq!(round(&w.zeros_like().unwrap(), &all, 4), [0.; 8]);
    // In f32 a weight of 3 rounds up; as the largest of all it does not, as in NNabla.
    let w = Tensor::new(&[5f32, 3.], &Device::Cpu).unwrap();
    assert_eq!(round(&w, &w.ones_like().unwrap(), 4), [4., 4.]);
    let w = Tensor::new(&[2.5f32, 3.], &Device::Cpu).unwrap();
    assert_eq!(round(&w, &w.ones_like().unwrap(), 4), [2., 2.]);
    for num_bits in [0, 1, 33] {
        let selection_algorithm = SelectionAlgorithm::LargestAbs;
        assert!(Inq { num_bits, inq_iterations: vec![], selection_algorithm, seed: -1 }.checked().is_err());
    }
}

#[test]
fn inq_selects_half_of_what_still_learns() {
    let mut w = tensor(&[0.1, -0.9, 0.5, 0.7, 0.2, 0.3, 0.6]);
    let inq = schedule(4, &[0, 1, 2, 3, 9], SelectionAlgorithm::LargestAbs);
    let (mut i, mut count) = (w.zeros_like().unwrap(), count());
    for want in [
        [0., 1., 0., 1., 0., 0., 1.],
        [0., 1., 1., 1., 0., 1., 1.],
        [0., 1., 1., 1., 1., 1., 1.],
        [0., 1., 1., 1., 1., 1., 1.], // the last one is not the largest of all
    ] {
        let step = inq.step(&w, &i, &w, &count, &Rng::new(1)).unwrap();
        (w, i, count) = (step.w, step.i, step.count);
        assert_eq!(flat(&i), want);
    }
}

#[test]
fn what_is_not_finite_or_empty_does_no_harm() {
    both_paths(|| {
        for x in [tensor(&[f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1.]), values([0, 3], 1)] {
            for dtype in [DType::F64, DType::F32, DType::F16] {
                let x = x.to_dtype(dtype).unwrap();
                assert_eq!(fixed_point(&x, true, 4, 0.5, true).unwrap().dims(), x.dims());
                assert_eq!(pow2(&x, true, true, 4, 1, true).unwrap().dims(), x.dims());
                assert_eq!(binary_connect(&x, 1.0).unwrap().dims(), x.dims());
                for rate in [0., 0.5, 1.] {
                    assert_eq!(prune(&x, rate).unwrap().dims(), x.dims());
                }
                let _ = binary_weight(&x, 0..1, 1.0); // the mean of nothing may be an error, but no panic
                for algorithm in [SelectionAlgorithm::LargestAbs, SelectionAlgorithm::Random] {
                    let inq = schedule(4, &[0, 1], algorithm);
                    let i = x.zeros_like().unwrap();
                    let step = inq.step(&x, &i, &x, &count(), &Rng::new(1));
                    assert!(step.is_err() || step.unwrap().w.dims() == x.dims());
                }
            }
        }
    });
}

/// A quantizer whose range is learned, with 0 to `levels` as levels.
fn learned(levels: f64, fine: bool) -> impl Fn(&[Tensor]) -> Result<Tensor> {
    move |t| {
        let settings = MinMax { decay: 0.5, x_min_max: false, ema: false, ste_fine_grained: fine, eps: 0.01 }
            .checked()?;
        let level = |x: f64| Tensor::new(&[x], &Device::Cpu);
        Ok(settings.apply(&t[0], [&t[1], &t[2]], [&level(0.0)?, &level(levels)?])?.output)
    }
}

#[test]
fn min_max_hands_on_what_it_does_not_cut_off() {
    both_paths(|| {
        let inputs = [tensor(&[-9., -1., -0.5, -0.2, 0.4, 0.5, 2., 2.5, 4.]), tensor(&[-1.]), tensor(&[2.])];
        let ones = inputs[0].ones_like().unwrap();
        for dtype in [DType::F64, DType::F32, DType::F16, DType::BF16] {
            let inputs = inputs.each_ref().map(|t| t.to_dtype(dtype).unwrap());
            for (fine, dx) in [(true, [0., 1., 1., 1., 1., 1., 1., 0., 0.]), (false, [1.; 9])] {
                let f = learned(3.0, fine);
                // Halves go up: -0.5 is between -1 and 0, 0.5 between 0 and 1.
                assert_eq!(flat(&f(&inputs).unwrap()), [-1., -1., 0., 0., 0., 1., 2., 2., 2.]);
                let got = gradients(&f, &inputs, &ones.to_dtype(dtype).unwrap(), |_| true);
                let got: Vec<_> = got.iter().map(|gradient| flat(gradient.as_ref().unwrap())).collect();
                assert_eq!(got, [dx.to_vec(), vec![1.], vec![2.]], "{dtype:?}");
            }
        }
        let x = values([50, 40], 1);
        let range = [values([1, 1], 2).abs().unwrap().neg().unwrap(), values([1, 1], 3).abs().unwrap()];
        let inputs = [x, range[0].clone(), range[1].clone()];
        assert_threads_agree(learned(15.0, true), &inputs);
        assert_composed_agrees(learned(15.0, true), &inputs);
        let transposed = [inputs[0].t().unwrap(), range[0].clone(), range[1].clone()];
        let f = learned(15.0, true);
        assert_eq!(flat(&f(&transposed).unwrap()), flat(&f(&inputs).unwrap().t().unwrap()));
    });
}

#[test]
fn min_max_measures_its_range() {
    both_paths(|| {
        let level = |x: f64| Tensor::new(&[x], &Device::Cpu).unwrap();
        let settings = MinMax { decay: 0.75, x_min_max: true, ema: false, ste_fine_grained: true, eps: 0.5 };
        let apply = |settings: MinMax, x: &Tensor| {
            settings.apply(x, [&level(-2.0), &level(2.0)], [&level(-8.0), &level(7.0)])
        };
        let range = |settings, x: &Tensor| -> [f64; 2] {
            apply(settings, x).unwrap().range.unwrap().map(|end| flat(&end)[0])
        };
        let x = tensor(&[0.5, -4., 8.]);
        assert_eq!(range(settings, &x), [-4., 8.]);
        assert_eq!(range(MinMax { ema: true, ..settings }, &x), [-2.5, 3.5]);
        assert_eq!(range(settings, &tensor(&[1., 1.])), [1., 1.5], "not closer than eps");
        assert!(apply(MinMax { x_min_max: false, ..settings }, &x).unwrap().range.is_none());
        // The ends that are measured have no gradient but zeros.
        for settings in [settings, MinMax { x_min_max: false, ema: true, ..settings }] {
            let f =
                |t: &[Tensor]| Ok(settings.apply(&t[0], [&t[1], &t[2]], [&level(0.0), &level(3.0)])?.output);
            let inputs = [x.clone(), level(-2.0), level(2.0)];
            let got = gradients(f, &inputs, &x.ones_like().unwrap(), |_| true);
            assert_eq!(flat(got[1].as_ref().unwrap()), [0.0]);
            assert_eq!(flat(got[2].as_ref().unwrap()), [0.0]);
        }
        let text = |x: &Tensor| apply(settings, x).unwrap_err().to_string();
        assert!(text(&values([0, 3], 1)).contains("`x` must have elements"));
        assert!(text(&tensor(&[1., f64::NAN])).contains("`x` must be finite"));
        let levels = settings.apply(&x, [&level(-2.0), &level(2.0)], [&level(3.0), &level(3.0)]);
        assert_eq!(levels.unwrap_err().to_string(), "`ql_max` must be above `ql_min`, 3, got 3.0");
        assert!(settings.apply(&x, [&x, &level(2.0)], [&level(0.0), &level(3.0)]).is_err());
        for wrong in [MinMax { eps: 0.0, ..settings }, MinMax { decay: 1.5, ..settings }] {
            assert!(wrong.checked().is_err());
        }
    });
}
