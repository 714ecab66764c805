//! Batch normalization and mean subtraction.

use candle_core::Tensor;

use super::composed;
use super::graph::{Gradients, attach, tracked};
use super::node::{Element, Value, compute, element_count, for_float, widened, without_kernels};
use crate::kernels::{Channels, Float};
use crate::{Error, Result};

/// Batch normalization by the statistics of the batch itself; returns the output, the mean and the biased variance.
///
/// `m = mean(x)`, `v = mean((x - m)^2)`, `y = gamma (x - m) / sqrt(v + eps) + beta`, each mean over all axes that are not
/// in `axes`. Gradients flow through all three results; the two statistics cost nothing where they get none.
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
    let layout = Layout::new(inp, axes)?;
    layout.check("beta", beta)?;
    layout.check("gamma", gamma)?;
    check_eps(eps)?;
    if layout.channels.per_channel() == 0 {
        return Err(Error::invalid("inp", "must have elements to take the statistics of", inp.dims()));
    }
    let compose = |t: &[Tensor]| composed::normalization::by_batch(&t[0], &t[1], &t[2], eps);
    if let Some([y, mean, var]) = without_kernels("batch_normalization", &[inp, beta, gamma], compose)? {
        return Ok((y, mean, var));
    }
    let [x, beta, gamma] = widened("batch_normalization", [inp, beta, gamma])?;
    let x = layout.gathered(&x)?;
    let (y, mean, var) =
        for_float!(x.dtype(), T => normalize_by_batch::<T>(&layout, &x, &beta, &gamma, eps))?;
    let dtype = inp.dtype();
    Ok((layout.restored(&y)?.to_dtype(dtype)?, mean.to_dtype(dtype)?, var.to_dtype(dtype)?))
}

/// Batch normalization by given statistics, which are constants: `y = gamma (x - mean) / sqrt(var + eps) + beta`.
///
/// Gradients flow to the input, `beta` and `gamma`.
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
    let layout = Layout::new(inp, axes)?;
    for (name, parameter) in [("beta", beta), ("gamma", gamma), ("mean", mean), ("var", var)] {
        layout.check(name, parameter)?;
    }
    check_eps(eps)?;
    let compose = |t: &[Tensor]| Ok([composed::normalization::by(&t[0], &t[1], &t[2], &t[3], &t[4], eps)?]);
    if let Some([y]) = without_kernels("batch_normalization", &[inp, beta, gamma, mean, var], compose)? {
        return Ok(y);
    }
    let [x, beta, gamma, mean, var] = widened("batch_normalization", [inp, beta, gamma, mean, var])?;
    let x = layout.gathered(&x)?;
    let y = for_float!(x.dtype(), T => {
        let mean = mean.flatten_all()?.to_vec1::<T>()?;
        let inv_std = inverse_std(var.flatten_all()?.to_vec1::<T>()?.into_iter().map(Float::wide), eps);
        let y = normalized(&layout, &x, &beta, &gamma, &mean, &inv_std)?;
        let rule = Rule::<T> { channels: layout.channels, inp: x.clone(), gamma: gamma.clone(), mean, inv_std, coupled: false };
        let needed = tracked([&x, &beta, &gamma]);
        attach("batch_normalization", [&x, &beta, &gamma], y, move |dy| rule.gradients(dy, needed))
    })?;
    Ok(layout.restored(&y)?.to_dtype(inp.dtype())?)
}

/// `y = x - mean` where NNabla's `mean_subtraction` has its own gradient: `dx = factor dy`, and none for `mean`.
///
/// With the running mean updated just before over `t` batches of `n` samples, `factor` is `1 - 1 / (t n)`.
///
/// # Shapes
/// - `inp`: `(N.., D..)`
/// - `mean`: `(D..)`
/// - output: as `inp`
///
/// # Errors
/// [`Error::InvalidArgument`] if the shape of `mean` is not the end of the input's.
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
    let compose = |t: &[Tensor]| Ok([composed::normalization::subtract_mean(&t[0], &t[1], factor)?]);
    if let Some([y]) = without_kernels("subtract_mean", &[inp, mean], compose)? {
        return Ok(y);
    }
    let [x, mean] = widened("subtract_mean", [inp, &mean.detach()])?;
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

fn check_eps(eps: f64) -> Result<()> {
    if eps >= 0.0 && eps.is_finite() {
        Ok(())
    } else {
        Err(Error::invalid("eps", "must not be negative", eps))
    }
}

/// How the axes that keep their statistics lie in the input.
struct Layout {
    /// The shape of the statistics.
    parameter_dims: Vec<usize>,
    channels: Channels,
    /// An order of the axes that brings `axes` to the end, where they do not stand together.
    order: Option<Vec<usize>>,
}

