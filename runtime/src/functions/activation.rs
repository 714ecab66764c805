//! Activations but ReLU, softmax, PReLU and dropout.

use candle_core::Tensor;
use candle_core::shape::Dim;

use super::composed;
use super::composed::activation::{Prelu, PreluSlope};
use super::graph::{attach, attach_with_result, tracked};
use super::node::{compute, element_count, for_float, in_type, widened, without_kernels};
use super::pointwise::{Pointwise, apply};
use crate::kernels::{self, Channels, Float, Lanes, zip};
use crate::number::{Formula, Number};
use crate::{Axis, Error, Result, check};

macro_rules! activations {
    (@gradient_from_value) => { true };
    (@gradient_from_element) => { false };
    ($(
        $(#[$doc:meta])*
        fn $name:ident($($argument:ident),*) = $f:ident {
            value($x:ident) = $value:expr;
            $gradient_from:ident($kept:ident, $dy:ident) = $gradient:expr;
        }
    )*) => {$(
        #[derive(Clone, Copy)]
        struct $f { $($argument: f64),* }

        impl Pointwise<1> for $f {
            const NAME: &'static str = stringify!($name);
            const SLOPE_FROM_VALUE: bool = activations!(@$gradient_from);

            #[inline(always)]
            fn value<V: Number>(self, [$x]: [V; 1]) -> V {
                $(let $argument = self.$argument;)*
                $value
            }

            #[inline(always)]
            fn gradient<V: Number>(self, _: usize, $dy: V, [$kept]: [V; 1]) -> V {
                $(let $argument = self.$argument;)*
                $gradient
            }
        }

        $(#[$doc])*
        pub fn $name(inp: &Tensor $(, $argument: f64)*) -> Result<Tensor> {
            $(check::within(stringify!($argument), $argument, ..)?;)*
            apply($f { $($argument),* }, [inp])
        }
    )*};
}

/// `sqrt(2 / pi)` and the cubic coefficient of the tanh form of GELU.
const GELU: (f64, f64) = (0.797_884_560_802_865_4, 0.044_715);

/// Scale and alpha of SELU.
const SELU: (f64, f64) = (1.050_700_987_355_480_5, 1.673_263_242_354_377_2);

activations! {
    /// `x` where positive, else `alpha x` (NNabla's default for `alpha` is 0.1); the slope at 0 is `alpha`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the input holds no floating-point numbers.
    ///
    /// # Example
    /// ```
    /// use candle_core::{Device, Tensor};
    /// let x = Tensor::new(&[-2f32, 2.], &Device::Cpu)?;
    /// assert_eq!(layerfn::functions::leaky_relu(&x, 0.5)?.to_vec1::<f32>()?, [-1., 2.]);
    /// # Ok::<(), layerfn::Error>(())
    /// ```
    fn leaky_relu(alpha) = LeakyRelu {
        value(x) = {
            let below = x.clone().scale(alpha); // outside of the branch: a loop over it is to have none
            V::select(x.above(0.0), || x.clone(), || below)
        };
        gradient_from_element(x, dy) = {
            let below = dy.clone().scale(alpha);
            V::select(x.above(0.0), || dy.clone(), || below)
        };
    }

    /// `x` where it is at least 0, else `alpha (exp(x) - 1)` (NNabla's default for `alpha` is 1).
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the input holds no floating-point numbers.
    ///
    /// # Example
    /// ```
    /// use candle_core::{Device, Tensor};
    /// let x = Tensor::new(&[f32::NEG_INFINITY, 0., 2.], &Device::Cpu)?;
    /// assert_eq!(layerfn::functions::elu(&x, 1.5)?.to_vec1::<f32>()?, [-1.5, 0., 2.]);
    /// # Ok::<(), layerfn::Error>(())
    /// ```
    fn elu(alpha) = Elu {
        value(x) = V::select(x.at_least(0.0), || x.clone(), || x.clone().exp_m1().scale(alpha));
        gradient_from_element(x, dy) =
            V::select(x.at_least(0.0), || dy.clone(), || dy.clone().scale(alpha) * x.clone().exp());
    }

    /// `scale x` where positive, else `scale alpha (exp(x) - 1)`, with the two constants of Klambauer et al. 2017.
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
    fn selu() = Selu {
        value(x) = V::select(x.above(0.0), || x.clone(), || x.clone().exp_m1().scale(SELU.1)).scale(SELU.0);
        gradient_from_element(x, dy) = {
            let slope = V::select(x.above(0.0), || x.constant(1.0), || x.clone().exp().scale(SELU.1));
            dy.scale(SELU.0) * slope
        };
    }

    /// `x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))`: GELU in its tanh form, as in NNabla.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the input holds no floating-point numbers.
    ///
    /// # Example
    /// ```
    /// use candle_core::{Device, Tensor};
    /// let x = Tensor::new(&[-20f32, 0., 20.], &Device::Cpu)?;
    /// assert_eq!(layerfn::functions::gelu(&x)?.to_vec1::<f32>()?, [0., 0., 20.]);
    /// # Ok::<(), layerfn::Error>(())
    /// ```
    fn gelu() = Gelu {
        value(x) = x.clone().scale(0.5) * gelu_inner(x).tanh().offset(1.0);
        gradient_from_element(x, dy) = {
            let t = gelu_inner(x.clone()).tanh();
            let inner_slope = (x.clone().scale(3.0 * GELU.1) * x.clone()).offset(1.0).scale(GELU.0);
            dy.scale(0.5) * (t.clone().offset(1.0) + x * (t.clone() * t).complement() * inner_slope)
        };
    }

    /// `x sigmoid(x)`, also called swish.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the input holds no floating-point numbers.
    ///
    /// # Example
    /// ```
    /// use candle_core::{Device, Tensor};
    /// let x = Tensor::new(&[0f32, 100.], &Device::Cpu)?;
    /// assert_eq!(layerfn::functions::silu(&x)?.to_vec1::<f32>()?, [0., 100.]);
    /// # Ok::<(), layerfn::Error>(())
    /// ```
    fn silu() = Silu {
        value(x) = x.clone() * x.sigmoid();
        gradient_from_element(x, dy) = {
            let s = x.clone().sigmoid();
            dy * (s.clone() + x.clone() * s * x.negative().sigmoid())
        };
    }

    /// `1 / (1 + exp(-x))`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the input holds no floating-point numbers.
    ///
    /// # Example
    /// ```
    /// use candle_core::{Device, Tensor};
    /// let x = Tensor::new(&[-1000f32, 0., 1000.], &Device::Cpu)?;
    /// assert_eq!(layerfn::functions::sigmoid(&x)?.to_vec1::<f32>()?, [0., 0.5, 1.]);
    /// # Ok::<(), layerfn::Error>(())
    /// ```
    fn sigmoid() = Sigmoid {
        value(x) = x.sigmoid();
        gradient_from_value(y, dy) = dy * y.clone() * y.complement();
    }

    /// Hyperbolic tangent.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the input holds no floating-point numbers.
    ///
    /// # Example
    /// ```
    /// use candle_core::{Device, Tensor};
    /// let x = Tensor::new(&[-1000f32, 0.], &Device::Cpu)?;
    /// assert_eq!(layerfn::functions::tanh(&x)?.to_vec1::<f32>()?, [-1., 0.]);
    /// # Ok::<(), layerfn::Error>(())
    /// ```
    fn tanh() = Tanh {
        value(x) = x.tanh();
        gradient_from_value(y, dy) = dy * (y.clone() * y).complement();
    }

    /// `log(1 + exp(x))`.
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
    fn softplus() = Softplus {
        value(x) = positive_part(&x) + x.abs().negative().exp().ln_1p();
        gradient_from_element(x, dy) = dy * x.sigmoid();
    }

    /// `0.2 x + 0.5`, cut off at 0 and 1.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the input holds no floating-point numbers.
    ///
    /// # Example
    /// ```
    /// use candle_core::{Device, Tensor};
    /// let x = Tensor::new(&[-3f32, 0., 3.], &Device::Cpu)?;
    /// assert_eq!(layerfn::functions::hard_sigmoid(&x)?.to_vec1::<f32>()?, [0., 0.5, 1.]);
    /// # Ok::<(), layerfn::Error>(())
    /// ```
    fn hard_sigmoid() = HardSigmoid {
        value(x) = {
            let y = x.scale(0.2).offset(0.5);
            let (zero, one) = (y.constant(0.0), y.constant(1.0));
            V::select(y.above(1.0), || one, || V::select(y.below(0.0), || zero, || y.clone()))
        };
        gradient_from_element(x, dy) = {
            let zero = dy.constant(0.0);
            V::select(x.abs().at_most(2.5), || dy.scale(0.2), || zero)
        };
    }
}

#[inline(always)]
fn gelu_inner<V: Number>(x: V) -> V {
    (x.clone() + x.clone().scale(GELU.1) * x.clone() * x).scale(GELU.0)
}

/// `max(x, 0)`, NaN staying NaN.
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
/// - `slope`: `()` for one slope, or `(C)` for one of each channel, where `C` is the size of axis `base_axis`
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
    element_count(dims)?;
    let channels = match (slope.dims(), dims.get(base_axis)) {
        ([], _) => Channels { outer: 1, channels: 1, inner: inp.elem_count() },
        ([n], Some(size)) if n == size => Channels {
            outer: element_count(&dims[..base_axis])?,
            channels: *n,
            inner: element_count(&dims[base_axis + 1..])?,
        },
        _ => {
            let reason =
                format!("must have shape () or that of axis {base_axis} (`base_axis`) of the input {dims:?}");
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
}

/// Sets each element to 0 with probability `p` and divides the others by `1 - p`.
///
/// `draw` gives uniform 32-bit numbers, one for each element in row-major order.
///
/// # Errors
/// [`Error::InvalidArgument`] if `p` is not in `[0, 1)`.
pub fn dropout(inp: &Tensor, p: f64, draw: &mut impl FnMut() -> u32) -> Result<Tensor> {
    check::within("p", p, 0.0..1.0)?;
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
}
