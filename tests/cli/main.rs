//! The `layerfn` program: what it prints, what it writes, how it ends.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use candle_core::{Device, Var};
use layerfn::{Parameter, ParameterStore};

fn layerfn(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_layerfn")).args(arguments).output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn fixture(name: &str) -> String {
    let golden = std::env::var_os("LAYERFN_GOLDEN_DIR").map(PathBuf::from);
    let golden = golden.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden"));
    golden.join("checkpoints").join(name).display().to_string()
}

#[test]
fn inspect_shows_each_parameter() {
    let output = layerfn(&["inspect", &fixture("model.h5")]);
    assert_eq!(code(&output), 0);
    let shown = text(&output.stdout);
    let line = shown.lines().find(|line| line.starts_with("net/features/stage1/conv1/conv/W ")).unwrap();
    assert!(line.contains("[4, 3, 3, 3]  f32   true"), "{line}");
    assert!(shown.lines().last().unwrap().starts_with("15 parameters, "), "{shown}");
    let json = layerfn(&["inspect", "--json", &fixture("scalar.protobuf")]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["parameters"][0]["path"], "act/prelu/slope");
    assert_eq!(json["parameters"][0]["shape"], serde_json::json!([]));
    assert_eq!(json["parameters"][0]["min"], json["parameters"][0]["max"]);
}

#[test]
fn convert_takes_rules_and_knows_pytorch() {
    use layerfn::prelude::*;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let model = network! { fc: affine(2) }.init((1, 2)).unwrap();
    model.save(path("like.h5")).unwrap();
    let theirs = ParameterStore::new();
    let set = |name: &str, values: Tensor| {
        let var = layerfn::candle_core::Var::from_tensor(&values).unwrap();
        theirs.set(name, layerfn::Parameter::new(var, true)).unwrap();
    };
    set("net.fc.weight", Tensor::new(&[[1f32, 2.], [3., 4.]], &Device::Cpu).unwrap());
    set("net.fc.bias", Tensor::new(&[5f32, 6.], &Device::Cpu).unwrap());
    theirs.save_parameters(path("theirs.safetensors")).unwrap();

    let (theirs, ours, like) = (path("theirs.safetensors"), path("ours.h5"), path("like.h5"));
    let from =
        ["convert", "--from", "pytorch", "--like", &like, "--rule", "rename(net.*, *)", &theirs, &ours];
    let output = layerfn(&from);
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    assert_eq!(
        text(&output.stderr),
        "layerfn: `net.fc.weight` is called `fc.weight`\nlayerfn: `net.fc.bias` is called `fc.bias`\n\
         layerfn: `fc.weight` [2, 2] becomes `fc/affine/W` [2, 2], transposed\n\
         layerfn: `fc.bias` [2] becomes `fc/affine/b` [2]\n"
    );
    model.load(&ours).unwrap();
    let weight = model.store().get("fc/affine/W").unwrap();
    assert_eq!(weight.var().to_vec2::<f32>().unwrap(), [[1., 3.], [2., 4.]]);
    let back = path("back.safetensors");
    let to = ["convert", "--to", "pytorch", "--rule", "rename(fc/*/*, net/fc/*/*)", &ours, &back];
    assert_eq!(code(&layerfn(&to)), 0);
    let output = layerfn(&["diff", &theirs, &back]);
    assert_eq!((code(&output), text(&output.stdout)), (0, String::new()));

    let output = layerfn(&["convert", "--rule", "turn(a)", &ours, &back]);
    assert_eq!(code(&output), 2);
    assert!(text(&output.stderr).contains("must be a call of `drop`, `rename`"), "{}", text(&output.stderr));
    let output = layerfn(&["convert", "--rule", "drop(none)", &ours, &back]);
    assert!(text(&output.stderr).contains("drop(none): no parameter matches"), "{}", text(&output.stderr));
}

