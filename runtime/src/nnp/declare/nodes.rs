//! The functions of a network, each as the code of a stage.

use std::collections::{HashMap, HashSet};

use super::super::Fault;
use super::super::graph::{Graph, makers, order};
use super::super::kinds::{self, Arguments};
use super::super::unroll::{self, Does, unroll};
use super::chain::Node;
use super::function::{Code, Function, Gives, Operand};
use super::stage::{Join, Stage, Step};
use super::text::{self, FLOW};
use super::{Inputs, functions, layers};
use crate::checkpoint::definition::Message;

/// All functions that depend on an input, in an order in which they can run.
pub(super) struct Nodes {
    pub(super) nodes: Vec<Node>,
    /// The values that the network gives.
    pub(super) outputs: Vec<usize>,
    /// Inputs that are taken as integers.
    pub(super) integers: HashSet<usize>,
}

impl Nodes {
    pub(super) fn new(network: &Message, graph: &Graph, names: &Inputs) -> Result<Self, Fault> {
        let unrolled = unroll(network)?;
        let maker = makers(&unrolled, &graph.values)?;
        let order = order(&unrolled, &maker)?;
        let mut reading = Reading {
            graph,
            names,
            same: HashMap::new(),
            inline: HashMap::new(),
            users: users(&unrolled.functions, graph),
            integers: HashSet::new(),
        };
        let mut nodes = Vec::with_capacity(order.len());
        for place in order {
            let function = &unrolled.functions[place];
            let node = reading.function(function);
            nodes.extend(
                node.map_err(|fault| fault.of_function(&function.name, function.definition.text("type")))?,
            );
        }
        let outputs: Vec<_> = graph.outputs.iter().map(|&output| reading.place(output)).collect();
        if outputs.iter().any(|output| reading.inline.contains_key(output)) {
            return Err(Fault::new("has an output that no input has to do with, and cannot be declared"));
        }
        Ok(Self { nodes, outputs, integers: reading.integers })
    }
}

/// How long the code for a value may be that no input has to do with.
const LONGEST: usize = 1 << 12;

/// How many functions take each parameter.
fn users(functions: &[unroll::Function<'_>], graph: &Graph) -> HashMap<usize, usize> {
    let mut users = HashMap::new();
    let taken = functions.iter().flat_map(|function| &function.inputs);
    taken.filter(|&&input| graph.values[input].parameter.is_some()).for_each(|&input| {
        *users.entry(input).or_default() += 1;
    });
    users
}

struct Reading<'a> {
    graph: &'a Graph,
    names: &'a Inputs,
    /// Values that are others.
    same: HashMap<usize, usize>,
    /// Values that depend on no input, as code.
    inline: HashMap<usize, String>,
    users: HashMap<usize, usize>,
    integers: HashSet<usize>,
}

