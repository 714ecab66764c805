//! Weights with few values, and the straight-through gradients they are trained with.
//!
//! A quantizer's own derivative is zero almost everywhere. The straight-through estimator hands the gradient of the
//! quantized value to the real one instead, unchanged or only where the value was not cut off ("fine-grained").

use candle_core::{DType, Tensor};

use super::node::{Elements, Value, attach, compute, element_count, for_float, widened};
use crate::kernels::{Channels, Float, map, zip};
use crate::{Error, Result};

/// An element's quantized value, and whether its gradient passes.
trait Quantizer: Copy + Send + Sync + 'static {
    fn value<T: Float>(self, x: T) -> T;

    fn passes<T: Float>(self, _x: T) -> bool {
        true
    }
}

/// The one straight-through operation behind all quantizers of single elements.
fn straight_through(name: &'static str, inp: &Tensor, quantizer: impl Quantizer) -> Result<Tensor> {
    let [x] = widened(name, [inp])?;
    let y = for_float!(x.dtype(), T => {
        let y = compute::<T, 1>(x.dims(), [&x], |[x], y| map(x, y, |x| quantizer.value(x)))?;
        let arg = x.clone();
        attach(name, [&x], y, move |_, dy| {
            let dx = compute::<T, 2>(arg.dims(), [&arg, dy], |[x, dy], dx| {
                zip(x, dy, dx, |x, dy| if quantizer.passes(x) { dy } else { T::ZERO });
            })?;
            Ok([Some(dx.into_tensor()?)])
        })
    })?;
    Ok(y.to_dtype(inp.dtype())?)
}

#[derive(Clone, Copy)]
struct Binary;

impl Quantizer for Binary {
    fn value<T: Float>(self, x: T) -> T {
        if x >= T::ZERO { T::ONE } else { -T::ONE }
    }
}

/// 1 where the weight is at least 0 (either zero), else -1.
///
/// The gradient passes unchanged, however large the weight.
///
/// # Errors
/// [`Error::InvalidArgument`] if the input holds no floating-point numbers.
///
/// # Source
/// NNabla's `binary_connect_affine` and `binary_connect_convolution`; Courbariaux et al. 2015.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// let w = Tensor::new(&[-0.3f32, 0., 2.], &Device::Cpu)?;
/// assert_eq!(layerfn::functions::binary_connect(&w)?.to_vec1::<f32>()?, [-1., 1., 1.]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn binary_connect(w: &Tensor) -> Result<Tensor> {
    straight_through("binary_connect", w, Binary)
}

/// Where the outputs stand in a weight tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightLayout {
    /// `(inmaps, outmaps..)`, as [`affine`](super::affine) has it.
    Affine,
    /// `(outmaps, inmaps, kernel..)`, as [`convolution`](super::convolution) has it.
    Convolution,
}

