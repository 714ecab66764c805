//! Calls that each process a part of a shared batch.

use std::sync::Arc;

use crate::Result;

/// The calls of a layer that share a batch, seen from one of them.
pub(crate) trait Group: Send + Sync {
    /// Returns the contributions of all calls, in an order that does not depend on where they run. Every call
    /// of the group must call this at the same points of the program, with equally many numbers.
    fn gather(&self, own: Vec<f64>) -> Result<Vec<Vec<f64>>>;
}

/// The reason why calls cannot share a batch.
pub(crate) const UNLIKE: &str = "normalizes something else at this place: all parts of a batch go through the same layers, in the \
    same order, as channels of the same number";

/// The sums of the contributions of all calls, in their order; `own` if there is only one call.
pub(crate) fn sums(group: Option<&Arc<dyn Group>>, own: Vec<f64>) -> Result<Vec<f64>> {
    let Some(group) = group else { return Ok(own) };
    let mut parts = group.gather(own)?.into_iter();
    let mut sums = parts.next().unwrap_or_default();
    for part in parts {
        sums.iter_mut().zip(part).for_each(|(sum, value)| *sum += value);
    }
    Ok(sums)
}
