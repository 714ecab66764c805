//! Watches a training for common problems.

use std::collections::HashMap;

use candle_core::Tensor;
use candle_core::backprop::GradStore;

use crate::network::audit::{elements, fault};
use crate::network::diagnosis::{Diagnosis, Place, Symptom};
use crate::network::examine::{add_disproportions, fingerprint, is_finite, is_weight, norm, relative_size};
use crate::{GradientFault, Parameter, ParameterStore, Result};

/// A step whose norm, divided by that of its parameter, exceeds this is too large.
const LARGE_STEP: f64 = 0.5;
/// A step whose norm, divided by that of its parameter, is below this is lost in the rounding of `f32`.
const SMALL_STEP: f64 = 1e-7;
/// How often a symptom that may be a coincidence has to be seen before it is reported.
const OFTEN: u64 = 3;

/// Watches a training for parameters without gradients, numbers that are not finite, gradients that explode or
/// vanish, steps that are too large or too small for the weights, and frozen parts that change.
///
/// Wrap the update in [`watch`](Self::watch). In every hundredth step, or as often as [`every`](Self::every)
/// says, it looks at all gradients and at the changes of the update; in the other steps it only reads the loss.
/// Each finding is reported once for each path. [`Model::check`](crate::Model::check) with the same batch says
/// more, such as the stage that makes NaN.
///
/// ```
/// use layerfn::{prelude::*, solver::Sgd, training::Doctor};
///
/// let net = network! { fc1: affine(8) -> tanh -> fc2: affine(1) };
/// let x = (Tensor::arange(0f32, 24., &Device::Cpu)?.reshape((6, 4))? / 24.)?;
/// let model = net.init(&x)?;
/// let mut solver = Sgd::new(50.0); // far too much
/// solver.set_parameters(&model.parameters());
///
/// let mut doctor = Doctor::new(model.store());
/// let loss = model.forward(&x)?.sqr()?.mean_all()?;
/// let gradients = backward(&loss)?;
/// doctor.watch(&loss, &gradients, || solver.update(&gradients))?;
/// assert!(doctor.diagnosis().to_string().contains("lower the learning rate"));
/// # Ok::<(), layerfn::Error>(())
/// ```
#[derive(Debug)]
pub struct Doctor {
    store: ParameterStore,
    every: u64,
    n_steps: u64,
    n_looks: u64,
    histories: HashMap<String, History>,
    diagnosis: Diagnosis,
}

/// What has been seen of a parameter so far.
#[derive(Debug, Default)]
struct History {
    /// Fingerprint of its values, if it was frozen when last looked at.
    frozen: Option<u64>,
    /// How often in a row its gradient was missing or zero.
    n_lost: u64,
    /// Whether it was all zeros once; the length of its steps says little then.
    was_zero: bool,
    /// The largest step so far.
    largest_step: f64,
}

/// A trained parameter before the update, and its values if their change matters.
struct Before {
    place: Place,
    parameter: Parameter,
    values: Option<Vec<f64>>,
}

impl Doctor {
    /// Watches the parameters of `store`, such as [`Model::store`](crate::Model::store) or
    /// [`ParameterStore::current`].
    #[must_use]
    pub fn new(store: &ParameterStore) -> Self {
        Self {
            store: store.clone(),
            every: 100,
            n_steps: 0,
            n_looks: 0,
            histories: HashMap::new(),
            diagnosis: Diagnosis::default(),
        }
    }

    /// Looks at every `n`th step, starting with the first; 0 disables the doctor.
    #[must_use]
    pub fn every(self, n: u64) -> Self {
        Self { every: n, ..self }
    }

