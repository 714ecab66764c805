//! Sizes and numbers that no call can work with are errors in words.

use candle_core::{DType, Device, Tensor};
use layerfn::functions::{self as f, Transform};
use layerfn::prelude::*;
use layerfn::{LSTMCell, PerAxis, Result, Rng, get_parameter_or_create};

use crate::zeros;

/// The root of the error; nothing may have been made.
#[track_caller]
fn refused<T>(call: impl FnOnce() -> Result<T>) -> String {
    let store = ParameterStore::new();
    let Err(error) = store.enter(call) else { panic!("accepted") };
    assert!(store.parameters().is_empty(), "{error}");
    error.root().to_string()
}

#[test]
fn sizes_of_parameters_are_counted_and_asked_for() {
    let row = zeros(&[1, 4], DType::F32);
    let image = zeros(&[1, 4, 3, 3], DType::F32);
    let indices = zeros(&[2], DType::U32);
    let memory = "must not ask for more memory than there is";
    let count = "must not give more elements than can be counted";
    for (error, argument, reason) in [
        (refused(|| affine(&row, 1usize << 40).call()), "n_outmaps", memory),
        (refused(|| affine(&row, usize::MAX).call()), "n_outmaps", count),
        (refused(|| affine(&row, (1usize << 32, 1usize << 32)).call()), "n_outmaps", count),
        (refused(|| convolution(&image, 1usize << 40, (3, 3)).call()), "outmaps", memory),
        (refused(|| embed(&indices, 1usize << 40, 4).call()), "shape", memory),
        (
            refused(|| depthwise_convolution(&image, (1, 1)).multiplier((1 << 62) + 1).call()),
            "multiplier",
            count,
        ),
        (refused(|| LSTMCell::new(2, 1 << 50).step(&zeros(&[2, 3], DType::F32))), "state_size", memory),
        (refused(|| cpd3_convolution(&image, 1usize << 63, (1, 1), 1).call()), "outmaps", count),
        (refused(|| get_parameter_or_create("w").shape((1 << 40, 0, 1 << 40)).call()), "shape", count),
    ] {
        assert!(error.starts_with(&format!("`{argument}` {reason}")), "{error}");
    }
}

#[test]
fn views_are_not_copied_into_more_memory_than_there_is() {
    let view = zeros(&[1], DType::F32).broadcast_as(&[1usize << 45]).unwrap();
    let half = zeros(&[1], DType::F16).broadcast_as(&[1usize << 45]).unwrap();
    for inp in [&view, &half] {
        let error = f::relu(inp).unwrap_err().to_string();
        assert!(error.starts_with("`inp` must not ask for more memory than there is"), "{error}");
    }
    let error = f::Prune { rate: 0.5 }.apply(&view).unwrap_err().to_string();
    assert!(error.starts_with("`w` must not ask for more memory"), "{error}");
}

#[test]
fn nothing_is_computed_from_nothing_whatever_the_other_sizes() -> Result<()> {
    ParameterStore::new().enter(|| {
        let y = convolution(&zeros(&[0, 2, 1 << 40], DType::F32), 3, [2]).call()?;
        assert_eq!(y.dims(), [0, 3, (1 << 40) - 1]);
        let y = f::prelu(&zeros(&[1 << 40, 2, 0], DType::F32), &zeros(&[2], DType::F32), 1)?;
        assert_eq!(y.dims(), [1 << 40, 2, 0]);
        let gradients = backward(&y.sum_all()?)?;
        drop(gradients);
        Ok(())
    })
}

#[test]
fn nothing_is_moved_of_nothing_whatever_the_other_sizes() -> Result<()> {
    let empty = |dtype, dims: &[usize]| zeros(dims, dtype);
    let long = 1 << 40;
    for dtype in [DType::I16, DType::F32] {
        assert_eq!(f::flip(&empty(dtype, &[0, 2, long]), [-2, 0, -1])?.dims(), [0, 2, long]);
        assert_eq!(f::matrix_diag(&empty(dtype, &[long, 2, 0]))?.dims(), [long, 2, 0, 0]);
    }
    let tiled = f::tile(&empty(DType::F8E4M3, &[1 << 20, 2, 0]), (1, 1, 5, 1 << 20))?;
    assert_eq!(tiled.dims(), [1, 1 << 20, 10, 0]);
    Ok(())
}

