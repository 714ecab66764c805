//! Transforms of weights with a substituted derivative: straight-through estimators.

use std::ops::Range;

use candle_core::{DType, Tensor};

use super::arithmetic::mul2;
use super::composed;
use super::elementary::abs;
use super::graph::attach;
use super::node::{Element, Elements, Value, compute, for_float, widened, without_kernels};
use super::parts::shaped;
use super::reduce::mean;
use crate::kernels::Float;
use crate::told::{Form, listens, told};
use crate::{Error, Result, check};

/// The values of `value`, with the gradient passed on to `w` unchanged: the straight-through estimator.
///
/// Custom transforms need nothing else besides their values.
///
/// # Errors
/// [`Error::InvalidArgument`] if the two have different shapes or types.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor, Var};
/// use layerfn::functions::straight_through;
///
/// let w = Var::new(&[-0.3f32, 1.7], &Device::Cpu)?;
/// let y = straight_through(&w, &w.round()?)?;
/// assert_eq!(y.to_vec1::<f32>()?, [0.0, 2.0]);
/// assert_eq!(y.sum_all()?.backward()?.get(&w).unwrap().to_vec1::<f32>()?, [1.0, 1.0]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn straight_through(w: &Tensor, value: &Tensor) -> Result<Tensor> {
    told(
        || Form::new("Identity", &[value]),
        || {
            if value.dims() != w.dims() {
                let reason = format!("must have the shape {:?} of what it replaces", w.dims());
                return Err(Error::invalid("value", reason, value.dims()));
            }
            let compose = |t: &[Tensor]| Ok([composed::quantization::replace(&t[0], &t[1], None)?]);
            let value = value.detach();
            if let Some([y]) = without_kernels("straight_through", &[w, &value], compose)? {
                return Ok(y);
            }
            let [x, value] = widened("straight_through", [w, &value])?;
            let y = for_float!(x.dtype(), T => {
                check::memory::<T>("value", value.elem_count())?;
                let data = Elements::of(&value).slice::<T>()?.to_vec();
                replace(&x, Value { data, dims: x.dims().to_vec() }, None)
            })?;
            Ok(y.to_dtype(w.dtype())?)
        },
    )
}

/// `value` in place of `x`; the gradient of `value` is passed on to `x` where `passes`.
fn replace<T: Element>(x: &Tensor, value: Value<T>, passes: Option<Vec<bool>>) -> Result<Tensor> {
    attach("straight_through", [x], value, move |dy| {
        let Some(passes) = &passes else { return Ok([Some(dy.clone())]) };
        let elements = Elements::of(dy);
        let kept =
            elements.slice::<T>()?.iter().zip(passes).map(|(&g, &pass)| if pass { g } else { T::ZERO });
        let dx = Value { data: kept.collect(), dims: dy.dims().to_vec() };
        Ok([Some(dx.into_tensor()?)])
    })
}

/// A transform of weights, such as a quantizer.
pub trait Transform: Sized {
    /// Validates the settings and returns the transform.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if they are invalid.
    fn checked(self) -> Result<Self>;

    /// The transformed weights, with the transform's own rule for the gradient.
    ///
    /// # Errors
    /// If `w` does not hold floating-point numbers.
    fn apply(&self, w: &Tensor) -> Result<Tensor>;
}

/// The transform of one element, and whether its gradient is passed on.
trait Elementwise {
    fn element<T: Float>(&self, x: T) -> (T, bool);

    /// The same for all elements at once, in operations of candle; the mask is `None` where every gradient passes.
    fn composed(&self, x: &Tensor) -> candle_core::Result<(Tensor, Option<Tensor>)>;
}

fn apply_elementwise(transform: &impl Elementwise, w: &Tensor) -> Result<Tensor> {
    let compose = |t: &[Tensor]| {
        let (value, passes) = transform.composed(&t[0].detach())?;
        Ok([composed::quantization::replace(&t[0], &value, passes)?])
    };
    if let Some([y]) = without_kernels("quantize", &[w], compose)? {
        return Ok(y);
    }
    let [x] = widened("quantize", [w])?;
    let y = for_float!(x.dtype(), T => {
        check::memory::<bool>("w", x.elem_count())?;
        let mut passes = vec![true; x.elem_count()];
        let y = compute::<T, 1>(x.dims(), [&x], |[x], y| {
            for ((y, pass), &x) in y.iter_mut().zip(&mut passes).zip(x) {
                (*y, *pass) = transform.element(x);
            }
        })?;
        replace(&x, y, Some(passes))
    })?;
    Ok(y.to_dtype(w.dtype())?)
}

