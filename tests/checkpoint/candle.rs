//! Modules of candle-nn: what its `VarMap` saves, and its answers.

use candle_nn::rnn::{Direction, GRUConfig, LSTMConfig};
use candle_nn::{Module, ModuleT, RNN, VarBuilder, VarMap};
use layerfn::checkpoint::{Checkpoint, Load};
use layerfn::prelude::*;
use tempfile::TempDir;

/// Gives every variable random values; those of one axis stay above 0, as variances have to.
fn filled(variables: &VarMap) -> Result<()> {
    for var in variables.all_vars() {
        let values = Tensor::randn(0f32, 0.5, var.dims(), &Device::Cpu)?;
        var.set(&if var.rank() == 1 { (values.abs()? + 0.25)? } else { values })?;
    }
    Ok(())
}

/// The values go to our layers and back.
fn assert_travels(variables: &VarMap, store: &ParameterStore) -> Result<()> {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("candle.safetensors");
    variables.save(&path)?;
    Load::new(Checkpoint::open(&path)?.from_candle(store)?).apply_to(store, "")?;
    let back = Checkpoint::from_parameters(&store.parameters())?.to_candle()?;
    let there = candle_core::safetensors::load(&path, &Device::Cpu)?;
    assert_eq!(back.entries().len(), there.len());
    for entry in back.entries() {
        let values = &there[entry.path()];
        assert_eq!(entry.tensor().dims(), values.dims(), "{}", entry.path());
        // The two biases of recurrent layers have become one.
        if !entry.path().contains("bias_") {
            let same = (entry.tensor() - values)?.abs()?.max_all()?.to_scalar::<f32>()? == 0.0;
            assert!(same, "{}", entry.path());
        }
    }
    Ok(())
}

fn assert_close(y: &Tensor, wanted: &Tensor) -> Result<()> {
    let difference = (y - wanted)?.abs()?.max_all()?.to_scalar::<f32>()?;
    assert!(difference < 1e-5, "{difference}: {y} {wanted}");
    Ok(())
}

#[test]
fn a_var_map_gives_the_answers_of_candle() -> Result<()> {
    let variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    let padded = candle_nn::Conv2dConfig { padding: 1, ..Default::default() };
    let strided = candle_nn::ConvTranspose2dConfig { stride: 2, ..Default::default() };
    let maps = candle_nn::conv2d(3, 3, 3, padded, vb.pp("stem.conv"))?;
    let statistics = candle_nn::batch_norm(3, 1e-5, vb.pp("stem.bn"))?;
    let up = candle_nn::conv_transpose2d(3, 4, 2, strided, vb.pp("up"))?;
    let act = candle_nn::prelu(Some(4), vb.pp("act"))?;
    let norm = candle_nn::group_norm(2, 4, 1e-5, vb.pp("norm"))?;
    let fc = candle_nn::linear(4, 4, vb.pp("fc"))?;
    let ln = candle_nn::layer_norm(4, 1e-5, vb.pp("ln"))?;
    let out = candle_nn::linear_no_bias(4, 2, vb.pp("out"))?;
    let rms = candle_nn::rms_norm(2, 1e-5, vb.pp("rms"))?;
    filled(&variables)?;
    let x = Tensor::randn(0f32, 1.0, (2, 3, 6, 5), &Device::Cpu)?;
    let y = statistics.forward_t(&maps.forward(&x)?, false)?;
    let y = norm.forward(&act.forward(&up.forward(&y)?)?)?.mean((2, 3))?;
    let wanted = rms.forward(&out.forward(&ln.forward(&fc.forward(&y)?)?)?)?;

    let model = network! {
        stem: { conv: conv(3, (3, 3), pad = 1) -> bn: bn }
     -> up: deconvolution(4, (2, 2), stride = 2) -> act: prelu(shared = false) -> norm: group_normalization(2)
     -> global_average_pooling -> fc: affine(4) -> ln: layer_normalization -> out: affine(2, with_bias = false)
     -> rms: rms_normalization
    }
    .boxed()
    .init(&x)?;
    assert_travels(&variables, model.store())?;
    assert_close(&no_grad(|| model.forward_t(&x, false))?, &wanted)
}

#[test]
fn recurrent_layers_give_the_answers_of_candle() -> Result<()> {
    let variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    let words = candle_nn::embedding(7, 3, vb.pp("words"))?;
    let config = |layer_idx, direction| LSTMConfig { layer_idx, direction, ..LSTMConfig::default() };
    let first = candle_nn::lstm(3, 4, config(0, Direction::Forward), vb.pp("lstm"))?;
    let second = candle_nn::lstm(4, 4, config(1, Direction::Forward), vb.pp("lstm"))?;
    let gated = candle_nn::gru(4, 5, GRUConfig::default(), vb.pp("gru"))?;
    let cell = candle_nn::lstm(5, 2, LSTMConfig::default(), vb.pp("cell"))?;
    filled(&variables)?;
    let x = Tensor::new(&[[1u32, 0, 3, 6], [2, 5, 4, 6]], &Device::Cpu)?;
    let run = |layer: &candle_nn::LSTM, x: &Tensor| layer.states_to_tensor(&layer.seq(x)?);
    let y = run(&second, &run(&first, &words.forward(&x)?)?)?;
    let y = gated.seq(&y.contiguous()?)?[3].h().clone();
    let wanted = cell.step(&y, &cell.zero_state(2)?)?.h().clone();

    let store = ParameterStore::new();
    let sequences = || {
        let zeros = |layers, state| Tensor::zeros((layers, 1, 2, state), DType::F32, &Device::Cpu);
        let y = embed(&x.to_dtype(DType::I64)?, 7, 3).name("words").call()?.transpose(0, 1)?.contiguous()?;
        let (y, ..) = lstm_n_step(&y, &zeros(2, 4)?, &zeros(2, 4)?).num_layers(2).name("lstm").call()?;
        let (y, _) = gru(&y, &zeros(1, 5)?).name("gru").call()?;
        let half = Tensor::zeros((2, 2), DType::F32, &Device::Cpu)?;
        let (h, _) = lstm(&y.get(3)?, &half, &half, 2).name("cell").call()?;
        Ok::<_, layerfn::Error>(h)
    };
    store.enter(sequences)?;
    assert_travels(&variables, &store)?;
    assert_close(&store.enter(sequences)?, &wanted)
}
