//! A network as an `.nnp`.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use candle_core::{DType, Device, Var};

use super::sizes::Size;
use super::trace::Traced;
use crate::checkpoint::Checkpoint;
use crate::checkpoint::definition::{self, Message, Value};
use crate::told::{Argument, Origin, Step};
use crate::{Error, Parameter, ParameterStore, Parameters, Result};

/// The name of the network and of the executor in the file.
const NETWORK: &str = "main";
const EXECUTOR: &str = "runtime";

/// Functions whose results behind the first may be left out.
const OF_ONE: [&str; 7] = [
    "GroupNormalization",
    "InstanceNormalization",
    "LayerNormalization",
    "Max",
    "Min",
    "Sort",
    "SpectralNorm",
];

/// Writes the network with its parameters.
pub(super) fn save(traced: &Traced, store: &ParameterStore, path: &Path) -> Result<()> {
    let is_open = traced.is_open && traced.steps.iter().all(keeps_batch);
    let names = names(traced);
    let writer = Writer { traced, names: &names, is_open };
    let text = definition::to_text(&writer.file()?);
    Checkpoint::from_parameters(&writer.parameters(store)?)?.save_with_definition(path, &text)
}

/// Whether NNabla can compute the shapes of the function for a batch of any size: -1 stands for that at the head of a shape.
fn keeps_batch(step: &Step) -> bool {
    step.arguments.iter().all(|(_, argument)| match argument {
        Argument::Integers(sizes) if is_shape(step.kind) => {
            sizes.first().is_none_or(|&size| size >= -1) && sizes.iter().skip(1).all(|&size| size >= 0)
        }
        _ => true,
    })
}

fn is_shape(kind: &str) -> bool {
    matches!(kind, "Broadcast" | "Constant" | "OneHot" | "Reshape")
}

/// Names for the values that differ from each other.
pub(super) fn names(traced: &Traced) -> Vec<String> {
    let mut names = vec![String::new(); traced.values.len()];
    let mut taken = HashSet::new();
    for (name, value) in names.iter_mut().zip(&traced.values) {
        if let Origin::Parameter(path) = &value.origin {
            name.clone_from(path);
            taken.insert(path.clone());
        }
    }
    let mut number = HashMap::new();
    let mut free = |wanted: String| {
        let mut name = wanted.clone();
        while !taken.insert(name.clone()) {
            let n = number.entry(wanted.clone()).or_insert(1);
            *n += 1;
            name = format!("{wanted}_{n}");
        }
        name
    };
    for (places, of_one, of_many) in [(&traced.inputs, "x", "x"), (&traced.outputs, "y", "y")] {
        for (n, &place) in places.iter().enumerate() {
            let wanted = if places.len() == 1 { of_one.to_owned() } else { format!("{of_many}{}", n + 1) };
            names[place] = free(wanted);
        }
    }
    for step in &traced.steps {
        let wanted = if step.scope.is_empty() {
            step.kind.to_owned()
        } else {
            format!("{}/{}", step.scope, step.kind)
        };
        for &output in step.outputs.iter().filter(|&&output| !traced.outputs.contains(&output)) {
            names[output] = free(wanted.clone());
        }
    }
    for (name, value) in names.iter_mut().zip(&traced.values) {
        if value.origin == Origin::Constant {
            *name = free("constant".to_owned());
        }
    }
    names
}

struct Writer<'a> {
    traced: &'a Traced,
    names: &'a [String],
    is_open: bool,
}

