//! Loops over elements that do not see each other.

use super::Float;
use super::parallel::for_each_chunk;
use super::simd::{Has, Job, Level, Simd};

/// Elements per piece of work.
pub(super) const CHUNK: usize = 1 << 13;

/// A loop over elements of slices that are all as long as the first.
pub(super) struct Loop<'a, T, F, const N: usize> {
    pub(super) out: &'a mut [T],
    pub(super) inputs: [&'a [T]; N],
    pub(super) f: F,
}

impl<T: Float, F: Fn(&mut T, [T; N]), const N: usize> Job<T> for Loop<'_, T, F, N> {
    #[inline(always)]
    fn run<V: Simd<T>>(self, _: Has<V>) {
        let Self { out, inputs, f } = self;
        let inputs = inputs.map(|input| &input[..out.len()]);
        for (i, out) in out.iter_mut().enumerate() {
            // Not `array::from_fn`: its closure is not always compiled for the processor of this loop.
            let mut elements = [T::ZERO; N];
            for j in 0..N {
                elements[j] = inputs[j][i];
            }
            f(out, elements);
        }
    }
}

/// A [`Loop`] with one slice more.
pub(super) struct LoopWith<'a, T, F, const N: usize> {
    pub(super) out: &'a mut [T],
    pub(super) inputs: [&'a [T]; N],
    pub(super) last: &'a [T],
    pub(super) f: F,
}

impl<T: Float, F: Fn([T; N], T) -> T, const N: usize> Job<T> for LoopWith<'_, T, F, N> {
    #[inline(always)]
    fn run<V: Simd<T>>(self, _: Has<V>) {
        let Self { out, inputs, last, f } = self;
        let (inputs, last) = (inputs.map(|input| &input[..out.len()]), &last[..out.len()]);
        for (i, out) in out.iter_mut().enumerate() {
            let mut elements = [T::ZERO; N];
            for j in 0..N {
                elements[j] = inputs[j][i];
            }
            *out = f(elements, last[i]);
        }
    }
}

fn for_each<T: Float, const N: usize>(
    inputs: [&[T]; N],
    out: &mut [T],
    f: impl Fn(&mut T, [T; N]) + Copy + Send + Sync,
) {
    let work = out.len();
    for_each_chunk(
        out,
        CHUNK,
        work,
        || (),
        |(), i, out| {
            let inputs = inputs.map(|input| &input[i * CHUNK..]);
            T::run(Level::detect(), Loop { out, inputs, f });
        },
    );
}

/// `out = f(inputs)`.
pub(crate) fn combine<T: Float, const N: usize>(
    inputs: [&[T]; N],
    out: &mut [T],
    f: impl Fn([T; N]) -> T + Copy + Send + Sync,
) {
    for_each(inputs, out, |out, inputs| *out = f(inputs));
}

/// `out = f(inputs, last)`.
pub(crate) fn combine_with<T: Float, const N: usize>(
    inputs: [&[T]; N],
    last: &[T],
    out: &mut [T],
    f: impl Fn([T; N], T) -> T + Copy + Send + Sync,
) {
    let work = out.len();
    for_each_chunk(
        out,
        CHUNK,
        work,
        || (),
        |(), i, out| {
            let (inputs, last) = (inputs.map(|input| &input[i * CHUNK..]), &last[i * CHUNK..]);
            T::run(Level::detect(), LoopWith { out, inputs, last, f });
        },
    );
}

/// `a = f(a)`.
pub(crate) fn map_in_place<T: Float>(a: &mut [T], f: impl Fn(T) -> T + Copy + Send + Sync) {
    for_each([], a, |a, []| *a = f(*a));
}

/// `out = f(a, b)`.
pub(crate) fn zip<T: Float>(a: &[T], b: &[T], out: &mut [T], f: impl Fn(T, T) -> T + Copy + Send + Sync) {
    for_each([a, b], out, |out, [a, b]| *out = f(a, b));
}

/// [`zip`] by the calling thread.
pub(super) fn zip_serial<T: Float>(a: &[T], b: &[T], out: &mut [T], f: impl Fn(T, T) -> T) {
    T::run(Level::detect(), Loop { out, inputs: [a, b], f: |out: &mut T, [a, b]: [T; 2]| *out = f(a, b) });
}

/// `a = f(a, b)`.
pub(crate) fn zip_in_place<T: Float>(a: &mut [T], b: &[T], f: impl Fn(T, T) -> T + Copy + Send + Sync) {
    for_each([b], a, |a, [b]| *a = f(*a, b));
}
