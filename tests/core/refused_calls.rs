//! Calls that must be refused, from NNabla's `errors.json`.

use candle_core::{DType, Tensor};
use layerfn::{Error, ParameterStore, parameter_scope};
use layerfn_tests::support::fixtures::{Tensors, json};
use layerfn_tests::support::layers::{Arguments, Failure, find};
use serde_json::Value;

use crate::zeros;

/// Zeros for every input of a call; indices where a layer looks something up.
pub(crate) fn inputs(function: &str, shapes: &Value) -> Vec<(String, Tensor)> {
    let dtype = if function == "embed" { DType::U32 } else { DType::F32 };
    let shapes = shapes.as_object().into_iter().flatten();
    shapes.map(|(name, shape)| (name.clone(), zeros(&sizes(shape), dtype))).collect()
}

pub(crate) fn sizes(list: &Value) -> Vec<usize> {
    list.as_array().into_iter().flatten().map(|size| size.as_u64().expect("a size") as usize).collect()
}

/// What NNabla refuses and this library does: groups where NNabla registers ungrouped weights and then fails, and
/// depthwise layers over three axes.
fn works_here(row: &Value) -> bool {
    let function = row["function"].as_str().unwrap_or_default();
    let grouped = ["binary_connect_convolution", "binary_weight_convolution", "inq_convolution"];
    let depthwise = ["depthwise_convolution", "depthwise_deconvolution"];
    (grouped.contains(&function) && row["why"] == "grouped weights are not supported")
        || (depthwise.contains(&function) && row["why"] == "three spatial dimensions")
}

#[test]
fn calls_that_nnabla_refuses_are_errors_that_name_the_scope() {
    let Some(file) = json("errors.json") else { return };
    let (mut failures, mut missing) = (Vec::new(), Vec::new());
    for row in file["table"].as_array().expect("table") {
        let function = row["function"].as_str().expect("function");
        let arguments = row["args"].as_object().cloned().unwrap_or_default();
        let Some(call) = find(function, &arguments) else {
            missing.push(function);
            continue;
        };
        let tensors = Tensors::default();
        let result = ParameterStore::new().enter(|| {
            parameter_scope("net", || {
                call(&mut Arguments::new(inputs(function, &row["inputs"]), arguments, &tensors))
            })
        });
        let wrong = match result {
            Ok(_) if works_here(row) => None,
            Err(error) if works_here(row) => Some(format!("must work here: {error}")),
            Ok(outputs) => Some(format!("was accepted and gave {:?}", outputs[0].dims())),
            Err(Failure::Layer(error)) => {
                let text = error.to_string();
                let Error::InLayer { path, layer, .. } = &error else {
                    failures.push(format!("{function}: {}: `{text}` does not say where", row["why"]));
                    continue;
                };
                println!("{text}");
                let placed = path.starts_with("net/") && text.starts_with(&format!("{path}: {layer}: "));
                (!placed).then(|| format!("`{text}` does not start with the scope"))
            }
            // A value that the types of the arguments cannot even express.
            Err(Failure::Description(text)) if text.contains("selection_algorithm") => None,
            Err(Failure::Description(text)) => Some(text),
        };
        failures.extend(wrong.map(|wrong| format!("{function}: {}: {wrong}", row["why"])));
    }
    for function in missing {
        eprintln!("skipped: there is no layer `{function}`");
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
