//! Losses that are scaled so that small gradients do not vanish.

use candle_core::Tensor;

use super::part::{Part, gather, scatter};
use crate::solver::{Change, Solver};
use crate::{Error, Parameters, Result, backward, check};

/// Multiplies the loss before the backward pass and divides the gradients after it, so that those of half precisions are not
/// rounded to 0. The factor follows the training: a gradient that is not finite divides it, and many good steps multiply it.
///
/// These are the steps of NNabla's `DynamicLossScalingUpdater`, with its defaults: it starts at 8, is halved before a step is tried
/// again, and doubled in the step after more than 2000 good ones in a row. Where NNabla gives up after 100 tries without a
/// word, this is an error.
///
/// ```
/// use layerfn::{prelude::*, solver::Sgd, training::LossScaler};
///
/// let x = Tensor::ones((4, 3), DType::F16, &Device::Cpu)?;
/// let loss = || -> Result<Tensor> { Ok(affine(&x, 2).call()?.sqr()?.mean_all()?) };
/// loss()?;
/// let mut solver = Sgd::new(0.1);
/// solver.set_parameters(&get_parameters());
/// let mut scaler = LossScaler::new();
/// for _ in 0..3 {
///     scaler.update(&mut solver, &mut || loss())?;
/// }
/// assert_eq!(scaler.scale(), 8.0);
/// # Ok::<(), layerfn::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct LossScaler {
    scale: f64,
    factor: f64,
    interval: u64,
    counter: u64,
}

impl Default for LossScaler {
    fn default() -> Self {
        Self { scale: 8.0, factor: 2.0, interval: 2000, counter: 0 }
    }
}

impl LossScaler {
    /// How often a step is tried again.
    const TRIES: usize = 100;

    /// A scaler with NNabla's defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The first factor, above 0. Default: 8.
    #[must_use]
    pub fn start(mut self, scale: f64) -> Self {
        self.scale = scale;
        self
    }

    /// By what the factor is divided and multiplied, above 1. Default: 2.
    #[must_use]
    pub fn scaling_factor(mut self, factor: f64) -> Self {
        self.factor = factor;
        self
    }

    /// How many good steps come before it grows. Default: 2000.
    #[must_use]
    pub fn interval(mut self, steps: u64) -> Self {
        self.interval = steps;
        self
    }

    /// The factor.
    #[must_use]
    pub fn scale(&self) -> f64 {
        self.scale
    }

    /// One step: computes the loss and its gradients until they are finite, and updates. The changes of the solver come after
    /// the division. Returns the loss, not scaled.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if a setting is out of its range, or a gradient is still not finite after 100 more tries; it names
    /// the parameter. And those of `loss` and of [`Solver::update`].
    pub fn update(
        &mut self,
        solver: &mut dyn Solver,
        loss: &mut dyn FnMut() -> Result<Tensor>,
    ) -> Result<Tensor> {
        check::positive("start", self.scale)?;
        check::within(
            "scaling_factor",
            self.factor,
            (std::ops::Bound::Excluded(1.0), std::ops::Bound::Unbounded),
        )?;
        let mut tries = 0;
        loop {
            let unscaled = loss()?;
            let gradients = backward((&unscaled * self.scale)?)?;
            let Some(path) = solver.bad_gradient(&gradients)? else {
                let changes = [&[Change::Scale(self.scale.recip())], solver.changes()].concat();
                solver.update_with(&gradients, &changes)?;
                self.count();
                return Ok(unscaled);
            };
            self.counter = 0;
            if tries == Self::TRIES {
                let reason =
                    format!("of `{path}` must be finite after {tries} tries with smaller and smaller scales");
                return Err(Error::invalid("gradient", reason, self.scale));
            }
            self.scale /= self.factor;
            tries += 1;
        }
    }

    /// As in NNabla, the step in which the factor grows is the first of the next ones.
    fn count(&mut self) {
        if self.counter > self.interval {
            self.scale *= self.factor;
            self.counter = 0;
        }
        self.counter += 1;
    }
}

impl Part for LossScaler {
    fn state(&self) -> Result<Parameters> {
        gather(&[("scale", &self.scale), ("counter", &self.counter)])
    }

    fn set_state(&mut self, state: &Parameters) -> Result<()> {
        scatter(state, &mut [("scale", &mut self.scale), ("counter", &mut self.counter)])
    }
}