#[test]
fn convert_knows_keras_and_candle() {
    use layerfn::prelude::*;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let model =
        network! { c: conv(2, (1, 1), with_bias = false) -> fc: affine(2) }.init((1, 2, 1, 3)).unwrap();
    model.save(path("like.h5")).unwrap();
    let theirs = ParameterStore::new();
    let set = |name: &str, values: Vec<f32>, shape: &[usize]| {
        let values = Tensor::from_vec(values, shape, &Device::Cpu).unwrap();
        let var = layerfn::candle_core::Var::from_tensor(&values).unwrap();
        theirs.set(name, layerfn::Parameter::new(var, true)).unwrap();
    };
    set("layers/conv2d/vars/0", vec![1., 2., 3., 4.], &[1, 1, 2, 2]);
    set("layers/dense/vars/0", (0..12).map(|n| n as f32).collect(), &[6, 2]);
    set("layers/dense/vars/1", vec![5., 6.], &[2]);
    set("optimizer/vars/0", vec![1.], &[1]);
    theirs.save_parameters(path("theirs.weights.h5")).unwrap();

    let (theirs, ours, like) = (path("theirs.weights.h5"), path("ours.h5"), path("like.h5"));
    let names = ["--rule", "rename(layers/conv2d/**, c/**)", "--rule", "rename(layers/dense/**, fc/**)"];
    let from = ["convert", "--from", "keras", "--like", &like, &theirs, &ours];
    let output = layerfn(&[&from[..], &names].concat());
    assert_eq!(code(&output), 2);
    let error = text(&output.stderr);
    assert!(error.contains("`channels_first(fc/vars/0, HEIGHT, WIDTH)`"), "{error}");
    let output = layerfn(&[&from[..], &names, &["--rule", "channels_first(fc/vars/0, 1, 3)"]].concat());
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    let told = text(&output.stderr);
    assert!(
        told.ends_with(
            "layerfn: `fc/vars/0` [6, 2] takes images of [1, 3] with the channels first\n\
             layerfn: `c/vars/0` [1, 1, 2, 2] becomes `c/conv/W` [2, 2, 1, 1], channels first\n\
             layerfn: `fc/vars/0` [6, 2] becomes `fc/affine/W` [6, 2]\n\
             layerfn: `fc/vars/1` [2] becomes `fc/affine/b` [2]\n"
        ),
        "{told}"
    );
    model.load(&ours).unwrap();
    let values =
        |path: &str| model.store().get(path).unwrap().var().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(values("c/conv/W"), [1., 3., 2., 4.]);
    assert_eq!(values("fc/affine/W"), [0., 1., 4., 5., 8., 9., 2., 3., 6., 7., 10., 11.]);

    let (candle, again) = (path("candle.safetensors"), path("again.h5"));
    let output = layerfn(&["convert", "--to", "candle", &ours, &candle]);
    assert_eq!(code(&output), 0);
    assert!(text(&output.stderr).contains("`fc/affine/W` [6, 2] becomes `fc.weight` [2, 6], transposed"));
    let output = layerfn(&["convert", "--from", "candle", "--like", &like, &candle, &again]);
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    assert_eq!(code(&layerfn(&["diff", &ours, &again])), 0);
    let (keras, named) = (path("back.weights.h5"), path("named.weights.h5"));
    let to = ["convert", "--to", "keras", &ours, &keras];
    let output = layerfn(&to);
    assert_eq!(code(&output), 2);
    let error = text(&output.stderr);
    assert!(error.contains("`channels_last(fc/affine/W, HEIGHT, WIDTH)`"), "{error}");
    let output = layerfn(&[&to[..], &["--rule", "channels_last(fc/affine/W, 1, 3)"]].concat());
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    let told = text(&output.stderr);
    assert!(
        told.contains("`c/conv/W` [2, 2, 1, 1] becomes `layers/c/vars/0` [1, 1, 2, 2], channels last"),
        "{told}"
    );
    let rules = ["--rule", "layers/c/**=layers/conv2d/**", "--rule", "layers/fc/**=layers/dense/**"];
    assert_eq!(code(&layerfn(&[&["rename", &keras, &named], &rules[..]].concat())), 0);
    let output = layerfn(&["diff", &theirs, &named]);
    assert_eq!(text(&output.stdout).lines().count(), 1, "the optimizer: {}", text(&output.stdout));
}

