//! A network as an ONNX file: nodes for each function, constants for the parameters, under their paths.

mod graph;
mod layers;
mod losses;
mod maps;
mod normalizations;
mod quantized;
mod recurrent;
mod shapes;

use std::path::Path;

use graph::{Call, Graph};
use prost::bytes::Bytes;

use super::integers::Integers;
use super::nnp::names;
use super::sizes::Size;
use super::trace::{Flow, Traced};
use crate::onnx::{self, FLOAT, INT64, OUTSIDE};
use crate::told::Step;
use crate::{Error, Result, checkpoint};

/// The version of the format, and that of the set of operators.
const IR_VERSION: i64 = 10;
const OPSET: i64 = 21;

/// What protobuf can hold in one file.
const MOST: usize = 1 << 31;

/// Constants in another file begin at multiples of this, so that runtimes can map them into memory.
const PAGE: usize = 4096;

/// Smaller constants stay where they are.
const SMALL: usize = 1024;

/// Writes the network with its parameters.
pub(super) fn save(traced: &Traced, integers: Option<&Integers>, path: &Path) -> Result<()> {
    write_model(model(traced, integers)?, path, MOST)
}

/// Writes the file; if that had as many bytes as `most`, the constants go into another one beside it, `NAME.data`.
fn write_model(mut model: onnx::Model, path: &Path, most: usize) -> Result<()> {
    if prost::Message::encoded_len(&model) >= most {
        let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(|| {
            let reason = "must have a name in UTF-8, which a file of constants beside it is found by";
            Error::invalid("path", reason, path.display())
        })?;
        let location = format!("{name}.data");
        let constants = take_constants(&mut model, &location);
        let length = prost::Message::encoded_len(&model);
        if length >= most {
            let reason =
                format!("must have fewer than {most} bytes of nodes and small constants to be an ONNX file");
            return Err(Error::invalid("network", reason, length));
        }
        let mut parts: Vec<&[u8]> = Vec::new();
        for constant in &constants {
            parts.extend([&constant[..], &[0; PAGE][..padding(constant.len())]]);
        }
        checkpoint::write_file(&path.with_file_name(location), &parts)?;
    }
    checkpoint::write_file(path, &[&prost::Message::encode_to_vec(&model)])
}

/// How many bytes lie behind so many up to the next page.
fn padding(length: usize) -> usize {
    length.next_multiple_of(PAGE) - length
}

/// The elements of the large constants, which the model finds in the file `location` then.
fn take_constants(model: &mut onnx::Model, location: &str) -> Vec<Bytes> {
    let mut offset = 0;
    let mut taken = Vec::new();
    for constant in model.graph.iter_mut().flat_map(|graph| &mut graph.initializer) {
        let length = constant.raw_data.len();
        if length < SMALL {
            continue;
        }
        let entry = |key: &str, value: String| onnx::Entry { key: key.to_owned(), value };
        constant.external_data = vec![
            entry("location", location.to_owned()),
            entry("offset", offset.to_string()),
            entry("length", length.to_string()),
        ];
        constant.data_location = OUTSIDE;
        taken.push(std::mem::take(&mut constant.raw_data));
        offset += length + padding(length);
    }
    taken
}

fn model(traced: &Traced, integers: Option<&Integers>) -> Result<onnx::Model> {
    let names = names(traced);
    let mut graph = Graph::new(traced, integers, &names);
    traced.inputs.iter().for_each(|&place| quantized::round(&mut graph, place));
    // What follows from parameters alone.
    let mut constant: Vec<bool> = traced.values.iter().map(Flow::is_known).collect();
    for step in &traced.steps {
        let is_constant = !step.inputs.is_empty() && step.inputs.iter().all(|&input| constant[input]);
        step.outputs.iter().for_each(|&output| constant[output] = is_constant);
        write(&mut graph, step, is_constant)?;
        step.outputs.iter().for_each(|&place| quantized::round(&mut graph, place));
    }
    let infos = |places: &[usize]| -> Vec<onnx::ValueInfo> {
        places.iter().map(|&place| info(&names[place], &traced.values[place])).collect()
    };
    let (input, output) = (infos(&traced.inputs), infos(&traced.outputs));
    let graph = onnx::Graph { name: "main".to_owned(), input, output, ..graph.finish()? };
    Ok(onnx::Model {
        ir_version: IR_VERSION,
        producer_name: "layerfn".to_owned(),
        producer_version: env!("CARGO_PKG_VERSION").to_owned(),
        graph: Some(graph),
        opset_import: vec![onnx::OperatorSet { domain: String::new(), version: OPSET }],
    })
}

