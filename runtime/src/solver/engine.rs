//! The part that all solvers share: everything around the step of a rule.

use candle_core::backprop::GradStore;
use candle_core::{Tensor, TensorId};
use foldhash::{HashMap, HashSet};
use indexmap::IndexMap;

use super::change::{Change, Changed, Pending};
use super::groups::{Groups, Settings};
use super::rule::{At, Mixed, Rule, WeightDecay};
use super::state::{self, Measure, State};
use super::{Number, Schedule, Solver, computed_in, state_path};
use crate::{Error, Parameter, Parameters, Result, check, kernels};

/// A [`Solver`] that applies a [`Rule`] to each element.
///
/// An invalid setting, such as a negative learning rate, is an error of the next [`update`](Solver::update).
#[derive(Debug)]
pub struct RuleSolver<R, const N: usize> {
    pub(super) rule: R,
    learning_rate: f64,
    pub(super) first_learning_rate: f64,
    schedule: Option<Schedule>,
    n_updates: u64,
    changes: Vec<Change>,
    groups: Groups,
    parameters: Parameters,
    /// One entry for each variable, however many paths it has.
    entries: IndexMap<TensorId, Entry>,
    /// The settings of the entries, in the same order, once they have been validated.
    settings: Option<Vec<Settings>>,
}

/// A variable.
#[derive(Debug)]
struct Entry {
    parameter: Parameter,
    /// Its paths; tied parameters have several.
    paths: Vec<String>,
    state: State,
}

impl Entry {
    fn path(&self) -> &str {
        self.paths.first().map_or("", String::as_str)
    }
}

/// A step that has been validated.
struct Prepared {
    index: usize,
    pending: Pending,
    settings: Settings,
    learning_rate: f64,
    /// Rate of the decay that is a part of the rule.
    decay: f64,
}

impl<R: Rule<N> + WeightDecay, const N: usize> RuleSolver<R, N> {
    /// Applies [`Change::WeightDecay`] in each step: adds `decay_rate · w` to the gradient, or, if the solver's
    /// step has its own decay, sets its rate.
    #[must_use]
    pub fn weight_decay(self, decay_rate: f64) -> Self {
        self.change(Change::WeightDecay(decay_rate))
    }
}

impl<R: Rule<N>, const N: usize> RuleSolver<R, N> {
    /// A solver without parameters.
    #[must_use]
    pub fn new_with(rule: R, learning_rate: f64) -> Self {
        Self {
            rule,
            learning_rate,
            first_learning_rate: learning_rate,
            schedule: None,
            n_updates: 0,
            changes: Vec::new(),
            groups: Groups::default(),
            parameters: Parameters::default(),
            entries: IndexMap::new(),
            settings: None,
        }
    }

    /// The same settings with a rule that has other states; for setters that are called before any parameter is
    /// set.
    pub(super) fn with_rule<Q: Rule<M>, const M: usize>(self, rule: impl FnOnce(R) -> Q) -> RuleSolver<Q, M> {
        let Self { rule: old, learning_rate, first_learning_rate, schedule, changes, groups, .. } = self;
        let new = RuleSolver::new_with(rule(old), learning_rate);
        RuleSolver { first_learning_rate, schedule, changes, groups, ..new }
    }

    fn change(mut self, change: Change) -> Self {
        self.changes.push(change);
        self
    }

    /// Applies [`Change::ClipByValue`] in each step.
    #[must_use]
    pub fn clip_grad_by_value(self, value: f64) -> Self {
        self.change(Change::ClipByValue(value))
    }

    /// Applies [`Change::ClipByNorm`] in each step.
    #[must_use]
    pub fn clip_grad_by_norm(self, norm: f64) -> Self {
        self.change(Change::ClipByNorm(norm))
    }

    /// Applies [`Change::ClipByGlobalNorm`] in each step.
    #[must_use]
    pub fn clip_grad_by_global_norm(self, norm: f64) -> Self {
        self.change(Change::ClipByGlobalNorm(norm))
    }

    /// Applies [`Change::Scale`] in each step.
    #[must_use]
    pub fn scale_grad(self, factor: f64) -> Self {
        self.change(Change::Scale(factor))
    }

    /// Multiplies the learning rate of each step by `schedule`.
    #[must_use]
    pub fn schedule(mut self, schedule: Schedule) -> Self {
        self.schedule = Some(schedule);
        self
    }

