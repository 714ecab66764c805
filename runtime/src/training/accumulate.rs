//! Accumulates the gradients of several batches for one step.

use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor, Var};

use crate::solver::no_gradients;
use crate::{Error, Parameters, Result, check};

/// Accumulates the gradients of several batches, so that one step can use a batch that does not fit in memory.
///
/// The mean over `n` batches is the gradient of the large batch, if the loss is a mean over samples and nothing
/// in the network depends on the whole batch, as batch normalization does in training. The sum is accumulated
/// in `f64`. Each part has already been rounded to the type of its parameter, so the result can differ from the
/// gradient of the large batch by the rounding error of each part. It does not depend on the number of threads.
///
/// ```
/// use layerfn::{prelude::*, solver::Sgd, training::Accumulator};
///
/// let x = Tensor::ones((8, 3), DType::F32, &Device::Cpu)?;
/// let loss = |x: &Tensor| -> Result<Tensor> { Ok(affine(x, 2).call()?.sqr()?.mean_all()?) };
/// loss(&x)?;
/// let mut solver = Sgd::new(0.1);
/// solver.set_parameters(&get_parameters());
///
/// let mut sum = Accumulator::new(&get_parameters());
/// for part in x.chunk(4, 0)? {
///     sum.add(&backward(&loss(&part)?)?, part.dim(0)? as f64)?;
/// }
/// solver.update(&sum.take()?)?;
/// # Ok::<(), layerfn::Error>(())
/// ```
#[derive(Debug)]
pub struct Accumulator {
    /// Each variable once, with its first path and its accumulated gradient.
    sums: Vec<(String, Var, Option<Tensor>)>,
    weight: f64,
}

impl Accumulator {
    /// Accumulates the gradients of `parameters`, those of a tied variable once.
    #[must_use]
    pub fn new(parameters: &Parameters) -> Self {
        let mut sums: Vec<(String, Var, Option<Tensor>)> = Vec::new();
        let vars = parameters.vars();
        for var in vars {
            let path = parameters.iter().find(|(_, parameter)| parameter.var().id() == var.id());
            sums.push((path.map_or_else(String::new, |(path, _)| path.to_owned()), var, None));
        }
        Self { sums, weight: 0.0 }
    }

    /// Adds the gradients of a part of the batch, multiplied by its weight, which is the number of its samples.
    /// A parameter without a gradient counts as having the gradient 0, if another part has one.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the weight is not above 0, or if the shape of a gradient differs from that
    /// of its parameter or its elements are not floating-point numbers. Nothing is added then.
    pub fn add(&mut self, gradients: &GradStore, weight: f64) -> Result<()> {
        check::positive("weight", weight)?;
        let added = self.sums.iter().map(|(path, var, sum)| {
            let Some(gradient) = gradients.get(var) else { return Ok(sum.clone()) };
            check::float("gradient", gradient)?;
            if gradient.dims() != var.dims() {
                let reason = format!("of `{path}` must have its shape {:?}", var.dims());
                return Err(Error::invalid("gradient", reason, gradient.dims()));
            }
            let gradient = (gradient.detach().to_dtype(DType::F64)? * weight)?;
            Ok(Some(match sum {
                Some(sum) => (sum + gradient)?,
                None => gradient,
            }))
        });
        let added = added.collect::<Result<Vec<_>>>()?;
        for ((_, _, sum), added) in self.sums.iter_mut().zip(added) {
            *sum = added;
        }
        self.weight += weight;
        Ok(())
    }

    /// Returns the mean of the accumulated gradients, in the types of the parameters, and starts over.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if nothing has been added.
    pub fn take(&mut self) -> Result<GradStore> {
        if self.weight == 0.0 {
            return Err(Error::invalid("gradients", "must be added before their mean is taken", "none"));
        }
        let mut mean = no_gradients()?;
        for (_, var, sum) in &mut self.sums {
            if let Some(sum) = sum.take() {
                mean.insert(var, (sum / self.weight)?.to_dtype(var.dtype())?);
            }
        }
        self.weight = 0.0;
        Ok(mean)
    }
}
