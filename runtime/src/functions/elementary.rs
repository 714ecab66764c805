//! Elementary functions and rounding.

use candle_core::Tensor;

use super::pointwise::{Pointwise, Slope, apply, unary};
use crate::number::Number;
use crate::{Result, check};

unary! {
    /// `|x|`; the slope at 0 is 1.
    fn abs() = Abs as "Abs" {
        example([-2.0, 0.0]) = [2.0, 0.0];
        value(x) = x.abs();
        gradient_from_element(x, dy) = V::select(x.below(0.0), || dy.clone().negative(), || dy.clone());
    }

    /// `e^x`.
    fn exp() = Exp as "Exp" {
        example([0.0]) = [1.0];
        value(x) = x.exp();
        gradient_from_value(y, dy) = dy * y;
    }

    /// The natural logarithm.
    fn log() = Log as "Log" {
        example([1.0, 0.0]) = [0.0, f64::NEG_INFINITY];
        value(x) = x.ln();
        gradient_from_element(x, dy) = dy / x;
    }

    /// The sine.
    fn sin() = Sin as "Sin" {
        example([0.0]) = [0.0];
        value(x) = x.sin();
        gradient_from_element(x, dy) = dy * x.cos();
    }

    /// The cosine.
    fn cos() = Cos as "Cos" {
        example([0.0]) = [1.0];
        value(x) = x.cos();
        gradient_from_element(x, dy) = (dy * x.sin()).negative();
    }

    /// The tangent.
    fn tan() = Tan as "Tan" {
        example([0.0]) = [0.0];
        value(x) = x.clone().sin() / x.cos();
        gradient_from_value(y, dy) = dy * (y.clone() * y).offset(1.0);
    }

    /// `sin(x) / x`, and 1 at 0.
    fn sinc() = Sinc as "Sinc" {
        example([0.0, f64::INFINITY]) = [1.0, 0.0];
        value(x) = {
            let is_finite = x.clone().abs().at_most(f64::from(f32::MAX));
            let is_zero = x.equals(&x.constant(0.0));
            let wave = V::select(is_finite, || x.clone().sin(), || x.constant(0.0));
            V::select(is_zero, || x.constant(1.0), || wave / x.clone())
        };
        gradient_from_element(x, dy) = dy * sinc_slope(x);
    }

    /// The arc sine.
    fn asin() = Asin as "ASin" {
        example([0.0, 1.0]) = [0.0, std::f64::consts::FRAC_PI_2];
        value(x) = (x.clone() / chord(x).sqrt()).atan();
        gradient_from_element(x, dy) = dy / chord(x).sqrt();
    }

    /// The arc cosine.
    fn acos() = Acos as "ACos" {
        example([1.0, -1.0]) = [0.0, std::f64::consts::PI];
        value(x) = (x.clone().complement() / x.offset(1.0)).sqrt().atan().scale(2.0);
        gradient_from_element(x, dy) = dy.negative() / chord(x).sqrt();
    }

    /// The arc tangent.
    fn atan() = Atan as "ATan" {
        example([0.0, f64::INFINITY]) = [0.0, std::f64::consts::FRAC_PI_2];
        value(x) = x.atan();
        gradient_from_element(x, dy) = dy / (x.clone() * x).offset(1.0);
    }

    /// The hyperbolic sine.
    fn sinh() = Sinh as "Sinh" {
        example([0.0]) = [0.0];
        value(x) = (x.clone().exp_m1() - x.negative().exp_m1()).scale(0.5);
        gradient_from_element(x, dy) = dy * (x.clone().exp() + x.negative().exp()).scale(0.5);
    }

    /// The hyperbolic cosine.
    fn cosh() = Cosh as "Cosh" {
        example([0.0]) = [1.0];
        value(x) = (x.clone().exp() + x.negative().exp()).scale(0.5);
        gradient_from_element(x, dy) = dy * (x.clone().exp_m1() - x.negative().exp_m1()).scale(0.5);
    }

    /// The inverse of the hyperbolic sine.
    fn asinh() = Asinh as "ASinh" {
        example([0.0]) = [0.0];
        value(x) = {
            // log(|x| + √(x² + 1)), in a form that is accurate near 0.
            let size = x.clone().abs();
            let square = size.clone() * size.clone();
            let root = square.clone().offset(1.0).sqrt();
            let near = (size.clone() + square / root.offset(1.0)).ln_1p();
            let far = size.clone().ln().offset(std::f64::consts::LN_2); // where the square overflows
            let y = V::select(size.above(1e9), || far, || near);
            V::select(x.below(0.0), || y.clone().negative(), || y.clone())
        };
        gradient_from_element(x, dy) = dy / (x.clone() * x).offset(1.0).sqrt();
    }

    /// The inverse of the hyperbolic cosine, from 1 on.
    fn acosh() = Acosh as "ACosh" {
        example([1.0]) = [0.0];
        value(x) = {
            // log(x + √(x² − 1)), in a form that is accurate near 1.
            let above = x.clone().offset(-1.0);
            (above.clone() + above.sqrt() * x.offset(1.0).sqrt()).ln_1p()
        };
        gradient_from_element(x, dy) = dy / (x.clone().offset(-1.0).sqrt() * x.offset(1.0).sqrt());
    }

    /// The inverse of the hyperbolic tangent.
    fn atanh() = Atanh as "ATanh" {
        example([0.0, 1.0]) = [0.0, f64::INFINITY];
        value(x) = (x.clone().scale(2.0) / x.complement()).ln_1p().scale(0.5);
        gradient_from_element(x, dy) = dy / chord(x);
    }

    /// The error function, `2 / √π` times the integral of `e^(−t²)` from 0 to `x`.
    fn erf() = Erf as "Erf" {
        example([0.0, 10.0]) = [0.0, 1.0];
        value(x) = x.erf();
        gradient_from_element(x, dy) = dy.scale(std::f64::consts::FRAC_2_SQRT_PI) * (x.clone() * x).negative().exp();
    }

    /// The nearest integer; halves are rounded away from 0. The gradient is passed on as if nothing had been
    /// rounded.
    fn round() = Round as "Round" {
        example([-0.5, 0.4, 2.5]) = [-1.0, 0.0, 3.0];
        value(x) = x.round();
        gradient_passes;
    }

    /// The smallest integer that is not smaller. The gradient is passed on as if nothing had been rounded.
    fn ceil() = Ceil as "Ceil" {
        example([-0.5, 0.4, 2.0]) = [0.0, 1.0, 2.0];
        value(x) = x.ceil();
        gradient_passes;
    }

    /// The largest integer that is not larger. The gradient is passed on as if nothing had been rounded.
    fn floor() = Floor as "Floor" {
        example([-0.5, 0.4, 2.0]) = [-1.0, 0.0, 2.0];
        value(x) = x.floor();
        gradient_passes;
    }

    /// 1 where `x` is positive, −1 where it is negative, `alpha` at 0. The gradient is that of the identity.
    fn sign(alpha) = Sign as "Sign" {
        example([-0.5, 0.0, 2.0], 1.0) = [-1.0, 1.0, 1.0];
        value(x) = {
            let [one, other, zero] = [1.0, -1.0, alpha].map(|value| x.constant(value));
            V::select(x.above(0.0), || one, || V::select(x.below(0.0), || other, || zero))
        };
        gradient_passes;
    }
}

