//! Layer, group, instance and root-mean-square normalization, which use the statistics of single samples.

use std::sync::Arc;

use candle_core::{DType, Tensor};

use super::composed::normalization::{Centred, Coupling, InputGradient, Normalized, by_row};
use super::graph::attach;
use super::node::{
    Element, Value, compute, element_count, for_float, in_type, wide_without_kernels, widened,
};
use super::normalization::{coefficient, statistics};
use super::parts;
use crate::kernels::{Channels, Moments, Rows};
use crate::number::Formula;
use crate::told::{Form, listens, told};
use crate::{Error, Result, check};

/// Layer normalization; returns the output, the means and the biased variances.
///
/// `y = gamma (x - m) / sqrt(v + eps) + beta`, with a mean `m` and a variance `v` over all other axes for each
/// index of the axes `batch_axis`. Gradients flow through all three results; the two statistics are free unless
/// they receive gradients. The statistics of half precisions are `f32`.
///
/// # Shapes
/// - `inp`: any
/// - `beta`, `gamma`: as the input, size 1 on `batch_axis`; `None` stands for 0 and 1
/// - output: as `inp`; mean and variance: as the input on `batch_axis`, size 1 on the others
///
/// # Errors
/// [`Error::InvalidArgument`] if `batch_axis` repeats an axis or names one that the input doesn't have, `beta` or `gamma`
/// has another shape, `eps` is negative, or there is nothing to take the statistics of.
///
/// # Source
/// NNabla `F.layer_normalization`; Ba, Kiros & Hinton, [Layer Normalization](https://arxiv.org/abs/1607.06450).
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// let x = Tensor::new(&[[1f64, 5.], [3., 3.]], &Device::Cpu)?;
/// let (y, mean, var) = layerfn::functions::layer_normalization(&x, None, None, &[0], 0.0001)?;
/// assert_eq!(mean.to_vec2::<f64>()?, [[3.], [3.]]);
/// assert_eq!(var.to_vec2::<f64>()?, [[4.], [0.]]);
/// assert!((y.to_vec2::<f64>()?[0][0] + 1.0).abs() < 1e-3);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn layer_normalization(
    inp: &Tensor,
    beta: Option<&Tensor>,
    gamma: Option<&Tensor>,
    batch_axis: &[usize],
    eps: f64,
) -> Result<(Tensor, Tensor, Tensor)> {
    RowNormalization::layer(inp, batch_axis, eps)?.apply(inp, beta, gamma)
}

/// Group normalization; returns the output, the means and the biased variances.
///
/// The channels are split into `num_groups` groups of consecutive ones. `y = gamma (x - m) / sqrt(v + eps) +
/// beta`, with a mean `m` and a variance `v` for each group and index of the axes `batch_axis`. Gradients flow
/// as in [`layer_normalization`].
///
/// # Shapes
/// - `inp`: any
/// - `beta`, `gamma`: the channels on `channel_axis`, size 1 on the other axes; `None` stands for 0 and 1
/// - output: as `inp`; mean and variance: as the input on `batch_axis`, `(num_groups, 1)` in place of the channels, size 1 on
///   the others
///
/// # Errors
/// As [`layer_normalization`], or if `num_groups` does not divide the channels or `channel_axis` is one of `batch_axis`.
///
/// # Source
/// NNabla `F.group_normalization`; Wu & He, [Group Normalization](https://arxiv.org/abs/1803.08494).
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// let x = Tensor::new(&[[1f64, 5., 7., 7.]], &Device::Cpu)?;
/// let (_, mean, var) = layerfn::functions::group_normalization(&x, None, None, 2, 1, &[0], 0.01)?;
/// assert_eq!(mean.dims(), [1, 2, 1]);
/// assert_eq!(mean.flatten_all()?.to_vec1::<f64>()?, [3., 7.]);
/// assert_eq!(var.flatten_all()?.to_vec1::<f64>()?, [4., 0.]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn group_normalization(
    inp: &Tensor,
    beta: Option<&Tensor>,
    gamma: Option<&Tensor>,
    num_groups: usize,
    channel_axis: usize,
    batch_axis: &[usize],
    eps: f64,
) -> Result<(Tensor, Tensor, Tensor)> {
    RowNormalization::group(inp, num_groups, channel_axis, batch_axis, eps)?.apply(inp, beta, gamma)
}

