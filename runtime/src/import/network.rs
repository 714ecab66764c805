//! A graph as a list of nodes that can run.

use std::collections::HashMap;
use std::path::Path;

use candle_core::Tensor;

use super::call::{Call, Function};
use super::{constants, layers, maps, normalizations, quantized, recurrent, shapes};
use crate::limits::{self, brief};
use crate::network::frame::graph_step;
use crate::parameter::named_parameter;
use crate::{Error, Initializer, Result, nearest, onnx};

/// What a file computes.
pub(super) struct Plan {
    pub(super) inputs: Vec<Input>,
    /// The names and the places of the outputs.
    pub(super) outputs: Vec<(String, usize)>,
    values: Vec<Value>,
    steps: Vec<Step>,
}

/// An input of the network.
pub(super) struct Input {
    pub(super) name: String,
    /// Its shape; a size that the file does not know is 1.
    pub(super) dims: Vec<usize>,
    /// The sizes that the file knows.
    known: Vec<Option<usize>>,
    is_integer: bool,
    place: usize,
}

enum Value {
    /// From outside, or made by a node.
    Flows,
    Constant(Tensor),
    Parameter {
        path: String,
        tensor: Tensor,
        trained: bool,
    },
}

struct Step {
    node: onnx::Node,
    op: &'static str,
    function: Function,
    /// Attributes that are tensors.
    constant: Option<Tensor>,
    inputs: Vec<Option<usize>>,
    outputs: Vec<usize>,
    /// Values that nothing takes later.
    over: Vec<usize>,
}

/// The operators.
fn all() -> impl Iterator<Item = &'static (&'static str, Function)> {
    [layers::OPS, maps::OPS, normalizations::OPS, quantized::OPS, recurrent::OPS, shapes::OPS]
        .into_iter()
        .flatten()
}

fn find(name: &str) -> Result<&'static (&'static str, Function)> {
    all().find(|(op, _)| *op == name).ok_or_else(|| {
        let mut known: Vec<_> = all().map(|(op, _)| *op).collect();
        known.sort_unstable();
        let meant =
            nearest::nearest(name, known.iter().copied()).map(|name| format!(" (did you mean `{name}`?)"));
        let reason = format!("must be one of these{}: {}", meant.unwrap_or_default(), known.join(", "));
        Error::invalid("op_type", reason, brief(name))
    })
}

/// Parts that no path has go out of a name.
fn path_of(name: &str) -> String {
    name.split('/').filter(|part| !matches!(*part, "" | "." | "..")).collect::<Vec<_>>().join("/")
}

impl Plan {
    pub(super) fn new(model: onnx::Model, folder: Option<&Path>, file: &str) -> Result<Self> {
        let graph = model.graph.ok_or_else(|| Error::invalid("graph", "must be in the file", "none"))?;
        let mut values = Vec::new();
        let mut places: HashMap<String, usize> = HashMap::new();
        let not_trained = not_trained(&graph.node);
        for constant in &graph.initializer {
            let tensor = constants::tensor(constant, folder)?;
            let path = path_of(&constant.name);
            let is_parameter = tensor.dtype().is_float()
                && tensor.rank() > 0
                && !path.is_empty()
                && limits::check_path(&path).is_ok();
            let value = match is_parameter {
                true => Value::Parameter { path, tensor, trained: !not_trained.contains(&*constant.name) },
                false => Value::Constant(tensor),
            };
            declare(&mut places, &constant.name, &mut values, value)?;
        }
        let mut inputs = Vec::new();
        for info in &graph.input {
            if !places.contains_key(&info.name) {
                let place = declare(&mut places, &info.name, &mut values, Value::Flows)?;
                inputs.push(input(info, place));
            }
        }
        let types: HashMap<&str, i32> =
            graph.initializer.iter().map(|constant| (&*constant.name, constant.data_type)).collect();
        let mut steps = Vec::with_capacity(graph.node.len());
        for mut node in graph.node {
            quantized::note_type(&mut node, &types);
            let (name, op) = (brief(&node.name).into_owned(), brief(&node.op_type).into_owned());
            let step = step(node, &mut places, &mut values).map_err(|error| {
                let reason = format!("the node `{name}` ({op}): {error}");
                Error::Checkpoint { file: file.to_owned(), reason }
            })?;
            steps.push(step);
        }
        let output = |info: &onnx::ValueInfo| {
            let place = places.get(&info.name).copied();
            let missing = || Error::invalid("output", "must be made by a node", brief(&info.name));
            Ok((info.name.clone(), place.ok_or_else(missing)?))
        };
        let outputs = graph.output.iter().map(output).collect::<Result<Vec<_>>>()?;
        let mut plan = Self { inputs, outputs, values, steps };
        plan.note_last_uses();
        Ok(plan)
    }

