//! Weight normalization and spectral normalization.

use candle_core::{Device, Tensor};
use layerfn::functions::{spectral_norm, weight_normalization};
use layerfn_tests::{assert_close, both_paths, flat, gate, values};

const EPS: f64 = 1e-3;

#[test]
fn weights_are_normalized_along_any_axis() {
    for (dims, dim) in [
        (vec![4, 3, 2], 0),
        (vec![4, 3, 2], 1),
        (vec![4, 3, 2], 2),
        (vec![5], 0),
        (vec![1, 40], 0),
        (vec![3, 1], 1),
    ] {
        let n: usize = dims[dim];
        let inputs = [values(&*dims, 1), values([n], 2)];
        gate(|t| weight_normalization(&t[0], &t[1], dim, EPS), &inputs);
        both_paths(|| {
            let y =
                weight_normalization(&inputs[0], &inputs[1], dim as i64 - dims.len() as i64, EPS).unwrap();
            let others: Vec<usize> = (0..dims.len()).filter(|&axis| axis != dim).collect();
            let squares = inputs[0].sqr().unwrap();
            let sums = if others.is_empty() { squares } else { squares.sum_keepdim(others).unwrap() };
            let norms = (sums + EPS).unwrap().sqrt().unwrap();
            let factor = (inputs[1].reshape(norms.dims()).unwrap() / norms).unwrap();
            assert_close(&y, &inputs[0].broadcast_mul(&factor).unwrap(), 1e-14, "weight");
        });
    }
}

/// After many steps `u` and `v` are singular vectors, and the rule, which holds them constant, is the derivative.
#[test]
fn the_largest_singular_value_becomes_one() {
    for (dims, dim) in
        [(vec![4, 3, 2], 0), (vec![4, 3, 2], 1), (vec![3, 5], 1), (vec![1, 4], 0), (vec![4], 0)]
    {
        let (w, u) = (values(&*dims, 1), values([dims[dim]], 2));
        gate(
            |t| Ok(spectral_norm(&t[0], &u.to_dtype(t[0].dtype())?, dim, 500, 0.0)?.0),
            std::slice::from_ref(&w),
        );
        both_paths(|| {
            let (y, next) = spectral_norm(&w, &u, dim, 500, 0.0).unwrap();
            let (_, after) = spectral_norm(&w, &next, dim, 1, 0.0).unwrap();
            assert_close(&after, &next, 1e-12, "singular vector");
            let matrix = y.transpose(0, dim).unwrap().flatten_from(1.min(dims.len() - 1)).unwrap();
            let matrix = matrix.reshape((dims[dim], ())).unwrap();
            let row = next.unsqueeze(0).unwrap().matmul(&matrix.contiguous().unwrap()).unwrap();
            let length = row.sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap();
            assert!((length - 1.0).abs() < 1e-10, "{dims:?} {dim}: {length}");
        });
    }
}

/// One step from a given `u`, against the definition in candle's operations.
#[test]
fn steps_of_the_power_method_are_those_of_the_definition() {
    both_paths(|| {
        let (w, u) = (values([3, 4], 1), values([3], 2));
        let unit = |x: &Tensor| -> candle_core::Result<Tensor> {
            x.broadcast_div(&(x.sqr()?.sum_all()? + EPS)?.sqrt()?)
        };
        let column = u.unsqueeze(1).unwrap();
        let v = unit(&w.t().unwrap().matmul(&column).unwrap()).unwrap();
        let wv = w.matmul(&v).unwrap();
        let next = unit(&wv).unwrap();
        let sigma = (&next * &wv).unwrap().sum_all().unwrap();
        let (y, got) = spectral_norm(&w, &u, -2, 1, EPS).unwrap();
        assert_close(&got, &next.squeeze(1).unwrap(), 1e-14, "u");
        assert_close(&y, &w.broadcast_div(&sigma).unwrap(), 1e-13, "weight");
    });
}

#[test]
fn weights_of_nothing_and_of_zeros_stay() {
    both_paths(|| {
        let zeros = Tensor::zeros((2, 3), candle_core::DType::F64, &Device::Cpu).unwrap();
        let (y, u) = spectral_norm(&zeros, &values([2], 1), 0, 2, 1e-12).unwrap();
        assert_eq!((flat(&y), flat(&u)), (vec![0.0; 6], vec![0.0; 2]));
        let empty = values([0, 3], 1);
        assert_eq!(spectral_norm(&empty, &values([3], 1), 1, 2, 1e-12).unwrap().0.dims(), [0, 3]);
        assert_eq!(weight_normalization(&empty, &values([0], 1), 0, 1e-12).unwrap().dims(), [0, 3]);
        assert_eq!(weight_normalization(&empty, &values([3], 1), 1, 1e-12).unwrap().dims(), [0, 3]);
    });
}

#[test]
fn bad_arguments_are_errors() {
    let (w, g) = (values([4, 3], 1), values([4], 2));
    let text = |result: layerfn::Result<Tensor>| result.unwrap_err().to_string();
    let wrong = text(weight_normalization(&w, &g, 1, EPS));
    assert_eq!(wrong, "`g` must have the size of axis 1 of the weight [4, 3], got [4]");
    assert!(
        text(weight_normalization(&w, &g, 2, EPS))
            .contains("`dim` must be an axis of [4, 3], -2 to 1, got 2")
    );
    assert!(text(weight_normalization(&w, &g, 0, -1.0)).contains("`eps`"));
    let spectral = |dim, itr, eps| text(spectral_norm(&w, &g, dim, itr, eps).map(|(y, _)| y));
    assert!(spectral(1, 1, EPS).contains("`u` must have the size of axis 1"));
    assert_eq!(spectral(0, 0, EPS), "`itr` must be between 1 and 10000, got 0");
    assert!(spectral(0, usize::MAX, EPS).contains("`itr`"));
    assert!(spectral(0, 1, f64::NAN).contains("`eps`"));
}
