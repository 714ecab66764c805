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

    fn compare_with(&self, other: &Self, f: impl FnOnce(&Tensor, &Tensor) -> Result<Tensor>) -> Self {
        self.compare(|x| f(x, &other.clone().0?))
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

    /// The second term is what rounding has taken from `1 + x`; nothing from 0 and infinity.
    fn ln_1p(self) -> Self {
        let sum = self.clone().offset(1.0);
        let lost = (self - sum.clone().offset(-1.0)) / sum.clone();
        let zero = lost.constant(0.0);
        sum.ln() + Self::select(lost.equals(&lost), || lost.clone(), || zero)
    }

    fn ln(self) -> Self {
        self.map(|x| x.log())
    }

    fn tanh(self) -> Self {
        self.map(|x| x.tanh())
    }

    fn sin(self) -> Self {
        self.map(|x| x.sin())
    }

    fn cos(self) -> Self {
        self.map(|x| x.cos())
    }

    fn erf(self) -> Self {
        self.map(|x| x.erf())
    }

    fn powf(self, exponent: f64) -> Self {
        self.map(|x| x.powf(exponent))
    }

    /// `e^(exponent log |x|)`, with the sign of `x` where the exponent is an odd integer.
    fn pow(self, exponent: Self) -> Self {
        let size = (exponent.clone() * self.clone().abs().ln()).exp();
        let one = exponent.constant(1.0);
        let size = Self::select(exponent.equals(&exponent.constant(0.0)), || one, || size);
        let is_whole = |x: Self| x.clone().floor().equals(&x);
        let (even, whole) = (is_whole(exponent.clone().scale(0.5)), is_whole(exponent));
        let signed = Self::select(even, || size.clone(), || size.clone().negative());
        let of_negative = Self::select(whole, || signed, || size.constant(f64::NAN));
        Self::select(self.below(0.0), || of_negative, || size.clone())
    }

    fn floor(self) -> Self {
        self.map(|x| x.floor())
    }

    fn ceil(self) -> Self {
        self.map(|x| x.ceil())
    }

    fn round(self) -> Self {
        self.map(|x| x.round())
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

    fn exceeds(&self, other: &Self) -> Self {
        self.compare_with(other, |x, other| x.gt(other))
    }

    fn reaches(&self, other: &Self) -> Self {
        self.compare_with(other, |x, other| x.ge(other))
    }

    fn equals(&self, other: &Self) -> Self {
        self.compare_with(other, |x, other| x.eq(other))
    }

    fn select(mask: Self, yes: impl FnOnce() -> Self, no: impl FnOnce() -> Self) -> Self {
        mask.map(|mask| mask.where_cond(&yes().0?, &no().0?))
    }
}
