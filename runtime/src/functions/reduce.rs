//! Reductions over axes: sums, means, largest elements, products, norms.

use std::borrow::Cow;
use std::sync::Arc;

use candle_core::Tensor;

use super::arrange::permuted;
use super::composed;
use super::graph::{attach, attach_with_result};
use super::node::{compute, element_count, for_float, in_type, widened, without_kernels};
use crate::kernels::places::{Along, Places};
use crate::kernels::{Float, Lanes, blend, map_in_place, reduce};
use crate::told::{Form, told};
use crate::{Axes, Axis, Error, Result, check};

/// The sum over some axes, which `keepdims` keeps with size 1.
///
/// # Errors
/// [`Error::InvalidArgument`] if there is no such axis or one is named twice.
///
/// # Source
/// NNabla `F.sum`. Sums of `f32` are accurate except for the last digits, however many terms they have.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// use layerfn::functions::sum;
/// let x = Tensor::new(&[[1f32, 2.], [3., 4.]], &Device::Cpu)?;
/// assert_eq!(sum(&x, -1, false)?.to_vec1::<f32>()?, [3., 7.]);
/// assert_eq!(sum(&x, .., true)?.to_vec2::<f32>()?, [[10.]]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn sum(inp: &Tensor, axis: impl Into<Axes>, keepdims: bool) -> Result<Tensor> {
    let reduced = Reduced::new(inp, &axis.into(), keepdims)?;
    told(|| reduced.form("Sum", inp, keepdims), || added(inp, &reduced, "sum", 1.0))
}

/// The mean over some axes, which `keepdims` keeps with size 1.
///
/// # Errors
/// As [`sum`], and if there is nothing to take the mean of.
///
/// # Source
/// NNabla `F.mean`.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// let x = Tensor::new(&[[1f32, 2.], [3., 6.]], &Device::Cpu)?;
/// assert_eq!(layerfn::functions::mean(&x, 0, false)?.to_vec1::<f32>()?, [2., 4.]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn mean(inp: &Tensor, axis: impl Into<Axes>, keepdims: bool) -> Result<Tensor> {
    let reduced = Reduced::new(inp, &axis.into(), keepdims)?;
    let n = reduced.n_terms(inp)?;
    told(|| reduced.form("Mean", inp, keepdims), || added(inp, &reduced, "mean", 1.0 / n as f64))
}

/// The sum of all elements: [`sum`] over every axis.
///
/// # Errors
/// If the input holds no floating-point numbers.
///
/// # Source
/// NNabla `F.reduce_sum`.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// let x = Tensor::new(&[[1f32, 2.], [3., 4.]], &Device::Cpu)?;
/// assert_eq!(layerfn::functions::reduce_sum(&x)?.to_scalar::<f32>()?, 10.);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn reduce_sum(inp: &Tensor) -> Result<Tensor> {
    sum(inp, .., false)
}

/// The mean of all elements: [`mean`] over every axis.
///
/// # Errors
/// As [`mean`].
///
/// # Source
/// NNabla `F.reduce_mean`.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// let x = Tensor::new(&[[1f32, 2.], [3., 4.]], &Device::Cpu)?;
/// assert_eq!(layerfn::functions::reduce_mean(&x)?.to_scalar::<f32>()?, 2.5);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn reduce_mean(inp: &Tensor) -> Result<Tensor> {
    mean(inp, .., false)
}

/// Axes that are reduced.
struct Reduced {
    axes: Vec<usize>,
    /// Sizes of the result.
    dims: Vec<usize>,
}

impl Reduced {
    fn new(inp: &Tensor, axes: &Axes, keepdims: bool) -> Result<Self> {
        let mut axes = axes.resolve("axis", inp.dims())?;
        axes.sort_unstable();
        let dims = inp.dims().iter().enumerate().filter_map(|(axis, &n)| match axes.contains(&axis) {
            true => keepdims.then_some(1),
            false => Some(n),
        });
        let dims = dims.collect();
        Ok(Self { axes, dims })
    }

    fn form(&self, kind: &'static str, inp: &Tensor, keepdims: bool) -> Form {
        Form::new(kind, &[inp]).with("axes", &self.axes[..]).with("keep_dims", keepdims)
    }

