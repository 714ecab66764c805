//! A network as a list of steps: loops unrolled, arguments read, in an order in which everything is made before it is used.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::kinds::{self, Arguments, Kind, Prepared};
use super::unroll::{Does, Function, Unrolled, unroll};
use super::{Fault, Initial};
use crate::checkpoint::definition::Message;
use crate::limits::{self, brief};

/// A network that can run.
pub(super) struct Graph {
    pub(super) values: Vec<Value>,
    /// In the order in which they run.
    pub(super) steps: Vec<Step>,
    /// Values that come from outside, in the order of the file.
    pub(super) inputs: Vec<usize>,
    /// Values that no function takes, in the order of the file.
    pub(super) outputs: Vec<usize>,
    /// What stands for -1 where no input says another size.
    pub(super) batch_size: i64,
}

/// What flows along the edges.
pub(super) struct Value {
    pub(super) name: String,
    /// As declared: below 1 stands for the size of the batch.
    pub(super) sizes: Vec<i64>,
    pub(super) parameter: Option<Parameter>,
    /// The shape that a loop gives to what enters it, where it enters one.
    pub(super) in_loop: Option<Vec<i64>>,
}

impl Value {
    /// The shape that an executor gives to an input: that of the loop which begins with it, if one does.
    pub(super) fn entering(&self) -> &[i64] {
        self.in_loop.as_deref().unwrap_or(&self.sizes)
    }
}

/// A variable that is a parameter.
pub(super) struct Parameter {
    pub(super) dims: Vec<usize>,
    pub(super) initial: Initial,
    /// Whether a function writes to it, as to running statistics.
    pub(super) state: bool,
}

/// A function of the network.
pub(super) struct Step {
    /// Where its parameters lie; its name if it has none.
    pub(super) path: String,
    pub(super) kind: &'static Kind,
    pub(super) prepared: Prepared,
    pub(super) inputs: Vec<usize>,
    pub(super) outputs: Vec<usize>,
}

impl Graph {
    pub(super) fn new(network: &Message) -> Result<Self, Fault> {
        let unrolled = unroll(network)?;
        let mut values = unrolled.variables.iter().map(value).collect::<Result<Vec<_>, _>>()?;
        let maker = makers(&unrolled, &values)?;
        let order = order(&unrolled, &maker)?;
        let mut taken = vec![false; values.len()];
        let mut steps = Vec::with_capacity(order.len());
        for place in order {
            let function = &unrolled.functions[place];
            let step = step(function, &mut values)
                .map_err(|fault| fault.of_function(&function.name, function.definition.text("type")))?;
            step.inputs.iter().for_each(|&input| taken[input] = true);
            steps.push(step);
        }
        let of = |wanted: bool| {
            let (maker, taken, values) = (&maker, &taken, &values);
            (0..values.len())
                .filter(move |&n| values[n].parameter.is_none())
                .filter(move |&n| maker[n].is_some() == wanted && taken[n] != wanted)
                .collect()
        };
        let (inputs, outputs) = (of(false), of(true));
        Ok(Self { inputs, outputs, values, steps, batch_size: network.integer("batch_size") })
    }

    /// The place of the value `name`.
    pub(super) fn place(&self, name: &str) -> Option<usize> {
        self.values.iter().position(|value| value.name == name)
    }
}

fn value(variable: &super::unroll::Variable<'_>) -> Result<Value, Fault> {
    let (name, definition) = (&variable.name, variable.definition);
    let sizes = definition.sizes("shape");
    let fault = |reason: String| Fault::new(format!("the variable `{}` {reason}", brief(name)));
    let parameter = match definition.text("type") {
        "Buffer" => None,
        "Parameter" => Some(parameter(name, &sizes, definition).map_err(|fault_of| fault(fault_of.0))?),
        other => return Err(fault(format!("is of type {other:?}; there are \"Buffer\" and \"Parameter\""))),
    };
    Ok(Value { name: name.clone(), sizes, parameter, in_loop: None })
}

fn parameter(name: &str, sizes: &[i64], definition: &Message) -> Result<Parameter, Fault> {
    limits::check_path(name).map_err(Fault::new)?;
    limits::check_rank(sizes.len()).map_err(Fault::new)?;
    if name.split('/').any(str::is_empty) {
        return Err(Fault::new("has an empty part in its name, which no parameter can have"));
    }
    let dims = sizes.iter().map(|&size| usize::try_from(size)).collect::<Result<Vec<_>, _>>();
    let dims =
        dims.map_err(|_| Fault::new(format!("has the shape {sizes:?}, which no parameter can have")))?;
    let initial = Initial::new(definition.message("initializer"))?;
    Ok(Parameter { dims, initial, state: false })
}

