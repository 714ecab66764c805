//! Networks with any number of inputs, given as a slice, such as those loaded from files.

use std::sync::Arc;

use candle_core::Tensor;

use super::{GradientAudit, Network, Profile, Summary, Value, audited, frame, profiled, summarized};
use crate::mode::with_mode;
use crate::{Error, Result};

/// The type of a network that takes and returns any number of tensors.
pub type BoxedMany = dyn Fn(&[Tensor]) -> Result<Vec<Tensor>> + Send + Sync;

impl Network<BoxedMany, 0> {
    pub(crate) fn of_many(
        forward: impl Fn(&[Tensor]) -> Result<Vec<Tensor>> + Send + Sync + 'static,
    ) -> Self {
        Self { forward: Arc::new(forward) }
    }
}

impl<F, O> Network<F, 0>
where
    F: ?Sized + Fn(&[Tensor]) -> Result<O>,
{
    /// Runs the network in the current mode; see [`test_mode`](crate::test_mode).
    ///
    /// # Errors
    /// Those of its functions, which say where they occurred.
    pub fn forward(&self, xs: &[Tensor]) -> Result<O> {
        let _frame = frame::outermost();
        (self.forward)(xs)
    }

    /// Runs the network in training mode or in test mode, whatever the current mode is.
    ///
    /// # Errors
    /// Those of [`forward`](Self::forward).
    pub fn forward_t(&self, xs: &[Tensor], train: bool) -> Result<O> {
        with_mode(train, || self.forward(xs))
    }

    /// Describes the network, from a run on these inputs that has no side effects.
    ///
    /// # Errors
    /// Those of [`forward`](Self::forward).
    pub fn summary_of(&self, xs: &[Tensor]) -> Result<Summary>
    where
        O: Value,
    {
        summarized(|| (self.forward)(xs))
    }

    /// Measures the time and memory of each function in one forward and backward pass on these inputs, in
    /// training mode.
    ///
    /// # Errors
    /// Those of [`forward`](Self::forward), of the loss and of the backward pass.
    pub fn profile<L>(&self, xs: &[Tensor], loss: impl Fn(&O) -> Result<Tensor, L>) -> Result<Profile>
    where
        O: Value,
        Error: From<L>,
    {
        with_mode(true, || self.forward(xs))?;
        profiled(|| (self.forward)(xs), loss)
    }

    /// Runs the network and a backward pass in training mode, and reports every trained parameter whose
    /// gradient is missing, zero or not finite, and the function that lost it.
    ///
    /// # Errors
    /// Those of [`forward`](Self::forward), of the loss and of the backward pass.
    pub fn gradient_audit<L>(
        &self,
        xs: &[Tensor],
        loss: impl Fn(&O) -> Result<Tensor, L>,
    ) -> Result<GradientAudit>
    where
        O: Value,
        Error: From<L>,
    {
        audited(|| (self.forward)(xs), loss)
    }
}
