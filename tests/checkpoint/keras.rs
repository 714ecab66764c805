//! Weights that Keras saved (tests/interop/keras_files.py), its answers, and the way back.

use std::path::PathBuf;

use layerfn::checkpoint::{Checkpoint, Format, Load, Rule};
use layerfn::prelude::*;

use crate::damage::zip_of;
use crate::{bits_in, bytes};

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/checkpoint/keras")).join(name)
}

fn opened(name: &str, rules: &[&str]) -> Result<Checkpoint> {
    Checkpoint::open(fixture(name))?.change(&crate::rules(rules)?)
}

/// Saves parameters as Keras loads them, in the folder `LAYERFN_KERAS` (see tests/interop/keras_reads.py) or a temporary one,
/// and opens the file.
fn saved(store: &ParameterStore, name: &str, rules: &[&str], renames: &[(&str, &str)]) -> Result<Checkpoint> {
    let ours = Checkpoint::from_parameters(&store.parameters())?.change(&crate::rules(rules)?)?;
    let folder = tempfile::tempdir().unwrap();
    let path = std::env::var_os("LAYERFN_KERAS").map_or_else(|| folder.path().to_owned(), PathBuf::from);
    let path = path.join(name);
    ours.to_keras()?.rename(renames)?.save(&path)?;
    Checkpoint::open(path)
}

/// The variables of layers, by name, with shape and bits.
fn variables(checkpoint: &Checkpoint) -> Vec<(String, Vec<usize>, Vec<u8>)> {
    let entries = checkpoint.entries().iter().filter(|entry| !entry.path().starts_with("optimizer/"));
    let mut all: Vec<_> = entries
        .map(|entry| (entry.path().to_owned(), entry.tensor().dims().to_vec(), bytes(entry.tensor())))
        .collect();
    all.sort();
    all
}

fn answers<const N: usize>(names: [&str; N]) -> [Tensor; N] {
    let answers = Checkpoint::open(fixture("answers.safetensors")).unwrap();
    names.map(|name| answers.get(name).unwrap().tensor().clone())
}

fn assert_close(y: &Tensor, wanted: &Tensor) -> Result<()> {
    assert_eq!(y.dims(), wanted.dims());
    let difference = (y - wanted)?.abs()?.max_all()?.to_scalar::<f32>()?;
    assert!(difference < 1e-5, "{difference}: {y} {wanted}");
    Ok(())
}

fn images() -> Result<Model> {
    network! {
        conv2d: conv(3, (3, 3), pad = 1) -> relu
     -> batch_normalization: bn(eps = 1e-3)
     -> depthwise_conv2d: depthwise_convolution((3, 3), multiplier = 2)
     -> p_re_lu: prelu(shared = false)
     -> conv2d_1: conv(4, (3, 2), stride = 2, with_bias = false)
     -> group_normalization: group_normalization(2, eps = 1e-3)
     -> conv2d_transpose: deconvolution(4, (2, 2), stride = 2)
     -> dense: affine(5) -> relu
     -> sequential: { dense: affine(5) -> tanh }
     -> layer_normalization: layer_normalization(eps = 1e-3)
     -> dense_1: affine(3, with_bias = false)
    }
    .boxed()
    .init((1, 3, 8, 7))
}

#[test]
fn each_kind_of_file_gives_the_answers_of_keras() -> Result<()> {
    let [x, wanted] = answers(["images", "images_output"]);
    // Channels first.
    let x = x.permute((0, 3, 1, 2))?.contiguous()?;
    for (file, kernel) in [
        ("images.weights.h5", "layers/dense/vars/0"),
        ("images.h5", "model_weights/dense/images/dense/kernel"),
        ("images.safetensors", "dense/kernel"),
    ] {
        let model = images()?;
        let error = opened(file, &[])?.from_keras(model.store()).unwrap_err().to_string();
        let flattened = format!(
            "`{kernel}` has 16 inputs for each of the 4 channels of `conv2d_transpose/deconv/b`: Keras flattens images"
        );
        assert!(error.contains(&flattened) && error.matches('`').count() == 10, "{error}");

        let weights =
            opened(file, &[&format!("channels_first({kernel}, 4, 4)")])?.from_keras(model.store())?;
        let changes = weights.changes().join("\n");
        assert!(changes.contains("becomes `conv2d/conv/W` [3, 3, 3, 3], channels first"), "{changes}");
        Load::new(weights).apply_to(model.store(), "")?;
        assert_close(&no_grad(|| model.forward_t(&x, false))?, &wanted)?;
    }
    Ok(())
}