/// Weights of one modulus per output: returns `alpha wb`, `wb` and `alpha`.
///
/// `wb` is the sign as in [`binary_connect`], `alpha` the mean of `|w|` over all weights of an output. The gradient of the
/// first result passes unchanged to `w`, without the factor `alpha`; the other two results are constants.
///
/// # Shapes
/// - `alpha`: `(outmaps..)`; the others as `w`
///
/// # Errors
/// [`Error::InvalidArgument`] if `w` has no axis or an output no weights.
///
/// # Source
/// NNabla's `binary_weight_affine` and `binary_weight_convolution`; Rastegari et al. 2016. NNabla's text prints
/// `1 / |w|` for `alpha`, its code takes the mean.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// use layerfn::functions::{WeightLayout, binary_weight};
/// let w = Tensor::new(&[[1f32, -4.], [-3., 0.]], &Device::Cpu)?;
/// let (weight, binary, alpha) = binary_weight(&w, WeightLayout::Affine)?;
/// assert_eq!(weight.to_vec2::<f32>()?, [[2., -2.], [-2., 2.]]);
/// assert_eq!(binary.to_vec2::<f32>()?, [[1., -1.], [-1., 1.]]);
/// assert_eq!(alpha.to_vec1::<f32>()?, [2., 2.]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn binary_weight(w: &Tensor, layout: WeightLayout) -> Result<(Tensor, Tensor, Tensor)> {
    let dims = w.dims();
    if dims.is_empty() || w.elem_count() == 0 {
        return Err(Error::invalid("W", "must have at least one weight for each output", dims));
    }
    let (channels, alpha_dims) = match layout {
        WeightLayout::Affine => {
            (Channels { outer: dims[0], channels: element_count(&dims[1..])?, inner: 1 }, &dims[1..])
        }
        WeightLayout::Convolution => {
            (Channels { outer: 1, channels: dims[0], inner: element_count(&dims[1..])? }, &dims[..1])
        }
    };
    let [x] = widened("binary_weight", [w])?;
    let (weight, alpha) = for_float!(x.dtype(), T => {
        let n = channels.per_channel() as f64;
        let alpha = compute::<T, 1>(alpha_dims, [&x], |[x], alpha| {
            for (alpha, [sum]) in alpha.iter_mut().zip(channels.sums(x, x, |_, x, _| [Float::abs(x)])) {
                *alpha = T::of(sum / n);
            }
        })?;
        let scaled = compute::<T, 1>(dims, [&x], |[x], y| {
            channels.map(alpha.data.as_chunks::<1>().0, x, x, y, |[alpha], x, _| Binary.value(x) * *alpha);
        })?;
        let weight = attach("binary_weight", [&x], scaled, |_, dy| Ok([Some(dy.clone())]))?;
        Ok::<_, Error>((weight, alpha.into_tensor()?))
    })?;
    let binary = binary_connect(&w.detach())?;
    Ok((weight.to_dtype(w.dtype())?, binary, alpha.to_dtype(w.dtype())?))
}

#[derive(Clone, Copy)]
struct FixedPoint {
    levels: f64,
    sign: bool,
    delta: f64,
    fine_grained: bool,
}

impl FixedPoint {
    fn bounds<T: Float>(self) -> (T, T) {
        let max = T::of(self.levels * T::of(self.delta).wide());
        (if self.sign { -max } else { T::ZERO }, max)
    }
}

impl Quantizer for FixedPoint {
    fn value<T: Float>(self, x: T) -> T {
        let (min, max) = self.bounds::<T>();
        if x > max {
            return max;
        }
        if x < min {
            return min;
        }
        let delta = T::of(self.delta);
        let y = T::of(((x.abs() / delta).wide() + 0.5).floor()) * delta;
        if x < T::ZERO { -y } else { y }
    }

    fn passes<T: Float>(self, x: T) -> bool {
        let (min, max) = self.bounds::<T>();
        !self.fine_grained || !(x > max || x < min)
    }
}

/// Multiples of `delta` that fit `n` bits, one of which is the sign if `sign`.
///
/// With `n' = n - 1` for the sign or `n' = n` without: `x` is rounded to the nearest multiple, halves away from zero, and
/// cut off at `(2^n' - 1) delta` and at minus that, or at 0 without sign. With `ste_fine_grained` no gradient passes where
/// it was cut off.
///
/// # Errors
/// [`Error::InvalidArgument`] if no bit or more than 64 are left for the value, or `delta` is not positive.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// use layerfn::functions::fixed_point_quantize;
/// let x = Tensor::new(&[-9f32, -0.75, 0.2, 0.3, 9.], &Device::Cpu)?;
/// let y = fixed_point_quantize(&x, true, 3, 0.5, true)?;
/// assert_eq!(y.to_vec1::<f32>()?, [-1.5, -1., 0., 0.5, 1.5]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn fixed_point_quantize(
    inp: &Tensor,
    sign: bool,
    n: usize,
    delta: f64,
    ste_fine_grained: bool,
) -> Result<Tensor> {
    let bits = effective_bits(n, usize::from(sign), "the sign")?;
    if !(delta > 0.0 && delta.is_finite()) {
        return Err(Error::invalid("delta", "must be positive", delta));
    }
    let levels = 2f64.powi(bits) - 1.0;
    let quantizer = FixedPoint { levels, sign, delta, fine_grained: ste_fine_grained };
    straight_through("fixed_point_quantize", inp, quantizer)
}

