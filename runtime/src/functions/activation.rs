//! Activations other than ReLU, and softmax, PReLU and dropout.

use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

use candle_core::Tensor;
use candle_core::shape::Dim;

use super::arithmetic::mul_scalar;
use super::composed;
use super::composed::activation::{Prelu, PreluSlope};
use super::graph::{attach, attach_with_result, tracked};
use super::join::concatenate;
use super::node::{compute, element_count, for_float, in_type, widened, without_kernels};
use super::parts::gelu_of_erf;
use super::pointwise::{Pointwise, Slope, apply, unary};
use super::relu::relu;
use crate::kernels::{self, Channels, Float, Lanes, zip};
use crate::number::{Formula, Number};
use crate::told::{Form, told};
use crate::{Axis, Error, Result, check};

/// `sqrt(2 / pi)` and the cubic coefficient of the tanh form of GELU.
const GELU: (f64, f64) = (0.797_884_560_802_865_4, 0.044_715);

/// Scale and alpha of SELU.
const SELU: (f64, f64) = (1.050_700_987_355_480_5, 1.673_263_242_354_377_2);

unary! {
    /// `x` where positive, else `alpha x` (NNabla's default for `alpha` is 0.1); the slope at 0 is `alpha`.
    fn leaky_relu(alpha) = LeakyRelu as "LeakyReLU" {
        example([-2.0, 2.0], 0.5) = [-1.0, 2.0];
        value(x) = {
            let below = x.clone().scale(alpha); // outside of the branch: a loop over it is to have none
            V::select(x.above(0.0), || x.clone(), || below)
        };
        gradient_from_element(x, dy) = {
            let below = dy.clone().scale(alpha);
            V::select(x.above(0.0), || dy.clone(), || below)
        };
    }

    /// `x` clipped to `[0, 6]`; the slope at both ends is 0.
    fn relu6() = Relu6 as "ReLU6" {
        example([-2.0, 2.0, 7.0]) = [0.0, 2.0, 6.0];
        value(x) = x.between(0.0, 6.0);
        gradient_from_element(x, dy) = {
            let zero = dy.constant(0.0);
            let below_6 = V::select(x.below(6.0), || dy.clone(), || zero.clone());
            V::select(x.above(0.0), || below_6, || zero.clone())
        };
    }

    /// `x` where it is at least 0, else `alpha (exp(x) - 1)` (NNabla's default for `alpha` is 1).
    fn elu(alpha) = Elu as "ELU" {
        example([f64::NEG_INFINITY, 0.0, 2.0], 1.5) = [-1.5, 0.0, 2.0];
        value(x) = V::select(x.at_least(0.0), || x.clone(), || x.clone().exp_m1().scale(alpha));
        gradient_from_element(x, dy) =
            V::select(x.at_least(0.0), || dy.clone(), || dy.clone().scale(alpha) * x.clone().exp());
    }

    /// `scale x` where positive, else `scale alpha (exp(x) - 1)`; the slope at 0 is `scale alpha`.
    fn selu_with(scale, alpha) = Selu as "SELU" {
        example([f64::NEG_INFINITY, 0.0, 1.0], 2.0, 1.5) = [-3.0, 0.0, 2.0];
        value(x) = V::select(x.above(0.0), || x.clone(), || x.clone().exp_m1().scale(alpha)).scale(scale);
        gradient_from_element(x, dy) = {
            let slope = V::select(x.above(0.0), || x.constant(1.0), || x.clone().exp().scale(alpha));
            dy.scale(scale) * slope
        };
    }

    /// `x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))`: GELU in its tanh form, as in NNabla; [`gelu_exact`] is the other one.
    fn gelu() = Gelu as "GELU" {
        example([-20.0, 0.0, 20.0]) = [0.0, 0.0, 20.0];
        value(x) = x.clone().scale(0.5) * gelu_inner(x).tanh().offset(1.0);
        gradient_from_element(x, dy) = {
            let t = gelu_inner(x.clone()).tanh();
            let inner_slope = (x.clone().scale(3.0 * GELU.1) * x.clone()).offset(1.0).scale(GELU.0);
            dy.scale(0.5) * (t.clone().offset(1.0) + x * (t.clone() * t).complement() * inner_slope)
        };
    }

    /// `x / 2 (1 + erf(x / sqrt(2)))`: `x` times the normal distribution function at `x`.
    fn gelu_exact() = GeluExact from gelu_of_erf {
        example([-20.0, 0.0, 20.0]) = [0.0, 0.0, 20.0];
        value(x) = x.clone().scale(0.5) * x.scale(FRAC_1_SQRT_2).erf().offset(1.0);
        gradient_from_element(x, dy) = {
            let share = x.clone().scale(FRAC_1_SQRT_2).erf().offset(1.0).scale(0.5);
            let density = (x.clone() * x.clone()).scale(-0.5).exp().scale(FRAC_2_SQRT_PI * FRAC_1_SQRT_2 / 2.0);
            dy * (share + x * density)
        };
    }

    /// `x tanh(log(1 + exp(x)))`.
    fn mish() = Mish as "Mish" {
        example([-1000.0, 0.0, 1000.0]) = [0.0, 0.0, 1000.0];
        value(x) = {
            let (n, _) = mish_terms(&x);
            x * (n.clone() / n.offset(2.0))
        };
        gradient_from_element(x, dy) = {
            let (n, sigmoid) = mish_terms(&x);
            let below = n.clone().offset(2.0);
            let slope = n.clone().offset(1.0).scale(4.0) / (below.clone() * below.clone());
            let zero = x.constant(0.0);
            let more = V::select(x.above(20.0), || zero, || x.clone() * slope * sigmoid);
            dy * (n / below + more)
        };
    }

    /// `x sigmoid(x)`, which NNabla calls `swish`.
    fn silu() = Silu as "Swish" {
        example([0.0, 100.0]) = [0.0, 100.0];
        value(x) = x.clone() * x.sigmoid();
        gradient_from_element(x, dy) = {
            let s = x.clone().sigmoid();
            dy * (s.clone() + x.clone() * s * x.negative().sigmoid())
        };
    }

    /// `1 / (1 + exp(-x))`.
    fn sigmoid() = Sigmoid as "Sigmoid" {
        example([-1000.0, 0.0, 1000.0]) = [0.0, 0.5, 1.0];
        value(x) = x.sigmoid();
        gradient_from_value(y, dy) = dy * y.clone() * y.complement();
    }

    /// `log(1 / (1 + exp(-x)))`, without underflow.
    fn log_sigmoid() = LogSigmoid as "LogSigmoid" {
        example([-1000.0, 1000.0]) = [-1000.0, 0.0];
        value(x) = {
            let small = x.clone().abs().negative().exp().ln_1p();
            (positive_part(&x.negative()) + small).negative()
        };
        gradient_from_element(x, dy) = dy * x.negative().sigmoid();
    }

    /// Hyperbolic tangent.
    fn tanh() = Tanh as "Tanh" {
        example([-1000.0, 0.0]) = [-1.0, 0.0];
        value(x) = x.tanh();
        gradient_from_value(y, dy) = dy * (y.clone() * y).complement();
    }

    /// `x - tanh(x)`.
    fn tanh_shrink() = TanhShrink as "TanhShrink" {
        example([-1000.0, 0.0]) = [-999.0, 0.0];
        value(x) = x.clone() - x.tanh();
        gradient_from_element(x, dy) = {
            let t = x.tanh();
            dy * t.clone() * t
        };
    }

    /// `log(1 + exp(beta x)) / beta`.
    fn softplus_with(beta: positive) = Softplus as "SoftPlus" {
        example([-1000.0, 1000.0], 2.0) = [0.0, 1000.0];
        value(x) = positive_part(&x) + x.abs().scale(-beta).exp().ln_1p().scale(1.0 / beta);
        gradient_from_element(x, dy) = dy * x.scale(beta).sigmoid();
    }

    /// `x / (1 + |x|)`.
    fn softsign() = Softsign as "SoftSign" {
        example([-1.0, 0.0, 3.0]) = [-0.5, 0.0, 0.75];
        value(x) = x.clone() / x.abs().offset(1.0);
        gradient_from_element(x, dy) = {
            let below = x.abs().offset(1.0);
            dy / (below.clone() * below)
        };
    }

    /// `0.2 x + 0.5`, clipped to `[0, 1]`; the slope at both ends is 0.2.
    fn hard_sigmoid() = HardSigmoid as "HardSigmoid" {
        example([-3.0, 0.0, 3.0]) = [0.0, 0.5, 1.0];
        value(x) = x.scale(0.2).offset(0.5).between(0.0, 1.0);
        gradient_from_element(x, dy) = {
            let zero = dy.constant(0.0);
            V::select(x.abs().at_most(2.5), || dy.scale(0.2), || zero)
        };
    }

    /// `x` clipped to `[−1, 1]`; the slope at both ends is 1.
    fn hard_tanh() = HardTanh as "HardTanh" {
        example([-3.0, 0.5, 3.0]) = [-1.0, 0.5, 1.0];
        value(x) = x.between(-1.0, 1.0);
        gradient_from_element(x, dy) = {
            let zero = dy.constant(0.0);
            V::select(x.abs().at_most(1.0), || dy, || zero)
        };
    }

    /// 1 where `x` is positive, else 0. Between −1 and 1, half of the gradient is passed on.
    fn binary_sigmoid() = BinarySigmoid as "BinarySigmoid" {
        example([-3.0, 0.0, 0.5]) = [0.0, 0.0, 1.0];
        value(x) = x.indicator(x.above(0.0));
        gradient_from_element(x, dy) = {
            let zero = dy.constant(0.0);
            V::select(x.abs().below(1.0), || dy.scale(0.5), || zero)
        };
    }

    /// 1 where `x` is positive, else −1. Between −1 and 1, the gradient is passed on.
    fn binary_tanh() = BinaryTanh as "BinaryTanh" {
        example([-3.0, 0.0, 0.5]) = [-1.0, -1.0, 1.0];
        value(x) = x.indicator(x.above(0.0)).scale(2.0).offset(-1.0);
        gradient_from_element(x, dy) = {
            let zero = dy.constant(0.0);
            V::select(x.abs().below(1.0), || dy, || zero)
        };
    }
}

