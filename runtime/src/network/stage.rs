//! Stages of a network.

use super::Value;
use crate::{ParametricFunction, Result};

/// A call that is ready to run: a layer, or the result of a plain function.
///
/// Every layer made with [`#[parametric_function]`](crate::parametric_function) is a stage, and so is every function
/// and closure that takes the stage's input by reference and returns a `Result`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a stage of a network",
    label = "this returns `{Self}`",
    note = "a stage is a layer, a network, or a function `fn(&Tensor, ..) -> Result<Tensor>`; wrap anything else in a \
            closure: `(|x: &Tensor| Ok(..))`"
)]
pub trait Stage {
    /// The input of the next stage.
    type Output: Value;

    /// Runs the call, in the scope of the stage's label.
    ///
    /// # Errors
    /// Those of the layer or function.
    #[track_caller]
    fn run(self) -> Result<Self::Output>;
}

impl<L: ParametricFunction<Output: Value>> Stage for L {
    type Output = L::Output;

    #[track_caller]
    fn run(self) -> Result<L::Output> {
        self.call()
    }
}

impl<T: Value> Stage for Result<T> {
    type Output = T;

    fn run(self) -> Result<T> {
        self
    }
}

impl<T: Value> Stage for candle_core::Result<T> {
    type Output = T;

    fn run(self) -> Result<T> {
        Ok(self?)
    }
}
