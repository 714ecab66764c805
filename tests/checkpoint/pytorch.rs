//! A state dict that PyTorch saved (tests/interop/pytorch.py), and its answers.

use layerfn::checkpoint::{Checkpoint, Format, Load};
use layerfn::prelude::*;

const STATE: &[u8] = include_bytes!("pytorch/state.safetensors");
const ANSWERS: &[u8] = include_bytes!("pytorch/answers.safetensors");

network! {
    fn block(outmaps: usize, stride: usize)
    |x| < add {
            conv1: conv(outmaps, (3, 3), pad = 1, stride = stride, with_bias = false) -> bn1: bn -> relu
                -> conv2: conv(outmaps, (3, 3), pad = 1, with_bias = false) -> bn2: bn,
            if stride != 1 || x.dim(1)? != outmaps {
                downsample: {
                    conv(outmaps, (1, 1), stride = stride, with_bias = false, name = "0") -> bn(name = "1")
                }
            },
        } -> relu >

    fn net()
    < conv1: conv(6, (7, 7), pad = 3, stride = 2, with_bias = false) -> bn1: bn -> relu
   -> layer1: { block(6, 1, name = "0") -> block(8, 2, name = "1") }
   -> norm: group_normalization(2) -> up: deconvolution(5, (2, 2), stride = 2) -> act: prelu
   -> global_average_pooling -> fc1: affine(5) -> relu -> ln: layer_normalization -> fc2: affine(3) >
}

fn state() -> Checkpoint {
    Checkpoint::from_bytes(Format::Safetensors, STATE).unwrap()
}

fn model() -> Result<Model> {
    network! { < net() > }.boxed().init((1, 3, 16, 16))
}

#[test]
fn a_state_dict_gives_the_answers_of_pytorch() -> Result<()> {
    let model = model()?;
    Load::new(state().from_pytorch(model.store())?).apply_to(model.store(), "")?;
    let answers = Checkpoint::from_bytes(Format::Safetensors, ANSWERS)?;
    let [x, wanted] = ["input", "output"].map(|name| answers.get(name).unwrap().tensor().clone());
    let y = no_grad(|| model.forward_t(&x, false))?;
    let difference = (&y - &wanted)?.abs()?.max_all()?.to_scalar::<f32>()?;
    assert!(difference < 1e-5, "{difference}: {y} {wanted}");

    // The way back: the same names, shapes and values.
    let back = Checkpoint::from_parameters(&model.store().parameters())?.to_pytorch()?;
    let state = state();
    let wanted = state.entries().iter().filter(|entry| !entry.path().ends_with("num_batches_tracked"));
    assert_eq!(back.entries().len(), wanted.clone().count());
    for entry in wanted {
        let ours = back.get(entry.path()).unwrap_or_else(|| panic!("no {}", entry.path())).tensor();
        assert_eq!(ours.dims(), entry.tensor().dims(), "{}", entry.path());
        let same = (ours - entry.tensor())?.abs()?.max_all()?.to_scalar::<f32>()? == 0.0;
        assert!(same, "{}", entry.path());
    }
    Ok(())
}

#[test]
fn what_does_not_fit_is_listed() -> Result<()> {
    let model = network! { fc1: affine(5) -> fc3: affine(2) -> rest: rms_normalization }.init((1, 4))?;
    let error = state().from_pytorch(model.store()).unwrap_err().to_string();
    for wanted in [
        "`fc1.weight` has the shape [5, 5], `fc1/affine/W` [4, 5]",
        "`fc3.weight` is missing, for `fc3/affine/W`",
        "`rest/rms_normalization/gamma` is of a layer that has no rule for PyTorch",
        "`layer1.0.conv1.weight` belongs to no parameter here",
    ] {
        assert!(error.contains(wanted), "{wanted}\n{error}");
    }
    assert!(!error.contains("num_batches_tracked"), "{error}");
    Ok(())
}