#[test]
fn masks_of_attention_are_not_copied_into_more_memory_than_there_is() {
    let x = zeros(&[1, 2, 4], DType::F32);
    for dtype in [DType::U8, DType::F32] {
        let mask = zeros(&[1], dtype).broadcast_as((1usize << 45, 2, 2)).unwrap();
        let attend = |mask, hidden| f::scaled_dot_product_attention(&x, &x, &x, mask, hidden, false, None);
        let error = attend(None, Some(&mask)).unwrap_err().to_string();
        assert!(error.starts_with("`key_padding_mask` must not ask for more memory"), "{error}");
        let error = attend(Some(&mask), None).unwrap_err().to_string();
        assert!(error.starts_with("`mask` must"), "{error}");
    }
}

#[test]
fn windows_may_be_larger_than_anything() -> Result<()> {
    let x = Tensor::arange(0f32, 16.0, &Device::Cpu)?.reshape((1, 1, 4, 4))?;
    let far = PerAxis::Every(usize::MAX);
    let y = f::max_pooling(&x, &far, Some(&1.into()), false, &0.into(), false)?;
    assert_eq!(y.flatten_all()?.to_vec1::<f32>()?, [15.0; 16]);
    let y = f::average_pooling(&x, &2.into(), Some(&far), true, &0.into(), false, true)?;
    assert_eq!(y.flatten_all()?.to_vec1::<f32>()?, [2.5]);
    let error = f::max_pooling(&x, &far, Some(&1.into()), true, &0.into(), false).unwrap_err().to_string();
    assert!(error.starts_with("`kernel` must be at most 4 on spatial axis 0"), "{error}");
    // Of a stride and a dilation that lead out of the image, the first step is all there is.
    let geometry = f::ConvGeometry::new(x.dims(), &1.into(), &0.into(), &far, &far, 1, 1)?;
    let y = f::convolution(&x, &Tensor::ones((1, 1, 1, 1), DType::F32, &Device::Cpu)?, None, &geometry)?;
    assert_eq!(y.flatten_all()?.to_vec1::<f32>()?, [0.0]);
    Ok(())
}

#[test]
fn a_copy_with_its_padding_needs_memory_too() -> Result<()> {
    // An input and an output of 4 MB each, and 4 TB between them.
    let x = zeros(&[1, 1, 1, 1 << 20], DType::F32);
    let (kernel, pad) = ((1, 1 << 20).into(), (1 << 19, 0).into());
    let error = f::ConvGeometry::new(x.dims(), &kernel, &pad, &1.into(), &1.into(), 1, 1)
        .and_then(|geometry| f::convolution(&x, &x.reshape((1, 1, 1, 1 << 20))?, None, &geometry))
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("`pad` must not ask for more memory than there is"), "{error}");
    Ok(())
}

#[test]
fn numbers_out_of_range_are_refused() -> Result<()> {
    let w = Tensor::new(&[[0.5f32, -1.0], [2.0, 0.25]], &Device::Cpu)?;
    let text = |result: Result<Tensor>| result.unwrap_err().to_string();
    for bad in [-0.5, 1.5, f64::NAN, f64::INFINITY] {
        assert!(text(f::Prune { rate: bad }.apply(&w)).starts_with("`rate` must be in [0, 1]"));
        let error = refused(|| batch_normalization(&w).decay_rate(bad).call());
        assert!(error.starts_with("`decay_rate` must be in [0, 1]"), "{error}");
    }
    for bad in [-0.5, f64::NAN, f64::INFINITY] {
        let error = refused(|| batch_normalization(&w).eps(bad).call());
        assert!(error.starts_with("`eps` must be at least 0"), "{error}");
        let quantizer = f::FixedPoint { sign: true, n: 8, delta: bad, ste_fine_grained: true };
        assert!(text(quantizer.apply(&w)).starts_with("`delta` must be above 0"));
        let error = refused(|| {
            cpd3_convolution(&zeros(&[1, 2, 3, 3], DType::F32), 2, (2, 2), 2).lambda_reg(bad).call()
        });
        assert!(error.starts_with("`lambda_reg` must be at least 0"), "{error}");
    }
    for n in [0, 1, 33, usize::MAX] {
        let error = text(f::FixedPoint { sign: true, n, delta: 0.5, ste_fine_grained: true }.apply(&w));
        assert!(error.starts_with("`n` must leave 1 to 30 bits"), "{error}");
    }
    let pow2 = f::Pow2 { sign: true, with_zero: true, n: 8, m: i32::MIN, ste_fine_grained: true };
    assert!(text(pow2.apply(&w)).starts_with("`m` must be between -100 and 100"));
    Ok(())
}

