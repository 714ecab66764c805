//! Solvers: they update parameters with gradients.
//!
//! A solver knows its parameters by their paths, has a state for each, and changes the variables in place: what the
//! layers compute next, they compute with the new values.
//!
//! ```
//! use layerfn::{prelude::*, solver::Adam};
//!
//! let net = network! { < fc: affine(16) -> relu -> out: affine(2) > };
//! let x = Tensor::ones((4, 3), DType::F32, &Device::Cpu)?;
//! let labels = Tensor::new(&[0u32, 1, 1, 1], &Device::Cpu)?;
//! net.forward(&x)?; // makes the parameters
//!
//! let mut solver = Adam::new(1e-2).weight_decay(1e-4).clip_grad_by_global_norm(1.0).learning_rate_factor("**/b", 2.0);
//! solver.set_parameters(&get_parameters());
//! for _ in 0..10 {
//!     let loss = mean_softmax_cross_entropy(&net.forward(&x)?, &labels, 1)?;
//!     solver.update(&backward(&loss)?)?;
//! }
//! # Ok::<(), layerfn::Error>(())
//! ```
//!
//! | solver | step |
//! | --- | --- |
//! | [`Sgd`] | `w ← w − η·g` |
//! | [`Momentum`] | `v ← γ·v + η·g`, `w ← w − v` |
//! | [`Nesterov`] | `v' ← γ·v − η·g`, `w ← w − γ·v + (1 + γ)·v'` |
//! | [`Adam`] | `w ← w − αₜ·m / (√v + ε)` |
//! | [`AdamW`] | Adam's, and `− (α / α₀)·wd·w` |
//! | [`RMSprop`] | `v ← γ·v + (1 − γ)·g²`, `w ← w − η·g / (√v + ε)` |
//!
//! What comes before the step is the same for all: [clipping](Solver::clip_grad_by_value), then
//! [weight decay](Solver::weight_decay).
//!
//! # A solver of one's own
//! A [`Rule`] says what happens to one element; everything else is shared.
//!
//! ```
//! use layerfn::solver::{Number, Rule, Solver};
//!
//! /// Steps of the same length, whatever the gradient.
//! struct SignDescent;
//!
//! impl Rule<0> for SignDescent {
//!     const STATES: [&'static str; 0] = [];
//!     type Rates = f64;
//!
//!     fn rates(&self, lr: f64, _: u32) -> f64 {
//!         lr
//!     }
//!
//!     fn step<V: Number>(&self, lr: f64, w: V, g: V, []: [V; 0]) -> (V, [V; 0]) {
//!         let length = (g.clone() * g.clone()).sqrt();
//!         (w - g.scale(lr) / length, [])
//!     }
//! }
//!
//! let solver = Solver::with_rule(SignDescent, 1e-3);
//! assert_eq!(solver.learning_rate(), 1e-3);
//! ```

mod number;
mod rules;
mod state;
mod traced;

use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor};
use indexmap::IndexMap;

pub use number::Number;
pub use rules::{
    Adam, AdamRule, AdamW, AdamWRule, Momentum, MomentumRule, Nesterov, NesterovRule, RMSprop, RMSpropRule,
    Sgd, SgdRule,
};

use crate::kernels::norm;
use crate::pattern::Pattern;
use crate::{Error, Parameter, Parameters, Result};
use state::State;

/// What a solver does to one element that has `N` states.
pub trait Rule<const N: usize>: Sync {
    /// Names of the states, each a part of a path.
    const STATES: [&'static str; N];

    /// What is the same for all elements of a parameter in one step.
    type Rates: Copy + Sync;

    /// Computes it from the learning rate of the parameter and the number of the step, 1 at first.
    fn rates(&self, learning_rate: f64, t: u32) -> Self::Rates;

    /// The element `w` and its states after a step along the gradient `g`; the states start as zeros.
    fn step<V: Number>(&self, rates: Self::Rates, w: V, g: V, states: [V; N]) -> (V, [V; N]);
}

/// Updates parameters by a [`Rule`]; see the [module](self).
#[derive(Debug)]
pub struct Solver<R, const N: usize> {
    rule: R,
    learning_rate: f64,
    weight_decay: f64,
    clip: Clip,
    factors: Vec<(Pattern, f64)>,
    entries: IndexMap<String, Entry>,
}

#[derive(Debug)]
struct Clip {
    value: f64,
    norm: f64,
    global_norm: f64,
}

#[derive(Debug)]
struct Entry {
    parameter: Parameter,
    factor: f64,
    state: State,
}

/// How a gradient is changed before the rule sees it.
#[derive(Clone, Copy, PartialEq)]
struct Change {
    limit: f64,
    scale: f64,
    decay: f64,
}

impl Change {
    const NONE: Self = Self { limit: f64::INFINITY, scale: 1.0, decay: 0.0 };

