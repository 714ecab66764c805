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

mod norm;
mod rules;
mod state;

use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor, TensorId};
use foldhash::{HashMap, HashSet};
use indexmap::IndexMap;

pub use crate::number::Number;
pub use rules::{
    Adam, AdamRule, AdamW, AdamWRule, Momentum, MomentumRule, Nesterov, NesterovRule, RMSprop, RMSpropRule,
    Sgd, SgdRule,
};

use crate::pattern::Pattern;
use crate::{Error, Parameter, Parameters, Result, check, kernels};
use norm::{Scale, norm};
use state::State;

/// What a solver does to one element that has `N` states.
pub trait Rule<const N: usize>: Sync {
    /// Names of the states, each a part of a path.
    const STATES: [&'static str; N];

    /// What is the same for all elements of a parameter in one step.
    type Rates: Copy + Sync;

    /// Whether the settings of the rule make sense with the learning rate of a parameter. An update asks before it
    /// changes anything.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if they do not.
    fn check(&self, learning_rate: f64) -> Result<()> {
        let _ = learning_rate;
        Ok(())
    }

    /// Computes it from the learning rate of the parameter and the number of the step, 1 at first.
    fn rates(&self, learning_rate: f64, t: u32) -> Self::Rates;

    /// The element `w` and its states after a step along the gradient `g`; the states start as zeros.
    fn step<V: Number>(&self, rates: Self::Rates, w: V, g: V, states: [V; N]) -> (V, [V; N]);
}

/// Updates parameters by a [`Rule`]; see the [module](self).
///
/// A setting that makes no sense, such as a negative learning rate, is an error of the next [`update`](Self::update).
#[derive(Debug)]
pub struct Solver<R, const N: usize> {
    rule: R,
    learning_rate: f64,
    weight_decay: f64,
    clip: Clip,
    factors: Vec<(Pattern, f64)>,
    parameters: Parameters,
    /// One for each variable, whatever the number of its paths.
    entries: IndexMap<TensorId, Entry>,
}

#[derive(Debug)]
struct Clip {
    value: f64,
    norm: f64,
    global_norm: f64,
}

/// A variable.
#[derive(Debug)]
struct Entry {
    parameter: Parameter,
    /// Its paths, of which tied parameters have several, and the factor of the learning rate for each.
    paths: Vec<(String, f64)>,
    state: State,
}

impl Entry {
    fn path(&self) -> &str {
        self.paths.first().map_or("", |(path, _)| path)
    }

    fn factor(&self) -> Result<f64> {
        let (first, factor) = self.paths.first().map_or(("", 1.0), |(path, factor)| (path, *factor));
        match self.paths.iter().find(|(_, other)| *other != factor) {
            None => Ok(factor),
            Some((path, other)) => {
                let reason = format!("must be the same for `{first}` and `{path}`, which are one variable");
                Err(Error::invalid("learning_rate_factor", reason, [factor, *other]))
            }
        }
    }
}

/// A step that has been found to be possible.
struct Prepared {
    index: usize,
    gradient: Tensor,
    learning_rate: f64,
    /// Length of the gradient, and the length that clipping leaves; both 0 where nothing asks for them.
    norm: f64,
    length: f64,
}

/// How a gradient is changed before the rule sees it.
#[derive(Clone, Copy, PartialEq)]
struct Change {
    limit: f64,
    scale: Scale,
    decay: f64,
}

impl Change {
    const NONE: Self = Self { limit: f64::INFINITY, scale: Scale::NONE, decay: 0.0 };

    fn apply<V: Number>(&self, w: &V, g: V) -> V {
        self.scale.apply(g.limit(self.limit)) + w.clone().scale(self.decay)
    }
}

impl<R: Rule<N>, const N: usize> Solver<R, N> {
    /// A solver without parameters.
    #[must_use]
    pub fn with_rule(rule: R, learning_rate: f64) -> Self {
        let clip = Clip { value: f64::INFINITY, norm: f64::INFINITY, global_norm: f64::INFINITY };
        let (factors, parameters, entries) = (Vec::new(), Parameters::default(), IndexMap::new());
        Self { rule, learning_rate, weight_decay: 0.0, clip, factors, parameters, entries }
    }

    /// Adds `decay_rate · w` to each gradient, after clipping: the gradient of `decay_rate / 2 · Σ w²`. At least 0.
    #[must_use]
    pub fn weight_decay(mut self, decay_rate: f64) -> Self {
        self.weight_decay = decay_rate;
        self
    }

