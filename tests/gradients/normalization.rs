use candle_core::{Device, Tensor};
use layerfn::functions::{batch_normalization, batch_normalization_by, subtract_mean};
use layerfn_tests::{assert_close, both_paths, flat, gate, gradients, values};

const EPS: f64 = 1e-2;

/// (input, axes, shape of the statistics)
fn cases() -> Vec<(Vec<usize>, Vec<usize>, Vec<usize>)> {
    vec![
        (vec![5, 3], vec![1], vec![1, 3]),
        (vec![5, 3], vec![0], vec![5, 1]),
        (vec![2, 3, 4, 5], vec![1], vec![1, 3, 1, 1]),
        (vec![2, 3, 4, 2], vec![3], vec![1, 1, 1, 2]),
        (vec![3, 2, 4, 2], vec![1, 2], vec![1, 2, 4, 1]),
        (vec![3, 2, 4, 2], vec![3, 1], vec![1, 2, 1, 2]),
        (vec![4, 1, 3], vec![1], vec![1, 1, 1]),
        (vec![1, 2, 7], vec![1], vec![1, 2, 1]),
        (vec![9, 4, 30, 31], vec![1], vec![1, 4, 1, 1]),
        (vec![700, 51], vec![1], vec![1, 51]),
    ]
}

#[test]
fn batch_statistics_on_any_axes() {
    for (dims, axes, stat_dims) in cases() {
        let inputs = [values(dims, 1), values(&*stat_dims, 2), values(&*stat_dims, 3)];
        gate(|t| Ok(batch_normalization(&t[0], &t[1], &t[2], &axes, EPS)?.0), &inputs);
        let statistics = |t: &[Tensor]| batch_normalization(&t[0], &t[1], &t[2], &axes, EPS);
        let (y, mean, var) = statistics(&inputs).unwrap();
        assert_eq!(y.dims(), inputs[0].dims());
        assert_eq!((mean.dims(), var.dims()), (&*stat_dims, &*stat_dims));
    }
}

#[test]
fn gradients_flow_through_all_three_results() {
    both_paths(|| {
        for (dims, axes, stat_dims) in cases() {
            let inputs = [values(dims, 1), values(&*stat_dims, 2), values(&*stat_dims, 3)];
            gate(
                |t| {
                    let (y, mean, var) = batch_normalization(&t[0], &t[1], &t[2], &axes, EPS)?;
                    let parts = [y.flatten_all()?, mean.flatten_all()?, var.flatten_all()?];
                    Ok(Tensor::cat(&parts, 0)?)
                },
                &inputs,
            );
        }
    });
}

#[test]
fn statistics_are_mean_and_biased_variance() {
    let x = (values([6, 2, 3], 1) + 1000.0).unwrap();
    let (zeros, ones) =
        (Tensor::zeros_like(&values([1, 2, 1], 0)).unwrap(), values([1, 2, 1], 0).ones_like().unwrap());
    let (y, mean, var) = batch_normalization(&x, &zeros, &ones, &[1], 0.0).unwrap();
    let want_mean = x.mean_keepdim((0, 2)).unwrap();
    let centered = x.broadcast_sub(&want_mean).unwrap();
    let want_var = centered.sqr().unwrap().mean_keepdim((0, 2)).unwrap();
    assert_close(&mean, &want_mean, 1e-13, "mean");
    assert_close(&var, &want_var, 1e-12, "variance");
    assert_close(&y, &centered.broadcast_div(&want_var.sqrt().unwrap()).unwrap(), 1e-10, "output");
}

#[test]
fn given_statistics_are_constants() {
    for (dims, axes, stat_dims) in cases() {
        let inputs = [values(dims, 1), values(&*stat_dims, 2), values(&*stat_dims, 3)];
        let mean = values(&*stat_dims, 4);
        let var = (values(&*stat_dims, 5) + 1.5).unwrap();
        gate(
            |t| {
                let (mean, var) = (mean.to_dtype(t[0].dtype())?, var.to_dtype(t[0].dtype())?);
                batch_normalization_by(&t[0], &t[1], &t[2], &mean, &var, &axes, EPS)
            },
            &inputs,
        );
    }
    let p = values([1, 3], 1);
    let var = (values([1, 3], 5) + 1.5).unwrap();
    let y = batch_normalization_by(&values([0, 3], 1), &p, &p, &p, &var, &[1], EPS).unwrap();
    assert_eq!(y.dims(), [0, 3]);
    let inputs = [values([2, 3], 1), p.clone(), p.clone(), p, var];
    let f = |t: &[Tensor]| batch_normalization_by(&t[0], &t[1], &t[2], &t[3], &t[4], &[1], EPS);
    let got = gradients(f, &inputs, &values([2, 3], 6), |_| true);
    assert_eq!(flat(got[3].as_ref().unwrap()), [0.0; 3]);
    assert_eq!(flat(got[4].as_ref().unwrap()), [0.0; 3]);
}

#[test]
fn bad_arguments_are_errors() {
    let (x, p) = (values([4, 3], 1), values([1, 3], 2));
    let message = |x: &Tensor, p: &Tensor, axes: &[usize], eps: f64| {
        batch_normalization(x, p, p, axes, eps).unwrap_err().to_string()
    };
    assert!(message(&x, &p, &[], EPS).contains("`axes` must name"));
    assert!(message(&x, &p, &[2], EPS).contains("`axes` must name"));
    assert!(message(&x, &p, &[1, 1], EPS).contains("`axes` must name"));
    assert_eq!(message(&x, &values([3], 2), &[1], EPS), "`beta` must have shape [1, 3] here, got [3]");
    assert!(message(&x, &p, &[1], -1.0).contains("`eps`"));
    assert!(message(&x, &p, &[1], f64::NAN).contains("`eps`"));
    assert!(message(&values([0, 3], 1), &p, &[1], EPS).contains("elements"));
    assert!(message(&Tensor::new(1f64, &Device::Cpu).unwrap(), &p, &[0], EPS).contains("`axes`"));
}

#[test]
fn subtracting_a_mean_scales_the_gradient_as_told() {
    both_paths(|| {
        let (x, mean) = (values([5, 2, 3], 1), values([2, 3], 2));
        gate(|t| subtract_mean(&t[0], &mean.to_dtype(t[0].dtype())?, 1.0), std::slice::from_ref(&x));
        let upstream = values([5, 2, 3], 3);
        let got =
            gradients(|t| subtract_mean(&t[0], &t[1], 0.75), &[x.clone(), mean.clone()], &upstream, |_| true);
        assert_close(got[0].as_ref().unwrap(), &(upstream * 0.75).unwrap(), 1e-15, "gradient");
        assert_eq!(flat(got[1].as_ref().unwrap()), [0.0; 6]);
        assert_eq!(subtract_mean(&values([0, 3], 1), &values([3], 1), 1.0).unwrap().dims(), [0, 3]);
        assert_eq!(subtract_mean(&values([2, 0], 1), &values([0], 1), 1.0).unwrap().dims(), [2, 0]);
        assert_eq!(subtract_mean(&values([3], 1), &values([], 1), 1.0).unwrap().dims(), [3]);
        assert!(subtract_mean(&x, &values([3, 2], 1), 1.0).is_err());
    });
}
