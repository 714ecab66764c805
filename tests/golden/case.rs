//! An entry of the manifest.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::support::compare::Tolerance;
use crate::support::fixtures::Tensors;

#[derive(Deserialize)]
pub(crate) struct Case {
    pub(crate) file: String,
    pub(crate) function: String,
    #[serde(default)]
    pub(crate) scope: Vec<String>,
    #[serde(default)]
    pub(crate) args: Map<String, Value>,
    pub(crate) inputs: Vec<Input>,
    pub(crate) calls: Option<Vec<Call>>,
    #[serde(default)]
    pub(crate) preset: Vec<String>,
    pub(crate) outputs: Vec<Vec<usize>>,
    pub(crate) parameters: Vec<Parameter>,
    #[serde(default = "one")]
    pub(crate) passes: usize,
    #[serde(default)]
    pub(crate) check: Check,
    #[serde(default)]
    pub(crate) exact: Vec<String>,
    pub(crate) tolerance: Tolerance,
    pub(crate) relative_error: Option<f64>,
}

#[derive(Deserialize)]
pub(crate) struct Input {
    pub(crate) arg: String,
    #[serde(default)]
    pub(crate) need_grad: bool,
}

/// One of several calls in a graph: which input goes to which argument, and the arguments that differ.
#[derive(Deserialize)]
pub(crate) struct Call {
    pub(crate) inputs: Map<String, Value>,
    #[serde(default)]
    pub(crate) args: Map<String, Value>,
}

#[derive(Deserialize)]
pub(crate) struct Parameter {
    pub(crate) path: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) need_grad: bool,
    pub(crate) receives_grad: bool,
    pub(crate) origin: Origin,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Origin {
    /// A value drawn by the generator.
    Set,
    /// Left as the function registered it.
    Function,
    /// Registered before the call.
    Preset,
}

#[derive(Clone, Copy, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Check {
    #[default]
    Standard,
    Svd,
    Cpd,
    InqRandom,
}

fn one() -> usize {
    1
}

impl Case {
    /// Prefix of the names of tensors that belong to a pass, counted from 1.
    pub(crate) fn prefix(&self, pass: usize) -> String {
        if self.passes > 1 { format!("pass{pass}.") } else { String::new() }
    }

    /// Name of `what` for the output `index`.
    pub(crate) fn of_output(&self, what: &str, index: usize) -> String {
        if self.outputs.len() == 1 { what.to_owned() } else { format!("{what}.{index}") }
    }

    /// How `tensor` is to be compared.
    pub(crate) fn tolerance(&self, tensor: &str) -> Option<Tolerance> {
        if self.exact.iter().any(|name| name == tensor) { None } else { Some(self.tolerance) }
    }

    /// Whether the layer itself must give the parameter its recorded first value: what it starts with is not drawn,
    /// and not one of the starts in which NNabla has changed since its documentation.
    pub(crate) fn made_by_layer(&self, parameter: &Parameter) -> bool {
        let given = |argument: &str| self.args.contains_key(argument);
        parameter.origin == Origin::Function
            && match leaf(&parameter.path) {
                "W" | "W_q" => given("w_init"),
                "Wb" => given("wb_init"),
                "b" | "b_q" | "alpha" | "beta" | "gamma" | "mean" | "var" | "t" => true,
                "I" => self.check != Check::Cpd,
                "slope" => given("slope_init"),
                "weight_l0" => given("w0_init"),
                "weight" => given("w_init"),
                "bias" => true,
                // Factors, and what newer functions register.
                _ => false,
            }
    }
}

/// The last part of a parameter's path.
pub(crate) fn leaf(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// The first value of a parameter, from the file.
pub(crate) fn first_value(tensors: &Tensors, path: &str) -> Result<candle_core::Tensor, String> {
    tensors.float(&format!("param.{path}"))
}
