//! Batch normalization and mean subtraction: layers that keep running statistics.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, Tensor};

use crate::group::Group;
use crate::options::scale_and_bias;
use crate::{
    Axes, Axis, Error, Initializer, Result, check, context, full_precision, functions, is_training,
    option_group, parametric_function, update_state,
};

option_group! {
    /// Options of normalizations over batches.
    batch_statistics {
        /// Axes whose indices have separate statistics; negative ones count from the back.
        #[opt(into, default = 1)]
        axes: Axes,
        /// Decay rate of the running statistics, in [0, 1].
        #[opt(default = 0.9)]
        decay_rate: f64,
        /// Added to the variance, to avoid a division by zero.
        #[opt(default = 1e-5)]
        eps: f64,
        /// Whether to use the statistics of the batch rather than the running ones: true unless in
        /// [`test_mode`](crate::test_mode).
        #[opt(default = is_training())]
        batch_stat: bool,
        /// Receives the mean and the variance of the batch.
        #[opt(into)]
        output_stat: Option<BatchStat>,
        /// Initializer of `mean`.
        #[opt(into, default = 0.0)]
        mean_init: Initializer,
        /// Initializer of `var`.
        #[opt(into, default = 1.0)]
        var_init: Initializer,
    }
}

/// Receives the statistics of one call of a normalization, such as [`batch_normalization`](fn@batch_normalization);
/// gradients flow through them.
///
/// A clone is another handle to the same statistics.
#[derive(Clone, Debug, Default)]
pub struct BatchStat(Arc<Mutex<Option<(Tensor, Tensor)>>>);

impl BatchStat {
    /// The mean; that of a batch has the shape of `beta`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if no call has filled it yet.
    pub fn mean(&self) -> Result<Tensor> {
        self.get().map(|(mean, _)| mean)
    }

    /// The biased variance, of the shape of the mean.
    ///
    /// # Errors
    /// As [`mean`](Self::mean).
    pub fn var(&self) -> Result<Tensor> {
        self.get().map(|(_, var)| var)
    }

    fn get(&self) -> Result<(Tensor, Tensor)> {
        let stat = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        stat.ok_or_else(|| Error::invalid("output_stat", "must be given to a call first", "no statistics"))
    }

    pub(super) fn set(&self, mean: &Tensor, var: &Tensor) {
        let stat = Some((mean.clone(), var.clone()));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = stat;
    }
}

impl From<&BatchStat> for BatchStat {
    fn from(stat: &BatchStat) -> Self {
        stat.clone()
    }
}

/// Batch normalization.
///
/// `y = gamma · (x − μ) / √(σ² + eps) + beta`. With `batch_stat`, μ and σ² are the mean and the biased variance
/// of the `n` elements that share the indices of `axes`, and the running statistics are updated: `mean ←
/// decay_rate · mean + (1 − decay_rate) · μ` and `var ← decay_rate · var + (1 − decay_rate) · σ² · n / (n −
/// 1)`. Without it, μ and σ² are the running statistics.
///
/// With more than one axis in `axes`, the running statistics stay as they are, as in NNabla.
///
/// # Shapes
/// - input and output: any
/// - parameters: the rank of the input; its sizes at `axes`, 1 elsewhere
///
/// # Errors
/// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if an axis does not exist or is named twice, or if
/// `output_stat` is given without `batch_stat`.
///
/// # Source
/// NNabla `PF.batch_normalization`; Ioffe & Szegedy, [Batch Normalization](https://arxiv.org/abs/1502.03167).
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// use layerfn::{batch_normalization, test_mode};
///
/// let x = Tensor::new(&[[0.0, 1.0], [2.0, 5.0]], &Device::Cpu)?;
/// let y = batch_normalization(&x).eps(0.0).call()?;
/// assert_eq!(y.to_vec2::<f64>()?, [[-1.0, -1.0], [1.0, 1.0]]);
/// // The same declaration, with the running statistics:
/// let y = test_mode(|| batch_normalization(&x).call())?;
/// # assert!(y.to_vec2::<f64>()?[0][1] > 0.0);
/// # Ok::<(), layerfn::Error>(())
/// ```
#[parametric_function(
    scope = "bn",
    options(batch_statistics, scale_and_bias),
    fuses(functions::relu),
    family = Normalization,
    multiply_adds = [0],
    params(
        /// Trainable bias β.
        #[when(!no_bias)]
        beta: [..shape] = beta_init,
        /// Trainable scaling factor γ.
        #[when(!no_scale)]
        gamma: [..shape] = gamma_init,
        /// Moving average of the batch mean.
        #[need_grad(false)]
        mean: [..shape] = mean_init,
        /// Moving average of the unbiased batch variance.
        #[need_grad(false)]
        var: [..shape] = var_init,
    )
)]
pub fn batch_normalization(
    /// Input.
    inp: &Tensor,
) -> Result<Tensor> {
    let batch = Batch { axes, decay_rate, eps, batch_stat, output_stat, group: None };
    let shape = batch.shape(inp)?;
    let (beta, gamma) = (param!(beta)?, param!(gamma)?);
    let running = [full_precision(|| param!(mean))?, full_precision(|| param!(var))?];
    batch.normalize(inp, [beta.as_ref(), gamma.as_ref()], &running, relu_fused)
}

