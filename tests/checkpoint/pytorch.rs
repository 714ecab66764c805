//! A state dict that PyTorch saved (tests/interop/pytorch.py), and its answers.

use std::io::Write;

use layerfn::checkpoint::{Checkpoint, Format, Load, Rule};
use layerfn::prelude::*;
use tempfile::TempDir;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use crate::rules;

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
fn transformers_give_the_answers_of_pytorch() -> Result<()> {
    let answers = Checkpoint::open(fixture("transformer.safetensors"))?;
    let [source, target, wanted] =
        ["source", "target", "output"].map(|name| answers.get(name).unwrap().tensor().clone());
    let net = network! {
        |source, target| < use(source)
     -> encoder: {
            layers: {
                transformer_encode(8, 2, dim_feedforward = 12, dropout = 0.0, name = "0")
             -> transformer_encode(8, 2, dim_feedforward = 12, dropout = 0.0, name = "1")
            }
        } as memory
     -> use(target)
     -> decoder: {
            layers: { transformer_decode(memory, 8, 2, dim_feedforward = 12, dropout = 0.0, name = "0") }
        }
     -> out: affine(3, base_axis = 2) >
    };
    let model = net.boxed().init(&source, &target)?;
    Load::new(Checkpoint::open(fixture("transformer.pt"))?.from_pytorch(model.store())?)
        .apply_to(model.store(), "")?;
    let y = no_grad(|| model.forward_t(&source, &target, false))?;
    let difference = (&y - &wanted)?.abs()?.max_all()?.to_scalar::<f32>()?;
    assert!(difference < 1e-5, "{difference}: {y} {wanted}");

    let back = Checkpoint::from_parameters(&model.store().parameters())?.to_pytorch()?;
    assert_eq!(described(&back), described(&Checkpoint::open(fixture("transformer.pt"))?));
    Ok(())
}

/// Layers over sequences, and cells behind them.
fn sequences(x: &Tensor) -> Result<Tensor> {
    let (steps, n, _) = x.dims3()?;
    let zeros =
        |layers, directions, state| Tensor::zeros((layers, directions, n, state), DType::F32, &Device::Cpu);
    let half = |state| Tensor::full(0.5f32, (n, state), &Device::Cpu);
    let (h, c) = (zeros(2, 2, 4)?, zeros(2, 2, 4)?);
    let (y, ..) = lstm_n_step(x, &h, &c).num_layers(2).bidirectional(true).name("first").call()?;
    let (y, _) = gru(&y, &zeros(2, 1, 5)?).num_layers(2).name("second").call()?;
    let (y, _) = rnn(&y, &zeros(1, 2, 4)?).bidirectional(true).with_bias(false).name("third").call()?;
    let (h, _) = lstm(&y.get(steps - 1)?, &half(6)?.zeros_like()?, &half(6)?, 6).name("cell").call()?;
    gru_cell(&h, &half(3)?, 3).name("gate").call()
}

