//! Attention: softmax of the products of queries and keys, and with these weights the mean of the values.
//!
//! [`forward`](Attention::forward) and [`backward`](Attention::backward) look at tiles of some queries and some keys and
//! keep the largest score and the sum of each query so far (Dao et al., FlashAttention, 2022): no matrix of all scores is in
//! memory. The backward pass computes the tiles anew from the logarithm of that sum. [`weights`](Attention::weights) is for
//! those who want the matrix.
#![allow(unsafe_code)] // threads write to rows of their own in one tensor

use std::marker::PhantomData;
use std::ops::Range;
use std::slice;

use super::pool::Team;
use super::simd::{Has, Job, Level, Simd};
use super::sum::lane_sums;
use super::{Float, Mat, MatMut, Start, Threads, gemm, parallel, unfilled};

/// Queries and keys of a tile, whose scores stay in the second cache.
const QUERIES: usize = 128;
const KEYS: usize = 256;

/// Maxima side by side.
const LANES: usize = 32;

/// How the rows of a tensor lie in memory, each of which belongs to a batch, a head and a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// `(batches, heads, positions, dim)`
    HeadsFirst,
    /// `(positions, batches, heads * dim)`
    PositionsFirst,
}

/// From a batch, a head and a position to the next.
#[derive(Clone, Copy)]
struct Strides([usize; 3]);

impl Strides {
    fn offset(self, [batch, head]: [usize; 2], position: usize) -> usize {
        let Self([of_batch, of_head, of_position]) = self;
        batch * of_batch + head * of_head + position * of_position
    }
}

/// Sizes, and what is done to the scores.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attention {
    pub(crate) order: Order,
    pub(crate) batches: usize,
    pub(crate) heads: usize,
    /// Queries.
    pub(crate) targets: usize,
    /// Keys and values.
    pub(crate) sources: usize,
    /// Of queries and keys.
    pub(crate) dim: usize,
    /// Of values.
    pub(crate) value_dim: usize,
    /// The products are multiplied by it.
    pub(crate) scale: f64,
    /// Whether the last query sees all keys and each one before it one key less.
    pub(crate) causal: bool,
}

/// What is added to the scaled products of a query with the keys, and from a batch, a head and a query to the next.
#[derive(Clone, Copy)]
pub(crate) struct Mask<'a, T> {
    pub(crate) values: &'a [T],
    pub(crate) strides: [usize; 3],
}

impl<'a, T> Mask<'a, T> {
    fn row(&self, at: [usize; 2], target: usize, sources: &Range<usize>) -> &'a [T] {
        &self.values[Strides(self.strides).offset(at, target)..][sources.clone()]
    }
}

/// Up to two masks.
pub(crate) type Masks<'a, T> = [Option<Mask<'a, T>>; 2];

/// A tensor whose rows several threads write.
struct RowsMut<'a, T> {
    start: *mut T,
    strides: Strides,
    width: usize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: a shared reference gives nothing but rows, to those who vouch that each is one thread's.
unsafe impl<T: Send> Sync for RowsMut<'_, T> {}

impl<T> RowsMut<'_, T> {
    /// A row.
    ///
    /// # Safety
    /// It exists, and nobody else refers to it.
    #[allow(clippy::mut_from_ref)] // as the caller vouches
    unsafe fn row(&self, at: [usize; 2], position: usize) -> &mut [T] {
        // SAFETY: inside the slice, as its length was compared with the sizes.
        unsafe { slice::from_raw_parts_mut(self.start.add(self.strides.offset(at, position)), self.width) }
    }
}

impl Attention {
    /// Pairs of a batch and a head.
    fn pairs(&self) -> usize {
        self.batches * self.heads
    }

    fn pair(&self, index: usize) -> [usize; 2] {
        [index / self.heads, index % self.heads]
    }

    /// Keys that the query sees, from the first on.
    fn seen_by(&self, target: usize) -> usize {
        if self.causal { (target + 1 + self.sources).saturating_sub(self.targets) } else { self.sources }
    }

    fn strides(&self, positions: usize, dim: usize) -> Strides {
        Strides(match self.order {
            Order::HeadsFirst => [self.heads * positions * dim, positions * dim, dim],
            Order::PositionsFirst => [self.heads * dim, dim, self.batches * self.heads * dim],
        })
    }

