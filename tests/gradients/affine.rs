use candle_core::{DType, Device, Tensor};
use layerfn::functions::{affine, embed, lstm_cell};
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
fn lstm_cell_in_both_results() {
    for (samples, inmaps, state) in [(2, 3, 4), (1, 1, 1), (3, 0, 2), (0, 3, 2), (2, 3, 0), (40, 20, 60)] {
        let dims = [vec![samples, inmaps], vec![samples, state], vec![samples, state]];
        let weights = [vec![inmaps + state, 4, state], vec![4, state]];
        let inputs: Vec<_> =
            dims.into_iter().chain(weights).zip(1..).map(|(dims, seed)| values(dims, seed)).collect();
        let cell = |t: &[Tensor]| lstm_cell(&t[0], &t[1], &t[2], &t[3], &t[4]);
        gate(|t| Ok(cell(t)?.0), &inputs);
        gate(|t| Ok(cell(t)?.1), &inputs);
        gate(
            |t| {
                let (h, c) = cell(t)?;
                Ok(Tensor::cat(&[h, c], 0)?)
            },
            &inputs,
        );
    }
}

#[test]
fn lstm_cell_over_several_steps() {
    let inputs =
        [values([2, 3], 1), values([2, 2], 2), values([2, 2], 3), values([5, 4, 2], 4), values([4, 2], 5)];
    gate(
        |t| {
            let (mut h, mut c) = (t[1].clone(), t[2].clone());
            for _ in 0..5 {
                (h, c) = lstm_cell(&t[0], &h, &c, &t[3], &t[4])?;
            }
            affine(&h, &c, None, 1)
        },
        &inputs,
    );
}

#[test]
fn lstm_cell_refuses_what_does_not_fit() {
    let message = |dims: [&[usize]; 5]| {
        let [x, h, c, w, b] = dims.map(|dims| values(dims, 1));
        lstm_cell(&x, &h, &c, &w, &b).unwrap_err().to_string()
    };
    let (x, h, w, b) = (&[2, 3][..], &[2, 5][..], &[8, 4, 5][..], &[4, 5][..]);
    assert!(message([&[2], h, h, w, b]).contains("`x`"), "{}", message([&[2], h, h, w, b]));
    assert_eq!(
        message([x, h, &[2, 4], w, b]),
        "`c` must have shape [2, 5] for an input [2, 3] and a state 5, got [2, 4]"
    );
    assert!(message([x, &[1, 5], h, w, b]).starts_with("`h` must have shape [2, 5]"));
    assert!(message([x, h, h, &[8, 20], b]).starts_with("`W` must have shape [8, 4, 5]"));
    assert!(message([x, h, h, w, &[20]]).starts_with("`b` must have shape [4, 5]"));
}
