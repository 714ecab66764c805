//! Functions of single elements: all of them through the gate, and what they do at the edges of their definitions.

use candle_core::{DType, Device, Tensor};
use layerfn::functions::*;
use layerfn_tests::support::elementwise::{Domain, Elementwise, FUNCTIONS, OF_ONE_SHAPE};
use layerfn_tests::{
    assert_close, assert_composed_agrees, assert_memory_does_not_matter, assert_precisions_agree,
    assert_threads_agree, both_paths, flat, gate, gradients,
};

fn check(function: &Elementwise, shapes: &[&[usize]]) {
    let inputs = function.domains.iter().zip(shapes).enumerate();
    let inputs: Vec<Tensor> = inputs.map(|(i, (domain, dims))| domain.tensor(dims, 40 + i as u64)).collect();
    println!("{} {shapes:?}", function.name);
    if function.is_smooth {
        gate(function.call, &inputs);
    } else {
        assert_precisions_agree(function.call, &inputs);
        assert_threads_agree(function.call, &inputs);
        assert_memory_does_not_matter(function.call, &inputs);
        assert_composed_agrees(function.call, &inputs);
    }
}

#[test]
fn tensors_of_one_shape() {
    for function in FUNCTIONS.iter().chain(OF_ONE_SHAPE) {
        for dims in [&[][..], &[7], &[3, 1, 4], &[0, 3], &[3, 30, 100]] {
            check(function, &[dims; 3][..function.domains.len()]);
        }
    }
}

#[test]
fn tensors_that_stand_for_all_along_an_axis() {
    let of_two: [[&[usize]; 2]; 6] = [
        [&[2, 1, 4], &[1, 3, 1]],
        [&[2, 3, 4], &[1, 3, 1]],
        [&[1, 4], &[3, 4]],
        [&[3, 1], &[3, 4]],
        [&[1], &[5]],
        [&[0, 3], &[1, 3]],
    ];
    for function in FUNCTIONS.iter().filter(|function| function.domains.len() == 2) {
        for shapes in of_two {
            check(function, &shapes);
        }
        // So many that some lie beside a kink, where differences across it are not the gradient.
        let large = function.domains.iter().zip([[3, 40, 300], [3, 1, 300]]);
        let inputs: Vec<Tensor> = large.map(|(domain, dims)| domain.tensor(&dims, 7)).collect();
        assert_threads_agree(function.call, &inputs);
        assert_composed_agrees(function.call, &inputs);
    }
    for function in FUNCTIONS.iter().filter(|function| function.domains.len() == 3) {
        for shapes in [[&[2, 3, 4][..], &[1, 3, 1], &[1, 1, 1]], [&[2, 3], &[2, 3], &[2, 1]]] {
            check(function, &shapes);
        }
    }
}

#[test]
fn both_signs_side_by_side_and_sums_of_many() {
    for (dims, axis) in [(&[2, 3, 2][..], 1), (&[2, 3, 2], -1), (&[7], 0), (&[0, 3], 1), (&[30, 3, 100], 1)] {
        let x = Domain::Wide.tensor(dims, 1);
        gate(|t| crelu(&t[0], axis), std::slice::from_ref(&x));
        gate(|t| celu(&t[0], 0.7, axis), std::slice::from_ref(&x));
        let inputs = [x, Domain::Wide.tensor(dims, 2), Domain::Wide.tensor(dims, 3)];
        gate(|t| add_n(&t.iter().collect::<Vec<_>>()), &inputs);
        gate(|t| add_n(&[&t[0], &t[0]]), &inputs[..1]);
    }
    assert!(add_n(&[]).is_err());
    assert!(add_n(&[&Domain::Wide.tensor(&[2], 1), &Domain::Wide.tensor(&[3], 1)]).is_err());
    assert!(crelu(&Domain::Wide.tensor(&[2], 1), 1).is_err());
}