/// Signs of the weights: 1 where `w > 0`, `quantize_zero_to` where it is 0, −1 elsewhere; the whole gradient is
/// passed on.
///
/// # Errors
/// If `w` does not hold floating-point numbers or `quantize_zero_to` is not finite.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// let w = Tensor::new(&[-0.3f32, 0.0, 1.7], &Device::Cpu)?;
/// assert_eq!(layerfn::functions::binary_connect(&w, 1.0)?.to_vec1::<f32>()?, [-1.0, 1.0, 1.0]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn binary_connect(w: &Tensor, quantize_zero_to: f64) -> Result<Tensor> {
    struct Sign {
        of_zero: f64,
    }
    impl Elementwise for Sign {
        fn element<T: Float>(&self, x: T) -> (T, bool) {
            let sign = if x > T::ZERO { T::ONE } else { -T::ONE };
            (if x == T::ZERO { T::of(self.of_zero) } else { sign }, true)
        }

        fn composed(&self, x: &Tensor) -> candle_core::Result<(Tensor, Option<Tensor>)> {
            Ok((composed::quantization::sign(x, self.of_zero)?, None))
        }
    }
    check::within("quantize_zero_to", quantize_zero_to, ..)?;
    let form = || Form::new("Sign", &[w]).with("alpha", quantize_zero_to);
    told(form, || apply_elementwise(&Sign { of_zero: quantize_zero_to }, w))
}

/// The result of [`binary_weight`].
#[derive(Clone, Debug)]
pub struct BinaryWeight {
    /// `alpha · wb`, whose gradient is passed on to the weights.
    pub output: Tensor,
    /// Signs of the weights, detached.
    pub wb: Tensor,
    /// The mean of `|w|` for each output, detached.
    pub alpha: Tensor,
}

/// Signs of the weights, as computed by [`binary_connect`], and a scale for each output; `inputs` are the axes
/// that the weights of one output span.
///
/// # Errors
/// If `w` does not hold floating-point numbers or has no such axes.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// let w = Tensor::new(&[[-1f32, 2.0], [3.0, 4.0]], &Device::Cpu)?;
/// let binary = layerfn::functions::binary_weight(&w, 0..1, 1.0)?;
/// assert_eq!(binary.alpha.to_vec1::<f32>()?, [2.0, 3.0]);
/// assert_eq!(binary.output.to_vec2::<f32>()?, [[-2.0, 3.0], [2.0, 3.0]]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn binary_weight(w: &Tensor, inputs: Range<usize>, quantize_zero_to: f64) -> Result<BinaryWeight> {
    if inputs.start > inputs.end || inputs.end > w.rank() {
        return Err(Error::invalid(
            "inputs",
            format!("must be axes of weights of shape {:?}", w.dims()),
            inputs,
        ));
    }
    let outputs: Vec<usize> =
        (0..w.rank()).filter(|axis| !inputs.contains(axis)).map(|axis| w.dims()[axis]).collect();
    check::tensor("w", &outputs, DType::F64)?;
    let wb = binary_connect(&w.detach(), quantize_zero_to)?;
    if listens() {
        let alpha = mean(&abs(w)?, inputs.collect::<Vec<_>>(), true)?;
        return Ok(BinaryWeight { output: mul2(&wb, &alpha)?, wb, alpha: shaped(&alpha, &outputs)? });
    }
    // In f64, since the mean may be over many weights.
    let sizes = w.detach().abs()?.to_dtype(DType::F64)?;
    let alpha = sizes.mean_keepdim(inputs.clone().collect::<Vec<_>>())?.to_dtype(w.dtype())?;
    let output = straight_through(w, &wb.broadcast_mul(&alpha)?)?;
    Ok(BinaryWeight { output, wb, alpha: alpha.reshape(outputs)? })
}