#[test]
fn what_came_from_keras_goes_back_bit_by_bit() -> Result<()> {
    let there = ["channels_first(layers/dense/vars/0, 4, 4)"];
    let model = images()?;
    let weights = opened("images.weights.h5", &there)?.from_keras(model.store())?;
    Load::new(weights).apply_to(model.store(), "")?;
    let rules = [
        "channels_last(dense/affine/W, 4, 4)",
        "multiplier(depthwise_conv2d/*/W, 2)",
        "reshape(p_re_lu/*/slope, 1, 1, 6)",
    ];
    let back = saved(model.store(), "images.weights.h5", &rules, &[])?;
    assert_eq!(variables(&back), variables(&opened("images.weights.h5", &[])?));

    let again = images()?;
    let weights = back.change(&[there[0].parse()?])?.from_keras(again.store())?;
    Load::new(weights).apply_to(again.store(), "")?;
    assert_eq!(bits_in(again.store()), bits_in(model.store()));
    Ok(())
}

/// The layers of the file, in their order there.
fn sequences(x: &Tensor) -> Result<Tensor> {
    let n = x.dim(0)?;
    let zeros = |directions, state| Tensor::zeros((1, directions, n, state), DType::F32, &Device::Cpu);
    let y = embed(x, 9, 4).name("words").call()?.transpose(0, 1)?.contiguous()?;
    let (y, ..) = lstm_n_step(&y, &zeros(2, 4)?, &zeros(2, 4)?).bidirectional(true).name("both").call()?;
    let y = multi_head_attention(&y, &y, &y).num_heads(2).name("attend").call()?;
    let (y, _) = gru(&y, &zeros(1, 5)?).name("gated").call()?;
    let (y, _) = gru(&y, &zeros(2, 3)?).bidirectional(true).name("two").call()?;
    let (y, _) = rnn(&y, &zeros(1, 3)?).name("plain").call()?;
    let (y, ..) = lstm_n_step(&y, &zeros(1, 3)?, &zeros(1, 3)?).with_bias(false).name("bare").call()?;
    let y = convolution(&y.permute((1, 2, 0))?.contiguous()?, 4, (3,)).name("line").call()?;
    let y = y.narrow(2, y.dim(2)? - 1, 1)?.squeeze(2)?.contiguous()?;
    let half = Tensor::full(0.5f32, (n, 3), &Device::Cpu)?;
    let (y, _) = lstm(&y, &half, &half, 3).name("lstm_cell").call()?;
    gru_cell(&y, &half, 3).name("gru_cell").call()
}

/// Attributes of a model are groups of their names, except for those that Keras finds in the list of all layers first.
const SEQUENCES: [&str; 4] = [
    "rename(layers/embedding/**, words/**)",
    "rename(layers/bidirectional_1/**, two/**)",
    "rename(layers/simple_rnn/**, plain/**)",
    "rename(layers/conv1d/**, line/**)",
];

