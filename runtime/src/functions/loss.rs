//! Losses.

use candle_core::shape::Dim;
use candle_core::{DType, Tensor};

use super::activation::{lanes, positive_part};
use super::composed;
use super::embed::{index, integers};
use super::graph::attach;
use super::node::{Value, accumulate, compute, for_float, in_type, widened, without_kernels, zeros};
use super::pointwise::{Pointwise, Slope, apply, binary, unary};
use super::reduce::sum;
use super::shape::reshape;
use crate::kernels::{self, Float, Lanes, cross_entropy, cross_entropy_gradient, pick, put_back};
use crate::number::Number;
use crate::told::{Form, listens, told};
use crate::{Axis, Error, Result, check};

/// Cross entropy between the softmax of `inp` along `axis` and labels, for each sample.
///
/// `y = log(sum of exp(inp)) - inp[label]`. A sample with a negative label does not count: its loss and its
/// gradient are 0, whatever its `inp` is. The labels get no gradient.
///
/// # Shapes
/// - `inp`: `(N.., C, M..)`, with the classes on `axis`
/// - `labels`: `(N.., 1, M..)` or `(N.., M..)`, of an integer type
/// - output: `(N.., 1, M..)`
///
/// # Errors
/// [`Error::InvalidArgument`] if the labels are not integers, have another shape, or one is `C` or larger.
///
/// # Example
/// ```
/// use candle_core::{D, Device, Tensor};
/// use layerfn::functions::softmax_cross_entropy;
/// let x = Tensor::new(&[[0f64, 0.], [1000., 0.], [3., 4.]], &Device::Cpu)?;
/// let labels = Tensor::new(&[1i64, 0, -1], &Device::Cpu)?;
/// let y = softmax_cross_entropy(&x, &labels, D::Minus1)?;
/// assert_eq!(y.to_vec2::<f64>()?, [[2f64.ln()], [0.], [0.]]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn softmax_cross_entropy(inp: &Tensor, labels: &Tensor, axis: impl Dim + Copy) -> Result<Tensor> {
    let axis = axis.to_index(inp.shape(), "softmax_cross_entropy")?;
    let labels = &with_axis(inp, labels, axis)?;
    told(
        || Form::new("SoftmaxCrossEntropy", &[inp, labels]).with("axis", axis),
        || {
            let Labelled { axis, lanes, labels, dims: kept } =
                labelled("softmax_cross_entropy", inp, labels, axis)?;
            let compose =
                |t: &[Tensor]| Ok([composed::loss::softmax_cross_entropy(&t[0], &labels, &kept, axis)?]);
            if let Some([y]) = without_kernels("softmax_cross_entropy", &[inp], compose)? {
                return Ok(y);
            }
            let [x] = widened("softmax_cross_entropy", [inp])?;
            let y = for_float!(x.dtype(), T => {
                let mut normalizers: Vec<T> = zeros(labels.len())?;
                let y = compute::<T, 1>(&*kept, [&x], |[x], y| cross_entropy(lanes, x, &labels, y, &mut normalizers))?;
                let arg = Tensor::clone(&x);
                attach("softmax_cross_entropy", [&x], y, move |dy| {
                    let dx = compute::<T, 2>(arg.dims(), [&arg, dy], |[x, dy], dx| {
                        cross_entropy_gradient(lanes, x, (&labels, &normalizers), dy, dx);
                    })?;
                    Ok([Some(dx.into_tensor()?)])
                })
            })?;
            in_type(y, inp.dtype())
        },
    )
}

/// While a run is recorded, labels have the axis of the classes, as NNabla wants them.
fn with_axis(inp: &Tensor, labels: &Tensor, axis: usize) -> Result<Tensor> {
    let mut dims = inp.dims().to_vec();
    dims[axis] = 1;
    let mut dropped = dims.clone();
    dropped.remove(axis);
    if listens() && labels.dims() == dropped { Ok(labels.reshape(dims)?) } else { Ok(labels.clone()) }
}

/// Labels of the lanes of a tensor.
struct Labelled {
    axis: usize,
    lanes: Lanes,
    /// `None` for a lane that does not count.
    labels: Vec<Option<usize>>,
    /// Sizes of a result with one number for each lane.
    dims: Vec<usize>,
}