impl Reading<'_> {
    fn place(&self, value: usize) -> usize {
        self.same.get(&value).copied().unwrap_or(value)
    }

    /// The code of a reference to what a function takes.
    fn code(&mut self, kind: &kinds::Kind, n: usize, value: usize) -> Result<String, Fault> {
        let wanted = kind.takes_integers(n);
        if let Some(parameter) = &self.graph.values[value].parameter {
            let name = &self.graph.values[value].name;
            if text::has_marks(name) {
                return Err(Fault::new("takes a parameter with control characters in its path"));
            }
            return Ok(format!("&parameter({}, &{})?", text::path(name), text::list(&parameter.dims)));
        }
        if let Some(code) = self.inline.get(&value) {
            return Ok(format!("&{code}"));
        }
        if self.names.names.contains_key(&value) {
            if wanted {
                self.integers.insert(value);
            } else if self.integers.contains(&value) {
                return Ok(format!("&{}.to_dtype(DType::F32)?", text::value(value)));
            }
        } else if wanted {
            return Ok(format!("&{}.to_dtype(DType::I64)?", text::value(value)));
        }
        Ok(text::value(value))
    }

    fn function(&mut self, function: &unroll::Function<'_>) -> Result<Option<Node>, Fault> {
        let definition = function.definition;
        let kind = match function.does {
            Does::AsDefined => kinds::find(definition.text("type"))?,
            _ => kinds::find("Identity")?,
        };
        let places: Vec<_> = function.inputs.iter().map(|&input| self.place(input)).collect();
        if function.does == Does::Identity {
            return Ok(self.identity(places[0], function.outputs[0]));
        }
        let mut inputs = Vec::with_capacity(places.len());
        for (n, &place) in places.iter().enumerate() {
            let code = self.code(kind, n, place)?;
            let value = &self.graph.values[place];
            let parameter = value.parameter.as_ref();
            let parameter = parameter.map(|parameter| (value.name.as_str(), &parameter.dims[..]));
            inputs.push(Operand { code, parameter, sizes: &value.sizes });
        }
        let arguments = Arguments::new(definition.arguments(), places.len(), function.outputs.len());
        let shares = places.iter().any(|place| self.users.get(place).is_some_and(|&users| users > 1));
        let of = Function {
            kind: definition.text("type"),
            arguments,
            inputs,
            batch: &self.names.batch,
            input: &self.names.first,
            made: &self.graph.values[function.outputs[0]].sizes,
            shares,
        };
        let (code, gives) = match layers::code(&of)? {
            Some(found) => found,
            None => functions::code(&of)?,
        };
        if let Code::Same = code {
            return Ok(self.identity(places[0], function.outputs[0]));
        }
        let flows =
            |place: &usize| !self.inline.contains_key(place) && self.graph.values[*place].parameter.is_none();
        let flowing: Vec<usize> = places.iter().copied().filter(flows).collect();
        let Some(&first) = flowing.first() else {
            let code = format!("{}?", called(code));
            if gives != Gives::Tensor {
                return Err(Fault::new(
                    "gives several values that no input has to do with, and cannot be declared",
                ));
            }
            if code.len() > LONGEST {
                return Err(Fault::new("is made of too many functions of parameters to be declared"));
            }
            self.inline.insert(function.outputs[0], code);
            return Ok(None);
        };
        let join = join(&of, &places).filter(|_| flowing.len() == places.len());
        let is_layer = of.inputs.iter().any(|operand| operand.parameter.is_some());
        let (step, flow) = step(code, first, is_layer, shares);
        let mut more = Vec::new();
        if join.is_none() {
            more.extend(flowing.iter().copied().filter(|&value| value != flow));
        }
        Ok(Some(Node {
            steps: vec![step],
            flow,
            more,
            outputs: function.outputs.clone(),
            gives,
            depth: 0,
            join: join.map(|join| (join, places)),
        }))
    }

    fn identity(&mut self, input: usize, output: usize) -> Option<Node> {
        if let Some(code) = self.inline.get(&input) {
            self.inline.insert(output, code.clone());
        } else if self.graph.values[input].parameter.is_some() {
            let name = &self.graph.values[input].name;
            let dims =
                self.graph.values[input].parameter.as_ref().map(|parameter| text::list(&parameter.dims));
            self.inline
                .insert(output, format!("parameter({}, &{})?", text::path(name), dims.unwrap_or_default()));
        } else {
            self.same.insert(output, input);
        }
        None
    }
}

/// The code as a call that stands alone.
fn called(code: Code) -> String {
    match code {
        Code::Layer { callee, input, given, options, scope } => {
            let given: Vec<_> = std::iter::once(input).chain(given).collect();
            let options: String = options.iter().map(|(name, value)| format!(".{name}({value})")).collect();
            let name =
                if scope.is_empty() { String::new() } else { format!(".name({})", text::path(&scope)) };
            format!("{callee}({}){options}{name}.call()", given.join(", "))
        }
        Code::Function { callee, given } => format!("{callee}({})", given.join(", ")),
        Code::Expression(code) => code,
        Code::Same => String::new(),
    }
}

/// The stage that the code is, and what flows through it; `first` is the first input that may.
fn step(code: Code, first: usize, is_layer: bool, shared: bool) -> (Step, usize) {
    let mark = text::value(first);
    let has = |text: &String| text.contains(&mark) || text::paths(text).next().is_some();
    match code {
        Code::Layer { callee, input, given, options, scope }
            if input == mark && !given.iter().any(has) && !options.iter().any(|(_, value)| has(value)) =>
        {
            let stage = Stage::Call { callee: callee.to_owned(), given, options, is_layer };
            let scope = scope.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
            (Step { scope, shared, ..Step::new(stage) }, first)
        }
        Code::Function { callee, given } if given.first() == Some(&mark) && !given[1..].iter().any(has) => {
            let stage =
                Stage::Call { callee, given: given[1..].to_vec(), options: Vec::new(), is_layer: false };
            (Step::new(stage), first)
        }
        code => (Step::new(Stage::Closure(called(code).replace(&mark, &FLOW.to_string()))), first),
    }
}

/// Whether the function joins branches.
fn join(of: &Function<'_>, places: &[usize]) -> Option<Join> {
    let distinct: HashSet<_> = places.iter().collect();
    if places.len() < 2
        || distinct.len() < places.len()
        || of.inputs.iter().any(|operand| operand.code.contains("?"))
    {
        return None;
    }
    let sizes = || of.inputs.iter().map(|operand| operand.sizes);
    let first = of.inputs[0].sizes;
    let known = sizes().all(|sizes| !sizes.is_empty());
    match of.kind {
        "Add2" | "AddN" if known && sizes().all(|sizes| sizes == first) => Some(Join::Add),
        "Mul2" if known && sizes().all(|sizes| sizes.len() == first.len()) => Some(Join::Mul),
        "Concatenate" => {
            let axis = of.arguments.integer("axis");
            let axis = if axis < 0 && known { axis + first.len() as i64 } else { axis };
            (axis >= 0).then_some(Join::Concat(axis))
        }
        _ => None,
    }
}
