//! Loops over `(outer, channels, inner)` with something different in each channel.

use super::Float;
use super::elementwise::zip_serial;
use super::parallel;
use super::simd::{Has, Job, Level, Simd};
use super::sum::{LongSums, lane_sums};

/// A tensor seen as `(outer, channels, inner)`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Channels {
    pub(crate) outer: usize,
    pub(crate) channels: usize,
    pub(crate) inner: usize,
}

/// Inner sizes from which a channel is worth a loop of its own.
const LONG: usize = 16;

/// Most parts into which the outer axis is cut; fixed, so that sums are the same on every machine.
const MAX_PARTS: usize = 64;

impl Channels {
    /// Elements that go into one channel's sum.
    pub(crate) fn per_channel(&self) -> usize {
        self.outer * self.inner
    }

    fn row(&self) -> usize {
        self.channels * self.inner
    }

    /// `out = f(coefficients of the channel, a, b)` for each element.
    pub(crate) fn map<T: Float, const K: usize>(
        &self,
        coefficients: &[[T; K]],
        a: &[T],
        b: &[T],
        out: &mut [T],
        f: impl Fn(&[T; K], T, T) -> T + Copy + Send + Sync,
    ) {
        let work = out.len();
        if self.inner >= LONG {
            parallel::for_each_chunk(
                out,
                self.inner,
                work,
                || (),
                |(), i, out| {
                    let coefficients = coefficients[i % self.channels]; // a copy stays in registers
                    let range = i * self.inner..(i + 1) * self.inner;
                    zip_serial(&a[range.clone()], &b[range], out, |a, b| f(&coefficients, a, b));
                },
            );
        } else {
            parallel::for_each_chunk(
                out,
                self.row(),
                work,
                || (),
                |(), i, out| {
                    let range = i * self.row()..(i + 1) * self.row();
                    let coefficients = coefficients.iter().flat_map(|c| std::iter::repeat_n(c, self.inner));
                    for (((out, a), b), c) in
                        out.iter_mut().zip(&a[range.clone()]).zip(&b[range]).zip(coefficients)
                    {
                        *out = f(c, *a, *b);
                    }
                },
            );
        }
    }

    /// For each channel `c` the sum of `terms(c)(a, b)` over its elements. What `terms(c)` holds is to be numbers, which
    /// stay in registers.
    pub(crate) fn sums<T: Float, F: Fn(T, T) -> [T; K], const K: usize>(
        &self,
        a: &[T],
        b: &[T],
        terms: impl Fn(usize) -> F + Sync,
    ) -> Vec<[f64; K]> {
        if a.is_empty() {
            return vec![[0.0; K]; self.channels]; // there may be ever so many rows of nothing
        }
        if self.inner >= LONG { self.sums_by_channel(a, b, terms) } else { self.sums_by_row(a, b, terms) }
    }

    fn sums_by_channel<T: Float, F: Fn(T, T) -> [T; K], const K: usize>(
        &self,
        a: &[T],
        b: &[T],
        terms: impl Fn(usize) -> F + Sync,
    ) -> Vec<[f64; K]> {
        let one = |c: usize| {
            let mut totals = [0.0; K];
            for n in 0..self.outer {
                let start = n * self.row() + c * self.inner;
                let (a, b) = (&a[start..][..self.inner], &b[start..][..self.inner]);
                T::run(Level::detect(), Runs { a, b, term: terms(c), totals: &mut totals });
            }
            totals
        };
        parallel::collect(self.channels, a.len(), [0.0; K], one)
    }

    fn sums_by_row<T: Float, F: Fn(T, T) -> [T; K], const K: usize>(
        &self,
        a: &[T],
        b: &[T],
        terms: impl Fn(usize) -> F + Sync,
    ) -> Vec<[f64; K]> {
        let rows_per_part = self.outer.div_ceil(MAX_PARTS).max(16);
        let part = |part: usize| {
            let mut totals = vec![[0.0; K]; self.channels];
            let first = part * rows_per_part;
            for n in first..(first + rows_per_part).min(self.outer) {
                let range = n * self.row()..(n + 1) * self.row();
                let mut elements = a[range.clone()].iter().zip(&b[range]);
                for (c, totals) in totals.iter_mut().enumerate() {
                    let term = terms(c);
                    for (a, b) in elements.by_ref().take(self.inner) {
                        add(totals, term(*a, *b));
                    }
                }
            }
            totals
        };
        let n_parts = self.outer.div_ceil(rows_per_part);
        let parts = parallel::collect(n_parts, a.len(), Vec::new(), part);
        let mut totals = vec![[0.0; K]; self.channels];
        for part in parts {
            for (total, addend) in totals.iter_mut().zip(&part) {
                add(total, *addend);
            }
        }
        totals
    }
}

/// `sums[c]` = sum of `x` over channel `c`; as many channels as `sums` is long, `inner` elements apart.
pub(crate) fn channel_sums<T: Float>(x: &[T], inner: usize, sums: &mut [T]) {
    if inner == 1 {
        return column_sums(x, sums);
    }
    let row = sums.len() * inner;
    let channels = Channels { outer: x.len().checked_div(row).unwrap_or(0), channels: sums.len(), inner };
    for (sum, [total]) in sums.iter_mut().zip(channels.sums(x, x, |_| |x, _| [x])) {
        *sum = T::of(total);
    }
}