    /// The number of elements that are reduced to one.
    ///
    /// # Errors
    /// If there are none and the result has elements.
    fn n_terms(&self, inp: &Tensor) -> Result<usize> {
        let sizes: Vec<_> = self.axes.iter().map(|axis| inp.dims()[*axis]).collect();
        let n = element_count(&sizes)?;
        if n == 0 && element_count(&self.dims)? > 0 {
            return Err(Error::invalid("inp", "must have elements along the axes", inp.dims()));
        }
        Ok(n)
    }

    /// The input as lanes; its reduced axes are moved together if they are not adjacent.
    fn lanes<'a>(&self, inp: &'a Tensor) -> Result<(Cow<'a, Tensor>, Lanes)> {
        let (Some(first), Some(last)) = (self.axes.first(), self.axes.last()) else {
            return Ok((Cow::Borrowed(inp), Lanes { len: 1, inner: element_count(inp.dims())? }));
        };
        if last - first + 1 == self.axes.len() {
            let (len, inner) =
                (element_count(&inp.dims()[*first..=*last])?, element_count(&inp.dims()[last + 1..])?);
            return Ok((Cow::Borrowed(inp), Lanes { len, inner }));
        }
        let kept = (0..inp.rank()).filter(|axis| !self.axes.contains(axis));
        let inp = permuted(inp, &kept.chain(self.axes.iter().copied()).collect::<Vec<_>>())?;
        let len = element_count(&inp.dims()[inp.rank() - self.axes.len()..])?;
        Ok((Cow::Owned(inp), Lanes { len, inner: 1 }))
    }
}

/// `scale` times the sum.
fn added(inp: &Tensor, reduced: &Reduced, name: &'static str, scale: f64) -> Result<Tensor> {
    let Reduced { axes, dims } = reduced;
    let compose = |t: &[Tensor]| Ok([composed::reduce::sum(&t[0], axes, scale)?.reshape(&**dims)?]);
    if let Some([y]) = without_kernels(name, &[inp], compose)? {
        return Ok(y);
    }
    let [x] = widened(name, [inp])?;
    let along = x.dims().iter().enumerate().map(|(axis, &n)| match axes.contains(&axis) {
        true => Along::repeated(n),
        false => Along::all(n),
    });
    let repeated = Places::in_order(along.collect());
    let y = for_float!(x.dtype(), T => {
        let y = compute::<T, 1>(&**dims, [&x], |[x], y| blend::sum_axes(inp.dims(), axes, scale, x, y))?;
        let input_dims = inp.dims().to_vec();
        attach(name, [&x], y, move |dy| {
            let dx = compute::<T, 1>(&*input_dims, [dy], |[dy], dx| {
                repeated.gather(T::ZERO, dy, dx);
                if scale != 1.0 {
                    let scale = T::of(scale);
                    map_in_place(dx, |dx| dx * scale);
                }
            })?;
            Ok([Some(dx.into_tensor()?)])
        })
    })?;
    in_type(y, inp.dtype())
}

/// Which of two elements is selected.
#[derive(Clone, Copy)]
enum Extreme {
    Largest,
    Smallest,
}