/// The nodes of one function.
fn write(graph: &mut Graph<'_>, step: &Step, is_constant: bool) -> Result<()> {
    let first = graph.n_nodes();
    let mut call = Call { graph, step };
    let found = [
        maps::write,
        layers::write,
        losses::write,
        normalizations::write,
        quantized::write,
        recurrent::write,
        shapes::write,
    ]
    .into_iter()
    .find_map(|write| write(&mut call).transpose());
    let located = |error: Error| match step.scope.is_empty() {
        true => error,
        false => Error::InLayer { path: step.scope.clone(), layer: step.kind, source: Box::new(error) },
    };
    match found.transpose().map_err(located)? {
        Some(results) => graph.named(first, &results, &step.outputs),
        None if is_constant => step.outputs.iter().for_each(|&output| graph.constant(output)),
        None => {
            let reason =
                format!("cannot be `{}` in an ONNX file; state another form by `export::told`", step.kind);
            return Err(located(Error::invalid("function", reason, &step.scope)));
        }
    }
    Ok(())
}

fn info(name: &str, flow: &Flow) -> onnx::ValueInfo {
    let dim = |&size: &Size| {
        use onnx::dimension::Value;
        let value = match size {
            -1 => Value::DimParam("batch".to_owned()),
            size if size < 0 => Value::DimParam(format!("{} * batch", -size)),
            size => Value::DimValue(size),
        };
        onnx::Dimension { value: Some(value) }
    };
    let shape = onnx::Shape { dim: flow.sizes.iter().map(dim).collect() };
    let elem_type = if flow.tensor.dtype().is_float() { FLOAT } else { INT64 };
    let tensor_type = Some(onnx::TensorType { elem_type, shape: Some(shape) });
    onnx::ValueInfo { name: name.to_owned(), r#type: Some(onnx::Type { tensor_type }) }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::super::Source;
    use super::*;
    use crate::Network;
    use crate::import::Onnx;

    #[test]
    fn constants_of_a_large_file_lie_in_another_one() -> Result<()> {
        let net =
            Network::new(|x: &Tensor| crate::affine(&crate::affine(x, 50).call()?, 3).name("out").call());
        let net = net.init((1, 40))?;
        let forward = |x: &[Tensor]| Ok(vec![net.forward_t(&x[0], false)?]);
        let source = Source { store: net.store(), inputs: vec![(1, 40).into()], forward: &forward };
        let file = model(&Traced::new(&source)?, None)?;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("large.onnx");
        // 8000 bytes of the first weights, and others that are small.
        write_model(file.clone(), &path, 8000)?;
        let data = std::fs::metadata(folder.path().join("large.onnx.data")).unwrap();
        assert_eq!(data.len(), 8192);
        assert!(std::fs::metadata(&path).unwrap().len() < 2000);
        let x = Tensor::arange(0f32, 80.0, &Device::Cpu)?.reshape((2, 40))?;
        let found = Onnx::open(&path)?.model()?.forward(std::slice::from_ref(&x))?;
        assert_eq!(found[0].to_vec2::<f32>()?, net.forward_t(&x, false)?.to_vec2::<f32>()?);

        let whole = folder.path().join("small.onnx");
        write_model(file.clone(), &whole, 16_000)?;
        assert!(!folder.path().join("small.onnx.data").exists() && whole.exists());
        let refused = write_model(file, &folder.path().join("refused.onnx"), 500).unwrap_err().to_string();
        assert!(refused.contains("must have fewer than 500 bytes of nodes and small constants"), "{refused}");
        assert!(!folder.path().join("refused.onnx.data").exists());
        Ok(())
    }
}