#[test]
fn axes_beyond_all_are_refused() {
    let x = zeros(&[2, 3, 4], DType::F32);
    for axis in [2, 3, usize::MAX] {
        let error = f::rotary_position_embedding(&x, axis, 1e4).unwrap_err().to_string();
        assert!(error.starts_with("`axis` must be an axis of the input [2, 3, 4]"), "{error}");
        let error = f::add_position_embedding(&x, &zeros(&[3, 4], DType::F32), axis).unwrap_err().to_string();
        assert!(error.starts_with("`axis` must be an axis of the input [2, 3, 4]"), "{error}");
    }
}

#[test]
fn factors_are_looked_for_within_limits() -> Result<()> {
    let w = Tensor::ones((2, 2, 2), DType::F32, &Device::Cpu)?;
    let options = f::Cpd3Options { r: 2, max_iter: 1, stopping_criterion: 0.0, lambda_reg: 0.0 };
    for (options, argument) in [
        (f::Cpd3Options { lambda_reg: f64::INFINITY, ..options.clone() }, "lambda_reg"),
        (f::Cpd3Options { stopping_criterion: f64::NAN, ..options.clone() }, "stopping_criterion"),
        (f::Cpd3Options { max_iter: 0, ..options.clone() }, "max_iter"),
        (f::Cpd3Options { max_iter: usize::MAX, ..options.clone() }, "max_iter"),
        (f::Cpd3Options { r: 1 << 40, ..options.clone() }, "r"),
    ] {
        let error = f::cpd3_factors(&w, &options, &Rng::new(1)).unwrap_err().to_string();
        assert!(error.starts_with(&format!("`{argument}` must ")), "{error}");
    }
    let [o, ..] = f::cpd3_factors(&w, &options, &Rng::new(1))?;
    assert_eq!(o.dims(), [2, 2]);
    Ok(())
}

/// A count from a file, as bytes.
fn count(passes: u64, draws: u64) -> Result<Tensor> {
    let bytes = [passes.to_le_bytes(), draws.to_le_bytes()].concat();
    Ok(Tensor::from_iter(bytes.into_iter().map(f32::from), &Device::Cpu)?)
}

#[test]
fn inq_does_not_trust_its_counters() -> Result<()> {
    let inq = |num_bits: usize, inq_iterations: &[usize], seed: i64| f::Inq {
        num_bits,
        inq_iterations: inq_iterations.to_vec(),
        selection_algorithm: f::SelectionAlgorithm::Random,
        seed,
    };
    let w = Tensor::new(&[1f32, 0.5], &Device::Cpu)?;
    let free = w.zeros_like()?;
    let step = |inq: &f::Inq, count: &Tensor| inq.step(&w, &free, &w, count, &Rng::new(1));
    for (inq, count, reason) in [
        (
            inq(4, &[0xffff_ffff_ffff, 5], 7),
            count(0xffff_ffff_ffff, u64::MAX >> 1)?,
            "`count` must hold what passes have left, at most 8",
        ),
        (inq(4, &[], -1), count(u64::MAX, 0)?, "`count` must hold what passes have left"),
        (inq(4, &[0], -1), Tensor::full(0.5f32, 16, &Device::Cpu)?, "`count` must hold 16 bytes"),
        (inq(4, &[0], -1), Tensor::full(f32::NAN, 16, &Device::Cpu)?, "`count` must hold 16 bytes"),
        (inq(4, &[0], -1), zeros(&[17], DType::F32), "`count` must hold 16 bytes"),
        (inq(0, &[0], -1), count(0, 0)?, "`num_bits` must be between 2 and 32"),
        (inq(1, &[0], -1), count(0, 0)?, "`num_bits` must be between 2 and 32"),
    ] {
        let error = step(&inq, &count).unwrap_err().to_string();
        assert!(error.starts_with(reason), "{error}");
    }
    // Two draws for each free weight and pass are what there can be.
    step(&inq(4, &[1, 2], 7), &count(1, 4)?)?;
    let short = zeros(&[1], DType::F32);
    let error = inq(4, &[0], -1).step(&w, &short, &w, &count(0, 0)?, &Rng::new(1)).unwrap_err().to_string();
    assert!(error.starts_with("`i` must have the shape [2] of the weights"), "{error}");
    Ok(())
}

