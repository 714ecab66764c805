//! What a solver does to one element.

use candle_core::Tensor;

use super::Number;
use crate::Result;

/// What a solver does to one element that has `N` states.
pub trait Rule<const N: usize>: Send + Sync {
    /// Names of the states, each a part of a path.
    const STATES: [&'static str; N];

    /// Whether [`step`](Self::step) squares the gradient. An update refuses gradients whose squares are not numbers then.
    const SQUARES: bool = false;

    /// Whether [`rates`](Self::rates) needs the lengths that [`measure`](Self::measure) asks for.
    const MEASURES: bool = false;

    /// Whether [`mix`](Self::mix) takes the place of the gradient.
    const MIXES: bool = false;

    /// What is the same for all elements of a parameter in one step.
    type Rates: Copy + Send + Sync;

    /// The rate of the decay that is a part of the step, if there is one. [`Change::WeightDecay`](super::Change::WeightDecay)
    /// replaces it then; otherwise that adds to the gradient.
    fn own_decay(&self) -> Option<f64> {
        None
    }

    /// Whether the settings of the rule make sense for a parameter. An update asks before it changes anything.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if they do not.
    fn check(&self, at: &At<'_>) -> Result<()> {
        let _ = at;
        Ok(())
    }

    /// Computes them for one parameter in one step.
    fn rates(&self, at: &At<'_>) -> Self::Rates;

    /// The element `w` and its states after a step along the gradient `g`; the states start as zeros.
    fn step<V: Number>(&self, rates: Self::Rates, w: V, g: V, states: [V; N]) -> (V, [V; N]);

    /// Two numbers of an element before the step. The lengths of the vectors that they form are [`At::norms`] when the
    /// rates are computed a second time; at first these are 0.
    fn measure<V: Number>(&self, rates: Self::Rates, w: V, g: V, states: [V; N]) -> [V; 2] {
        let _ = (rates, states);
        [w, g]
    }

    /// For rules in which the elements of a parameter depend on each other: makes the direction of the step, and the states, of the
    /// whole gradient after the [changes](super::Change), in the type that the solver computes in.
    ///
    /// # Errors
    /// Those of candle.
    fn mix(&self, gradient: &Tensor, states: &[Tensor]) -> Result<Mixed> {
        Ok(Mixed { direction: gradient.clone(), states: states.to_vec() })
    }
}

/// What [`Rule::mix`] gives.
#[derive(Clone, Debug)]
pub struct Mixed {
    /// What [`Rule::step`] gets for the gradient, of its shape and type.
    pub direction: Tensor,
    /// The states that it gets.
    pub states: Vec<Tensor>,
}

/// Where a parameter stands in the training.
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
    /// Number of the parameter's step, 1 at first.
    pub t: u32,
    /// Rate of the decay that is a part of the step.
    pub decay: f64,
    /// The lengths that [`Rule::measure`] asks for: those of the parameter and of its gradient, if it asks for nothing else.
    pub norms: [f64; 2],
}

impl At<'_> {
    /// The learning rate as a part of the first one. A solver that was made with learning rate 0 has nothing to compare with.
    #[must_use]
    pub fn schedule(&self) -> f64 {
        if self.first_learning_rate == 0.0 { 1.0 } else { self.learning_rate / self.first_learning_rate }
    }
}

/// A [`Rule`] whose solver has the setting [`weight_decay`](super::RuleSolver::weight_decay). [`AdamW`](super::AdamW) and
/// [`SgdW`](super::SgdW) have not: they name the two formulas that people mean.
pub trait WeightDecay {}
