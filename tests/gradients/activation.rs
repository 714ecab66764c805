use candle_core::{D, Device, Tensor};
use layerfn::__private::dropout;
use layerfn::Result;
use layerfn::functions::*;
use layerfn_tests::{assert_close, both_paths, flat, gate, gradients, values};

#[test]
fn values_and_slopes_at_the_kinks_are_those_of_nnabla() {
    both_paths(|| {
        let x = Tensor::new(&[-4f64, -2.5, 0., 2.5, 4.], &Device::Cpu).unwrap();
        let check = |f: fn(&Tensor) -> Result<Tensor>, y: [f64; 5], slope: [f64; 5]| {
            let tensor = |values: &[f64; 5]| Tensor::new(values, &Device::Cpu).unwrap();
            assert_close(&f(&x).unwrap(), &tensor(&y), 2e-7, "value");
            let got = gradients(|t| f(&t[0]), std::slice::from_ref(&x), &x.ones_like().unwrap(), |_| true);
            assert_close(got[0].as_ref().unwrap(), &tensor(&slope), 2e-7, "slope");
        };
        check(relu, [0., 0., 0., 2.5, 4.], [0., 0., 0., 1., 1.]);
        check(|x| leaky_relu(x, 0.1), [-0.4, -0.25, 0., 2.5, 4.], [0.1, 0.1, 0.1, 1., 1.]);
        check(
            |x| elu(x, 1.0),
            [-0.9816843611, -0.9179150014, 0., 2.5, 4.],
            [0.0183156389, 0.0820849986, 1., 1., 1.],
        );
        check(hard_sigmoid, [0., 0., 0.5, 1., 1.], [0., 0.2, 0.2, 0.2, 0.]);
        check(
            selu,
            [-1.7258986, -1.6137857, 0., 2.6267526, 4.2028039],
            [0.03220071, 0.14431357, 1.7580993, 1.050701, 1.050701],
        );
        check(
            gelu,
            [-7.0245995e-05, -1.5084270e-02, 0., 2.4849157, 3.9999297],
            [-3.3512339e-04, -3.7951585e-02, 0.5, 1.0379516, 1.0003351],
        );
        check(
            silu,
            [-0.07194484, -0.18964545, 0., 2.3103545, 3.928055],
            [-0.05266462, -0.09940112, 0.5, 1.0994011, 1.0526648],
        );
        check(
            softplus,
            [0.01814996, 0.07888975, std::f64::consts::LN_2, 2.5788898, 4.01815],
            [0.01798621, 0.07585818, 0.5, 0.9241418, 0.98201376],
        );
    });
}

#[test]
fn not_a_number_stays_visible() {
    both_paths(|| {
        let x = Tensor::new(&[f32::NAN], &Device::Cpu).unwrap();
        for f in [relu as fn(&Tensor) -> Result<Tensor>, softplus, hard_sigmoid, sigmoid] {
            assert!(flat(&f(&x).unwrap())[0].is_nan());
        }
    });
}

#[test]
fn softmax_along_any_axis() {
    let x = (values([2, 3, 4], 1) * 3.0).unwrap();
    for axis in 0..3 {
        gate(|t| softmax(&t[0], axis), std::slice::from_ref(&x));
        gate(|t| log_softmax(&t[0], axis), std::slice::from_ref(&x));
        let sums = softmax(&x, axis).unwrap().sum(axis).unwrap();
        assert_close(&sums, &sums.ones_like().unwrap(), 1e-12, "sum");
    }
    for dims in [vec![1, 1], vec![0, 3], vec![3, 0], vec![700, 51]] {
        gate(|t| softmax(&t[0], D::Minus1), &[values(dims.clone(), 1)]);
        gate(|t| log_softmax(&t[0], D::Minus1), &[values(dims, 1)]);
    }
    assert!(softmax(&x, 3).is_err());
    assert!(log_softmax(&values([], 0), D::Minus1).is_err());
}

#[test]
fn prelu_with_one_slope_and_with_one_per_channel() {
    for (dims, base_axis) in
        [(vec![2, 3, 4], 1), (vec![2, 3, 4], 0), (vec![5, 3], 1), (vec![0, 3], 1), (vec![40, 3, 400], 1)]
    {
        let x = values(dims.clone(), 1);
        gate(|t| prelu(&t[0], &t[1], base_axis), &[x.clone(), values([dims[base_axis]], 2)]);
        gate(|t| prelu(&t[0], &t[1], base_axis), &[x, values([], 2)]);
    }
    let x = values([2, 3], 1);
    assert!(prelu(&x, &values([2], 1), 1).is_err());
    assert!(prelu(&x, &values([3], 1), 2).is_err());
    assert!(prelu(&x, &values([1, 3], 1), 1).is_err());
}

#[test]
fn prelu_takes_the_positive_branch_at_zero() {
    both_paths(|| {
        let x = Tensor::new(&[0f64], &Device::Cpu).unwrap();
        let slope = Tensor::new(-1f64, &Device::Cpu).unwrap();
        let got =
            gradients(|t| prelu(&t[0], &t[1], 0), &[x.clone(), slope], &x.ones_like().unwrap(), |_| true);
        assert_eq!(flat(got[0].as_ref().unwrap()), [1.0]);
        assert_eq!(flat(got[1].as_ref().unwrap()), [0.0]);
    });
}

/// A small generator that starts anew for each call.
fn draws() -> impl FnMut() -> u32 {
    let mut state = 1u32;
    move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state
    }
}

#[test]
fn dropout_keeps_the_expectation() {
    let x = values([100, 101], 1);
    gate(|t| dropout(&t[0], 0.3, &mut draws()), std::slice::from_ref(&x));
    let y = flat(&dropout(&x.ones_like().unwrap(), 0.3, &mut draws()).unwrap());
    let mean = y.iter().sum::<f64>() / y.len() as f64;
    assert!((mean - 1.0).abs() < 0.03, "{mean}");
    assert!(y.iter().all(|&y| y == 0.0 || (y - 1.0 / 0.7).abs() < 1e-12));
    assert_eq!(flat(&dropout(&x, 0.0, &mut || panic!("not needed")).unwrap()), flat(&x));
    for p in [1.0, -0.1, f64::NAN] {
        assert!(dropout(&x, p, &mut draws()).is_err());
    }
}
