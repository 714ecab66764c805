//! Elements in a loop that is compiled for the processor at hand.

use std::ops::{Add, Div, Mul, Sub};

use super::Number;
use crate::kernels::Float;

/// An element of a loop whose vectors are `FUSED`, or not: the hyperbolic tangent and the sigmoid are those of such a loop.
#[derive(Clone, Copy)]
pub(crate) struct Looped<T, const FUSED: bool>(pub(crate) T);

/// Elements of arrays, without a closure: not every one is compiled for the processor of the loop.
#[inline(always)]
pub(crate) fn looped<T: Float, const FUSED: bool, const N: usize>(values: [T; N]) -> [Looped<T, FUSED>; N] {
    let mut elements = [Looped(T::ZERO); N];
    for i in 0..N {
        elements[i] = Looped(values[i]);
    }
    elements
}

/// The reverse of [`looped`].
#[inline(always)]
pub(crate) fn unlooped<T: Float, const FUSED: bool, const N: usize>(
    elements: [Looped<T, FUSED>; N],
) -> [T; N] {
    let mut values = [T::ZERO; N];
    for i in 0..N {
        values[i] = elements[i].0;
    }
    values
}

macro_rules! operators {
    ($($Trait:ident $method:ident),+) => {
        $(
            impl<T: Float, const FUSED: bool> $Trait for Looped<T, FUSED> {
                type Output = Self;

                #[inline(always)]
                fn $method(self, other: Self) -> Self {
                    Self(self.0.$method(other.0))
                }
            }
        )+
    };
}

operators!(Add add, Sub sub, Mul mul, Div div);

/// Methods that are those of the element itself.
macro_rules! as_the_element {
    ($(fn $method:ident($($argument:ident),*));+ $(;)?) => {
        $(
            #[inline(always)]
            fn $method(self $(, $argument: f64)*) -> Self {
                Self(Number::$method(self.0 $(, $argument)*))
            }
        )+
    };
    (&&$(fn $method:ident());+ $(;)?) => {
        $(
            #[inline(always)]
            fn $method(&self, other: &Self) -> bool {
                Number::$method(&self.0, &other.0)
            }
        )+
    };
    (&$(fn $method:ident());+ $(;)?) => {
        $(
            #[inline(always)]
            fn $method(&self, limit: f64) -> bool {
                Number::$method(&self.0, limit)
            }
        )+
    };
}

impl<T: Float, const FUSED: bool> Number for Looped<T, FUSED> {
    type Mask = bool;

    #[inline(always)]
    fn constant(&self, value: f64) -> Self {
        Self(T::of(value))
    }

    as_the_element! {
        fn scale(factor);
        fn offset(term);
        fn sqrt();
        fn limit(limit);
        fn abs();
        fn exp();
        fn exp_m1();
        fn ln_1p();
        fn ln();
        fn sin();
        fn cos();
        fn erf();
        fn powf(exponent);
        fn floor();
        fn ceil();
        fn round();
        fn negative();
    }

    as_the_element! {
        &fn above();
        fn at_least();
        fn below();
        fn at_most();
    }

    as_the_element! {
        &&fn exceeds();
        fn reaches();
        fn equals();
    }

    #[inline(always)]
    fn pow(self, exponent: Self) -> Self {
        Self(self.0.pow(exponent.0))
    }

    #[inline(always)]
    fn tanh(self) -> Self {
        Self(self.0.tanh_in::<FUSED>())
    }

    #[inline(always)]
    fn sigmoid(self) -> Self {
        Self(self.0.sigmoid_in::<FUSED>())
    }

    #[inline(always)]
    fn select(mask: bool, yes: impl FnOnce() -> Self, no: impl FnOnce() -> Self) -> Self {
        if mask { yes() } else { no() }
    }
}
