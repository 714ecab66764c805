//! Sums of so many terms that the rounding of each would add up.

use super::Float;

/// Terms that are added in `T` one after the other.
pub(crate) const MOST: usize = 64;

/// Many sums side by side, each of many terms: sums of some dozens or hundreds of numbers, mostly. After [`MOST`] terms they go
/// into sums in `f64`.
pub(crate) struct LongSums<'a, T> {
    sums: &'a mut [T],
    /// Empty until it is needed.
    totals: Vec<f64>,
    n_terms: usize,
}

impl<'a, T: Float> LongSums<'a, T> {
    /// To be added to what `sums` holds, and to end there.
    pub(crate) fn new(sums: &'a mut [T]) -> Self {
        Self { sums, totals: Vec::new(), n_terms: 0 }
    }

    /// Where the next `n` terms of each sum are to be added.
    pub(crate) fn next(&mut self, n: usize) -> &mut [T] {
        if self.n_terms > 0 && self.n_terms + n > MOST {
            self.totals.resize(self.sums.len(), 0.0);
            for (total, sum) in self.totals.iter_mut().zip(&mut *self.sums) {
                *total += sum.wide();
                *sum = T::ZERO;
            }
            self.n_terms = 0;
        }
        self.n_terms += n;
        self.sums
    }

    /// Puts the sums where they are to end.
    pub(crate) fn finish(self) {
        for (sum, total) in self.sums.iter_mut().zip(self.totals) {
            *sum = T::of(total + sum.wide());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_term_is_lost_however_many_there_are() {
        let mut sums = [0.5f32, 1.0];
        let mut long = LongSums::new(&mut sums);
        for _ in 0..20_000_000 {
            let next = long.next(1);
            next[0] += 1.0;
            next[1] += 0.1;
        }
        long.finish();
        for (sum, exact) in sums.into_iter().zip([20_000_000.5, 1.0 + 2e7 * f64::from(0.1f32)]) {
            assert!((f64::from(sum) / exact - 1.0).abs() < 1e-6, "{sum}, not {exact}");
        }
    }
}
