//! Models of networks from files: trained, frozen, described and saved.

use candle_core::{DType, Device, Tensor};
use layerfn::nnp::Nnp;
use layerfn::prelude::Solver;
use layerfn::solver::Sgd;
use layerfn::{Result, backward};

use super::{EXECUTOR, archive, ones, opened, parameter, values};

/// Batch normalization, relu and a product, with running statistics that move.
const TRAINING: &str = r#"
network {
  name: "n" batch_size: 4
  variable { name: "x" type: "Buffer" shape: { dim: -1 dim: 3 } }
  variable { name: "h" type: "Buffer" } variable { name: "r" type: "Buffer" } variable { name: "y" type: "Buffer" }
  variable { name: "bn/beta" type: "Parameter" shape: { dim: 1 dim: 3 } }
  variable { name: "bn/gamma" type: "Parameter" shape: { dim: 1 dim: 3 } initializer { type: "Constant" multiplier: 1 } }
  variable { name: "bn/mean" type: "Parameter" shape: { dim: 1 dim: 3 } }
  variable { name: "bn/var" type: "Parameter" shape: { dim: 1 dim: 3 } }
  variable { name: "out/affine/W" type: "Parameter" shape: { dim: 3 dim: 2 } initializer { type: "NormalAffineGlorot" multiplier: 1 } }
  variable { name: "out/affine/b" type: "Parameter" shape: { dim: 2 } }
  function { name: "bn" type: "BatchNormalization" input: "x" input: "bn/beta" input: "bn/gamma" input: "bn/mean" input: "bn/var"
             output: "h" batch_normalization_param { axes: 1 decay_rate: 0.5 eps: 0.001 batch_stat: true } }
  function { name: "relu" type: "ReLU" input: "h" output: "r" relu_param { inplace: true } }
  function { name: "out" type: "Affine" input: "r" input: "out/affine/W" input: "out/affine/b" output: "y" affine_param { base_axis: 1 } }
}
"#;

/// What a file holds besides networks and parameters.
const SECTIONS: &str = r#"global_config {
  default_context {
    backends: "cpu:float"
    array_class: "CpuCachedArray"
    device_id: "0"
  }
}
training_config {
  max_epoch: 100
  iter_per_epoch: 23
  save_best: true
}
dataset {
  name: "d"
  uri: "data/\"quoted\".csv"
  batch_size: 4
  shuffle: true
  variable: "x"
}
optimizer {
  name: "o"
  network_name: "n"
  dataset_name: "d"
  solver {
    type: "Adam"
    weight_decay: 0.1
    adam_param {
      alpha: 0.001
      beta1: 0.9
      beta2: 0.999
      eps: 1e-8
    }
  }
  loss_variable {
    variable_name: "y"
  }
}
monitor {
  name: "m"
  network_name: "n"
  dataset_name: "d"
}
"#;

fn input() -> Tensor {
    let values: Vec<f32> = (0..12).map(|n| (n as f32 * 1.7).sin() * 2.0).collect();
    Tensor::from_vec(values, (4, 3), &Device::Cpu).unwrap()
}

#[test]
fn a_network_of_a_file_is_trained() -> Result<()> {
    let model = opened(TRAINING)?.network("n")?.model()?;
    let names: Vec<_> = model.store().parameters().paths().map(str::to_owned).collect();
    assert_eq!(names, ["bn/beta", "bn/gamma", "bn/mean", "bn/var", "out/affine/W", "out/affine/b"]);
    // What the functions write is not trained.
    let trained = ["bn/beta", "bn/gamma", "out/affine/W", "out/affine/b"];
    assert_eq!(model.parameters().paths().collect::<Vec<_>>(), trained);
    let loss = || (&model.forward(&[input()])?[0] - 1.0)?.sqr()?.sum_all().map_err(layerfn::Error::from);
    let before = loss()?.to_scalar::<f32>()?;
    let mut solver = Sgd::new(0.05);
    solver.set_parameters(&model.parameters());
    for _ in 0..30 {
        solver.update(&backward(&loss()?)?)?;
    }
    assert!(loss()?.to_scalar::<f32>()? < 0.5 * before);
    assert!(values(model.store().get("bn/mean").unwrap().var()).iter().any(|&mean| mean != 0.0));
    Ok(())
}

#[test]
fn what_is_frozen_stays() -> Result<()> {
    let model = opened(TRAINING)?.network("n")?.model()?;
    model.freeze("bn/**")?;
    assert_eq!(model.parameters().paths().collect::<Vec<_>>(), ["out/affine/W", "out/affine/b"]);
    model.forward(&[input()])?;
    assert_eq!(values(model.store().get("bn/mean").unwrap().var()), [0.0; 3]);
    Ok(())
}

