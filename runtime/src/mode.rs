//! Training or test mode, for layers that behave differently in the two.

use crate::context::{change, with};

/// Whether layers called on this thread are in training mode, which is the default.
///
/// This is the default of `batch_stat` of [`batch_normalization`](crate::batch_normalization) and similar
/// arguments.
#[must_use]
pub fn is_training() -> bool {
    with(|state| state.flags.training)
}

/// Runs `f` with [`is_training`] false, and restores the previous mode afterwards, even on a panic.
///
/// The mode applies to this thread; [`Context`](crate::Context) brings it to others.
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

/// Runs `f` with [`is_training`] true, even inside [`test_mode`].
pub fn train_mode<R>(f: impl FnOnce() -> R) -> R {
    with_mode(true, f)
}

pub(crate) fn with_mode<R>(training: bool, f: impl FnOnce() -> R) -> R {
    let _restore = change(|flags| flags.training = training);
    f()
}