    /// Multiplies the learning rate of the parameters whose path matches `pattern` by `factor`, at least 0.
    ///
    /// In a pattern, `*` matches any characters within a component of a path, `?` matches one character, and
    /// `**` any number of components: `"**/bn/*"`. If several patterns for a setting match, the last one
    /// counts. If a pattern matches no parameter, the next update returns an error.
    #[must_use]
    pub fn learning_rate_factor(mut self, pattern: &str, factor: f64) -> Self {
        self.groups.learning_rate_factor(pattern, factor);
        self.settings = None;
        self
    }

    /// Sets the rate of the weight decay, that of the solver or of [`Change::WeightDecay`], for the parameters
    /// whose path matches `pattern`: `"**/b"` with 0 excludes biases. A solver without decay adds it at its
    /// position among the changes.
    #[must_use]
    pub fn decay_rate(mut self, pattern: &str, rate: f64) -> Self {
        self.groups.decay_rate(pattern, rate);
        self.settings = None;
        let has_decay = self.changes.iter().any(|change| matches!(change, Change::WeightDecay(_)));
        if !has_decay && self.rule.own_decay().is_none() {
            self.changes.push(Change::WeightDecay(0.0));
        }
        self
    }

    /// Skips the parameters whose path matches `pattern`: they do not change, and their gradients count in no
    /// norm.
    #[must_use]
    pub fn frozen(mut self, pattern: &str) -> Self {
        self.groups.frozen(pattern);
        self.settings = None;
        self
    }

    /// The rate of this step, before the factors of parameters.
    fn rate(&self) -> Result<f64> {
        check::within("learning_rate", self.learning_rate, 0.0..)?;
        let Some(schedule) = &self.schedule else { return Ok(self.learning_rate) };
        let rate = self.learning_rate * schedule.at(self.n_updates);
        let named = || {
            Error::invalid(
                "schedule",
                format!("must give a learning rate of at least 0 in step {}", self.n_updates),
                rate,
            )
        };
        check::within("schedule", rate, 0.0..).map_err(|_| named())?;
        Ok(rate)
    }

    /// Checks that there are parameters to update, and that all settings are in range.
    fn check(&self, changes: &[Change]) -> Result<()> {
        if self.entries.is_empty() {
            let reason = "must be given to the solver by `set_parameters` before `update`; the first forward makes them";
            return Err(Error::invalid("parameters", reason, "none"));
        }
        self.rate()?;
        changes.iter().try_for_each(|change| change.check())
    }

    /// The settings of each entry.
    fn settings(&self) -> Result<Vec<Settings>> {
        if let Some(settings) = &self.settings {
            return Ok(settings.clone());
        }
        self.groups.check(&self.parameters)?;
        self.entries.values().map(|entry| self.groups.settings(&entry.paths)).collect()
    }

    /// The gradients as given, after validation.
    fn prepare(&self, gradients: &GradStore, changes: &[Change]) -> Result<Vec<Prepared>> {
        self.check(changes)?;
        let rate = self.rate()?;
        let all_settings = self.settings()?;
        let fitting = self.fitting(gradients, &all_settings)?;
        let mut steps = Vec::with_capacity(fitting.len());
        for Fitting { index, gradient, largest } in fitting {
            let (entry, settings) = (&self.entries[index], all_settings[index]);
            let learning_rate = rate * settings.factor;
            check::within("learning_rate", learning_rate, 0.0..)?;
            if !largest.is_finite() {
                let reason = format!("of `{}` must be finite; nothing was updated", entry.path());
                return Err(Error::invalid("gradient", reason, "infinite or NaN elements"));
            }
            let decay = settings.decay.or(self.rule.own_decay()).unwrap_or(0.0);
            let pending = Pending::new(gradient, largest);
            steps.push(Prepared { index, pending, settings, learning_rate, decay });
        }
        if steps.is_empty() {
            let reason = format!(
                "must hold one for at least one parameter of the solver that is not frozen, {}; parameters that were made or \
                 replaced after `set_parameters` must be given to it anew",
                listed(&self.parameters)
            );
            return Err(Error::invalid("gradients", reason, "none for them"));
        }
        for change in changes {
            self.apply(&mut steps, *change)?;
        }
        Ok(steps)
    }