    /// Runs `update`, which should change the parameters by `gradients`, the gradients of `loss`, and returns
    /// its result.
    ///
    /// # Errors
    /// Those of `update`; if a gradient is not finite, that is among the findings then.
    pub fn watch<T>(
        &mut self,
        loss: &Tensor,
        gradients: &GradStore,
        update: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        if self.every == 0 {
            return update();
        }
        if !is_finite(loss)? {
            self.diagnosis.add(Place::outside("loss").finding(Symptom::LossNotFinite));
        }
        let looks = self.n_steps.is_multiple_of(self.every);
        self.n_steps += 1;
        if !looks {
            let updated = update();
            if updated.is_err() {
                self.look_at_gradients(gradients)?;
            }
            return updated;
        }
        self.n_looks += 1;
        self.look_at_frozen()?;
        let before = self.look_at_gradients(gradients)?;
        let updated = update()?;
        self.look_at_steps(before)?;
        Ok(updated)
    }

    /// The findings so far.
    #[must_use]
    pub fn diagnosis(&self) -> &Diagnosis {
        &self.diagnosis
    }

    fn place(&self, path: &str) -> Place {
        Place { at: self.store.created_at(path), ..Place::outside(path) }
    }

    fn look_at_frozen(&mut self) -> Result<()> {
        for (path, parameter) in self.store.parameters() {
            let now = if parameter.is_frozen() { Some(fingerprint(&parameter)?) } else { None };
            let history = self.histories.entry(path.clone()).or_default();
            let before = std::mem::replace(&mut history.frozen, now);
            if before.zip(now).is_some_and(|(before, now)| before != now) {
                let place = self.place(&path);
                self.diagnosis.add(place.finding(Symptom::FrozenChanged));
            }
        }
        Ok(())
    }

    fn look_at_gradients(&mut self, gradients: &GradStore) -> Result<Vec<Before>> {
        let (mut all, mut sizes) = (Vec::new(), Vec::new());
        for (path, parameter) in self.store.parameters() {
            if !parameter.need_grad() || parameter.is_frozen() {
                continue;
            }
            let place = self.place(&path);
            let fault = fault(gradients.get(parameter.var()))?;
            let history = self.histories.entry(path).or_default();
            let is_lost = matches!(fault, Some(GradientFault::Missing | GradientFault::Zero));
            history.n_lost = if is_lost { history.n_lost + 1 } else { 0 };
            let n_lost = history.n_lost;
            if !is_finite(parameter.var())? {
                self.diagnosis.add(place.clone().finding(Symptom::ParameterNotFinite));
            }
            match fault {
                Some(GradientFault::NotFinite) => {
                    let symptom = Symptom::GradientNotFinite { parameter: place.path.clone() };
                    self.diagnosis.add(place.clone().finding(symptom));
                }
                Some(fault) if n_lost >= OFTEN => {
                    self.diagnosis.add(place.clone().finding(Symptom::NoGradient { fault, lost_in: None }));
                }
                _ => {}
            }
            if let Some(ratio) = relative_size(&parameter, gradients)? {
                sizes.push((place.clone(), ratio));
            }
            let values = if fault.is_none() && is_weight(&parameter) {
                Some(elements(parameter.var())?)
            } else {
                None
            };
            all.push(Before { place, parameter, values });
        }
        add_disproportions(sizes, &mut self.diagnosis);
        Ok(all)
    }

    fn look_at_steps(&mut self, before: Vec<Before>) -> Result<()> {
        for Before { place, parameter, values } in before {
            let Some(values) = values else { continue };
            let after = elements(parameter.var())?;
            let step: Vec<f64> = after.iter().zip(&values).map(|(after, before)| after - before).collect();
            let (length, step) = (norm(&values), norm(&step));
            let history = self.histories.entry(place.path.clone()).or_default();
            history.was_zero |= length == 0.0;
            let ratio = step / length;
            if history.was_zero || !ratio.is_finite() {
                continue;
            }
            history.largest_step = history.largest_step.max(ratio);
            let largest = history.largest_step;
            if ratio > LARGE_STEP {
                self.diagnosis.add(place.finding(Symptom::StepTooLarge { ratio }));
            } else if largest < SMALL_STEP && self.n_looks >= OFTEN {
                self.diagnosis.add(place.finding(Symptom::StepTooSmall { ratio: largest }));
            }
        }
        Ok(())
    }
}
