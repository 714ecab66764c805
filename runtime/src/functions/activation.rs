//! Activations, softmax, PReLU and dropout.

use candle_core::Tensor;
use candle_core::shape::Dim;

use super::composed;
use super::graph::{attach, attach_with_result, tracked};
use super::node::{Element, compute, element_count, for_float, in_type, widened, without_kernels};
use crate::kernels::{self, Channels, Float, Lanes, map, map_in_place, zip};
use crate::{Error, Result, check};

/// A function of one element and its slope.
trait Pointwise: Copy + Send + Sync + 'static {
    const NAME: &'static str;

    /// Whether the slope follows from the value; otherwise it is computed from the element. One of the two is kept for
    /// the backward pass.
    const SLOPE_FROM_VALUE: bool;

    fn value<T: Float>(self, x: T) -> T;

    /// `dx` from what is kept and the gradient `dy`.
    fn gradient<T: Float>(self, kept: T, dy: T) -> T;
}

fn pointwise<P: Pointwise>(inp: &Tensor, f: P) -> Result<Tensor> {
    let [x] = widened(P::NAME, [inp])?;
    let y = for_float!(x.dtype(), T => {
        let y = compute::<T, 1>(x.dims(), [&x], |[x], y| map(x, y, |x| f.value(x)))?;
        if P::SLOPE_FROM_VALUE {
            attach_with_result(P::NAME, [&x], y, move |y, dy| Ok([Some(gradient::<T, P>(f, y, dy)?)]))
        } else {
            let kept = Tensor::clone(&x);
            attach(P::NAME, [&x], y, move |dy| Ok([Some(gradient::<T, P>(f, &kept, dy)?)]))
        }
    })?;
    in_type(y, inp.dtype())
}

/// `dx` from what is kept and the gradient `dy`.
fn gradient<T: Element, P: Pointwise>(f: P, kept: &Tensor, dy: &Tensor) -> candle_core::Result<Tensor> {
    let dx = compute::<T, 2>(dy.dims(), [kept, dy], |[kept, dy], dx| {
        zip(kept, dy, dx, |kept, dy| f.gradient(kept, dy));
    })?;
    dx.into_tensor()
}

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

        impl Pointwise for $f {
            const NAME: &'static str = stringify!($name);
            const SLOPE_FROM_VALUE: bool = activations!(@$gradient_from);

            fn value<T: Float>(self, $x: T) -> T {
                $(let $argument = T::of(self.$argument);)*
                $value
            }

            fn gradient<T: Float>(self, $kept: T, $dy: T) -> T {
                $(let $argument = T::of(self.$argument);)*
                $gradient
            }
        }

        $(#[$doc])*
        pub fn $name(inp: &Tensor $(, $argument: f64)*) -> Result<Tensor> {
            $(check::within(stringify!($argument), $argument, ..)?;)*
            let compose = |t: &[Tensor]| Ok([composed::activation::$name(&t[0] $(, $argument)*)?]);
            if let Some([y]) = without_kernels(stringify!($name), &[inp], compose)? {
                return Ok(y);
            }
            pointwise(inp, $f { $($argument),* })
        }
    )*};
}

/// `sqrt(2 / pi)` and the cubic coefficient of the tanh form of GELU.
pub(super) const GELU: (f64, f64) = (0.797_884_560_802_865_4, 0.044_715);

/// Scale and alpha of SELU.
pub(super) const SELU: (f64, f64) = (1.050_700_987_355_480_5, 1.673_263_242_354_377_2);