#[test]
fn sequences_give_the_answers_of_keras() -> Result<()> {
    let [x, wanted] = answers(["sequences", "sequences_output"]);
    let store = ParameterStore::new();
    store.enter(|| sequences(&x))?;
    let weights = opened("sequences.weights.h5", &SEQUENCES)?.from_keras(&store)?;
    let changes = weights.changes().join("\n");
    for line in [
        "`both/forward_layer/cell/vars/0` to `both/backward_layer/cell/vars/1` become `both/lstm/weight_l0` [2, 4, 4, 8], transposed",
        "`gated/cell/vars/2` becomes `gated/gru/bias` [1, 1, 4, 5], with the reset gate first",
        "`attend/query_dense/vars/0` [8, 2, 4] becomes `attend/multi_head_attention/q_weight` [8, 8], heads side by side",
    ] {
        assert!(changes.contains(line), "{line}\n{changes}");
    }
    Load::new(weights).apply_to(&store, "")?;
    assert_close(&store.enter(|| sequences(&x))?, &wanted)?;

    let renames = [
        ("layers/words/**", "layers/embedding/**"),
        ("layers/two/**", "layers/bidirectional_1/**"),
        ("layers/plain/**", "layers/simple_rnn/**"),
        ("layers/line/**", "layers/conv1d/**"),
        ("layers/lstm_cell/**", "layers/lstm_cell/**"),
        ("layers/**", "**"),
    ];
    let back = saved(&store, "sequences.weights.h5", &["heads(attend/*/*, 2)"], &renames)?;
    let wanted = opened("sequences.weights.h5", &[])?;
    // A `GRU` adds up the biases of its first two gates, which is kept as their sum.
    let is_of_gru = |dims: &[usize]| dims[0] == 2 && dims.len() == 2;
    let others = |checkpoint: &Checkpoint| {
        variables(checkpoint).into_iter().filter(|(_, dims, _)| !is_of_gru(dims)).collect::<Vec<_>>()
    };
    assert_eq!(others(&back), others(&wanted));
    let biases = wanted.entries().iter().filter(|entry| entry.path().ends_with("/vars/2"));
    let biases: Vec<_> = biases.filter(|entry| is_of_gru(entry.tensor().dims())).collect();
    assert_eq!(biases.len(), 4);
    for entry in biases {
        let (got, wanted) = (back.get(entry.path()).unwrap().tensor(), entry.tensor());
        assert_eq!(got.dims(), wanted.dims());
        assert_close(&got.sum(0)?, &wanted.sum(0)?)?;
        let candidate =
            |values: &Tensor| values.narrow(1, values.dim(1)? / 3 * 2, values.dim(1)? / 3)?.to_vec2::<f32>();
        assert_eq!(candidate(got)?, candidate(wanted)?);
    }

    let again = ParameterStore::new();
    again.enter(|| sequences(&x))?;
    let read = back.change(&crate::rules(&SEQUENCES)?)?.from_keras(&again)?;
    Load::new(read).apply_to(&again, "")?;
    assert_eq!(bits_in(&again), bits_in(&store));
    Ok(())
}

fn named(names: &[(&str, &[usize])]) -> Checkpoint {
    let store = ParameterStore::new();
    for (number, (name, shape)) in names.iter().enumerate() {
        let values = Tensor::full(number as f32, *shape, &Device::Cpu).unwrap();
        let var = layerfn::candle_core::Var::from_tensor(&values).unwrap();
        store.set(name, layerfn::Parameter::new(var, true)).unwrap();
    }
    Checkpoint::from_parameters(&store.parameters()).unwrap()
}

#[test]
fn names_of_all_versions_are_found() -> Result<()> {
    let store = ParameterStore::new();
    let x = Tensor::ones((5, 2, 3), DType::F32, &Device::Cpu)?;
    let h = Tensor::zeros((1, 2, 2, 4), DType::F32, &Device::Cpu)?;
    store.enter(|| {
        let (y, ..) = lstm_n_step(&x, &h, &h).bidirectional(true).with_bias(false).name("net/both").call()?;
        affine(&y.get(0)?, 2).name("net/fc").call()
    })?;
    let shapes: [&[usize]; 6] = [&[3, 16], &[4, 16], &[3, 16], &[4, 16], &[8, 2], &[2]];
    let both = |way: [&str; 2], weights: [&str; 2]| {
        way.map(|way| weights.map(|weight| format!("{way}/{weight}"))).concat()
    };
    let weights = ["kernel", "recurrent_kernel"];
    let found = |lstm: Vec<String>, fc: &str| {
        let fc = if fc.ends_with("vars/") { ["0", "1"] } else { ["kernel", "bias"] }
            .map(|name| format!("{fc}{name}"));
        lstm.into_iter().chain(fc).collect::<Vec<_>>()
    };
    let cases = [
        found(
            both(["net/both/forward_lstm/lstm_cell", "net/both/backward_lstm/lstm_cell"], weights),
            "net/fc/",
        ),
        found(
            both(
                [
                    "_layer_checkpoint_dependencies/net/layers/both/forward_layer/cell/vars",
                    "_layer_checkpoint_dependencies/net/layers/both/backward_layer/cell/vars",
                ],
                ["0", "1"],
            ),
            "_layer_checkpoint_dependencies/net/layers/fc/vars/",
        ),
    ];
    let older = ["model_weights/", ""].map(|prefix| {
        let ways = ["forward_lstm/lstm_cell_1", "backward_lstm/lstm_cell_2"];
        let ways = ways.map(|way| format!("{prefix}net/both/{way}"));
        let names = found(both([&ways[0], &ways[1]], weights), &format!("{prefix}net/fc/"));
        names.into_iter().map(|name| format!("{name}:0")).collect()
    });
    for names in cases.into_iter().chain(older) {
        let mut file: Vec<(&str, &[usize])> = names.iter().map(String::as_str).zip(shapes).collect();
        let state: &[usize] = &[];
        file.extend([
            ("optimizer/vars/0", state),
            ("optimizer_weights/adam/iteration:0", state),
            ("layers/dropout/seed_generator/vars/0", state),
        ]);
        let read = named(&file).from_keras(&store)?;
        let first =
            |path: &str| read.get(path).unwrap().tensor().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        // The first three columns of each row are those of the input.
        let weight = first("net/both/lstm/weight_l0");
        assert_eq!((weight[0], weight[6], weight[16 * 7], weight[16 * 7 + 6]), (0., 1., 2., 3.), "{names:?}");
        assert_eq!((first("net/fc/affine/W")[0], first("net/fc/affine/b")[0]), (4., 5.));
    }
    Ok(())
}

