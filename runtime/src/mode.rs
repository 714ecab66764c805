//! Training or testing: the mode that layers with two behaviours follow.

use crate::context::{change, with};

/// Whether layers called now on this thread behave as in training, which is the default.
///
/// `batch_stat` of [`batch_normalization`](crate::batch_normalization) and its like default to this.
#[must_use]
pub fn is_training() -> bool {
    with(|state| state.flags.training)
}

/// Runs `f` with [`is_training`] false; the mode before is restored after it, on a panic too.
///
/// It holds for this thread; [`Context`](crate::Context) brings it to others.
///
/// ```
/// use layerfn::{is_training, test_mode};
/// assert!(is_training());
/// assert!(!test_mode(is_training));
/// assert!(is_training());
/// ```
pub fn test_mode<R>(f: impl FnOnce() -> R) -> R {
    with_mode(false, f)
}

/// Runs `f` with [`is_training`] true, inside a [`test_mode`] too.
pub fn train_mode<R>(f: impl FnOnce() -> R) -> R {
    with_mode(true, f)
}

pub(crate) fn with_mode<R>(training: bool, f: impl FnOnce() -> R) -> R {
    let _restore = change(|flags| flags.training = training);
    f()
}
