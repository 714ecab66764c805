//! The element-wise half of a recurrent cell, for formulas that are handed over.

use std::array;

use super::Float;
use super::parallel::{Chunks, for_each};
use super::simd::{Has, Job, Level, Simd};

/// What a cell computes for one unit: from `P` pre-activations and `S` states the activations and the next states, and
/// from gradients of these those of the pre-activations and of the states before.
///
/// Its methods are to be marked `#[inline(always)]`.
pub(crate) trait Unit<T, const P: usize, const S: usize>: Copy + Sync {
    /// `FUSED`: as [`Simd::FUSED`].
    fn forward<const FUSED: bool>(self, pre: [T; P], before: [T; S]) -> ([T; P], [T; S]);

    fn backward<const FUSED: bool>(self, gates: [T; P], before: [T; S], slopes: [T; S]) -> ([T; P], [T; S]);
}

/// Elements that are computed together, from and to memory that nothing else refers to.
const BLOCK: usize = 32;

struct Forward<'a, T, U, const P: usize, const S: usize> {
    unit: U,
    gates: [&'a mut [T]; P],
    before: [&'a [T]; S],
    after: [&'a mut [T]; S],
}

impl<T: Float, U: Unit<T, P, S>, const P: usize, const S: usize> Job<T> for Forward<'_, T, U, P, S> {
    #[inline(always)]
    fn run<V: Simd<T>>(self, _: Has<V>) {
        if V::FUSED { self.all::<true>() } else { self.all::<false>() }
    }
}

impl<T: Float, U: Unit<T, P, S>, const P: usize, const S: usize> Forward<'_, T, U, P, S> {
    #[inline(always)]
    fn block<const FUSED: bool, const N: usize>(
        unit: U,
        gates: [[T; N]; P],
        before: [[T; N]; S],
    ) -> ([[T; N]; P], [[T; N]; S]) {
        let mut results = ([[T::ZERO; N]; P], [[T::ZERO; N]; S]);
        for k in 0..N {
            let (gates, after) = unit.forward::<FUSED>(column(&gates, k), column(&before, k));
            put(&mut results.0, k, gates);
            put(&mut results.1, k, after);
        }
        results
    }

    #[inline(always)]
    fn all<const FUSED: bool>(self) {
        let Self { unit, gates, before, after } = self;
        let mut gates = gates.map(|values| values.as_chunks_mut::<BLOCK>());
        let before = before.map(|values| values.as_chunks::<BLOCK>());
        let mut after = after.map(|values| values.as_chunks_mut::<BLOCK>());
        for i in 0..before[0].0.len() {
            let given = gates.each_ref().map(|(blocks, _)| blocks[i]);
            let (now, next) = Self::block::<FUSED, BLOCK>(unit, given, before.map(|(blocks, _)| blocks[i]));
            gates.iter_mut().zip(now).for_each(|((blocks, _), values)| blocks[i] = values);
            after.iter_mut().zip(next).for_each(|((blocks, _), values)| blocks[i] = values);
        }
        for i in 0..before[0].1.len() {
            let given = gates.each_ref().map(|(_, rest)| [rest[i]]);
            let (now, next) = Self::block::<FUSED, 1>(unit, given, before.map(|(_, rest)| [rest[i]]));
            gates.iter_mut().zip(now).for_each(|((_, rest), [value])| rest[i] = value);
            after.iter_mut().zip(next).for_each(|((_, rest), [value])| rest[i] = value);
        }
    }
}

