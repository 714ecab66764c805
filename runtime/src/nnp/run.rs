//! Running a network: value after value, each kept as long as something takes it.

use std::collections::HashMap;
use std::sync::Arc;

use candle_core::{Device, Tensor};

use super::graph::{Graph, Value};
use super::kinds::Call;
use crate::network::frame::{graph_step, is_recorded};
use crate::parameter::named_parameter;
use crate::parameter::path::join;
use crate::told::listens;
use crate::{Error, Initializer, ParameterStore, Result, check};

/// What one use of a network computes: the steps that the outputs need, and what may be dropped after each.
pub(super) struct Plan {
    graph: Arc<Graph>,
    steps: Vec<Planned>,
    outputs: Vec<usize>,
    /// Values from outside that are needed, among the inputs of the graph.
    pub(super) inputs: Vec<usize>,
    /// Parameters that are needed, in the order of the file.
    parameters: Vec<usize>,
    /// What stands for -1, if it was asked for.
    pub(super) batch_size: Option<usize>,
    initial: Arc<FirstValues>,
}

/// What holds for all of one run.
struct Run {
    batch: usize,
    device: Device,
}

/// A step, by its place.
struct Planned {
    step: usize,
    /// The values that nothing takes later.
    over: Vec<usize>,
    /// The output of the ReLU that alone takes this step's output: what a run makes at once if nobody records it.
    relu: Option<usize>,
}

/// How many numbers a file may ask for that it does not have: a GiB of them.
const MOST_MADE: usize = 1 << 28;

/// The values of a file, by path.
pub(super) type FirstValues = HashMap<String, (Tensor, Option<bool>)>;

impl Plan {
    pub(super) fn new(
        graph: &Arc<Graph>,
        outputs: Vec<usize>,
        batch_size: Option<usize>,
        initial: &Arc<FirstValues>,
    ) -> Self {
        let mut needed = vec![false; graph.values.len()];
        outputs.iter().for_each(|&output| needed[output] = true);
        let mut kept = needed.clone();
        let mut steps = Vec::new();
        for (n, step) in graph.steps.iter().enumerate().rev() {
            if !step.outputs.iter().any(|&output| needed[output]) {
                continue;
            }
            step.inputs.iter().for_each(|&input| needed[input] = true);
            // Seen from the end, the first step that names a value is the last that takes it.
            let mut over: Vec<usize> = step.inputs.iter().chain(&step.outputs).copied().collect();
            over.retain(|&value| !std::mem::replace(&mut kept[value], true));
            steps.push(Planned { step: n, over, relu: None });
        }
        steps.reverse();
        fuse(graph, &mut steps, &outputs);
        let inputs = graph.inputs.iter().copied().filter(|&input| needed[input]).collect();
        let parameters =
            (0..needed.len()).filter(|&n| needed[n] && graph.values[n].parameter.is_some()).collect();
        let (graph, initial) = (Arc::clone(graph), Arc::clone(initial));
        Self { graph, steps, outputs, inputs, parameters, batch_size, initial }
    }

    pub(super) fn values(&self, places: &[usize]) -> impl Iterator<Item = &Value> {
        places.iter().map(|&place| &self.graph.values[place])
    }

