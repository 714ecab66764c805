//! Batch normalization and mean subtraction.

use std::sync::Arc;

use candle_core::Tensor;

use super::arithmetic::sub2;
use super::composed;
use super::composed::normalization::{Centred, Coupling, InputGradient, Moments, Normalized};
use super::graph::{Gradients, attach, tracked};
use super::node::{
    Element, Value, compute, element_count, for_float, in_type, read, wide_without_kernels, widened,
    without_kernels,
};
use super::parts;
use super::relu::{relu_gradient_of, relu_if, relu_of};
use crate::group::{self, Group};
use crate::kernels::{Channels, Float};
use crate::number::Formula;
use crate::told::{Form, listens, told};
use crate::{Error, Result, check};

/// Batch normalization by the statistics of the batch; returns the output, the mean and the biased variance.
///
/// `m = mean(x)`, `v = mean((x - m)^2)`, `y = gamma (x - m) / sqrt(v + eps) + beta`, where the means are over
/// all axes that are not in `axes`. Gradients flow through all three results; the two statistics are free
/// unless they receive gradients. The statistics of half precisions are `f32`.
///
/// # Shapes
/// - `inp`: any
/// - `beta`, `gamma`, mean and variance: as the input on `axes`, size 1 on the others
/// - output: as `inp`
///
/// # Errors
/// [`Error::InvalidArgument`] if `axes` is empty, repeats an axis or names one that the input doesn't have, `beta` or
/// `gamma` has another shape, `eps` is negative, or there is nothing to take the statistics of.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// let x = Tensor::new(&[[1f64, 5.], [3., 5.]], &Device::Cpu)?;
/// let beta = Tensor::new(&[[0f64, 7.]], &Device::Cpu)?;
/// let gamma = Tensor::new(&[[2f64, 1.]], &Device::Cpu)?;
/// let (y, mean, var) = layerfn::functions::batch_normalization(&x, &beta, &gamma, &[1], 0.0001)?;
/// assert_eq!(mean.to_vec2::<f64>()?, [[2., 5.]]);
/// assert_eq!(var.to_vec2::<f64>()?, [[1., 0.]]);
/// assert!((y.to_vec2::<f64>()?[0][0] + 2.0).abs() < 1e-3);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn batch_normalization(
    inp: &Tensor,
    beta: &Tensor,
    gamma: &Tensor,
    axes: &[usize],
    eps: f64,
) -> Result<(Tensor, Tensor, Tensor)> {
    batch_normalization_then(inp, [Some(beta), Some(gamma)], axes, eps, false)
}

/// [`batch_normalization`], followed by `relu` if asked for; without `beta` it is 0, without `gamma` 1.
pub(crate) fn batch_normalization_then(
    inp: &Tensor,
    [beta, gamma]: [Option<&Tensor>; 2],
    axes: &[usize],
    eps: f64,
    then_relu: bool,
) -> Result<(Tensor, Tensor, Tensor)> {
    let (y, mean, var, _) = batch_normalization_among(inp, [beta, gamma], axes, eps, then_relu, None)?;
    Ok((y, mean, var))
}

/// [`batch_normalization_then`] by the statistics of all calls of a group, whose inputs are parts of one batch;
/// the last result is the number of elements in each statistic. The gradients of the input are those of the sum
/// of all losses; those of `beta` and `gamma` are the share of this call.
pub(crate) fn batch_normalization_among(
    inp: &Tensor,
    [beta, gamma]: [Option<&Tensor>; 2],
    axes: &[usize],
    eps: f64,
    then_relu: bool,
    group: Option<Arc<dyn Group>>,
) -> Result<(Tensor, Tensor, Tensor, usize)> {
    let layout = Layout::new(inp, axes)?;
    if listens() {
        let over: Vec<_> = (0..inp.rank()).filter(|axis| !axes.contains(axis)).collect();
        let (y, mean, var) = parts::normalized(inp, &over, eps, [beta, gamma])?;
        return Ok((relu_if(then_relu, y)?, mean, var, layout.channels.per_channel()));
    }
    let beta = &coefficient("beta", beta, 0.0, &layout.parameter_dims, inp)?;
    let gamma = &coefficient("gamma", gamma, 1.0, &layout.parameter_dims, inp)?;
    check::within("eps", eps, 0.0..)?;
    if layout.channels.per_channel() == 0 {
        return Err(Error::invalid("inp", "must have elements to take the statistics of", inp.dims()));
    }
    let shared = group.clone();
    let compose = |t: &[Tensor]| composed::normalization::by_batch(&t[0], &t[1], &t[2], eps, shared.clone());
    let dtype = inp.dtype();
    if let Some(([y, mean, var], n)) =
        wide_without_kernels("batch_normalization", &[inp, beta, gamma], compose)?
    {
        return Ok((relu_if(then_relu, y.to_dtype(dtype)?)?, mean, var, n as usize));
    }
    let [x, beta, gamma] = widened("batch_normalization", [inp, beta, gamma])?;
    let x = layout.gathered(&x)?;
    let ([y, mean, var], n) = for_float!(x.dtype(), T => normalize_by_batch::<T>(&layout, &x, &beta, &gamma, eps, then_relu, group))?;
    Ok((layout.restored(&y)?.to_dtype(dtype)?, mean, var, n as usize))
}