/// Fixed-point quantization: multiples of `delta`, clipped to the range.
///
/// `q(x) = sign(x) · ⌊|x| / delta + 1/2⌋ · delta` within ±(2^n' − 1) · delta, where `n'` is `n` less one bit for the
/// sign; the lower end is 0 without sign.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use layerfn::functions::{FixedPoint, Transform};
///
/// let quantizer = FixedPoint { sign: true, n: 3, delta: 0.5, ste_fine_grained: true }.checked()?;
/// let x = Tensor::new(&[-9f32, -0.25, 0.2, 0.8], &Device::Cpu)?;
/// assert_eq!(quantizer.apply(&x)?.to_vec1::<f32>()?, [-1.5, -0.5, 0.0, 1.0]);
/// # Ok::<(), layerfn::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct FixedPoint {
    /// Whether values may be negative.
    pub sign: bool,
    /// Number of bits.
    pub n: usize,
    /// Step size.
    pub delta: f64,
    /// Whether clipped values get no gradient.
    pub ste_fine_grained: bool,
}

/// Number of bits for the value; at most 30, so that the range fits into a float.
fn value_bits(n: usize, taken: usize, for_what: &'static str) -> Result<i32> {
    n.checked_sub(taken).filter(|bits| (1..=30).contains(bits)).map(|bits| bits as i32).ok_or_else(|| {
        Error::invalid("n", format!("must leave 1 to 30 bits beside {taken} for {for_what}"), n)
    })
}

impl FixedPoint {
    /// The largest value divided by the step size, after validation.
    fn levels(&self) -> Result<f64> {
        check::positive("delta", self.delta)?;
        Ok(2f64.powi(value_bits(self.n, usize::from(self.sign), "the sign")?) - 1.0)
    }
}

impl Transform for FixedPoint {
    fn checked(self) -> Result<Self> {
        self.levels()?;
        Ok(self)
    }

    fn apply(&self, w: &Tensor) -> Result<Tensor> {
        struct Steps<'a> {
            settings: &'a FixedPoint,
            levels: f64,
        }
        impl Elementwise for Steps<'_> {
            fn element<T: Float>(&self, x: T) -> (T, bool) {
                let FixedPoint { sign, ste_fine_grained, .. } = *self.settings;
                let delta = T::of(self.settings.delta);
                let max = T::of(self.levels * delta.wide());
                let min = if sign { -max } else { T::ZERO };
                if x > max {
                    return (max, !ste_fine_grained);
                }
                if x < min {
                    return (min, !ste_fine_grained);
                }
                // As in NNabla, the half is added in double precision, which matters just below a half.
                let steps = T::of(((x.abs() / delta).wide() + 0.5).floor()) * delta;
                (if x < T::ZERO { -steps } else { steps }, true)
            }

            fn composed(&self, x: &Tensor) -> candle_core::Result<(Tensor, Option<Tensor>)> {
                let FixedPoint { delta, sign, ste_fine_grained, .. } = *self.settings;
                let (value, passes) = composed::quantization::fixed_point(x, delta, self.levels, sign)?;
                Ok((value, ste_fine_grained.then_some(passes)))
            }
        }
        told(
            || {
                Form::new("FixedPointQuantize", &[w])
                    .with("sign", self.sign)
                    .with("n", self.n)
                    .with("delta", self.delta)
                    .with("ste_fine_grained", self.ste_fine_grained)
            },
            || apply_elementwise(&Steps { settings: self, levels: self.levels()? }, w),
        )
    }
}

/// Power-of-two quantization: the nearest power of two in the logarithm, clipped to the range.
///
/// The range is from `p_min = 2^(m − 2^n' + 1)` to `p_max = 2^m`, where `n'` is `n` less one bit each for the
/// sign and for zero. With zero, values below `p_min / √2` become 0; without sign, negative values become 0 or
/// `p_min`.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use layerfn::functions::{Pow2, Transform};
///
/// let quantizer = Pow2 { sign: true, with_zero: true, n: 4, m: 1, ste_fine_grained: true }.checked()?;
/// let x = Tensor::new(&[-9f32, 0.01, 0.3, 1.5], &Device::Cpu)?;
/// assert_eq!(quantizer.apply(&x)?.to_vec1::<f32>()?, [-2.0, 0.0, 0.25, 2.0]);
/// # Ok::<(), layerfn::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Pow2 {
    /// Whether values may be negative.
    pub sign: bool,
    /// Whether 0 is a value.
    pub with_zero: bool,
    /// Number of bits.
    pub n: usize,
    /// Exponent of the largest value.
    pub m: i32,
    /// Whether values that are clipped at the upper end get no gradient.
    pub ste_fine_grained: bool,
}

