//! Sizes of which some are multiples of the batch: found by two runs with batches of different sizes.

/// A size: the number itself, or `-n` for `n` times the size of the batch.
pub(super) type Size = i64;

/// The sizes of the batch in two runs.
#[derive(Clone, Copy)]
pub(super) struct Batches(pub(super) i64, pub(super) i64);

impl Batches {
    /// What stands for the size that is `first` in one run and `second` in the other.
    pub(super) fn size(self, first: i64, second: i64) -> Option<Size> {
        if first == second {
            return Some(first);
        }
        let times = first.checked_div(self.0).filter(|times| *times > 0 && times * self.0 == first)?;
        (times * self.1 == second).then_some(-times)
    }

    pub(super) fn sizes(self, first: &[i64], second: &[i64]) -> Option<Vec<Size>> {
        if first.len() != second.len() {
            return None;
        }
        first.iter().zip(second).map(|(&first, &second)| self.size(first, second)).collect()
    }
}

/// The sizes of a tensor.
pub(super) fn fixed(dims: &[usize]) -> Vec<Size> {
    dims.iter().map(|&size| size as Size).collect()
}