fn labelled(name: &'static str, inp: &Tensor, labels: &Tensor, axis: usize) -> Result<Labelled> {
    let lanes = lanes(inp, axis, name)?;
    let mut kept = inp.dims().to_vec();
    kept[axis] = 1;
    let mut dropped = kept.clone();
    dropped.remove(axis);
    if labels.dims() != kept && labels.dims() != dropped {
        let reason = format!("must have shape {kept:?} or {dropped:?} for input {:?}", inp.dims());
        return Err(Error::invalid("labels", reason, labels.dims()));
    }
    let labels = integers("labels", labels)?.into_iter().map(|label| match label {
        ..0 => Ok(None),
        label => index("labels", label, lanes.len, "number of classes").map(Some),
    });
    let labels = labels.collect::<Result<Vec<_>>>()?;
    Ok(Labelled { axis, lanes, labels, dims: kept })
}

/// Cross entropy between the probabilities `inp` along `axis` and labels, for each sample.
///
/// `y = -log(inp[label])`, where probabilities below 2^−126, the smallest normal `f32`, are raised to it. A
/// sample with a negative label does not count: its loss and its gradient are 0. [`softmax_cross_entropy`]
/// takes the output of a layer directly, which is more accurate.
///
/// # Shapes
/// As for [`softmax_cross_entropy`].
///
/// # Errors
/// As for [`softmax_cross_entropy`].
///
/// # Source
/// NNabla `F.categorical_cross_entropy`.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// let p = Tensor::new(&[[0.5f64, 0.5], [1., 0.], [0.2, 0.8]], &Device::Cpu)?;
/// let labels = Tensor::new(&[1i64, 0, -1], &Device::Cpu)?;
/// let y = layerfn::functions::categorical_cross_entropy(&p, &labels, 1)?;
/// assert_eq!(y.to_vec2::<f64>()?, [[2f64.ln()], [0.], [0.]]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn categorical_cross_entropy(inp: &Tensor, labels: &Tensor, axis: impl Dim + Copy) -> Result<Tensor> {
    let axis = axis.to_index(inp.shape(), "categorical_cross_entropy")?;
    let labels = &with_axis(inp, labels, axis)?;
    told(
        || Form::new("CategoricalCrossEntropy", &[inp, labels]).with("axis", axis),
        || {
            const NAME: &str = "categorical_cross_entropy";
            let Labelled { axis, lanes, labels, dims } = labelled(NAME, inp, labels, axis)?;
            let compose = |t: &[Tensor]| Ok([composed::loss::picked(&t[0], &labels, &dims, axis)?]);
            if let Some([p]) = without_kernels(NAME, &[inp], compose)? {
                return apply(NegativeLog, [&p]);
            }
            let [x] = widened(NAME, [inp])?;
            let p = for_float!(x.dtype(), T => {
                let p = compute::<T, 1>(dims, [&x], |[x], p| pick(lanes, x, &labels, T::ONE, p))?;
                let input_dims = x.dims().to_vec();
                attach(NAME, [&x], p, move |dp| {
                    let dx = accumulate::<T, 1>(&*input_dims, [dp], |[dp], dx| put_back(lanes, &labels, dp, dx))?;
                    Ok([Some(dx.into_tensor()?)])
                })
            })?;
            in_type(apply(NegativeLog, [&p])?, inp.dtype())
        },
    )
}

/// The divergence between multinomial distributions, for each sample: the sum of `p (log(p + 1e-8) - log(q + 1e-8))` over all axes
/// from `base_axis` on (NNabla's default is 1).
///
/// # Shapes
/// - `p`, `q`: `(N.., M..)`, where `base_axis` is the first of `M..`
/// - output: `(N.., 1)`
///
/// # Errors
/// [`Error::InvalidArgument`] if the shapes differ or there is no such axis.
///
/// # Source
/// NNabla `F.kl_multinomial`.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// let p = Tensor::new(&[[0.5f64, 0.5], [1., 0.]], &Device::Cpu)?;
/// let q = Tensor::new(&[[0.5f64, 0.5], [0.5, 0.5]], &Device::Cpu)?;
/// let y = layerfn::functions::kl_multinomial(&p, &q, 1)?.to_vec2::<f64>()?;
/// assert_eq!(y[0], [0.0]);
/// assert!((y[1][0] - 2f64.ln()).abs() < 1e-7);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn kl_multinomial(p: &Tensor, q: &Tensor, base_axis: impl Into<Axis>) -> Result<Tensor> {
    check_same_shape(p, q)?;
    let base_axis = base_axis.into().split("base_axis", p.dims())?;
    told(
        || Form::new("KLMultinomial", &[p, q]).with("base_axis", base_axis),
        || {
            check::input("p", p)?;
            let wide = widened("kl_multinomial", [p, q])?;
            let each = apply(KlMultinomial, [&wide[0], &wide[1]])?;
            let total = sum(&each, (base_axis..p.rank()).collect::<Vec<_>>(), false)?;
            let mut dims: Vec<isize> = total.dims().iter().map(|&size| size as isize).collect();
            dims.push(1);
            in_type(reshape(&total, &dims)?, p.dtype())
        },
    )
}

