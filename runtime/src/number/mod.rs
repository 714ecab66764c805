//! What a formula computes with: it stands once, and becomes the kernel of the CPU, a composition of candle's operations, or
//! a kernel for CUDA.

mod composed;
mod looped;
mod traced;

use std::ops::{Add, Div, Mul, Sub};

pub(crate) use composed::Composed;
pub(crate) use looped::{Looped, looped, unlooped};
pub(crate) use traced::{Traced, fused_map, fused_stacked};

use candle_core::{Result, Tensor};

use crate::kernels::Float;

/// A formula of `A` numbers, and `N` more.
pub(crate) trait Formula<const A: usize, const N: usize> {
    fn of<V: Number>(&self, first: [V; A], more: [V; N]) -> V;
}

/// The results of a formula for all elements, where the kernels of the CPU do not run. The first tensor has the shape of the
/// result; the others have it, too, or all of these have size 1 on some axes and one shape.
pub(crate) fn evaluate<const A: usize, const N: usize>(
    formula: &impl Formula<A, N>,
    first: [&Tensor; A],
    more: [&Tensor; N],
) -> Result<Tensor> {
    match fused_map(first, more, &|first, more| vec![formula.of(first, more)])? {
        Some(results) => results.squeeze(0),
        None => formula.of(first.map(Composed::from), more.map(Composed::from)).0,
    }
}

/// An element, or all of them at once: a formula, such as the step of a [`Rule`](crate::solver::Rule), is written once for
/// both.
pub trait Number:
    Clone + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self>
{
    /// The answers to a comparison.
    type Mask: Clone;

    /// `value`, whatever `self` is.
    #[must_use]
    fn constant(&self, value: f64) -> Self;

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

    /// `|self|`.
    #[must_use]
    fn abs(self) -> Self;

    /// `e^self`.
    #[must_use]
    fn exp(self) -> Self;

    /// `e^self − 1`, exact near 0, too.
    #[must_use]
    fn exp_m1(self) -> Self;

    /// `log(1 + self)`, exact near 0, too.
    #[must_use]
    fn ln_1p(self) -> Self;

    /// The natural logarithm.
    #[must_use]
    fn ln(self) -> Self;

    /// The hyperbolic tangent.
    #[must_use]
    fn tanh(self) -> Self;

    /// The sine.
    #[must_use]
    fn sin(self) -> Self;

    /// The cosine.
    #[must_use]
    fn cos(self) -> Self;

    /// The error function, `2 / √π` times the integral of `e^(−t²)` from 0 to `self`.
    #[must_use]
    fn erf(self) -> Self;

    /// `self^exponent`.
    #[must_use]
    fn powf(self, exponent: f64) -> Self;

    /// `self^exponent`.
    #[must_use]
    fn pow(self, exponent: Self) -> Self;

    /// The largest integer that is not larger.
    #[must_use]
    fn floor(self) -> Self;

    /// The smallest integer that is not smaller.
    #[must_use]
    fn ceil(self) -> Self;

    /// The nearest integer, halves away from zero.
    #[must_use]
    fn round(self) -> Self;

    /// Whether `self > limit`.
    fn above(&self, limit: f64) -> Self::Mask;

    /// Whether `self ≥ limit`.
    fn at_least(&self, limit: f64) -> Self::Mask;

    /// Whether `self < limit`.
    fn below(&self, limit: f64) -> Self::Mask;

    /// Whether `self ≤ limit`.
    fn at_most(&self, limit: f64) -> Self::Mask;

    /// Whether `self > other`.
    fn exceeds(&self, other: &Self) -> Self::Mask;

    /// Whether `self ≥ other`.
    fn reaches(&self, other: &Self) -> Self::Mask;

    /// Whether `self = other`.
    fn equals(&self, other: &Self) -> Self::Mask;

    /// `yes` where `mask` holds, `no` elsewhere; the value that is not taken may be infinite or NaN, or not be computed.
    #[must_use]
    fn select(mask: Self::Mask, yes: impl FnOnce() -> Self, no: impl FnOnce() -> Self) -> Self;

    /// `−self`.
    #[must_use]
    fn negative(self) -> Self {
        self.scale(-1.0)
    }

    /// `1 − self`.
    #[must_use]
    fn complement(self) -> Self {
        self.negative().offset(1.0)
    }

    /// The larger of two numbers.
    #[must_use]
    fn larger(self, other: Self) -> Self {
        let mask = (self.clone() - other.clone()).at_least(0.0);
        Self::select(mask, || self, || other)
    }

    /// The nearest value in `[low, high]`, where `low` is not above `high`.
    #[must_use]
    fn between(self, low: f64, high: f64) -> Self {
        let (least, most) = (self.constant(low), self.constant(high));
        let (is_low, is_high) = (self.below(low), self.above(high));
        Self::select(is_low, || least, || Self::select(is_high, || most, || self))
    }

    /// 1, 0 or −1, as `self` is above 0, 0, or below 0.
    #[must_use]
    fn sign(self) -> Self {
        let [plus, minus, zero] = [1.0, -1.0, 0.0].map(|value| self.constant(value));
        let (above, below) = (self.above(0.0), self.below(0.0));
        Self::select(above, || plus, || Self::select(below, || minus, || zero))
    }

    /// `1 / (1 + e^−self)` without overflow.
    #[must_use]
    fn sigmoid(self) -> Self {
        let small = self.clone().abs().negative().exp();
        let (one, numerator) = (self.constant(1.0), small.clone());
        Self::select(self.at_least(0.0), || one, || numerator) / small.offset(1.0)
    }

    /// 1 where `mask` holds, 0 elsewhere.
    #[must_use]
    fn indicator(&self, mask: Self::Mask) -> Self {
        let (one, zero) = (self.constant(1.0), self.constant(0.0));
        Self::select(mask, || one, || zero)
    }

    /// The sum of `coefficients[i] · self^i`.
    #[must_use]
    fn polynomial(&self, coefficients: &[f64]) -> Self {
        let Some((&highest, lower)) = coefficients.split_last() else { return self.constant(0.0) };
        let start = self.constant(highest);
        lower.iter().rev().fold(start, |sum, &coefficient| (sum * self.clone()).offset(coefficient))
    }

    /// The arc tangent, by the rational function of the Cephes library.
    #[must_use]
    fn atan(self) -> Self {
        use std::f64::consts::{FRAC_PI_2, FRAC_PI_4};
        const ABOVE: [f64; 5] = [
            -6.485_021_904_942_025e1,
            -1.228_866_684_490_136_2e2,
            -7.500_855_792_314_705e1,
            -1.615_753_718_733_365e1,
            -8.750_608_600_031_904e-1,
        ];
        const BELOW: [f64; 6] = [
            1.945_506_571_482_614e2,
            4.853_903_996_359_137e2,
            4.328_810_604_912_903e2,
            1.650_270_098_316_988_5e2,
            2.485_846_490_142_306_3e1,
            1.0,
        ];
        /// `tan(3π/8)`.
        const FAR: f64 = 2.414_213_562_373_095;
        const NEAR: f64 = 0.66;
        let size = self.clone().abs();
        let (zero, one) = (size.constant(0.0), size.constant(1.0));
        let (flat, turned) = ((one.clone() / size.clone()).negative(), size.clone().offset(-1.0));
        let middle = turned / size.clone().offset(1.0);
        let (far, near) = (size.above(FAR), size.at_most(NEAR));
        let t = Self::select(near.clone(), || size.clone(), || middle);
        let t = Self::select(far.clone(), || flat, || t);
        let angle = Self::select(near, || zero.clone(), || zero.constant(FRAC_PI_4));
        let angle = Self::select(far, || zero.constant(FRAC_PI_2), || angle);
        let square = t.clone() * t.clone();
        let quotient = square.polynomial(&ABOVE) / square.polynomial(&BELOW);
        let angle = angle + (t.clone() * square * quotient + t);
        Self::select(self.below(0.0), || angle.clone().negative(), || angle.clone())
    }
}

