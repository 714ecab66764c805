use candle_core::{DType, Device, Tensor};
use layerfn::Result;
use layerfn::functions::scaled_dot_product_attention;
use layerfn_tests::{flat, gate, values};

/// Attention without masks.
fn plain(t: &[Tensor]) -> Result<Tensor> {
    scaled_dot_product_attention(&t[0], &t[1], &t[2], None, None, false, None)
}

/// Queries, keys and values of `batch` for so many targets and sources, and of these two dimensions.
fn inputs(batch: &[usize], [targets, sources, dim, value_dim]: [usize; 4]) -> [Tensor; 3] {
    let tensor =
        |sizes: [usize; 2], seed| (values([batch, &sizes].concat(), seed) * 2.0).expect("a few numbers");
    [tensor([targets, dim], 1), tensor([sources, dim], 2), tensor([sources, value_dim], 3)]
}

#[test]
fn attention_of_every_shape() {
    for (batch, sizes) in [
        (&[][..], [3, 4, 2, 5]),
        (&[2], [1, 1, 1, 1]),
        (&[2, 3], [4, 3, 2, 2]),
        (&[2, 1, 2], [3, 5, 4, 1]),
        (&[2, 2], [0, 3, 2, 2]),
        (&[2, 2], [3, 0, 2, 2]),
        (&[0, 2], [3, 3, 2, 2]),
        (&[2, 2], [3, 4, 2, 0]),
        (&[2, 2], [3, 4, 0, 2]),
        // More queries and keys than a tile has.
        (&[1, 2], [130, 20, 3, 2]),
        (&[2], [20, 300, 3, 2]),
    ] {
        let inputs = inputs(batch, sizes);
        gate(plain, &inputs);
        gate(|t| scaled_dot_product_attention(&t[0], &t[1], &t[2], None, None, true, Some(0.7)), &inputs);
        assert_eq!(plain(&inputs).unwrap().dims(), [batch, &[sizes[0], sizes[3]]].concat());
    }
}

#[test]
fn attention_with_a_mask_to_learn() {
    let inputs = inputs(&[2, 3], [4, 5, 2, 3]);
    for dims in
        [&[4, 5][..], &[1, 5], &[5], &[3, 4, 5], &[2, 1, 4, 5], &[2, 3, 4, 5], &[2, 1, 1, 5], &[4, 1], &[1]]
    {
        let mut inputs = inputs.to_vec();
        inputs.push(values(dims, 9));
        gate(
            |t| {
                // The last axis is broadcast by candle, so that it is among the gradients.
                let mask = t[3].broadcast_as([&dims[..dims.len() - 1], &[5]].concat())?;
                scaled_dot_product_attention(&t[0], &t[1], &t[2], Some(&mask), None, true, None)
            },
            &inputs,
        );
    }
}

#[test]
fn hidden_keys_take_no_part() {
    let device = &Device::Cpu;
    let inputs = inputs(&[2, 2], [2, 3, 2, 2]);
    let padding = Tensor::new(&[[0f64, 1., 0.], [0., 0., 1.]], device).unwrap();
    let bytes = Tensor::new(&[[0u8, 1, 0], [1, 0, 0]], device).unwrap();
    let floats = Tensor::new(&[[0f64, f64::NEG_INFINITY, 0.], [f64::NEG_INFINITY, 0., 0.]], device).unwrap();
    let padding = &padding;
    let masked = |mask: &Tensor| {
        let mask = mask.clone();
        move |t: &[Tensor]| {
            let mask = if mask.dtype() == DType::U8 { mask.clone() } else { mask.to_dtype(t[0].dtype())? };
            scaled_dot_product_attention(&t[0], &t[1], &t[2], Some(&mask), Some(padding), false, None)
        }
    };
    gate(masked(&bytes), &inputs);
    gate(masked(&floats), &inputs);
    let [by_bytes, by_floats] = [&bytes, &floats].map(|mask| flat(&masked(mask)(&inputs).unwrap()));
    assert_eq!(by_bytes, by_floats);
    // The second query of the first sample sees the third key alone: the mean is its value.
    let first = |x: &Tensor| x.get(0).unwrap().to_vec3::<f64>().unwrap();
    let (y, value) = (first(&masked(&bytes)(&inputs).unwrap()), first(&inputs[2]));
    assert_eq!([&y[0][1], &y[1][1]], [&value[0][2], &value[1][2]]);
}