    fn apply<V: Number>(&self, w: &V, g: V) -> V {
        g.limit(self.limit).scale(self.scale) + w.clone().scale(self.decay)
    }
}

impl<R: Rule<N>, const N: usize> Solver<R, N> {
    /// A solver without parameters.
    #[must_use]
    pub fn with_rule(rule: R, learning_rate: f64) -> Self {
        let clip = Clip { value: f64::INFINITY, norm: f64::INFINITY, global_norm: f64::INFINITY };
        let (factors, entries) = (Vec::new(), IndexMap::new());
        Self { rule, learning_rate, weight_decay: 0.0, clip, factors, entries }
    }

    /// Adds `decay_rate · w` to each gradient, after clipping: the gradient of `decay_rate / 2 · Σ w²`.
    #[must_use]
    pub fn weight_decay(mut self, decay_rate: f64) -> Self {
        self.weight_decay = decay_rate;
        self
    }

    /// Moves each element of each gradient into `[−value, value]`, before any norm is taken.
    #[must_use]
    pub fn clip_grad_by_value(mut self, value: f64) -> Self {
        self.clip.value = value;
        self
    }

    /// Shortens the gradient of each parameter to the length `norm`, if it is longer.
    #[must_use]
    pub fn clip_grad_by_norm(mut self, norm: f64) -> Self {
        self.clip.norm = norm;
        self
    }

    /// Shortens the gradients, taken as one vector, to the length `norm`, if it is longer; after
    /// [`clip_grad_by_norm`](Self::clip_grad_by_norm).
    #[must_use]
    pub fn clip_grad_by_global_norm(mut self, norm: f64) -> Self {
        self.clip.global_norm = norm;
        self
    }

    /// Multiplies the learning rate of the parameters whose path matches `pattern`; of several patterns, the last that
    /// matches counts.
    ///
    /// In a pattern, `*` stands for any run of characters within a part of a path, `?` for one, `**` for any number of
    /// parts: `"**/bn/*"`.
    #[must_use]
    pub fn learning_rate_factor(mut self, pattern: &str, factor: f64) -> Self {
        self.factors.push((Pattern::new(pattern), factor));
        for (path, entry) in &mut self.entries {
            entry.factor = factor_of(&self.factors, path);
        }
        self
    }

    /// The learning rate.
    #[must_use]
    pub fn learning_rate(&self) -> f64 {
        self.learning_rate
    }

    /// Changes the learning rate for the steps to come.
    pub fn set_learning_rate(&mut self, learning_rate: f64) {
        self.learning_rate = learning_rate;
    }

    /// Takes `parameters` in place of those it has. A path that it had already, with a variable of the same shape and
    /// type, keeps its state; the others start anew.
    pub fn set_parameters(&mut self, parameters: &Parameters) {
        let mut before = std::mem::take(&mut self.entries);
        let entries = parameters.iter().map(|(path, parameter)| {
            let state = before
                .swap_remove(path)
                .filter(|entry| alike(entry.parameter.var(), parameter.var()))
                .map_or_else(|| State::new(N), |entry| entry.state);
            let factor = factor_of(&self.factors, path);
            (path.to_owned(), Entry { parameter: parameter.clone(), factor, state })
        });
        self.entries = entries.collect();
    }

    /// The parameters that it updates.
    #[must_use]
    pub fn parameters(&self) -> Parameters {
        self.entries.iter().map(|(path, entry)| (path.clone(), entry.parameter.clone())).collect()
    }

    /// One step. A parameter for which there is no gradient stays as it is, and so does its state.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if a gradient is infinite, NaN or of another shape than its parameter. Nothing has
    /// been updated then.
    pub fn update(&mut self, gradients: &GradStore) -> Result<()> {
        let mut steps = Vec::with_capacity(self.entries.len());
        let mut norms = Vec::new();
        for (index, (path, entry)) in self.entries.iter().enumerate() {
            let Some(gradient) = gradients.get(entry.parameter.var()) else { continue };
            let gradient = usable(path, &entry.parameter, gradient)?;
            let mut scale = 1.0;
            if self.clip.norm.is_finite() || self.clip.global_norm.is_finite() {
                let norm = state::norm(&gradient, self.clip.value)?;
                scale = shortened(norm, self.clip.norm);
                norms.push(norm * scale);
            }
            steps.push((index, gradient, scale));
        }
        let global_scale = shortened(norm(&norms, f64::INFINITY), self.clip.global_norm);
        // From the last on: it has been looked at just now, and what is nearest in memory is fastest.
        for (index, gradient, scale) in steps.into_iter().rev() {
            let entry = &mut self.entries[index];
            let change =
                Change { limit: self.clip.value, scale: scale * global_scale, decay: self.weight_decay };
            let rates =
                self.rule.rates(self.learning_rate * entry.factor, entry.state.steps().saturating_add(1));
            let (rule, var) = (&self.rule, entry.parameter.var());
            entry.state.step(rule, rates, change, var, &gradient)?;
        }
        Ok(())
    }