/// Instance normalization; returns the output, the means and the biased variances.
///
/// `y = gamma (x - m) / sqrt(v + eps) + beta`, with a mean `m` and a variance `v` for each channel and index of the axes
/// `batch_axis`. Gradients flow as in [`layer_normalization`].
///
/// # Shapes
/// - `inp`: any
/// - `beta`, `gamma`: the channels on `channel_axis`, size 1 on the other axes; `None` stands for 0 and 1
/// - output: as `inp`; mean and variance: as the input on `batch_axis` and `channel_axis`, size 1 on the others
///
/// # Errors
/// As [`layer_normalization`], or if `channel_axis` is one of `batch_axis`.
///
/// # Source
/// NNabla `F.instance_normalization`; Ulyanov, Vedaldi & Lempitsky,
/// [Instance Normalization](https://arxiv.org/abs/1607.08022).
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// let x = Tensor::new(&[[[1f64, 5.], [7., 7.]]], &Device::Cpu)?;
/// let (_, mean, var) = layerfn::functions::instance_normalization(&x, None, None, 1, &[0], 0.01)?;
/// assert_eq!(mean.to_vec3::<f64>()?, [[[3.], [7.]]]);
/// assert_eq!(var.to_vec3::<f64>()?, [[[4.], [0.]]]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn instance_normalization(
    inp: &Tensor,
    beta: Option<&Tensor>,
    gamma: Option<&Tensor>,
    channel_axis: usize,
    batch_axis: &[usize],
    eps: f64,
) -> Result<(Tensor, Tensor, Tensor)> {
    RowNormalization::instance(inp, channel_axis, batch_axis, eps)?.apply(inp, beta, gamma)
}

/// Root-mean-square normalization.
///
/// `y = gamma x / sqrt(mean(x^2) + eps)`, with a mean over all other axes for each index of the axes
/// `batch_axis`.
///
/// # Shapes
/// - `inp`: any
/// - `gamma`: as the input, size 1 on `batch_axis`; `None` stands for 1
/// - output: as `inp`
///
/// # Errors
/// As [`layer_normalization`].
///
/// # Source
/// Zhang & Sennrich, [Root Mean Square Layer Normalization](https://arxiv.org/abs/1910.07467); NNabla has none.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// let x = Tensor::new(&[[2f64, -2.]], &Device::Cpu)?;
/// let y = layerfn::functions::rms_normalization(&x, None, &[0], 0.)?;
/// assert_eq!(y.to_vec2::<f64>()?, [[1., -1.]]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn rms_normalization(
    inp: &Tensor,
    gamma: Option<&Tensor>,
    batch_axis: &[usize],
    eps: f64,
) -> Result<Tensor> {
    Ok(RowNormalization::rms(inp, batch_axis, eps)?.apply(inp, None, gamma)?.0)
}

/// A normalization for inputs of one shape.
pub(crate) struct RowNormalization {
    name: &'static str,
    /// The axes of samples, and that of the channels.
    axes: (Vec<usize>, Option<usize>),
    rows: Rows,
    n_rows: usize,
    /// A permutation of the axes that makes each row contiguous, if they are not.
    order: Option<Vec<usize>>,
    coefficient_dims: Vec<usize>,
    /// Of the statistics row by row, the order of these axes that the result has, and its shape.
    statistics: ([Vec<usize>; 2], Vec<usize>),
}

impl RowNormalization {
    /// As for [`layer_normalization`].
    pub(crate) fn layer(inp: &Tensor, batch_axis: &[usize], eps: f64) -> Result<Self> {
        Self::new("layer_normalization", inp, batch_axis, None, eps)
    }

    /// As for [`group_normalization`].
    pub(crate) fn group(
        inp: &Tensor,
        num_groups: usize,
        channel_axis: usize,
        batch_axis: &[usize],
        eps: f64,
    ) -> Result<Self> {
        let channels = channels(inp, channel_axis, batch_axis)?;
        if num_groups == 0 || !channels.is_multiple_of(num_groups) {
            let reason = format!("must divide the {channels} channels");
            return Err(Error::invalid("num_groups", reason, num_groups));
        }
        let mut plan =
            Self::new("group_normalization", inp, batch_axis, Some((channel_axis, num_groups)), eps)?;
        plan.statistics.1.insert(channel_axis + 1, 1);
        Ok(plan)
    }

    /// As for [`instance_normalization`].
    pub(crate) fn instance(
        inp: &Tensor,
        channel_axis: usize,
        batch_axis: &[usize],
        eps: f64,
    ) -> Result<Self> {
        let channels = channels(inp, channel_axis, batch_axis)?;
        Self::new("instance_normalization", inp, batch_axis, Some((channel_axis, channels)), eps)
    }

    /// As for [`rms_normalization`].
    pub(crate) fn rms(inp: &Tensor, batch_axis: &[usize], eps: f64) -> Result<Self> {
        let mut plan = Self::new("rms_normalization", inp, batch_axis, None, eps)?;
        plan.rows.centred = false;
        Ok(plan)
    }

