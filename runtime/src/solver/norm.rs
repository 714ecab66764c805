//! Lengths of gradients, and factors that change them, without overflow.

use candle_core::Tensor;

use super::{Number, state};
use crate::{Error, Result};

/// The length of a gradient of type f32 or f64 whose elements are first moved into `[−limit, limit]`.
///
/// # Errors
/// If it is not finite.
pub(super) fn norm(path: &str, gradient: &Tensor, limit: f64) -> Result<f64> {
    let norm = state::norm(gradient, limit)?;
    if norm.is_finite() {
        return Ok(norm);
    }
    let reason =
        format!("of `{path}` must have a norm that is finite in f64; `clip_grad_by_value` limits it");
    Err(Error::invalid("gradient", reason, norm))
}

/// The largest power of two that is not above a positive number, as far as its reciprocal is finite.
fn power_of_two(x: f64) -> f64 {
    x.log2().floor().clamp(-1022.0, 1022.0).exp2()
}

/// A factor in two parts: their product may be too small for the type that it is computed in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Scale {
    unit: f64,
    rest: f64,
}

impl Scale {
    pub(super) const NONE: Self = Self { unit: 1.0, rest: 1.0 };

    /// Makes a vector of length `norm` one of length `length`, which is not larger.
    pub(super) fn from_to(norm: f64, length: f64) -> Self {
        if length >= norm {
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

    pub(super) fn apply<V: Number>(self, g: V) -> V {
        let g = if self.unit == 1.0 { g } else { g.scale(self.unit) };
        g.scale(self.rest)
    }
}
