use candle_core::{D, DType, Device, Tensor};
use layerfn::functions::*;
use layerfn_tests::support::elementwise::Domain;
use layerfn_tests::{assert_close, both_paths, flat, gate, gradients, values};

fn labels(dims: &[usize], n_classes: usize) -> Tensor {
    let n: usize = dims.iter().product();
    let labels: Vec<u32> = (0..n).map(|i| ((i * 7 + 3) % n_classes) as u32).collect();
    Tensor::from_vec(labels, dims, &Device::Cpu).unwrap()
}

#[test]
fn softmax_cross_entropy_along_any_axis() {
    for (dims, axis) in [
        (vec![4, 3], 1),
        (vec![4, 3], 0),
        (vec![2, 3, 2, 2], 1),
        (vec![1, 1], 1),
        (vec![3], 0),
        (vec![0, 3], 1),
        (vec![900, 11], 1),
    ] {
        let x = (values(dims.clone(), 1) * 3.0).unwrap();
        let mut kept = dims.clone();
        kept[axis] = 1;
        let labels = labels(&kept, dims[axis]);
        gate(|t| softmax_cross_entropy(&t[0], &labels, axis), std::slice::from_ref(&x));
        let squeezed = labels.squeeze(axis).unwrap().to_dtype(DType::I64).unwrap();
        let y = softmax_cross_entropy(&x, &squeezed, axis).unwrap();
        assert_eq!(y.dims(), kept);
        let want = log_softmax(&x, axis).unwrap().gather(&labels, axis).unwrap().neg().unwrap();
        assert_close(&y, &want, 1e-12, "cross entropy");
        if labels.elem_count() > 0 {
            gate(|t| mean_softmax_cross_entropy(&t[0], &labels, axis), &[x]);
        }
    }
}

#[test]
fn a_label_below_zero_is_not_counted() {
    for (dims, axis) in [(vec![4, 3], 1), (vec![3, 4], 0), (vec![2, 3, 2], 1), (vec![900, 11], 1)] {
        let x = (values(dims.clone(), 1) * 3.0).unwrap();
        let mut kept = dims.clone();
        kept[axis] = 1;
        let n: usize = kept.iter().product();
        // Every second one is not counted.
        let tensor = |label: fn(i64) -> i64| {
            Tensor::from_vec((0..n as i64).map(label).collect(), &*kept, &Device::Cpu).unwrap()
        };
        let (every, signed) = (tensor(|i| i % 3), tensor(|i| if i % 2 == 0 { i % 3 } else { -i }));
        gate(|t| softmax_cross_entropy(&t[0], &signed, axis), std::slice::from_ref(&x));
        gate(|t| mean_softmax_cross_entropy(&t[0], &signed, axis), std::slice::from_ref(&x));
        both_paths(|| {
            let want = flat(&softmax_cross_entropy(&x, &every, axis).unwrap())
                .into_iter()
                .enumerate()
                .map(|(i, loss)| if i % 2 == 0 { loss } else { 0.0 });
            let want: Vec<f64> = want.collect();
            for dtype in [DType::I16, DType::I32, DType::I64] {
                let labels = signed.to_dtype(dtype).unwrap();
                let loss = softmax_cross_entropy(&x, &labels, axis).unwrap();
                for (got, want) in flat(&loss).iter().zip(&want) {
                    assert!((got - want).abs() < 1e-12, "{got}, not {want}");
                }
                let mean = flat(&mean_softmax_cross_entropy(&x, &labels, axis).unwrap())[0];
                let want = want.iter().sum::<f64>() / n as f64;
                assert!((mean - want).abs() < 1e-12, "the mean over all samples is {want}, not {mean}");
            }
        });
    }
}

#[test]
fn what_is_not_counted_does_not_matter() {
    both_paths(|| {
        let x = Tensor::new(&[[f64::INFINITY, f64::NAN], [0.0, 0.0]], &Device::Cpu).unwrap();
        let labels = Tensor::new(&[-1i64, 1], &Device::Cpu).unwrap();
        let loss = |t: &[Tensor]| softmax_cross_entropy(&t[0], &labels, 1);
        assert_eq!(flat(&loss(std::slice::from_ref(&x)).unwrap()), [0.0, 2f64.ln()]);
        let upstream = Tensor::ones((2, 1), DType::F64, &Device::Cpu).unwrap();
        let got = gradients(loss, &[x], &upstream, |_| true);
        assert_eq!(flat(got[0].as_ref().unwrap()), [0.0, 0.0, 0.5, -0.5]);
        let none = Tensor::new(&[-1i64, -7], &Device::Cpu).unwrap();
        assert_eq!(flat(&mean_softmax_cross_entropy(&values([2, 3], 1), &none, 1).unwrap()), [0.0]);
    });
}