#[test]
fn types_are_checked_before_values_are_read() -> Result<()> {
    let w = Tensor::new(&[0.001f32, 0.002], &Device::Cpu)?.to_dtype(DType::F8E4M3)?;
    let error = f::Prune { rate: 0.5 }.apply(&w).unwrap_err().to_string();
    assert_eq!(error, "`w` must hold f32, f64, f16 or bf16 numbers, got F8E4M3");
    let inp = w.reshape((1, 2))?;
    assert_eq!(
        refused(|| pruned_affine(&inp, 31).call()),
        "`inp` must hold f32, f64, f16 or bf16 numbers, got F8E4M3"
    );
    Ok(())
}

#[test]
fn an_empty_batch_does_not_move_running_statistics() {
    let empty = zeros(&[0, 3], DType::F32);
    for error in [refused(|| batch_normalization(&empty).call()), refused(|| mean_subtraction(&empty).call())]
    {
        assert!(error.starts_with("`inp` must have elements to take the statistics of"), "{error}");
    }
}

#[test]
fn the_mean_of_single_numbers_is_a_number() -> Result<()> {
    ParameterStore::new().enter(|| {
        let x = Tensor::new(&[1f32, 5.0], &Device::Cpu)?;
        assert_eq!(mean_subtraction(&x).call()?.to_vec1::<f32>()?, [-2.0, 2.0]);
        Ok(())
    })
}

#[test]
fn a_call_that_fails_leaves_no_parameter_behind() {
    ParameterStore::new().enter(|| {
        let x = zeros(&[2, 3], DType::F32);
        let kept = affine(&x, 4).name("kept").call();
        kept.unwrap();
        // `W` is made before the initial value of `b` is seen to be wrong.
        let wrong = zeros(&[5], DType::F32);
        affine(&x, 4).b_init(&wrong).call().unwrap_err();
        // In a layer of layers, those that succeeded are taken back, too.
        twice(&x).call().unwrap_err();
        assert_eq!(get_all_parameters().paths().collect::<Vec<_>>(), ["kept/affine/W", "kept/affine/b"]);
        // The parameters of an earlier call stay.
        affine(&x, 4).name("kept").call().unwrap();
        affine(&zeros(&[2, 7], DType::F32), 4).name("kept").call().unwrap_err();
        assert_eq!(get_all_parameters().len(), 2);
    });
}

/// Two layers, of which the second fails.
#[parametric_function(scope = "twice")]
fn twice(
    /// Input.
    inp: &Tensor,
) -> Result<Tensor> {
    affine(&affine(inp, 4).name("first").call()?, usize::MAX).name("second").call()
}

#[test]
fn empty_tensors_with_a_long_axis_are_refused_or_empty() {
    for dims in [[0, 1 << 40, 3], [0, 2, 1 << 40]] {
        let error = f::binary_weight(&zeros(&dims, DType::F32), 0..1, 1.0).unwrap_err().to_string();
        assert!(error.contains("must not ask for more memory"), "{error}");
        let error = f::svd_factors_by_map(&zeros(&dims, DType::F32), 3).unwrap_err().to_string();
        assert!(error.contains("must be between 1 and the rank 0"), "{error}");
    }
    let far = PerAxis::Every(1 << 32);
    let pad = PerAxis::Every(1 << 31);
    let x = zeros(&[1, 5, 5, 5], DType::F32);
    let y = f::average_pooling(&x, &far, Some(&2.into()), true, &pad, false, true);
    assert_eq!(y.unwrap().rank(), 4);
}

#[test]
fn states_and_means_of_other_types_are_refused_before_they_are_read() {
    let bytes = Tensor::zeros((2, 3), DType::U8, &Device::Cpu).unwrap();
    let error = refused(|| LSTMCell::new(2, 4).step(&bytes));
    assert!(error.starts_with("`x` must hold f32, f64, f16 or bf16 numbers"), "{error}");
    let tiny = Tensor::full(0.001f32, 3, &Device::Cpu).unwrap().to_dtype(DType::F8E4M3).unwrap();
    let error = refused(|| f::subtract_mean(&zeros(&[2, 3], DType::F32), &tiny, 0.5));
    assert!(error.starts_with("`mean` must hold f32, f64, f16 or bf16 numbers"), "{error}");
}
