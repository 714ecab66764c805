//! Layer, group, instance and root-mean-square normalization.

use candle_core::{Device, Tensor};
use layerfn::Result;
use layerfn::functions::{
    group_normalization, instance_normalization, layer_normalization, rms_normalization,
};
use layerfn_tests::{assert_close, both_paths, flat, gate, values};

const EPS: f64 = 1e-2;

/// The three results side by side, in one type.
fn all((y, mean, var): (Tensor, Tensor, Tensor)) -> Result<Tensor> {
    let parts = [&y, &mean, &var].map(|part| part.flatten_all()?.to_dtype(y.dtype()));
    Ok(Tensor::cat(&parts.into_iter().collect::<candle_core::Result<Vec<_>>>()?, 0)?)
}

fn inputs(dims: &[usize], coefficients: &[usize]) -> [Tensor; 3] {
    [values(dims, 1), values(coefficients, 2), values(coefficients, 3)]
}

/// Sizes of a tensor whose axes but these have size 1.
fn only(dims: &[usize], axes: &[usize]) -> Vec<usize> {
    dims.iter().enumerate().map(|(axis, &size)| if axes.contains(&axis) { size } else { 1 }).collect()
}

#[test]
fn layers_are_normalized_on_any_axes() {
    for (dims, batch) in [
        (vec![5, 3], vec![0]),
        (vec![2, 3, 4], vec![0, 1]),
        (vec![2, 3, 4], vec![2]),
        (vec![3, 2, 4, 2], vec![3, 1]),
        (vec![3, 2, 4], vec![]),
        (vec![1, 70], vec![0]),
        (vec![40, 33], vec![0]),
        (vec![2, 2, 1100], vec![0]),
        (vec![1100, 1], vec![0]),
    ] {
        let rest: Vec<usize> = (0..dims.len()).filter(|axis| !batch.contains(axis)).collect();
        let inputs = inputs(&dims, &only(&dims, &rest));
        gate(|t| all(layer_normalization(&t[0], Some(&t[1]), Some(&t[2]), &batch, EPS)?), &inputs);
        gate(|t| rms_normalization(&t[0], Some(&t[1]), &batch, EPS), &inputs[..2]);
        let (y, mean, var) = layer_normalization(&inputs[0], None, None, &batch, EPS).unwrap();
        assert_eq!(y.dims(), dims);
        assert_eq!((mean.dims(), var.dims()), (&*only(&dims, &batch), &*only(&dims, &batch)));
    }
}

#[test]
fn groups_and_instances_are_normalized_on_any_axes() {
    for (dims, channel, batch, groups) in [
        (vec![2, 6, 4], 1, vec![0], 3),
        (vec![3, 4], 1, vec![0], 2),
        (vec![2, 4, 3, 3], 1, vec![0], 1),
        (vec![2, 4, 5, 5], 1, vec![0], 4),
        (vec![2, 3, 4, 6], 3, vec![0], 3),
        (vec![2, 3, 4, 2], 2, vec![0, 1], 2),
        (vec![4, 3, 2], 0, vec![1], 2),
        (vec![4, 3, 2], 0, vec![], 2),
        (vec![1, 2, 1300], 1, vec![0], 2),
        (vec![20, 2, 17], 1, vec![0], 1),
    ] {
        let inputs = inputs(&dims, &only(&dims, &[channel]));
        gate(
            |t| all(group_normalization(&t[0], Some(&t[1]), Some(&t[2]), groups, channel, &batch, EPS)?),
            &inputs,
        );
        gate(
            |t| all(instance_normalization(&t[0], Some(&t[1]), Some(&t[2]), channel, &batch, EPS)?),
            &inputs,
        );
        let kept = only(&dims, &[&[channel], &batch[..]].concat());
        let (_, mean, _) = instance_normalization(&inputs[0], None, None, channel, &batch, EPS).unwrap();
        assert_eq!(mean.dims(), kept);
        let (_, mean, _) = group_normalization(&inputs[0], None, None, groups, channel, &batch, EPS).unwrap();
        assert_eq!(mean.dims(), [&kept[..channel], &[groups, 1], &kept[channel + 1..]].concat());
    }
}

