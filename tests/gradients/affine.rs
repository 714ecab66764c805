use candle_core::{DType, Device, Tensor};
use layerfn::functions::{affine, embed, lstm_step};
use layerfn_tests::{flat, gate, gradients, values};

#[test]
fn affine_flattens_as_told() {
    for (dims, base_axis, outmaps) in [
        (vec![2, 3], 1, vec![4]),
        (vec![1, 3], 1, vec![1]),
        (vec![2, 3, 4], 1, vec![2, 3]),
        (vec![2, 3, 4], 2, vec![5]),
        (vec![2, 3], 0, vec![4]),
        (vec![2, 3], 2, vec![4]),
        (vec![2, 3], 1, vec![]),
        (vec![0, 3], 1, vec![4]),
        (vec![64, 300], 1, vec![120]),
        (vec![1, 4000], 1, vec![90]),
    ] {
        let inmaps = dims[base_axis..].iter().product();
        let w_dims = [&[inmaps], &*outmaps].concat();
        let inputs = [values(dims.clone(), 1), values(w_dims, 2), values(outmaps.clone(), 3)];
        gate(|t| affine(&t[0], &t[1], Some(&t[2]), base_axis), &inputs);
        gate(|t| affine(&t[0], &t[1], None, base_axis), &inputs[..2]);
        let y = affine(&inputs[0], &inputs[1], None, base_axis).unwrap();
        assert_eq!(y.dims(), [&dims[..base_axis], &outmaps].concat());
    }
}

#[test]
fn affine_refuses_what_does_not_fit() {
    let x = values([2, 3, 4], 1);
    let message = |w: Tensor, b: Option<Tensor>, base_axis| {
        affine(&x, &w, b.as_ref(), base_axis).unwrap_err().to_string()
    };
    assert_eq!(
        message(values([4, 5], 1), None, 1),
        "`W` must have 12 rows for input [2, 3, 4] with `base_axis` 1, got [4, 5]"
    );
    assert_eq!(
        message(values([12, 5], 1), Some(values([1, 5], 1)), 1),
        "`b` must have shape [5] as `W` gives it, got [1, 5]"
    );
    assert!(message(values([1, 5], 1), None, 4).contains("`base_axis` must be at most 3"));
    assert!(message(values([], 1), None, 1).contains("`W`"));
}

#[test]
fn embed_adds_up_the_gradients_of_repeated_indices() {
    let indices = Tensor::new(&[[1u32, 0, 1], [3, 1, 3]], &Device::Cpu).unwrap();
    gate(|t| embed(&indices, &t[0]), &[values([4, 3], 1)]);
    gate(|t| embed(&indices, &t[0]), &[values([4], 1)]);
    gate(|t| embed(&indices, &t[0]), &[values([4, 2, 2], 1)]);
    for dtype in [DType::U8, DType::I16, DType::I32, DType::I64] {
        let y = embed(&indices.to_dtype(dtype).unwrap().t().unwrap(), &values([4, 3], 1)).unwrap();
        assert_eq!(y.dims(), [3, 2, 3]);
    }
    let w = values([4, 3], 1);
    let got = gradients(
        |t| embed(&indices, &t[0]),
        std::slice::from_ref(&w),
        &values([2, 3, 3], 0).ones_like().unwrap(),
        |_| true,
    );
    assert_eq!(flat(got[0].as_ref().unwrap()), [1., 1., 1., 3., 3., 3., 0., 0., 0., 2., 2., 2.]);
    let none = Tensor::new(&[0u32; 0], &Device::Cpu).unwrap();
    assert_eq!(embed(&none, &w).unwrap().dims(), [0, 3]);
    let negative = Tensor::new(&[-1i64], &Device::Cpu).unwrap();
    assert!(embed(&negative, &w).unwrap_err().to_string().contains("got -1"));
    assert!(embed(&values([2], 1), &w).unwrap_err().to_string().contains("must hold integers"));
    assert!(embed(&indices, &values([], 1)).is_err());
    assert!(embed(&indices, &values([0, 3], 1)).is_err());
}

#[test]
fn lstm_step_in_both_results() {
    for (batch, state) in
        [(vec![2], 3), (vec![1], 1), (vec![2, 2], 2), (vec![], 3), (vec![0], 3), (vec![50], 90)]
    {
        let gates = values([&*batch, &[4, state]].concat(), 1);
        let c = values([&*batch, &[state]].concat(), 2);
        gate(|t| Ok(lstm_step(&t[0], &t[1])?.0), &[gates.clone(), c.clone()]);
        gate(|t| Ok(lstm_step(&t[0], &t[1])?.1), &[gates.clone(), c.clone()]);
        gate(
            |t| {
                let (h, c) = lstm_step(&t[0], &t[1])?;
                Ok(Tensor::cat(&[h, c], 0)?)
            },
            &[gates, c],
        );
    }
    assert!(lstm_step(&values([2, 3, 5], 1), &values([2, 5], 1)).is_err());
    assert!(lstm_step(&values([4], 1), &values([], 1)).is_err());
}
