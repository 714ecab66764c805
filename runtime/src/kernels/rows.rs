//! Normalization of rows: what layer, group, instance and root-mean-square normalization have in common.
//!
//! The formulas come from outside, as closures; here is the order in which a row is walked over while the cache holds it.

use super::Float;
use super::parallel::for_each_chunk2;
use super::simd::{Has, Job, Level, Simd};
use super::sum::{LongSums, lane_sums};

/// Elements whose moments are found in two passes, of which the cache spares one.
const BLOCK: usize = 2048;

/// Elements of a piece of work.
const PIECE: usize = 1 << 13;

/// Most parts into which the samples are cut; fixed, so that sums are the same on every machine.
const MAX_PARTS: usize = 64;

/// A tensor seen as `(samples, groups, len)`. Each row of `len` elements has a mean and a variance of its own. Neighbours in
/// a row, `inner` many, share two coefficients; these are different from row to row of a sample, and equal for all samples.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows {
    /// Rows of a sample.
    pub(crate) groups: usize,
    pub(crate) len: usize,
    pub(crate) inner: usize,
    /// Whether the mean counts; otherwise it is taken to be 0.
    pub(crate) centred: bool,
    /// Added to the variance.
    pub(crate) eps: f64,
}

/// Mean and variance of a row.
pub(crate) type Moments<T> = [T; 2];

impl Rows {
    /// Coefficients of a row.
    fn per_row(&self) -> usize {
        self.len / self.inner
    }

    /// Elements of a sample.
    fn sample(&self) -> usize {
        self.groups * self.len
    }

    /// The coefficients of a row, of those of a sample.
    #[inline(always)]
    fn of<'a, U>(&self, row: usize, coefficients: &'a [U]) -> &'a [U] {
        let n = self.per_row();
        &coefficients[row % self.groups * n..][..n]
    }

    /// One over the standard deviation.
    #[inline(always)]
    fn scale<T: Float>(&self, [_, variance]: Moments<T>) -> T {
        T::of(1.0 / (variance.wide() + self.eps).sqrt())
    }

    /// `y = output([x], [mean, scale * gamma, beta])`, and the moments of each row.
    pub(crate) fn normalize<T: Float>(
        &self,
        x: &[T],
        [beta, gamma]: [&[T]; 2],
        y: &mut [T],
        moments: &mut [Moments<T>],
        output: impl Fn([T; 1], [T; 3]) -> T + Copy + Sync,
    ) {
        let (n_rows, work) = ((PIECE / self.len).max(1), 4 * x.len());
        for_each_chunk2((y, n_rows * self.len), (moments, n_rows), work, |i, y, moments| {
            let (first, x) = (i * n_rows, &x[i * n_rows * self.len..][..y.len()]);
            T::run(Level::detect(), Forward { rows: *self, first, x, beta, gamma, y, moments, output });
        });
    }

    /// The gradient of the input, and for each coefficient of a sample those of `beta` and `gamma`.
    ///
    /// `centred([dy, x], [mean])` is what an element adds to the gradient of `gamma`, before it is scaled, and
    /// `input([dy * gamma, x], [mean, scale, mean of dy * gamma, slope])` its own gradient.
    pub(crate) fn gradients<T: Float>(
        &self,
        [x, dy]: [&[T]; 2],
        gamma: &[T],
        moments: &[Moments<T>],
        dx: &mut [T],
        centred: impl Fn([T; 2], [T; 1]) -> T + Copy + Sync,
        input: impl Fn([T; 2], [T; 4]) -> T + Copy + Sync,
    ) -> Vec<[f64; 2]> {
        let mut totals = vec![[0.0; 2]; self.groups * self.per_row()];
        let work = 6 * x.len();
        if self.inner > 1 {
            let mut sums = vec![[0.0; 2]; moments.len() * self.per_row()];
            let n_rows = (PIECE / self.len).max(1);
            let chunks = (&mut *sums, n_rows * self.per_row());
            for_each_chunk2((dx, n_rows * self.len), chunks, work, |i, dx, sums| {
                let (start, first) = (i * n_rows * self.len, i * n_rows);
                let [x, dy] = [&x[start..][..dx.len()], &dy[start..][..dx.len()]];
                let job =
                    BackwardByRun { rows: *self, first, x, dy, gamma, moments, dx, sums, centred, input };
                T::run(Level::detect(), job);
            });
            for sample in sums.chunks(totals.len().max(1)) {
                add(&mut totals, sample.iter().copied());
            }
            return totals;
        }
        let n_samples = (dx.len() / self.sample()).div_ceil(MAX_PARTS).max(16);
        let part = n_samples * self.sample();
        let mut parts = vec![Vec::new(); dx.len().div_ceil(part)];
        for_each_chunk2((dx, part), (&mut parts, 1), work, |i, dx, sums| {
            let (start, first) = (i * part, i * n_samples * self.groups);
            let [x, dy] = [&x[start..][..dx.len()], &dy[start..][..dx.len()]];
            sums[0] = vec![T::ZERO; 2 * self.sample()];
            let sums = sums[0].as_mut_slice();
            let job =
                BackwardByElement { rows: *self, first, x, dy, gamma, moments, dx, sums, centred, input };
            T::run(Level::detect(), job);
        });
        for part in parts {
            let (beta, gamma) = part.split_at(self.sample());
            add(&mut totals, beta.iter().zip(gamma).map(|(beta, gamma)| [beta.wide(), gamma.wide()]));
        }
        totals
    }

    /// From the sums over a row of `dy * gamma` and of its product with `x - mean`: what each element's gradient loses through
    /// the mean, and through the variance for each unit of `x - mean`.
    #[inline(always)]
    fn shares<T: Float>(&self, [sum, moment]: [f64; 2], scale: T) -> [T; 2] {
        let n = self.len as f64;
        let mean_dy = if self.centred { sum / n } else { 0.0 };
        [T::of(mean_dy), T::of(moment * scale.wide() * scale.wide() / n)]
    }
}

