//! What a rule computes with.

use std::ops::{Add, Div, Mul, Sub};

use candle_core::{Result, Tensor};

use crate::kernels::Float;

/// An element of a parameter, or all of them at once: a [`Rule`](super::Rule) is written once for both.
pub trait Number:
    Clone + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self>
{
    /// `self · factor`.
    #[must_use]
    fn scale(self, factor: f64) -> Self;

    /// `self + term`.
    #[must_use]
    fn offset(self, term: f64) -> Self;

    /// `√self`.
    #[must_use]
    fn sqrt(self) -> Self;

    /// The nearest value in `[−limit, limit]`.
    #[must_use]
    fn limit(self, limit: f64) -> Self;
}

impl<T: Float> Number for T {
    fn scale(self, factor: f64) -> Self {
        self * T::of(factor)
    }

    fn offset(self, term: f64) -> Self {
        self + T::of(term)
    }

    fn sqrt(self) -> Self {
        Float::sqrt(self)
    }

    fn limit(self, limit: f64) -> Self {
        let limit = T::of(limit);
        if self > limit {
            limit
        } else if self < -limit {
            -limit
        } else {
            self
        }
    }
}

/// A tensor where no kernel of ours runs; the first error is kept.
pub(super) struct Composed(pub(super) Result<Tensor>);

impl Composed {
    fn map(self, f: impl FnOnce(Tensor) -> Result<Tensor>) -> Self {
        Self(self.0.and_then(f))
    }
}

impl Clone for Composed {
    fn clone(&self) -> Self {
        Self(match &self.0 {
            Ok(tensor) => Ok(tensor.clone()),
            Err(error) => Err(candle_core::Error::msg(error)),
        })
    }
}

macro_rules! operators {
    ($($Trait:ident $method:ident),+) => {
        $(
            impl $Trait for Composed {
                type Output = Self;

                fn $method(self, other: Self) -> Self {
                    Self(self.0.and_then(|a| a.$method(&other.0?)))
                }
            }
        )+
    };
}

operators!(Add add, Sub sub, Mul mul, Div div);

impl Number for Composed {
    fn scale(self, factor: f64) -> Self {
        self.map(|x| x.affine(factor, 0.0))
    }

    fn offset(self, term: f64) -> Self {
        self.map(|x| x.affine(1.0, term))
    }

    fn sqrt(self) -> Self {
        self.map(|x| x.sqrt())
    }

    fn limit(self, limit: f64) -> Self {
        self.map(|x| x.clamp(-limit, limit))
    }
}
