//! Batch normalization and mean subtraction: layers that keep running statistics.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, Tensor};

use super::split_at;
use crate::{
    Dims, Error, Initializer, Result, check, full_precision, functions, is_training, parametric_function,
    update_state,
};

/// Receives the batch statistics of one [`batch_normalization`](fn@batch_normalization) call; gradients flow through
/// them.
///
/// A clone is another handle to the same statistics.
#[derive(Clone, Debug, Default)]
pub struct BatchStat(Arc<Mutex<Option<(Tensor, Tensor)>>>);

impl BatchStat {
    /// Mean of the batch, of the shape of `beta`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] before a call has filled it.
    pub fn mean(&self) -> Result<Tensor> {
        self.get().map(|(mean, _)| mean)
    }

    /// Biased variance of the batch, of the shape of `beta`.
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

    fn set(&self, mean: &Tensor, var: &Tensor) {
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
/// `y = gamma · (x − μ) / √(σ² + eps) + beta`. With `batch_stat`, μ and σ² are the mean and the biased variance of
/// the `n` elements that share the indices of `axes`, and the running statistics move:
/// `mean ← decay_rate · mean + (1 − decay_rate) · μ` and
/// `var ← decay_rate · var + (1 − decay_rate) · σ² · n / (n − 1)`. Without it, μ and σ² are the running ones.
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
    fuses(functions::relu),
    family = Normalization,
    multiply_adds = [0],
    params(
        /// Trainable bias β.
        beta: [..shape] = beta_init,
        /// Trainable scaling factor γ.
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
    /// Axes whose every index has statistics of its own.
    #[opt(into, default = 1)]
    axes: Dims,
    /// Decay rate of the running statistics, in [0, 1].
    #[opt(default = 0.9)]
    decay_rate: f64,
    /// Added to the variance, against a division by zero.
    #[opt(default = 1e-5)]
    eps: f64,
    /// Whether to use the statistics of the batch rather than the running ones: true unless in
    /// [`test_mode`](crate::test_mode).
    #[opt(default = is_training())]
    batch_stat: bool,
    /// Receives the mean and the variance of the batch.
    #[opt(into)]
    output_stat: Option<BatchStat>,
    /// Initializer of `beta`.
    #[opt(into, default = 0.0)]
    beta_init: Initializer,
    /// Initializer of `gamma`.
    #[opt(into, default = 1.0)]
    gamma_init: Initializer,
    /// Initializer of `mean`.
    #[opt(into, default = 0.0)]
    mean_init: Initializer,
    /// Initializer of `var`.
    #[opt(into, default = 1.0)]
    var_init: Initializer,
) -> Result<Tensor> {
    if output_stat.is_some() && !batch_stat {
        return Err(Error::invalid("output_stat", "needs `batch_stat`", "batch_stat = false"));
    }
    check::input("inp", inp)?;
    check::within("decay_rate", decay_rate, 0.0..=1.0)?;
    check::within("eps", eps, 0.0..)?;
    if batch_stat {
        has_samples(inp)?;
    }
    let shape = statistics_shape(inp, &axes)?;
    let (beta, gamma) = (param!(beta)?, param!(gamma)?);
    let (mean, var) = (full_precision(|| param!(mean))?, full_precision(|| param!(var))?);
    if !batch_stat {
        return functions::batch_normalization_by_then(
            inp,
            [&beta, &gamma, &mean, &var],
            &axes,
            eps,
            relu_fused,
        );
    }
    let (y, batch_mean, batch_var) =
        functions::batch_normalization_then(inp, &beta, &gamma, &axes, eps, relu_fused)?;
    if let [_] = axes[..] {
        let n = (inp.elem_count() / batch_var.elem_count().max(1)) as f64;
        let unbiased = (&batch_var * (n / (n - 1.0).max(1.0)))?;
        full_precision(|| {
            update_state(["mean", "var"], |[mean, var]| {
                let mean = moving_average(&mean, &batch_mean, decay_rate)?;
                Ok([mean, moving_average(&var, &unbiased, decay_rate)?])
            })
        })?;
    }
    if let Some(stat) = output_stat {
        stat.set(&batch_mean, &batch_var);
    }
    Ok(y)
}

/// Whether there is something to take statistics of.
fn has_samples(inp: &Tensor) -> Result<()> {
    if inp.dims().contains(&0) {
        return Err(Error::invalid("inp", "must have elements to take the statistics of", inp.dims()));
    }
    Ok(())
}

/// Sizes of the input at `axes`, 1 elsewhere.
fn statistics_shape(inp: &Tensor, axes: &[usize]) -> Result<Vec<usize>> {
    if axes.is_empty() {
        return Err(Error::invalid("axes", format!("must name an axis of the input {:?}", inp.dims()), axes));
    }
    let mut shape = vec![1; inp.rank()];
    for (n, &axis) in axes.iter().enumerate() {
        if axis >= inp.rank() || axes[..n].contains(&axis) {
            let reason = format!("must be different axes of the input {:?}", inp.dims());
            return Err(Error::invalid("axes", reason, axes));
        }
        shape[axis] = inp.dims()[axis];
    }
    Ok(shape)
}

fn moving_average(running: &Tensor, batch: &Tensor, decay_rate: f64) -> Result<Tensor> {
    Ok(((running * decay_rate)? + (batch.detach() * (1.0 - decay_rate))?)?)
}

/// Mean subtraction: makes the mean of the input zero over the samples seen so far.
///
/// With `update_running_mean`, the running mean moves first: `mean ← mean + (μ − mean) / (t + 1)` and `t ← t + 1`,
/// μ being the mean over the `base_axis` leading axes. Then `y = x − mean`.
///
/// The gradient is an approximation that sees the latest batch only: `dx = dy · (1 − 1 / (t · n))`, `n` being the
/// number of samples in the batch; without the update `dx = dy`.
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
    /// Number of leading axes that are samples.
    #[opt(default = 1)]
    base_axis: usize,
    /// Whether the running mean moves: true unless in [`test_mode`](crate::test_mode).
    #[opt(default = is_training())]
    update_running_mean: bool,
) -> Result<Tensor> {
    check::input("inp", inp)?;
    let (samples, shape) = split_at(inp, base_axis)?;
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