macro_rules! extremes {
    ($($kind:literal, $which:ident, $what:literal, $name:ident, $with_index:ident, $value:literal, $source:literal;)*) => {$(
        #[doc = concat!("The ", $what, " element along some axes. With `keepdims` these stay, with size 1.")]
        ///
        /// Of several equal ones the first gets the gradient.
        ///
        /// # Errors
        /// [`Error::InvalidArgument`] if there is no such axis or one is named twice, or there is nothing to choose from.
        ///
        /// # Source
        #[doc = concat!("NNabla `F.", $source, "`.")]
        ///
        /// # Example
        /// ```
        /// use candle_core::{Device, Tensor};
        /// let x = Tensor::new(&[[1f32, 3., 2.]], &Device::Cpu)?;
        #[doc = concat!("let y = layerfn::functions::", stringify!($name), "(&x, 1, false)?;")]
        #[doc = concat!("assert_eq!(y.to_vec1::<f32>()?, [", $value, "]);")]
        /// # Ok::<(), layerfn::Error>(())
        /// ```
        pub fn $name(inp: &Tensor, axis: impl Into<Axes>, keepdims: bool) -> Result<Tensor> {
            Ok($with_index(inp, axis, keepdims)?.0)
        }

        #[doc = concat!("[`", stringify!($name), "`], and where the element stands: its number among those it was chosen from, of type `u32`.")]
        ///
        /// # Errors
        #[doc = concat!("As [`", stringify!($name), "`]; and if there are 2³² elements to choose from.")]
        ///
        /// # Source
        #[doc = concat!("NNabla `F.", $source, "` with `with_index`; the second result alone is what `only_index` gives.")]
        ///
        /// # Example
        /// ```
        /// use candle_core::{Device, Tensor};
        /// let x = Tensor::new(&[[2f32, 2., 2.]], &Device::Cpu)?;
        #[doc = concat!("let (y, index) = layerfn::functions::", stringify!($with_index), "(&x, 1, false)?;")]
        /// assert_eq!((y.to_vec1::<f32>()?, index.to_vec1::<u32>()?), (vec![2.], vec![0]));
        /// # Ok::<(), layerfn::Error>(())
        /// ```
        pub fn $with_index(inp: &Tensor, axis: impl Into<Axes>, keepdims: bool) -> Result<(Tensor, Tensor)> {
            let reduced = Reduced::new(inp, &axis.into(), keepdims)?;
            let form = || reduced.form($kind, inp, keepdims).with("with_index", true).with("only_index", false);
            told(form, || extreme(inp, &reduced, stringify!($name), Extreme::$which))
        }
    )*};
}

extremes! {
    "Max", Largest, "largest", max, max_with_index, "3.", "max";
    "Min", Smallest, "smallest", min, min_with_index, "1.", "min";
}

fn extreme(inp: &Tensor, reduced: &Reduced, name: &'static str, which: Extreme) -> Result<(Tensor, Tensor)> {
    if u32::try_from(reduced.n_terms(inp)?).is_err() {
        return Err(Error::invalid("inp", "must have fewer than 2^32 elements along the axes", inp.dims()));
    }
    let dims = &*reduced.dims;
    let (grouped, lanes) = reduced.lanes(inp)?;
    let largest = matches!(which, Extreme::Largest);
    let mut index = None;
    let compose = |t: &[Tensor]| {
        let (y, numbers) = composed::reduce::extreme(&t[0], lanes, largest)?;
        index = Some(numbers.reshape(dims)?);
        Ok([y.reshape(dims)?])
    };
    if let (Some([y]), Some(index)) = (without_kernels(name, &[&grouped], compose)?, index) {
        return Ok((y, index));
    }
    let [x] = widened(name, [&grouped])?;
    let mut numbers = Vec::new();
    let y = for_float!(x.dtype(), T => {
        check::memory::<u32>("inp", element_count(dims)?)?;
        let y = compute::<T, 1>(dims, [&x], |[x], y| {
            numbers = vec![0; y.len()];
            match which {
                Extreme::Largest => reduce::best(lanes, x, y, &mut numbers, |new, best| new > best),
                Extreme::Smallest => reduce::best(lanes, x, y, &mut numbers, |new, best| new < best),
            }
        })?;
        let (numbers, input_dims) = (Arc::<[u32]>::from(&*numbers), x.dims().to_vec());
        attach(name, [&x], y, move |dy| {
            let dx = compute::<T, 1>(&*input_dims, [dy], |[dy], dx| reduce::put(lanes, &numbers, dy, dx))?;
            Ok([Some(dx.into_tensor()?)])
        })
    })?;
    Ok((in_type(y, inp.dtype())?, Tensor::from_vec(numbers, dims, inp.device())?))
}