impl<T: Float> Number for T {
    type Mask = bool;

    #[inline(always)]
    fn constant(&self, value: f64) -> Self {
        T::of(value)
    }

    #[inline(always)]
    fn scale(self, factor: f64) -> Self {
        self * T::of(factor)
    }

    #[inline(always)]
    fn offset(self, term: f64) -> Self {
        self + T::of(term)
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        Float::sqrt(self)
    }

    #[inline(always)]
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

    #[inline(always)]
    fn abs(self) -> Self {
        Float::abs(self)
    }

    #[inline(always)]
    fn exp(self) -> Self {
        Float::exp(self)
    }

    #[inline(always)]
    fn exp_m1(self) -> Self {
        Float::exp_m1(self)
    }

    #[inline(always)]
    fn ln_1p(self) -> Self {
        Float::ln_1p(self)
    }

    #[inline(always)]
    fn tanh(self) -> Self {
        Float::tanh(self)
    }

    #[inline(always)]
    fn ln(self) -> Self {
        Float::ln(self)
    }

    #[inline(always)]
    fn sin(self) -> Self {
        Float::sin(self)
    }

    #[inline(always)]
    fn cos(self) -> Self {
        Float::cos(self)
    }

    #[inline(always)]
    fn erf(self) -> Self {
        Float::erf(self)
    }

    #[inline(always)]
    fn floor(self) -> Self {
        Float::floor(self)
    }

    #[inline(always)]
    fn ceil(self) -> Self {
        Float::ceil(self)
    }

    #[inline(always)]
    fn round(self) -> Self {
        Float::round(self)
    }

    #[inline(always)]
    fn powf(self, exponent: f64) -> Self {
        Float::powf(self, T::of(exponent))
    }

    #[inline(always)]
    fn pow(self, exponent: Self) -> Self {
        Float::powf(self, exponent)
    }

    #[inline(always)]
    fn above(&self, limit: f64) -> bool {
        *self > T::of(limit)
    }

    #[inline(always)]
    fn at_least(&self, limit: f64) -> bool {
        *self >= T::of(limit)
    }

    #[inline(always)]
    fn below(&self, limit: f64) -> bool {
        *self < T::of(limit)
    }

    #[inline(always)]
    fn at_most(&self, limit: f64) -> bool {
        *self <= T::of(limit)
    }

    #[inline(always)]
    fn exceeds(&self, other: &Self) -> bool {
        self > other
    }

    #[inline(always)]
    fn reaches(&self, other: &Self) -> bool {
        self >= other
    }

    #[inline(always)]
    fn equals(&self, other: &Self) -> bool {
        self == other
    }

    #[inline(always)]
    fn select(mask: bool, yes: impl FnOnce() -> Self, no: impl FnOnce() -> Self) -> Self {
        if mask { yes() } else { no() }
    }

    #[inline(always)]
    fn negative(self) -> Self {
        -self
    }

    #[inline(always)]
    fn sigmoid(self) -> Self {
        Float::sigmoid(self)
    }
}