/// Batch normalization by given statistics, which are constants: `y = gamma (x - mean) / sqrt(var + eps) + beta`.
///
/// Gradients flow to the input, `beta` and `gamma`. The statistics may have another precision.
///
/// # Shapes
/// As [`batch_normalization`].
///
/// # Errors
/// [`Error::InvalidArgument`] as for [`batch_normalization`], except that the batch may be empty.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// let tensor = |x: f64| Tensor::new(&[[x]], &Device::Cpu);
/// let (x, beta, gamma, mean, var) = (tensor(7.)?, tensor(1.)?, tensor(3.)?, tensor(5.)?, tensor(4.)?);
/// let y = layerfn::functions::batch_normalization_by(&x, &beta, &gamma, &mean, &var, &[1], 0.)?;
/// assert_eq!(y.to_vec2::<f64>()?, [[4.]]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn batch_normalization_by(
    inp: &Tensor,
    beta: &Tensor,
    gamma: &Tensor,
    mean: &Tensor,
    var: &Tensor,
    axes: &[usize],
    eps: f64,
) -> Result<Tensor> {
    batch_normalization_by_then(
        inp,
        [Some(beta), Some(gamma)],
        &[mean.clone(), var.clone()],
        axes,
        eps,
        false,
    )
}

/// [`batch_normalization_by`] `mean` and `var`, followed by `relu` if asked for; without `beta` it is 0,
/// without `gamma` 1.
pub(crate) fn batch_normalization_by_then(
    inp: &Tensor,
    [beta, gamma]: [Option<&Tensor>; 2],
    [mean, var]: &[Tensor; 2],
    axes: &[usize],
    eps: f64,
    then_relu: bool,
) -> Result<Tensor> {
    if then_relu && listens() {
        let y =
            batch_normalization_by_then(inp, [beta, gamma], &[mean.clone(), var.clone()], axes, eps, false)?;
        return relu_if(true, y);
    }
    told(
        || {
            let form =
                Form::new("BatchNormalization", &[inp]).and(beta).and(gamma).and(Some(mean)).and(Some(var));
            let form =
                form.with("axes", axes).with("decay_rate", 0.9).with("eps", eps).with("batch_stat", false);
            form.with("no_scale", gamma.is_none()).with("no_bias", beta.is_none())
        },
        || {
            let layout = Layout::new(inp, axes)?;
            let beta = &coefficient("beta", beta, 0.0, &layout.parameter_dims, inp)?;
            let gamma = &coefficient("gamma", gamma, 1.0, &layout.parameter_dims, inp)?;
            for (name, statistic) in [("mean", mean), ("var", var)] {
                has_shape(name, statistic, &layout.parameter_dims)?;
            }
            check::within("eps", eps, 0.0..)?;
            let compose = |t: &[Tensor]| {
                let [mean, var] = [constant(mean, &t[0])?, constant(var, &t[0])?];
                Ok([composed::normalization::by(&t[0], &t[1], &t[2], &mean, &var, eps)?])
            };
            if let Some([y]) = without_kernels("batch_normalization", &[inp, beta, gamma], compose)? {
                return relu_if(then_relu, y);
            }
            let [x, beta, gamma] = widened("batch_normalization", [inp, beta, gamma])?;
            let [mean, var] = [constant(mean, &x)?, constant(var, &x)?];
            let x = layout.gathered(&x)?;
            let y = for_float!(x.dtype(), T => {
                let mean = mean.flatten_all()?.to_vec1::<T>()?;
                let var = var.flatten_all()?.to_vec1::<T>()?.into_iter().map(Float::wide);
                let map = ChannelMap::new(&layout, &beta, &gamma, &mean, var, eps, then_relu)?;
                let y = map.apply(&x)?;
                let (arg, needed) = (x.clone(), tracked([&x, &beta, &gamma]));
                attach("batch_normalization", [&x, &beta, &gamma], y, move |dy| map.gradients(&arg, dy, None, needed))
            })?;
            Ok(layout.restored(&y)?.to_dtype(inp.dtype())?)
        },
    )
}

