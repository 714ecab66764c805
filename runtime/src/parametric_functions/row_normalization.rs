//! Layer, group, instance and root-mean-square normalization, which use the statistics of single samples.

use candle_core::Tensor;

use crate::functions::RowNormalization;
use crate::options::scale_and_bias;
use crate::{Axes, Axis, BatchStat, Initializer, Result, option_group, parametric_function};

option_group! {
    /// Options of normalizations of single samples.
    samples {
        /// Axes of the samples, negative ones from the back.
        #[opt(into, default = 0)]
        batch_axis: Axes,
        /// Added to the variance, to avoid a division by zero.
        #[opt(default = 1e-5)]
        eps: f64,
        /// Receives the means and the variances.
        #[opt(into)]
        output_stat: Option<BatchStat>,
    }
}

/// Layer normalization.
///
/// `y = gamma · (x − μ) / √(σ² + eps) + beta`, with the mean μ and the biased variance σ² of all elements that
/// have the same indices on `batch_axis`.
///
/// # Shapes
/// - input and output: any
/// - parameters: the sizes of the input, 1 at `batch_axis`
/// - statistics: the sizes of the input at `batch_axis`, 1 elsewhere
///
/// # Errors
/// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if an axis does not exist or is named twice, or if there is
/// nothing to take the statistics of.
///
/// # Source
/// NNabla `PF.layer_normalization`; Ba, Kiros & Hinton, [Layer Normalization](https://arxiv.org/abs/1607.06450).
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// use layerfn::layer_normalization;
///
/// let x = Tensor::new(&[[0.0, 2.0], [1.0, 5.0]], &Device::Cpu)?;
/// let y = layer_normalization(&x).eps(0.0).call()?;
/// assert_eq!(y.to_vec2::<f64>()?, [[-1.0, 1.0], [-1.0, 1.0]]);
/// // Sequences: the statistics of each step are its own.
/// let words = Tensor::ones((8, 20, 16), candle_core::DType::F32, &Device::Cpu)?;
/// let y = layer_normalization(&words).batch_axis((0, 1)).name("words").call()?;
/// assert_eq!(y.dims(), [8, 20, 16]);
/// # Ok::<(), layerfn::Error>(())
/// ```
#[parametric_function(
    scope = "layer_normalization",
    options(samples, scale_and_bias),
    family = Normalization,
    multiply_adds = [0],
    params(
        /// Trainable bias β.
        #[when(!no_bias)]
        beta: [..shape] = beta_init,
        /// Trainable scaling factor γ.
        #[when(!no_scale)]
        gamma: [..shape] = gamma_init,
    )
)]
pub fn layer_normalization(
    /// Input.
    inp: &Tensor,
) -> Result<Tensor> {
    let normalization = RowNormalization::layer(inp, &batch_axis.resolve("batch_axis", inp.dims())?, eps)?;
    let shape = normalization.coefficient_dims();
    let (beta, gamma) = (param!(beta)?, param!(gamma)?);
    output(normalization.apply(inp, beta.as_ref(), gamma.as_ref())?, output_stat)
}

/// Group normalization.
///
/// The channels are split into `num_groups` groups of consecutive ones. `y = gamma · (x − μ) / √(σ² + eps) +
/// beta`, with the mean μ and the biased variance σ² of all elements of a group that have the same indices on
/// `batch_axis`.
///
/// # Shapes
/// - input and output: any
/// - parameters: the channels at `channel_axis`, 1 elsewhere
/// - statistics: the sizes of the input at `batch_axis`, `(num_groups, 1)` in place of the channels, 1 elsewhere
///
/// # Errors
/// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if an axis does not exist or is named twice, `num_groups` does
/// not divide the channels, or there is nothing to take the statistics of.
///
/// # Source
/// NNabla `PF.group_normalization`; Wu & He, [Group Normalization](https://arxiv.org/abs/1803.08494).
///
/// # Example
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use layerfn::group_normalization;
///
/// let x = Tensor::ones((2, 6, 5, 5), DType::F32, &Device::Cpu)?;
/// assert_eq!(group_normalization(&x, 3).call()?.dims(), [2, 6, 5, 5]);
/// # Ok::<(), layerfn::Error>(())
/// ```
#[parametric_function(
    scope = "group_normalization",
    options(samples, scale_and_bias),
    family = Normalization,
    multiply_adds = [0],
    params(
        /// Trainable bias β.
        #[when(!no_bias)]
        beta: [..shape] = beta_init,
        /// Trainable scaling factor γ.
        #[when(!no_scale)]
        gamma: [..shape] = gamma_init,
    )
)]
pub fn group_normalization(
    /// Input.
    inp: &Tensor,
    /// Number of groups.
    num_groups: usize,
    /// Axis of the channels, from the back if negative.
    #[opt(into, default = 1)]
    channel_axis: Axis,
) -> Result<Tensor> {
    let batch_axis = batch_axis.resolve("batch_axis", inp.dims())?;
    let channel_axis = channel_axis.resolve("channel_axis", inp.dims())?;
    let normalization = RowNormalization::group(inp, num_groups, channel_axis, &batch_axis, eps)?;
    let shape = normalization.coefficient_dims();
    let (beta, gamma) = (param!(beta)?, param!(gamma)?);
    output(normalization.apply(inp, beta.as_ref(), gamma.as_ref())?, output_stat)
}