    /// Moves each element of each gradient into `[−value, value]`, before any norm is taken. Above 0; infinity, as for the
    /// norms, stands for no limit.
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
    /// matches counts. At least 0.
    ///
    /// In a pattern, `*` stands for any run of characters within a part of a path, `?` for one, `**` for any number of
    /// parts: `"**/bn/*"`.
    #[must_use]
    pub fn learning_rate_factor(mut self, pattern: &str, factor: f64) -> Self {
        self.factors.push((Pattern::new(pattern), factor));
        for (path, factor) in self.entries.values_mut().flat_map(|entry| &mut entry.paths) {
            *factor = factor_of(&self.factors, path);
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
    /// type, keeps its state; the others start anew. A variable under several paths is updated once in each step.
    pub fn set_parameters(&mut self, parameters: &Parameters) {
        let mut before = HashMap::<String, TensorId>::default();
        for (id, entry) in &self.entries {
            before.extend(entry.paths.iter().map(|(path, _)| (path.clone(), *id)));
        }
        let mut old = std::mem::take(&mut self.entries);
        for (path, parameter) in parameters.iter() {
            let entry = self.entries.entry(parameter.var().id()).or_insert_with(|| {
                let kept = before.get(path).and_then(|id| {
                    old.get(id).filter(|entry| alike(entry.parameter.var(), parameter.var()))?;
                    old.swap_remove(id)
                });
                let state = kept.map_or_else(|| State::new(N), |entry| entry.state);
                Entry { parameter: parameter.clone(), paths: Vec::new(), state }
            });
            entry.paths.push((path.to_owned(), factor_of(&self.factors, path)));
        }
        self.parameters = parameters.clone();
    }

    /// The parameters that it updates.
    #[must_use]
    pub fn parameters(&self) -> Parameters {
        self.parameters.clone()
    }

    /// One step. A parameter for which there is no gradient stays as it is, and so does its state.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if a setting is out of its range, if the solver has no parameters or there is a gradient
    /// for none of them, or if a gradient is infinite, NaN, of another shape than its parameter or too long for its
    /// norm to be computed. Nothing has been updated then.
    pub fn update(&mut self, gradients: &GradStore) -> Result<()> {
        self.check()?;
        let mut steps = self.prepare(gradients)?;
        self.clip_globally(&mut steps)?;
        // From the last on: it has been looked at just now, and what is nearest in memory is fastest.
        for Prepared { index, gradient, learning_rate, norm, length } in steps.into_iter().rev() {
            let entry = &mut self.entries[index];
            let scale = Scale::from_to(norm, length);
            let change = Change { limit: self.clip.value, scale, decay: self.weight_decay };
            let rates = self.rule.rates(learning_rate, entry.state.steps().saturating_add(1));
            entry.state.step(&self.rule, rates, change, entry.parameter.var(), &gradient)?;
        }
        Ok(())
    }

    /// Whether there is something to update, and whether all settings are in their ranges.
    fn check(&self) -> Result<()> {
        if self.entries.is_empty() {
            let reason = "must be given to the solver by `set_parameters` before `update`; the first forward makes them";
            return Err(Error::invalid("parameters", reason, "none"));
        }
        check::within("learning_rate", self.learning_rate, 0.0..)?;
        check::within("weight_decay", self.weight_decay, 0.0..)?;
        for (_, factor) in &self.factors {
            check::within("learning_rate_factor", *factor, 0.0..)?;
        }
        let Clip { value, norm, global_norm } = self.clip;
        for (setter, limit) in [
            ("clip_grad_by_value", value),
            ("clip_grad_by_norm", norm),
            ("clip_grad_by_global_norm", global_norm),
        ] {
            if limit.is_nan() || limit <= 0.0 {
                return Err(Error::invalid(setter, "must be above 0, or infinity for no limit", limit));
            }
        }
        Ok(())
    }

    /// The steps that the gradients ask for, each possible; memory for states that begin is taken.
    fn prepare(&mut self, gradients: &GradStore) -> Result<Vec<Prepared>> {
        let clips = self.clip.norm.is_finite() || self.clip.global_norm.is_finite();
        let mut steps = Vec::with_capacity(self.entries.len());
        for (index, entry) in self.entries.values_mut().enumerate() {
            let Some(gradient) = gradients.get(entry.parameter.var()) else { continue };
            let learning_rate = self.learning_rate * entry.factor()?;
            check::within("learning_rate", learning_rate, 0.0..)?;
            self.rule.check(learning_rate)?;
            let gradient = usable(entry.path(), &entry.parameter, gradient)?;
            let norm = if clips { norm(entry.path(), &gradient, self.clip.value)? } else { 0.0 };
            entry.state.allocate(entry.parameter.var())?;
            steps.push(Prepared { index, gradient, learning_rate, norm, length: norm.min(self.clip.norm) });
        }
        if steps.is_empty() {
            let reason = format!(
                "must hold one for at least one parameter of the solver, {}; parameters that were made or replaced after \
                 `set_parameters` must be given to it anew",
                listed(&self.parameters)
            );
            return Err(Error::invalid("gradients", reason, "none for them"));
        }
        Ok(steps)
    }

    /// Shortens the gradients, taken as one vector, to the limit.
    fn clip_globally(&self, steps: &mut [Prepared]) -> Result<()> {
        let limit = self.clip.global_norm;
        if limit.is_infinite() {
            return Ok(());
        }
        let lengths: Vec<f64> = steps.iter().map(|step| step.length).collect();
        let global = kernels::norm(&lengths, f64::INFINITY);
        if global.is_infinite() {
            let reason = "together must have a norm that is finite in f64; `clip_grad_by_value` limits it";
            return Err(Error::invalid("gradients", reason, global));
        }
        if global > limit {
            for step in steps {
                step.length = step.length / global * limit;
            }
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
        for entry in self.entries.values() {
            for (name, var) in entry.state.vars(&R::STATES, entry.parameter.var())? {
                states.push((state_path(entry.path(), name), Parameter::new(var, false)));
            }
        }
        Ok(states.into_iter().collect())
    }

    /// Takes over the states of another run, bit for bit; a parameter for which there is none starts anew. Those of tied
    /// parameters stand under one of their paths.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if a state belongs to no parameter, is missing beside others, does not fit its
    /// parameter, or is there twice for one variable. Nothing has changed then.
    pub fn set_states(&mut self, states: &Parameters) -> Result<()> {
        let mut known = HashSet::<String>::default();
        let mut restored = Vec::with_capacity(self.entries.len());
        for entry in self.entries.values() {
            let mut found = None;
            for (path, _) in &entry.paths {
                let own = ["t"].iter().chain(&R::STATES).map(|name| state_path(path, name));
                let own: Vec<_> = own.filter(|state| states.get(state).is_some()).collect();
                if own.is_empty() {
                    continue;
                }
                if let Some(other) = found.replace(path) {
                    let reason = format!("must hold one for `{other}` and `{path}`, which are one variable");
                    return Err(Error::invalid("states", reason, "one for each"));
                }
                known.extend(own);
            }
            restored.push(match found {
                None => State::new(N),
                Some(path) => State::restored(path, &R::STATES, states, entry.parameter.var())?,
            });
        }
        if known.len() < states.len() {
            let unknown: Vec<_> = states.paths().filter(|path| !known.contains(*path)).collect();
            return Err(Error::invalid("states", "must belong to parameters of the solver", unknown));
        }
        for (entry, state) in self.entries.values_mut().zip(restored) {
            entry.state = state;
        }
        Ok(())
    }
}

/// Where a state of the parameter `path` stands among the others.
fn state_path(path: &str, name: &str) -> String {
    format!("{path}/{name}")
}

/// Some of the paths, and how many more there are.
fn listed(parameters: &Parameters) -> String {
    const SHOWN: usize = 8;
    let shown: Vec<_> = parameters.paths().take(SHOWN).map(|path| format!("`{path}`")).collect();
    let shown = shown.join(", ");
    match parameters.len().saturating_sub(SHOWN) {
        0 => shown,
        rest => format!("{shown} and {rest} more"),
    }
}

fn factor_of(factors: &[(Pattern, f64)], path: &str) -> f64 {
    factors.iter().rev().find(|(pattern, _)| pattern.matches(path)).map_or(1.0, |(_, factor)| *factor)
}

fn alike(a: &Tensor, b: &Tensor) -> bool {
    a.dims() == b.dims() && a.dtype() == b.dtype() && a.device().same_device(b.device())
}

/// The type that a parameter is updated in: half precisions lose small steps.
fn computed_in(dtype: DType) -> DType {
    if dtype == DType::F64 { DType::F64 } else { DType::F32 }
}

/// The gradient as a step needs it: checked, contiguous, in the type of the computation.
fn usable(path: &str, parameter: &Parameter, gradient: &Tensor) -> Result<Tensor> {
    let (var, dims) = (parameter.var(), parameter.var().dims());
    check::float("parameters", var)?;
    check::float("gradient", gradient)?;
    if gradient.dims() != dims {
        let reason = format!("of `{path}` must have its shape {dims:?}");
        return Err(Error::invalid("gradient", reason, gradient.dims()));
    }
    if !gradient.device().same_device(var.device()) {
        let reason = format!("of `{path}` must be where it is, on {:?}", var.device().location());
        return Err(Error::invalid("gradient", reason, gradient.device().location()));
    }
    check::tensor("gradient", dims, computed_in(var.dtype()))?;
    let gradient = gradient.to_dtype(computed_in(var.dtype()))?.contiguous()?;
    if !state::all_finite(&gradient)? {
        let reason = format!("of `{path}` must be finite; nothing was updated");
        return Err(Error::invalid("gradient", reason, "infinite or NaN elements"));
    }
    Ok(gradient)
}
