//! An ONNX graph that is being written.

use std::collections::{HashMap, HashSet};

use candle_core::{DType, Device, Tensor};

use super::super::integers::Integers;
use super::super::sizes::Size;
use super::super::trace::{Flow, Traced};
use crate::onnx::{self, Attribute, Node};
use crate::told::{Argument, Origin, Step};
use crate::{Error, Result};

/// The graph as far as it is written.
pub(super) struct Graph<'a> {
    traced: &'a Traced,
    names: &'a [String],
    graph: onnx::Graph,
    taken: HashSet<String>,
    /// Parameters and constants that are written.
    written: HashSet<usize>,
    /// Lists of integers and numbers by what they hold.
    lists: HashMap<(Vec<i64>, Vec<i64>), String>,
    numbers: HashMap<u32, String>,
    batch: Option<String>,
    failed: Option<Error>,
    pub(super) integers: Option<&'a Integers>,
    /// The names of activations after they were integers, by the places of their values.
    pub(super) rounded: HashMap<usize, String>,
    /// Weights that are integers, by their places and axes.
    pub(super) weights: HashMap<(usize, Option<usize>), Weights>,
}

/// Weights that are integers.
#[derive(Clone)]
pub(super) struct Weights {
    pub(super) name: String,
    /// Their steps: one, or one for each output map.
    pub(super) scales: Vec<f32>,
}

impl<'a> Graph<'a> {
    pub(super) fn new(traced: &'a Traced, integers: Option<&'a Integers>, names: &'a [String]) -> Self {
        Self {
            traced,
            integers,
            rounded: HashMap::new(),
            weights: HashMap::new(),
            names,
            graph: onnx::Graph::default(),
            taken: names.iter().cloned().collect(),
            written: HashSet::new(),
            lists: HashMap::new(),
            numbers: HashMap::new(),
            batch: None,
            failed: None,
        }
    }

    pub(super) fn finish(self) -> Result<onnx::Graph> {
        self.failed.map_or(Ok(self.graph), Err)
    }

    /// The name of the value at this place.
    pub(super) fn name(&self, place: usize) -> &'a str {
        &self.names[place]
    }

    /// Appends a node of one result, of which the name is given.
    pub(super) fn push(
        &mut self,
        op: &str,
        inputs: &[&str],
        output: &str,
        attribute: Vec<Attribute>,
    ) -> String {
        let output = self.free(output);
        self.graph.node.push(Node {
            input: inputs.iter().map(|&input| input.to_owned()).collect(),
            output: vec![output.clone()],
            name: output.clone(),
            op_type: op.to_owned(),
            attribute,
            ..Node::default()
        });
        output
    }

    /// Appends a constant.
    pub(super) fn add(&mut self, initializer: onnx::Tensor) -> String {
        let name = self.free(&initializer.name);
        self.graph.initializer.push(onnx::Tensor { name: name.clone(), ..initializer });
        name
    }

    pub(super) fn n_nodes(&self) -> usize {
        self.graph.node.len()
    }

    fn free(&mut self, wanted: &str) -> String {
        let mut name = wanted.to_owned();
        let mut n = self.graph.node.len() + self.graph.initializer.len();
        while !self.taken.insert(name.clone()) {
            name = format!("{wanted}_{n}");
            n += 1;
        }
        name
    }

    /// The results of the nodes from `first` on get the names of these values.
    pub(super) fn named(&mut self, first: usize, results: &[String], places: &[usize]) {
        for (result, &place) in results.iter().zip(places) {
            let name = &self.names[place];
            let made = self.graph.node[first..].iter().any(|node| node.output.contains(result));
            if !made {
                self.graph.node.push(Node {
                    input: vec![result.clone()],
                    output: vec![name.clone()],
                    name: name.clone(),
                    op_type: "Identity".to_owned(),
                    ..Node::default()
                });
                continue;
            }
            for node in &mut self.graph.node[first..] {
                let renamed = node.input.iter_mut().chain(&mut node.output).chain([&mut node.name]);
                renamed.filter(|old| *old == result).for_each(|old| old.clone_from(name));
            }
        }
    }

    /// Writes the value as a constant.
    pub(super) fn constant(&mut self, place: usize) {
        if self.written.insert(place) {
            self.initializer(&self.names[place], &self.traced.values[place].tensor);
        }
    }

    /// Appends a constant; a tensor that cannot be read is told at the end.
    fn initializer(&mut self, name: &str, tensor: &Tensor) {
        match onnx::tensor(name, tensor) {
            Ok(tensor) => self.graph.initializer.push(tensor),
            Err(error) => self.failed = Some(error),
        }
    }
}

