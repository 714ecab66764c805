//! Solvers: they update parameters with gradients.
//!
//! A solver knows its parameters by their paths, keeps a state for each, and changes the variables in place, so
//! the layers compute with the new values from then on.
//!
//! ```
//! use layerfn::{prelude::*, solver::{Adam, schedule}};
//!
//! let net = network! { < fc: affine(16) -> relu -> out: affine(2) > };
//! let x = Tensor::ones((4, 3), DType::F32, &Device::Cpu)?;
//! let labels = Tensor::new(&[0u32, 1, 1, 1], &Device::Cpu)?;
//! net.forward(&x)?; // makes the parameters
//!
//! let mut solver = Adam::new(1e-2)
//!     .clip_grad_by_global_norm(1.0)
//!     .weight_decay(1e-4)
//!     .decay_rate("**/b", 0.0)
//!     .learning_rate_factor("out/**", 2.0)
//!     .schedule(schedule::warmup(2).cosine(10));
//! solver.set_parameters(&get_parameters());
//! for _ in 0..10 {
//!     let loss = mean_softmax_cross_entropy(&net.forward(&x)?, &labels, 1)?;
//!     solver.update(&backward(loss)?)?;
//! }
//! # Ok::<(), layerfn::Error>(())
//! ```
//!
//! Changes of the gradients before the step, such as clipping, decay and scaling, are applied in the order of
//! the calls, as in NNabla: with `.clip_grad_by_global_norm(1.0).weight_decay(1e-4)` the decay is not clipped.
//!
//! The solver can also be chosen when the program runs:
//!
//! ```
//! use layerfn::solver::{Adam, Sgd, Solver};
//!
//! fn named(name: &str) -> Box<dyn Solver> {
//!     match name {
//!         "adam" => Box::new(Adam::new(1e-3)),
//!         _ => Box::new(Sgd::new(1e-2)),
//!     }
//! }
//! assert_eq!(named("sgd").learning_rate(), 1e-2);
//! ```
//!
//! # The solvers
//! They compute the same as NNabla. `g` is the gradient, η or α the learning rate (with index 0 the one that
//! the solver was made with), `t` the number of the parameter's step, starting with 1, `d` the weight decay,
//! `m` and `v` the averages of `g` and `g²` with the rates β₁ and β₂, and `C = √(1 − β₂ᵗ) / (1 − β₁ᵗ)`.
//!
//! | solver | step | where PyTorch (P) or the paper differs, and its name here |
//! | --- | --- | --- |
//! | [`Sgd`] | `w ← w − η·g` | |
//! | [`Momentum`] | `m ← γ·m + η·g`, `w ← w − m` | P keeps `g`, not `η·g`: [`momentum_like_pytorch`](Momentum::momentum_like_pytorch) |
//! | [`SgdW`] | Momentum's, and `− (η / η₀)·d·w` | `− η·d·w`: [`decay_like_pytorch`](SgdW::decay_like_pytorch) |
//! | [`Nesterov`] | `m' ← γ·m − η·g`, `w ← w − γ·m + (1 + γ)·m'` | as for Momentum: [`momentum_like_pytorch`](Nesterov::momentum_like_pytorch) |
//! | [`Lars`] | `v ← γ·v + η·c·‖w‖ / (‖g‖ + d·‖w‖)·(g + d·w)`, `w ← w − v` | |
//! | [`Lion`] | `w ← w − η·(sign(β₁·m + (1 − β₁)·g) + d·w)`, `m ← β₂·m + (1 − β₂)·g` | |
//! | [`Adagrad`] | `v ← v + g²`, `w ← w − η·g / (√v + ε)` | |
//! | [`Adadelta`] | `w ← w − η·√((b + ε) / (a + ε))·g`, `a` and `b` averages of the squares of `g` and of the steps | |
//! | [`RMSprop`] | `w ← w − η·g / (√v + ε)` | |
//! | [`RMSpropGraves`] | `s ← μ·s − η·g / √(v − m² + ε)`, `w ← w + s` | P: ε outside of the root, η outside of `s`: [`like_pytorch`](RMSpropGraves::like_pytorch) |
//! | [`Adam`] | `w ← w − α·C·m / (√v + ε)` | P: ε after the correction: [`eps_like_pytorch`](Adam::eps_like_pytorch) |
//! | [`AdamW`] | Adam's, and `− (α / α₀)·d·w` | P: `− α·d·w`, [`decay_like_pytorch`](AdamW::decay_like_pytorch), and [`eps_like_pytorch`](AdamW::eps_like_pytorch) |
//! | [`Adamax`] | `u ← max(β₂·u, \|g\|)`, `w ← w − α / (1 − β₁ᵗ)·m / (u + ε)` | P: `max(β₂·u, \|g\| + ε)`, [`eps_like_pytorch`](Adamax::eps_like_pytorch); NNabla's page has a factor `√(1 − β₂ᵗ)` |
//! | [`AMSGRAD`] | `h ← max(h, v)`, `w ← w − α·m / (√h + ε)` | P: with `C`, [`bias_correction`](AMSGRAD::bias_correction), and [`eps_like_pytorch`](AMSGRAD::eps_like_pytorch) |
//! | [`AdaBound`] | Adam's with rates `α·C / (√v + ε)` between bounds | |
//! | [`AMSBound`] | AMSGrad's with rates between bounds, the upper one `f·(1 + t/γ)` | the paper and NNabla's page: `f·(1 + 1/(γ·t))`, [`bound_like_paper`](AMSBound::bound_like_paper) |
//! | [`AdaBelief`] | Adam's with the average of `(g − m)²`, in which ε piles up, in place of `v` | RAdam's first steps: [`rectify_like_paper`](AdaBelief::rectify_like_paper) |
//! | [`Lamb`] | `q = m / (√v + ε) + d·w`, `w ← w − η·‖w‖ / ‖q‖·q` | the paper corrects `m` and `v`: [`bias_correction`](Lamb::bias_correction) |
//! | [`Muon`] | `m ← μ·m + g`, `w ← w − η·O(g + μ·m)`, where `O` makes a matrix orthogonal | not in NNabla |
//!
//! # Custom solvers
//! A [`Rule`] defines the step of one element; everything else is shared.
//!
//! ```
//! use layerfn::solver::{At, Number, Rule, RuleSolver, Solver};
//!
//! /// Steps of the same length, whatever the gradient.
//! struct SignDescent;
//!
//! impl Rule<0> for SignDescent {
//!     const STATES: [&'static str; 0] = [];
//!     type Rates = f64;
//!
//!     fn rates(&self, at: &At<'_>) -> f64 {
//!         at.learning_rate
//!     }
//!
//!     fn step<V: Number>(&self, lr: f64, w: V, g: V, []: [V; 0]) -> (V, [V; 0]) {
//!         (w - g.sign().scale(lr), [])
//!     }
//! }
//!
//! let solver = RuleSolver::new_with(SignDescent, 1e-3);
//! assert_eq!(solver.learning_rate(), 1e-3);
//! ```