#[test]
fn recurrent_layers_give_the_answers_of_pytorch() -> Result<()> {
    let answers = Checkpoint::open(fixture("recurrent.safetensors"))?;
    let [x, wanted] = ["input", "output"].map(|name| answers.get(name).unwrap().tensor().clone());
    let store = ParameterStore::new();
    store.enter(|| sequences(&x))?;
    let state = || Checkpoint::open(fixture("recurrent.pt"));
    Load::new(state()?.from_pytorch(&store)?).apply_to(&store, "")?;
    let y = store.enter(|| sequences(&x))?;
    let difference = (&y - &wanted)?.abs()?.max_all()?.to_scalar::<f32>()?;
    assert!(difference < 1e-5, "{difference}: {y} {wanted}");

    // The way back has the names and shapes of there, and gives the same parameters again.
    let before = described(&Checkpoint::from_parameters(&store.parameters())?);
    let back = Checkpoint::from_parameters(&store.parameters())?.to_pytorch()?;
    let named = |checkpoint: &Checkpoint| {
        let entries = checkpoint.entries().iter();
        let mut named: Vec<_> =
            entries.map(|entry| format!("{} {:?}", entry.path(), entry.tensor().dims())).collect();
        named.sort();
        named
    };
    assert_eq!(named(&back), named(&state()?));
    Load::new(back.from_pytorch(&store)?).apply_to(&store, "")?;
    assert_eq!(described(&Checkpoint::from_parameters(&store.parameters())?), before);

    // What is missing or of another shape is said by its name there.
    let other = ParameterStore::new();
    let h = Tensor::zeros((3, 1, 2, 4), DType::F32, &Device::Cpu)?;
    other.enter(|| lstm_n_step(&x, &h, &h).num_layers(3).name("first").call())?;
    let error = state()?.from_pytorch(&other).unwrap_err().to_string();
    for wanted in [
        "`first.weight_ih_l1` has the shape [16, 8], `first/lstm/weight` needs [16, 4]",
        "`first.bias_hh_l2` is missing, for `first/lstm/bias`",
        "`first.weight_ih_l0_reverse` belongs to no parameter here",
    ] {
        assert!(error.contains(wanted), "{wanted}\n{error}");
    }
    Ok(())
}

network! {
    /// As torchvision declares it, with an eighth of its channels.
    fn resnet18()
    < conv1: conv(8, (7, 7), pad = 3, stride = 2, with_bias = false) -> bn1: bn -> relu
   -> max_pooling((3, 3), stride = 2, pad = 1, ignore_border = true)
   -> layer1: { block(8, 1, name = "0") -> block(8, 1, name = "1") }
   -> layer2: { block(16, 2, name = "0") -> block(16, 1, name = "1") }
   -> layer3: { block(32, 2, name = "0") -> block(32, 1, name = "1") }
   -> layer4: { block(64, 2, name = "0") -> block(64, 1, name = "1") }
   -> global_average_pooling -> fc: affine(5) >
}

/// The output for the input that stands beside it under `name`, and a way back that has the tensors of the file.
fn travels(name: &str, store: &ParameterStore, run: impl Fn(&Tensor) -> Result<Tensor>) -> Result<()> {
    let state = || Checkpoint::open(fixture(&format!("{name}.pt")));
    Load::new(state()?.from_pytorch(store)?).apply_to(store, "")?;
    let answers = Checkpoint::open(fixture(&format!("{name}.safetensors")))?;
    let [x, wanted] = ["input", "output"].map(|name| answers.get(name).unwrap().tensor().clone());
    let y = no_grad(|| run(&x))?;
    assert_eq!(y.dims(), wanted.dims());
    let difference = (&y - &wanted)?.abs()?.max_all()?.to_scalar::<f32>()?;
    assert!(difference < 1e-5, "{difference}: {y} {wanted}");

    let back = Checkpoint::from_parameters(&store.parameters())?.to_pytorch()?;
    // Of two biases that are added up, one is 0 then.
    let known = |checkpoint: &Checkpoint| {
        let lines = described(checkpoint).into_iter().filter(|line| !line.contains("num_batches_tracked"));
        lines
            .map(
                |line| {
                    if line.contains("bias_") { line.rsplit_once(" [").unwrap().0.to_owned() } else { line }
                },
            )
            .collect::<Vec<_>>()
    };
    assert_eq!(known(&back), known(&state()?));
    if let Some(folder) = std::env::var_os("LAYERFN_PYTORCH_DIR") {
        std::fs::create_dir_all(&folder).unwrap();
        back.save(std::path::Path::new(&folder).join(format!("{name}.safetensors")))?;
    }
    let before = described(&Checkpoint::from_parameters(&store.parameters())?);
    Load::new(back.from_pytorch(store)?).apply_to(store, "")?;
    assert_eq!(described(&Checkpoint::from_parameters(&store.parameters())?), before);
    Ok(())
}