struct Backward<'a, T, U, const P: usize, const S: usize> {
    unit: U,
    gates: [&'a [T]; P],
    before: [&'a [T]; S],
    slopes: [&'a mut [T]; S],
    dgates: [&'a mut [T]; P],
}

impl<T: Float, U: Unit<T, P, S>, const P: usize, const S: usize> Job<T> for Backward<'_, T, U, P, S> {
    #[inline(always)]
    fn run<V: Simd<T>>(self, _: Has<V>) {
        if V::FUSED { self.all::<true>() } else { self.all::<false>() }
    }
}

impl<T: Float, U: Unit<T, P, S>, const P: usize, const S: usize> Backward<'_, T, U, P, S> {
    #[inline(always)]
    fn block<const FUSED: bool, const N: usize>(
        unit: U,
        gates: [[T; N]; P],
        before: [[T; N]; S],
        slopes: [[T; N]; S],
    ) -> ([[T; N]; P], [[T; N]; S]) {
        let mut results = ([[T::ZERO; N]; P], [[T::ZERO; N]; S]);
        for k in 0..N {
            let slopes = column(&slopes, k);
            let (dgates, slopes) = unit.backward::<FUSED>(column(&gates, k), column(&before, k), slopes);
            put(&mut results.0, k, dgates);
            put(&mut results.1, k, slopes);
        }
        results
    }

    #[inline(always)]
    fn all<const FUSED: bool>(self) {
        let Self { unit, gates, before, slopes, dgates } = self;
        let gates = gates.map(|values| values.as_chunks::<BLOCK>());
        let before = before.map(|values| values.as_chunks::<BLOCK>());
        let mut slopes = slopes.map(|values| values.as_chunks_mut::<BLOCK>());
        let mut dgates = dgates.map(|values| values.as_chunks_mut::<BLOCK>());
        for i in 0..before[0].0.len() {
            let (gates, before) = (gates.map(|(blocks, _)| blocks[i]), before.map(|(blocks, _)| blocks[i]));
            let given = slopes.each_ref().map(|(blocks, _)| blocks[i]);
            let (now, back) = Self::block::<FUSED, BLOCK>(unit, gates, before, given);
            dgates.iter_mut().zip(now).for_each(|((blocks, _), values)| blocks[i] = values);
            slopes.iter_mut().zip(back).for_each(|((blocks, _), values)| blocks[i] = values);
        }
        for i in 0..before[0].1.len() {
            let (gates, before) = (gates.map(|(_, rest)| [rest[i]]), before.map(|(_, rest)| [rest[i]]));
            let given = slopes.each_ref().map(|(_, rest)| [rest[i]]);
            let (now, back) = Self::block::<FUSED, 1>(unit, gates, before, given);
            dgates.iter_mut().zip(now).for_each(|((_, rest), [value])| rest[i] = value);
            slopes.iter_mut().zip(back).for_each(|((_, rest), [value])| rest[i] = value);
        }
    }
}

/// The elements `k` of all rows.
#[inline(always)]
fn column<T: Float, const N: usize, const M: usize>(rows: &[[T; N]; M], k: usize) -> [T; M] {
    let mut column = [T::ZERO; M];
    for j in 0..M {
        column[j] = rows[j][k];
    }
    column
}

/// The reverse of [`column`].
#[inline(always)]
fn put<T: Float, const N: usize, const M: usize>(rows: &mut [[T; N]; M], k: usize, column: [T; M]) {
    for j in 0..M {
        rows[j][k] = column[j];
    }
}

fn parts<T, const P: usize>(gates: &[T], state: usize) -> [&[T]; P] {
    array::from_fn(|p| &gates[p * state..][..state])
}

fn parts_mut<T, const P: usize>(gates: &mut [T], state: usize) -> [&mut [T]; P] {
    let mut parts = gates.chunks_exact_mut(state);
    array::from_fn(|_| parts.next().unwrap_or_default())
}

/// One step of samples with `state` units: `gates (N, P, state)` turn from pre-activations into activations, and the states
/// `after` follow from those `before`, each `(N, state)`.
pub(crate) fn forward<T: Float, const P: usize, const S: usize>(
    unit: impl Unit<T, P, S>,
    state: usize,
    gates: &mut [T],
    before: [&[T]; S],
    after: [&mut [T]; S],
) {
    if gates.is_empty() {
        return;
    }
    let (samples, work) = (gates.len() / (P * state), gates.len() * 8);
    let pieces = (Chunks::new(gates, P * state), after.map(|after| Chunks::new(after, state)));
    for_each(
        samples,
        pieces,
        work,
        || (),
        |(), n, (gates, after)| {
            let before = before.map(|before| &before[n * state..][..state]);
            T::run(Level::detect(), Forward { unit, gates: parts_mut(gates, state), before, after });
        },
    );
}

/// The step back: `slopes`, the gradients of the states after the step, turn into those of the states before it, and the
/// gradients of the pre-activations are written to `dgates`.
pub(crate) fn backward<T: Float, const P: usize, const S: usize>(
    unit: impl Unit<T, P, S>,
    state: usize,
    gates: &[T],
    before: [&[T]; S],
    slopes: [&mut [T]; S],
    dgates: &mut [T],
) {
    if gates.is_empty() {
        return;
    }
    let (samples, work) = (gates.len() / (P * state), gates.len() * 4);
    let pieces = (Chunks::new(dgates, P * state), slopes.map(|slopes| Chunks::new(slopes, state)));
    for_each(
        samples,
        pieces,
        work,
        || (),
        |(), n, (dgates, slopes)| {
            let gates = parts(&gates[n * P * state..], state);
            let before = before.map(|before| &before[n * state..][..state]);
            T::run(
                Level::detect(),
                Backward { unit, gates, before, slopes, dgates: parts_mut(dgates, state) },
            );
        },
    );
}