    /// Some rows of a tensor of so many positions as a matrix.
    fn rows<'a, T>(
        &self,
        data: &'a [T],
        (positions, dim): (usize, usize),
        at: [usize; 2],
        part: Range<usize>,
    ) -> Mat<'a, T> {
        let strides = self.strides(positions, dim);
        let start = if part.is_empty() || dim == 0 { 0 } else { strides.offset(at, part.start) };
        Mat::new(&data[start..], part.len(), dim, strides.0[2])
    }

    fn rows_mut<'a, T>(&self, data: &'a mut [T], (positions, dim): (usize, usize)) -> RowsMut<'a, T> {
        assert!(data.len() == self.pairs() * positions * dim, "a kernel got a tensor of another size");
        RowsMut {
            start: data.as_mut_ptr(),
            strides: self.strides(positions, dim),
            width: dim,
            slice: PhantomData,
        }
    }

    fn of_targets(&self) -> (usize, usize) {
        (self.targets, self.dim)
    }

    fn of_sources(&self) -> (usize, usize) {
        (self.sources, self.dim)
    }

    fn of_values(&self) -> (usize, usize) {
        (self.sources, self.value_dim)
    }

    fn of_outputs(&self) -> (usize, usize) {
        (self.targets, self.value_dim)
    }

    /// Calls `f` for each of the `n` pieces of work on all scores.
    fn for_each<S>(&self, n: usize, scratch: impl Fn() -> S + Sync, f: impl Fn(&mut S, usize) + Sync) {
        let work = self.pairs().saturating_mul(self.targets).saturating_mul(self.sources);
        let team = if n > 1 && parallel::worthwhile(work) { Team::gather() } else { Team::alone() };
        team.for_each(n, scratch, f);
    }

    /// `y = softmax(scale q k^T + masks) v`; a query that sees no key gets zeros. `normalizers (batches, heads, targets)`
    /// become the logarithms of the sums of exponentials, for the backward pass.
    pub(crate) fn forward<T: Float>(
        &self,
        [q, k, v]: [&[T]; 3],
        masks: &Masks<'_, T>,
        y: &mut [T],
        normalizers: &mut [T],
    ) {
        let y = self.rows_mut(y, self.of_outputs());
        let of_logarithms = Self { order: Order::HeadsFirst, ..*self };
        let normalizers = of_logarithms.rows_mut(normalizers, (self.targets, 1));
        let blocks = self.targets.div_ceil(QUERIES);
        let rows = self.targets.min(QUERIES);
        let scratch = || {
            (
                unfilled::<T>(rows * self.sources.min(KEYS)),
                unfilled::<T>(rows * self.value_dim),
                Vec::new(),
                Vec::new(),
            )
        };
        self.for_each(self.pairs() * blocks, scratch, |(scores, sums, largest, totals), i| {
            let at = self.pair(i / blocks);
            let first = i % blocks * QUERIES;
            let targets = first..self.targets.min(first + QUERIES);
            largest.clear();
            largest.resize(targets.len(), T::of(f64::NEG_INFINITY));
            totals.clear();
            totals.resize(targets.len(), 0.0);
            sums.fill(T::ZERO);
            let queries = self.rows(q, self.of_targets(), at, targets.clone());
            for start in (0..self.seen_by(targets.end - 1)).step_by(KEYS) {
                let sources = start..self.seen_by(targets.end - 1).min(start + KEYS);
                let (m, n, width) = (targets.len(), sources.len(), self.value_dim);
                let keys = self.rows(k, self.of_sources(), at, sources.clone());
                let scores = &mut scores[..m * n];
                gemm(MatMut::new(scores, m, n, n), queries, keys.t(), Start::Zero, Threads::One);
                let tile =
                    Tile { attention: self, masks, at, targets: targets.clone(), sources: sources.clone() };
                T::run(
                    Level::detect(),
                    Softmax {
                        tile: &tile,
                        scores: &mut *scores,
                        largest,
                        totals,
                        sums: &mut sums[..m * width],
                    },
                );
                let values = self.rows(v, self.of_values(), at, sources);
                let start = if start == 0 { Start::Zero } else { Start::Kept };
                let sums = MatMut::new(&mut sums[..m * width], m, width, width);
                gemm(sums, Mat::new(scores, m, n, n), values, start, Threads::One);
            }
            for (i, target) in targets.enumerate() {
                // SAFETY: this piece of work alone has these queries of this batch and head.
                let (y, normalizer) = unsafe { (y.row(at, target), normalizers.row(at, target)) };
                let (factor, logarithm) = mean_of(largest[i], totals[i]);
                normalizer[0] = logarithm;
                y.iter_mut().zip(&sums[i * self.value_dim..]).for_each(|(y, sum)| *y = *sum * factor);
            }
        });
    }

    /// The gradients of `q`, `k` and `v`, and that of the scaled scores before softmax `(batches, heads, targets, sources)`,
    /// which starts as zeros.
    pub(crate) fn backward<T: Float>(
        &self,
        [q, k, v]: [&[T]; 3],
        masks: &Masks<'_, T>,
        (normalizers, y, dy): (&[T], &[T], &[T]),
        [dq, dk, dv]: [Option<&mut [T]>; 3],
        dscores: Option<&mut [T]>,
    ) {
        let dq = dq.map(|dq| self.rows_mut(dq, self.of_targets()));
        let dk = dk.map(|dk| self.rows_mut(dk, self.of_sources()));
        let dv = dv.map(|dv| self.rows_mut(dv, self.of_values()));
        let of_scores = Self { order: Order::HeadsFirst, ..*self };
        let dscores = dscores.map(|dscores| of_scores.rows_mut(dscores, (self.targets, self.sources)));
        let (dim, width) = (self.dim, self.value_dim);
        let rows = self.targets.min(QUERIES);
        let scratch = || Scratch {
            weights: unfilled(rows * self.sources.min(KEYS)),
            slopes: unfilled(rows * self.sources.min(KEYS)),
            of_queries: unfilled(rows * dim),
            of_keys: unfilled(self.sources * dim),
            of_values: unfilled(self.sources * width),
            products: unfilled(rows),
        };
        self.for_each(self.pairs(), scratch, |s: &mut Scratch<T>, pair| {
            let at = self.pair(pair);
            s.of_keys.fill(T::ZERO);
            s.of_values.fill(T::ZERO);
            for first in (0..self.targets).step_by(QUERIES) {
                let targets = first..self.targets.min(first + QUERIES);
                let m = targets.len();
                let queries = self.rows(q, self.of_targets(), at, targets.clone());
                let [y, dy] = [y, dy].map(|y| self.rows(y, self.of_outputs(), at, targets.clone()));
                T::run(Level::detect(), Products { a: y, b: dy, sums: &mut s.products });
                s.of_queries.fill(T::ZERO);
                let end = self.seen_by(targets.end - 1);
                for start in (0..end).step_by(KEYS) {
                    let sources = start..end.min(start + KEYS);
                    let n = sources.len();
                    let keys = self.rows(k, self.of_sources(), at, sources.clone());
                    let values = self.rows(v, self.of_values(), at, sources.clone());
                    let (weights, slopes) = (&mut s.weights[..m * n], &mut s.slopes[..m * n]);
                    gemm(MatMut::new(weights, m, n, n), queries, keys.t(), Start::Zero, Threads::One);
                    gemm(MatMut::new(slopes, m, n, n), dy, values.t(), Start::Zero, Threads::One);
                    let tile = Tile {
                        attention: self,
                        masks,
                        at,
                        targets: targets.clone(),
                        sources: sources.clone(),
                    };
                    let normalizers = &normalizers[pair * self.targets..][targets.clone()];
                    let products = &s.products[..m];
                    let (weights, slopes) = (&mut *weights, &mut *slopes);
                    T::run(
                        Level::detect(),
                        Slopes {
                            tile: &tile,
                            weights: &mut *weights,
                            slopes: &mut *slopes,
                            normalizers,
                            products,
                        },
                    );
                    if let Some(dscores) = &dscores {
                        for (target, slopes) in targets.clone().zip(slopes.chunks_exact(n)) {
                            // SAFETY: this piece of work alone has this batch and head.
                            let row = unsafe { dscores.row(at, target) };
                            row[sources.clone()].copy_from_slice(slopes);
                        }
                    }
                    let (weights, slopes) = (Mat::new(weights, m, n, n), Mat::new(slopes, m, n, n));
                    let add = |sums: &mut [T], width, left, right| {
                        let rows = sums.len().checked_div(width).unwrap_or(0);
                        gemm(MatMut::new(sums, rows, width, width), left, right, Start::Kept, Threads::One);
                    };
                    if dv.is_some() && width > 0 {
                        add(&mut s.of_values[start * width..sources.end * width], width, weights.t(), dy);
                    }
                    if dq.is_some() && dim > 0 {
                        add(&mut s.of_queries[..m * dim], dim, slopes, keys);
                    }
                    if dk.is_some() && dim > 0 {
                        add(&mut s.of_keys[start * dim..sources.end * dim], dim, slopes.t(), queries);
                    }
                }
                self.store(&dq, at, targets, &s.of_queries, T::of(self.scale));
            }
            self.store(&dk, at, 0..self.sources, &s.of_keys, T::of(self.scale));
            self.store(&dv, at, 0..self.sources, &s.of_values, T::ONE);
        });
    }

    /// Writes rows of a batch and head that belong to the calling piece of work, times `scale`.
    fn store<T: Float>(
        &self,
        to: &Option<RowsMut<'_, T>>,
        at: [usize; 2],
        positions: Range<usize>,
        rows: &[T],
        scale: T,
    ) {
        let Some(to) = to else { return };
        for (i, position) in positions.enumerate() {
            // SAFETY: the rows of a batch and a head belong to one piece of work, which calls this.
            let to = unsafe { to.row(at, position) };
            let row = &rows[i * to.len()..];
            to.iter_mut().zip(row).for_each(|(to, value)| *to = *value * scale);
        }
    }

    /// `softmax(scale q k^T + masks)` of shape `(batches, heads, targets, sources)`; zeros for a query that sees no key.
    pub(crate) fn weights<T: Float>(&self, [q, k]: [&[T]; 2], masks: &Masks<'_, T>, weights: &mut [T]) {
        let of_weights = Self { order: Order::HeadsFirst, ..*self };
        let rows = of_weights.rows_mut(weights, (self.targets, self.sources));
        let n = self.sources;
        self.for_each(
            self.pairs(),
            || (),
            |(), pair| {
                let at = self.pair(pair);
                if self.targets == 0 || n == 0 {
                    return;
                }
                // SAFETY: the rows of a batch and a head lie behind each other, and this piece of work alone has them.
                let weights =
                    unsafe { slice::from_raw_parts_mut(rows.row(at, 0).as_mut_ptr(), self.targets * n) };
                let queries = self.rows(q, self.of_targets(), at, 0..self.targets);
                let keys = self.rows(k, self.of_sources(), at, 0..n);
                gemm(MatMut::new(weights, self.targets, n, n), queries, keys.t(), Start::Zero, Threads::One);
                let mut largest = vec![T::of(f64::NEG_INFINITY); self.targets];
                let mut totals = vec![0.0; self.targets];
                let tile = Tile { attention: self, masks, at, targets: 0..self.targets, sources: 0..n };
                let (largest, totals) = (&mut largest[..], &mut totals[..]);
                T::run(
                    Level::detect(),
                    Softmax { tile: &tile, scores: &mut *weights, largest, totals, sums: &mut [] },
                );
                for (i, weights) in weights.chunks_exact_mut(n).enumerate() {
                    let (factor, _) = mean_of(largest[i], totals[i]);
                    weights.iter_mut().for_each(|weight| *weight = *weight * factor);
                }
            },
        );
    }

    /// The gradients of `q` and `k`, and that of the scaled scores, from that of the weights.
    pub(crate) fn weights_backward<T: Float>(
        &self,
        [q, k]: [&[T]; 2],
        (weights, dweights): (&[T], &[T]),
        [dq, dk]: [Option<&mut [T]>; 2],
        dscores: &mut [T],
    ) {
        let (n, size) = (self.sources, self.targets * self.sources);
        parallel::for_each_chunk(
            dscores,
            n,
            weights.len() * 2,
            || (),
            |(), i, dscores| {
                let (weights, dweights) = (&weights[i * n..][..n], &dweights[i * n..][..n]);
                let product = weights.iter().zip(dweights).fold(0.0, |sum, (w, dw)| sum + (*w * *dw).wide());
                let product = T::of(product);
                for (ds, (w, dw)) in dscores.iter_mut().zip(weights.iter().zip(dweights)) {
                    *ds = *w * (*dw - product);
                }
            },
        );
        let dscores = &*dscores;
        let slopes = |pair: usize| Mat::new(&dscores[pair * size..], self.targets, n, n);
        self.each_product(dq, self.of_targets(), T::of(self.scale), |pair, at| {
            (slopes(pair), self.rows(k, self.of_sources(), at, 0..n))
        });
        self.each_product(dk, self.of_sources(), T::of(self.scale), |pair, at| {
            (slopes(pair).t(), self.rows(q, self.of_targets(), at, 0..self.targets))
        });
    }

    /// `y = weights v`
    pub(crate) fn apply<T: Float>(&self, [weights, v]: [&[T]; 2], y: &mut [T]) {
        let (n, size) = (self.sources, self.targets * self.sources);
        self.each_product(Some(y), self.of_outputs(), T::ONE, |pair, at| {
            (Mat::new(&weights[pair * size..], self.targets, n, n), self.rows(v, self.of_values(), at, 0..n))
        });
    }

    /// The gradients of the weights and of `v`.
    pub(crate) fn apply_backward<T: Float>(
        &self,
        [weights, v]: [&[T]; 2],
        dy: &[T],
        dweights: Option<&mut [T]>,
        dv: Option<&mut [T]>,
    ) {
        let (n, size) = (self.sources, self.targets * self.sources);
        let dy = |at| self.rows(dy, self.of_outputs(), at, 0..self.targets);
        if let Some(dweights) = dweights {
            parallel::for_each_chunk(
                dweights,
                size,
                weights.len() * 2,
                || (),
                |(), pair, dweights| {
                    let (at, out) = (self.pair(pair), MatMut::new(dweights, self.targets, n, n));
                    let values = self.rows(v, self.of_values(), at, 0..n);
                    gemm(out, dy(at), values.t(), Start::Zero, Threads::One);
                },
            );
        }
        self.each_product(dv, self.of_values(), T::ONE, |pair, at| {
            (Mat::new(&weights[pair * size..], self.targets, n, n).t(), dy(at))
        });
    }

    /// The rows of each batch and head become `scale` times the product of two matrices.
    fn each_product<'a, T: Float>(
        &self,
        to: Option<&mut [T]>,
        (positions, dim): (usize, usize),
        scale: T,
        factors: impl Fn(usize, [usize; 2]) -> (Mat<'a, T>, Mat<'a, T>) + Sync,
    ) {
        let Some(to) = to.filter(|to| !to.is_empty()) else { return };
        let to = Some(self.rows_mut(to, (positions, dim)));
        self.for_each(
            self.pairs(),
            || unfilled::<T>(positions * dim),
            |rows, pair| {
                let at = self.pair(pair);
                let (left, right) = factors(pair, at);
                gemm(MatMut::new(rows, positions, dim, dim), left, right, Start::Zero, Threads::One);
                self.store(&to, at, 0..positions, rows, scale);
            },
        );
    }
}