    /// The gradients of the parameters that are not frozen, in the form that a step needs.
    fn fitting(&self, gradients: &GradStore, settings: &[Settings]) -> Result<Vec<Fitting>> {
        let mut found = Vec::with_capacity(self.entries.len());
        for (index, (entry, settings)) in self.entries.values().zip(settings).enumerate() {
            let Some(gradient) = gradients.get(entry.parameter.var()).filter(|_| !settings.frozen) else {
                continue;
            };
            let gradient = fitting(entry.path(), &entry.parameter, gradient)?;
            found.push(Fitting { index, gradient, largest: 0.0 });
        }
        let largest = state::largest_of(found.iter().map(|fitting| &fitting.gradient))?;
        found.iter_mut().zip(largest).for_each(|(fitting, largest)| fitting.largest = largest);
        Ok(found)
    }

    fn apply(&self, steps: &mut [Prepared], change: Change) -> Result<()> {
        if let Change::ClipByGlobalNorm(limit) = change {
            return self.clip_globally(steps, limit);
        }
        for step in steps {
            let entry = &self.entries[step.index];
            let (path, var, pending) = (entry.path(), entry.parameter.var(), &mut step.pending);
            match change {
                Change::WeightDecay(rate) => {
                    let rate = step.settings.decay.unwrap_or(rate);
                    match self.rule.own_decay() {
                        Some(_) => step.decay = rate,
                        None => pending.decay(rate),
                    }
                }
                Change::ClipByValue(limit) => pending.limit(var, limit)?,
                Change::ClipByNorm(limit) if limit.is_finite() => {
                    let norm = pending.norm(path, var)?;
                    pending.shorten(norm, limit);
                }
                Change::Scale(factor) => pending.scale(factor),
                Change::ClipByNorm(_) | Change::ClipByGlobalNorm(_) => {}
            }
        }
        Ok(())
    }

    /// Scales the gradients, taken as one vector, down to the limit.
    fn clip_globally(&self, steps: &mut [Prepared], limit: f64) -> Result<()> {
        if limit.is_infinite() {
            return Ok(());
        }
        let norm = |step: &mut Prepared| {
            let entry = &self.entries[step.index];
            step.pending.norm(entry.path(), entry.parameter.var())
        };
        let lengths = steps.iter_mut().map(norm).collect::<Result<Vec<f64>>>()?;
        let global = kernels::norm(&lengths, f64::INFINITY);
        if global.is_infinite() {
            let reason = "together must have a norm that is finite in f64; `clip_grad_by_value` limits it";
            return Err(Error::invalid("gradients", reason, global));
        }
        if global > limit {
            for (step, length) in steps.iter_mut().zip(lengths) {
                step.pending.shorten(length, length / global * limit);
            }
        }
        Ok(())
    }

    /// The information that the rule needs about one step.
    fn at(&self, step: &Prepared) -> At<'_> {
        let entry = &self.entries[step.index];
        At {
            path: entry.path(),
            dims: entry.parameter.var().dims(),
            learning_rate: step.learning_rate,
            first_learning_rate: self.first_learning_rate,
            t: entry.state.steps().saturating_add(1),
            decay: step.decay,
            norms: [0.0; 2],
        }
    }

    /// The largest element that the weight decay adds to each gradient, if the rule squares it; waits for a GPU
    /// only once.
    fn decayed(&self, steps: &[Prepared]) -> Result<Vec<f64>> {
        let mut found = vec![0.0; steps.len()];
        let decays = |(_, step): &(usize, &Prepared)| R::SQUARES && step.pending.decay_rate() != 0.0;
        let (mut places, mut values) = (Vec::new(), Vec::new());
        for (place, step) in steps.iter().enumerate().filter(decays) {
            let var = self.entries[step.index].parameter.var();
            places.push(place);
            values.push(var.as_detached_tensor().to_dtype(computed_in(var.dtype()))?.contiguous()?);
        }
        for (place, largest) in places.into_iter().zip(state::largest_of(&values)?) {
            found[place] = steps[place].pending.decay_rate().abs() * largest;
        }
        Ok(found)
    }

    /// The rates of one step, where the decay adds up to `decayed` to the gradient; nothing can fail after
    /// that.
    fn rates(&self, step: &Prepared, decayed: f64) -> Result<R::Rates> {
        let entry = &self.entries[step.index];
        let (path, var, pending) = (entry.path(), entry.parameter.var(), &step.pending);
        let at = self.at(step);
        self.rule.check(&at)?;
        check_size::<R, N>(path, var, pending.largest(), decayed)?;
        let rates = self.rule.rates(&at);
        if !R::MEASURES {
            return Ok(rates);
        }
        let measure = Measured { rule: &self.rule, rates };
        let norms = entry.state.norms(&measure, pending.changed, var, &pending.gradient)?;
        if norms.iter().any(|norm| !norm.is_finite()) {
            let reason =
                format!("of `{path}` and the parameter itself must have norms that are finite in f64");
            return Err(Error::invalid("gradient", reason, norms));
        }
        Ok(self.rule.rates(&At { norms, ..at }))
    }
}