/// Batch normalization, a sum and ReLU in one: what ends a residual block.
///
/// `y = max(0, bn(x) + z)`, with [`batch_normalization`](fn@batch_normalization) as bn; the gradient is 0 where `y` is.
///
/// # Shapes
/// - input, `z` and output: any, but all the same
/// - parameters: as those of [`batch_normalization`](fn@batch_normalization)
///
/// # Errors
/// As [`batch_normalization`](fn@batch_normalization), or if the shape or type of `z` differs from that of the
/// input.
///
/// # Source
/// NNabla `PF.fused_batch_normalization`, whose `nonlinearity` has no other value than ReLU.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// use layerfn::fused_batch_normalization;
///
/// let x = Tensor::new(&[[0.0, 1.0], [2.0, 5.0]], &Device::Cpu)?;
/// let z = Tensor::new(&[[1.5, 0.5], [1.0, -1.0]], &Device::Cpu)?;
/// let y = fused_batch_normalization(&x).z(&z).eps(0.0).call()?;
/// assert_eq!(y.to_vec2::<f64>()?, [[0.5, 0.0], [2.0, 0.0]]);
/// # Ok::<(), layerfn::Error>(())
/// ```
#[parametric_function(
    scope = "bn",
    options(batch_statistics, scale_and_bias),
    family = Normalization,
    multiply_adds = [0],
    params(
        /// Trainable bias β.
        #[when(!no_bias)]
        beta: [..shape] = beta_init,
        /// Trainable scaling factor γ.
        #[when(!no_scale)]
        gamma: [..shape] = gamma_init,
        /// Moving average of the batch mean.
        #[need_grad(false)]
        mean: [..shape] = mean_init,
        /// Moving average of the unbiased batch variance.
        #[need_grad(false)]
        var: [..shape] = var_init,
    )
)]
pub fn fused_batch_normalization(
    /// Input.
    inp: &Tensor,
    /// Added before ReLU, if given.
    #[opt]
    z: Option<&Tensor>,
) -> Result<Tensor> {
    if let Some(z) = z {
        check::like("z", z, "inp", inp)?;
    }
    let batch = Batch { axes, decay_rate, eps, batch_stat, output_stat, group: None };
    let shape = batch.shape(inp)?;
    let (beta, gamma) = (param!(beta)?, param!(gamma)?);
    let running = [full_precision(|| param!(mean))?, full_precision(|| param!(var))?];
    let y = batch.normalize(inp, [beta.as_ref(), gamma.as_ref()], &running, z.is_none())?;
    z.map_or(Ok(y.clone()), |z| functions::add(&y, z, true))
}

