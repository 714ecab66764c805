//! Calls of layers described in JSON: the function's name, its inputs and its arguments.

use std::collections::BTreeSet;

use candle_core::{DType, Device, Tensor};
use layerfn::{Dims, Initializer, PerAxis, parameter_scope};
use serde_json::{Map, Value};

use super::fixtures::Tensors;

/// Why a call gave no result.
#[derive(Debug)]
pub enum Failure {
    /// The description cannot be turned into a call.
    Description(String),
    /// The layer refused.
    Layer(layerfn::Error),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Description(text) => f.write_str(text),
            Self::Layer(error) => error.fmt(f),
        }
    }
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self::Description(text)
    }
}

impl From<layerfn::Error> for Failure {
    fn from(error: layerfn::Error) -> Self {
        Self::Layer(error)
    }
}

/// The inputs and arguments of one call. Each must be used: one that the layer does not know is a failure.
pub struct Arguments<'a> {
    inputs: Vec<(String, Tensor)>,
    values: Map<String, Value>,
    tensors: &'a Tensors,
    used: BTreeSet<String>,
}

impl<'a> Arguments<'a> {
    /// The arguments `values` with the tensors they refer to, and the inputs by argument name.
    #[must_use]
    pub fn new(inputs: Vec<(String, Tensor)>, values: Map<String, Value>, tensors: &'a Tensors) -> Self {
        Self { inputs, values, tensors, used: BTreeSet::new() }
    }

    fn input(&mut self, name: &str) -> Result<Tensor, String> {
        self.optional_input(name).ok_or_else(|| format!("the input `{name}` is missing"))
    }

    fn optional_input(&mut self, name: &str) -> Option<Tensor> {
        let (_, tensor) = self.inputs.iter().find(|(input, _)| input == name)?;
        self.used.insert(name.to_owned());
        Some(tensor.clone())
    }

    fn required<T: Argument>(&mut self, name: &str) -> Result<T, String> {
        self.optional(name)?.ok_or_else(|| format!("the argument `{name}` is missing"))
    }

    fn optional<T: Argument>(&mut self, name: &str) -> Result<Option<T>, String> {
        let Some(value) = self.values.get(name) else { return Ok(None) };
        self.used.insert(name.to_owned());
        let read = T::read(value, self.tensors)
            .map_err(|text| format!("the argument `{name}` = {value}: {text}"))?;
        Ok(Some(read))
    }

    /// Fails if something was given that no reader asked for.
    fn finish(&self) -> Result<(), String> {
        let names = self.inputs.iter().map(|(name, _)| name).chain(self.values.keys());
        match names.into_iter().find(|&name| !self.used.contains(name)) {
            None => Ok(()),
            Some(name) => Err(format!("the argument `{name}` is not known here")),
        }
    }
}

/// A type of arguments, read from JSON.
trait Argument: Sized {
    fn read(value: &Value, tensors: &Tensors) -> Result<Self, String>;
}

macro_rules! plain_arguments {
    ($($ty:ty: $read:expr, $expected:literal;)+) => {$(
        impl Argument for $ty {
            fn read(value: &Value, _: &Tensors) -> Result<Self, String> {
                let read: fn(&Value) -> Option<$ty> = $read;
                read(value).ok_or_else(|| format!("must be {}", $expected))
            }
        }
    )+};
}

plain_arguments! {
    bool: Value::as_bool, "true or false";
    f64: Value::as_f64, "a number";
    i64: Value::as_i64, "an integer";
    usize: size, "a count";
    u32: |value| u32::try_from(size(value)?).ok(), "a count";
    String: |value| value.as_str().map(str::to_owned), "a text";
    Vec<usize>: |value| value.as_array()?.iter().map(size).collect(), "a list of counts";
    Dims: |value| sizes(value).map(Dims::from), "a count or a list of them";
    PerAxis: |value| size(value).map(PerAxis::from).or_else(|| sizes(value).map(PerAxis::from)), "a count or a list of them";
}