/// What a thread needs for the backward pass of a batch and a head.
struct Scratch<T> {
    weights: Vec<T>,
    slopes: Vec<T>,
    of_queries: Vec<T>,
    of_keys: Vec<T>,
    of_values: Vec<T>,
    products: Vec<T>,
}

/// By what a sum of exponentials of differences from the largest score is to be multiplied, and the logarithm of the sum of
/// exponentials of the scores, which is infinite where there was none.
fn mean_of<T: Float>(largest: T, total: f64) -> (T, T) {
    if total == 0.0 {
        return (T::ZERO, T::of(f64::INFINITY));
    }
    (T::of(1.0 / total), T::of(largest.wide() + total.ln()))
}

/// Some queries and some keys of a batch and a head.
struct Tile<'a, T> {
    attention: &'a Attention,
    masks: &'a Masks<'a, T>,
    at: [usize; 2],
    targets: Range<usize>,
    sources: Range<usize>,
}

impl<T: Float> Tile<'_, T> {
    /// How many of the keys the `i`-th query sees.
    fn seen(&self, i: usize) -> usize {
        let seen = self.attention.seen_by(self.targets.start + i);
        seen.saturating_sub(self.sources.start).min(self.sources.len())
    }

    /// Makes the products of the `i`-th query with the keys that it sees its scores.
    #[inline(always)]
    fn score(&self, i: usize, products: &mut [T]) {
        let scale = T::of(self.attention.scale);
        for x in products.iter_mut() {
            *x = *x * scale;
        }
        for mask in self.masks.iter().flatten() {
            let mask = mask.row(self.at, self.targets.start + i, &self.sources);
            for (x, mask) in products.iter_mut().zip(mask) {
                *x += *mask;
            }
        }
    }
}