/// [`selu_with`] the two constants of Klambauer et al. 2017, Self-Normalizing Neural Networks.
///
/// # Errors
/// [`Error::InvalidArgument`] if the input holds no floating-point numbers.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// let x = Tensor::new(&[0f64, 1.], &Device::Cpu)?;
/// assert_eq!(layerfn::functions::selu(&x)?.to_vec1::<f64>()?, [0., 1.0507009873554805]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn selu(inp: &Tensor) -> Result<Tensor> {
    selu_with(inp, SELU.0, SELU.1)
}

/// `log(1 + exp(x))`: [`softplus_with`] a `beta` of 1.
///
/// # Errors
/// [`Error::InvalidArgument`] if the input holds no floating-point numbers.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// let x = Tensor::new(&[-1000f32, 1000.], &Device::Cpu)?;
/// assert_eq!(layerfn::functions::softplus(&x)?.to_vec1::<f32>()?, [0., 1000.]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn softplus(inp: &Tensor) -> Result<Tensor> {
    softplus_with(inp, 1.0)
}

/// [`relu`] of `x` and of `−x`, concatenated along an axis (NNabla's default is 1).
///
/// # Errors
/// [`Error::InvalidArgument`] if there is no such axis or the input holds no floating-point numbers.
///
/// # Source
/// NNabla `F.crelu`; Shang et al. 2016, Concatenated Rectified Linear Units.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// let x = Tensor::new(&[[-1f32, 2.]], &Device::Cpu)?;
/// assert_eq!(layerfn::functions::crelu(&x, 1)?.to_vec2::<f32>()?, [[0., 2., 1., 0.]]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn crelu(inp: &Tensor, axis: impl Into<Axis>) -> Result<Tensor> {
    // The slope of the second half at 0 is −1, which `elu` with an `alpha` of 0 has.
    of_both_signs(inp, axis.into(), relu, |x| elu(x, 0.0))
}