    /// The outputs for these values of the needed inputs, in their order.
    pub(super) fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        if inputs.len() != self.inputs.len() {
            let names: Vec<_> = self.values(&self.inputs).map(|value| &value.name).collect();
            let reason = format!("must hold a tensor for each of {names:?}, the inputs of the network");
            return Err(Error::invalid("inputs", reason, inputs.len()));
        }
        let run = Run { batch: self.batch(inputs)?, device: self.device(inputs)? };
        let mut values = vec![None; self.graph.values.len()];
        for (&place, input) in self.inputs.iter().zip(inputs) {
            values[place] = Some(input.clone());
        }
        for planned in &self.steps {
            self.step(planned, &mut values, &run)?;
            planned.over.iter().for_each(|&value| values[value] = None);
        }
        self.outputs.iter().map(|&output| self.value(output, &values)).collect()
    }

    /// The size of the batch: as the inputs have it, or what was asked for, or what the file says.
    fn batch(&self, inputs: &[Tensor]) -> Result<usize> {
        let mut batch = self.batch_size;
        for (value, input) in self.values(&self.inputs).zip(inputs) {
            let shapes = [Some(&value.sizes), value.in_loop.as_ref()].into_iter().flatten();
            let fits = shapes.into_iter().any(|sizes| match fitting(sizes, input.dims(), batch) {
                Some(found) => {
                    batch = found;
                    true
                }
                None => false,
            });
            if !fits {
                let batch = batch
                    .map(|batch| format!(", -1 being the size {batch} of the batch"))
                    .unwrap_or_default();
                return Err(Error::invalid(
                    "inputs",
                    format!("must have the shape {:?} for `{}`{batch}", value.sizes, value.name),
                    input.dims(),
                ));
            }
        }
        Ok(batch.unwrap_or_else(|| self.declared_batch()))
    }

    /// Where the inputs are, or the parameters of a network that has no inputs.
    fn device(&self, inputs: &[Tensor]) -> Result<Device> {
        Ok(match (inputs.first(), self.parameters.first()) {
            (Some(input), _) => input.device().clone(),
            (None, Some(&parameter)) => self.value(parameter, &[])?.device().clone(),
            (None, None) => Device::Cpu,
        })
    }

    /// The size of the batch without any inputs.
    pub(super) fn declared_batch(&self) -> usize {
        self.batch_size.unwrap_or_else(|| usize::try_from(self.graph.batch_size).unwrap_or(0))
    }

    fn step(&self, planned: &Planned, values: &mut [Option<Tensor>], run: &Run) -> Result<()> {
        let step = &self.graph.steps[planned.step];
        if let [output] = step.outputs[..]
            && values[output].is_some()
        {
            // The step before has done this one.
            return Ok(());
        }
        let is_recorded = is_recorded();
        let told = listens();
        let fused = planned.relu.zip(step.prepared.with_relu.as_ref()).filter(|_| !is_recorded && !told);
        let located = |error: Error| match error {
            within @ Error::InLayer { .. } => within,
            other => {
                Error::InLayer { path: step.path.clone(), layer: step.kind.name, source: Box::new(other) }
            }
        };
        let flowing: Vec<Tensor> = if is_recorded {
            step.inputs.iter().filter_map(|&input| values[input].clone()).collect()
        } else {
            Vec::new()
        };
        let outputs = graph_step(&step.path, step.kind.name, &flowing, || {
            let mut inputs = Vec::with_capacity(step.inputs.len());
            for (n, &input) in step.inputs.iter().enumerate() {
                inputs.push(step.kind.fit(n, self.value(input, values)?)?);
            }
            let parameters: Vec<_> = step.inputs.iter().map(|&input| self.path(input)).collect();
            for (name, hidden) in &step.prepared.hidden {
                let dims = hidden.dims(|place| inputs.get(place).map(|input| input.dims().to_vec()));
                self.hidden(&join(&step.path, name), &dims.unwrap_or_default())?;
            }
            let apply = fused.map_or(&step.prepared.apply, |(_, with_relu)| with_relu);
            apply(&Call {
                inputs: &inputs,
                parameters: &parameters,
                path: &step.path,
                batch: run.batch,
                device: &run.device,
            })
        })
        .map_err(located)?;
        if outputs.len() != step.outputs.len() {
            let reason = format!("must name as many outputs as the function makes, {}", outputs.len());
            return Err(located(Error::invalid("output", reason, step.outputs.len())));
        }
        for (&place, output) in step.outputs.iter().zip(outputs) {
            values[fused.map_or(place, |(relu, _)| relu)] = Some(output);
        }
        Ok(())
    }

    fn path(&self, place: usize) -> Option<&str> {
        let value = &self.graph.values[place];
        value.parameter.is_some().then_some(value.name.as_str())
    }

    fn value(&self, place: usize, values: &[Option<Tensor>]) -> Result<Tensor> {
        let value = &self.graph.values[place];
        if let Some(parameter) = &value.parameter {
            let initial = || {
                self.initializer(&value.name, &parameter.dims, || {
                    parameter.initial.initializer(&parameter.dims)
                })
            };
            return named_parameter(
                &value.name,
                &parameter.dims,
                self.is_trained(&value.name, parameter.state),
                initial,
            );
        }
        values[place]
            .clone()
            .ok_or_else(|| Error::invalid("output", "must be made by a function", &value.name))
    }

    fn hidden(&self, path: &str, dims: &[usize]) -> Result<()> {
        let initial = || self.initializer(path, dims, || Ok(Initializer::constant(0.0)));
        named_parameter(path, dims, false, initial).map(drop)
    }

    /// Whether the parameters that the file only declares are not more than a file may ask for.
    fn check_missing(&self) -> Result<()> {
        let missing = self.values(&self.parameters).filter(|value| !self.initial.contains_key(&value.name));
        let mut elements = 0usize;
        for parameter in missing.filter_map(|value| value.parameter.as_ref()) {
            elements = elements.saturating_add(check::count("shape", &parameter.dims)?);
        }
        if elements > MOST_MADE {
            let reason =
                format!("must not declare more than {MOST_MADE} numbers of parameters without their values");
            return Err(Error::invalid("file", reason, elements));
        }
        Ok(())
    }

    fn is_trained(&self, path: &str, state: bool) -> bool {
        !state && self.initial.get(path).is_none_or(|(_, need_grad)| *need_grad != Some(false))
    }

    /// The first value of a parameter: that of the file, or what the file says to make.
    fn initializer(
        &self,
        path: &str,
        dims: &[usize],
        otherwise: impl FnOnce() -> Result<Initializer>,
    ) -> Result<Initializer> {
        match self.initial.get(path) {
            Some((tensor, _)) if tensor.dims() == dims => Ok(Initializer::from(tensor.clone())),
            Some((tensor, _)) => {
                let reason = format!("must hold `{path}` with the shape {dims:?} that the network declares");
                Err(Error::invalid("file", reason, tensor.dims()))
            }
            None => otherwise(),
        }
    }

    /// A store with the parameters that the steps take.
    pub(super) fn store(&self, seed: u64) -> Result<ParameterStore> {
        self.check_missing()?;
        let store = ParameterStore::with_seed(seed);
        store.enter(|| {
            for &parameter in &self.parameters {
                self.value(parameter, &[])?;
            }
            for planned in &self.steps {
                let step = &self.graph.steps[planned.step];
                let declared = |place: usize| {
                    let parameter = self.graph.values[*step.inputs.get(place)?].parameter.as_ref();
                    parameter.map(|parameter| parameter.dims.clone())
                };
                for (name, hidden) in &step.prepared.hidden {
                    // What belongs to a weight that is not a parameter is made when it runs.
                    if let Some(dims) = hidden.dims(declared) {
                        self.hidden(&join(&step.path, name), &dims)?;
                    }
                }
            }
            Ok::<_, Error>(())
        })?;
        Ok(store)
    }
}