/// Makes the products of a tile exponentials of scores, counted from the largest score so far. `totals` are the sums of
/// these; they and `sums`, the rows of the result, are scaled to a new largest score.
struct Softmax<'a, T> {
    tile: &'a Tile<'a, T>,
    scores: &'a mut [T],
    largest: &'a mut [T],
    totals: &'a mut [f64],
    sums: &'a mut [T],
}

impl<T: Float> Job<T> for Softmax<'_, T> {
    #[inline(always)]
    fn run<V: Simd<T>>(self, _: Has<V>) {
        if V::FUSED { self.rows::<true>() } else { self.rows::<false>() }
    }
}

impl<T: Float> Softmax<'_, T> {
    #[inline(always)]
    fn rows<const FUSED: bool>(self) {
        let Self { tile, scores, largest, totals, sums } = self;
        let (n, width) = (tile.sources.len(), sums.len() / largest.len());
        for (i, row) in scores.chunks_exact_mut(n).enumerate() {
            let (row, hidden) = row.split_at_mut(tile.seen(i));
            for x in hidden {
                *x = T::ZERO;
            }
            tile.score(i, row);
            let before = largest[i];
            let now = largest_of(row, before);
            largest[i] = now;
            // Where nothing has been seen yet, the scores are all -inf: their exponentials are 0 from wherever it is counted.
            let origin = if now == T::of(f64::NEG_INFINITY) { T::ZERO } else { now };
            for x in row.iter_mut() {
                *x = (*x - origin).exp_in::<FUSED>();
            }
            let factor = (before - origin).exp_in::<FUSED>();
            let [sum] = lane_sums([&*row], |[x]| [x]);
            totals[i] = totals[i] * factor.wide() + sum;
            if tile.sources.start > 0 && factor != T::ONE {
                for sum in &mut sums[i * width..][..width] {
                    *sum = *sum * factor;
                }
            }
        }
    }
}

