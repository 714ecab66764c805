//! Calls of functions without parameters described in JSON, like those of [layers](super::layers).

use candle_core::shape::Dim;
use candle_core::{Result, Shape};
use serde_json::Value;

use super::fixtures::Tensors;
use super::layers::{Argument, Call};

/// A line a function, by NNabla's name for it: `name(inputs; arguments: types = defaults) => call`. An input in brackets
/// may be missing, one in parentheses is a tensor or a number, `{inputs}` are all of them in order; an argument without a default must be given.
macro_rules! functions {
    (@input $arguments:ident, [$input:ident]) => {
        let $input = $arguments.optional_input(stringify!($input));
    };
    (@input $arguments:ident, {$inputs:ident}) => {
        let $inputs = $arguments.all_inputs();
    };
    (@input $arguments:ident, ($input:ident)) => {
        let $input = match $arguments.optional_input(stringify!($input)) {
            Some(tensor) => layerfn::functions::Limit::Tensor(tensor),
            None => layerfn::functions::Limit::Number($arguments.required(stringify!($input))?),
        };
    };
    (@input $arguments:ident, $input:ident) => {
        let $input = $arguments.input(stringify!($input))?;
    };
    (@argument $arguments:ident, $argument:ident: $ty:ty) => {
        let $argument = $arguments.required::<$ty>(stringify!($argument))?;
    };
    (@argument $arguments:ident, $argument:ident: $ty:ty, $default:expr) => {
        let $argument = match $arguments.optional::<$ty>(stringify!($argument))? {
            Some(given) => given,
            None => $default,
        };
    };
    ($(
        $function:ident($($input:tt),+ $(; $($argument:ident: $ty:ty $(= $default:expr)?),+)?) => $call:expr;
    )*) => {
        pub(super) fn find(function: &str) -> Option<$crate::support::layers::Call> {
            use $crate::support::layers::Outputs as _;
            match function {
                $(stringify!($function) => Some(|arguments| {
                    $($crate::support::functions::functions!(@input arguments, $input);)+
                    $($($crate::support::functions::functions!(@argument arguments, $argument: $ty $(, $default)?);)+)?
                    arguments.finish()?;
                    Ok($call?.outputs())
                }),)*
                _ => None,
            }
        }
    };
}
use functions;

mod elementwise;
mod shapes;
mod weights;

/// The call of `function`, NNabla's name for it; `None` if there is no such function.
#[must_use]
pub fn find(function: &str) -> Option<Call> {
    elementwise::find(function).or_else(|| shapes::find(function)).or_else(|| weights::find(function))
}

/// An axis, which may count from the end.
#[derive(Clone, Copy)]
struct Axis(i64);

impl Argument for Axis {
    fn read(value: &Value, tensors: &Tensors) -> std::result::Result<Self, String> {
        i64::read(value, tensors).map(Self)
    }
}

impl Dim for Axis {
    fn to_index(&self, shape: &Shape, op: &'static str) -> Result<usize> {
        let counted = if self.0 < 0 { self.0 + shape.rank() as i64 } else { self.0 };
        match usize::try_from(counted) {
            Ok(axis) if axis < shape.rank() => Ok(axis),
            _ => candle_core::bail!("{op}: there is no axis {} in {shape:?}", self.0),
        }
    }

    fn to_index_plus_one(&self, shape: &Shape, op: &'static str) -> Result<usize> {
        Ok(self.to_index(shape, op)? + 1)
    }
}