mod change;
mod engine;
mod groups;
mod norm;
mod rule;
mod rules;
pub mod schedule;
mod state;

use std::path::Path;

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor};

pub use crate::number::Number;
pub use change::Change;
pub use engine::RuleSolver;
pub use rule::{At, Mixed, Rule, WeightDecay};
pub use rules::*;
pub use schedule::Schedule;

use crate::checkpoint;
use crate::{Parameters, Result};

/// Updates parameters; see the [module](self).
pub trait Solver: Send {
    /// Replaces the parameters. A path that the solver already had, with a variable of the same shape and type,
    /// keeps its state; the others start over. A variable under several paths is updated once in each step.
    fn set_parameters(&mut self, parameters: &Parameters);

    /// Returns the parameters that it updates.
    fn parameters(&self) -> Parameters;

    /// Returns the changes of the gradients before each step, in this order.
    fn changes(&self) -> &[Change];

    /// Makes one step. A parameter without a gradient does not change, and neither does its state.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if a setting is out of range, if the solver
    /// has no parameters or there is no gradient for any of them, or if a gradient is infinite, NaN, has
    /// another shape than its parameter, or is too large for its square or its norm to be computed. Nothing is
    /// updated then.
    fn update(&mut self, gradients: &GradStore) -> Result<()> {
        let changes = self.changes().to_vec();
        self.update_with(gradients, &changes)
    }