/// [`elu`] of `x` and of `−x`, concatenated along an axis (NNabla's defaults are 1 for `alpha` and for `axis`).
/// This is not the function that is called CELU elsewhere.
///
/// # Errors
/// [`Error::InvalidArgument`] if there is no such axis, `alpha` is not finite or the input holds no floating-point numbers.
///
/// # Source
/// NNabla `F.celu`.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// let x = Tensor::new(&[[f32::NEG_INFINITY, 2.]], &Device::Cpu)?;
/// let y = layerfn::functions::celu(&x, 1.5, 1)?;
/// assert_eq!(y.narrow(1, 0, 3)?.to_vec2::<f32>()?, [[-1.5, 2., f32::INFINITY]]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn celu(inp: &Tensor, alpha: f64, axis: impl Into<Axis>) -> Result<Tensor> {
    let f = |x: &Tensor| elu(x, alpha);
    of_both_signs(inp, axis.into(), f, f)
}

/// Concatenates `positive` of `x` and `negative` of `−x`.
fn of_both_signs(
    inp: &Tensor,
    axis: Axis,
    positive: impl Fn(&Tensor) -> Result<Tensor>,
    negative: impl Fn(&Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    let axis = axis.resolve("axis", inp.dims())?;
    concatenate(&[&positive(inp)?, &negative(&mul_scalar(inp, -1.0)?)?], axis)
}

/// `n` such that `tanh(log(1 + exp(x))) = n / (n + 2)`, which is `exp(x) (exp(x) + 2)`, and the sigmoid of `x`.
/// From 20 on, the quotient is 1.
#[inline(always)]
fn mish_terms<V: Number>(x: &V) -> (V, V) {
    let limit = x.constant(20.0);
    let power = V::select(x.above(20.0), || limit, || x.clone()).exp();
    (power.clone() * power.offset(2.0), x.clone().sigmoid())
}

#[inline(always)]
fn gelu_inner<V: Number>(x: V) -> V {
    (x.clone() + x.clone().scale(GELU.1) * x.clone() * x).scale(GELU.0)
}

/// `max(x, 0)`; NaN remains NaN.
#[inline(always)]
pub(super) fn positive_part<V: Number>(x: &V) -> V {
    V::select(x.below(0.0), || x.constant(0.0), || x.clone())
}

/// `exp(x) / sum of exp(x)` along `axis`.
///
/// # Errors
/// If there is no such axis, or the input holds no floating-point numbers.
///
/// # Example
/// ```
/// use candle_core::{D, Device, Tensor};
/// let x = Tensor::new(&[[1000f32, 1000.], [0., f32::NEG_INFINITY]], &Device::Cpu)?;
/// let y = layerfn::functions::softmax(&x, D::Minus1)?;
/// assert_eq!(y.to_vec2::<f32>()?, [[0.5, 0.5], [1., 0.]]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn softmax(inp: &Tensor, axis: impl Dim + Copy) -> Result<Tensor> {
    let lanes = lanes(inp, axis, "softmax")?;
    let at = axis.to_index(inp.shape(), "softmax")?;
    told(
        || Form::new("Softmax", &[inp]).with("axis", at),
        || {
            let compose = |t: &[Tensor]| Ok([composed::activation::softmax(&t[0], axis)?]);
            if let Some([y]) = without_kernels("softmax", &[inp], compose)? {
                return Ok(y);
            }
            let [x] = widened("softmax", [inp])?;
            let y = for_float!(x.dtype(), T => {
                let y = compute::<T, 1>(x.dims(), [&x], |[x], y| kernels::softmax(lanes, x, y))?;
                attach_with_result("softmax", [&x], y, move |y, dy| {
                    let dx = compute::<T, 2>(y.dims(), [y, dy], |[y, dy], dx| kernels::softmax_gradient(lanes, y, dy, dx))?;
                    Ok([Some(dx.into_tensor()?)])
                })
            })?;
            in_type(y, inp.dtype())
        },
    )
}