/// Instance normalization.
///
/// `y = gamma · (x − μ) / √(σ² + eps) + beta`, with the mean μ and the biased variance σ² of all elements that
/// have the same indices on `batch_axis` and `channel_axis`.
///
/// # Shapes
/// - input and output: any
/// - parameters: the channels at `channel_axis`, 1 elsewhere
/// - statistics: the sizes of the input at `batch_axis` and `channel_axis`, 1 elsewhere
///
/// # Errors
/// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if an axis does not exist or is named twice, or if there is
/// nothing to take the statistics of.
///
/// # Source
/// NNabla `PF.instance_normalization`; Ulyanov, Vedaldi & Lempitsky,
/// [Instance Normalization](https://arxiv.org/abs/1607.08022).
///
/// # Example
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use layerfn::instance_normalization;
///
/// let x = Tensor::ones((2, 3, 5, 5), DType::F32, &Device::Cpu)?;
/// assert_eq!(instance_normalization(&x).call()?.dims(), [2, 3, 5, 5]);
/// # Ok::<(), layerfn::Error>(())
/// ```
#[parametric_function(
    scope = "instance_normalization",
    options(samples, scale_and_bias),
    family = Normalization,
    multiply_adds = [0],
    params(
        /// Trainable bias β.
        #[when(!no_bias)]
        beta: [..shape] = beta_init,
        /// Trainable scaling factor γ.
        #[when(!no_scale)]
        gamma: [..shape] = gamma_init,
    )
)]
pub fn instance_normalization(
    /// Input.
    inp: &Tensor,
    /// Axis of the channels, from the back if negative.
    #[opt(into, default = 1)]
    channel_axis: Axis,
) -> Result<Tensor> {
    let batch_axis = batch_axis.resolve("batch_axis", inp.dims())?;
    let channel_axis = channel_axis.resolve("channel_axis", inp.dims())?;
    let normalization = RowNormalization::instance(inp, channel_axis, &batch_axis, eps)?;
    let shape = normalization.coefficient_dims();
    let (beta, gamma) = (param!(beta)?, param!(gamma)?);
    output(normalization.apply(inp, beta.as_ref(), gamma.as_ref())?, output_stat)
}

/// The output of a normalization; passes the statistics to `output_stat`.
fn output((y, mean, var): (Tensor, Tensor, Tensor), output_stat: Option<BatchStat>) -> Result<Tensor> {
    if let Some(stat) = output_stat {
        stat.set(&mean, &var);
    }
    Ok(y)
}

/// Root-mean-square normalization: layer normalization without a mean.
///
/// `y = gamma · x / √(mean(x²) + eps)`, with the mean over all elements that have the same indices on
/// `batch_axis`.
///
/// # Shapes
/// - input and output: any
/// - parameters: the sizes of the input, 1 at `batch_axis`
///
/// # Errors
/// As [`layer_normalization`](fn@layer_normalization).
///
/// # Source
/// Zhang & Sennrich, [Root Mean Square Layer Normalization](https://arxiv.org/abs/1910.07467). NNabla has none;
/// arguments and names follow its layer normalization.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// use layerfn::rms_normalization;
///
/// let x = Tensor::new(&[[2.0, -2.0]], &Device::Cpu)?;
/// assert_eq!(rms_normalization(&x).eps(0.0).call()?.to_vec2::<f64>()?, [[1.0, -1.0]]);
/// # Ok::<(), layerfn::Error>(())
/// ```
#[parametric_function(
    scope = "rms_normalization",
    family = Normalization,
    multiply_adds = [0],
    params(
        /// Trainable scaling factor γ.
        #[when(!no_scale)]
        gamma: [..shape] = gamma_init,
    )
)]
pub fn rms_normalization(
    /// Input.
    inp: &Tensor,
    /// Axes of the samples, negative ones from the back.
    #[opt(into, default = 0)]
    batch_axis: Axes,
    /// Added to the mean square, to avoid a division by zero.
    #[opt(default = 1e-5)]
    eps: f64,
    /// Initializer of `gamma`.
    #[opt(into, default = 1.0)]
    gamma_init: Initializer,
    /// Whether to leave `gamma` out.
    #[opt(default = false)]
    no_scale: bool,
) -> Result<Tensor> {
    let normalization = RowNormalization::rms(inp, &batch_axis.resolve("batch_axis", inp.dims())?, eps)?;
    let shape = normalization.coefficient_dims();
    let gamma = param!(gamma)?;
    Ok(normalization.apply(inp, None, gamma.as_ref())?.0)
}