#[test]
fn resnet18_gives_the_answers_of_pytorch() -> Result<()> {
    let state = Checkpoint::open(fixture("resnet18.pt"))?;
    assert_eq!(state.entries().len(), 122); // as many as torchvision's
    let model = network! { < resnet18() > }.boxed().init((1, 3, 40, 48))?;
    travels("resnet18", model.store(), |x| model.forward_t(x, false))
}

/// A recurrent layer of each kind that [`sequences`] does not have.
fn sequence(x: &Tensor) -> Result<Tensor> {
    let n = x.dim(1)?;
    let zeros =
        |layers, directions, state| Tensor::zeros((layers, directions, n, state), DType::F32, &Device::Cpu);
    let (h, c) = (zeros(1, 1, 4)?, zeros(1, 1, 4)?);
    let (y, ..) = lstm_n_step(x, &h, &c).with_bias(false).name("lstm").call()?;
    let (y, _) = gru(&y, &zeros(2, 1, 3)?).num_layers(2).with_bias(false).name("gru").call()?;
    let (y, _) = gru(&y, &zeros(1, 2, 4)?).bidirectional(true).name("both").call()?;
    let (y, _) = rnn(&y, &zeros(3, 1, 3)?).num_layers(3).name("rnn").call()?;
    let (h, c) = (zeros(2, 2, 2)?, zeros(2, 2, 2)?);
    let wide = lstm_n_step(&y, &h, &c).num_layers(2).bidirectional(true).with_bias(false);
    let (y, ..) = wide.name("wide").call()?;
    let (y, _) = gru(&y, &zeros(2, 2, 2)?).num_layers(2).bidirectional(true).name("two").call()?;
    let (y, _) = gru(&y, &zeros(1, 1, 3)?).name("gate").call()?;
    Ok(y)
}

#[test]
fn recurrent_layers_of_all_kinds_travel_both_ways() -> Result<()> {
    let answers = Checkpoint::open(fixture("sequence.safetensors"))?;
    let store = ParameterStore::new();
    store.enter(|| sequence(answers.get("input").unwrap().tensor()))?;
    travels("sequence", &store, |x| store.enter(|| sequence(x)))
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

fn fixture(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("checkpoint/pytorch").join(name)
}

/// Every parameter's shape, type, flag and values.
fn described(checkpoint: &Checkpoint) -> Vec<String> {
    let entries = checkpoint.entries().iter().map(|entry| {
        let values = entry.tensor().flatten_all().unwrap().to_dtype(DType::F64).unwrap();
        let (tensor, values) = (entry.tensor(), values.to_vec1::<f64>().unwrap());
        format!("{} {:?} {:?} {values:?}", entry.path(), tensor.dtype(), tensor.dims())
    });
    let mut entries: Vec<_> = entries.collect();
    entries.sort();
    entries
}

#[test]
fn archives_of_pytorch_hold_what_it_has_saved() -> Result<()> {
    assert_eq!(described(&Checkpoint::open(fixture("state.pt"))?), described(&state()));
    let kinds = Checkpoint::open(fixture("kinds.pt"))?;
    assert_eq!(described(&kinds), described(&Checkpoint::open(fixture("kinds.safetensors"))?));
    let flags = ["parameter", "frozen", "model/whole"].map(|path| kinds.get(path).unwrap().need_grad());
    assert_eq!(flags, [Some(true), Some(false), None]);
    let unusable: Vec<String> = kinds.unusable().iter().map(ToString::to_string).collect();
    assert_eq!(
        unusable,
        [
            "`epoch` is an int, not a tensor",
            "`lr` is a float, bytes, a set or a large int, not a tensor",
            "`name` is a string, not a tensor",
            "`history` is a list, not a tensor",
            "`complex` has a ComplexFloatStorage, of which no tensor can be made here",
            "`again` is a dict that is used elsewhere as well",
        ]
    );
    Ok(())
}

/// The error of reading an archive with this pickle and storage 0.
fn refused(pickle: &[u8], storage: &[u8]) -> String {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.pt");
    let mut zip = ZipWriter::new(std::fs::File::create(&path).unwrap());
    for (name, bytes) in [("a/data.pkl", pickle), ("a/data/0", storage)] {
        zip.start_file(name, SimpleFileOptions::default()).unwrap();
        zip.write_all(bytes).unwrap();
    }
    // Pickles may be as long as the file.
    zip.start_file(
        "padding",
        SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored),
    )
    .unwrap();
    zip.write_all(&[0; 4096]).unwrap();
    zip.finish().unwrap();
    match Checkpoint::open(&path) {
        Ok(read) => format!("read: {:?} {:?}", described(&read), read.unusable()),
        Err(error) => error.to_string(),
    }
}