impl Writer<'_> {
    fn file(&self) -> Result<Message> {
        let mut file = Message::named("NNablaProtoBuf");
        file.set("version", Value::Text("layerfn".into()));
        file.set("network", self.network()?.into());
        file.set("executor", self.executor().into());
        Ok(file)
    }

    /// The values that steps or the executor name, in order.
    fn used(&self) -> Vec<usize> {
        let steps = self.traced.steps.iter();
        let mut used: Vec<usize> = self.traced.inputs.clone();
        used.extend(steps.flat_map(|step| step.inputs.iter().chain(&step.outputs)));
        used.sort_unstable();
        used.dedup();
        used
    }

    fn network(&self) -> Result<Message> {
        let mut network = Message::named("Network");
        network.set("name", text(NETWORK));
        network.set("batch_size", Value::Integer(self.traced.batch));
        for place in self.used() {
            let flow = &self.traced.values[place];
            let is_parameter = flow.is_known();
            let mut variable = Message::named("Variable");
            variable.set("name", text(&self.names[place]));
            variable.set("type", text(if is_parameter { "Parameter" } else { "Buffer" }));
            variable.set("shape", self.shape(&flow.sizes));
            network.set("variable", variable.into());
        }
        let mut taken = HashSet::new();
        for step in &self.traced.steps {
            let mut name = self.names[step.outputs[0]].clone();
            while !taken.insert(name.clone()) {
                name.push('_');
            }
            network.set("function", self.function(step, &name)?.into());
        }
        Ok(network)
    }

    fn shape(&self, sizes: &[Size]) -> Value {
        let mut shape = Message::named("Shape");
        for (axis, &size) in sizes.iter().enumerate() {
            let size = match size {
                -1 if self.is_open && axis == 0 => -1,
                size if size < 0 => -size * self.traced.batch,
                size => size,
            };
            shape.set("dim", Value::Integer(size));
        }
        shape.into()
    }

    fn function(&self, step: &Step, name: &str) -> Result<Message> {
        let mut function = Message::named("Function");
        function.set("name", text(name));
        function.set("type", text(step.kind));
        for &input in &step.inputs {
            function.set("input", text(&self.names[input]));
        }
        let only =
            OF_ONE.contains(&step.kind) && !step.outputs[1..].iter().any(|&output| self.is_taken(output));
        for &output in if only { &step.outputs[..1] } else { &step.outputs } {
            function.set("output", text(&self.names[output]));
        }
        let Some((field, of)) = Message::arguments_of("Function", step.kind) else {
            if step.arguments.is_empty() {
                return Ok(function);
            }
            let reason = format!("must not be `{}`, which NNabla does not have", step.kind);
            return Err(Error::invalid("function", reason, &step.scope));
        };
        let mut arguments = Message::named(of);
        for (name, argument) in &step.arguments {
            let value = match (*name, argument) {
                ("with_index" | "output_u", Argument::Flag(_)) if only => Value::Boolean(false),
                (_, Argument::Flag(value)) => Value::Boolean(*value),
                (_, Argument::Integer(value)) => Value::Integer(*value),
                (_, Argument::Number(value)) => Value::Number(*value),
                (_, Argument::Text(value)) => text(value),
                (name, Argument::Integers(values)) if arguments.is_message(name) => {
                    arguments.set(name, self.shape(values));
                    continue;
                }
                (name, Argument::Integers(values)) => {
                    values.iter().for_each(|&value| arguments.set(name, Value::Integer(value)));
                    continue;
                }
            };
            if arguments.has_field(name) {
                arguments.set(name, value);
            }
        }
        function.set(field, arguments.into());
        Ok(function)
    }

    fn is_taken(&self, place: usize) -> bool {
        self.traced.outputs.contains(&place)
            || self.traced.steps.iter().any(|step| step.inputs.contains(&place))
    }

    fn executor(&self) -> Message {
        let mut executor = Message::named("Executor");
        executor.set("name", text(EXECUTOR));
        executor.set("network_name", text(NETWORK));
        executor.set("num_evaluations", Value::Integer(1));
        executor.set("repeat_evaluation_type", text("mean"));
        for (field, of, places) in [
            ("data_variable", "DataVariable", &self.traced.inputs),
            ("output_variable", "OutputVariable", &self.traced.outputs),
        ] {
            for &place in places {
                let mut variable = Message::named(of);
                variable.set("variable_name", text(&self.names[place]));
                variable.set("data_name", text(&self.names[place]));
                executor.set(field, variable.into());
            }
        }
        for place in self.used() {
            if self.traced.values[place].is_known() {
                let mut variable = Message::named("ParameterVariable");
                variable.set("variable_name", text(&self.names[place]));
                executor.set("parameter_variable", variable.into());
            }
        }
        executor
    }

    fn parameters(&self, store: &ParameterStore) -> Result<Parameters> {
        let mut parameters = Vec::new();
        for place in self.used() {
            let flow = &self.traced.values[place];
            let need_grad = match &flow.origin {
                Origin::Parameter(path) => store.get(path).is_some_and(|parameter| parameter.need_grad()),
                Origin::Constant => false,
                Origin::Input | Origin::Made => continue,
            };
            let tensor = flow.tensor.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.contiguous()?;
            let parameter = Parameter::new(Var::from_tensor(&tensor.copy()?)?, need_grad);
            parameters.push((self.names[place].clone(), parameter));
        }
        Ok(parameters.into_iter().collect())
    }
}

fn text(text: &str) -> Value {
    Value::Text(text.into())
}
