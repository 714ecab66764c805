//! One function of a network, and the code that calls it.

use super::super::Fault;
use super::super::kinds::Arguments;
use super::text;

/// A function with what it takes, as far as it is written in the file.
pub(super) struct Function<'a> {
    pub(super) kind: &'a str,
    pub(super) arguments: Arguments<'a>,
    pub(super) inputs: Vec<Operand<'a>>,
    /// The code for the size of the batch.
    pub(super) batch: &'a str,
    /// The name of an input of the network.
    pub(super) input: &'a str,
    /// The declared sizes of the first output.
    pub(super) made: &'a [i64],
    /// Whether other functions use these parameters, too.
    pub(super) shares: bool,
}

/// What a function takes.
pub(super) struct Operand<'a> {
    /// The code of a reference to it.
    pub(super) code: String,
    pub(super) parameter: Option<(&'a str, &'a [usize])>,
    pub(super) sizes: &'a [i64],
}

/// The code of a call.
pub(super) enum Code {
    /// A layer: its name, its input, arguments, options, and the scope that its own name stands in.
    Layer { callee: &'static str, input: String, given: Vec<String>, options: Options, scope: String },
    /// A function and all that it is given.
    Function { callee: String, given: Vec<String> },
    /// Any expression that gives a `Result`.
    Expression(String),
    /// The input itself.
    Same,
}

pub(super) type Options = Vec<(&'static str, String)>;

/// What a call gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gives {
    Tensor,
    Tuple,
    List,
}

impl<'a> Function<'a> {
    /// The code of the input at this place.
    pub(super) fn input(&self, place: usize) -> Result<String, Fault> {
        let found = self.inputs.get(place).map(|operand| operand.code.clone());
        found.ok_or_else(|| {
            Fault::new(format!("takes more inputs than the {} that it has", self.inputs.len()))
        })
    }

    /// `Some(..)` or `None`.
    pub(super) fn optional(&self, place: Option<usize>) -> String {
        let found = place.and_then(|place| self.inputs.get(place));
        found.map_or_else(|| "None".to_owned(), |operand| format!("Some({})", operand.code))
    }

    /// The shape of the parameter at this place.
    pub(super) fn shape(&self, place: usize) -> Option<&'a [usize]> {
        self.inputs.get(place)?.parameter.map(|(_, dims)| dims)
    }

    /// What stands before the name of the layer in the paths of its parameters, if they are at these places those of the layer
    /// `name`, and none besides. Empty if nothing does.
    pub(super) fn scope(&self, name: &str, parameters: &[(usize, &str)]) -> Option<&'a str> {
        let mut scope = None;
        for &(place, own) in parameters {
            let (path, _) = self.inputs.get(place)?.parameter?;
            let before = path.strip_suffix(own)?.strip_suffix('/')?.strip_suffix(name)?;
            let before = if before.is_empty() { before } else { before.strip_suffix('/')? };
            if scope.replace(before).is_some_and(|other| other != before) {
                return None;
            }
        }
        // What is shared needs a label.
        scope.filter(|scope| !(self.shares && scope.split('/').any(|part| !text::is_label(part))))
    }

    pub(super) fn layer(
        &self,
        callee: &'static str,
        given: Vec<String>,
        options: Options,
        scope: &str,
    ) -> Result<Code, Fault> {
        Ok(Code::Layer { callee, input: self.input(0)?, given, options, scope: scope.to_owned() })
    }

    /// A function that gets all inputs, and this besides.
    pub(super) fn function(&self, callee: &str, more: Vec<String>) -> Code {
        let given = self.inputs.iter().map(|operand| operand.code.clone()).chain(more).collect();
        Code::Function { callee: callee.to_owned(), given }
    }

    /// The number `name`, unless it is what a caller gets anyway.
    pub(super) fn number(&self, name: &'static str, usual: f64) -> Option<(&'static str, String)> {
        let number = self.arguments.number(name);
        ((number as f32).to_bits() != (usual as f32).to_bits()).then(|| (name, text::number(number)))
    }

    pub(super) fn integer(&self, name: &'static str, usual: i64) -> Option<(&'static str, String)> {
        let integer = self.arguments.integer(name);
        (integer != usual).then(|| (name, integer.to_string()))
    }

    pub(super) fn flag(&self, name: &'static str, usual: bool) -> Option<(&'static str, String)> {
        let flag = self.arguments.flag(name);
        (flag != usual).then(|| (name, flag.to_string()))
    }
}