/// `x` itself.
///
/// # Errors
/// None.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// let x = Tensor::new(&[1f32, 2.], &Device::Cpu)?;
/// assert_eq!(layerfn::functions::identity(&x)?.to_vec1::<f32>()?, [1., 2.]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn identity(inp: &Tensor) -> Result<Tensor> {
    Ok(inp.clone())
}

/// `1 − x²`, in a form that is accurate near 1.
#[inline(always)]
fn chord<V: Number>(x: V) -> V {
    x.clone().complement() * x.offset(1.0)
}

/// `(cos(x) − sin(x) / x) / x`; its power series near 0, where the difference cancels.
#[inline(always)]
fn sinc_slope<V: Number>(x: V) -> V {
    /// `(−1)^k 2k / (2k + 1)!` from `k = 1` on.
    const SERIES: [f64; 9] = [
        -3.333_333_333_333_333e-1,
        3.333_333_333_333_333e-2,
        -1.190_476_190_476_190_5e-3,
        2.204_585_537_918_871e-5,
        -2.505_210_838_544_172e-7,
        1.927_085_260_418_594e-9,
        -1.070_602_922_454_774_2e-11,
        4.498_331_606_952_833e-14,
        -1.479_714_344_392_379_3e-16,
    ];
    let near = (x.clone() * x.clone()).polynomial(&SERIES) * x.clone();
    let far = (x.clone().cos() - x.clone().sin() / x.clone()) / x.clone();
    V::select(x.abs().at_most(1.0), || near, || far)
}