    /// A copy of the states, by the path of the parameter and a name: `c1/conv/W/mean`, `c1/conv/W/t`, ... `t` is the number of
    /// steps. A parameter that has had no step has none.
    ///
    /// A [`Checkpoint`](crate::checkpoint::Checkpoint) saves them:
    ///
    /// ```
    /// use layerfn::{prelude::*, checkpoint::Checkpoint, solver::Adam};
    ///
    /// let y = affine(&Tensor::ones((8, 3), DType::F32, &Device::Cpu)?, 2).call()?;
    /// let mut solver = Adam::new(1e-2);
    /// solver.set_parameters(&get_parameters());
    /// solver.update(&backward(&y.sum_all()?)?)?;
    ///
    /// let file = std::env::temp_dir().join("layerfn-solver-states.safetensors");
    /// Checkpoint::from_parameters(&solver.get_states()?)?.save(&file)?;
    ///
    /// let states = ParameterStore::new();
    /// states.load_parameters(&file)?;
    /// solver.set_states(&states.parameters())?;
    /// # std::fs::remove_file(file).ok();
    /// # Ok::<(), layerfn::Error>(())
    /// ```
    ///
    /// # Errors
    /// If candle cannot copy a state.
    pub fn get_states(&self) -> Result<Parameters> {
        let mut states = Vec::new();
        for (path, entry) in &self.entries {
            for (name, var) in entry.state.vars(&R::STATES, entry.parameter.var())? {
                states.push((format!("{path}/{name}"), Parameter::new(var, false)));
            }
        }
        Ok(states.into_iter().collect())
    }

    /// Takes over the states of another run, bit for bit; a parameter for which there is none starts anew.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if a state belongs to no parameter, is missing beside others, or does not fit its
    /// parameter. Nothing has changed then.
    pub fn set_states(&mut self, states: &Parameters) -> Result<()> {
        let mut taken = 0;
        let mut restored = Vec::with_capacity(self.entries.len());
        for (path, entry) in &self.entries {
            let own = states.under(path);
            let own = ["t"].iter().chain(&R::STATES).filter(|name| own.get(name).is_some()).count();
            taken += own;
            restored.push(match own {
                0 => State::new(N),
                _ => State::restored(path, &R::STATES, states, entry.parameter.var())?,
            });
        }
        if taken < states.len() {
            let known = |path: &str| {
                let (parameter, name) = path.rsplit_once('/').unwrap_or_default();
                self.entries.contains_key(parameter) && (name == "t" || R::STATES.contains(&name))
            };
            let unknown: Vec<_> = states.paths().filter(|path| !known(path)).collect();
            return Err(Error::invalid("states", "must belong to parameters of the solver", unknown));
        }
        for (entry, state) in self.entries.values_mut().zip(restored) {
            entry.state = state;
        }
        Ok(())
    }
}

fn factor_of(factors: &[(Pattern, f64)], path: &str) -> f64 {
    factors.iter().rev().find(|(pattern, _)| pattern.matches(path)).map_or(1.0, |(_, factor)| *factor)
}

fn alike(a: &Tensor, b: &Tensor) -> bool {
    a.dims() == b.dims() && a.dtype() == b.dtype() && a.device().same_device(b.device())
}

/// What a vector of length `norm` is multiplied by to be no longer than `limit`.
fn shortened(norm: f64, limit: f64) -> f64 {
    if norm > limit { limit / norm } else { 1.0 }
}

/// The type that a parameter is updated in: half precisions lose small steps.
fn computed_in(dtype: DType) -> DType {
    if dtype == DType::F64 { DType::F64 } else { DType::F32 }
}

/// The gradient as a step needs it: checked, contiguous, in the type of the computation.
fn usable(path: &str, parameter: &Parameter, gradient: &Tensor) -> Result<Tensor> {
    let dims = parameter.var().dims();
    if gradient.dims() != dims {
        let reason = format!("of `{path}` must have its shape {dims:?}");
        return Err(Error::invalid("gradient", reason, gradient.dims()));
    }
    let gradient = gradient.to_dtype(computed_in(parameter.var().dtype()))?.contiguous()?;
    if !state::all_finite(&gradient)? {
        let reason = format!("of `{path}` must be finite; nothing was updated");
        return Err(Error::invalid("gradient", reason, "infinite or NaN elements"));
    }
    Ok(gradient)
}
