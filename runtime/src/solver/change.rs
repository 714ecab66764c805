//! Changes of gradients before a rule sees them.

use candle_core::{Tensor, Var};

use super::norm::{Scale, norm};
use super::{Number, state};
use crate::{Error, Result, check};

/// A change of the gradients before the step, named after NNabla's methods.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Change {
    /// `g + r·w`, the gradient of `r / 2 · Σ w²`; `r` is at least 0. A solver whose step has its own decay,
    /// such as [`AdamW`](super::AdamW) or [`Lion`](super::Lion), uses `r` as the rate of that instead.
    WeightDecay(f64),
    /// Each element is clipped to `[−value, value]`. The value is above 0; infinity, as for the norms, means no
    /// limit.
    ClipByValue(f64),
    /// The gradient of each parameter is scaled down to this norm, if its norm is larger.
    ClipByNorm(f64),
    /// All gradients, taken as one vector, are scaled down to this norm, if their norm is larger.
    ClipByGlobalNorm(f64),
    /// `g·s`.
    Scale(f64),
}

impl Change {
    /// Checks the number.
    pub(super) fn check(self) -> Result<()> {
        let limit = |setter, limit: f64| match limit.is_nan() || limit <= 0.0 {
            true => Err(Error::invalid(setter, "must be above 0, or infinity for no limit", limit)),
            false => Ok(()),
        };
        match self {
            Self::WeightDecay(rate) => check::within("weight_decay", rate, 0.0..),
            Self::ClipByValue(value) => limit("clip_grad_by_value", value),
            Self::ClipByNorm(norm) => limit("clip_grad_by_norm", norm),
            Self::ClipByGlobalNorm(norm) => limit("clip_grad_by_global_norm", norm),
            Self::Scale(factor) => check::within("scale_grad", factor, ..),
        }
    }
}

/// Changes of one gradient, folded into one formula: `scale · min(max(g, −limit), limit) + decay · w`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Changed {
    limit: f64,
    scale: Scale,
    decay: f64,
}

impl Changed {
    pub(super) const NONE: Self = Self { limit: f64::INFINITY, scale: Scale::NONE, decay: 0.0 };

    pub(super) fn apply<V: Number>(&self, w: &V, g: V) -> V {
        self.scale.apply(g.limit(self.limit)) + w.clone().scale(self.decay)
    }
}

/// The gradient of one parameter on its way to the step.
pub(super) struct Pending {
    pub(super) gradient: Tensor,
    pub(super) changed: Changed,
    /// The largest element of the gradient.
    largest: f64,
    /// The norm of the gradient after the limit, once it has been computed.
    raw_norm: Option<f64>,
}

impl Pending {
    pub(super) fn new(gradient: Tensor, largest: f64) -> Self {
        Self { gradient, changed: Changed::NONE, largest, raw_norm: None }
    }

    /// An upper bound of the elements after the changes, apart from the decay.
    pub(super) fn largest(&self) -> f64 {
        self.changed.scale.of(self.largest.min(self.changed.limit))
    }

    /// The factor of the parameter that is added.
    pub(super) fn decay_rate(&self) -> f64 {
        self.changed.decay
    }

    pub(super) fn decay(&mut self, rate: f64) {
        self.changed.decay += rate;
    }

    pub(super) fn scale(&mut self, factor: f64) {
        self.changed.scale = self.changed.scale.times(factor);
        self.changed.decay *= factor;
    }

    pub(super) fn limit(&mut self, var: &Var, limit: f64) -> Result<()> {
        let Changed { scale, decay, .. } = self.changed;
        if limit == f64::INFINITY {
            return Ok(());
        }
        if scale != Scale::NONE || decay != 0.0 {
            let gradient = state::changed(self.changed, var, &self.gradient)?;
            *self = Self::new(gradient.clone(), state::largest(&gradient)?);
        }
        self.changed.limit = self.changed.limit.min(limit);
        self.raw_norm = None;
        Ok(())
    }

    /// The norm after the changes so far.
    pub(super) fn norm(&mut self, path: &str, var: &Var) -> Result<f64> {
        if self.changed.decay != 0.0 {
            let norm = state::changed_norm(self.changed, var, &self.gradient)?;
            return super::norm::finite(path, norm);
        }
        let raw = match self.raw_norm {
            Some(norm) => norm,
            None => norm(path, &self.gradient, self.changed.limit)?,
        };
        self.raw_norm = Some(raw);
        Ok(self.changed.scale.of(raw))
    }

    /// Scales the gradient from the norm `norm` to `length`, which is not larger.
    pub(super) fn shorten(&mut self, norm: f64, length: f64) {
        if length >= norm {
            return;
        }
        match self.raw_norm {
            Some(raw) if self.changed.decay == 0.0 => {
                self.changed.scale = Scale::from_to(raw, length).signed(self.changed.scale);
            }
            _ => self.scale(length / norm),
        }
    }
}