/// `y = x - mean`, with the gradient of NNabla's `mean_subtraction`: `dx = factor dy`, and none for `mean`.
///
/// With the running mean updated just before over `t` batches of `n` samples, `factor` is `1 - 1 / (t n)`.
///
/// # Shapes
/// - `inp`: `(N.., D..)`
/// - `mean`: `(D..)`, of any precision
/// - output: as `inp`
///
/// # Errors
/// [`Error::InvalidArgument`] if the shape of `mean` does not match the last axes of the input.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// let x = Tensor::new(&[[1f32, 5.], [3., 5.]], &Device::Cpu)?;
/// let mean = Tensor::new(&[2f32, 5.], &Device::Cpu)?;
/// let y = layerfn::functions::subtract_mean(&x, &mean, 1.0)?;
/// assert_eq!(y.to_vec2::<f32>()?, [[-1., 0.], [1., 0.]]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn subtract_mean(inp: &Tensor, mean: &Tensor, factor: f64) -> Result<Tensor> {
    if !inp.dims().ends_with(mean.dims()) {
        return Err(Error::invalid(
            "mean",
            format!("must have the last sizes of the input {:?}", inp.dims()),
            mean.dims(),
        ));
    }
    check::within("factor", factor, ..)?;
    check::float("mean", mean)?;
    let compose =
        |t: &[Tensor]| Ok([composed::normalization::subtract_mean(&t[0], &constant(mean, &t[0])?, factor)?]);
    if listens() {
        return sub2(inp, &parts::of_rank(mean, inp.rank())?);
    }
    if let Some([y]) = without_kernels("subtract_mean", &[inp], compose)? {
        return Ok(y);
    }
    let [x] = widened("subtract_mean", [inp])?;
    let mean = constant(mean, &x)?;
    let len = mean.elem_count();
    let rows = Channels { outer: x.elem_count().checked_div(len).unwrap_or(0), channels: len, inner: 1 };
    let y = for_float!(x.dtype(), T => {
        let y = compute::<T, 2>(x.dims(), [&x, &mean], |[x, mean], y| {
            rows.map(mean.as_chunks::<1>().0, x, x, y, |[mean], x, _| x - *mean);
        })?;
        attach("subtract_mean", [&x], y, move |dy| Ok([Some((dy * factor)?)]))
    })?;
    Ok(y.to_dtype(inp.dtype())?)
}

/// The mean over the leading axes, as a constant of the input's type: `(N.., D..)` becomes `dims`, which is `(D..)`.
pub(crate) fn sample_mean(inp: &Tensor, dims: &[usize]) -> Result<Tensor> {
    let len = element_count(dims)?;
    let n = inp.elem_count().checked_div(len).unwrap_or(0);
    let compose = |t: &[Tensor]| Ok([t[0].detach().reshape((n, len))?.mean(0)?.reshape(dims)?]);
    if let Some([mean]) = without_kernels("mean", &[inp], compose)? {
        return Ok(mean);
    }
    let [x] = widened("mean", [inp])?;
    let rows = Channels { outer: n, channels: len, inner: 1 };
    let mean = for_float!(x.dtype(), T => Ok(compute::<T, 1>(dims, [&x], |[x], mean| {
        for (mean, [sum]) in mean.iter_mut().zip(rows.sums(x, x, |_| |x, _| [x])) {
            *mean = T::of(sum / n as f64);
        }
    })?.into_tensor()?))?;
    in_type(mean, inp.dtype())
}

