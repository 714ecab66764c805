//! Min-max quantization: equal steps between two ends that are learned or measured.

use candle_core::{DType, Tensor};

use super::composed;
use super::graph::attach;
use super::node::{Element, Value, compute, for_float, in_type, read, widened, without_kernels};
use crate::kernels::{Channels, Float, combine};
use crate::told::{Form, told};
use crate::{Error, Result, check};

/// Min-max quantization: rounds values between `qr_min` and `qr_max` to equidistant levels, of which there are
/// as many as integers between `ql_min` and `ql_max`; one of them is 0.
///
/// The range is updated first: with `x_min_max` its ends become the least and the largest element, with `ema`
/// as well `decay · end + (1 − decay) · extreme`. If the ends are closer than `eps`, `qr_max` becomes `qr_min +
/// eps`. Then `scale = (qr_max − qr_min) / (ql_max − ql_min)`, `zero = round(ql_min − qr_min / scale)` clipped
/// to `[ql_min, ql_max]`, `m = (ql_min − zero) · scale`, `M = (ql_max − zero) · scale`, and `y = round((clip(x,
/// m, M) − m) / scale) · scale + m`, where halves are rounded away from zero.
///
/// The gradient is passed on where `m ≤ x ≤ M`, and everywhere if `ste_fine_grained` is false. The ends get the
/// gradients of the elements that are clipped there, or 0 if they are measured (`x_min_max` or `ema`).
///
/// ```
/// use candle_core::{Device, Tensor};
/// use layerfn::functions::MinMax;
///
/// let quantizer =
///     MinMax { decay: 0.999, x_min_max: false, ema: false, ste_fine_grained: true, eps: 0.01 }.checked()?;
/// let number = |x: f32| Tensor::new(&[x], &Device::Cpu);
/// let (range, levels) = ([&number(-1.0)?, &number(2.0)?], [&number(0.0)?, &number(3.0)?]);
/// let x = Tensor::new(&[-9f32, -0.4, 0.7, 9.0], &Device::Cpu)?;
/// let quantized = quantizer.apply(&x, range, levels)?;
/// assert_eq!(quantized.output.to_vec1::<f32>()?, [-1.0, 0.0, 1.0, 2.0]);
/// assert!(quantized.range.is_none()); // it stays
/// # Ok::<(), layerfn::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MinMax {
    /// Weight of the previous range in the moving average, in [0, 1].
    pub decay: f64,
    /// Whether the range is measured.
    pub x_min_max: bool,
    /// Whether the range is a moving average of measured ones.
    pub ema: bool,
    /// Whether elements outside the range get no gradient.
    pub ste_fine_grained: bool,
    /// Least width of the range, above 0.
    pub eps: f64,
}

/// The result of [`MinMax::apply`].
#[derive(Clone, Debug)]
pub struct MinMaxQuantized {
    /// The quantized elements.
    pub output: Tensor,
    /// The ends of the range if they were updated, detached.
    pub range: Option<[Tensor; 2]>,
}

impl MinMax {
    /// Validates the settings and returns the quantizer.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if they are invalid.
    pub fn checked(self) -> Result<Self> {
        check::within("decay", self.decay, 0.0..=1.0)?;
        check::positive("eps", self.eps)?;
        Ok(self)
    }

    fn form(&self, x: &Tensor, range: [&Tensor; 2], levels: [&Tensor; 2]) -> Form {
        let form = Form::new("MinMaxQuantize", &[x, range[0], range[1], levels[0], levels[1]]);
        let form = form.with("decay", self.decay).with("x_min_max", self.x_min_max).with("ema", self.ema);
        form.with("ste_fine_grained", self.ste_fine_grained).with("eps", self.eps)
    }

    /// Quantizes the elements of `x`, with the range `[qr_min, qr_max]` and the levels `[ql_min, ql_max]`,
    /// which are tensors of one element each.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if one of these does not have exactly one finite element, `ql_max` is not
    /// above `ql_min`, or the range is measured and `x` is empty or holds no finite numbers.
    pub fn apply(&self, x: &Tensor, range: [&Tensor; 2], levels: [&Tensor; 2]) -> Result<MinMaxQuantized> {
        check::input("x", x)?;
        let [ql_min, ql_max] = [number("ql_min", levels[0])?, number("ql_max", levels[1])?];
        if ql_max <= ql_min {
            return Err(Error::invalid("ql_max", format!("must be above `ql_min`, {ql_min}"), ql_max));
        }
        let before = [number("qr_min", range[0])?, number("qr_max", range[1])?];
        let after = self.moved(x, before)?;
        let steps = Steps::new(after, [ql_min, ql_max]);
        // Gradients go to the ends in the type of the elements.
        let ends = [range[0].to_dtype(x.dtype())?, range[1].to_dtype(x.dtype())?];
        let output = told(|| self.form(x, range, levels), || self.quantize(x, &ends, steps))?;
        let constant = |end: f64, like: &Tensor| -> Result<Tensor> {
            Ok(Tensor::full(end, like.dims(), like.device())?.to_dtype(like.dtype())?)
        };
        let range = match after == before {
            true => None,
            false => Some([constant(after[0], range[0])?, constant(after[1], range[1])?]),
        };
        Ok(MinMaxQuantized { output, range })
    }

    /// The ends of the range for these elements.
    fn moved(&self, x: &Tensor, [mut low, mut high]: [f64; 2]) -> Result<[f64; 2]> {
        if self.x_min_max {
            let [least, largest] = extremes(x)?;
            let stays = if self.ema { self.decay } else { 0.0 };
            let end = |old: f64, new: f64| if stays > 0.0 { old * stays + new * (1.0 - stays) } else { new };
            (low, high) = (end(low, least), end(high, largest));
        }
        if high - low < self.eps {
            high = low + self.eps;
        }
        Ok([low, high])
    }