    fn note_last_uses(&mut self) {
        let mut kept = vec![false; self.values.len()];
        self.outputs.iter().for_each(|(_, output)| kept[*output] = true);
        for step in self.steps.iter_mut().rev() {
            let mut over: Vec<usize> = step.inputs.iter().flatten().chain(&step.outputs).copied().collect();
            over.retain(|&value| !std::mem::replace(&mut kept[value], true));
            step.over = over;
        }
    }

    /// Makes the parameters in the current store.
    pub(super) fn parameters(&self) -> Result<()> {
        (0..self.values.len())
            .filter(|&place| matches!(self.values[place], Value::Parameter { .. }))
            .try_for_each(|place| self.value(place, &[]).map(drop))
    }

    /// The outputs for these inputs.
    pub(super) fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        if inputs.len() != self.inputs.len() {
            let names: Vec<_> = self.inputs.iter().map(|input| &input.name).collect();
            let reason = format!("must hold a tensor for each of {names:?}, the inputs of the network");
            return Err(Error::invalid("inputs", reason, inputs.len()));
        }
        let mut flowing: Vec<Option<Tensor>> = vec![None; self.values.len()];
        for (input, tensor) in self.inputs.iter().zip(inputs) {
            flowing[input.place] = Some(input.taken(tensor)?);
        }
        for step in &self.steps {
            let located = |error: Error| match error {
                within @ Error::InLayer { .. } => within,
                other => {
                    Error::InLayer { path: step.node.name.clone(), layer: step.op, source: Box::new(other) }
                }
            };
            self.step(step, &mut flowing).map_err(located)?;
            step.over.iter().for_each(|&value| flowing[value] = None);
        }
        self.outputs.iter().map(|&(_, output)| self.value(output, &flowing)).collect()
    }

    fn step(&self, step: &Step, flowing: &mut [Option<Tensor>]) -> Result<()> {
        let inputs =
            step.inputs.iter().map(|input| input.map(|input| self.value(input, flowing)).transpose());
        let inputs = inputs.collect::<Result<Vec<_>>>()?;
        let seen: Vec<Tensor> = inputs.iter().flatten().cloned().collect();
        let outputs = graph_step(&step.node.name, step.op, &seen, || {
            (step.function)(&Call { node: &step.node, constant: step.constant.as_ref(), inputs: &inputs })
        })?;
        if outputs.len() < step.outputs.len() {
            let reason = format!("must name at most {} results", outputs.len());
            return Err(Error::invalid("output", reason, step.outputs.len()));
        }
        for (&place, output) in step.outputs.iter().zip(outputs) {
            flowing[place] = Some(output);
        }
        Ok(())
    }

    fn value(&self, place: usize, flowing: &[Option<Tensor>]) -> Result<Tensor> {
        match &self.values[place] {
            Value::Constant(tensor) => Ok(tensor.clone()),
            Value::Parameter { path, tensor, trained } => {
                named_parameter(path, tensor.dims(), *trained, || Ok(Initializer::from(tensor.clone())))
            }
            Value::Flows => {
                let found = flowing.get(place).cloned().flatten();
                found.ok_or_else(|| Error::invalid("input", "must be made before", place))
            }
        }
    }
}