#[derive(Clone, Copy)]
struct Pow2 {
    p_max: f64,
    p_min: f64,
    sign: bool,
    with_zero: bool,
    fine_grained: bool,
}

/// `2^round(log2 |x|)`, not yet cut off.
fn nearest_power<T: Float>(x: T) -> T {
    T::of(x.abs().log2().round().wide().exp2())
}

impl Quantizer for Pow2 {
    fn value<T: Float>(self, x: T) -> T {
        let (p_max, p_min) = (T::of(self.p_max), T::of(self.p_min));
        let zero_below = T::of(self.p_min * std::f64::consts::FRAC_1_SQRT_2);
        let nearest = nearest_power(x);
        let q = if nearest > p_max {
            p_max
        } else if nearest < p_min {
            if self.with_zero && x.abs() < zero_below { T::ZERO } else { p_min }
        } else {
            nearest
        };
        match (x < T::ZERO, self.sign) {
            (false, _) => q,
            (true, true) => -q,
            (true, false) if self.with_zero => T::ZERO,
            (true, false) => p_min,
        }
    }

    fn passes<T: Float>(self, x: T) -> bool {
        if !self.fine_grained {
            return true;
        }
        let too_large = nearest_power(x) > T::of(self.p_max);
        !too_large && (self.sign || x >= T::ZERO || x.is_nan())
    }
}

/// Powers of two of at most `2^m` that fit `n` bits.
///
/// With `n' = n - sign - with_zero` the powers go from `2^m` down to `2^(m - 2^n' + 1)`; `x` takes the one nearest on the
/// logarithmic scale and keeps its sign. With `with_zero`, what is smaller than the least power by more than `sqrt(2)` is
/// 0. Without `sign`, negative `x` become 0, or the least power where there is no zero. With `ste_fine_grained` no gradient
/// passes above `2^m`, nor for negative `x` without `sign`.
///
/// # Errors
/// [`Error::InvalidArgument`] if no bit or more than 64 are left for the exponent.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// use layerfn::functions::pow2_quantize;
/// let x = Tensor::new(&[-9f32, 0.01, 0.3, 1.2], &Device::Cpu)?;
/// let y = pow2_quantize(&x, true, true, 4, 1, true)?;
/// assert_eq!(y.to_vec1::<f32>()?, [-2., 0., 0.25, 1.]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn pow2_quantize(
    inp: &Tensor,
    sign: bool,
    with_zero: bool,
    n: usize,
    m: i32,
    ste_fine_grained: bool,
) -> Result<Tensor> {
    let bits = effective_bits(n, usize::from(sign) + usize::from(with_zero), "sign and zero")?;
    let p_max = f64::from(m).exp2();
    let p_min = (f64::from(m) - (2f64.powi(bits) - 1.0)).exp2();
    let quantizer = Pow2 { p_max, p_min, sign, with_zero, fine_grained: ste_fine_grained };
    straight_through("pow2_quantize", inp, quantizer)
}

/// The bits of `n` that are left for the value after some are `taken`.
fn effective_bits(n: usize, taken: usize, by: &str) -> Result<i32> {
    match n.checked_sub(taken).and_then(|bits| i32::try_from(bits).ok()) {
        Some(bits @ 1..=64) => Ok(bits),
        _ => Err(Error::invalid("n", format!("must leave 1 to 64 bits after {taken} for {by}"), n)),
    }
}

#[derive(Clone, Copy)]
struct Prune {
    threshold: f64,
}

impl Quantizer for Prune {
    fn value<T: Float>(self, x: T) -> T {
        if x.abs() < T::of(self.threshold) { T::ZERO } else { x }
    }
}