#[test]
fn norms_are_limits() {
    for dims in [&[3, 4][..], &[0, 3], &[2, 3, 40], &[5]] {
        let x = Domain::Wide.tensor(dims, 1);
        for norm in [0.5, 5.0, 1e3] {
            gate(|t| clip_by_norm(&t[0], norm, ..), std::slice::from_ref(&x));
            gate(|t| clip_by_norm(&t[0], norm, -1), std::slice::from_ref(&x));
            assert_composed_agrees(|t| clip_grad_by_norm(&t[0], norm, -1), std::slice::from_ref(&x));
            assert_precisions_agree(|t| clip_grad_by_norm(&t[0], norm, ..), std::slice::from_ref(&x));
        }
    }
    both_paths(|| {
        let x = Tensor::new(&[[3f64, 4.], [0., 0.]], &Device::Cpu).unwrap();
        let got = gradients(|t| clip_by_norm(&t[0], 1.0, 1), std::slice::from_ref(&x), &x, |_| true);
        // Along itself a vector at its limit does not grow.
        let slope = flat(got[0].as_ref().unwrap());
        assert!(slope.iter().all(|slope| slope.abs() < 1e-15), "{slope:?}");
        let upstream = Tensor::new(&[[3f64, 4.], [0., 0.]], &Device::Cpu).unwrap();
        let got =
            gradients(|t| clip_grad_by_norm(&t[0], 10.0, 1), std::slice::from_ref(&x), &upstream, |_| true);
        assert_close(got[0].as_ref().unwrap(), &(&upstream * 2.0).unwrap(), 1e-14, "gradient");
    });
    let x = Domain::Wide.tensor(&[2], 1);
    for norm in [0.0, -1.0, f64::NAN, 1e-30, 1e30] {
        assert!(clip_by_norm(&x, norm, ..).is_err(), "{norm}");
    }
    assert!(clip_by_norm(&x, 1.0, 1).is_err());
    assert!(clip_grad_by_norm(&x, 0.0, ..).is_err());
    assert!(clip_grad_by_norm(&x, 1.0, 2).is_err());
}

/// The value and the gradients for one element of each input, with an upstream gradient of 1.
#[track_caller]
fn at(f: impl Fn(&[Tensor]) -> layerfn::Result<Tensor>, inputs: &[f64]) -> Vec<f64> {
    let inputs: Vec<Tensor> = inputs.iter().map(|x| Tensor::new(&[*x], &Device::Cpu).unwrap()).collect();
    let one = Tensor::ones(1, DType::F64, &Device::Cpu).unwrap();
    let slopes = gradients(&f, &inputs, &one, |_| true);
    let slopes = slopes.iter().map(|slope| flat(slope.as_ref().unwrap())[0]);
    std::iter::once(flat(&f(&inputs).unwrap())[0]).chain(slopes).collect()
}

#[test]
fn edges_of_the_definitions() {
    both_paths(|| {
        assert_eq!(at(|t| abs(&t[0]), &[0.0]), [0.0, 1.0]);
        assert_eq!(at(|t| relu6(&t[0]), &[6.0]), [6.0, 0.0]);
        assert_eq!(at(|t| hard_tanh(&t[0]), &[-1.0]), [-1.0, 1.0]);
        assert_eq!(at(|t| sign(&t[0], 0.25), &[0.0]), [0.25, 1.0]);
        assert_eq!(at(|t| round(&t[0]), &[-2.5]), [-3.0, 1.0]);
        assert_eq!(at(|t| binary_tanh(&t[0]), &[1.0]), [1.0, 0.0]);
        assert_eq!(at(|t| binary_sigmoid(&t[0]), &[0.5]), [1.0, 0.5]);
        assert_eq!(at(|t| sinc(&t[0]), &[0.0]), [1.0, 0.0]);
        assert_eq!(at(|t| maximum2(&t[0], &t[1]), &[2.0, 2.0]), [2.0, 0.0, 1.0]);
        assert_eq!(at(|t| minimum2(&t[0], &t[1]), &[2.0, 2.0]), [2.0, 0.0, 1.0]);
        assert_eq!(at(|t| maximum_scalar(&t[0], 2.0), &[2.0]), [2.0, 0.0]);
        assert_eq!(at(|t| minimum_scalar(&t[0], 2.0), &[2.0]), [2.0, 0.0]);
        assert_eq!(at(|t| clip_by_value(&t[0], 1.0, f64::INFINITY), &[1.0]), [1.0, 0.0]);
        // The limits contradict each other: the upper one holds.
        assert_eq!(at(|t| clip_by_value(&t[0], &t[1], &t[2]), &[0.0, 3.0, 2.0]), [2.0, 0.0, 0.0, 1.0]);
        assert_eq!(at(|t| clip_by_value(&t[0], &t[1], &t[2]), &[0.0, 1.0, 2.0]), [1.0, 0.0, 1.0, 0.0]);
        assert_eq!(at(|t| absolute_error(&t[0], &t[1]), &[2.0, 2.0]), [0.0, -1.0, 1.0]);
        assert_eq!(at(|t| huber_loss(&t[0], &t[1], 0.5), &[0.5, 0.0]), [0.25, 1.0, -1.0]);
        assert_eq!(at(|t| epsilon_insensitive_loss(&t[0], &t[1], 0.5), &[0.5, 0.0]), [0.0, 0.0, 0.0]);
        assert_eq!(at(|t| atan2(&t[0], &t[1]), &[0.0, -1.0])[0], std::f64::consts::PI);
    });
}