#[test]
fn convert_keeps_everything_or_refuses() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let source = fixture("model.h5");
    for name in ["m.protobuf", "m.nntxt", "m.nnp", "m.npz", "m.safetensors", "m.h5"] {
        let output = layerfn(&["convert", &source, &path(name)]);
        assert_eq!((code(&output), text(&output.stderr)), (0, String::new()));
        let output = layerfn(&["diff", "--types", &source, &path(name)]);
        assert_eq!((code(&output), text(&output.stdout)), (0, String::new()), "{name}");
    }
    let state = fixture("state.h5");
    let refused = layerfn(&["convert", &state, &path("state.protobuf")]);
    assert_eq!(code(&refused), 2);
    assert!(
        text(&refused.stderr)
            .starts_with("layerfn: nothing was written; .protobuf would lose:\n  the type of `")
    );
    assert!(!Path::new(&path("state.protobuf")).exists());
    let allowed = layerfn(&["convert", "--allow-loss", &state, &path("state.protobuf")]);
    assert_eq!(code(&allowed), 0);
    assert!(text(&allowed.stderr).contains("I32 becomes F32"));
    assert_eq!(code(&layerfn(&["diff", &state, &path("state.protobuf")])), 0);
    assert_eq!(code(&layerfn(&["diff", "--types", &state, &path("state.protobuf")])), 1);
}

#[test]
fn the_network_of_an_archive_is_not_lost_unasked() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let archive = fixture("model.nnp");
    for arguments in [
        &["convert", &archive, &path("m.h5")][..],
        &["rename", &archive, &path("m.h5"), "--rule", "net/**=n/**"],
    ] {
        let refused = layerfn(arguments);
        assert_eq!(code(&refused), 2);
        assert!(text(&refused.stderr).contains(".h5 would lose:\n  `network.nntxt` of the archive\n"));
        assert!(!Path::new(&path("m.h5")).exists());
    }
    assert_eq!(code(&layerfn(&["convert", "--allow-loss", &archive, &path("m.h5")])), 0);
    assert_eq!(code(&layerfn(&["diff", &archive, &path("m.h5")])), 0);
    // Another archive takes it along.
    let output = layerfn(&["convert", &archive, &path("m.nnp")]);
    assert_eq!((code(&output), text(&output.stderr)), (0, String::new()));
    assert_eq!(code(&layerfn(&["convert", &path("m.nnp"), &path("again.h5")])), 2);
    // It does not learn new names.
    let arguments = ["rename", &archive, &path("renamed.nnp"), "--rule", "net/**=n/**"];
    let refused = layerfn(&arguments);
    assert_eq!(code(&refused), 2);
    let reason = "`network.nntxt` of the archive still uses the old parameter names";
    assert!(text(&refused.stderr).contains(reason), "{}", text(&refused.stderr));
    assert_eq!(code(&layerfn(&[&arguments[..], &["--allow-loss"]].concat())), 0);
}

#[test]
fn the_network_of_a_message_is_not_lost_unasked() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("m.h5").display().to_string();
    for file in ["model_net.nntxt", "model_net.protobuf"] {
        let refused = layerfn(&["convert", &fixture(file), &target]);
        assert_eq!(code(&refused), 2);
        assert!(text(&refused.stderr).contains("  `network` of the message\n"), "{}", text(&refused.stderr));
        assert!(!Path::new(&target).exists());
    }
}

#[test]
fn a_variable_of_several_paths_is_shown_and_not_lost_unasked() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let w = Parameter::new(Var::new(&[1f32], &Device::Cpu).unwrap(), true);
    let store = ParameterStore::new();
    store.set("a/W", w.clone()).unwrap();
    store.set("b/W", w).unwrap();
    store.save_parameters(path("m.h5")).unwrap();
    let shown = text(&layerfn(&["inspect", &path("m.h5")]).stdout);
    assert!(shown.contains("\none variable: `a/W`, `b/W`\n"), "{shown}");
    let json = layerfn(&["inspect", "--json", &path("m.h5")]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["tied"], serde_json::json!([["a/W", "b/W"]]));
    let refused = layerfn(&["convert", &path("m.h5"), &path("m.protobuf")]);
    assert_eq!(code(&refused), 2);
    assert!(text(&refused.stderr).contains("`a/W`, `b/W` are one variable"), "{}", text(&refused.stderr));
}

