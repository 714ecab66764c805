//! What can stand between two arrows.

use crate::Result;

/// A call that is ready to run: a layer, or the result of a plain function.
///
/// Every layer made with [`#[parametric_function]`](crate::parametric_function) is a stage, and so is every function
/// and closure that takes the stage's input by reference and returns a `Result`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no stage of a network",
    label = "this returns `{Self}`",
    note = "a stage is a layer, a network, or a function `fn(&Tensor, ..) -> Result<Tensor>`; wrap anything else in a \
            closure: `(|x: &Tensor| Ok(..))`"
)]
pub trait Stage {
    /// What the next stage gets.
    type Output;

    /// Runs the call; the network has entered the scope of `label` already.
    ///
    /// # Errors
    /// Those of the layer or function.
    fn run(self, label: Label) -> Result<Self::Output>;
}

/// How a stage is written in its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    /// The function's name; empty for a closure.
    pub(super) ident: &'static str,
}

impl Label {
    /// The name that is left to give to the layer: none, since a label is a scope that the network enters.
    #[must_use]
    pub fn name(self) -> Option<String> {
        None
    }

    /// The name of the function or layer, as written; empty for a closure.
    #[must_use]
    pub fn ident(self) -> &'static str {
        self.ident
    }
}

impl<T> Stage for Result<T> {
    type Output = T;

    fn run(self, _label: Label) -> Result<T> {
        self
    }
}

impl<T> Stage for candle_core::Result<T> {
    type Output = T;

    fn run(self, _label: Label) -> Result<T> {
        Ok(self?)
    }
}