/// A coefficient of shape `dims`: `given`, or else a constant.
pub(super) fn coefficient(
    name: &'static str,
    given: Option<&Tensor>,
    otherwise: f64,
    dims: &[usize],
    inp: &Tensor,
) -> Result<Tensor> {
    let Some(given) = given else {
        return Ok(Tensor::full(otherwise, dims, inp.device())?.to_dtype(inp.dtype())?);
    };
    has_shape(name, given, dims)?;
    Ok(given.clone())
}

fn has_shape(name: &'static str, parameter: &Tensor, dims: &[usize]) -> Result<()> {
    if parameter.dims() == dims {
        return Ok(());
    }
    Err(Error::invalid(name, format!("must have shape {dims:?} here"), parameter.dims()))
}

/// A statistic as a constant of the type that `x` is computed in.
fn constant(statistic: &Tensor, x: &Tensor) -> candle_core::Result<Tensor> {
    statistic.detach().to_dtype(x.dtype())?.contiguous()
}

/// The layout in the input of the axes that keep their statistics.
struct Layout {
    /// The shape of the statistics.
    parameter_dims: Vec<usize>,
    channels: Channels,
    /// A permutation that moves `axes` to the end, if they are not adjacent.
    order: Option<Vec<usize>>,
}

impl Layout {
    fn new(inp: &Tensor, axes: &[usize]) -> Result<Self> {
        let dims = inp.dims();
        element_count(dims)?;
        let mut axes = axes.to_vec();
        axes.sort_unstable();
        let repeats = axes.windows(2).any(|pair| pair[0] == pair[1]);
        if axes.is_empty() || repeats || axes.iter().any(|&axis| axis >= dims.len()) {
            let reason = format!("must name one or more different axes of the input {dims:?}");
            return Err(Error::invalid("axes", reason, axes));
        }
        let parameter_dims: Vec<usize> = dims
            .iter()
            .enumerate()
            .map(|(axis, &size)| if axes.contains(&axis) { size } else { 1 })
            .collect();
        let (first, end) = (axes[0], axes[axes.len() - 1] + 1);
        let n_channels = element_count(&parameter_dims)?;
        let (channels, order) = if end - first == axes.len() {
            let (outer, inner) = (element_count(&dims[..first])?, element_count(&dims[end..])?);
            (Channels { outer, channels: n_channels, inner }, None)
        } else {
            let mut order: Vec<usize> = (0..dims.len()).filter(|axis| !axes.contains(axis)).collect();
            let outer = element_count(&order.iter().map(|&axis| dims[axis]).collect::<Vec<_>>())?;
            order.extend(&axes);
            (Channels { outer, channels: n_channels, inner: 1 }, Some(order))
        };
        Ok(Self { parameter_dims, channels, order })
    }

    /// The input with the axes in an order that the kernels can walk.
    fn gathered(&self, x: &Tensor) -> Result<Tensor> {
        match &self.order {
            None => Ok(x.clone()),
            Some(order) => {
                check::tensor("inp", x.dims(), x.dtype())?;
                Ok(x.permute(order.clone())?.contiguous()?)
            }
        }
    }

    /// The reverse of [`Layout::gathered`].
    fn restored(&self, y: &Tensor) -> Result<Tensor> {
        let Some(order) = &self.order else {
            return Ok(y.clone());
        };
        let mut inverse = vec![0; order.len()];
        for (to, &from) in order.iter().enumerate() {
            inverse[from] = to;
        }
        Ok(y.permute(inverse)?)
    }
}