#[test]
fn what_cannot_be_used_is_shown_and_not_lost_unasked() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let header = r#"{"t":{"dtype":"C64","shape":[],"data_offsets":[4,12]},"w":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}"#;
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 12]].concat();
    std::fs::write(path("a.safetensors"), bytes).unwrap();
    let line = "`t` has the type C64, which tensors here cannot have\n";
    let shown = text(&layerfn(&["inspect", &path("a.safetensors")]).stdout);
    assert!(
        shown.ends_with(&format!("\ncannot be used: {line}1 parameters, 1 values, 4 bytes\n")),
        "{shown}"
    );
    let json = layerfn(&["inspect", "--json", &path("a.safetensors")]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["unusable"][0]["path"], "t");

    let refused = layerfn(&["convert", &path("a.safetensors"), &path("b.npz")]);
    assert_eq!(code(&refused), 2);
    assert!(
        text(&refused.stderr).contains(&format!(".npz would lose:\n  {line}")),
        "{}",
        text(&refused.stderr)
    );
    let allowed = layerfn(&["convert", "--allow-loss", &path("a.safetensors"), &path("b.npz")]);
    assert_eq!((code(&allowed), text(&allowed.stderr)), (0, format!("layerfn: lost: {line}")));
    let compared = layerfn(&["diff", &path("a.safetensors"), &path("b.npz")]);
    assert_eq!((code(&compared), text(&compared.stdout)), (0, String::new()));
    assert!(text(&compared.stderr).starts_with("layerfn: not compared: "));
}

#[test]
fn a_long_path_is_shortened() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.npz").display().to_string();
    let store = layerfn::ParameterStore::new();
    let var = candle_core::Var::from_vec(vec![1_f32], 1, &candle_core::Device::Cpu).unwrap();
    store.set(&format!("{}/end", "größe/".repeat(400)), layerfn::Parameter::new(var, true)).unwrap();
    store.save_parameters(&file).unwrap();
    let shown = text(&layerfn(&["inspect", &file]).stdout);
    assert!(shown.lines().all(|line| line.chars().count() < 250), "{shown}");
    assert!(shown.contains("\ngröße/") && shown.contains('…') && shown.contains("/end  [1]"), "{shown}");
    let json = text(&layerfn(&["inspect", "--json", &file]).stdout);
    assert!(json.contains(&"größe/".repeat(400)));
}

#[test]
fn a_flag_that_nobody_knows_is_said_to_be_guessed() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let header = r#"{"bn/mean":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}"#;
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 4]].concat();
    std::fs::write(path("a.safetensors"), bytes).unwrap();
    for (name, guesses) in [("b.npz", false), ("b.safetensors", false), ("b.h5", true), ("b.nntxt", true)] {
        let output = layerfn(&["rename", &path("a.safetensors"), &path(name), "--rule", "bn/**=norm/**"]);
        let expected =
            "layerfn: guessed: need_grad is true for 1 parameters of which the file does not say it\n";
        assert_eq!((code(&output), text(&output.stderr).as_str()), (0, if guesses { expected } else { "" }));
    }
}

#[test]
fn a_rule_that_matches_nothing_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("m.h5").display().to_string();
    let refused = layerfn(&["rename", &fixture("model.h5"), &target, "--rule", "nte/**=new/**"]);
    assert_eq!(code(&refused), 2);
    assert_eq!(text(&refused.stderr), "layerfn: nothing was written; no rule changes a path\n");
    assert!(!Path::new(&target).exists());
}

#[test]
fn integers_are_compared_as_such() {
    use layerfn::checkpoint::Checkpoint;
    let folder = tempfile::tempdir().unwrap();
    let files = [1_i64 << 60, (1 << 60) + 1].map(|value| {
        let file = folder.path().join(format!("{value}.npz"));
        let store = layerfn::ParameterStore::new();
        let var = candle_core::Var::from_vec(vec![value], 1, &candle_core::Device::Cpu).unwrap();
        store.set("n", layerfn::Parameter::new(var, false)).unwrap();
        Checkpoint::from_parameters(&store.parameters()).unwrap().save(&file).unwrap();
        file.display().to_string()
    });
    let output = layerfn(&["diff", &files[0], &files[1]]);
    assert_eq!(
        (code(&output), text(&output.stdout).as_str()),
        (1, "~ n: 1 of 1 values differ, by 1e0 at most\n")
    );
    assert_eq!(code(&layerfn(&["diff", &files[0], &files[1], "--tolerance", "1"])), 0);
}