/// The constants that hold statistics, or steps of quantized layers.
fn not_trained(nodes: &[onnx::Node]) -> std::collections::HashSet<String> {
    let of = |node: &onnx::Node| match &*node.op_type {
        "BatchNormalization" => node.input.get(3..).unwrap_or_default().to_vec(),
        "DequantizeLinear" | "QuantizeLinear" => node.input.get(1..).unwrap_or_default().to_vec(),
        _ => Vec::new(),
    };
    nodes.iter().flat_map(of).collect()
}

fn declare(
    places: &mut HashMap<String, usize>,
    name: &str,
    values: &mut Vec<Value>,
    value: Value,
) -> Result<usize> {
    let place = values.len();
    if places.insert(name.to_owned(), place).is_some() {
        return Err(Error::invalid("name", "must belong to one value", brief(name)));
    }
    values.push(value);
    Ok(place)
}

fn input(info: &onnx::ValueInfo, place: usize) -> Input {
    let of_tensor = info.r#type.as_ref().and_then(|of| of.tensor_type.as_ref());
    let dims = of_tensor.and_then(|of| of.shape.as_ref()).map(|shape| &shape.dim[..]).unwrap_or_default();
    let known: Vec<_> = dims
        .iter()
        .map(|dim| match dim.value {
            Some(onnx::dimension::Value::DimValue(size)) => {
                usize::try_from(size).ok().filter(|&size| size > 0)
            }
            _ => None,
        })
        .collect();
    let is_integer = matches!(of_tensor.map(|of| of.elem_type), Some(2..=7 | 12 | 13));
    let dims = known.iter().map(|size| size.unwrap_or(1)).collect();
    Input { name: info.name.clone(), dims, known, is_integer, place }
}

impl Input {
    /// The tensor as the network takes it.
    fn taken(&self, tensor: &Tensor) -> Result<Tensor> {
        let fits = self.known.len() == tensor.rank()
            && self
                .known
                .iter()
                .zip(tensor.dims())
                .all(|(known, size)| known.is_none_or(|known| known == *size));
        if !fits && !self.known.is_empty() {
            let sizes: Vec<_> =
                self.known.iter().map(|size| size.map_or("?".to_owned(), |size| size.to_string())).collect();
            let reason = format!("must have the shape ({}) for `{}`", sizes.join(", "), brief(&self.name));
            return Err(Error::invalid("inputs", reason, tensor.dims()));
        }
        super::call::of_kind(tensor, self.is_integer)
    }
}

fn step(node: onnx::Node, places: &mut HashMap<String, usize>, values: &mut Vec<Value>) -> Result<Step> {
    if !matches!(&*node.domain, "" | "ai.onnx") {
        return Err(Error::invalid("domain", "must be that of ONNX, which is empty", brief(&node.domain)));
    }
    let &(op, function) = find(&node.op_type)?;
    let constant = node.attribute.iter().find_map(|attribute| attribute.t.as_ref());
    let constant = constant.map(|constant| constants::tensor(constant, None)).transpose()?;
    let place = |name: &String| {
        if name.is_empty() {
            return Ok(None);
        }
        let missing = || {
            Error::invalid(
                "input",
                "must be made before, by a node that does not wait for this one",
                brief(name),
            )
        };
        places.get(name).copied().map(Some).ok_or_else(missing)
    };
    let inputs = node.input.iter().map(place).collect::<Result<Vec<_>>>()?;
    let mut outputs = Vec::new();
    for (n, name) in node.output.iter().enumerate() {
        // A result that is left out in between.
        let name = if name.is_empty() { &format!("{n} of node {}", values.len()) } else { name };
        outputs.push(declare(places, name, values, Value::Flows)?);
    }
    Ok(Step { node, op, function, constant, inputs, outputs, over: Vec::new() })
}