/// The product over some axes, which `keepdims` keeps with size 1.
///
/// # Errors
/// As [`sum`].
///
/// # Source
/// NNabla `F.prod`. The gradient is also correct where elements are 0.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// let x = Tensor::new(&[[1f32, 2.], [3., 4.]], &Device::Cpu)?;
/// assert_eq!(layerfn::functions::prod(&x, 0, false)?.to_vec1::<f32>()?, [3., 8.]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn prod(inp: &Tensor, axis: impl Into<Axes>, keepdims: bool) -> Result<Tensor> {
    let reduced = Reduced::new(inp, &axis.into(), keepdims)?;
    told(
        || reduced.form("Prod", inp, keepdims),
        || {
            let dims = &*reduced.dims;
            let (grouped, lanes) = reduced.lanes(inp)?;
            let compose = |t: &[Tensor]| Ok([composed::reduce::product(&t[0], lanes, dims)?]);
            if let Some([y]) = without_kernels("prod", &[&grouped], compose)? {
                return Ok(y);
            }
            let [x] = widened("prod", [&grouped])?;
            let y = for_float!(x.dtype(), T => {
                let y = compute::<T, 1>(dims, [&x], |[x], y| reduce::product(lanes, x, y))?;
                let kept = Tensor::clone(&x);
                attach("prod", [&x], y, move |dy| {
                    let dx = compute::<T, 2>(kept.dims(), [&kept, dy], |[x, dy], dx| {
                        reduce::product_gradient(lanes, x, dy, dx);
                    })?;
                    Ok([Some(dx.into_tensor()?)])
                })
            })?;
            in_type(y, inp.dtype())
        },
    )
}

/// The `p`-norm over some axes, `(sum of |x|^p)^(1/p)`; NNabla's default is `p = 2` over all axes. `keepdims`
/// keeps the axes with size 1.
///
/// # Errors
/// As [`sum`], and if `p` is below 1 or not finite in `f32`.
///
/// # Source
/// NNabla `F.norm`. The gradient of a vector of zeros is 0 here; NNabla's is NaN.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// let x = Tensor::new(&[[3f32, -4.], [1., 0.]], &Device::Cpu)?;
/// assert_eq!(layerfn::functions::norm(&x, 2., -1, false)?.to_vec1::<f32>()?, [5., 1.]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn norm(inp: &Tensor, p: f64, axis: impl Into<Axes>, keepdims: bool) -> Result<Tensor> {
    check::within("p", p, 1.0..)?;
    let reduced = Reduced::new(inp, &axis.into(), keepdims)?;
    told(
        || reduced.form("Norm", inp, keepdims).with("p", p),
        || {
            let dims = &*reduced.dims;
            let (grouped, lanes) = reduced.lanes(inp)?;
            let compose = |t: &[Tensor]| Ok([composed::reduce::norm(&t[0], lanes, p, dims)?]);
            if let Some([y]) = without_kernels("norm", &[&grouped], compose)? {
                return Ok(y);
            }
            let [x] = widened("norm", [&grouped])?;
            let y = for_float!(x.dtype(), T => {
                let y = compute::<T, 1>(dims, [&x], |[x], y| reduce::norms(lanes, p, x, y))?;
                let kept = Tensor::clone(&x);
                attach_with_result("norm", [&x], y, move |y, dy| {
                    let dx = compute::<T, 3>(kept.dims(), [&kept, y, dy], |[x, y, dy], dx| {
                        reduce::norms_gradient(lanes, p, x, y, dy, dx);
                    })?;
                    Ok([Some(dx.into_tensor()?)])
                })
            })?;
            in_type(y, inp.dtype())
        },
    )
}

