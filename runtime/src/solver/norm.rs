//! Norms of gradients, and scaling, without overflow.

use candle_core::Tensor;

use super::{Number, state};
use crate::{Error, Result};

/// The norm of a gradient of type f32 or f64 whose elements are first clipped to `[−limit, limit]`.
///
/// # Errors
/// If it is not finite.
pub(super) fn norm(path: &str, gradient: &Tensor, limit: f64) -> Result<f64> {
    finite(path, state::norm(gradient, limit)?)
}

/// Checks that the norm of the gradient of `path` is finite.
pub(super) fn finite(path: &str, norm: f64) -> Result<f64> {
    if norm.is_finite() {
        return Ok(norm);
    }
    let reason =
        format!("of `{path}` must have a norm that is finite in f64; `clip_grad_by_value` limits it");
    Err(Error::invalid("gradient", reason, norm))
}

/// The largest power of two that is at most a positive number and has a finite reciprocal.
fn power_of_two(x: f64) -> f64 {
    x.log2().floor().clamp(-1022.0, 1022.0).exp2()
}

/// A factor in two parts, whose product may be too small for the type of the computation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Scale {
    unit: f64,
    rest: f64,
}

impl Scale {
    pub(super) const NONE: Self = Self { unit: 1.0, rest: 1.0 };

    /// The factor that scales a vector from the norm `norm` to the norm `length`.
    pub(super) fn from_to(norm: f64, length: f64) -> Self {
        if length == norm {
            return Self::NONE;
        }
        let rest = length / norm;
        if rest > 1e-30 {
            return Self { unit: 1.0, rest };
        }
        // Both parts lie within the range of f32, which holds no longer gradient than that.
        let unit = power_of_two(norm).max(2f64.powi(-126));
        let unit = if norm < 2f64.powi(180) { unit.min(2f64.powi(126)) } else { unit };
        Self { unit: unit.recip(), rest: length / (norm / unit) }
    }

    /// This factor times another.
    pub(super) fn times(self, factor: f64) -> Self {
        let rest = self.rest * factor;
        // A factor that f32 cannot hold, times an element of any size.
        let unit = if rest != 0.0 && rest.abs() < 1e-30 { 2f64.powi(-60) } else { 1.0 };
        Self { unit: self.unit * unit, rest: rest / unit }
    }

    /// This factor with the sign of another.
    pub(super) fn signed(self, other: Self) -> Self {
        Self { rest: self.rest.copysign(other.rest), ..self }
    }

    /// A norm after scaling.
    pub(super) fn of(self, length: f64) -> f64 {
        (length * self.unit * self.rest).abs()
    }

    pub(super) fn apply<V: Number>(self, g: V) -> V {
        let g = if self.unit == 1.0 { g } else { g.scale(self.unit) };
        g.scale(self.rest)
    }
}