fn normalize_by_batch<T: Element>(
    layout: &Layout,
    x: &Tensor,
    beta: &Tensor,
    gamma: &Tensor,
    eps: f64,
    then_relu: bool,
    group: Option<Arc<dyn Group>>,
) -> Result<([Tensor; 3], f64)> {
    let channels = layout.channels;
    let mut n = channels.per_channel() as f64;
    let (mut means, mut vars, sums) = read([x], |[x]: [&[T]; 1]| {
        let sums: Vec<f64> = channels.sums(x, x, |_| |x, _| [x]).into_iter().map(|[sum]| sum).collect();
        let means: Vec<T> = sums.iter().map(|sum| T::of(sum / n)).collect();
        let squares = channels.sums(x, x, |c| {
            let mean = means[c];
            move |x, _| [(x - mean) * (x - mean)]
        });
        let vars: Vec<f64> = squares.into_iter().map(|[sum]| sum / n).collect();
        (means, vars, sums)
    })?;
    if let Some(group) = &group {
        // The variance is relative to the rounded mean.
        let own = sums.iter().zip(&means).zip(&vars).map(|((sum, mean), var)| {
            let exact = sum / n;
            (exact, (var - (exact - mean.wide()).powi(2)).max(0.0))
        });
        let all = Moments::among(&**group, n, own)?;
        (n, vars) = (all.n, all.vars);
        means = all.means.into_iter().map(T::of).collect();
    }
    let map = ChannelMap::new(layout, beta, gamma, &means, vars.iter().copied(), eps, then_relu)?;
    let y = map.apply(x)?;
    let (arg, needed) = (x.clone(), tracked([x, beta, gamma]));
    let coupling = Coupling { n, group };
    let shared = coupling.clone();
    let y = attach("batch_normalization", [x, beta, gamma], y, move |dy| {
        map.gradients(&arg, dy, Some(&shared), needed)
    })?;

    let vars = vars.into_iter().map(T::of).collect();
    let [mean, var] = statistics(channels, &layout.parameter_dims, x, [means, vars], &coupling)?;
    Ok(([y, mean, var], n))
}

/// The means and variances of the channels as results whose gradients flow to the input.
pub(super) fn statistics<T: Element>(
    channels: Channels,
    dims: &[usize],
    x: &Tensor,
    [means, vars]: [Vec<T>; 2],
    coupling: &Coupling,
) -> Result<[Tensor; 2]> {
    let n = coupling.n;
    let mean = Value { data: means.clone(), dims: dims.to_vec() };
    let (arg, shared) = (x.clone(), coupling.clone());
    let mean = attach("batch_mean", [x], mean, move |dm| {
        let [dm] = shared.totals([dm])?;
        let dx = compute::<T, 2>(arg.dims(), [&arg, &dm], |[x, dm], dx| {
            let shares: Vec<[T; 1]> = dm.iter().map(|dm| [*dm / T::of(n)]).collect();
            channels.map(&shares, x, x, dx, |[share], _, _| *share);
        })?;
        Ok([Some(dx.into_tensor()?)])
    })?;
    let var = Value { data: vars, dims: dims.to_vec() };
    let (arg, shared) = (x.clone(), coupling.clone());
    let var = attach("batch_variance", [x], var, move |dv| {
        let [dv] = shared.totals([dv])?;
        let dx = compute::<T, 2>(arg.dims(), [&arg, &dv], |[x, dv], dx| {
            let factors: Vec<[T; 2]> =
                means.iter().zip(dv).map(|(mean, dv)| [*mean, *dv * T::of(2.0 / n)]).collect();
            channels.map(&factors, x, x, dx, |[mean, factor], x, _| (x - *mean) * *factor);
        })?;
        Ok([Some(dx.into_tensor()?)])
    })?;
    Ok([mean, var])
}

/// `(x - mean) scale + beta` in each channel, with `scale = gamma inv_std`, and `relu` of it if asked for.
struct ChannelMap<T> {
    channels: Channels,
    parameter_dims: Vec<usize>,
    then_relu: bool,
    coefficients: Vec<Coefficients<T>>,
    inv_std: Vec<T>,
}

/// `[mean, scale, beta]`.
type Coefficients<T> = [T; 3];

/// The output before `relu`. The backward pass computes it again, from the input that it reads anyway.
#[inline(always)]
fn normalized<T: Float>(coefficients: Coefficients<T>, x: T) -> T {
    Normalized.of([x], coefficients)
}

