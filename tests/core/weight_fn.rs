//! Functions that layers apply to their weights.

use candle_core::{DType, Device, Tensor};
use layerfn::prelude::*;
use layerfn::{Parameter, get_parameter, set_parameter};

fn fresh<R>(f: impl FnOnce() -> R) -> R {
    ParameterStore::new().enter(f)
}

fn input(dims: &[usize]) -> Tensor {
    layerfn_tests::values(dims, 1)
}

fn normalized(w: &Tensor) -> Result<Tensor> {
    weight_normalization(w).dim(-1).call()
}

fn all_paths() -> Vec<String> {
    get_all_parameters().paths().map(str::to_owned).collect()
}

#[test]
fn parameters_of_the_function_stand_below_the_layer() -> Result<()> {
    let rows = input(&[2, 3]);
    let maps = input(&[2, 4, 5, 5]);
    let of = |f: &dyn Fn() -> Result<Tensor>| {
        fresh(|| {
            f()?;
            Ok::<_, Error>(all_paths())
        })
    };
    let named = of(&|| affine(&rows, 4).apply_w(normalized).apply_b(normalized).name("x").call())?;
    assert_eq!(named, ["x/affine/W", "x/affine/wn/g", "x/affine/b"], "W and b share the scope, as in NNabla");
    let both = of(&|| convolution(&maps, 2, (3, 3)).apply_w(normalized).call())?;
    assert_eq!(both, ["conv/W", "conv/wn/g", "conv/b"]);
    let depthwise = of(&|| depthwise_convolution(&maps, (3, 3)).apply_w(normalized).with_bias(false).call())?;
    assert_eq!(depthwise, ["depthwise_conv/W", "depthwise_conv/wn/g"]);
    let transposed = of(&|| depthwise_deconvolution(&maps, (3, 3)).apply_b(normalized).call())?;
    assert_eq!(transposed, ["depthwise_deconv/W", "depthwise_deconv/b", "depthwise_deconv/wn/g"]);
    Ok(())
}

/// `g` starts as the lengths of `W`, so nothing changes until it is trained.
#[test]
fn weight_normalization_changes_nothing_at_first() -> Result<()> {
    let x = input(&[5, 3]);
    let plain = fresh(|| affine(&x, 4).call())?;
    fresh(|| {
        let y = affine(&x, 4).apply_w(normalized).call()?;
        layerfn_tests::assert_close(&y, &plain, 1e-10, "output");
        let g = get_parameter("affine/wn/g").unwrap();
        g.var().set(&(g.var().as_tensor() * 2.0)?)?;
        let doubled = affine(&x, 4).apply_w(normalized).call()?;
        layerfn_tests::assert_close(&doubled, &(plain * 2.0)?, 1e-10, "output");
        Ok(())
    })
}

#[test]
fn networks_take_functions_as_options() -> Result<()> {
    let net = network! {
        < c: conv(4, (3, 3), apply_w = |w: &Tensor| spectral_norm(w).call()) -> relu
       -> out: affine(2, apply_w = normalized) >
    };
    fresh(|| {
        assert_eq!(net.forward(&input(&[2, 3, 5, 5]))?.dims(), [2, 2]);
        let paths = [
            "c/conv/W",
            "c/conv/spectral-norm/u",
            "c/conv/b",
            "out/affine/W",
            "out/affine/wn/g",
            "out/affine/b",
        ];
        assert_eq!(all_paths(), paths);
        Ok(())
    })
}

#[test]
fn fixed_layers_fix_what_is_inside() -> Result<()> {
    fresh(|| {
        let x = input(&[2, 3]);
        let y = affine(&x, 4).apply_w(normalized).fix_parameters(true).call()?;
        assert!(!y.track_op());
        let fixed = |w: &Tensor| weight_normalization(w).dim(1).fix_parameters(true).call();
        let loss = affine(&x, 4).apply_w(fixed).call()?.sqr()?.sum_all()?;
        let gradients = backward(&loss)?;
        assert!(gradients.get(get_parameter("affine/wn/g").unwrap().var()).is_none());
        assert!(gradients.get(get_parameter("affine/W").unwrap().var()).is_some());
        Ok(())
    })
}

#[test]
fn a_function_that_fails_or_reshapes_leaves_no_parameter() {
    fresh(|| {
        let x = input(&[2, 3]);
        let error = affine(&x, 4).apply_w(|w: &Tensor| Ok(w.t()?)).call().unwrap_err().to_string();
        assert!(error.contains("`apply_w` must keep the shape [3, 4], got [4, 3]"), "{error}");
        let error = affine(&x, 4).apply_b(|b: &Tensor| weight_normalization(b).dim(1).call()).call();
        let error = error.unwrap_err().to_string();
        assert!(error.contains("affine/wn") && error.contains("`dim` must be an axis of [4]"), "{error}");
        assert_eq!(all_paths(), [""; 0]);
    });
}

/// The singular vector moves in training only, and stays where the store is frozen.
#[test]
fn spectral_norm_keeps_its_vector_in_test_mode() -> Result<()> {
    fresh(|| {
        let w = input(&[4, 3]);
        let u = || Ok::<_, Error>(get_parameter("spectral-norm/u").unwrap().var().copy()?.to_vec1::<f64>()?);
        spectral_norm(&w).call()?;
        let first = u()?;
        let y = test_mode(|| spectral_norm(&w).call())?;
        assert_eq!(u()?, first);
        let again = test_mode(|| spectral_norm(&w).call())?;
        assert_eq!(y.to_vec2::<f64>()?, again.to_vec2::<f64>()?);
        spectral_norm(&w).call()?;
        assert_ne!(u()?, first);
        let second = u()?;
        ParameterStore::current().freeze("**")?;
        spectral_norm(&w).call()?;
        assert_eq!(u()?, second);
        Ok(())
    })
}

/// A range that is averaged is not trained, and becomes so again where it is learned.
#[test]
fn the_range_of_min_max_quantization_is_trained_unless_it_is_averaged() -> Result<()> {
    fresh(|| {
        let x = input(&[4, 3]);
        let trained = || get_parameters().paths().map(str::to_owned).collect::<Vec<_>>();
        min_max_quantize(&x).x_min_max(true).ema(true).call()?;
        assert_eq!(trained(), [""; 0]);
        min_max_quantize(&x).call()?;
        assert_eq!(trained(), ["min_max_quantize/qr_min", "min_max_quantize/qr_max"]);
        let range = Parameter::new(candle_core::Var::new(&[[f64::NAN]], &Device::Cpu)?, true);
        set_parameter("min_max_quantize/qr_min", range)?;
        let error = min_max_quantize(&x).call().unwrap_err().to_string();
        assert!(error.contains("`qr_min` must be finite"), "{error}");
        assert!(
            min_max_quantize(&Tensor::zeros((2, 2), DType::U32, &Device::Cpu)?).name("y").call().is_err()
        );
        Ok(())
    })
}