impl<R: Rule<N>, const N: usize> RuleSolver<R, N> {
    /// The replacement of the gradient, for rules that mix.
    fn mixed(&self, step: &Prepared) -> Result<Option<Mixed>> {
        if !R::MIXES {
            return Ok(None);
        }
        let entry = &self.entries[step.index];
        let var = entry.parameter.var();
        let gradient = state::changed(step.pending.changed, var, &step.pending.gradient)?;
        let mixed = self.rule.mix(&gradient, &entry.state.tensors(var)?)?;
        if state::largest(&mixed.direction.contiguous()?)?.is_finite() {
            return Ok(Some(mixed));
        }
        let reason = format!("of `{}` must give a step that is finite; nothing was updated", entry.path());
        Err(Error::invalid("gradient", reason, "infinite or NaN elements"))
    }
}

/// The norms that a rule asks for.
struct Measured<'a, R: Rule<N>, const N: usize> {
    rule: &'a R,
    rates: R::Rates,
}

impl<R: Rule<N>, const N: usize> Measure<N> for Measured<'_, R, N> {
    fn of<V: Number>(&self, w: V, g: V, states: [V; N]) -> [V; 2] {
        self.rule.measure(self.rates, w, g, states)
    }
}

impl<R: Rule<N>, const N: usize> Solver for RuleSolver<R, N> {
    fn set_parameters(&mut self, parameters: &Parameters) {
        let mut before = HashMap::<String, TensorId>::default();
        for (id, entry) in &self.entries {
            before.extend(entry.paths.iter().map(|path| (path.clone(), *id)));
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
            entry.paths.push(path.to_owned());
        }
        self.parameters = parameters.clone();
        self.settings = None;
    }

    fn parameters(&self) -> Parameters {
        self.parameters.clone()
    }

    fn changes(&self) -> &[Change] {
        &self.changes
    }

    fn update_with(&mut self, gradients: &GradStore, changes: &[Change]) -> Result<()> {
        let steps = self.prepare(gradients, changes)?;
        for step in &steps {
            let entry = &mut self.entries[step.index];
            entry.state.allocate(entry.parameter.var())?;
        }
        let decayed = self.decayed(&steps)?;
        let rates = steps.iter().zip(decayed).map(|(step, decayed)| self.rates(step, decayed));
        let rates = rates.collect::<Result<Vec<_>>>()?;
        let mixed = steps.iter().map(|step| self.mixed(step)).collect::<Result<Vec<_>>>()?;
        // In reverse order: the last ones were just looked at and are still in the cache.
        let all = steps.into_iter().zip(rates).zip(mixed).rev();
        for ((Prepared { index, pending, .. }, rates), mixed) in all {
            let entry = &mut self.entries[index];
            let var = entry.parameter.var();
            let (gradient, changed) = match mixed {
                None => (pending.gradient, pending.changed),
                Some(Mixed { direction, states }) => {
                    entry.state.replace(&states, var)?;
                    (direction, Changed::NONE)
                }
            };
            entry.state.step(&self.rule, rates, changed, var, &gradient)?;
        }
        self.n_updates = self.n_updates.saturating_add(1);
        if self.settings.is_none() {
            self.settings = Some(self.settings()?);
        }
        Ok(())
    }

    fn changed_gradients(&self, gradients: &GradStore, changes: &[Change]) -> Result<GradStore> {
        let mut changed = super::no_gradients()?;
        for step in self.prepare(gradients, changes)? {
            let var = self.entries[step.index].parameter.var();
            let gradient = state::changed(step.pending.changed, var, &step.pending.gradient)?;
            changed.insert(var, gradient.to_dtype(var.dtype())?);
        }
        Ok(changed)
    }