/// Finds the steps whose output goes into a ReLU and nowhere else.
fn fuse(graph: &Graph, steps: &mut [Planned], outputs: &[usize]) {
    let mut uses = vec![0usize; graph.values.len()];
    outputs.iter().for_each(|&output| uses[output] += 1);
    let mut relu = vec![None; graph.values.len()];
    for planned in steps.iter() {
        let step = &graph.steps[planned.step];
        step.inputs.iter().for_each(|&input| uses[input] += 1);
        if let ("ReLU", [input], [output]) = (step.kind.name, &step.inputs[..], &step.outputs[..]) {
            relu[*input] = Some(*output);
        }
    }
    for planned in steps {
        let step = &graph.steps[planned.step];
        if let ([output], true) = (&step.outputs[..], step.prepared.with_relu.is_some()) {
            planned.relu = relu[*output].filter(|_| uses[*output] == 1);
        }
    }
}

/// Whether a tensor of the sizes `dims` fits the declared ones, in which what is below 1 is the size of the batch: that size then,
/// as far as it is known.
fn fitting(declared: &[i64], dims: &[usize], batch: Option<usize>) -> Option<Option<usize>> {
    if declared.len() != dims.len() {
        return None;
    }
    declared.iter().zip(dims).try_fold(batch, |batch, (&declared, &size)| match usize::try_from(declared) {
        Ok(declared) if declared > 0 => (declared == size).then_some(batch),
        _ => batch.is_none_or(|batch| batch == size).then_some(Some(size)),
    })
}