activations! {
    /// `max(x, 0)`; the gradient at 0 is 0.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the input holds no floating-point numbers.
    ///
    /// # Example
    /// ```
    /// use candle_core::{Device, Tensor};
    /// let x = Tensor::new(&[-1f32, 0., 2.], &Device::Cpu)?;
    /// assert_eq!(layerfn::functions::relu(&x)?.to_vec1::<f32>()?, [0., 0., 2.]);
    /// # Ok::<(), layerfn::Error>(())
    /// ```
    fn relu() = Relu {
        value(x) = if x > T::ZERO || x.is_nan() { x } else { T::ZERO };
        gradient_from_value(y, dy) = if y > T::ZERO { dy } else { T::ZERO };
    }

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
        value(x) = if x > T::ZERO { x } else { alpha * x };
        gradient_from_element(x, dy) = if x > T::ZERO { dy } else { alpha * dy };
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
        value(x) = if x >= T::ZERO { x } else { alpha * x.exp_m1() };
        gradient_from_element(x, dy) = if x >= T::ZERO { dy } else { dy * alpha * x.exp() };
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
        value(x) = T::of(SELU.0) * if x > T::ZERO { x } else { T::of(SELU.1) * x.exp_m1() };
        gradient_from_element(x, dy) = dy * T::of(SELU.0) * if x > T::ZERO { T::ONE } else { T::of(SELU.1) * x.exp() };
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
        value(x) = T::of(0.5) * x * (T::ONE + gelu_inner(x).tanh());
        gradient_from_element(x, dy) = {
            let t = gelu_inner(x).tanh();
            let inner_slope = T::of(GELU.0) * (T::ONE + T::of(3.0 * GELU.1) * x * x);
            dy * T::of(0.5) * (T::ONE + t + x * (T::ONE - t * t) * inner_slope)
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
        value(x) = x * x.sigmoid();
        gradient_from_element(x, dy) = {
            let s = x.sigmoid();
            dy * (s + x * s * (-x).sigmoid())
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
        gradient_from_value(y, dy) = dy * y * (T::ONE - y);
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
        gradient_from_value(y, dy) = dy * (T::ONE - y * y);
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
        value(x) = positive_part(x) + (-x.abs()).exp().ln_1p();
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
            let y = T::of(0.2) * x + T::of(0.5);
            if y > T::ONE { T::ONE } else if y < T::ZERO { T::ZERO } else { y }
        };
        gradient_from_element(x, dy) = if x.abs() <= T::of(2.5) { dy * T::of(0.2) } else { T::ZERO };
    }
}

fn gelu_inner<T: Float>(x: T) -> T {
    T::of(GELU.0) * (x + T::of(GELU.1) * x * x * x)
}

/// `max(x, 0)`, NaN staying NaN.
fn positive_part<T: Float>(x: T) -> T {
    if x < T::ZERO { T::ZERO } else { x }
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
pub fn prelu(inp: &Tensor, slope: &Tensor, base_axis: usize) -> Result<Tensor> {
    let dims = inp.dims();
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
            channels.map(w.as_chunks::<1>().0, x, x, y, |[w], x, _| if x >= T::ZERO { x } else { *w * x });
        })?;
        let (arg, slope) = (Tensor::clone(&x), Tensor::clone(&w));
        attach("prelu", [&x, &w], y, move |dy| {
            let (mut dx, mut dw) = (None, None);
            if needed[0] {
                let value = compute::<T, 3>(arg.dims(), [&arg, dy, &slope], |[x, dy, w], dx| {
                    let slopes = w.as_chunks::<1>().0;
                    channels.map(slopes, x, dy, dx, |[w], x, dy| if x >= T::ZERO { dy } else { *w * dy });
                })?;
                dx = Some(value.into_tensor()?);
            }
            if needed[1] {
                let value = compute::<T, 2>(slope.dims(), [&arg, dy], |[x, dy], dw| {
                    let sums = channels.sums(x, dy, |_| |x, dy| [if x >= T::ZERO { T::ZERO } else { dy * x }]);
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

/// [`relu`] of one element.
pub(super) fn relu_of<T: Float>(x: T) -> T {
    Relu {}.value(x)
}

/// [`relu`] of a tensor if asked for.
pub(super) fn relu_if(asked: bool, y: Tensor) -> Result<Tensor> {
    if asked { relu(&y) } else { Ok(y) }
}

/// [`relu`] of each element if asked for.
pub(super) fn relu_in_place<T: Float>(y: &mut [T], asked: bool) {
    if asked {
        map_in_place(y, relu_of);
    }
}

/// The gradient before [`relu`] from that of its result, which is positive where `x` was.
pub(super) fn relu_gradient_of<T: Float>(x: T, dy: T) -> T {
    Relu {}.gradient(x, dy)
}

/// [`relu_gradient_of`] for tensors.
pub(super) fn relu_gradient<T: Element>(result: &Tensor, dy: &Tensor) -> candle_core::Result<Tensor> {
    gradient::<T, _>(Relu {}, result, dy)
}

/// Sets each element to 0 with probability `p` and divides the others by `1 - p`.
///
/// `draw` gives uniform 32-bit numbers, one for each element in row-major order.
///
/// # Errors
/// [`Error::InvalidArgument`] if `p` is not in `[0, 1)`.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// let x = Tensor::new(&[1f32, 2., 3.], &Device::Cpu)?;
/// let mut draws = [u32::MAX, 0, u32::MAX].into_iter();
/// let y = layerfn::functions::dropout(&x, 0.5, &mut || draws.next().unwrap_or(0))?;
/// assert_eq!(y.to_vec1::<f32>()?, [2., 0., 6.]);
/// # Ok::<(), layerfn::Error>(())
/// ```
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
