//! Networks as Rust code: a declaration by `network!` for the network of a file.
//!
//! Each function becomes the text of a stage (`layers.rs`, `functions.rs`); what stands behind each other and what meets again
//! becomes chains and branches (`chain.rs`); rows of equal stages become loops (`loops.rs`), and paths labels (`scopes.rs`).
//! Values that are left over, because they are taken in several places, get names.

mod chain;
mod function;
mod functions;
mod layers;
mod loops;
mod nodes;
mod print;
mod scopes;
mod stage;
mod text;

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

use super::Fault;
use super::graph::{Graph, Value};
use crate::checkpoint::definition::Message;
use chain::Node;
use function::Gives;
use nodes::Nodes;
use print::Printer;
use stage::{Stage, Step};

/// Names that the code uses for something else.
const TAKEN: [&str; 8] = ["functions", "parameter", "h", "i", "layerfn", "network", "x_", "self"];

/// The Rust code of a network; `file` is what the file is called.
pub(super) fn declare(network: &Message, file: &str) -> Result<String, Fault> {
    let graph = Graph::new(network)?;
    if graph.inputs.is_empty() || graph.outputs.is_empty() {
        return Err(Fault::new("has no input or no output, and cannot be declared"));
    }
    let names = Inputs::new(&graph);
    let Nodes { nodes, outputs, integers } = Nodes::new(network, &graph, &names)?;
    let parts = chain::reduce(nodes, graph.values.len(), &outputs);
    let mut code = Code { graph: &graph, names: names.names, taken: names.taken, steps: Vec::new() };
    code.take_callees(&parts);
    code.chain(parts, &outputs);
    let steps = scopes::label(loops::fold(std::mem::take(&mut code.steps)));
    Ok(code.text(network.text("name"), file, &steps, &outputs, &integers))
}

/// What the inputs are called.
struct Inputs {
    names: HashMap<usize, String>,
    taken: HashSet<String>,
    /// The code of the size of the batch.
    batch: String,
    /// One of them.
    first: String,
}

impl Inputs {
    fn new(graph: &Graph) -> Self {
        let mut taken: HashSet<String> = TAKEN.iter().map(|&name| name.to_owned()).collect();
        let (mut names, mut batch) = (HashMap::new(), None);
        for &input in &graph.inputs {
            let Value { name, sizes, .. } = &graph.values[input];
            let name = free(text::identifier(name), &mut taken);
            let open = sizes.iter().position(|&size| size < 1);
            batch = batch.or_else(|| open.map(|axis| format!("{name}.dim({axis})?")));
            names.insert(input, name);
        }
        let first = names[&graph.inputs[0]].clone();
        let batch = batch.unwrap_or_else(|| graph.batch_size.max(0).to_string());
        Self { names, taken, batch, first }
    }
}

/// A name that nothing else has, most like this one.
fn free(name: String, taken: &mut HashSet<String>) -> String {
    let name = if text::is_word(&name) || taken.contains(&name) { format!("{name}_out") } else { name };
    let last = format!("{name}_{}", taken.len());
    let more = (2..10).map(|n| format!("{name}_{n}")).chain([last.clone()]);
    let found = std::iter::once(name.clone()).chain(more).find(|name| !taken.contains(name)).unwrap_or(last);
    taken.insert(found.clone());
    found
}

struct Code<'a> {
    graph: &'a Graph,
    /// What values are called where they are used.
    names: HashMap<usize, String>,
    taken: HashSet<String>,
    steps: Vec<Step>,
}