/// `x - log(sum of exp(x))` along `axis`: the logarithm of [`softmax`], without its underflow.
///
/// # Errors
/// If there is no such axis, or the input holds no floating-point numbers.
///
/// # Example
/// ```
/// use candle_core::{D, Device, Tensor};
/// let x = Tensor::new(&[[0f32, 1000.]], &Device::Cpu)?;
/// let y = layerfn::functions::log_softmax(&x, D::Minus1)?;
/// assert_eq!(y.to_vec2::<f32>()?, [[-1000., 0.]]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn log_softmax(inp: &Tensor, axis: impl Dim + Copy) -> Result<Tensor> {
    let lanes = lanes(inp, axis, "log_softmax")?;
    let at = axis.to_index(inp.shape(), "log_softmax")?;
    told(
        || Form::new("LogSoftmax", &[inp]).with("axis", at),
        || {
            let compose = |t: &[Tensor]| Ok([composed::activation::log_softmax(&t[0], axis)?]);
            if let Some([y]) = without_kernels("log_softmax", &[inp], compose)? {
                return Ok(y);
            }
            let [x] = widened("log_softmax", [inp])?;
            let y = for_float!(x.dtype(), T => {
                let y = compute::<T, 1>(x.dims(), [&x], |[x], y| kernels::log_softmax(lanes, x, y))?;
                attach_with_result("log_softmax", [&x], y, move |y, dy| {
                    let dx = compute::<T, 2>(y.dims(), [y, dy], |[y, dy], dx| kernels::log_softmax_gradient(lanes, y, dy, dx))?;
                    Ok([Some(dx.into_tensor()?)])
                })
            })?;
            in_type(y, inp.dtype())
        },
    )
}