    /// Makes one step with `changes` in place of those that the solver was made with.
    ///
    /// # Errors
    /// As [`update`](Self::update).
    fn update_with(&mut self, gradients: &GradStore, changes: &[Change]) -> Result<()>;

    /// Returns the gradients after `changes`, as the step of [`update_with`](Self::update_with) would see them.
    ///
    /// # Errors
    /// As [`update`](Self::update).
    fn changed_gradients(&self, gradients: &GradStore, changes: &[Change]) -> Result<GradStore>;

    /// Returns the path of a parameter whose gradient is infinite or NaN, if there is one.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if a gradient does not fit its parameter.
    fn bad_gradient(&self, gradients: &GradStore) -> Result<Option<String>>;

    /// Returns the learning rate of the next step: the one that was set, times the schedule.
    fn learning_rate(&self) -> f64;

    /// Returns the learning rate that was set, without the schedule.
    fn base_learning_rate(&self) -> f64;

    /// Sets the learning rate that the schedule multiplies, for the following steps.
    fn set_learning_rate(&mut self, learning_rate: f64);

    /// Returns the number of updates so far: the step that the schedule sees.
    fn n_updates(&self) -> u64;

    /// Moves the schedule to another step.
    fn set_n_updates(&mut self, n_updates: u64);

    /// Returns a copy of the states, by the path of the parameter and a name: `c1/conv/W/mean`, `c1/conv/W/t`,
    /// ... `t` is the number of steps, an integer. A parameter that has not been updated yet has no state.
    ///
    /// # Errors
    /// If candle cannot copy a state.
    fn get_states(&self) -> Result<Parameters>;

    /// Replaces the states by those of another run, bit for bit; a parameter without one starts over. The
    /// states of tied parameters are under one of their paths. The schedule continues at the largest number of
    /// steps among them.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if a state belongs to no parameter, if some
    /// states of a parameter are missing, if one does not fit its parameter, or if a variable has one twice.
    /// Nothing is changed then.
    fn set_states(&mut self, states: &Parameters) -> Result<()>;

    /// Writes the states to a file in the format of its extension. `.h5` and `.protobuf` are the formats of
    /// NNabla's `Solver.save_states` and `load_states`.
    ///
    /// ```
    /// use layerfn::{prelude::*, solver::Adam};
    ///
    /// let y = affine(&Tensor::ones((8, 3), DType::F32, &Device::Cpu)?, 2).call()?;
    /// let mut solver = Adam::new(1e-2);
    /// solver.set_parameters(&get_parameters());
    /// solver.update(&backward(&y.sum_all()?)?)?;
    ///
    /// let file = std::env::temp_dir().join("layerfn-solver-states.h5");
    /// solver.save_states(&file)?;
    /// solver.load_states(&file)?;
    /// # std::fs::remove_file(file).ok();
    /// # Ok::<(), layerfn::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Checkpoint::save`](checkpoint::Checkpoint::save).
    fn save_states(&self, path: &Path) -> Result<()> {
        checkpoint::save_states(&self.get_states()?, path)
    }

    /// Loads the states from a file written by [`save_states`](Self::save_states) or NNabla, as
    /// [`set_states`](Self::set_states) does.
    ///
    /// # Errors
    /// As [`Checkpoint::open`](checkpoint::Checkpoint::open), and as [`set_states`](Self::set_states).
    fn load_states(&mut self, path: &Path) -> Result<()> {
        self.set_states(&checkpoint::load_states(path)?)
    }
}

/// The path of a state of the parameter `path`.
fn state_path(path: &str, name: &str) -> String {
    format!("{path}/{name}")
}

/// The type that a parameter is updated in: in half precision, small steps would be lost.
fn computed_in(dtype: DType) -> DType {
    if dtype == DType::F64 { DType::F64 } else { DType::F32 }
}

/// An empty gradient store; candle has no other way to make one.
pub(crate) fn no_gradients() -> Result<GradStore> {
    Ok(Tensor::zeros((), DType::F32, &Device::Cpu)?.backward()?)
}
