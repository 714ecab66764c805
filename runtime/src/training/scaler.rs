//! Scales losses so that small gradients do not vanish.

use candle_core::Tensor;

use super::part::{Part, gather, scatter};
use crate::solver::{Change, Solver};
use crate::{Error, Parameters, Result, backward, check};

/// Multiplies the loss before the backward pass and divides the gradients after it, so that gradients in half
/// precision are not rounded to 0. The factor adapts: it is reduced when a gradient is not finite, and
/// increased after many good steps.
///
/// This follows NNabla's `DynamicLossScalingUpdater` and its defaults: the factor starts at 8, is halved before
/// a step is retried, and is doubled in the step after more than 2000 good ones in a row. After 100 retries,
/// NNabla silently gives up, while this returns an error.
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
    /// How often a step is retried.
    const TRIES: usize = 100;

    /// A scaler with NNabla's defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the initial factor, above 0. Default: 8.
    #[must_use]
    pub fn start(mut self, scale: f64) -> Self {
        self.scale = scale;
        self
    }

    /// Sets the number that the factor is divided or multiplied by, above 1. Default: 2.
    #[must_use]
    pub fn scaling_factor(mut self, factor: f64) -> Self {
        self.factor = factor;
        self
    }

    /// Sets the number of good steps after which the factor grows. Default: 2000.
    #[must_use]
    pub fn interval(mut self, steps: u64) -> Self {
        self.interval = steps;
        self
    }

    /// The current factor.
    #[must_use]
    pub fn scale(&self) -> f64 {
        self.scale
    }

    /// Runs one step: computes the loss and its gradients until they are finite, and updates. The changes of
    /// the solver are applied after the division. Returns the unscaled loss.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if a setting is out of range, or a gradient is still not finite after 100
    /// retries; it names the parameter. Also those of `loss` and of [`Solver::update`].
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