/// The function that makes each variable, if one does.
pub(super) fn makers(unrolled: &Unrolled<'_>, values: &[Value]) -> Result<Vec<Option<usize>>, Fault> {
    let mut maker = vec![None; values.len()];
    for (n, function) in unrolled.functions.iter().enumerate() {
        for &output in &function.outputs {
            let name = brief(&values[output].name);
            if values[output].parameter.is_some() {
                return Err(Fault::new(format!("`{}` makes the parameter `{name}`", brief(&function.name))));
            }
            if let Some(first) = maker[output].replace(n) {
                let (first, second) = (&unrolled.functions[first].name, &function.name);
                return Err(Fault::new(format!(
                    "`{}` and `{}` both make `{name}`",
                    brief(first),
                    brief(second)
                )));
            }
        }
    }
    Ok(maker)
}

/// An order in which what a function takes is made before; that of the file where it can be.
pub(super) fn order(unrolled: &Unrolled<'_>, maker: &[Option<usize>]) -> Result<Vec<usize>, Fault> {
    let functions = &unrolled.functions;
    let makers_of = |function: &Function<'_>| {
        let mut makers: Vec<_> = function.inputs.iter().filter_map(|&input| maker[input]).collect();
        makers.sort_unstable();
        makers.dedup();
        makers
    };
    let mut waits_for: Vec<usize> = Vec::with_capacity(functions.len());
    let mut users: Vec<Vec<usize>> = vec![Vec::new(); functions.len()];
    for (n, function) in functions.iter().enumerate() {
        let makers = makers_of(function);
        makers.iter().for_each(|&maker| users[maker].push(n));
        waits_for.push(makers.len());
    }
    let mut ready: BinaryHeap<_> =
        waits_for.iter().enumerate().filter(|(_, count)| **count == 0).map(|(n, _)| Reverse(n)).collect();
    let mut order = Vec::with_capacity(functions.len());
    while let Some(Reverse(next)) = ready.pop() {
        order.push(next);
        for &user in &users[next] {
            waits_for[user] -= 1;
            if waits_for[user] == 0 {
                ready.push(Reverse(user));
            }
        }
    }
    match waits_for.iter().position(|&count| count > 0) {
        None => Ok(order),
        Some(stuck) => Err(Fault::new(format!(
            "{} functions wait for each other in a circle; `{}` is one of them or behind them",
            functions.len() - order.len(),
            brief(&functions[stuck].name)
        ))),
    }
}

fn step(function: &Function<'_>, values: &mut [Value]) -> Result<Step, Fault> {
    let definition = function.definition;
    let (kind, prepared) = match function.does {
        Does::AsDefined => {
            let kind = kinds::find(definition.text("type"))?;
            let arguments =
                Arguments::new(definition.arguments(), function.inputs.len(), function.outputs.len());
            kind.check(function.inputs.len(), function.outputs.len())?;
            (kind, (kind.prepare)(&arguments))
        }
        Does::Identity => kinds::identity()?,
        Does::Split(axis) => kinds::split(axis),
        Does::Stack(axis) => kinds::stack(axis),
    };
    let prepared = prepared?;
    if function.does == Does::Identity {
        enter_loop(function, values);
    }
    for &written in &prepared.state {
        if let Some(parameter) =
            function.inputs.get(written).and_then(|&input| values[input].parameter.as_mut())
        {
            parameter.state = true;
        }
    }
    let of_parameter = function.inputs.iter().find(|&&input| values[input].parameter.is_some());
    let path = of_parameter.and_then(|&input| values[input].name.rsplit_once('/')).map(|(path, _)| path);
    Ok(Step {
        path: path.unwrap_or(&function.name).to_owned(),
        kind,
        prepared,
        inputs: function.inputs.clone(),
        outputs: function.outputs.clone(),
    })
}

/// Notes the shape that the loop declares for what enters it.
fn enter_loop(function: &Function<'_>, values: &mut [Value]) {
    if let ([input], [output]) = (&function.inputs[..], &function.outputs[..])
        && values[*input].parameter.is_none()
    {
        let sizes = values[*output].in_loop.clone().unwrap_or_else(|| values[*output].sizes.clone());
        if !sizes.is_empty() {
            values[*input].in_loop.get_or_insert(sizes);
        }
    }
}