/// The definitions, in candle's operations.
#[test]
fn values_are_those_of_the_definition() {
    both_paths(|| {
        let x = values([3, 4, 5], 1);
        let normalized = |x: &Tensor| -> candle_core::Result<[Tensor; 3]> {
            let mean = x.mean_keepdim(1)?;
            let centred = x.broadcast_sub(&mean)?;
            let var = centred.sqr()?.mean_keepdim(1)?;
            Ok([centred.broadcast_div(&(&var + EPS)?.sqrt()?)?, mean, var])
        };
        let check = |got: (Tensor, Tensor, Tensor), rows: (usize, usize)| {
            let want = normalized(&x.reshape(rows).unwrap()).unwrap();
            for (got, want) in [got.0, got.1, got.2].iter().zip(&want) {
                assert_close(&got.flatten_all().unwrap(), &want.flatten_all().unwrap(), 1e-13, "result");
            }
        };
        check(layer_normalization(&x, None, None, &[0], EPS).unwrap(), (3, 20));
        check(layer_normalization(&x, None, None, &[0, 1], EPS).unwrap(), (12, 5));
        check(group_normalization(&x, None, None, 2, 1, &[0], EPS).unwrap(), (6, 10));
        check(instance_normalization(&x, None, None, 1, &[0], EPS).unwrap(), (12, 5));
        let square = (x.sqr().unwrap().mean_keepdim((1, 2)).unwrap() + EPS).unwrap();
        let want = x.broadcast_div(&square.sqrt().unwrap()).unwrap();
        assert_close(&rms_normalization(&x, None, &[0], EPS).unwrap(), &want, 1e-13, "rms");
    });
}

/// In f32 far from zero, where the square of the mean has no digit left for the variance.
#[test]
fn a_large_mean_does_not_drown_the_variance() {
    both_paths(|| {
        let x: Vec<f32> = (0..4000).map(|i| 1000.0 + (i % 4) as f32).collect();
        let x = Tensor::from_vec(x, (1, 4000), &Device::Cpu).unwrap();
        let (y, mean, var) = layer_normalization(&x, None, None, &[0], 0.0).unwrap();
        assert!(
            (flat(&mean)[0] - 1001.5).abs() < 1e-3 && (flat(&var)[0] - 1.25).abs() < 1e-3,
            "{mean} {var}"
        );
        let y = flat(&y);
        assert!((y[0] + 1.5 / 1.25f64.sqrt()).abs() < 1e-3 && (y[3] - 1.5 / 1.25f64.sqrt()).abs() < 1e-3);
    });
}

#[test]
fn an_empty_batch_has_an_empty_result() {
    both_paths(|| {
        let x = values([0, 4, 3], 1);
        let (y, mean, _) = layer_normalization(&x, None, None, &[0], EPS).unwrap();
        assert_eq!((y.dims(), mean.dims()), (&[0, 4, 3][..], &[0, 1, 1][..]));
        let (y, mean, _) = group_normalization(&x, None, None, 2, 1, &[0], EPS).unwrap();
        assert_eq!((y.dims(), mean.dims()), (&[0, 4, 3][..], &[0, 2, 1, 1][..]));
        assert_eq!(instance_normalization(&x, None, None, 1, &[0], EPS).unwrap().0.dims(), [0, 4, 3]);
        assert_eq!(rms_normalization(&x, None, &[0], EPS).unwrap().dims(), [0, 4, 3]);
    });
}

#[test]
fn bad_arguments_are_errors() {
    let x = values([4, 6], 1);
    let text = |result: Result<(Tensor, Tensor, Tensor)>| result.unwrap_err().to_string();
    let layer = |batch: &[usize], eps| text(layer_normalization(&x, None, None, batch, eps));
    assert_eq!(layer(&[2], EPS), "`batch_axis` must be different axes of the input [4, 6], got [2]");
    assert_eq!(layer(&[0, 0], EPS), "`batch_axis` must be different axes of the input [4, 6], got [0, 0]");
    assert!(layer(&[0], -1.0).contains("`eps`"));
    let group = |groups, channel| text(group_normalization(&x, None, None, groups, channel, &[0], EPS));
    assert_eq!(group(4, 1), "`num_groups` must divide the 6 channels, got 4");
    assert!(group(0, 1).contains("`num_groups`"));
    assert!(
        group(2, 0).contains("`channel_axis` must be an axis of the input [4, 6] and none of `batch_axis`")
    );
    assert!(group(2, 7).contains("`channel_axis`"));
    let p = values([6], 1);
    let wrong = text(layer_normalization(&x, Some(&p), None, &[0], EPS));
    assert_eq!(wrong, "`beta` must have shape [1, 6] here, got [6]");
    assert!(text(layer_normalization(&x, None, Some(&p), &[0], EPS)).contains("`gamma`"));
    assert!(text(layer_normalization(&values([3, 0], 1), None, None, &[0], EPS)).contains("elements"));
    let whole = Tensor::zeros((2, 2), candle_core::DType::U32, &Device::Cpu).unwrap();
    assert!(text(layer_normalization(&whole, None, None, &[0], EPS)).contains("`inp`"));
}