/// The mean of [`softmax_cross_entropy`] over all samples: a scalar. As in NNabla, the divisor includes samples
/// that do not count.
///
/// # Errors
/// As [`softmax_cross_entropy`], and if there is no sample.
///
/// # Example
/// ```
/// use candle_core::{D, Device, Tensor};
/// let x = Tensor::new(&[[0f64, 0.], [1000., 0.]], &Device::Cpu)?;
/// let labels = Tensor::new(&[1u32, 0], &Device::Cpu)?;
/// let loss = layerfn::functions::mean_softmax_cross_entropy(&x, &labels, D::Minus1)?;
/// assert_eq!(loss.to_scalar::<f64>()?, 2f64.ln() / 2.0);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn mean_softmax_cross_entropy(inp: &Tensor, labels: &Tensor, axis: impl Dim + Copy) -> Result<Tensor> {
    mean(&softmax_cross_entropy(inp, labels, axis)?)
}

binary! {
    /// `(x0 - x1)^2` for each element.
    fn squared_error() = SquaredError as "SquaredError" {
        example([1.0, 2.0], [3.0, 2.0]) = [4.0, 0.0];
        value(a, b) = {
            let difference = a - b;
            difference.clone() * difference
        };
        gradients(a, b, dy) = [dy.scale(2.0) * (a - b), dy.scale(2.0) * (b - a)];
    }

    /// `|x0 - x1|` for each element; where the two are equal, the slope is −1 for `x0` and 1 for `x1`.
    fn absolute_error() = AbsoluteError as "AbsoluteError" {
        example([1.0, 2.0], [3.0, 2.0]) = [2.0, 0.0];
        value(a, b) = (a - b).abs();
        gradients(a, b, dy) = [
            V::select(a.exceeds(&b), || dy.clone(), || dy.clone().negative()),
            V::select(a.exceeds(&b), || dy.clone().negative(), || dy.clone())
        ];
    }

    /// `d^2` for a difference `d` with `|d| < delta`, else `delta (2 |d| - delta)`: as in NNabla, twice the
    /// usual definition.
    fn huber_loss(delta: not_negative) = HuberLoss as "HuberLoss" {
        example([1.0, 5.0], [0.0, 0.0], 2.0) = [1.0, 16.0];
        value(a, b) = {
            let size = (a - b).abs();
            let far = size.clone().scale(2.0).offset(-delta).scale(delta);
            V::select(size.below(delta), || size.clone() * size.clone(), || far)
        };
        gradients(a, b, dy) = [dy.scale(2.0) * (a - b).limit(delta), dy.scale(2.0) * (b - a).limit(delta)];
    }

    /// The amount by which `|x0 - x1|` exceeds `epsilon`, or 0.
    fn epsilon_insensitive_loss(epsilon: not_negative) = EpsilonInsensitiveLoss as "EpsilonInsensitiveLoss" {
        example([1.0, 5.0], [0.0, 0.0], 2.0) = [0.0, 3.0];
        value(a, b) = positive_part(&(a - b).abs().offset(-epsilon));
        gradients(a, b, dy) = [beyond(&(a - b), epsilon, dy), beyond(&(b - a), epsilon, dy)];
    }
}

/// `dy` with the sign of a difference of size above `epsilon`, else 0.
#[inline(always)]
fn beyond<V: Number>(difference: &V, epsilon: f64, dy: V) -> V {
    let zero = dy.constant(0.0);
    let below = V::select(difference.below(-epsilon), || dy.clone().negative(), || zero);
    V::select(difference.above(epsilon), || dy, || below)
}

/// The mean of [`squared_error`] over all elements: a scalar.
///
/// # Errors
/// [`Error::InvalidArgument`] if the shapes differ or there are no elements.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// let a = Tensor::new(&[1f32, 2.], &Device::Cpu)?;
/// let b = Tensor::new(&[3f32, 2.], &Device::Cpu)?;
/// assert_eq!(layerfn::functions::mean_squared_error(&a, &b)?.to_scalar::<f32>()?, 2.);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn mean_squared_error(inp: &Tensor, target: &Tensor) -> Result<Tensor> {
    check_same_shape(inp, target)?;
    mean(&squared_error(inp, target)?)
}