#[test]
fn powers_of_zero_and_of_negative_numbers() {
    both_paths(|| {
        let power = |a: f64, b: f64| at(|t| pow2(&t[0], &t[1]), &[a, b]);
        assert_eq!(power(0.0, 2.0), [0.0, 0.0, 0.0]);
        assert_eq!(power(0.0, 1.0), [0.0, 1.0, 0.0]);
        assert_eq!(power(0.0, 0.0)[..2], [1.0, 0.0]);
        assert_eq!(power(0.0, -1.0)[0], f64::INFINITY);
        assert!((power(-2.0, 3.0)[0] + 8.0).abs() < 1e-13);
        assert!((power(-2.0, 3.0)[1] - 12.0).abs() < 1e-13);
        assert!((power(-2.0, -2.0)[0] - 0.25).abs() < 1e-13);
        assert!(power(-2.0, 0.5)[0].is_nan());
        assert_eq!(at(|t| pow_scalar(&t[0], 0.0), &[0.0]), [1.0, 0.0]);
        assert_eq!(at(|t| pow_scalar(&t[0], 2.0), &[-3.0]), [9.0, -6.0]);
        assert_eq!(at(|t| r_pow_scalar(&t[0], 0.0), &[2.0]), [0.0, 0.0]);
    });
}

#[test]
fn far_from_zero_nothing_overflows() {
    both_paths(|| {
        for x in [30.0, 90.0, 1e4, 1e30] {
            assert_eq!(at(|t| mish(&t[0]), &[x]), [x, 1.0]);
            assert_eq!(at(|t| mish(&t[0]), &[-1e4 * x])[0], 0.0);
            assert_eq!(at(|t| log_sigmoid(&t[0]), &[-1e3 * x]), [-1e3 * x, 1.0]);
            assert_eq!(at(|t| softplus_with(&t[0], 3.0), &[1e3 * x]), [1e3 * x, 1.0]);
            assert_eq!(at(|t| erf(&t[0]), &[x]), [1.0, 0.0]);
            let got = at(|t| asinh(&t[0]), &[-x])[0];
            assert!((got + x.asinh()).abs() < 1e-14 * x.asinh(), "{got}");
        }
        assert_eq!(at(|t| atan(&t[0]), &[f64::NEG_INFINITY]), [-std::f64::consts::FRAC_PI_2, 0.0]);
        assert_eq!(at(|t| binary_cross_entropy(&t[0], &t[1]), &[1.0, 1.0])[..2], [0.0, 0.0]);
        let lost = at(|t| binary_cross_entropy(&t[0], &t[1]), &[0.0, 1.0])[0];
        assert!((lost - 87.336_544_750_553_1).abs() < 1e-9, "{lost}");
    });
}

