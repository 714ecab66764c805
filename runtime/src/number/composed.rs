//! Formulas in operations of candle.

use std::ops::{Add, Div, Mul, Sub};

use candle_core::{DType, Result, Tensor};

use super::Number;

/// All elements of a tensor of type f32 or f64, where no kernel of ours runs. The first error is kept.
pub(crate) struct Composed(pub(crate) Result<Tensor>);

impl Composed {
    fn map(self, f: impl FnOnce(Tensor) -> Result<Tensor>) -> Self {
        Self(self.0.and_then(f))
    }

    fn compare(&self, f: impl FnOnce(&Tensor) -> Result<Tensor>) -> Self {
        self.clone().map(|x| f(&x))
    }
}

impl From<&Tensor> for Composed {
    fn from(tensor: &Tensor) -> Self {
        Self(Ok(tensor.clone()))
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

/// The operators, between tensors whose shapes may differ where one has size 1.
macro_rules! operators {
    ($($Trait:ident $method:ident $broadcast:ident),+) => {
        $(
            impl $Trait for Composed {
                type Output = Self;

                fn $method(self, other: Self) -> Self {
                    Self(self.0.and_then(|a| {
                        let b = other.0?;
                        if a.shape() == b.shape() { a.$method(&b) } else { a.$broadcast(&b) }
                    }))
                }
            }
        )+
    };
}

operators!(Add add broadcast_add, Sub sub broadcast_sub, Mul mul broadcast_mul, Div div broadcast_div);

fn full(like: &Tensor, value: f64) -> Result<Tensor> {
    match like.dtype() {
        DType::F32 => Tensor::full(value as f32, like.shape(), like.device()),
        _ => Tensor::full(value, like.shape(), like.device()),
    }
}

impl Number for Composed {
    /// 1 where the comparison holds, else 0.
    type Mask = Self;

    fn constant(&self, value: f64) -> Self {
        self.clone().map(|x| full(&x, value))
    }

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

    fn abs(self) -> Self {
        self.map(|x| x.abs())
    }

    fn exp(self) -> Self {
        self.map(|x| x.exp())
    }

    /// `tanh(x / 2) (e^x + 1)`.
    fn exp_m1(self) -> Self {
        self.clone().scale(0.5).tanh() * self.exp().offset(1.0)
    }

    /// The second term is what rounding has taken from `1 + x`.
    fn ln_1p(self) -> Self {
        let sum = self.clone().offset(1.0);
        sum.clone().map(|sum| sum.log()) + (self - sum.clone().offset(-1.0)) / sum
    }

    fn tanh(self) -> Self {
        self.map(|x| x.tanh())
    }

    fn above(&self, limit: f64) -> Self {
        self.compare(|x| x.gt(limit))
    }

    fn at_least(&self, limit: f64) -> Self {
        self.compare(|x| x.ge(limit))
    }

    fn below(&self, limit: f64) -> Self {
        self.compare(|x| x.lt(limit))
    }

    fn at_most(&self, limit: f64) -> Self {
        self.compare(|x| x.le(limit))
    }

    fn select(mask: Self, yes: impl FnOnce() -> Self, no: impl FnOnce() -> Self) -> Self {
        mask.map(|mask| mask.where_cond(&yes().0?, &no().0?))
    }
}