#[test]
fn bad_labels_are_errors() {
    let x = values([2, 3], 1);
    let message = |labels: Tensor| softmax_cross_entropy(&x, &labels, D::Minus1).unwrap_err().to_string();
    let new = |labels: &[i64]| Tensor::new(labels, &Device::Cpu).unwrap();
    assert_eq!(
        message(new(&[0, 3])),
        "`labels` must hold indices from 0 to 2 (`number of classes` is 3), got 3"
    );
    assert!(message(new(&[-1, 3])).contains("got 3"));
    assert!(message(new(&[0, 1, 2])).contains("must have shape [2, 1] or [2]"));
    assert!(message(values([2], 1)).contains("must hold integers"));
    assert!(softmax_cross_entropy(&x, &new(&[0, 0]), 2).is_err());
    assert!(mean_softmax_cross_entropy(&values([0, 3], 1), &new(&[]), 1).is_err());
    assert!(softmax_cross_entropy(&values([2, 0], 1), &new(&[0, 0]), 1).is_err());
}

#[test]
fn categorical_cross_entropy_of_probabilities() {
    for (dims, axis) in [(vec![4, 3], 1), (vec![3, 4], 0), (vec![2, 3, 2], 1), (vec![0, 3], 1)] {
        let p = Domain::Share.tensor(&dims, 1);
        let mut kept = dims.clone();
        kept[axis] = 1;
        let n: usize = kept.iter().product();
        let labels = (0..n as i64).map(|i| if i % 3 == 2 { -1 } else { i % 3 }).collect();
        let labels = Tensor::from_vec::<_, i64>(labels, kept, &Device::Cpu).unwrap();
        gate(|t| categorical_cross_entropy(&t[0], &labels, axis), &[p]);
    }
    both_paths(|| {
        let p = Tensor::new(&[[0f64, 1.], [f64::NAN, 0.5]], &Device::Cpu).unwrap();
        let labels = Tensor::new(&[0i64, -3], &Device::Cpu).unwrap();
        let loss = flat(&categorical_cross_entropy(&p, &labels, 1).unwrap());
        assert!((loss[0] - 87.336_544_750_553_1).abs() < 1e-9 && loss[1] == 0.0, "{loss:?}");
    });
    let p = Domain::Share.tensor(&[2, 3], 1);
    let labels = Tensor::new(&[0i64, 3], &Device::Cpu).unwrap();
    assert!(categorical_cross_entropy(&p, &labels, 1).is_err());
}

#[test]
fn divergence_of_distributions() {
    for (dims, base_axis) in
        [(vec![3, 4], 1), (vec![2, 2, 3], 2), (vec![2, 2, 3], 1), (vec![4], 0), (vec![0, 3], 1)]
    {
        let inputs = [Domain::Share.tensor(&dims, 1), Domain::Share.tensor(&dims, 2)];
        gate(|t| kl_multinomial(&t[0], &t[1], base_axis), &inputs);
        let y = kl_multinomial(&inputs[0], &inputs[1], base_axis).unwrap();
        assert_eq!(y.dims(), [&dims[..base_axis], &[1]].concat());
    }
    let p = Domain::Share.tensor(&[2, 3], 1);
    assert!(kl_multinomial(&p, &Domain::Share.tensor(&[2, 1], 1), 1).is_err());
    assert!(kl_multinomial(&p, &p, 3).is_err());
}

#[test]
fn means_of_losses() {
    for dims in [vec![], vec![3, 2], vec![60, 700]] {
        let inputs = [(values(dims.clone(), 1) * 3.0).unwrap(), values(dims.clone(), 2)];
        gate(|t| mean_squared_error(&t[0], &t[1]), &inputs);
    }
    let x = values([2, 3], 1);
    assert!(squared_error(&x, &values([3], 1)).is_err());
    assert!(mean_squared_error(&x, &values([2, 1], 1)).is_err());
    assert!(mean_squared_error(&values([0], 1), &values([0], 1)).is_err());
}