/// A row of softmax over nothing would be 0 / 0.
#[test]
fn a_query_that_sees_no_key_gets_zeros() {
    let inputs = inputs(&[1, 1], [2, 2, 2, 3]);
    let mask = Tensor::new(&[[1u8, 1], [0, 0]], &Device::Cpu).unwrap();
    let blind =
        |t: &[Tensor]| scaled_dot_product_attention(&t[0], &t[1], &t[2], Some(&mask), None, false, None);
    gate(blind, &inputs);
    assert_eq!(flat(&blind(&inputs).unwrap())[..3], [0.0; 3]);
    // Three queries and two keys: the first one comes before all keys.
    let inputs = self::inputs(&[1, 1], [3, 2, 2, 3]);
    let causal = |t: &[Tensor]| scaled_dot_product_attention(&t[0], &t[1], &t[2], None, None, true, None);
    gate(causal, &inputs);
    assert_eq!(flat(&causal(&inputs).unwrap())[..3], [0.0; 3]);
}

#[test]
fn large_scores_do_not_overflow() {
    let [query, key, value] =
        inputs(&[2], [3, 4, 2, 2]).map(|x| (x * 1e3).unwrap().to_dtype(DType::F32).unwrap());
    layerfn_tests::both_paths(|| {
        let y = scaled_dot_product_attention(&query, &key, &value, None, None, false, None).unwrap();
        assert!(flat(&y).iter().all(|y| y.is_finite()));
    });
    let nan = (&query * f64::NAN).unwrap();
    layerfn_tests::both_paths(|| {
        let y = scaled_dot_product_attention(&nan, &key, &value, None, None, false, None).unwrap();
        assert!(flat(&y).iter().all(|y| y.is_nan()), "what is not a number is not hidden");
    });
}

#[test]
fn attention_refuses_what_does_not_fit() {
    let message = |dims: [&[usize]; 3], mask: Option<&[usize]>, padding: Option<&[usize]>| {
        let [query, key, value] = dims.map(|dims| values(dims, 1));
        let [mask, padding] = [mask, padding].map(|dims| dims.map(|dims| values(dims, 2)));
        scaled_dot_product_attention(&query, &key, &value, mask.as_ref(), padding.as_ref(), false, None)
            .unwrap_err()
            .to_string()
    };
    let (q, k, v) = (&[2, 3, 4][..], &[2, 5, 4][..], &[2, 5, 6][..]);
    assert_eq!(
        message([q, &[2, 5, 3], v], None, None),
        "`key` must have the batches, the heads and the dimension of a query [2, 3, 4], got [2, 5, 3]"
    );
    assert_eq!(
        message([q, k, &[2, 4, 6]], None, None),
        "`value` must have the batches, the heads and the positions of the keys [2, 5, 4], got [2, 4, 6]"
    );
    assert!(message([&[3], k, v], None, None).starts_with("`query` must have the shape (batch..,"));
    assert_eq!(
        message([q, k, v], Some(&[4, 5]), None),
        "`mask` must broadcast to the scores (batch.., heads, targets, sources) = [2, 3, 5], got [4, 5]"
    );
    assert_eq!(
        message([q, k, v], None, Some(&[4])),
        "`key_padding_mask` must broadcast to the shape [5], got [4]"
    );
    let x = values([2, 3], 1);
    let bytes = x.to_dtype(DType::U8).unwrap();
    let integers = scaled_dot_product_attention(&bytes, &x, &x, None, None, false, None).unwrap_err();
    assert!(integers.to_string().starts_with("`query` must hold f32"), "{integers}");
    let indices = x.to_dtype(DType::U32).unwrap();
    let mask = scaled_dot_product_attention(&x, &x, &x, Some(&indices), None, false, None).unwrap_err();
    assert!(mask.to_string().starts_with("`mask` must hold floating-point numbers, or bytes"), "{mask}");
    let scale = scaled_dot_product_attention(&x, &x, &x, None, None, false, Some(f64::NAN)).unwrap_err();
    assert!(scale.to_string().starts_with("`scale` must be finite"), "{scale}");
}
