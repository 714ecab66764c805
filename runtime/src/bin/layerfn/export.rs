//! `layerfn export`.

use std::path::Path;
use std::process::ExitCode;

use layerfn::import::Onnx;
use layerfn::nnp::{GraphModel, Nnp};

use crate::Outcome;

pub(crate) fn run(input: &Path, output: &Path, executor: Option<&str>) -> Outcome {
    let model = if is_onnx(input) {
        if let Some(name) = executor {
            return Err(format!("an ONNX file has one network and no executor `{name}`").into());
        }
        Onnx::open(input)?.model()?
    } else {
        of_executor(&Nnp::open(input)?, executor)?
    };
    let inputs = model.inputs().to_vec();
    if is_onnx(output) {
        model.export_onnx(output, inputs)?;
    } else {
        model.export_nnp(output, inputs)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The model of the executor, or of the first network of a file that has none.
fn of_executor(file: &Nnp, name: Option<&str>) -> layerfn::Result<GraphModel> {
    let first = file.executors().next();
    match (name.or(first), file.networks().next()) {
        (None, Some(network)) => file.network(network)?.model(),
        (name, _) => Ok(file.executor(name.unwrap_or_default())?.model().clone()),
    }
}

fn is_onnx(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("onnx"))
}