#[test]
fn what_keras_leaves_open_is_refused() -> Result<()> {
    let x = Tensor::ones((5, 2, 3), DType::F32, &Device::Cpu)?;
    let h = |layers| Tensor::zeros((layers, 1, 2, 4), DType::F32, &Device::Cpu);
    let store = ParameterStore::new();
    store.enter(|| -> Result<()> {
        gru(&x, &h(1)?).with_bias(false).name("open").call()?;
        gru(&x, &h(1)?).name("old").call()?;
        gru(&x, &h(2)?).num_layers(2).name("two").call()?;
        affine(&x.get(0)?, 3).name("fc").call()?;
        layer_normalization(&Tensor::ones((2, 3, 3, 3), DType::F32, &Device::Cpu)?)
            .no_bias(true)
            .name("ln")
            .call()?;
        rms_normalization(&x).name("rms").call()?;
        Ok(())
    })?;
    let error = named(&[
        ("open/kernel", &[3, 12]),
        ("open/recurrent_kernel", &[4, 12]),
        ("old/kernel", &[3, 12]),
        ("old/recurrent_kernel", &[4, 12]),
        ("old/bias", &[12]),
        ("layers/fc/vars/0", &[3, 3]),
        ("fc/kernel", &[3, 3]),
        ("fc.bias", &[3]),
        ("layers/fc/vars/1", &[3]),
        ("layers/fc/vars/2", &[3]),
        ("model_weights/fc/fc/kernel:0", &[3, 3]),
        ("ln/gamma", &[3, 3, 3]),
    ])
    .from_keras(&store)
    .unwrap_err()
    .to_string();
    for line in [
        "`open/gru/weight_l0` is of a GRU without biases, which in Keras may have `reset_after=False`",
        "`old/bias` has the shape [12], `old/gru/bias` needs [2, 12]",
        "`two/gru/weight` is of several layers; Keras has a name for each",
        "`ln/gamma` has the shape [3, 3, 3], `ln/layer_normalization/gamma` [1, 3, 3, 3]; only normalizations over one axis",
        "`rms/rms_normalization/gamma` is of a layer that has no rule for Keras",
        "are the same parameter; a rule must drop one",
        "`layers/fc/vars/0` belongs to no parameter here",
        "`layers/fc/vars/2` belongs to no parameter here",
    ] {
        assert!(error.contains(line), "{line}\n{error}");
    }
    Ok(())
}

