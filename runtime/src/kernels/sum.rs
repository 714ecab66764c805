//! Sums of so many terms that the rounding of each would add up.

use super::Float;

/// Elements summed in `T`, eight in each lane, before the sums go into `f64`.
const RUN: usize = 8 * LANES;

/// Running sums side by side.
const LANES: usize = 32;

/// Fewer elements than these are not worth lanes.
const SHORT: usize = 16;

// Plain loops: closures of `array::map` are not always compiled for the processor of the loop around them.

/// The sums of the terms over all places of slices of one length, in `f64`.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // several slices are indexed
pub(crate) fn lane_sums<T: Float, const N: usize, const K: usize>(
    inputs: [&[T]; N],
    term: impl Fn([T; N]) -> [T; K],
) -> [f64; K] {
    let (len, mut sums) = (inputs[0].len(), [0.0; K]);
    if len < SHORT {
        for i in 0..len {
            let mut elements = [T::ZERO; N];
            for n in 0..N {
                elements[n] = inputs[n][i];
            }
            let addends = term(elements);
            for k in 0..K {
                sums[k] += addends[k].wide();
            }
        }
        return sums;
    }
    let mut run = inputs;
    for n in 0..N {
        run[n] = &inputs[n][..len.min(RUN)];
    }
    let lanes = sum_run(run, &term);
    let mut wide = [[0.0; LANES]; K];
    for k in 0..K {
        for lane in 0..LANES {
            wide[k][lane] = lanes[k][lane].wide();
        }
    }
    for start in (RUN..len).step_by(RUN) {
        for n in 0..N {
            run[n] = &inputs[n][start..len.min(start + RUN)];
        }
        let lanes = sum_run(run, &term);
        for k in 0..K {
            for lane in 0..LANES {
                wide[k][lane] += lanes[k][lane].wide();
            }
        }
    }
    for k in 0..K {
        let halves: [f64; LANES / 2] = halved(&wide[k]);
        let quarters: [f64; LANES / 4] = halved(&halves);
        let [a, b, c, d] = halved(&quarters);
        sums[k] = (a + c) + (b + d);
    }
    sums
}

/// The sums of the places that lie half an array apart. Arrays of a known size stay in registers.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // two places are indexed
fn halved<const FROM: usize, const TO: usize>(lanes: &[f64; FROM]) -> [f64; TO] {
    const { assert!(FROM == 2 * TO) };
    let mut sums = [0.0; TO];
    for lane in 0..TO {
        sums[lane] = lanes[lane] + lanes[lane + TO];
    }
    sums
}

/// As many running sums as the compiler can keep in registers.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // several slices are indexed
fn sum_run<T: Float, const N: usize, const K: usize>(
    inputs: [&[T]; N],
    term: impl Fn([T; N]) -> [T; K],
) -> [[T; LANES]; K] {
    let mut lanes = [[T::ZERO; LANES]; K];
    let whole = inputs[0].len() / LANES;
    let mut rows = [&[][..]; N];
    let mut rest = [&[][..]; N];
    for n in 0..N {
        let (chunks, behind) = inputs[n].as_chunks::<LANES>();
        (rows[n], rest[n]) = (&chunks[..whole], &behind[..inputs[0].len() - whole * LANES]);
    }
    for i in 0..whole {
        let mut row = [[T::ZERO; LANES]; N];
        for n in 0..N {
            row[n] = rows[n][i];
        }
        for lane in 0..LANES {
            let mut elements = [T::ZERO; N];
            for n in 0..N {
                elements[n] = row[n][lane];
            }
            let addends = term(elements);
            for k in 0..K {
                lanes[k][lane] += addends[k];
            }
        }
    }
    for lane in 0..rest[0].len() {
        let mut elements = [T::ZERO; N];
        for n in 0..N {
            elements[n] = rest[n][lane];
        }
        let addends = term(elements);
        for k in 0..K {
            lanes[k][lane] += addends[k];
        }
    }
    lanes
}

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
