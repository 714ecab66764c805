//! Modules of candle-nn with their parameters in our store.

use candle_core::{DType, Device, Module, Tensor};
use candle_nn::Init;
use layerfn::{Error, ParameterStore, Result};

#[test]
fn modules_share_the_store_and_its_rules() -> Result<()> {
    let store = ParameterStore::with_seed(5);
    let vb = store.var_builder(DType::F32, &Device::Cpu);
    let first = candle_nn::linear(3, 2, vb.pp("a.b"))?;
    let again = candle_nn::linear(3, 2, vb.pp("a").pp("b"))?;
    assert_eq!(store.parameters().paths().collect::<Vec<_>>(), ["a/b/weight", "a/b/bias"]);
    let x = Tensor::ones((1, 3), DType::F32, &Device::Cpu)?;
    assert_eq!(first.forward(&x)?.to_vec2::<f32>()?, again.forward(&x)?.to_vec2::<f32>()?);
    assert!(vb.contains_tensor("a.b.weight") && !vb.contains_tensor("a.weight"));

    // Equal seeds give equal values, whatever else was made before.
    let other = ParameterStore::with_seed(5);
    let vb_of_other = other.var_builder(DType::F32, &Device::Cpu);
    candle_nn::linear(8, 8, vb_of_other.pp("before"))?;
    let same = candle_nn::linear(3, 2, vb_of_other.pp("a.b"))?;
    assert_eq!(first.weight().to_vec2::<f32>()?, same.weight().to_vec2::<f32>()?);

    let error = candle_nn::linear(4, 2, vb.pp("a.b")).unwrap_err().to_string();
    assert!(error.contains("a/b/weight") && error.contains("[2, 3]"), "{error}");
    store.seal();
    let error = candle_nn::linear(3, 2, vb.pp("c")).unwrap_err().to_string();
    assert!(error.contains("`c/weight`") && error.contains("sealed"), "{error}");
    assert!(matches!(Error::from(vb.get_unchecked("c.weight").unwrap_err()), Error::Tensor(_)));
    Ok(())
}

#[test]
fn first_values_are_those_that_candle_asks_for() -> Result<()> {
    let store = ParameterStore::new();
    let vb = store.var_builder(DType::F64, &Device::Cpu);
    let stat = |name: &str, init: Init| -> Result<[f64; 3]> {
        let values = vb.get_with_hints((200, 100), name, init)?.flatten_all()?.to_vec1::<f64>()?;
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let deviation = (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / values.len() as f64).sqrt();
        Ok([mean, deviation, values.iter().fold(0.0, |a: f64, b| a.max(b.abs()))])
    };
    assert_eq!(stat("const", Init::Const(2.5))?, [2.5, 0.0, 2.5]);
    let [mean, deviation, _] = stat("normal", Init::Randn { mean: 3.0, stdev: 0.5 })?;
    assert!((mean - 3.0).abs() < 0.02 && (deviation - 0.5).abs() < 0.02, "{mean} {deviation}");
    let [mean, _, largest] = stat("uniform", Init::Uniform { lo: -0.25, up: 0.25 })?;
    assert!(mean.abs() < 0.01 && (0.24..=0.25).contains(&largest), "{mean} {largest}");
    let [_, deviation, largest] = stat("kaiming", candle_nn::init::DEFAULT_KAIMING_UNIFORM)?;
    assert!((deviation - (2.0 / 100f64).sqrt()).abs() < 0.005, "{deviation}");
    assert!(largest <= (6.0 / 100f64).sqrt(), "{largest}");
    assert_eq!(store.get("kaiming").unwrap().var().dtype(), DType::F64);
    Ok(())
}