#[test]
fn a_separable_convolution_is_two_layers() -> Result<()> {
    let store = ParameterStore::new();
    store.enter(|| {
        let y = depthwise_convolution(&Tensor::ones((1, 3, 5, 5), DType::F32, &Device::Cpu)?, (3, 3))
            .multiplier(2)
            .with_bias(false)
            .name("dw")
            .call()?;
        convolution(&y, 5, (1, 1)).name("pw").call()
    })?;
    let names = [0, 1, 2].map(|number| format!("layers/separable_conv2d/vars/{number}"));
    let shapes: [&[usize]; 3] = [&[3, 3, 3, 2], &[1, 1, 6, 5], &[5]];
    let file = || named(&names.iter().map(String::as_str).zip(shapes).collect::<Vec<_>>());
    let read = file()
        .rename(&[(&*names[0], "dw/vars/0"), (&names[1], "pw/vars/0"), (&names[2], "pw/vars/1")])?
        .from_keras(&store)?;
    Load::new(read).apply_to(&store, "")?;
    let renames =
        [("layers/dw/vars/0", &*names[0]), ("layers/pw/vars/0", &names[1]), ("layers/pw/vars/1", &names[2])];
    let back = saved(&store, "separable.weights.h5", &["multiplier(dw/*/W, 2)"], &renames)?;
    assert_eq!(variables(&back), variables(&file()));
    Ok(())
}

#[test]
fn what_keras_would_misread_is_not_written() -> Result<()> {
    let x = Tensor::ones((5, 2, 4), DType::F32, &Device::Cpu)?;
    let h = |layers| Tensor::zeros((layers, 1, 2, 4), DType::F32, &Device::Cpu);
    let store = ParameterStore::new();
    store.enter(|| -> Result<()> {
        gru(&x, &h(1)?).with_bias(false).name("open").call()?;
        gru(&x, &h(2)?).num_layers(2).name("two").call()?;
        multi_head_attention(&x, &x, &x).num_heads(2).name("attend").call()?;
        multi_head_attention(&x, &x, &x).num_heads(2).with_bias(false).name("three").call()?;
        let y = depthwise_convolution(&Tensor::ones((2, 3, 3, 3), DType::F32, &Device::Cpu)?, (2, 2))
            .multiplier(2)
            .name("each")
            .call()?;
        affine(&y, 2).name("fc").call()?;
        layer_normalization(&y).no_bias(true).name("ln").call()?;
        rms_normalization(&x).name("rms").call()?;
        Ok(())
    })?;
    let ours = |rules: &[&str]| {
        Checkpoint::from_parameters(&store.parameters())?.change(&crate::rules(rules)?)?.to_keras()
    };
    let error = ours(&["heads(three/*/*, 3)", "multiplier(each/*/W, 4)"]).unwrap_err().to_string();
    for line in [
        "`open/gru/weight_l0` is of a GRU without biases, which in Keras may have `reset_after=False`",
        "`two/gru/weight` is of several layers; Keras has a name for each",
        "`attend/multi_head_attention/q_weight` of shape [4, 4] does not say how many heads there are: give their number, which \
         divides it, by the rule `heads(attend/multi_head_attention/q_weight, NUMBER)`",
        "`three/multi_head_attention/out_weight` of shape [4, 4] does not say how many heads",
        "`each/depthwise_conv/W` of shape [6, 2, 2] has a number of maps that its multiplier does not divide",
        "`ln/layer_normalization/gamma` of shape [1, 6, 2, 2] has several axes: only normalizations over one axis",
        "`rms/rms_normalization/gamma` is of a layer that has no rule for Keras",
        "`fc/affine/W` has 4 inputs for each of the 6 channels of `each/depthwise_conv/b`: Keras flattens images with the channels \
         last; say their size by the rule `channels_last(fc/affine/W, HEIGHT, WIDTH)`",
    ] {
        assert!(error.contains(line), "{line}\n{error}");
    }
    assert!(!error.contains("attend/multi_head_attention/out_bias"), "{error}");

    let theirs = ours(&[
        "drop(open/**)",
        "drop(two/**)",
        "drop(three/**)",
        "drop(ln/**)",
        "drop(rms/**)",
        "heads(attend/*/*, 2)",
        "channels_last(fc/*/W, 1)",
    ])?;
    let kernel = theirs.get("layers/each/vars/0").unwrap();
    assert_eq!(kernel.tensor().dims(), [2, 2, 6, 1]);
    let changes = theirs.changes().join("\n");
    for line in [
        "`attend/multi_head_attention/q_weight` [4, 4] has 2 heads",
        "`attend/multi_head_attention/q_weight` [4, 4] becomes `layers/attend/query_dense/vars/0` [4, 2, 2], heads on a separate \
         axis",
        "`each/depthwise_conv/W` [6, 2, 2] becomes `layers/each/vars/0` [2, 2, 6, 1], channels last",
    ] {
        assert!(changes.contains(line), "{line}\n{changes}");
    }
    for rule in ["heads(a, 0)", "heads(a)", "multiplier(a, -1)", "multiplier(a, 1, 2)"] {
        let error = rule.parse::<Rule>().unwrap_err().to_string();
        assert!(error.contains("(PATTERN, NUMBER)"), "{error}");
    }
    Ok(())
}