/// Sets the share `rate` of the elements that have the smallest moduli to 0.
///
/// Elements as large as the first one that is kept are kept, too. `rate` 1 removes all. The gradient passes unchanged, for
/// pruned elements as well.
///
/// # Errors
/// [`Error::InvalidArgument`] if `rate` is not in `[0, 1]`.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// let x = Tensor::new(&[3f32, -1., 2., -4., 0.5], &Device::Cpu)?;
/// assert_eq!(layerfn::functions::prune(&x, 0.5)?.to_vec1::<f32>()?, [3., 0., 2., -4., 0.]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn prune(inp: &Tensor, rate: f64) -> Result<Tensor> {
    if !(0.0..=1.0).contains(&rate) {
        return Err(Error::invalid("rate", "must be in [0, 1]", rate));
    }
    let [x] = widened("prune", [inp])?;
    let mut moduli = moduli(&x)?;
    let threshold = if moduli.is_empty() {
        0.0
    } else {
        // In f32, as NNabla does: the rounding decides which element is the threshold.
        let index = (moduli.len() - 1) as f32 * rate as f32;
        let index = (index as usize).min(moduli.len() - 1);
        let (_, threshold, _) = moduli.select_nth_unstable_by(index, f64::total_cmp);
        *threshold + if rate as f32 == 1.0 { 1.0 } else { 0.0 }
    };
    straight_through("prune", inp, Prune { threshold })
}

/// `|x|` for each element.
fn moduli(x: &Tensor) -> Result<Vec<f64>> {
    for_float!(x.dtype(), T => {
        let elements = Elements::of(x);
        Ok(elements.slice::<T>()?.iter().map(|x| x.wide().abs()).collect())
    })
}

/// Incremental network quantization: rounds the fixed weights to powers of two (or 0).
///
/// With `M` the largest modulus of all weights, the exponents go from `n1`, that of `M`, down to
/// `n2 = n1 + 1 - 2^(num_bits - 2)`. A weight of modulus below `2^(n2 - 1)` becomes 0; exponents round up from 1.5 on.
/// The result is a constant: what layers do with it goes through the parameter.
///
/// # Shapes
/// - `w`: any
/// - `indicators`: as `w`, of any type; 1 where a weight is fixed, 0 where it still learns
///
/// # Errors
/// [`Error::InvalidArgument`] if the shapes differ, `num_bits` is not in 2..=32 or a weight is not finite.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// let w = Tensor::new(&[0.9f32, 0.9, -0.3, 0.01], &Device::Cpu)?;
/// let fixed = Tensor::new(&[1u8, 0, 1, 1], &Device::Cpu)?;
/// let w = layerfn::functions::inq_quantize(&w, &fixed, 4)?;
/// assert_eq!(w.to_vec1::<f32>()?, [1., 0.9, -0.25, 0.]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn inq_quantize(w: &Tensor, indicators: &Tensor, num_bits: usize) -> Result<Tensor> {
    let levels = match num_bits {
        2..=32 => 1i64 << (num_bits - 2),
        _ => return Err(Error::invalid("num_bits", "must be from 2 to 32", num_bits)),
    };
    let indicators = read_indicators(indicators, w.dims())?;
    let dtype = w.dtype();
    let [w] = widened("inq_quantize", [&w.detach()])?;
    if !moduli(&w)?.iter().all(|modulus| modulus.is_finite()) {
        return Err(Error::invalid("W", "must hold finite weights", "an infinite one or NaN"));
    }
    let y = for_float!(w.dtype(), T => {
        let quantized = compute::<T, 1>(w.dims(), [&w], |[w], y| {
            // The constant of the bound is a double in NNabla, that of each weight has the weights' type.
            let largest = w.iter().map(|w| Float::abs(*w)).fold(T::ZERO, Float::max);
            let largest = if largest == T::ZERO { T::ONE } else { largest };
            let n1 = exponent(largest, |fraction| fraction.wide() >= 1.5f64.log2());
            let n2 = n1 + 1 - levels;
            let threshold = T::of(((n2 - 1) as f64).exp2());
            let round_up = T::of(1.5f64.log2());
            for ((y, w), indicator) in y.iter_mut().zip(w).zip(&indicators) {
                *y = if *indicator != 1.0 {
                    *w
                } else if Float::abs(*w) < threshold {
                    T::ZERO
                } else {
                    let power = exponent(Float::abs(*w), |fraction| fraction >= round_up).clamp(n2, n1);
                    let modulus = T::of((power as f64).exp2());
                    if *w < T::ZERO { -modulus } else { modulus }
                };
            }
        })?;
        Ok::<_, Error>(quantized.into_tensor()?)
    })?;
    Ok(y.to_dtype(dtype)?)
}