/// Batch normalization by the statistics of a batch that several processes share.
///
/// `n`, μ and σ² of [`batch_normalization`](fn@batch_normalization) are computed over all parts of the batch
/// together, and so are the sums in its gradient; the running statistics are updated equally everywhere. In
/// [`DataParallel::step_together`](crate::training::DataParallel::step_together), the parts are the
/// micro-batches of the step; in [`Communicator::enter`](crate::communicator::Communicator::enter), they are
/// the inputs of all ranks. Elsewhere the layer is the same as [`batch_normalization`](fn@batch_normalization),
/// and so are its parameters.
///
/// # Shapes
/// As [`batch_normalization`](fn@batch_normalization).
///
/// # Errors
/// As [`batch_normalization`](fn@batch_normalization);
/// [`Error::InvalidArgument`](crate::Error::InvalidArgument) in [`DataParallel::step`](crate::training::DataParallel::step),
/// whose micro-batches run one after the other; [`Error::Communication`](crate::Error::Communication) if another rank fails or
/// calls other layers.
///
/// # Source
/// NNabla `PF.sync_batch_normalization`, which takes a communicator `comm` and its `group` as well.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// use layerfn::sync_batch_normalization;
///
/// let x = Tensor::new(&[[0.0, 1.0], [2.0, 5.0]], &Device::Cpu)?;
/// let y = sync_batch_normalization(&x).eps(0.0).call()?;
/// assert_eq!(y.to_vec2::<f64>()?, [[-1.0, -1.0], [1.0, 1.0]]);
/// # Ok::<(), layerfn::Error>(())
/// ```
#[parametric_function(
    scope = "bn",
    options(batch_statistics, scale_and_bias),
    fuses(functions::relu),
    family = Normalization,
    multiply_adds = [0],
    params(
        /// Trainable bias β.
        #[when(!no_bias)]
        beta: [..shape] = beta_init,
        /// Trainable scaling factor γ.
        #[when(!no_scale)]
        gamma: [..shape] = gamma_init,
        /// Moving average of the batch mean.
        #[need_grad(false)]
        mean: [..shape] = mean_init,
        /// Moving average of the unbiased batch variance.
        #[need_grad(false)]
        var: [..shape] = var_init,
    )
)]
pub fn sync_batch_normalization(
    /// Input.
    inp: &Tensor,
) -> Result<Tensor> {
    let batch = Batch { axes, decay_rate, eps, batch_stat, output_stat, group: context::group() };
    let shape = batch.shape(inp)?;
    let (beta, gamma) = (param!(beta)?, param!(gamma)?);
    let running = [full_precision(|| param!(mean))?, full_precision(|| param!(var))?];
    batch.normalize(inp, [beta.as_ref(), gamma.as_ref()], &running, relu_fused)
}

/// How a batch is normalized.
struct Batch {
    axes: Axes,
    decay_rate: f64,
    eps: f64,
    batch_stat: bool,
    output_stat: Option<BatchStat>,
    /// The calls that share the batch.
    group: Option<Arc<dyn Group>>,
}

impl Batch {
    /// The shape of the parameters: sizes of the input at `axes`, 1 elsewhere. All arguments are checked here.
    fn shape(&self, inp: &Tensor) -> Result<Vec<usize>> {
        if self.output_stat.is_some() && !self.batch_stat {
            return Err(Error::invalid("output_stat", "needs `batch_stat`", "batch_stat = false"));
        }
        check::input("inp", inp)?;
        check::within("decay_rate", self.decay_rate, 0.0..=1.0)?;
        check::within("eps", self.eps, 0.0..)?;
        if self.batch_stat {
            has_samples(inp)?;
        }
        let axes = self.axes.resolve("axes", inp.dims())?;
        if axes.is_empty() {
            let reason = format!("must name an axis of the input {:?}", inp.dims());
            return Err(Error::invalid("axes", reason, &self.axes));
        }
        let size = |(axis, &size)| if axes.contains(&axis) { size } else { 1 };
        Ok(inp.dims().iter().enumerate().map(size).collect())
    }

    /// The normalized input, with ReLU if asked for; also updates the running statistics.
    fn normalize(
        self,
        inp: &Tensor,
        [beta, gamma]: [Option<&Tensor>; 2],
        running: &[Tensor; 2],
        then_relu: bool,
    ) -> Result<Tensor> {
        let axes = self.axes.resolve("axes", inp.dims())?;
        let coefficients = [beta, gamma];
        if !self.batch_stat {
            return functions::batch_normalization_by_then(
                inp,
                coefficients,
                running,
                &axes,
                self.eps,
                then_relu,
            );
        }
        let (y, batch_mean, batch_var, n) =
            functions::batch_normalization_among(inp, coefficients, &axes, self.eps, then_relu, self.group)?;
        if let [_] = axes[..] {
            full_precision(|| {
                update_state(["mean", "var"], |running| {
                    moved_statistics(running, [&batch_mean, &batch_var], n, self.decay_rate)
                })
            })?;
        }
        if let Some(stat) = self.output_stat {
            stat.set(&batch_mean, &batch_var);
        }
        Ok(y)
    }
}