/// An archive with these members, opened.
fn archive(members: &[(&str, &[u8])], is_deflated: bool) -> Result<Checkpoint> {
    archived(&zip_of(members, is_deflated))
}

fn archived(bytes: &[u8]) -> Result<Checkpoint> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.keras");
    std::fs::write(&path, bytes).unwrap();
    Checkpoint::open(path)
}

#[test]
fn archives_of_keras_are_read() -> Result<()> {
    let weights = std::fs::read(fixture("images.weights.h5")).unwrap();
    let wanted = Checkpoint::from_bytes(Format::Hdf5, &weights)?;
    let members: [(&str, &[u8]); 3] =
        [("metadata.json", b"{}"), ("config.json", b"{}"), ("model.weights.h5", &weights)];
    for is_deflated in [false, true] {
        let read = archive(&members, is_deflated)?;
        assert_eq!(variables(&read), variables(&wanted));
        let lost = ["`metadata.json` of the archive", "`config.json` of the archive"];
        assert_eq!(read.losses(Format::Hdf5), lost);
        assert_eq!(read.losses(Format::Nnp), lost);
    }
    for (members, reason) in [
        (&members[..2], "there is no `model.weights.h5` in it"),
        (&[("model.weights.h5", &weights[..900])], "`model.weights.h5`: ends early"),
        (&[("model.weights.h5", b"{}")], "`model.weights.h5`: "),
        (&[("model.weights.h5", &[0; 1 << 22])], "`model.weights.h5`: "),
    ] {
        let error = archive(members, true).unwrap_err().to_string();
        assert!(error.contains(reason), "{reason}: {error}");
    }
    let error = archived(&weights).unwrap_err().to_string();
    assert!(error.contains("model.keras"), "{error}");

    // Damage is an error, or is in what the archive does not need.
    let whole = zip_of(&members, true);
    for place in (0..whole.len()).step_by(97) {
        let mut bytes = whole.clone();
        bytes[place] ^= 1 << (place % 8);
        let _ = archived(&bytes);
        archived(&whole[..place]).unwrap_err();
    }
    Ok(())
}

#[test]
fn rows_of_flattened_images_are_sorted_by_a_rule() -> Result<()> {
    let values = Tensor::arange(0f32, 12., &Device::Cpu)?.reshape((12, 1))?;
    let store = ParameterStore::new();
    store
        .set("fc/kernel", layerfn::Parameter::new(layerfn::candle_core::Var::from_tensor(&values)?, true))?;
    let checkpoint = || Checkpoint::from_parameters(&store.parameters());
    let rules = ["channels_first(*/kernel, 3, 2)".parse()?];
    // Row `2 · place + channel` becomes row `6 · channel + place`.
    let sorted = checkpoint()?.change(&rules)?;
    let rows = sorted.get("fc/kernel").unwrap().tensor().flatten_all()?.to_vec1::<f32>()?;
    assert_eq!(rows, [0., 2., 4., 6., 8., 10., 1., 3., 5., 7., 9., 11.]);
    let back = sorted.change(&["channels_last(*/kernel, 3, 2)".parse()?])?;
    let rows = back.get("fc/kernel").unwrap().tensor().flatten_all()?.to_vec1::<f32>()?;
    assert_eq!(rows, (0..12).map(|n| n as f32).collect::<Vec<_>>());
    for rule in [
        "channels_first(fc/kernel, 5)",
        "channels_first(fc/kernel, 0)",
        "channels_first(fc/kernel, 9223372036854775807, 4)",
        "channels_last(fc/kernel, 5)",
    ] {
        let error = checkpoint()?.change(&[rule.parse()?]).unwrap_err().to_string();
        assert!(error.contains("it must be a matrix with some rows for each place"), "{error}");
    }
    let error = "channels_first(a)".parse::<Rule>().unwrap_err().to_string();
    assert!(error.contains("must read channels_first(PATTERN, SIZE, ..)"), "{error}");
    Ok(())
}