/// `floor(log2 x)`, or one more if the rest of the logarithm says so.
fn exponent<T: Float>(x: T, rounds_up: impl Fn(T) -> bool) -> i64 {
    let logarithm = x.log2();
    let whole = logarithm.floor();
    whole.wide() as i64 + i64::from(rounds_up(logarithm - whole))
}

/// Incremental network quantization: fixes the larger half of the weights that still learn.
///
/// Of `L` such weights the `floor(L / 2)` of the largest moduli are fixed, of equal ones the first. Where only one is
/// left, it is fixed if no other weight is larger, as in NNabla. Returns the new indicators.
///
/// # Errors
/// [`Error::InvalidArgument`] if the shapes differ.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// let w = Tensor::new(&[0.1f32, -0.9, 0.5, 0.7, 0.2], &Device::Cpu)?;
/// let fixed = Tensor::new(&[0u8, 1, 0, 0, 0], &Device::Cpu)?;
/// let fixed = layerfn::functions::inq_select_largest(&w, &fixed)?;
/// assert_eq!(fixed.to_vec1::<u8>()?, [0, 1, 1, 1, 0]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn inq_select_largest(w: &Tensor, indicators: &Tensor) -> Result<Tensor> {
    let mut values = read_indicators(indicators, w.dims())?;
    let [w] = widened("inq_select_largest", [w])?;
    let moduli = moduli(&w)?;
    let mut order: Vec<usize> = (0..moduli.len()).collect();
    order.sort_by(|&a, &b| moduli[b].total_cmp(&moduli[a]));
    let to_fix = values.iter().filter(|&&value| value == 0.0).count() / 2;
    let mut n_fixed = 0;
    for i in order {
        if values[i] == 0.0 {
            values[i] = 1.0;
            n_fixed += 1;
        }
        if n_fixed >= to_fix {
            break;
        }
    }
    write_indicators(values, indicators)
}

/// Incremental network quantization: fixes each weight that still learns with probability one half.
///
/// `draw` gives uniform 32-bit numbers, two for each such weight in row-major order, as NNabla's generator is asked; see
/// [`mt19937`]. Returns the new indicators.
///
/// # Errors
/// If the indicators hold no numbers.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// use layerfn::functions::{inq_select_random, mt19937};
/// let fixed = Tensor::new(&[0u8, 1, 0, 0], &Device::Cpu)?;
/// let fixed = inq_select_random(&fixed, &mut mt19937(313))?;
/// assert_eq!(fixed.to_vec1::<u8>()?[1], 1);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn inq_select_random(indicators: &Tensor, draw: &mut impl FnMut() -> u32) -> Result<Tensor> {
    let mut values = read_indicators(indicators, indicators.dims())?;
    for value in values.iter_mut().filter(|value| **value == 0.0) {
        let (low, high) = (f64::from(draw()), f64::from(draw()));
        // In this order of roundings, which decides at the very edge.
        let uniform = (low + high * 2f64.powi(32)) / 2f64.powi(64);
        *value = if uniform < 0.5 { 1.0 } else { 0.0 };
    }
    write_indicators(values, indicators)
}

/// The generator of `std::mt19937(seed)` in C++, a number a call.
///
/// ```
/// assert_eq!(layerfn::functions::mt19937(5489)(), 3499211612); // the first number of std::mt19937
/// ```
pub fn mt19937(seed: u32) -> impl FnMut() -> u32 + Send + Sync {
    let mut generator = rand_mt::Mt::new(seed);
    move || generator.next_u32()
}

fn read_indicators(indicators: &Tensor, dims: &[usize]) -> Result<Vec<f64>> {
    if indicators.dims() != dims {
        return Err(Error::invalid("I", format!("must have the shape of `W`, {dims:?}"), indicators.dims()));
    }
    Ok(indicators.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?)
}

fn write_indicators(values: Vec<f64>, like: &Tensor) -> Result<Tensor> {
    let value = Value { data: values, dims: like.dims().to_vec() };
    Ok(value.into_tensor()?.to_dtype(like.dtype())?)
}