/// Cross entropy between `sigmoid(inp)` and the probabilities `target`, for each element.
///
/// `y = -target log(sigmoid(inp)) - (1 - target) log(1 - sigmoid(inp))`, without overflow. NNabla's function of
/// this name truncates the target to an integer.
///
/// # Shapes
/// - `target`: the shape of `inp`, of the same type or of an integer type
///
/// # Errors
/// [`Error::InvalidArgument`] if the shapes or the types do not fit.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// let x = Tensor::new(&[0f64, 1000.], &Device::Cpu)?;
/// let t = Tensor::new(&[1f64, 0.], &Device::Cpu)?;
/// let y = layerfn::functions::sigmoid_cross_entropy(&x, &t)?;
/// assert_eq!(y.to_vec1::<f64>()?, [2f64.ln(), 1000.]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn sigmoid_cross_entropy(inp: &Tensor, target: &Tensor) -> Result<Tensor> {
    told(
        || Form::new("SigmoidCrossEntropy", &[inp, target]),
        || apply(SigmoidCrossEntropy, [inp, &like(inp, target)?]),
    )
}

/// Cross entropy between the probabilities `inp` and the probabilities `target`, for each element.
///
/// `y = -target log(inp) - (1 - target) log(1 - inp)`, where arguments of the logarithm below 2^−126, the
/// smallest normal `f32`, are raised to it. [`sigmoid_cross_entropy`] takes the output of a layer directly,
/// which is more accurate.
///
/// # Shapes
/// - `target`: the shape of `inp`, of the same type or of an integer type
///
/// # Errors
/// [`Error::InvalidArgument`] if the shapes or the types do not fit.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// let p = Tensor::new(&[0.5f64, 0.5, 1.0], &Device::Cpu)?;
/// let t = Tensor::new(&[1u8, 0, 1], &Device::Cpu)?;
/// let y = layerfn::functions::binary_cross_entropy(&p, &t)?;
/// assert_eq!(y.to_vec1::<f64>()?, [2f64.ln(), 2f64.ln(), 0.]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn binary_cross_entropy(inp: &Tensor, target: &Tensor) -> Result<Tensor> {
    told(
        || Form::new("BinaryCrossEntropy", &[inp, target]),
        || apply(BinaryCrossEntropy, [inp, &like(inp, target)?]),
    )
}

/// 1 if `inp` and `target` are on different sides of 1/2, else 0; without a gradient.
///
/// # Shapes
/// - `target`: the shape of `inp`, of the same type or of an integer type
///
/// # Errors
/// [`Error::InvalidArgument`] if the shapes or the types do not fit.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// let p = Tensor::new(&[0.5f64, 0.7, 0.1], &Device::Cpu)?;
/// let t = Tensor::new(&[1u8, 0, 1], &Device::Cpu)?;
/// assert_eq!(layerfn::functions::binary_error(&p, &t)?.to_vec1::<f64>()?, [0., 1., 1.]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn binary_error(inp: &Tensor, target: &Tensor) -> Result<Tensor> {
    told(|| Form::new("BinaryError", &[inp, target]), || apply(BinaryError, [inp, &like(inp, target)?]))
}

/// A target of the shape of `inp` in its type; integers are exact there or larger than any that matters.
fn like(inp: &Tensor, target: &Tensor) -> Result<Tensor> {
    check_same_shape(inp, target)?;
    check::input("inp", inp)?;
    match target.dtype() {
        DType::U8 | DType::U32 | DType::I16 | DType::I32 | DType::I64 => {
            check::tensor("target", target.dims(), inp.dtype())?;
            Ok(target.to_dtype(inp.dtype())?)
        }
        _ => Ok(target.clone()),
    }
}

#[derive(Clone, Copy)]
struct SigmoidCrossEntropy;

impl Pointwise<2> for SigmoidCrossEntropy {
    const NAME: &'static str = "sigmoid_cross_entropy";

    #[inline(always)]
    fn value<V: Number>(self, [x, target]: [V; 2]) -> V {
        positive_part(&x) - x.clone() * target + x.abs().negative().exp().ln_1p()
    }

    #[inline(always)]
    fn gradient<V: Number>(self, index: usize, dy: V, [x, target]: [V; 2]) -> V {
        if index == 0 { dy * (x.sigmoid() - target) } else { (dy * x).negative() }
    }
}

/// The smallest normal `f32`: smaller arguments of the logarithm are raised to it.
const LEAST: f64 = f32::MIN_POSITIVE as f64;

/// `log(max(p, LEAST))`; NaN remains NaN.
#[inline(always)]
fn bounded_log<V: Number>(p: &V) -> V {
    bounded(p).ln()
}