fn add(totals: &mut [[f64; 2]], addends: impl Iterator<Item = [f64; 2]>) {
    for (total, addend) in totals.iter_mut().zip(addends) {
        total[0] += addend[0];
        total[1] += addend[1];
    }
}

/// Mean and variance, block by block (Chan, Golub & LeVeque, Algorithms for computing the sample variance, 1983).
#[inline(always)]
fn moments<T: Float>(x: &[T], centred: bool) -> Moments<T> {
    let (mut n, mut mean, mut squares) = (0.0, 0.0, 0.0);
    for block in x.chunks(BLOCK) {
        let m = block.len() as f64;
        let centre = if centred { lane_sums([block], |[x]| [x])[0] / m } else { 0.0 };
        let rounded = T::of(centre);
        let [spread] = lane_sums([block], |[x]| [(x - rounded) * (x - rounded)]);
        let distance = centre - mean;
        squares += spread + distance * distance * n * m / (n + m);
        n += m;
        mean += distance * m / n;
    }
    [T::of(mean), T::of(squares / n)]
}

struct Forward<'a, T, F> {
    rows: Rows,
    /// The number of the first row.
    first: usize,
    x: &'a [T],
    beta: &'a [T],
    gamma: &'a [T],
    y: &'a mut [T],
    moments: &'a mut [Moments<T>],
    output: F,
}

impl<T: Float, F: Fn([T; 1], [T; 3]) -> T> Job<T> for Forward<'_, T, F> {
    #[inline(always)]
    fn run<V: Simd<T>>(self, _: Has<V>) {
        let Self { rows, first, x, beta, gamma, y, moments: results, output } = self;
        let rows_of_x = x.chunks(rows.len);
        for (i, ((y, x), result)) in y.chunks_mut(rows.len).zip(rows_of_x).zip(results).enumerate() {
            *result = moments(x, rows.centred);
            let (mean, scale) = (result[0], rows.scale(*result));
            let (beta, gamma) = (rows.of(first + i, beta), rows.of(first + i, gamma));
            if rows.inner == 1 {
                for (((y, x), beta), gamma) in y.iter_mut().zip(x).zip(beta).zip(gamma) {
                    *y = output([*x], [mean, scale * *gamma, *beta]);
                }
                continue;
            }
            let runs = y.chunks_mut(rows.inner).zip(x.chunks(rows.inner));
            for ((y, x), (beta, gamma)) in runs.zip(beta.iter().zip(gamma)) {
                let (scale, beta) = (scale * *gamma, *beta);
                for (y, x) in y.iter_mut().zip(x) {
                    *y = output([*x], [mean, scale, beta]);
                }
            }
        }
    }
}

/// Each element has its own coefficients.
struct BackwardByElement<'a, T, C, G> {
    rows: Rows,
    first: usize,
    x: &'a [T],
    dy: &'a [T],
    gamma: &'a [T],
    moments: &'a [Moments<T>],
    dx: &'a mut [T],
    /// For each coefficient of `beta`, then for each of `gamma`.
    sums: &'a mut [T],
    centred: C,
    input: G,
}