#[test]
fn colours_are_for_terminals() {
    let shown = |variables: &[(&str, &str)]| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_layerfn"));
        for variable in ["NO_COLOR", "CLICOLOR_FORCE", "CLICOLOR"] {
            program.env_remove(variable);
        }
        program.args(["inspect", &fixture("model.h5")]).envs(variables.iter().copied());
        text(&program.output().unwrap().stdout)
    };
    let escape = '\u{1b}';
    assert!(!shown(&[]).contains(escape));
    assert!(shown(&[("CLICOLOR_FORCE", "1")]).contains(escape));
    assert!(!shown(&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]).contains(escape));
}

#[test]
fn names_of_a_file_do_not_steer_the_terminal() {
    use layerfn::checkpoint::{Checkpoint, Format};
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.safetensors");
    let header = r#"{"a\u001b[2J\n":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}"#;
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 4]].concat();
    assert_eq!(
        Checkpoint::from_bytes(Format::Safetensors, &bytes).unwrap().entries()[0].path(),
        "a\u{1b}[2J\n"
    );
    std::fs::write(&file, bytes).unwrap();
    let shown = Command::new(env!("CARGO_BIN_EXE_layerfn"))
        .args(["inspect", &file.display().to_string()])
        .env_remove("NO_COLOR")
        .env("CLICOLOR_FORCE", "1")
        .output()
        .unwrap();
    assert!(text(&shown.stdout).contains(r"a\u{1b}[2J\n  "), "{}", text(&shown.stdout));
}

#[test]
fn export_writes_networks_for_other_programs() {
    use layerfn::candle_core::{DType, Device, Tensor};
    use layerfn::import::Onnx;
    use layerfn::nnp::Nnp;

    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let source = fixture("../networks/lenet.nnp");
    let there = layerfn(&["export", &source, "-o", &path("m.onnx")]);
    assert_eq!((code(&there), text(&there.stderr)), (0, String::new()));
    let back = layerfn(&["export", &path("m.onnx"), "-o", &path("m.nnp")]);
    assert_eq!((code(&back), text(&back.stderr)), (0, String::new()));

    let executor = Nnp::open(&source).unwrap();
    let executor = executor.executor(executor.executors().next().unwrap()).unwrap();
    let dims = [&[3], &executor.model().inputs()[0].dims()[1..]].concat();
    let x = [(Tensor::arange(0f32, dims.iter().product::<usize>() as f32, &Device::Cpu).unwrap() * 1e-3)
        .unwrap()
        .reshape(dims)
        .unwrap()];
    let numbers = |outputs: &[Tensor]| {
        outputs[0].flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1::<f64>().unwrap()
    };
    let wanted = numbers(&executor.run(&x).unwrap());
    let of_onnx =
        numbers(&Onnx::open(path("m.onnx")).unwrap().model().unwrap().forward_t(&x, false).unwrap());
    let of_nnp = numbers(&Nnp::open(path("m.nnp")).unwrap().executor("runtime").unwrap().run(&x).unwrap());
    for (found, wanted) in of_onnx.iter().chain(&of_nnp).zip(wanted.iter().chain(&wanted)) {
        assert!((found - wanted).abs() < 1e-5, "{found} instead of {wanted}");
    }

    let refused = layerfn(&["export", &source, "-o", &path("m.h5")]);
    assert_eq!(code(&refused), 2);
    assert!(text(&refused.stderr).contains("a network can be saved as .nnp, .nntxt or .prototxt"));
    assert_eq!(code(&layerfn(&["export", &source, "--executor", "none", "-o", &path("m.onnx")])), 2);
}

#[test]
fn diff_says_what_differs() {
    let folder = tempfile::tempdir().unwrap();
    let renamed = folder.path().join("renamed.h5").display().to_string();
    let source = fixture("model.h5");
    let output = layerfn(&["rename", &source, &renamed, "--rule", "net/classifier/**=net/head/**"]);
    assert_eq!((code(&output), text(&output.stderr)), (0, String::new()));
    let output = layerfn(&["diff", &source, &renamed]);
    assert_eq!(code(&output), 1);
    let shown = text(&output.stdout);
    assert!(
        shown.contains("- net/classifier/affine/W [") && shown.contains("+ net/head/affine/b ["),
        "{shown}"
    );
    let output = layerfn(&["diff", &source, &fixture("order.h5")]);
    assert_eq!(code(&output), 1);
}