/// Checks that there are elements to take statistics of.
fn has_samples(inp: &Tensor) -> Result<()> {
    if inp.dims().contains(&0) {
        return Err(Error::invalid("inp", "must have elements to take the statistics of", inp.dims()));
    }
    Ok(())
}

/// The running mean and variance after a batch of `n` elements for each of them.
pub(crate) fn moved_statistics(
    [mean, var]: [Tensor; 2],
    [batch_mean, batch_var]: [&Tensor; 2],
    n: usize,
    decay_rate: f64,
) -> Result<[Tensor; 2]> {
    let n = n as f64;
    let unbiased = (batch_var * (n / (n - 1.0).max(1.0)))?;
    Ok([moving_average(&mean, batch_mean, decay_rate)?, moving_average(&var, &unbiased, decay_rate)?])
}

fn moving_average(running: &Tensor, batch: &Tensor, decay_rate: f64) -> Result<Tensor> {
    Ok(((running * decay_rate)? + (batch.detach() * (1.0 - decay_rate))?)?)
}

/// Mean subtraction: makes the mean of the input zero over the samples seen so far.
///
/// With `update_running_mean`, the running mean is updated first: `mean ← mean + (μ − mean) / (t + 1)` and `t ←
/// t + 1`, where μ is the mean over the `base_axis` leading axes. Then `y = x − mean`.
///
/// The gradient is an approximation that only considers the latest batch: `dx = dy · (1 − 1 / (t · n))`, where
/// `n` is the number of samples in the batch; without the update, `dx = dy`.
///
/// # Shapes
/// - input and output: `(N.., D..)`; `N..` are the `base_axis` leading axes
///
/// # Errors
/// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if `base_axis` exceeds the rank of the input.
///
/// # Source
/// NNabla `PF.mean_subtraction`.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// use layerfn::mean_subtraction;
///
/// let x = Tensor::new(&[[1.0, 2.0], [3.0, 6.0]], &Device::Cpu)?;
/// let y = mean_subtraction(&x).call()?;
/// assert_eq!(y.to_vec2::<f64>()?, [[-1.0, -2.0], [1.0, 2.0]]);
/// # Ok::<(), layerfn::Error>(())
/// ```
#[parametric_function(
    scope = "mean_subtraction",
    family = Normalization,
    multiply_adds = [0],
    params(
        /// Moving average.
        #[need_grad(false)]
        mean: [..shape] = 0.0,
        /// Number of batches seen.
        #[need_grad(false)]
        t: [1] = 0.0,
    )
)]
pub fn mean_subtraction(
    /// Input.
    inp: &Tensor,
    /// Number of leading axes that are samples; if negative, the first axis after them, counted from the back.
    #[opt(into, default = 1)]
    base_axis: Axis,
    /// Whether to update the running mean: true unless in [`test_mode`](crate::test_mode).
    #[opt(default = is_training())]
    update_running_mean: bool,
) -> Result<Tensor> {
    check::input("inp", inp)?;
    let (samples, shape) = inp.dims().split_at(base_axis.split("base_axis", inp.dims())?);
    check::tensor("inp", inp.dims(), DType::F64)?;
    if update_running_mean {
        has_samples(inp)?;
    }
    let mean = full_precision(|| param!(mean))?;
    full_precision(|| param!(t))?;
    if !update_running_mean {
        return functions::subtract_mean(inp, &mean, 1.0);
    }
    let batch_mean = functions::sample_mean(&inp.detach().to_dtype(mean.dtype())?, shape)?;
    let moved = full_precision(|| {
        update_state(["mean", "t"], |[mean, t]| {
            let t = (t + 1.0)?;
            n_batches(&t)?;
            let step = (&batch_mean - &mean)?.broadcast_div(&t)?.reshape(mean.dims())?;
            Ok([(&mean + step)?, t])
        })
    })?;
    let Some([mean, t]) = moved else { return functions::subtract_mean(inp, &mean, 1.0) };
    let seen = n_batches(&t)? * samples.iter().product::<usize>() as f64;
    functions::subtract_mean(inp, &mean, 1.0 - 1.0 / seen)
}

/// The number of batches, which may come from a file.
fn n_batches(t: &Tensor) -> Result<f64> {
    let n = t.to_dtype(DType::F64)?.sum_all()?.to_scalar::<f64>()?;
    check::within("t", n, 1.0..)?;
    Ok(n)
}