#[test]
fn values_are_those_of_the_standard_library() {
    type Pair = (fn(&Tensor) -> layerfn::Result<Tensor>, fn(f64) -> f64);
    let pairs: [Pair; 14] = [
        (exp, f64::exp),
        (log, f64::ln),
        (sin, f64::sin),
        (cos, f64::cos),
        (tan, f64::tan),
        (asin, f64::asin),
        (acos, f64::acos),
        (atan, f64::atan),
        (sinh, f64::sinh),
        (cosh, f64::cosh),
        (asinh, f64::asinh),
        (acosh, f64::acosh),
        (atanh, f64::atanh),
        (tanh, f64::tanh),
    ];
    let x: Vec<f64> = (-4000..=4000).map(|i| f64::from(i) * 1.25e-3).chain([-1e-9, 1e-9, 1e-300]).collect();
    both_paths(|| {
        for (i, (f, exact)) in pairs.into_iter().enumerate() {
            let input = Tensor::from_slice(&x, x.len(), &Device::Cpu).unwrap();
            let want: Vec<f64> = x.iter().map(|x| exact(*x)).collect();
            let want = Tensor::from_vec(want, x.len(), &Device::Cpu).unwrap();
            assert_close(&f(&input).unwrap(), &want, 4e-14, &format!("function {i}"));
        }
    });
}

#[test]
fn shapes_and_numbers_that_do_not_fit_are_errors() {
    let tensor = |dims: &[usize]| Tensor::ones(dims, DType::F32, &Device::Cpu).unwrap();
    let text = |result: layerfn::Result<Tensor>| result.unwrap_err().to_string();
    let (a, b) = (tensor(&[2, 3]), tensor(&[3]));
    assert_eq!(
        text(add2(&a, &b)),
        "`inp` must have the shape [2, 3] of the other, or size 1 where the two differ, got [3]"
    );
    assert!(text(mul2(&a, &tensor(&[2, 2]))).contains("got [2, 2]"));
    assert!(text(squared_error(&a, &a.to_dtype(DType::F64).unwrap())).contains("one element type"));
    assert!(text(abs(&a.to_dtype(DType::U8).unwrap())).contains("must hold f32"));
    assert!(text(add_scalar(&a, f64::NAN)).contains("`val` must be finite"));
    assert!(text(huber_loss(&a, &a, -1.0)).contains("`delta` must be at least 0"));
    assert!(text(softplus_with(&a, 0.0)).contains("`beta` must be above 0"));
    assert!(text(clip_by_value(&a, f64::NAN, 1.0)).contains("`min` must be a number"));
    assert!(text(clip_by_value(&a, 0.0, &tensor(&[2, 2]))).contains("`max` must have the input's shape"));
    assert!(text(clip_by_value(&tensor(&[1, 3]), 0.0, &a)).contains("`max` must have the input's shape"));
    assert!(text(where_cond(&b, &a, &a)).contains("`condition` must have the shape"));
    assert!(text(where_cond(&a, &a, &b)).contains("`x_false` must have the shape"));
    assert!(text(binary_error(&a, &b)).contains("`target` must have the input's shape"));
}

#[test]
fn targets_may_be_integers() {
    both_paths(|| {
        let x = Tensor::new(&[0.25f64, 0.75], &Device::Cpu).unwrap();
        let labels = Tensor::new(&[1i64, 0], &Device::Cpu).unwrap();
        let same = labels.to_dtype(DType::F64).unwrap();
        for f in [binary_cross_entropy, sigmoid_cross_entropy, binary_error] {
            assert_eq!(flat(&f(&x, &labels).unwrap()), flat(&f(&x, &same).unwrap()));
        }
    });
}

#[test]
fn a_gradient_is_cut_off_and_not_the_value() {
    both_paths(|| {
        let x = Tensor::new(&[1f64, 2., 3.], &Device::Cpu).unwrap();
        let upstream = Tensor::new(&[-2f64, 0.1, 2.], &Device::Cpu).unwrap();
        let f = |t: &[Tensor]| clip_grad_by_value(&t[0], -0.5, 1.0);
        assert_eq!(flat(&f(std::slice::from_ref(&x)).unwrap()), [1.0, 2.0, 3.0]);
        // `backward` reaches it by a product, whose gradient is the same.
        let got = gradients(f, &[x], &upstream, |_| true);
        assert_eq!(flat(got[0].as_ref().unwrap()), [-0.5, 0.1, 1.0]);
    });
}
