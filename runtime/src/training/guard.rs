//! Skips steps whose loss or gradients are infinite or NaN.

use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor};

use crate::solver::Solver;
use crate::{Error, Result, check};

/// Skips steps whose loss or gradients are infinite or NaN. After too many in a row, it returns an error that
/// says where they come from.
///
/// Without a guard, an update returns an error for such gradients and changes nothing. Use the guard if an occasional bad batch is
/// expected.
///
/// ```
/// use layerfn::{prelude::*, solver::Sgd, training::NanGuard};
///
/// let x = Tensor::new(&[[f32::INFINITY]], &Device::Cpu)?;
/// let loss = || -> Result<Tensor> { Ok(affine(&x, 1).call()?.sum_all()?) };
/// loss()?;
/// let mut solver = Sgd::new(0.1);
/// solver.set_parameters(&get_parameters());
/// let mut guard = NanGuard::new(1);
/// let mut step = || -> Result<bool> { guard.update(&mut solver, &loss()?, &backward(&loss()?)?) };
/// assert!(!step()?);
/// assert!(step().unwrap_err().to_string().contains("loss"));
/// # Ok::<(), layerfn::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct NanGuard {
    patience: u32,
    in_a_row: u32,
    n_left_out: u64,
}

impl NanGuard {
    /// Skips at most `patience` steps in a row.
    #[must_use]
    pub fn new(patience: u32) -> Self {
        Self { patience, in_a_row: 0, n_left_out: 0 }
    }

    /// Updates if the loss and the gradients are finite, and returns whether it did.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if too many steps in a row would be skipped; it names the loss or the
    /// parameter whose gradient is at fault. Also those of [`Solver::update`].
    pub fn update(&mut self, solver: &mut dyn Solver, loss: &Tensor, gradients: &GradStore) -> Result<bool> {
        check::float("loss", loss)?;
        if loss.elem_count() != 1 {
            return Err(Error::invalid("loss", "must be one number", loss.dims()));
        }
        let value = loss.to_dtype(DType::F64)?.reshape(())?.to_scalar::<f64>()?;
        let bad_loss = Some(value).filter(|value| !value.is_finite());
        let (argument, reason, got) = match (bad_loss, solver.bad_gradient(gradients)?) {
            (None, None) => {
                solver.update(gradients)?;
                self.in_a_row = 0;
                return Ok(true);
            }
            (Some(loss), _) => ("loss", "must be finite".to_owned(), loss),
            (None, Some(path)) => ("gradient", format!("of `{path}` must be finite"), f64::NAN),
        };
        self.in_a_row += 1;
        if self.in_a_row > self.patience {
            let reason = format!("{reason} in one of {} steps in a row", self.in_a_row);
            self.in_a_row = self.patience;
            return Err(Error::invalid(argument, reason, got));
        }
        self.n_left_out += 1;
        Ok(false)
    }

    /// The number of steps skipped so far.
    #[must_use]
    pub fn n_left_out(&self) -> u64 {
        self.n_left_out
    }
}