/// The axis of a tensor and what lies behind it.
pub(crate) fn lanes(inp: &Tensor, axis: impl Dim + Copy, function: &'static str) -> Result<Lanes> {
    let axis = axis.to_index(inp.shape(), function)?;
    let dims = inp.dims();
    element_count(dims)?;
    Ok(Lanes { len: dims[axis], inner: element_count(&dims[axis + 1..])? })
}

/// PReLU: `x` where it is at least 0, else `slope x`.
///
/// # Shapes
/// - `slope`: `()` or `(1)` for one slope, or `(C)` for one slope per channel, where `C` is the size of axis
///   `base_axis`
///
/// # Errors
/// [`Error::InvalidArgument`] if `slope` has another shape.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// let x = Tensor::new(&[[-1f32, -1.], [0., 3.]], &Device::Cpu)?;
/// let slope = Tensor::new(&[0.5f32, -1.], &Device::Cpu)?;
/// let y = layerfn::functions::prelu(&x, &slope, 1)?;
/// assert_eq!(y.to_vec2::<f32>()?, [[-0.5, 1.], [0., 3.]]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn prelu(inp: &Tensor, slope: &Tensor, base_axis: impl Into<Axis>) -> Result<Tensor> {
    let dims = inp.dims();
    let base_axis = base_axis.into().position_from_front("base_axis", dims)?;
    told(
        || Form::new("PReLU", &[inp, slope]).with("base_axis", base_axis),
        || {
            element_count(dims)?;
            let channels = match (slope.dims(), dims.get(base_axis)) {
                ([] | [1], _) => Channels { outer: 1, channels: 1, inner: inp.elem_count() },
                ([n], Some(size)) if n == size => Channels {
                    outer: element_count(&dims[..base_axis])?,
                    channels: *n,
                    inner: element_count(&dims[base_axis + 1..])?,
                },
                _ => {
                    let reason = format!(
                        "must have shape () or that of axis {base_axis} (`base_axis`) of the input {dims:?}"
                    );
                    return Err(Error::invalid("slope", reason, slope.dims()));
                }
            };
            let compose = |t: &[Tensor]| Ok([composed::activation::prelu(&t[0], &t[1], base_axis)?]);
            if let Some([y]) = without_kernels("prelu", &[inp, slope], compose)? {
                return Ok(y);
            }
            let [x, w] = widened("prelu", [inp, slope])?;
            let needed = tracked([&x, &w]);
            let y = for_float!(x.dtype(), T => {
                let y = compute::<T, 2>(x.dims(), [&x, &w], |[x, w], y| {
                    channels.map(w.as_chunks::<1>().0, x, x, y, |w, x, _| Prelu.of([x, x], *w));
                })?;
                let (arg, slope) = (Tensor::clone(&x), Tensor::clone(&w));
                attach("prelu", [&x, &w], y, move |dy| {
                    let (mut dx, mut dw) = (None, None);
                    if needed[0] {
                        let value = compute::<T, 3>(arg.dims(), [&arg, dy, &slope], |[x, dy, w], dx| {
                            channels.map(w.as_chunks::<1>().0, x, dy, dx, |w, x, dy| Prelu.of([x, dy], *w));
                        })?;
                        dx = Some(value.into_tensor()?);
                    }
                    if needed[1] {
                        let value = compute::<T, 2>(slope.dims(), [&arg, dy], |[x, dy], dw| {
                            let sums = channels.sums(x, dy, |_| |x, dy| [PreluSlope.of([x, dy], [])]);
                            for (dw, [sum]) in dw.iter_mut().zip(sums) {
                                *dw = T::of(sum);
                            }
                        })?;
                        dw = Some(value.into_tensor()?);
                    }
                    Ok([dx, dw])
                })
            })?;
            in_type(y, inp.dtype())
        },
    )
}

