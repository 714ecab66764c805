//! The element types that the kernels are written for.

use std::fmt::Debug;
use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub};

use super::math;
use super::simd::Vectorized;

/// `f32` or `f64`.
pub(crate) trait Float:
    Copy
    + Debug
    + Default
    + PartialOrd
    + Send
    + Sync
    + 'static
    + Add<Output = Self>
    + AddAssign
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + Vectorized
{
    const ZERO: Self;
    const ONE: Self;
    /// Signed: processors compare such vectors.
    type Bits: Copy + Default + Ord;

    fn of(value: f64) -> Self;
    fn wide(self) -> f64;
    fn abs(self) -> Self;
    fn exp(self) -> Self;
    fn exp_m1(self) -> Self;
    fn is_nan(self) -> bool;
    fn ln(self) -> Self;
    fn sin(self) -> Self;
    fn cos(self) -> Self;
    fn erf(self) -> Self;
    fn powf(self, exponent: Self) -> Self;
    fn floor(self) -> Self;
    fn ceil(self) -> Self;
    fn log2(self) -> Self;
    /// To the nearest integer, halves away from zero.
    fn round(self) -> Self;
    fn ln_1p(self) -> Self;
    fn sqrt(self) -> Self;
    fn tanh(self) -> Self;

    /// [`tanh`](Self::tanh) in a loop whose vectors are [`FUSED`](super::simd::Simd::FUSED).
    #[inline(always)]
    fn tanh_in<const FUSED: bool>(self) -> Self {
        self.tanh()
    }

    /// [`exp`](Self::exp) in such a loop, for arguments up to 88; results below 2^-125 are 0.
    #[inline(always)]
    fn exp_in<const FUSED: bool>(self) -> Self {
        self.exp()
    }

    /// [`sigmoid`](Self::sigmoid) in such a loop; results below 2^-125 are not exact.
    #[inline(always)]
    fn sigmoid_in<const FUSED: bool>(self) -> Self {
        self.sigmoid()
    }
    /// The larger of the two; the other one if one is NaN.
    fn max(self, other: Self) -> Self;

    /// The bits of `|self|` as a number: they are in the order of the magnitudes, infinity above what is finite and NaN above
    /// infinity. So the largest of several is found without a comparison of numbers that may be NaN.
    fn magnitude(self) -> Self::Bits;
    /// The number whose [`magnitude`](Self::magnitude) this is.
    fn of_magnitude(bits: Self::Bits) -> Self;

    /// `self * factor + addend`, rounded once where the target's instructions do so anyway.
    fn mul_add_if_fast(self, factor: Self, addend: Self) -> Self;

    /// `1 / (1 + exp(-x))` without overflow.
    #[inline(always)]
    fn sigmoid(self) -> Self {
        let small = (-self.abs()).exp();
        // Not one branch for each sign: a loop over this is to have none.
        (if self >= Self::ZERO { Self::ONE } else { small }) / (Self::ONE + small)
    }
}

macro_rules! float {
    ($T:ty, $Bits:ty, $exp:path, $tanh:path, $erf:path $(, $more:item)*) => {
        impl Float for $T {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            type Bits = $Bits;

            #[inline(always)]
            fn of(value: f64) -> Self {
                value as $T
            }
            #[inline(always)]
            fn wide(self) -> f64 {
                f64::from(self)
            }
            #[inline(always)]
            fn abs(self) -> Self {
                self.abs()
            }
            #[inline(always)]
            fn exp(self) -> Self {
                $exp(self)
            }
            #[inline(always)]
            fn exp_m1(self) -> Self {
                self.exp_m1()
            }
            #[inline(always)]
            fn is_nan(self) -> bool {
                self.is_nan()
            }
            #[inline(always)]
            fn log2(self) -> Self {
                self.log2()
            }
            #[inline(always)]
            fn round(self) -> Self {
                self.round()
            }
            #[inline(always)]
            fn erf(self) -> Self {
                $erf(self)
            }
            #[inline(always)]
            fn powf(self, exponent: Self) -> Self {
                self.powf(exponent)
            }
            #[inline(always)]
            fn sin(self) -> Self {
                self.sin()
            }
            #[inline(always)]
            fn cos(self) -> Self {
                self.cos()
            }
            #[inline(always)]
            fn floor(self) -> Self {
                self.floor()
            }
            #[inline(always)]
            fn ceil(self) -> Self {
                self.ceil()
            }
            #[inline(always)]
            fn ln(self) -> Self {
                self.ln()
            }
            #[inline(always)]
            fn ln_1p(self) -> Self {
                self.ln_1p()
            }
            #[inline(always)]
            fn sqrt(self) -> Self {
                self.sqrt()
            }
            #[inline(always)]
            fn tanh(self) -> Self {
                $tanh(self)
            }
            #[inline(always)]
            fn max(self, other: Self) -> Self {
                self.max(other)
            }
            #[inline(always)]
            fn magnitude(self) -> $Bits {
                self.abs().to_bits().cast_signed()
            }
            #[inline(always)]
            fn of_magnitude(bits: $Bits) -> Self {
                Self::from_bits(bits.cast_unsigned())
            }
            #[inline(always)]
            fn mul_add_if_fast(self, factor: Self, addend: Self) -> Self {
                if cfg!(any(target_feature = "fma", target_arch = "aarch64")) {
                    self.mul_add(factor, addend)
                } else {
                    self * factor + addend
                }
            }
            $($more)*
        }
    };
}

float!(
    f32,
    i32,
    math::exp,
    math::tanh::<false>,
    math::erf,
    #[inline(always)]
    fn tanh_in<const FUSED: bool>(self) -> Self {
        math::tanh::<FUSED>(self)
    },
    #[inline(always)]
    fn exp_in<const FUSED: bool>(self) -> Self {
        math::exp_or_zero::<FUSED>(self)
    },
    #[inline(always)]
    fn sigmoid_in<const FUSED: bool>(self) -> Self {
        math::sigmoid::<FUSED>(self)
    }
);
float!(f64, i64, f64::exp, f64::tanh, libm::erf);