impl Pow2 {
    /// The smallest and the largest power, after validation.
    fn range(&self) -> Result<(f64, f64)> {
        if self.m.unsigned_abs() > 100 {
            return Err(Error::invalid("m", "must be between -100 and 100", self.m));
        }
        let bits = value_bits(self.n, usize::from(self.sign) + usize::from(self.with_zero), "sign and zero")?;
        let lowest = i64::from(self.m) - ((1i64 << bits) - 1);
        Ok((2f64.powf(lowest as f64), 2f64.powi(self.m)))
    }
}

impl Transform for Pow2 {
    fn checked(self) -> Result<Self> {
        self.range()?;
        Ok(self)
    }

    fn apply(&self, w: &Tensor) -> Result<Tensor> {
        struct Powers<'a> {
            settings: &'a Pow2,
            min: f64,
            max: f64,
        }
        impl Elementwise for Powers<'_> {
            fn element<T: Float>(&self, x: T) -> (T, bool) {
                let Pow2 { sign, with_zero, ste_fine_grained, .. } = *self.settings;
                let (min, max) = (T::of(self.min), T::of(self.max));
                let zero_below = T::of(self.min * std::f64::consts::FRAC_1_SQRT_2);
                if x < T::ZERO && !sign {
                    return (if with_zero { T::ZERO } else { min }, !ste_fine_grained);
                }
                let power = T::of(x.abs().log2().round().wide().exp2());
                if power > max {
                    return (if x < T::ZERO { -max } else { max }, !ste_fine_grained);
                }
                let size = match () {
                    () if power < min && with_zero && x.abs() < zero_below => T::ZERO,
                    () if power < min => min,
                    () => power,
                };
                (if x < T::ZERO { -size } else { size }, true)
            }

            fn composed(&self, x: &Tensor) -> candle_core::Result<(Tensor, Option<Tensor>)> {
                let Pow2 { sign, with_zero, ste_fine_grained, .. } = *self.settings;
                let range = (self.min, self.max);
                let (value, passes) = composed::quantization::pow2(x, (sign, with_zero), range)?;
                Ok((value, ste_fine_grained.then_some(passes)))
            }
        }
        let (min, max) = self.range()?;
        told(
            || {
                Form::new("Pow2Quantize", &[w])
                    .with("sign", self.sign)
                    .with("with_zero", self.with_zero)
                    .with("n", self.n)
                    .with("m", self.m)
                    .with("ste_fine_grained", self.ste_fine_grained)
            },
            || apply_elementwise(&Powers { settings: self, min, max }, w),
        )
    }
}

/// Pruning: replaces the smallest values by zero; the whole gradient is passed on.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use layerfn::functions::{Prune, Transform};
///
/// let x = Tensor::new(&[0.5f32, -0.1, 2.0, -3.0], &Device::Cpu)?;
/// assert_eq!(Prune { rate: 0.7 }.checked()?.apply(&x)?.to_vec1::<f32>()?, [0.0, 0.0, 2.0, -3.0]);
/// # Ok::<(), layerfn::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Prune {
    /// Fraction of the values that become zero, in [0, 1].
    pub rate: f64,
}

impl Transform for Prune {
    fn checked(self) -> Result<Self> {
        check::within("rate", self.rate, 0.0..=1.0)?;
        Ok(self)
    }

    fn apply(&self, w: &Tensor) -> Result<Tensor> {
        struct Above(f64);
        impl Elementwise for Above {
            fn element<T: Float>(&self, x: T) -> (T, bool) {
                (if x.abs().wide() < self.0 { T::ZERO } else { x }, true)
            }

            fn composed(&self, x: &Tensor) -> candle_core::Result<(Tensor, Option<Tensor>)> {
                Ok((composed::quantization::above(x, self.0)?, None))
            }
        }
        check::within("rate", self.rate, 0.0..=1.0)?;
        check::float("w", w)?;
        check::tensor("w", w.dims(), candle_core::DType::F64)?;
        let mut sizes =
            w.detach().abs()?.flatten_all()?.to_dtype(candle_core::DType::F64)?.to_vec1::<f64>()?;
        let Some(last) = sizes.len().checked_sub(1) else { return Ok(w.clone()) };
        // In single precision, as in NNabla, since that determines the index.
        let index = (last as f32 * self.rate as f32) as usize;
        let threshold = match self.rate {
            1.0 => f64::INFINITY,
            _ => *sizes.select_nth_unstable_by(index.min(last), f64::total_cmp).1,
        };
        told(|| Form::new("Prune", &[w]).with("rate", self.rate), || apply_elementwise(&Above(threshold), w))
    }
}