    fn bad_gradient(&self, gradients: &GradStore) -> Result<Option<String>> {
        let bad = self
            .fitting(gradients, &self.settings()?)?
            .into_iter()
            .find(|fitting| !fitting.largest.is_finite());
        Ok(bad.map(|Fitting { index, .. }| self.entries[index].path().to_owned()))
    }

    fn learning_rate(&self) -> f64 {
        self.learning_rate * self.schedule.as_ref().map_or(1.0, |schedule| schedule.at(self.n_updates))
    }

    fn base_learning_rate(&self) -> f64 {
        self.learning_rate
    }

    fn set_learning_rate(&mut self, learning_rate: f64) {
        self.learning_rate = learning_rate;
    }

    fn n_updates(&self) -> u64 {
        self.n_updates
    }

    fn set_n_updates(&mut self, n_updates: u64) {
        self.n_updates = n_updates;
    }

    fn get_states(&self) -> Result<Parameters> {
        let mut states = Vec::new();
        for entry in self.entries.values() {
            for (name, var) in entry.state.vars(&R::STATES, entry.parameter.var())? {
                states.push((state_path(entry.path(), name), Parameter::new(var, false)));
            }
        }
        Ok(states.into_iter().collect())
    }

    fn set_states(&mut self, states: &Parameters) -> Result<()> {
        let mut known = HashSet::<String>::default();
        let mut restored = Vec::with_capacity(self.entries.len());
        for entry in self.entries.values() {
            let mut found = None;
            for path in &entry.paths {
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
            let reason = "must belong to parameters that the solver was given by `set_parameters`";
            return Err(Error::invalid("states", reason, unknown));
        }
        self.n_updates = restored.iter().map(|state| u64::from(state.steps())).max().unwrap_or(0);
        for (entry, state) in self.entries.values_mut().zip(restored) {
            entry.state = state;
        }
        Ok(())
    }
}

/// Some of the paths, and the number of the remaining ones.
fn listed(parameters: &Parameters) -> String {
    const SHOWN: usize = 8;
    let shown: Vec<_> = parameters.paths().take(SHOWN).map(|path| format!("`{path}`")).collect();
    let shown = shown.join(", ");
    match parameters.len().saturating_sub(SHOWN) {
        0 => shown,
        rest => format!("{shown} and {rest} more"),
    }
}

fn alike(a: &Tensor, b: &Tensor) -> bool {
    a.dims() == b.dims() && a.dtype() == b.dtype() && a.device().same_device(b.device())
}

/// The gradient of an entry, and its largest element, which may not be finite.
struct Fitting {
    index: usize,
    gradient: Tensor,
    largest: f64,
}

/// The gradient, contiguous and in the type of the computation.
fn fitting(path: &str, parameter: &Parameter, gradient: &Tensor) -> Result<Tensor> {
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
    Ok(gradient.to_dtype(computed_in(var.dtype()))?.contiguous()?)
}

/// Checks that the step can handle a gradient with this largest element, to which the decay adds up to
/// `decayed`.
fn check_size<R: Rule<N>, const N: usize>(
    path: &str,
    var: &Tensor,
    largest: f64,
    decayed: f64,
) -> Result<()> {
    let narrow = computed_in(var.dtype()) == candle_core::DType::F32;
    // This also holds for sums of some hundred thousand squares.
    let limit = match (narrow, R::SQUARES) {
        (true, true) => 1e16,
        (false, true) => 1e150,
        (true, false) => f64::from(f32::MAX),
        (false, false) => f64::MAX,
    };
    if largest + decayed <= limit {
        return Ok(());
    }
    if largest <= limit {
        let reason = format!(
            "of `{path}` must have elements of at most {limit:e} after the weight decay, since the solver squares them; the \
             parameter itself is too large for this rate"
        );
        return Err(Error::invalid("gradient", reason, largest + decayed));
    }
    let squares = if R::SQUARES { ", since the solver squares them" } else { "" };
    let reason = format!(
        "of `{path}` must have elements of at most {limit:e}{squares}; `clip_grad_by_value` or `clip_grad_by_norm` limits them"
    );
    Err(Error::invalid("gradient", reason, largest))
}