/// A dict with one tensor of f32 over storage 0.
fn tensor(offset: u8, dims: &[i32], strides: &[i32]) -> Vec<u8> {
    let mut pickle = b"\x80\x02}X\x01\0\0\0wctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x04tQK".to_vec();
    pickle.push(offset);
    for sizes in [dims, strides] {
        pickle.push(b'(');
        sizes.iter().for_each(|size| pickle.extend([&b"J"[..], &size.to_le_bytes()].concat()));
        pickle.push(b't');
    }
    pickle.extend(b"\x89}tRs.");
    pickle
}

#[test]
fn archives_that_are_not_sound_are_refused() {
    let numbers: Vec<u8> = [1f32, 2., 3., 4.].iter().flat_map(|x| x.to_le_bytes()).collect();
    assert_eq!(
        refused(&tensor(0, &[2, 2], &[1, 2]), &numbers),
        "read: [\"w F32 [2, 2] [1.0, 3.0, 2.0, 4.0]\"] []"
    );
    for (pickle, reason) in [
        (tensor(1, &[2, 2], &[2, 1]), "lies outside"),
        (tensor(0, &[2, 2], &[i32::MAX, i32::MAX]), "lies outside"),
        (tensor(0, &[2, -2], &[2, 1]), "not described as PyTorch does it"),
        (tensor(0, &[2], &[2, 1]), "not described as PyTorch does it"),
        (tensor(0, &[30_000, 30_000], &[0, 0]), "more than 8 times the bytes of the file"),
        (tensor(0, &[i32::MAX; 3], &[0; 3]), "more elements than memory can hold"),
        (tensor(0, &[1; 40], &[1; 40]), "at most 32"),
        (b"\x80\x02}q\0X\x01\0\0\0ah\0s.".to_vec(), "a dict that is used elsewhere"),
        (
            b"\x80\x02cos\nsystem\nX\x02\0\0\0ls\x85R.".to_vec(),
            "an object made by os.system and not a dict of tensors",
        ),
        (b"\x80\x02i".to_vec(), "the code 0x69 does not occur in state dicts"),
        (b"\x80\x02h\x05.".to_vec(), "a value is used that is not there"),
        (b"\x80\x02}u.".to_vec(), "a mark is missing"),
        (b"\x80\x02(.".to_vec(), "a value is missing"),
        (b"\x80\x02X\xff\xff\xff\xff".to_vec(), "are declared"),
        (b"\x80\x02}X\x02\0\0\0..Ns.".to_vec(), "a folder"),
    ] {
        let error = refused(&pickle, &numbers);
        assert!(error.contains(reason), "{reason}: {error}");
    }
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("old.pth");
    std::fs::write(&path, b"\x80\x02\x8a\nl\xfc").unwrap();
    let error = Checkpoint::open(&path).unwrap_err().to_string();
    assert!(error.contains("PyTorch before 1.6"), "{error}");

    // Damage is an error, or is in what the archive does not need.
    let whole = std::fs::read(fixture("kinds.pt")).unwrap();
    for place in (0..whole.len()).step_by(23) {
        let mut bytes = whole.clone();
        bytes[place] ^= 1 << (place % 8);
        std::fs::write(&path, &bytes).unwrap();
        let _ = Checkpoint::open(&path);
        std::fs::write(&path, &whole[..place]).unwrap();
        Checkpoint::open(&path).unwrap_err();
    }
}