fn size(value: &Value) -> Option<usize> {
    usize::try_from(value.as_u64()?).ok()
}

/// A list of counts; a single one is a list of it.
fn sizes(value: &Value) -> Option<Vec<usize>> {
    match value {
        Value::Array(sizes) => sizes.iter().map(size).collect(),
        single => Some(vec![size(single)?]),
    }
}

impl Argument for Tensor {
    fn read(value: &Value, tensors: &Tensors) -> Result<Self, String> {
        if let Some(key) = value.get("tensor").and_then(Value::as_str) {
            return tensors.float(key);
        }
        let zeros = value.get("zeros").and_then(sizes).ok_or("must be an array")?;
        Tensor::zeros(zeros, DType::F32, &Device::Cpu).map_err(|error| error.to_string())
    }
}

impl Argument for Initializer {
    fn read(value: &Value, tensors: &Tensors) -> Result<Self, String> {
        match value.get("initializer").and_then(Value::as_str) {
            None => Tensor::read(value, tensors).map(Self::from),
            Some("constant") => {
                let number = value.get("value").map_or(Some(0.0), Value::as_f64);
                number.map(Self::constant).ok_or_else(|| "`value` must be a number".to_owned())
            }
            Some(other) => Err(format!("the initializer `{other}` is not known here")),
        }
    }
}

/// What layers return: one tensor or several.
trait Outputs {
    fn outputs(self) -> Vec<Tensor>;
}

impl Outputs for Tensor {
    fn outputs(self) -> Vec<Tensor> {
        vec![self]
    }
}

impl Outputs for (Tensor, Tensor) {
    fn outputs(self) -> Vec<Tensor> {
        vec![self.0, self.1]
    }
}

/// Calls a layer with arguments.
pub type Call = fn(&mut Arguments<'_>) -> Result<Vec<Tensor>, Failure>;

/// A line a layer: `function(inputs; required arguments) { options }`; `name` and `fix_parameters` go without saying.
macro_rules! layers {
    ($($function:ident($($input:ident),+ $(; $($required:ident: $required_ty:ty),+)?) { $($option:ident: $ty:ty),* $(,)? })*) => {
        fn plain(function: &str) -> Option<Call> {
            match function {
                $(stringify!($function) => Some(|arguments| {
                    let mut layer = layerfn::$function(
                        $(&arguments.input(stringify!($input))?,)+
                        $($(arguments.required::<$required_ty>(stringify!($required))?,)+)?
                    );
                    $(if let Some(value) = arguments.optional::<$ty>(stringify!($option))? {
                        layer = layer.$option(value);
                    })*
                    if let Some(value) = arguments.optional::<String>("name")? {
                        layer = layer.name(value);
                    }
                    if let Some(value) = arguments.optional::<bool>("fix_parameters")? {
                        layer = layer.fix_parameters(value);
                    }
                    arguments.finish()?;
                    Ok(layer.call()?.outputs())
                }),)*
                _ => None,
            }
        }
    };
}

layers! {}

/// The call of `function`, NNabla's name for it; `None` if there is no such layer.
///
/// NNabla's `lstm` was one step when its `state_size` was an argument, and is called `lstm_cell` since.
#[must_use]
pub fn find(function: &str, arguments: &Map<String, Value>) -> Option<Call> {
    match function {
        "lstm_cell" => plain("lstm"),
        "lstm" if !arguments.contains_key("state_size") => None,
        other => plain(other),
    }
}

/// Runs `f` inside the scopes, outermost first, as many calls of `parameter_scope`.
pub fn in_scopes<R>(scopes: &[impl AsRef<str>], f: impl FnOnce() -> R) -> R {
    fn nest(scopes: &[impl AsRef<str>], f: &mut dyn FnMut()) {
        match scopes {
            [] => f(),
            [first, rest @ ..] => parameter_scope(first, || nest(rest, f)),
        }
    }
    let (mut f, mut result) = (Some(f), None);
    nest(scopes, &mut || result = f.take().map(|f| f()));
    result.expect("the innermost scope runs once")
}