/// Makes the products of queries and keys weights, and those of the output's gradient and values the gradients of the scores.
struct Slopes<'a, T> {
    tile: &'a Tile<'a, T>,
    weights: &'a mut [T],
    slopes: &'a mut [T],
    normalizers: &'a [T],
    /// Of the output and its gradient, for each query.
    products: &'a [T],
}

impl<T: Float> Job<T> for Slopes<'_, T> {
    #[inline(always)]
    fn run<V: Simd<T>>(self, _: Has<V>) {
        if V::FUSED { self.rows::<true>() } else { self.rows::<false>() }
    }
}

impl<T: Float> Slopes<'_, T> {
    #[inline(always)]
    fn rows<const FUSED: bool>(self) {
        let Self { tile, weights, slopes, normalizers, products } = self;
        let n = tile.sources.len();
        let rows = weights.chunks_exact_mut(n).zip(slopes.chunks_exact_mut(n));
        for (i, (weights, slopes)) in rows.enumerate() {
            let seen = tile.seen(i);
            let (weights, hidden_weights) = weights.split_at_mut(seen);
            let (slopes, hidden_slopes) = slopes.split_at_mut(seen);
            for x in hidden_weights {
                *x = T::ZERO;
            }
            for x in hidden_slopes {
                *x = T::ZERO;
            }
            tile.score(i, weights);
            let (normalizer, product) = (normalizers[i], products[i]);
            for (weight, slope) in weights.iter_mut().zip(slopes) {
                *weight = (*weight - normalizer).exp_in::<FUSED>();
                *slope = *weight * (*slope - product);
            }
        }
    }
}