/// Divides by the `p`-norm over some axes: `x / max(norm, eps^(1/p))`. NNabla's defaults are `p = 2`, all axes
/// and `eps = 1e-12`.
///
/// # Errors
/// As [`norm`], and if `eps` is not above 0 and finite in `f32`.
///
/// # Source
/// NNabla `F.norm_normalization`, which ignores its argument `eps`: there, vectors of zeros become NaN.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// let x = Tensor::new(&[[3f32, -4.], [0., 0.]], &Device::Cpu)?;
/// let y = layerfn::functions::norm_normalization(&x, 2., 1, 1e-12)?;
/// assert_eq!(y.to_vec2::<f32>()?, [[0.6, -0.8], [0., 0.]]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn norm_normalization(inp: &Tensor, p: f64, axes: impl Into<Axes>, eps: f64) -> Result<Tensor> {
    check::within("p", p, 1.0..)?;
    check::positive("eps", eps)?;
    let reduced = Reduced::new(inp, &axes.into(), true)?;
    told(
        || {
            Form::new("NormNormalization", &[inp])
                .with("p", p)
                .with("axes", &reduced.axes[..])
                .with("eps", eps)
        },
        || {
            let least = eps.powf(1.0 / p);
            let (grouped, lanes) = reduced.lanes(inp)?;
            if let Cow::Owned(grouped) = &grouped {
                // Normalized along its last axes, and back in order.
                let n_kept = inp.rank() - reduced.axes.len();
                let y = norm_normalization(grouped, p, (n_kept..inp.rank()).collect::<Vec<_>>(), eps)?;
                let kept = (0..inp.rank()).filter(|axis| !reduced.axes.contains(axis));
                let order: Vec<_> = kept.chain(reduced.axes.iter().copied()).collect();
                let mut back = vec![0; order.len()];
                order.into_iter().enumerate().for_each(|(axis, from)| back[from] = axis);
                return permuted(&y, &back);
            }
            let name = "norm_normalization";
            let compose = |t: &[Tensor]| Ok([composed::reduce::normalized(&t[0], lanes, p, least)?]);
            if let Some([y]) = without_kernels(name, &[inp], compose)? {
                return Ok(y);
            }
            let [x] = widened(name, [inp])?;
            let y = for_float!(x.dtype(), T => {
                let norms = compute::<T, 1>(&*reduced.dims, [&x], |[x], y| reduce::norms(lanes, p, x, y))?.into_tensor()?;
                let y = compute::<T, 2>(x.dims(), [&x, &norms], |[x, norms], y| reduce::normalized(lanes, least, x, norms, y))?;
                let kept = Tensor::clone(&x);
                attach(name, [&x], y, move |dy| {
                    let dx = compute::<T, 3>(kept.dims(), [&kept, &norms, dy], |slices, dx| {
                        reduce::normalized_gradient(lanes, p, least, slices, dx);
                    })?;
                    Ok([Some(dx.into_tensor()?)])
                })
            })?;
            in_type(y, inp.dtype())
        },
    )
}

/// Cumulative sums along an axis; NNabla's default is the first, `0`. With `exclusive`, each excludes its own
/// element; with `reverse`, they start at the end.
///
/// # Errors
/// [`Error::InvalidArgument`] if there is no such axis.
///
/// # Source
/// NNabla `F.cumsum`.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// use layerfn::functions::cumsum;
/// let x = Tensor::new(&[1f32, 2., 3.], &Device::Cpu)?;
/// assert_eq!(cumsum(&x, 0, false, false)?.to_vec1::<f32>()?, [1., 3., 6.]);
/// assert_eq!(cumsum(&x, 0, true, true)?.to_vec1::<f32>()?, [5., 3., 0.]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn cumsum(inp: &Tensor, axis: impl Into<Axis>, exclusive: bool, reverse: bool) -> Result<Tensor> {
    let axis = axis.into().resolve("axis", inp.dims())?;
    told(
        || {
            Form::new("CumSum", &[inp])
                .with("axis", axis)
                .with("exclusive", exclusive)
                .with("reverse", reverse)
        },
        || {
            let lanes = lanes_along(inp, axis.into())?;
            let compose =
                |t: &[Tensor]| Ok([composed::reduce::running_sums(&t[0], lanes, exclusive, reverse)?]);
            if let Some([y]) = without_kernels("cumsum", &[inp], compose)? {
                return Ok(y);
            }
            let [x] = widened("cumsum", [inp])?;
            let y = for_float!(x.dtype(), T => {
                let y = compute::<T, 1>(x.dims(), [&x], |[x], y| reduce::running_sums(lanes, exclusive, reverse, x, y))?;
                attach("cumsum", [&x], y, move |dy| {
                    let dx = compute::<T, 1>(dy.dims(), [dy], |[dy], dx| reduce::running_sums(lanes, exclusive, !reverse, dy, dx))?;
                    Ok([Some(dx.into_tensor()?)])
                })
            })?;
            in_type(y, inp.dtype())
        },
    )
}

/// The lanes along one axis.
pub(super) fn lanes_along(inp: &Tensor, axis: Axis) -> Result<Lanes> {
    let axis = axis.resolve("axis", inp.dims())?;
    Ok(Lanes { len: inp.dims()[axis], inner: element_count(&inp.dims()[axis + 1..])? })
}