impl<T: Float, C: Fn([T; 2], [T; 1]) -> T, G: Fn([T; 2], [T; 4]) -> T> Job<T>
    for BackwardByElement<'_, T, C, G>
{
    #[inline(always)]
    fn run<V: Simd<T>>(self, _: Has<V>) {
        let Self { rows, first, x, dy, gamma, moments, dx, sums, centred, input } = self;
        let (dbeta, dgamma) = sums.split_at_mut(rows.sample());
        let (mut dbeta, mut dgamma) = (LongSums::new(dbeta), LongSums::new(dgamma));
        let samples = x.chunks(rows.sample()).zip(dy.chunks(rows.sample())).zip(dx.chunks_mut(rows.sample()));
        for (sample, ((x, dy), dx)) in samples.enumerate() {
            let (dbeta, dgamma) = (dbeta.next(1), dgamma.next(1));
            let coefficients = dbeta.chunks_mut(rows.len).zip(dgamma.chunks_mut(rows.len));
            let rows_of_x = x.chunks(rows.len).zip(dy.chunks(rows.len)).zip(dx.chunks_mut(rows.len));
            for (row, (((x, dy), dx), (dbeta, dgamma))) in rows_of_x.zip(coefficients).enumerate() {
                let of = moments[first + sample * rows.groups + row];
                let (mean, scale, gamma) = (of[0], rows.scale(of), rows.of(row, gamma));
                add_products(dbeta, dy, dy, |dy, _| dy);
                add_products(dgamma, dy, x, |dy, x| centred([dy, x], [mean]) * scale);
                let sums = lane_sums([dy, x, gamma], |[dy, x, gamma]| {
                    let dy = dy * gamma;
                    [dy, centred([dy, x], [mean])]
                });
                let [mean_dy, slope] = rows.shares(sums, scale);
                for (((dx, x), dy), gamma) in dx.iter_mut().zip(x).zip(dy).zip(gamma) {
                    *dx = input([*dy * *gamma, *x], [mean, scale, mean_dy, slope]);
                }
            }
        }
        dbeta.finish();
        dgamma.finish();
    }
}

/// `sums += term(a, b)`.
#[inline(always)]
fn add_products<T: Float>(sums: &mut [T], a: &[T], b: &[T], term: impl Fn(T, T) -> T) {
    for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
        *sum += term(*a, *b);
    }
}

/// Runs of elements share their coefficients.
struct BackwardByRun<'a, T, C, G> {
    rows: Rows,
    first: usize,
    x: &'a [T],
    dy: &'a [T],
    gamma: &'a [T],
    moments: &'a [Moments<T>],
    dx: &'a mut [T],
    /// For each coefficient of each row.
    sums: &'a mut [[f64; 2]],
    centred: C,
    input: G,
}

impl<T: Float, C: Fn([T; 2], [T; 1]) -> T, G: Fn([T; 2], [T; 4]) -> T> Job<T> for BackwardByRun<'_, T, C, G> {
    #[inline(always)]
    fn run<V: Simd<T>>(self, _: Has<V>) {
        let Self { rows, first, x, dy, gamma, moments, dx, sums, centred, input } = self;
        let rows_of_x = x.chunks(rows.len).zip(dy.chunks(rows.len));
        let rows_of_dx = dx.chunks_mut(rows.len).zip(sums.chunks_mut(rows.per_row()));
        for (i, ((dx, sums), (x, dy))) in rows_of_dx.zip(rows_of_x).enumerate() {
            let of = moments[first + i];
            let (mean, scale, gamma) = (of[0], rows.scale(of), rows.of(first + i, gamma));
            let mut total = [0.0; 2];
            let runs = || x.chunks(rows.inner).zip(dy.chunks(rows.inner)).zip(gamma);
            for (((x, dy), gamma), sums) in runs().zip(sums) {
                *sums = lane_sums([dy, x], |[dy, x]| [dy, centred([dy, x], [mean])]);
                total[0] += gamma.wide() * sums[0];
                total[1] += gamma.wide() * sums[1];
                sums[1] *= scale.wide();
            }
            let [mean_dy, slope] = rows.shares(total, scale);
            for (((x, dy), gamma), dx) in runs().zip(dx.chunks_mut(rows.inner)) {
                for ((dx, x), dy) in dx.iter_mut().zip(x).zip(dy) {
                    *dx = input([*dy * *gamma, *x], [mean, scale, mean_dy, slope]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_of_long_rows_far_from_zero_keep_their_digits() {
        for n in [1, 5, 31, 2048, 5000, 1_000_001] {
            let x: Vec<f32> = (0..n).map(|i| 100.0 + (i % 7) as f32).collect();
            let exact = |f: &dyn Fn(f64) -> f64| x.iter().map(|x| f(x.wide())).sum::<f64>() / n as f64;
            let mean = exact(&|x| x);
            let variance = exact(&|x| (x - mean) * (x - mean));
            let got = moments(&x, true);
            assert!((got[0].wide() - mean).abs() < 1e-5, "{n}: mean {} for {mean}", got[0]);
            assert!((got[1].wide() - variance).abs() < 1e-4, "{n}: variance {} for {variance}", got[1]);
            let squares = exact(&|x| x * x);
            let got = moments(&x, false);
            assert!(
                got[0] == 0.0 && (got[1].wide() / squares - 1.0).abs() < 1e-6,
                "{n}: {got:?} for {squares}"
            );
        }
    }
}