#[inline(always)]
fn bounded<V: Number>(p: &V) -> V {
    let least = p.constant(LEAST);
    V::select(p.below(LEAST), || least, || p.clone())
}

#[derive(Clone, Copy)]
struct BinaryCrossEntropy;

impl Pointwise<2> for BinaryCrossEntropy {
    const NAME: &'static str = "binary_cross_entropy";

    #[inline(always)]
    fn value<V: Number>(self, [p, target]: [V; 2]) -> V {
        let of_one = target.clone() * bounded_log(&p);
        (of_one + target.complement() * bounded_log(&p.complement())).negative()
    }

    #[inline(always)]
    fn gradient<V: Number>(self, index: usize, dy: V, [p, target]: [V; 2]) -> V {
        if index == 0 {
            dy * (p.clone() - target) / bounded(&(p.clone() * p.complement()))
        } else {
            dy * (bounded_log(&p.clone().complement()) - bounded_log(&p))
        }
    }
}

#[derive(Clone, Copy)]
struct NegativeLog;

impl Pointwise<1> for NegativeLog {
    const NAME: &'static str = "categorical_cross_entropy";

    #[inline(always)]
    fn value<V: Number>(self, [p]: [V; 1]) -> V {
        bounded_log(&p).negative()
    }

    #[inline(always)]
    fn gradient<V: Number>(self, _: usize, dy: V, [p]: [V; 1]) -> V {
        dy.negative() / bounded(&p)
    }
}

#[derive(Clone, Copy)]
struct KlMultinomial;

impl KlMultinomial {
    /// Keeps the logarithms finite.
    const OFFSET: f64 = 1e-8;
}

impl Pointwise<2> for KlMultinomial {
    const NAME: &'static str = "kl_multinomial";

    #[inline(always)]
    fn value<V: Number>(self, [p, q]: [V; 2]) -> V {
        p.clone() * (p.offset(Self::OFFSET).ln() - q.offset(Self::OFFSET).ln())
    }

    #[inline(always)]
    fn gradient<V: Number>(self, index: usize, dy: V, [p, q]: [V; 2]) -> V {
        let (above, below) = (p.clone().offset(Self::OFFSET), q.offset(Self::OFFSET));
        if index == 0 {
            dy * (above.clone().ln() - below.ln() + p / above)
        } else {
            (dy * p / below).negative()
        }
    }
}

#[derive(Clone, Copy)]
struct BinaryError;

impl Pointwise<2> for BinaryError {
    const NAME: &'static str = "binary_error";
    const SLOPE: Slope = Slope::None;

    #[inline(always)]
    fn value<V: Number>(self, [p, target]: [V; 2]) -> V {
        (p.indicator(p.at_least(0.5)) - target.indicator(target.at_least(0.5))).abs()
    }

    #[inline(always)]
    fn gradient<V: Number>(self, _: usize, dy: V, _: [V; 2]) -> V {
        dy
    }
}

fn check_same_shape(inp: &Tensor, target: &Tensor) -> Result<()> {
    if inp.dims() == target.dims() {
        return Ok(());
    }
    Err(Error::invalid("target", format!("must have the input's shape {:?}", inp.dims()), target.dims()))
}

/// The mean of all elements; f16 and bf16 are added up in f32.
fn mean(x: &Tensor) -> Result<Tensor> {
    if x.elem_count() == 0 {
        return Err(Error::invalid("inp", "must have samples to take the mean of", x.dims()));
    }
    let form = || {
        let axes: Vec<usize> = (0..x.rank()).collect();
        Form::new("Mean", &[x]).with("axes", axes).with("keep_dims", false)
    };
    told(form, || {
        let compose = |t: &[Tensor]| Ok([composed::loss::mean(&t[0])?]);
        if let Some([y]) = without_kernels("mean", &[x], compose)? {
            return Ok(y);
        }
        let [wide] = widened("mean", [x])?;
        let n = x.elem_count();
        let total = for_float!(wide.dtype(), T => {
            let value = compute::<T, 1>([], [&wide], |[x], total| {
                total[0] = T::of(kernels::sum(x) / n as f64);
            })?;
            let dims = wide.dims().to_vec();
            attach("mean", [&wide], value, move |dy| {
                check::memory::<T>("inp", n)?;
                let share = dy.to_scalar::<T>()? / T::of(n as f64);
                Ok([Some(Value { data: vec![share; n], dims: dims.clone() }.into_tensor()?)])
            })
        })?;
        in_type(total, x.dtype())
    })
}