    /// `channels`: the axis of the channels and the number of groups, if the coefficients are per channel.
    fn new(
        name: &'static str,
        inp: &Tensor,
        batch_axis: &[usize],
        channels: Option<(usize, usize)>,
        eps: f64,
    ) -> Result<Self> {
        check::within("eps", eps, 0.0..)?;
        check::input("inp", inp)?;
        let dims = inp.dims();
        let mut batch = batch_axis.to_vec();
        batch.sort_unstable();
        if batch.windows(2).any(|pair| pair[0] == pair[1]) || batch.iter().any(|&axis| axis >= dims.len()) {
            let reason = format!("must be different axes of the input {dims:?}");
            return Err(Error::invalid("batch_axis", reason, batch_axis));
        }
        let rest = (0..dims.len()).filter(|axis| !batch.contains(axis));
        let (channel, groups) = channels.map_or((None, 1), |(axis, groups)| (Some(axis), groups));
        let kept: Vec<usize> = batch.iter().copied().chain(channel).collect();
        let order: Vec<usize> =
            batch.iter().copied().chain(channel).chain(rest.filter(|&axis| Some(axis) != channel)).collect();

        let sizes = |axes: &[usize]| axes.iter().map(|&axis| dims[axis]).collect::<Vec<_>>();
        let (samples, sample) =
            (element_count(&sizes(&batch))?, element_count(&sizes(&order[batch.len()..]))?);
        let len = sample / groups;
        if len == 0 {
            return Err(Error::invalid("inp", "must have elements to take the statistics of", dims));
        }
        let inner = channel.map_or(1, |axis| sample / dims[axis]);
        let n_rows = element_count(&[samples, groups])?;
        check::tensor("inp", &[n_rows, 2], DType::F64)?;

        let of = |one: &dyn Fn(usize) -> bool, size: &dyn Fn(usize) -> usize| -> Vec<usize> {
            (0..dims.len()).map(|axis| if one(axis) { 1 } else { size(axis) }).collect()
        };
        let size_kept = |axis| if Some(axis) == channel { groups } else { dims[axis] };
        let coefficient_dims = match channel {
            Some(channel) => of(&|axis| axis != channel, &|axis| dims[axis]),
            None => of(&|axis| batch.contains(&axis), &|axis| dims[axis]),
        };
        check::tensor("inp", &coefficient_dims, DType::F64)?;
        let mut ascending: Vec<usize> = (0..kept.len()).collect();
        ascending.sort_by_key(|&i| kept[i]);
        Ok(Self {
            name,
            axes: (batch, channel),
            rows: Rows { groups, len, inner, centred: true, eps },
            n_rows,
            order: (!order.is_sorted()).then_some(order),
            coefficient_dims,
            statistics: (
                [kept.iter().map(|&axis| size_kept(axis)).collect(), ascending],
                of(&|axis| !kept.contains(&axis), &size_kept),
            ),
        })
    }

    /// The shape of `beta` and `gamma`.
    pub(crate) fn coefficient_dims(&self) -> &[usize] {
        &self.coefficient_dims
    }

    fn form(&self, inp: &Tensor, beta: Option<&Tensor>, gamma: Option<&Tensor>) -> Form {
        let (batch, channel) = (&self.axes.0[..], self.axes.1.unwrap_or_default());
        let of = |kind| Form::new(kind, &[inp]).and(beta).and(gamma);
        let form = match self.name {
            "group_normalization" => {
                of("GroupNormalization").with("num_groups", self.rows.groups).with("channel_axis", channel)
            }
            "instance_normalization" => of("InstanceNormalization").with("channel_axis", channel),
            _ => of("LayerNormalization"),
        };
        let form = form.with("batch_axis", batch).with("eps", self.rows.eps);
        form.with("no_scale", gamma.is_none()).with("no_bias", beta.is_none())
    }