impl Code<'_> {
    /// Keeps the names of functions from being those of values.
    fn take_callees(&mut self, parts: &[Node]) {
        let mut left: Vec<&Step> = parts.iter().flat_map(|node| &node.steps).collect();
        while let Some(step) = left.pop() {
            left.extend(step.stage.chains().into_iter().flatten());
            let code = match &step.stage {
                Stage::Call { callee, .. } => callee,
                Stage::Closure(code) => code,
                _ => continue,
            };
            let callee =
                code.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or_default();
            self.taken.insert(callee.to_owned());
        }
    }

    /// One chain of all parts, in which what is not used at once has a name.
    fn chain(&mut self, parts: Vec<Node>, outputs: &[usize]) {
        let mut uses = vec![0usize; self.graph.values.len()];
        outputs.iter().for_each(|&output| uses[output] += 1);
        for node in &parts {
            std::iter::once(&node.flow).chain(&node.more).for_each(|&taken| uses[taken] += 1);
        }
        let mut flowing = Some(self.graph.inputs[0]);
        let mut nodes = parts.into_iter().peekable();
        while let Some(mut node) = nodes.next() {
            self.go_to(&mut flowing, node.flow);
            self.steps.append(&mut node.steps);
            let at_once = match (nodes.peek(), outputs, node.gives) {
                (Some(next), _, Gives::Tensor) => uses[node.outputs[0]] == 1 && next.flow == node.outputs[0],
                (None, [output], Gives::Tensor) => *output == node.outputs[0],
                _ => false,
            };
            if !at_once {
                self.bind(&node);
            }
            flowing = Some(node.outputs[0]).filter(|_| node.gives == Gives::Tensor);
        }
        match outputs {
            &[output] => self.go_to(&mut flowing, output),
            outputs if outputs.len() <= 4 => {
                let all: Vec<_> = outputs.iter().map(|&output| text::value(output)).collect();
                self.steps.push(Step::new(Stage::Use(format!("({})", all.join(", ")))));
            }
            outputs => {
                if flowing.is_none() {
                    self.go_to(&mut flowing, self.graph.inputs[0]);
                }
                let all: Vec<_> =
                    outputs.iter().map(|&output| format!("Tensor::clone({})", text::value(output))).collect();
                self.steps
                    .push(Step::new(Stage::Closure(format!("Ok::<_, Error>(vec![{}])", all.join(", ")))));
            }
        }
    }

    fn go_to(&mut self, flowing: &mut Option<usize>, value: usize) {
        if flowing.replace(value) != Some(value) {
            self.steps.push(Step::new(Stage::Use(text::value(value))));
        }
    }

    /// Names what the last step gives.
    fn bind(&mut self, node: &Node) {
        let Some(step) = self.steps.last_mut() else { return };
        step.bind = Some(node.outputs[0]);
        let name = &self.graph.values[node.outputs[0]].name;
        let name = name.rsplit('/').next().unwrap_or(name);
        let name = free(text::identifier(name), &mut self.taken);
        for (n, &output) in node.outputs.iter().enumerate() {
            let code = match node.gives {
                Gives::Tensor => name.clone(),
                Gives::Tuple => format!("&{name}.{n}"),
                Gives::List => format!("&{name}[{n}]"),
            };
            self.names.insert(output, code);
        }
    }

    fn text(
        &self,
        network: &str,
        file: &str,
        steps: &[Step],
        outputs: &[usize],
        integers: &HashSet<usize>,
    ) -> String {
        let values = &self.graph.values;
        let name = |value: usize| self.names.get(&value).cloned().unwrap_or_default();
        let variable = |value: usize| {
            let code = name(value);
            code.trim_start_matches('&').split(['.', '[']).next().unwrap_or_default().to_owned()
        };
        let mut function = text::identifier(network);
        if text::is_word(&function) || self.taken.contains(&function) || function == "main" {
            function.push_str("_network");
        }
        let inputs: Vec<_> = self.graph.inputs.iter().map(|&input| name(input)).collect();
        let returns = match outputs.len() {
            1 => String::new(),
            n @ 2..=4 => format!(" -> Result<({})>", vec!["Tensor"; n].join(", ")),
            _ => " -> Result<Vec<Tensor>>".to_owned(),
        };
        let body =
            Printer { name: &name, variable: &variable }.chain(steps, ["    < ", "   -> "], 3).join("\n");
        let mut code = String::new();
        let quoted = |text: &str| format!("`{}`", text.replace(['`', '\n', '\r'], " "));
        let _ = writeln!(
            code,
            "//! The network {} of the file {}, declared by `layerfn declare`.",
            quoted(network),
            quoted(file)
        );
        code.push_str("//!\n//! | input | shape |\n//! | --- | --- |\n");
        for &input in &self.graph.inputs {
            let integer = if integers.contains(&input) { ", integers" } else { "" };
            let _ = writeln!(
                code,
                "//! | {} | {}{integer} |",
                quoted(&values[input].name),
                text::list(&values[input].sizes)
            );
        }
        let given: Vec<_> = inputs.iter().map(|input| format!("&{input}")).collect();
        let _ = write!(
            code,
            "//!\n//! -1 is the size of the batch. The parameters are those of the file:\n//!\n//! ```text\n\
             //! load_parameters({file:?})?;\n//! let y = {function}({})?;\n//! ```\n\n",
            given.join(", "),
        );
        if body.contains("functions::") {
            code.push_str("use layerfn::functions;\n");
        }
        code.push_str("use layerfn::prelude::*;\n\nnetwork! {\n");
        let made: Vec<_> = self.graph.outputs.iter().map(|&output| quoted(&values[output].name)).collect();
        match &made[..] {
            few if few.len() <= 4 => drop(writeln!(code, "    /// Gives {}.", few.join(", "))),
            many => drop(writeln!(
                code,
                "    /// Gives, in this order:\n    ///\n    /// - {}",
                many.join("\n    /// - ")
            )),
        }
        let _ = writeln!(code, "    pub fn {function}(){returns} |{}|", inputs.join(", "));
        let _ = writeln!(code, "{body} >\n}}");
        if body.contains("&parameter(") {
            code.push_str(PARAMETER);
        }
        code
    }
}

/// What gives parameters to functions that are not layers.
const PARAMETER: &str = "
/// A parameter of a function that is not a layer.
fn parameter(path: &str, shape: &[usize]) -> Result<Tensor> {
    let is_trained = layerfn::get_parameter(path).is_none_or(|parameter| parameter.need_grad());
    layerfn::get_parameter_or_create(path).shape(shape).need_grad(is_trained).call()
}
";