/// Sets each element to 0 with probability `p` and divides the others by `1 - p`.
///
/// `draw` returns uniform 32-bit numbers, one for each element in row-major order.
///
/// # Errors
/// [`Error::InvalidArgument`] if `p` is not in `[0, 1)`.
pub fn dropout(inp: &Tensor, p: f64, draw: &mut impl FnMut() -> u32) -> Result<Tensor> {
    check::within("p", p, 0.0..1.0)?;
    told(
        || Form::new("Dropout", &[inp]).with("p", p).with("seed", -1),
        || {
            if p == 0.0 {
                return Ok(inp.clone());
            }
            let threshold = (p * (u32::MAX as f64 + 1.0)) as u64;
            let compose = |t: &[Tensor]| {
                let kept = std::iter::repeat_with(|| u64::from(draw()) >= threshold).take(inp.elem_count());
                Ok([composed::activation::dropout(&t[0], kept, 1.0 / (1.0 - p))?])
            };
            if let Some([y]) = without_kernels("dropout", &[inp], compose)? {
                return Ok(y);
            }
            let [x] = widened("dropout", [inp])?;
            let y = for_float!(x.dtype(), T => {
                check::memory::<T>("inp", x.elem_count())?;
                let scale = T::of(1.0 / (1.0 - p));
                let factors: Vec<T> = std::iter::repeat_with(|| if u64::from(draw()) >= threshold { scale } else { T::ZERO })
                    .take(x.elem_count())
                    .collect();
                // A dropped element is 0 even if it was infinite.
                let scaled = |x: T, factor: T| if factor > T::ZERO { x * factor } else { T::ZERO };
                let y = compute::<T, 1>(x.dims(), [&x], |[x], y| zip(x, &factors, y, scaled))?;
                attach("dropout", [&x], y, move |dy| {
                    let dx = compute::<T, 1>(dy.dims(), [dy], |[dy], dx| zip(dy, &factors, dx, scaled))?;
                    Ok([Some(dx.into_tensor()?)])
                })
            })?;
            in_type(y, inp.dtype())
        },
    )
}