    fn quantize(&self, x: &Tensor, ends: &[Tensor; 2], steps: Steps) -> Result<Tensor> {
        let Self { ste_fine_grained, .. } = *self;
        let learned = !self.x_min_max && !self.ema;
        let compose = |t: &[Tensor]| {
            let ends = [&t[1], &t[2]];
            Ok([composed::quantization::min_max(&t[0], ends, steps, ste_fine_grained, learned)?])
        };
        if let Some([y]) = without_kernels("min_max_quantize", &[x, &ends[0], &ends[1]], compose)? {
            return Ok(y);
        }
        let dtype = x.dtype();
        let [x, low, high] = widened("min_max_quantize", [x, &ends[0], &ends[1]])?;
        let y = for_float!(x.dtype(), T => {
            let [min, max, scale] = [steps.min, steps.max, steps.scale].map(|x| T::of(f64::from(x)));
            let y = compute::<T, 1>(x.dims(), [&x], |[x], y| {
                combine([x], y, |[x]| ((clip(x, min, max) - min) / scale).round() * scale + min);
            })?;
            let (arg, end) = (Tensor::clone(&x), low.dims().to_vec());
            attach("min_max_quantize", [&x, &low, &high], y, move |dy| {
                let inside = move |x: T, dy: T| if x >= min && x <= max { dy } else { T::ZERO };
                let dx = match ste_fine_grained {
                    true => compute::<T, 2>(arg.dims(), [&arg, dy], |[x, dy], dx| {
                        combine([x, dy], dx, |[x, dy]| inside(x, dy));
                    })?
                    .into_tensor()?,
                    false => dy.clone(),
                };
                let mut sums = [0.0; 2];
                if learned {
                    let all = Channels { outer: 1, channels: 1, inner: arg.elem_count() };
                    let below = move |x: T, dy: T| if x < min { dy } else { T::ZERO };
                    let above = move |x: T, dy: T| if x > max { dy } else { T::ZERO };
                    sums = read([&arg, dy], |[x, dy]: [&[T]; 2]| {
                        all.sums(x, dy, |_| move |x, dy| [below(x, dy), above(x, dy)])[0]
                    })?;
                }
                let end = |sum| Value { data: vec![T::of(sum)], dims: end.clone() }.into_tensor();
                Ok([Some(dx), Some(end(sums[0])?), Some(end(sums[1])?)])
            })
        })?;
        in_type(y, dtype)
    }
}

/// The nearest number between the two; NaN remains NaN.
#[inline(always)]
fn clip<T: Float>(x: T, min: T, max: T) -> T {
    let x = if x < min { min } else { x };
    if x > max { max } else { x }
}

/// The least and the largest value, and their distance; in `f32` for elements of any type, since the place of 0 is a matter of
/// the last digit: the default range of -6 to 6 with 256 steps has it just between two of them.
#[derive(Clone, Copy)]
pub(super) struct Steps {
    pub(super) min: f32,
    pub(super) max: f32,
    pub(super) scale: f32,
}

impl Steps {
    fn new([low, high]: [f64; 2], levels: [f64; 2]) -> Self {
        let [low, high, ql_min, ql_max] = [low, high, levels[0], levels[1]].map(|x| x as f32);
        let scale = (high - low) / (ql_max - ql_min);
        let zero = ql_min - low / scale;
        let zero = if zero <= ql_min { ql_min } else { zero.round().min(ql_max) };
        Self { min: (ql_min - zero) * scale, max: (ql_max - zero) * scale, scale }
    }
}

/// The only element.
fn number(argument: &'static str, tensor: &Tensor) -> Result<f64> {
    if tensor.elem_count() != 1 {
        return Err(Error::invalid(argument, "must have one element", tensor.dims()));
    }
    check::float(argument, tensor)?;
    let number = tensor.detach().to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?[0];
    check::within(argument, number, ..)?;
    Ok(number)
}

/// The least and the largest element.
fn extremes(x: &Tensor) -> Result<[f64; 2]> {
    if x.elem_count() == 0 {
        return Err(Error::invalid("x", "must have elements to take the range of", x.dims()));
    }
    let x = x.detach();
    let compose = |t: &[Tensor]| {
        let all = t[0].flatten_all()?;
        // candle's extremes ignore NaN, a sum does not.
        let not_finite = (&all * 0.0)?.sum(0)?;
        Ok([Tensor::stack(&[all.min(0)?, all.max(0)?], 0)?.broadcast_add(&not_finite)?])
    };
    let ends = match without_kernels("extremes", &[&x], compose)? {
        Some([ends]) => ends.to_dtype(DType::F64)?.to_vec1::<f64>()?,
        None => {
            let [x] = widened("extremes", [&x])?;
            for_float!(x.dtype(), T => extremes_by_kernels::<T>(&x))?
        }
    };
    for &end in &ends {
        check::within("x", end, ..)?;
    }
    Ok([ends[0], ends[1]])
}

fn extremes_by_kernels<T: Element>(x: &Tensor) -> Result<Vec<f64>> {
    read([x], |[x]: [&[T]; 1]| {
        let mut ends = [x[0], x[0]];
        for &x in x {
            ends = [if x < ends[0] { x } else { ends[0] }, if x > ends[1] { x } else { ends[1] }];
            // NaN must be found as well.
            if x.is_nan() {
                return vec![f64::NAN; 2];
            }
        }
        ends.map(T::wide).to_vec()
    })
}