/// A function whose nodes are being written.
pub(super) struct Call<'a, 'b> {
    pub(super) graph: &'a mut Graph<'b>,
    pub(super) step: &'a Step,
}

/// What the writers of functions give: the names of the results, or nothing for a function that they do not have.
pub(super) type Written = Result<Option<Vec<String>>>;

impl Call<'_, '_> {
    pub(super) fn kind(&self) -> &'static str {
        self.step.kind
    }

    pub(super) fn n_inputs(&self) -> usize {
        self.step.inputs.len()
    }

    /// The name of the input at this place.
    pub(super) fn input(&mut self, n: usize) -> String {
        let place = self.step.inputs[n];
        if let Some(name) = self.graph.rounded.get(&place) {
            return name.clone();
        }
        if self.flow(n).is_known() {
            self.graph.constant(place);
        }
        self.graph.names[place].clone()
    }

    /// Its name alone: nothing is written.
    pub(super) fn input_name(&self, n: usize) -> &str {
        &self.graph.names[self.step.inputs[n]]
    }

    pub(super) fn flow(&self, n: usize) -> &Flow {
        &self.graph.traced.values[self.step.inputs[n]]
    }

    pub(super) fn result(&self, n: usize) -> &Flow {
        &self.graph.traced.values[self.step.outputs[n]]
    }

    /// Whether something takes the result.
    pub(super) fn is_taken(&self, n: usize) -> bool {
        let (traced, place) = (self.graph.traced, self.step.outputs[n]);
        traced.outputs.contains(&place) || traced.steps.iter().any(|step| step.inputs.contains(&place))
    }

    pub(super) fn dims(&self, n: usize) -> &[usize] {
        self.flow(n).tensor.dims()
    }

    pub(super) fn rank(&self, n: usize) -> usize {
        self.dims(n).len()
    }

    /// The input as a tensor, if it follows from parameters alone.
    pub(super) fn known(&self, n: usize) -> Result<Tensor> {
        match &self.flow(n).origin {
            Origin::Parameter(_) | Origin::Constant => {
                Ok(self.flow(n).tensor.to_device(&Device::Cpu)?.to_dtype(DType::F32)?)
            }
            Origin::Input | Origin::Made => {
                let reason =
                    format!("must have parameters as weights to be `{}` in an ONNX file", self.step.kind);
                Err(Error::invalid("function", reason, self.dims(n)))
            }
        }
    }

    fn argument(&self, name: &str) -> Option<&Argument> {
        self.step.arguments.iter().find(|(other, _)| *other == name).map(|(_, argument)| argument)
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        self.argument(name) == Some(&Argument::Flag(true))
    }

    pub(super) fn integer(&self, name: &str) -> i64 {
        match self.argument(name) {
            Some(Argument::Integer(value)) => *value,
            _ => 0,
        }
    }

    pub(super) fn number(&self, name: &str) -> f64 {
        match self.argument(name) {
            Some(Argument::Number(value)) => *value,
            Some(Argument::Integer(value)) => *value as f64,
            _ => 0.0,
        }
    }

    pub(super) fn text(&self, name: &str) -> &'static str {
        match self.argument(name) {
            Some(Argument::Text(value)) => value,
            _ => "",
        }
    }

    pub(super) fn integers(&self, name: &str) -> Vec<i64> {
        match self.argument(name) {
            Some(Argument::Integers(values)) => values.clone(),
            _ => Vec::new(),
        }
    }

    /// A node of one result.
    pub(super) fn node(&mut self, op: &str, inputs: &[&str], attributes: Vec<Attribute>) -> String {
        self.nodes(op, inputs, attributes, 1).remove(0)
    }

    pub(super) fn nodes(
        &mut self,
        op: &str,
        inputs: &[&str],
        attribute: Vec<Attribute>,
        n: usize,
    ) -> Vec<String> {
        let hint = match self.step.scope.is_empty() {
            true => format!("_{op}"),
            false => format!("{}/_{op}", self.step.scope),
        };
        let output: Vec<_> = (0..n).map(|_| self.graph.free(&hint)).collect();
        let input = inputs.iter().map(|&input| input.to_owned()).collect();
        let (name, op_type) = (output[0].clone(), op.to_owned());
        self.graph.graph.node.push(Node {
            input,
            output: output.clone(),
            name,
            op_type,
            attribute,
            ..Node::default()
        });
        output
    }

    /// A constant tensor.
    pub(super) fn tensor(&mut self, hint: &str, tensor: &Tensor) -> String {
        let name = match self.step.scope.is_empty() {
            true => format!("_{hint}"),
            false => format!("{}/_{hint}", self.step.scope),
        };
        let name = self.graph.free(&name);
        self.graph.initializer(&name, tensor);
        name
    }

    pub(super) fn constant(&mut self, initializer: onnx::Tensor) -> String {
        self.graph.add(initializer)
    }

    /// A number, as a scalar.
    pub(super) fn scalar(&mut self, value: f64) -> String {
        let value = value as f32;
        if let Some(name) = self.graph.numbers.get(&value.to_bits()) {
            return name.clone();
        }
        let name = self.constant(onnx::floats("_number", &[], &[value]));
        self.graph.numbers.insert(value.to_bits(), name.clone());
        name
    }

    /// A list of integers.
    pub(super) fn list(&mut self, values: &[i64]) -> String {
        self.integers_of(&[values.len() as i64], values)
    }

    pub(super) fn integers_of(&mut self, dims: &[i64], values: &[i64]) -> String {
        let key = (dims.to_vec(), values.to_vec());
        if let Some(name) = self.graph.lists.get(&key) {
            return name.clone();
        }
        let name = self.constant(onnx::integers("_list", dims, values));
        self.graph.lists.insert(key, name.clone());
        name
    }

    /// `x` in the shape of these sizes.
    pub(super) fn reshaped(&mut self, x: &str, sizes: &[Size]) -> String {
        let n_open = sizes.iter().filter(|&&size| size < 0).count();
        let shape = match n_open {
            0 | 1 => {
                let sizes: Vec<_> = sizes.iter().map(|&size| size.max(-1)).collect();
                self.list(&sizes)
            }
            _ => self.shape(sizes),
        };
        self.node("Reshape", &[x, &shape], vec![onnx::int("allowzero", 1)])
    }

    /// The sizes as a list, of which some follow from the first input of the network.
    pub(super) fn shape(&mut self, sizes: &[Size]) -> String {
        if sizes.iter().all(|&size| size >= 0) {
            return self.list(sizes);
        }
        let batch = self.batch();
        let parts: Vec<String> = sizes
            .iter()
            .map(|&size| match size {
                -1 => batch.clone(),
                size if size < 0 => {
                    let times = self.list(&[-size]);
                    self.node("Mul", &[&batch, &times], Vec::new())
                }
                size => self.list(&[size]),
            })
            .collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        self.node("Concat", &parts, vec![onnx::int("axis", 0)])
    }

    fn batch(&mut self) -> String {
        if let Some(batch) = &self.graph.batch {
            return batch.clone();
        }
        let x = self.graph.names[self.graph.traced.inputs[0]].clone();
        let batch = self.node("Shape", &[&x], vec![onnx::int("start", 0), onnx::int("end", 1)]);
        self.graph.batch = Some(batch.clone());
        batch
    }

    /// The same elements with a number as the other operand.
    pub(super) fn with_number(&mut self, op: &str, x: &str, number: f64) -> String {
        let number = self.scalar(number);
        self.node(op, &[x, &number], Vec::new())
    }

    pub(super) fn cast(&mut self, x: &str, to: i32) -> String {
        self.node("Cast", &[x], vec![onnx::int("to", i64::from(to))])
    }
}
