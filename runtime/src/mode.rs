//! Training or testing: the mode that layers with two behaviours follow.

use std::cell::Cell;

thread_local! {
    static TRAINING: Cell<bool> = const { Cell::new(true) };
}

/// Whether layers called now on this thread behave as in training, which is the default.
///
/// `batch_stat` of [`batch_normalization`](crate::batch_normalization) and its like default to this.
#[must_use]
pub fn is_training() -> bool {
    TRAINING.get()
}

/// Runs `f` with [`is_training`] false on this thread; the mode before is restored after it, on a panic too.
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

/// Runs `f` with [`is_training`] true on this thread, inside a [`test_mode`] too.
pub fn train_mode<R>(f: impl FnOnce() -> R) -> R {
    with_mode(true, f)
}

pub(crate) fn with_mode<R>(training: bool, f: impl FnOnce() -> R) -> R {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            TRAINING.set(self.0);
        }
    }
    let _restore = Restore(TRAINING.replace(training));
    f()
}
