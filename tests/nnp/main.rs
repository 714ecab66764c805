//! Files of whole networks: how they are read, run, trained, saved, and what is refused.

mod declare;
mod declared;
mod forms;
mod hostile;
mod loops;
mod models;
mod run;

use std::io::Write as _;
use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};
use layerfn::checkpoint::Format;
use layerfn::nnp::Nnp;
use layerfn::{ParameterStore, Result};
use zip::write::SimpleFileOptions;

/// A product with weights of the shape 3 × 2, for batches of any size.
const AFFINE: &str = r#"
network {
  name: "n" batch_size: 4
  variable { name: "x" type: "Buffer" shape: { dim: -1 dim: 3 } }
  variable { name: "y" type: "Buffer" shape: { dim: -1 dim: 2 } }
  variable { name: "w" type: "Parameter" shape: { dim: 3 dim: 2 } }
  function { name: "f" type: "Affine" input: "x" input: "w" output: "y" affine_param { base_axis: 1 } }
}
"#;

const EXECUTOR: &str = r#"
executor {
  name: "e" network_name: "n"
  data_variable { variable_name: "x" data_name: "in" } output_variable { variable_name: "y" data_name: "out" }
}
"#;

const WEIGHTS: [f32; 6] = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0];

fn opened(text: &str) -> Result<Nnp> {
    Nnp::from_bytes(Format::Text, text.as_bytes())
}

/// The text of a parameter.
fn parameter(name: &str, dims: &[usize], values: &[f32]) -> String {
    let dims: String = dims.iter().map(|size| format!(" dim: {size}")).collect();
    let values: String = values.iter().map(|value| format!(" data: {value:?}")).collect();
    format!("parameter {{ variable_name: \"{name}\" shape {{{dims} }}{values} need_grad: true }}\n")
}

fn affine() -> Result<Nnp> {
    opened(&[AFFINE, EXECUTOR, &parameter("w", &[3, 2], &WEIGHTS)].concat())
}

/// A file in a folder of its own, which goes with the first of the two.
fn archive(members: &[(&str, &[u8])]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.nnp");
    let mut archive = zip::ZipWriter::new(std::fs::File::create(&path).unwrap());
    for (name, content) in members {
        archive.start_file(*name, SimpleFileOptions::default()).unwrap();
        archive.write_all(content).unwrap();
    }
    archive.finish().unwrap();
    (folder, path)
}

fn ones(dims: &[usize]) -> Tensor {
    Tensor::ones(dims, DType::F32, &Device::Cpu).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// The outputs of the network `n` of a file by name, for these inputs by name.
fn outputs(file: &Nnp, inputs: &[(&str, Tensor)]) -> Result<Vec<(String, Tensor)>> {
    ParameterStore::new().enter(|| {
        let network = file.network("n")?;
        let given: Vec<Tensor> = network
            .inputs()
            .map(|name| inputs.iter().find(|(given, _)| *given == name).expect(name).1.clone())
            .collect();
        let outputs = network.model()?.forward(&given)?;
        Ok(network.outputs().map(str::to_owned).zip(outputs).collect())
    })
}

/// The one output of the network `n`, for an input `x`.
fn output(file: &Nnp, x: Tensor) -> Vec<f32> {
    let outputs = outputs(file, &[("x", x)]).unwrap();
    assert_eq!(outputs.len(), 1);
    values(&outputs[0].1)
}

/// What is said of the network `n` of a text.
fn refusal(text: &str) -> String {
    match opened(text).and_then(|file| file.network("n")?.model()) {
        Ok(_) => panic!("it was taken"),
        Err(error) => error.to_string(),
    }
}
