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
        let inputs = part(inputs, 0, out.len());
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
        let (inputs, last) = (part(inputs, 0, out.len()), &last[..out.len()]);
        for (i, out) in out.iter_mut().enumerate() {
            let mut elements = [T::ZERO; N];
            for j in 0..N {
                elements[j] = inputs[j][i];
            }
            *out = f(elements, last[i]);
        }
    }
}

/// `len` elements of each input, from `start` on. Without a closure, which would be compiled for each loop.
#[inline(always)]
fn part<T, const N: usize>(inputs: [&[T]; N], start: usize, len: usize) -> [&[T]; N] {
    let mut parts = [&[][..]; N];
    for i in 0..N {
        parts[i] = &inputs[i][start..start + len];
    }
    parts
}

/// What is done with a piece: `f(start, elements of the inputs, elements of the result)`.
pub(crate) type Piece<'a, T, const N: usize> = dyn Fn(usize, [&[T]; N], &mut [T]) + Sync + 'a;

/// Calls `f` for each piece of slices of one length; what does not depend on `f` is compiled once.
pub(crate) fn for_each_piece<T: Float, const N: usize>(
    inputs: [&[T]; N],
    out: &mut [T],
    f: &Piece<'_, T, N>,
) {
    let work = out.len();
    for_each_chunk(
        out,
        CHUNK,
        work,
        || (),
        |(), i, out| {
            let start = i * CHUNK;
            f(start, part(inputs, start, out.len()), out);
        },
    );
}

/// `out = f(inputs)`, by the calling thread.
pub(crate) fn combine_piece<T: Float, const N: usize>(
    inputs: [&[T]; N],
    out: &mut [T],
    f: impl Fn([T; N]) -> T,
) {
    T::run_plain(Level::detect(), Loop { out, inputs, f: |out: &mut T, inputs| *out = f(inputs) });
}

/// `out = f(inputs, last)`, by the calling thread.
pub(crate) fn combine_piece_with<T: Float, const N: usize>(
    inputs: [&[T]; N],
    last: &[T],
    out: &mut [T],
    f: impl Fn([T; N], T) -> T,
) {
    T::run_plain(Level::detect(), LoopWith { out, inputs, last, f });
}

/// `out = f(inputs)`.
pub(crate) fn combine<T: Float, const N: usize>(
    inputs: [&[T]; N],
    out: &mut [T],
    f: impl Fn([T; N]) -> T + Copy + Send + Sync,
) {
    for_each_piece(inputs, out, &|_, inputs, out| combine_piece(inputs, out, f));
}

/// `a = f(a)`.
pub(crate) fn map_in_place<T: Float>(a: &mut [T], f: impl Fn(T) -> T + Copy + Send + Sync) {
    for_each_piece([], a, &|_, [], out| {
        T::run_plain(Level::detect(), Loop { out, inputs: [], f: |a: &mut T, []: [T; 0]| *a = f(*a) });
    });
}

/// `out = f(a, b)`.
pub(crate) fn zip<T: Float>(a: &[T], b: &[T], out: &mut [T], f: impl Fn(T, T) -> T + Copy + Send + Sync) {
    for_each_piece([a, b], out, &|_, [a, b], out| zip_serial(a, b, out, f));
}

/// [`zip`] by the calling thread.
pub(super) fn zip_serial<T: Float>(a: &[T], b: &[T], out: &mut [T], f: impl Fn(T, T) -> T) {
    T::run_plain(
        Level::detect(),
        Loop { out, inputs: [a, b], f: |out: &mut T, [a, b]: [T; 2]| *out = f(a, b) },
    );
}

/// `a = f(a, b)`.
pub(crate) fn zip_in_place<T: Float>(a: &mut [T], b: &[T], f: impl Fn(T, T) -> T + Copy + Send + Sync) {
    for_each_piece([b], a, &|_, inputs, out| {
        T::run_plain(Level::detect(), Loop { out, inputs, f: |a: &mut T, [b]: [T; 1]| *a = f(*a, b) });
    });
}