    /// The output, the means and the variances.
    pub(crate) fn apply(
        &self,
        inp: &Tensor,
        beta: Option<&Tensor>,
        gamma: Option<&Tensor>,
    ) -> Result<(Tensor, Tensor, Tensor)> {
        if listens() && !self.rows.centred {
            let over: Vec<_> = (0..inp.rank()).filter(|axis| !self.axes.0.contains(axis)).collect();
            let (y, square) = parts::by_root_mean_square(inp, &over, self.rows.eps, gamma)?;
            return Ok((y, square.clone(), square));
        }
        told(
            || self.form(inp, beta, gamma),
            || {
                let beta = coefficient("beta", beta, 0.0, &self.coefficient_dims, inp)?;
                let gamma = coefficient("gamma", gamma, 1.0, &self.coefficient_dims, inp)?;
                let Rows { groups, len, inner, centred, eps } = self.rows;
                let compose = |t: &[Tensor]| {
                    let x = self.gathered(&t[0])?;
                    let coefficients = (1, groups, len / inner, 1);
                    let (beta, gamma) = (t[1].reshape(coefficients)?, t[2].reshape(coefficients)?);
                    let rows = x.reshape((self.n_rows / groups, groups, len / inner, inner))?;
                    let [y, mean, var] = by_row(&rows, [&beta, &gamma], centred, eps)?;
                    Ok([y.reshape(x.shape())?, mean, var])
                };
                let results = match wide_without_kernels(self.name, &[inp, &beta, &gamma], compose)? {
                    Some(results) => results,
                    None => {
                        let [x, beta, gamma] = widened(self.name, [inp, &beta, &gamma])?;
                        let x = self.gathered(&x)?;
                        for_float!(x.dtype(), T => self.by_kernels::<T>(&x, &beta, &gamma))?
                    }
                };
                let [y, mean, var] = results;
                Ok((in_type(self.restored(&y)?, inp.dtype())?, self.statistic(&mean)?, self.statistic(&var)?))
            },
        )
    }

    fn by_kernels<T: Element>(&self, x: &Tensor, beta: &Tensor, gamma: &Tensor) -> Result<[Tensor; 3]> {
        let (rows, mut moments) = (self.rows, vec![[T::ZERO; 2]; self.n_rows]);
        let y = compute::<T, 3>(x.dims(), [x, beta, gamma], |[x, beta, gamma], y| {
            rows.normalize(x, [beta, gamma], y, &mut moments, |x, c| Normalized.of(x, c));
        })?;
        let moments: Arc<[Moments<T>]> = moments.into();
        let (arg, scale, of_rows) = (x.clone(), gamma.detach(), moments.clone());
        let y = attach(self.name, [x, beta, gamma], y, move |dy| {
            let mut sums = Vec::new();
            let dx = compute::<T, 3>(arg.dims(), [&arg, dy, &scale], |[x, dy, gamma], dx| {
                let (centred, input) = (|of, mean| Centred.of(of, mean), |of, c| InputGradient.of(of, c));
                sums = rows.gradients([x, dy], gamma, &of_rows, dx, centred, input);
            })?;
            let of = |k: usize| {
                let data = sums.iter().map(|sums| T::of(sums[k])).collect();
                Value::<T> { data, dims: scale.dims().to_vec() }.into_tensor()
            };
            Ok([Some(dx.into_tensor()?), Some(of(0)?), Some(of(1)?)])
        })?;
        let channels = Channels { outer: 1, channels: self.n_rows, inner: rows.len };
        let coupling = Coupling { n: rows.len as f64, group: None };
        let of = |k: usize| moments.iter().map(|moments| moments[k]).collect();
        let [mean, var] = statistics(channels, &[self.n_rows], x, [of(0), of(1)], &coupling)?;
        Ok([y, mean, var])
    }

    fn gathered(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        match &self.order {
            None => Ok(x.clone()),
            Some(order) => x.permute(order.clone())?.contiguous(),
        }
    }

    /// The reverse of [`gathered`](Self::gathered).
    fn restored(&self, y: &Tensor) -> candle_core::Result<Tensor> {
        let Some(order) = &self.order else { return Ok(y.clone()) };
        let mut inverse = vec![0; order.len()];
        for (to, &from) in order.iter().enumerate() {
            inverse[from] = to;
        }
        y.permute(inverse)
    }

    /// Reshapes a statistic of each row to the shape of the result.
    fn statistic(&self, of_rows: &Tensor) -> candle_core::Result<Tensor> {
        let ([dims, order], shape) = &self.statistics;
        let of_rows = match order.is_sorted() {
            true => of_rows.clone(),
            false => of_rows.reshape(dims.as_slice())?.permute(order.clone())?,
        };
        of_rows.reshape(shape.as_slice())
    }
}

/// The number of channels.
fn channels(inp: &Tensor, channel_axis: usize, batch_axis: &[usize]) -> Result<usize> {
    match inp.dims().get(channel_axis) {
        Some(&channels) if channels > 0 && !batch_axis.contains(&channel_axis) => Ok(channels),
        Some(0) => Err(Error::invalid("inp", "must have a channel", inp.dims())),
        _ => {
            let reason = format!(
                "must be an axis of the input {:?} and none of `batch_axis` {batch_axis:?}",
                inp.dims()
            );
            Err(Error::invalid("channel_axis", reason, channel_axis))
        }
    }
}