#[test]
fn rules_change_what_they_match() -> Result<()> {
    let names = |checkpoint: &Checkpoint| {
        checkpoint
            .entries()
            .iter()
            .map(|entry| format!("{} {:?}", entry.path(), entry.tensor().dims()))
            .collect::<Vec<_>>()
    };
    let kinds = || Checkpoint::open(fixture("kinds.safetensors"));
    let checkpoint = Checkpoint::open(fixture("kinds.safetensors"))?.change(&rules(&[
        "drop(model/?????*)",
        "drop(states/**)",
        "drop(frozen)",
        "drop(model/????)",
        "drop(model/int)",
        "reshape(model/row, 2, 3)",
        "split(**/row, 1, **/a, **/b, **/c)",
        "transpose(model/a)",
        "rename(parameter, p)",
    ])?)?;
    let mut found = names(&checkpoint);
    found.sort();
    assert_eq!(found, ["model/a [1, 2]", "model/b [2, 1]", "model/c [2, 1]", "p [1, 2]"]);
    let back = checkpoint.change(&rules(&[
        "transpose(**/a)",
        "merge(**/a, **/b, **/c, 1, **/row)",
        "reshape(**/row, 6)",
    ])?)?;
    let row = kinds()?.get("model/row").unwrap().tensor().to_vec1::<f32>()?;
    assert_eq!(back.get("model/row").unwrap().tensor().to_vec1::<f32>()?, row);
    assert_eq!(back.changes().last().unwrap(), "`model/row` [2, 3] becomes [6]");

    for (rule, reason) in [
        ("transpose(model/row)", "which the rule does not fit"),
        ("reshape(model/row, 5)", "which the rule does not fit"),
        ("permute(model/whole, 0, 1, 2)", "which the rule does not fit"),
        ("split(model/row, 0, a, b, c, d)", "can't be cut into 4 equal parts along axis 0"),
        ("split(model/row, 1, a, b)", "can't be cut"),
        ("merge(model/row, model/none, 0, a)", "`model/none` is missing"),
        ("merge(model/row, model/whole, 0, a)", "can't be joined"),
        ("rename(model/row, model/whole)", "occurs twice"),
        ("drop(nothing)", "no parameter matches"),
    ] {
        let error = kinds()?.change(&rules(&[rule])?).unwrap_err().to_string();
        assert!(error.contains(reason), "{rule}: {error}");
    }
    for (rule, reason) in [
        ("a=b", "must be a call of `drop`, `rename`"),
        ("split(a, b)", "must read split(FROM, AXIS, TO, TO, ..)"),
        ("permute(a, 0, 2)", "must read permute(PATTERN, AXIS, AXIS, ..)"),
        ("drop()", "must read drop(PATTERN)"),
        ("reshape(a, -1)", "must read reshape(PATTERN, SIZE, ..)"),
    ] {
        let error = rule.parse::<Rule>().unwrap_err().to_string();
        assert!(error.contains(reason), "{rule}: {error}");
    }
    Ok(())
}

#[test]
fn weights_of_a_cell_are_not_those_of_a_linear_layer() -> Result<()> {
    let store = ParameterStore::new();
    let x = Tensor::ones((2, 3), DType::F32, &Device::Cpu)?;
    store.enter(|| affine(&x, (4, 5)).call())?;
    let error = Checkpoint::from_parameters(&store.parameters())?.to_pytorch().unwrap_err().to_string();
    assert!(error.contains("`affine/W` of shape [3, 4, 5] is not a matrix"), "{error}");
    Ok(())
}
