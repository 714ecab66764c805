//! Network files: every run by the loader and by an executor, and a saved copy of the file.

use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use layerfn::ParameterStore;
use layerfn::nnp::Nnp;
use serde::Deserialize;

use super::run::Outcome;
use crate::support::compare::{Tolerance, difference};
use crate::support::fixtures::Tensors;

#[derive(Deserialize)]
struct Case {
    id: String,
    file: String,
    tensors: String,
    runs: Vec<Run>,
    tolerance: Tolerance,
}

#[derive(Deserialize)]
struct Run {
    via: Via,
    name: String,
    batch_size: Option<usize>,
    inputs: Vec<String>,
    outputs: Vec<String>,
    changed: Vec<String>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Via {
    Loader,
    Executor,
}

type Failure = Box<dyn std::error::Error>;

pub(super) fn run(dir: &Path, case: serde_json::Value, device: &Device) -> Outcome {
    let case: Case = match serde_json::from_value(case) {
        Ok(case) => case,
        Err(error) => return Outcome::Failed(vec![format!("the manifest's entry: {error}")]),
    };
    let mut failures = Vec::new();
    match ParameterStore::new().enter(|| all(dir, &case, device, &mut failures)) {
        Ok(()) if failures.is_empty() => Outcome::Passed,
        Ok(()) => Outcome::Failed(failures),
        Err(error) => Outcome::Failed([failures, vec![error.to_string()]].concat()),
    }
}

fn all(dir: &Path, case: &Case, device: &Device, failures: &mut Vec<String>) -> Result<(), Failure> {
    let tensors = Tensors::load(&dir.join(&case.tensors))?.to_device(device)?;
    let file = Nnp::open(dir.join(&case.file))?;
    let folder = tempfile::tempdir()?;
    // Where somebody else wants to read them.
    let saved =
        std::env::var_os("LAYERFN_SAVED_NETWORKS").map_or_else(|| folder.path().to_owned(), PathBuf::from);
    let saved = saved.join(&case.id).with_extension("nnp");
    file.save(&saved)?;
    let saved = Nnp::open(saved)?;
    for (n, run) in case.runs.iter().enumerate() {
        let at = |text: String| format!("run {n}, {} of `{}`: {text}", run.via.name(), run.name);
        let (found, after) =
            outputs(&file, run, n, &tensors, device).map_err(|error| at(error.to_string()))?;
        let again =
            outputs(&saved, run, n, &tensors, device).map_err(|error| at(format!("saved: {error}")))?;
        for (i, output) in run.outputs.iter().enumerate() {
            let want = tensors.float(&format!("run{n}.output.{output}"))?;
            let text = difference(&found[i], &want, Some(case.tolerance));
            failures.extend(text.map(|text| at(format!("`{output}` {text}"))));
            let text = difference(&again.0[i], &found[i], None);
            failures.extend(text.map(|text| at(format!("`{output}` of the saved file {text}"))));
        }
        failures.extend(state(&file, run, n, &tensors, &after, case.tolerance)?.into_iter().map(at));
    }
    Ok(())
}

impl Via {
    fn name(self) -> &'static str {
        match self {
            Self::Loader => "the network",
            Self::Executor => "the executor",
        }
    }
}

/// The outputs of a run in the order of the manifest, and the parameters after it.
fn outputs(
    file: &Nnp,
    run: &Run,
    n: usize,
    tensors: &Tensors,
    device: &Device,
) -> Result<(Vec<Tensor>, ParameterStore), Failure> {
    let input = |name: &str| Ok::<_, String>(tensors.get(&format!("run{n}.input.{name}"))?.clone());
    let (names, found, store) = match run.via {
        Via::Loader => {
            let network = file.network(&run.name)?;
            let network = run.batch_size.into_iter().fold(network, layerfn::nnp::NnpNetwork::batch_size);
            let given = network.inputs().map(input).collect::<Result<Vec<_>, _>>()?;
            let model = network.model()?.to_device(device)?;
            let found = model.forward(&given)?;
            let names: Vec<_> = network.outputs().map(str::to_owned).collect();
            if let Some(more) = names.iter().find(|name| !run.outputs.contains(name)) {
                return Err(format!("`{more}` is an output here").into());
            }
            (names, found, model.store().clone())
        }
        Via::Executor => {
            let executor = match run.batch_size {
                Some(batch_size) => file.executor_with_batch_size(&run.name, batch_size)?,
                None => file.executor(&run.name)?,
            };
            let executor = executor.to_device(device)?;
            let given = executor.inputs().map(input).collect::<Result<Vec<_>, _>>()?;
            let found = executor.run(&given)?;
            (executor.outputs().map(str::to_owned).collect(), found, executor.model().store().clone())
        }
    };
    if let Some(unused) =
        run.inputs.iter().find(|name| tensors.find(&format!("run{n}.input.{name}")).is_none())
    {
        return Err(format!("no tensor for the input `{unused}`").into());
    }
    let place = |wanted: &String| names.iter().position(|name| name == wanted);
    let ordered = run.outputs.iter().map(|wanted| match place(wanted) {
        Some(place) => Ok(found[place].clone()),
        None => Err(format!("`{wanted}` is not an output here, only {names:?}")),
    });
    Ok((ordered.collect::<Result<_, _>>()?, store))
}

/// What a run changed has the recorded value; all else is as the file has it.
fn state(
    file: &Nnp,
    run: &Run,
    n: usize,
    tensors: &Tensors,
    after: &ParameterStore,
    tolerance: Tolerance,
) -> Result<Vec<String>, Failure> {
    let mut failures = Vec::new();
    for path in &run.changed {
        let Some(found) = after.get(path) else {
            failures.push(format!("`{path}` is missing after the run"));
            continue;
        };
        let want = tensors.float(&format!("run{n}.after.{path}"))?;
        failures.extend(
            difference(found.var(), &want, Some(tolerance)).map(|text| format!("`{path}` after it {text}")),
        );
    }
    for entry in file
        .parameters()
        .entries()
        .iter()
        .filter(|entry| !run.changed.iter().any(|path| path == entry.path()))
    {
        let Some(found) = after.get(entry.path()) else { continue };
        // A file may hold factors in f64, which networks compute with in f32.
        let stored = entry.tensor().to_dtype(found.var().dtype())?;
        failures.extend(
            difference(found.var(), &stored, None).map(|text| format!("`{}` moved: {text}", entry.path())),
        );
    }
    Ok(failures)
}
