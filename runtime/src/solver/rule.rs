//! The step of one element.

use candle_core::Tensor;

use super::Number;
use crate::Result;

/// The step of a solver for one element that has `N` states.
pub trait Rule<const N: usize>: Send + Sync {
    /// Names of the states, each a single component of a path.
    const STATES: [&'static str; N];

    /// Whether [`step`](Self::step) squares the gradient. If so, an update rejects gradients whose squares
    /// overflow.
    const SQUARES: bool = false;

    /// Whether [`rates`](Self::rates) needs the norms that [`measure`](Self::measure) asks for.
    const MEASURES: bool = false;

    /// Whether [`mix`](Self::mix) replaces the gradient.
    const MIXES: bool = false;

    /// The values that are the same for all elements of a parameter in one step.
    type Rates: Copy + Send + Sync;

    /// The rate of the decay that is a part of the step, if there is one.
    /// [`Change::WeightDecay`](super::Change::WeightDecay) then replaces it instead of adding to the gradient.
    fn own_decay(&self) -> Option<f64> {
        None
    }

    /// Checks the settings of the rule for a parameter. An update calls this before it changes anything.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if they are invalid.
    fn check(&self, at: &At<'_>) -> Result<()> {
        let _ = at;
        Ok(())
    }

    /// Computes the rates for one parameter in one step.
    fn rates(&self, at: &At<'_>) -> Self::Rates;

    /// Returns the element `w` and its states after a step along the gradient `g`. The states are initially
    /// zero.
    fn step<V: Number>(&self, rates: Self::Rates, w: V, g: V, states: [V; N]) -> (V, [V; N]);

    /// Returns two numbers of an element before the step. [`At::norms`] are the norms of the vectors that they
    /// form when the rates are computed a second time; the first time they are 0.
    fn measure<V: Number>(&self, rates: Self::Rates, w: V, g: V, states: [V; N]) -> [V; 2] {
        let _ = (rates, states);
        [w, g]
    }

    /// For rules in which the elements of a parameter depend on each other: computes the direction of the step,
    /// and the states, from the whole gradient after the [changes](super::Change), in the type that the solver
    /// computes in.
    ///
    /// # Errors
    /// Those of candle.
    fn mix(&self, gradient: &Tensor, states: &[Tensor]) -> Result<Mixed> {
        Ok(Mixed { direction: gradient.clone(), states: states.to_vec() })
    }
}

/// The result of [`Rule::mix`].
#[derive(Clone, Debug)]
pub struct Mixed {
    /// Passed to [`Rule::step`] as the gradient, whose shape and type it has.
    pub direction: Tensor,
    /// The states that are passed to it.
    pub states: Vec<Tensor>,
}

/// A parameter and its progress in the training.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct At<'a> {
    /// Path of the parameter.
    pub path: &'a str,
    /// Sizes of the parameter.
    pub dims: &'a [usize],
    /// Its learning rate in this step.
    pub learning_rate: f64,
    /// The learning rate that the solver was made with.
    pub first_learning_rate: f64,
    /// Number of the parameter's step, starting with 1.
    pub t: u32,
    /// Rate of the decay that is a part of the step.
    pub decay: f64,
    /// The norms that [`Rule::measure`] asks for, by default those of the parameter and of its gradient.
    pub norms: [f64; 2],
}

impl At<'_> {
    /// The learning rate divided by the first one, or 1 if that is 0.
    #[must_use]
    pub fn schedule(&self) -> f64 {
        if self.first_learning_rate == 0.0 { 1.0 } else { self.learning_rate / self.first_learning_rate }
    }
}

/// A [`Rule`] whose solver has the setting [`weight_decay`](super::RuleSolver::weight_decay).
/// [`AdamW`](super::AdamW) and [`SgdW`](super::SgdW) do not have it, since they have a setting for each of the
/// two usual formulas.
pub trait WeightDecay {}