/// The products of each row of `a` with the row of `b`.
struct Products<'a, T> {
    a: Mat<'a, T>,
    b: Mat<'a, T>,
    sums: &'a mut [T],
}

impl<T: Float> Job<T> for Products<'_, T> {
    #[inline(always)]
    fn run<V: Simd<T>>(self, _: Has<V>) {
        let Self { a, b, sums } = self;
        for (i, sum) in sums.iter_mut().enumerate().take(a.n_rows()) {
            let [product] = lane_sums([a.row(i), b.row(i)], |[a, b]| [a * b]);
            *sum = T::of(product);
        }
    }
}

/// The largest of `x` and `least`; NaN does not count.
#[inline(always)]
fn largest_of<T: Float>(x: &[T], least: T) -> T {
    let mut lanes = [least; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] = if chunk[lane] > lanes[lane] { chunk[lane] } else { lanes[lane] };
        }
    }
    for (lane, x) in rest.iter().enumerate() {
        lanes[lane] = if *x > lanes[lane] { *x } else { lanes[lane] };
    }
    let mut largest = least;
    for lane in lanes {
        largest = if lane > largest { lane } else { largest };
    }
    largest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Some numbers from -4 to 4.
    fn numbers<T: Float>(n: usize) -> Vec<T> {
        (0..n).map(|i| T::of((i * 37 % 101) as f64 / 12.5 - 4.0)).collect()
    }

    /// A tile of the scores of 3 queries and 70 keys, from the key 20 on, of which the first query sees 48.
    fn check<T: Float>(level: Level, tolerance: f64) {
        let attention = Attention {
            order: Order::HeadsFirst,
            batches: 1,
            heads: 1,
            targets: 3,
            sources: 70,
            dim: 1,
            value_dim: 2,
            scale: 0.5,
            causal: true,
        };
        let mask = numbers::<T>(70);
        let masks = [Some(Mask { values: &mask, strides: [0, 0, 0] }), None];
        let tile = Tile { attention: &attention, masks: &masks, at: [0, 0], targets: 0..3, sources: 20..70 };
        let products = numbers::<T>(150);
        let score = |i: usize, j: usize| 0.5 * products[i * 50 + j].wide() + mask[20 + j].wide();
        let near =
            |got: T, want: f64| assert!((got.wide() - want).abs() <= tolerance, "{level:?}: {got:?}, {want}");

        let mut scores = products.clone();
        let (mut largest, mut totals) = (vec![T::of(-1.0); 3], vec![2.0; 3]);
        let mut sums = vec![T::ONE; 6];
        let job = Softmax {
            tile: &tile,
            scores: &mut scores,
            largest: &mut largest,
            totals: &mut totals,
            sums: &mut sums,
        };
        T::run(level, job);
        for i in 0..3 {
            let seen = 48 + i;
            let most = (0..seen).map(|j| score(i, j)).fold(-1.0, f64::max);
            near(largest[i], most);
            (0..50).for_each(|j| {
                near(scores[i * 50 + j], if j < seen { (score(i, j) - most).exp() } else { 0.0 })
            });
            let total: f64 = (0..seen).map(|j| (score(i, j) - most).exp()).sum();
            near(T::of(totals[i]), total + 2.0 * (-1.0 - most).exp());
            near(sums[2 * i], (-1.0 - most).exp());
        }

        let (mut weights, mut slopes) = (products.clone(), numbers::<T>(150));
        let before = slopes.clone();
        let (normalizers, sums) = ([4.0, 5.0, f64::INFINITY].map(T::of), [0.5, -0.5, 1.0].map(T::of));
        let job = Slopes {
            tile: &tile,
            weights: &mut weights,
            slopes: &mut slopes,
            normalizers: &normalizers,
            products: &sums,
        };
        T::run(level, job);
        for (i, j) in (0..150).map(|i| (i / 50, i % 50)) {
            let weight = if j < 48 + i { (score(i, j) - normalizers[i].wide()).exp() } else { 0.0 };
            near(weights[i * 50 + j], weight);
            near(slopes[i * 50 + j], weight * (before[i * 50 + j].wide() - sums[i].wide()));
        }
    }

    #[test]
    fn every_level_computes_the_tiles_of_attention() {
        for level in Level::all() {
            check::<f32>(level, 1e-4);
            check::<f64>(level, 1e-12);
        }
    }
}