impl Layout {
    fn new(inp: &Tensor, axes: &[usize]) -> Result<Self> {
        let dims = inp.dims();
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
            let outer = order.iter().map(|&axis| dims[axis]).product();
            order.extend(&axes);
            (Channels { outer, channels: n_channels, inner: 1 }, Some(order))
        };
        Ok(Self { parameter_dims, channels, order })
    }

    fn check(&self, name: &'static str, parameter: &Tensor) -> Result<()> {
        if parameter.dims() == self.parameter_dims {
            return Ok(());
        }
        Err(Error::invalid(name, format!("must have shape {:?} here", self.parameter_dims), parameter.dims()))
    }

    /// The input with the axes in an order that the kernels can walk.
    fn gathered(&self, x: &Tensor) -> Result<Tensor> {
        match &self.order {
            None => Ok(x.clone()),
            Some(order) => Ok(x.permute(order.clone())?.contiguous()?),
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
) -> Result<(Tensor, Tensor, Tensor)> {
    let channels = layout.channels;
    let n = channels.per_channel() as f64;
    let mut means = Vec::new();
    let mut vars = Vec::new();
    // No tensor is made here; `compute` lends the elements.
    compute::<T, 1>([0], [x], |[x], _| {
        means =
            channels.sums(x, x, |_, x, _| [x]).into_iter().map(|[sum]| T::of(sum / n)).collect::<Vec<T>>();
        let squares = channels.sums(x, x, |c, x, _| [(x - means[c]) * (x - means[c])]);
        vars = squares.into_iter().map(|[sum]| sum / n).collect::<Vec<f64>>();
    })?;
    let inv_std = inverse_std(vars.iter().copied(), eps);
    let y = normalized(layout, x, beta, gamma, &means, &inv_std)?;

    let rule = Rule::<T> {
        channels,
        inp: x.clone(),
        gamma: gamma.clone(),
        mean: means.clone(),
        inv_std,
        coupled: true,
    };
    let needed = tracked([x, beta, gamma]);
    let y = attach("batch_normalization", [x, beta, gamma], y, move |dy| rule.gradients(dy, needed))?;

    let dims = &layout.parameter_dims;
    let mean = Value { data: means.clone(), dims: dims.clone() };
    let arg = x.clone();
    let mean = attach("batch_mean", [x], mean, move |dm| {
        let dx = compute::<T, 2>(arg.dims(), [&arg, dm], |[x, dm], dx| {
            let shares: Vec<[T; 1]> = dm.iter().map(|dm| [*dm / T::of(n)]).collect();
            channels.map(&shares, x, x, dx, |[share], _, _| *share);
        })?;
        Ok([Some(dx.into_tensor()?)])
    })?;
    let var = Value { data: vars.into_iter().map(T::of).collect(), dims: dims.clone() };
    let arg = x.clone();
    let var = attach("batch_variance", [x], var, move |dv| {
        let dx = compute::<T, 2>(arg.dims(), [&arg, dv], |[x, dv], dx| {
            let factors: Vec<[T; 2]> =
                means.iter().zip(dv).map(|(mean, dv)| [*mean, *dv * T::of(2.0 / n)]).collect();
            channels.map(&factors, x, x, dx, |[mean, factor], x, _| (x - *mean) * *factor);
        })?;
        Ok([Some(dx.into_tensor()?)])
    })?;
    Ok((y, mean, var))
}

fn inverse_std<T: Element>(vars: impl Iterator<Item = f64>, eps: f64) -> Vec<T> {
    vars.map(|var| T::of(1.0 / (var + eps).sqrt())).collect()
}

/// `gamma (x - mean) inv_std + beta`.
fn normalized<T: Element>(
    layout: &Layout,
    x: &Tensor,
    beta: &Tensor,
    gamma: &Tensor,
    mean: &[T],
    inv_std: &[T],
) -> Result<Value<T>> {
    compute::<T, 3>(x.dims(), [x, beta, gamma], |[x, beta, gamma], y| {
        let coefficients: Vec<[T; 3]> =
            (0..mean.len()).map(|c| [mean[c], gamma[c] * inv_std[c], beta[c]]).collect();
        layout.channels.map(&coefficients, x, x, y, |[mean, scale, beta], x, _| (x - *mean) * *scale + *beta);
    })
}

/// What the backward pass needs to know.
struct Rule<T> {
    channels: Channels,
    inp: Tensor,
    gamma: Tensor,
    mean: Vec<T>,
    inv_std: Vec<T>,
    /// Whether the statistics are the batch's own, so that the input acts through them, too.
    coupled: bool,
}

impl<T: Element> Rule<T> {
    fn gradients(&self, dy: &Tensor, [need_x, need_beta, need_gamma]: [bool; 3]) -> Gradients<3> {
        let Self { channels, inp, gamma, mean, inv_std, coupled } = self;
        let (mut dx, mut dbeta, mut dgamma) = (None, None, None);
        // For each channel the sums of dy and of dy (x - mean).
        let mut sums = Vec::new();
        if need_beta || need_gamma || *coupled {
            compute::<T, 2>([0], [inp, dy], |[x, dy], _| {
                sums = channels.sums(x, dy, |c, x, dy| [dy, dy * (x - mean[c])]);
            })?;
        }
        if need_x {
            let n = channels.per_channel() as f64;
            let value = compute::<T, 3>(inp.dims(), [inp, dy, gamma], |[x, dy, gamma], dx| {
                let coefficients: Vec<[T; 4]> = (0..mean.len())
                    .map(|c| {
                        let scale = gamma[c] * inv_std[c];
                        if !coupled {
                            return [scale, T::ZERO, T::ZERO, T::ZERO];
                        }
                        let [sum, moment] = sums[c];
                        let inv_std = inv_std[c].wide();
                        let slope = T::of(moment * inv_std * inv_std / n);
                        [scale, T::of(sum / n), slope, mean[c]]
                    })
                    .collect();
                channels.map(&coefficients, x, dy, dx, |[scale, mean_dy, slope, mean], x, dy| {
                    *scale * (dy - *mean_dy - (x - *mean) * *slope)
                });
            })?;
            dx = Some(value.into_tensor()?);
        }
        if need_beta {
            let value = Value {
                data: sums.iter().map(|[sum, _]| T::of(*sum)).collect(),
                dims: gamma.dims().to_vec(),
            };
            dbeta = Some(value.into_tensor()?);
        }
        if need_gamma {
            let data = sums.iter().zip(inv_std).map(|([_, moment], inv_std)| T::of(moment * inv_std.wide()));
            dgamma = Some(Value { data: data.collect(), dims: gamma.dims().to_vec() }.into_tensor()?);
        }
        Ok([dx, dbeta, dgamma])
    }
}