#[test]
fn a_model_has_parameters_of_its_own() -> Result<()> {
    let file = opened(TRAINING)?;
    let (first, second) = (file.network("n")?.model()?, file.network("n")?.model()?);
    first.forward(&[input()])?;
    assert!(values(first.store().get("bn/var").unwrap().var()).iter().any(|&var| var != 0.0));
    assert_eq!(values(second.store().get("bn/var").unwrap().var()), [0.0; 3]);
    // From any thread.
    let there = std::thread::scope(|threads| threads.spawn(|| first.forward(&[input()])).join().unwrap())?;
    assert_eq!(there[0].dims(), [4, 2]);
    Ok(())
}

#[test]
fn a_model_is_described() -> Result<()> {
    let model = opened(TRAINING)?.network("n")?.model()?;
    let summary = model.summary()?;
    let rows: Vec<_> = summary.rows().iter().map(|row| (row.path.clone(), row.layer.clone())).collect();
    let expected = [("bn", "BatchNormalization"), ("relu", "ReLU"), ("out/affine", "Affine")];
    assert_eq!(rows, expected.map(|(path, layer)| (path.to_owned(), layer.to_owned())));
    assert_eq!(summary.parameter_count(), 3 + 3 + 6 + 2);
    let text = summary.to_string();
    assert!(text.contains("out/affine") && text.contains("4×2"), "{text}");
    // Nothing has moved.
    assert_eq!(values(model.store().get("bn/mean").unwrap().var()), [0.0; 3]);
    let x = input();
    let audit = model.store().enter(|| model.network().gradient_audit(&[x], |ys| ys[0].sqr()?.sum_all()))?;
    assert!(audit.is_clean(), "{audit}");
    Ok(())
}

#[test]
fn a_saved_file_keeps_everything_but_the_values() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let definition = [SECTIONS, TRAINING, EXECUTOR].concat();
    let (_source, path) = archive(&[
        ("nnp_version.txt", b"0.1\n"),
        ("first.nntxt", definition.as_bytes()),
        ("o_Adam_optimizer.h5.optimizer", b"states"),
        ("README.md", b"kept"),
    ]);
    let mut file = Nnp::open(path)?;
    let model = file.network("n")?.model()?;
    model.forward(&[input()])?;
    file.update(model.store())?;
    let saved = folder.path().join("saved.nnp");
    file.save(&saved)?;
    let again = Nnp::open(&saved)?;
    assert_eq!(again.parameters().entries().len(), 6);
    assert_eq!(
        values(&again.executor("e")?.run(&[input()])?[0]),
        values(&file.executor("e")?.run(&[input()])?[0])
    );
    let member = |name: &str| {
        let mut archive = zip::ZipArchive::new(std::fs::File::open(&saved).unwrap()).unwrap();
        let mut content = String::new();
        std::io::Read::read_to_string(&mut archive.by_name(name).unwrap(), &mut content).unwrap();
        content
    };
    assert_eq!(member("o_Adam_optimizer.h5.optimizer"), "states");
    assert_eq!(member("README.md"), "kept");
    let text = member("network.nntxt");
    assert!(text.starts_with(SECTIONS), "{text}");
    // As one text, with the parameters inside.
    let one = folder.path().join("saved.nntxt");
    again.save(&one)?;
    let third = Nnp::open(&one)?;
    assert_eq!(
        values(&third.executor("e")?.run(&[input()])?[0]),
        values(&again.executor("e")?.run(&[input()])?[0])
    );
    assert!(again.save(folder.path().join("saved.h5")).is_err());
    Ok(())
}

#[test]
fn values_of_another_shape_are_not_taken() -> Result<()> {
    let mut file = opened(&[TRAINING, &parameter("out/affine/b", &[2], &[1.0, 2.0])].concat())?;
    let store = layerfn::ParameterStore::new();
    store.enter(|| layerfn::get_parameter_or_create("out/affine/b").shape(3).call())?;
    let error = file.update(&store).unwrap_err().to_string();
    assert!(error.contains("holds `out/affine/b` with the shape [2], not [3]"), "{error}");
    assert_eq!(file.parameters().entries()[0].tensor().dims(), [2]);
    Ok(())
}

#[test]
fn a_file_says_what_is_not_trained() -> Result<()> {
    let fixed = parameter("out/affine/b", &[2], &[1.0, 2.0]).replace("need_grad: true", "");
    let model = opened(&[TRAINING, &fixed].concat())?.network("n")?.model()?;
    assert!(!model.store().get("out/affine/b").unwrap().need_grad());
    assert_eq!(model.forward(&[ones(&[4, 3])])?[0].dtype(), DType::F32);
    Ok(())
}