/// The sums of the columns of rows as long as `sums`.
fn column_sums<T: Float>(x: &[T], sums: &mut [T]) {
    let n_rows = x.len().checked_div(sums.len()).unwrap_or(0);
    let part = n_rows.div_ceil(MAX_PARTS).max(64) * sums.len();
    let sums_of = |i: usize| {
        let mut totals = vec![T::ZERO; sums.len()];
        let mut long = LongSums::new(&mut totals);
        for rows in x[i * part..x.len().min((i + 1) * part)].chunks(ROWS * sums.len()) {
            let sums = long.next(rows.len() / sums.len());
            T::run(Level::detect(), AddRows { rows, sums });
        }
        long.finish();
        totals
    };
    let parts = parallel::collect(x.len().div_ceil(part.max(1)), x.len(), Vec::new(), sums_of);
    for (c, sum) in sums.iter_mut().enumerate() {
        *sum = T::of(parts.iter().map(|part| part[c].wide()).sum());
    }
}

/// Rows that are added up before the sums are read.
const ROWS: usize = 8;

/// Adds rows to sums.
struct AddRows<'a, T> {
    rows: &'a [T],
    sums: &'a mut [T],
}

impl<T: Float> Job<T> for AddRows<'_, T> {
    #[inline(always)]
    fn run<V: Simd<T>>(self, _: Has<V>) {
        let Self { rows, sums } = self;
        let n = sums.len();
        if rows.len() < ROWS * n {
            for row in rows.chunks_exact(n) {
                for (sum, x) in sums.iter_mut().zip(row) {
                    *sum += *x;
                }
            }
            return;
        }
        let mut row = [&rows[..0]; ROWS];
        for i in 0..ROWS {
            row[i] = &rows[i * n..][..n];
        }
        for (c, sum) in sums.iter_mut().enumerate() {
            let (a, b) = (row[0][c] + row[1][c], row[2][c] + row[3][c]);
            let (d, e) = (row[4][c] + row[5][c], row[6][c] + row[7][c]);
            *sum += (a + b) + (d + e);
        }
    }
}

/// The sum of all elements.
pub(crate) fn sum<T: Float>(x: &[T]) -> f64 {
    /// Elements of a piece of work.
    const CHUNK: usize = 1 << 16;

    let part = |i: usize| {
        let (mut totals, x) = ([0.0], &x[i * CHUNK..x.len().min((i + 1) * CHUNK)]);
        T::run(Level::detect(), Runs { a: x, b: x, term: |x, _| [x], totals: &mut totals });
        totals[0]
    };
    parallel::collect(x.len().div_ceil(CHUNK), x.len(), 0.0, part).iter().sum()
}

// Plain loops from here on: closures of `array::map` are not always compiled for the processor of the loop around them.

#[inline(always)]
fn add<T: Float, const K: usize>(totals: &mut [f64; K], addends: [T; K]) {
    for k in 0..K {
        totals[k] += addends[k].wide();
    }
}

/// Adds the sums of the terms to the totals.
struct Runs<'a, T, F, const K: usize> {
    a: &'a [T],
    b: &'a [T],
    term: F,
    totals: &'a mut [f64; K],
}

impl<T: Float, F: Fn(T, T) -> [T; K], const K: usize> Job<T> for Runs<'_, T, F, K> {
    #[inline(always)]
    fn run<V: Simd<T>>(self, _: Has<V>) {
        let Self { a, b, term, totals } = self;
        let sums = lane_sums([a, b], |[a, b]| term(a, b));
        for k in 0..K {
            totals[k] += sums[k];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::simd::Vectorized;
    use super::*;

    #[test]
    fn sums_of_both_layouts_agree_with_the_definition() {
        for (outer, channels, inner) in [(3, 2, 5), (3, 2, 40), (70, 3, 1), (0, 2, 3), (2, 1, 2000)] {
            let x: Vec<f64> = (0..outer * channels * inner).map(|i| ((i * 7) % 11) as f64).collect();
            let got = Channels { outer, channels, inner }.sums(&x, &x, |c| move |a, b| [a, b * c as f64]);
            let mut want = vec![[0.0; 2]; channels];
            for (i, x) in x.iter().enumerate() {
                let c = i / inner % channels;
                want[c][0] += x;
                want[c][1] += x * c as f64;
            }
            assert_eq!(got, want, "{outer} {channels} {inner}");
        }
    }

    #[test]
    fn ten_million_terms_are_summed_to_the_last_digits() {
        for level in Level::all() {
            let x = vec![0.1f32; 10_000_000];
            let mut totals = [0.0, 0.0];
            f32::run(level, Runs { a: &x, b: &x, term: |a, b| [a, a * b], totals: &mut totals });
            for (total, term) in totals.into_iter().zip([0.1f32, 0.1 * 0.1]) {
                let exact = f64::from(term) * 1e7;
                assert!((total / exact - 1.0).abs() < 5e-7, "{level:?}: {total}, not {exact}");
            }
        }
        let x = vec![0.1f32; 10_000_000];
        for (outer, channels, inner) in
            [(1, 1, 10_000_000), (10_000_000, 1, 1), (1_000_000, 2, 5), (1000, 10, 1000)]
        {
            let mut sums = vec![0.0; channels];
            channel_sums(&x, inner, &mut sums);
            let exact = f64::from(0.1f32) * (outer * inner) as f64;
            assert!(
                sums.iter().all(|sum| (f64::from(*sum) / exact - 1.0).abs() < 5e-7),
                "{sums:?}, not {exact}"
            );
        }
        assert!((sum(&x) / (1e7 * f64::from(0.1f32)) - 1.0).abs() < 5e-7);
    }
}
