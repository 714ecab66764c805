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

use super::integers::Integers;
use super::nnp::names;
use super::sizes::Size;
use super::trace::{Flow, Traced};
use crate::onnx::{self, FLOAT, INT64};
use crate::told::{Origin, Step};
use crate::{Error, Result, checkpoint};

/// The version of the format, and that of the set of operators.
const IR_VERSION: i64 = 10;
const OPSET: i64 = 21;

/// What protobuf can hold in one file.
const MOST: usize = 1 << 31;

/// Writes the network with its parameters.
pub(super) fn save(traced: &Traced, integers: Option<&Integers>, path: &Path) -> Result<()> {
    let model = model(traced, integers)?;
    let length = prost::Message::encoded_len(&model);
    if length >= MOST {
        let reason = format!("must be smaller than {MOST} bytes to be one ONNX file");
        return Err(Error::invalid("network", reason, length));
    }
    checkpoint::write_file(path, &prost::Message::encode_to_vec(&model))
}

fn model(traced: &Traced, integers: Option<&Integers>) -> Result<onnx::Model> {
    let names = names(traced);
    let mut graph = Graph::new(traced, integers, &names);
    traced.inputs.iter().for_each(|&place| quantized::round(&mut graph, place));
    // What follows from parameters alone.
    let mut constant: Vec<bool> = traced
        .values
        .iter()
        .map(|flow| matches!(flow.origin, Origin::Parameter(_) | Origin::Constant))
        .collect();
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
