//! Calls that share a batch, each with a part of it.

use std::sync::Arc;

use crate::Result;

/// The calls of a layer that share a batch, as one of them sees it.
pub(crate) trait Group: Send + Sync {
    /// What each call has given, in an order that does not depend on where the calls run. Every call of the group comes here at the
    /// same places of the program, with as many numbers.
    fn gather(&self, own: Vec<f64>) -> Result<Vec<Vec<f64>>>;
}

/// Why calls cannot share a batch.
pub(crate) const UNLIKE: &str = "normalizes something else at this place: all parts of a batch go through the same layers, in the \
    same order, as channels of the same number";

/// The sums of what all calls have given, in their order; `own` where there is one call.
pub(crate) fn sums(group: Option<&Arc<dyn Group>>, own: Vec<f64>) -> Result<Vec<f64>> {
    let Some(group) = group else { return Ok(own) };
    let mut parts = group.gather(own)?.into_iter();
    let mut sums = parts.next().unwrap_or_default();
    for part in parts {
        sums.iter_mut().zip(part).for_each(|(sum, value)| *sum += value);
    }
    Ok(sums)
}