#[test]
fn layers_come_from_their_declarations() {
    let all = text(&layerfn(&["layers"]).stdout);
    assert_eq!(all.lines().count(), layerfn::LAYERS.len());
    assert!(!all.contains("](fn@"), "{all}");
    let shown = text(&layerfn(&["layers", "convolution"]).stdout);
    for expected in ["outmaps", "required", "conv/W", "need_grad"] {
        assert!(shown.contains(expected), "{shown}");
    }
    let json: serde_json::Value = serde_json::from_slice(&layerfn(&["layers", "--json"]).stdout).unwrap();
    assert_eq!(json.as_array().unwrap().len(), layerfn::LAYERS.len());
    // What chains and paths call it.
    assert_eq!(text(&layerfn(&["layers", "conv", "bn"]).stdout), {
        text(&layerfn(&["layers", "convolution", "batch_normalization"]).stdout)
    });
    let unknown = layerfn(&["layers", "convolutoin"]);
    assert_eq!(code(&unknown), 2);
    assert!(text(&unknown.stderr).contains("no layer `convolutoin`"));
}

#[test]
fn mistakes_end_with_2_and_a_line_on_stderr() {
    for (arguments, expected) in [
        (&["inspect", "no.h5"][..], "layerfn: cannot read `no.h5`: No such file or directory (os error 2)\n"),
        (
            &["convert", "no.h5", "out.txt"],
            "layerfn: `out.txt` has an unknown extension; a checkpoint has one of \
             .h5, .protobuf, .nntxt, .prototxt, .nnp, .npz, .safetensors\n",
        ),
    ] {
        let output = layerfn(arguments);
        assert_eq!((code(&output), text(&output.stderr).as_str()), (2, expected));
        assert!(output.stdout.is_empty());
    }
    for tolerance in ["nan", "-1", "x"] {
        let usage = layerfn(&["diff", "a.h5", "b.h5", &format!("--tolerance={tolerance}")]);
        assert_eq!(code(&usage), 2);
        assert!(text(&usage.stderr).contains("a number from 0 on is expected"));
    }
    let usage = layerfn(&["rename", "a.h5", "b.h5", "--rule", "nothing"]);
    assert_eq!(code(&usage), 2);
    assert!(text(&usage.stderr).contains("a rule reads FROM=TO"));
}

#[test]
fn declare_prints_rust_code() {
    let network = |name: &str| fixture(&format!("../networks/{name}"));
    let output = layerfn(&["declare", &network("lenet.nnp")]);
    assert_eq!((code(&output), text(&output.stderr)), (0, String::new()));
    let printed = text(&output.stdout);
    assert!(printed.contains("pub fn lenet() |image|") && printed.contains("conv1: conv(4, "), "{printed}");
    let other = layerfn(&["declare", "--network", "validation", &network("training.nnp")]);
    assert!(text(&other.stdout).contains("pub fn validation() |x, y|"));
    let unknown = layerfn(&["declare", "--network", "valid", &network("training.nnp")]);
    assert_eq!(code(&unknown), 2);
    assert!(text(&unknown.stderr).contains("has no network `valid`"), "{}", text(&unknown.stderr));
}

#[test]
fn completions_and_manual_are_printed() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        assert!(text(&layerfn(&["completions", shell]).stdout).contains("inspect"), "{shell}");
    }
    assert!(text(&layerfn(&["man"]).stdout).contains("layerfn\\-inspect"));
    assert!(text(&layerfn(&["man", "convert"]).stdout).contains("\\-\\-allow\\-loss"));
    assert_eq!(code(&layerfn(&["man", "nothing"])), 2);
}

#[test]
fn a_closed_pipe_is_no_error() {
    let mut program = Command::new(env!("CARGO_BIN_EXE_layerfn"))
        .args(["inspect", &fixture("many.h5")])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(program.stdout.take());
    assert_eq!(program.wait().unwrap().code(), Some(0));
}