impl<T: Element> ChannelMap<T> {
    fn new(
        layout: &Layout,
        beta: &Tensor,
        gamma: &Tensor,
        mean: &[T],
        var: impl Iterator<Item = f64>,
        eps: f64,
        then_relu: bool,
    ) -> Result<Self> {
        let inv_std: Vec<T> = var.map(|var| T::of(1.0 / (var + eps).sqrt())).collect();
        let coefficients = read([beta, gamma], |[beta, gamma]| {
            (0..mean.len()).map(|c| [mean[c], gamma[c] * inv_std[c], beta[c]]).collect()
        })?;
        let parameter_dims = layout.parameter_dims.clone();
        Ok(Self { channels: layout.channels, parameter_dims, then_relu, coefficients, inv_std })
    }

    fn apply(&self, x: &Tensor) -> Result<Value<T>> {
        let Self { channels, coefficients, .. } = self;
        compute::<T, 1>(x.dims(), [x], |[x], y| match self.then_relu {
            true => channels.map(coefficients, x, x, y, |c, x, _| relu_of(normalized(*c, x))),
            false => channels.map(coefficients, x, x, y, |c, x, _| normalized(*c, x)),
        })
    }

    /// Gradients of the input, `beta` and `gamma`. With a coupling, the input also acts through the statistics.
    fn gradients(
        &self,
        x: &Tensor,
        dy: &Tensor,
        coupled: Option<&Coupling>,
        needed: [bool; 3],
    ) -> Gradients<3> {
        if self.then_relu {
            self.gradients_before(x, dy, coupled, needed, |c, x, dy| relu_gradient_of(normalized(c, x), dy))
        } else {
            self.gradients_before(x, dy, coupled, needed, |_, _, dy| dy)
        }
    }

    /// `before` gives the gradient of an element of the output before `relu`.
    fn gradients_before(
        &self,
        x: &Tensor,
        dy: &Tensor,
        coupled: Option<&Coupling>,
        [need_x, need_beta, need_gamma]: [bool; 3],
        before: impl Fn(Coefficients<T>, T, T) -> T + Copy + Send + Sync,
    ) -> Gradients<3> {
        let Self { channels, coefficients, inv_std, .. } = self;
        let (mut dx, mut dbeta, mut dgamma) = (None, None, None);
        // For each channel the sums of dy and of dy (x - mean).
        let mut sums = Vec::new();
        if need_beta || need_gamma || coupled.is_some() {
            sums = read([x, dy], |[x, dy]| {
                channels.sums(x, dy, |c| {
                    let coefficients @ [mean, ..] = coefficients[c];
                    move |x, dy| {
                        let dy = before(coefficients, x, dy);
                        [dy, Centred.of([dy, x], [mean])]
                    }
                })
            })?;
        }
        if need_x {
            let all = match coupled {
                Some(Coupling { n, group }) => {
                    Some((*n, group::sums(group.as_ref(), sums.as_flattened().to_vec())?))
                }
                None => None,
            };
            let factors = (0..inv_std.len()).map(|c| {
                let [mean, scale, beta] = coefficients[c];
                let (mut mean_dy, mut slope) = (T::ZERO, T::ZERO);
                if let Some((n, sums)) = &all {
                    let (sum, moment, inv_std) = (sums[2 * c], sums[2 * c + 1], inv_std[c].wide());
                    (mean_dy, slope) = (T::of(sum / n), T::of(moment * inv_std * inv_std / n));
                }
                [mean, scale, beta, mean_dy, slope]
            });
            let factors: Vec<[T; 5]> = factors.collect();
            let value = compute::<T, 2>(x.dims(), [x, dy], |[x, dy], dx| {
                channels.map(&factors, x, dy, dx, |[mean, scale, beta, mean_dy, slope], x, dy| {
                    let dy = before([*mean, *scale, *beta], x, dy);
                    InputGradient.of([dy, x], [*mean, *scale, *mean_dy, *slope])
                });
            })?;
            dx = Some(value.into_tensor()?);
        }
        let of_channels = |data| Value::<T> { data, dims: self.parameter_dims.clone() }.into_tensor();
        if need_beta {
            dbeta = Some(of_channels(sums.iter().map(|[sum, _]| T::of(*sum)).collect())?);
        }
        if need_gamma {
            let data = sums.iter().zip(inv_std).map(|([_, moment], inv_std)| T::of(moment * inv_std.wide()));
            dgamma = Some(of_channels(data.collect())?);
        }
        Ok([dx, dbeta, dgamma])
    }
}
