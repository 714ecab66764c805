//! Loops whose pieces are independent, in as many threads as are worth it.
#![allow(unsafe_code)] // threads write to pieces of one slice

use std::marker::PhantomData;

use super::pool::Team;

/// Below this many elementary operations, waking threads costs more than they bring.
const MIN_WORK: usize = 1 << 15;

/// Whether `work` elementary operations are worth more than one thread, if there are more.
pub(crate) fn worthwhile(work: usize) -> bool {
    work >= MIN_WORK && super::pool::n_threads() > 1
}

/// Calls `f(i, chunk)` for the `i`-th chunk of `len` elements of `out`; in parallel if `work`, the elementary
/// operations of all chunks together, is worth it. Each call may use its thread's scratch memory, made by `scratch`.
pub(crate) fn for_each_chunk<T: Send, S>(
    out: &mut [T],
    len: usize,
    work: usize,
    scratch: impl Fn() -> S + Sync,
    f: impl Fn(&mut S, usize, &mut [T]) + Sync,
) {
    if len > 0 {
        for_each(out.len().div_ceil(len), Chunks::new(out, len), work, scratch, f);
    }
}

/// [`for_each_chunk`] over two slices cut into equally many chunks.
pub(crate) fn for_each_chunk2<T: Send, U: Send>(
    (first, first_len): (&mut [T], usize),
    (second, second_len): (&mut [U], usize),
    work: usize,
    f: impl Fn(usize, &mut [T], &mut [U]) + Sync,
) {
    if first_len == 0 || second_len == 0 {
        return;
    }
    let n = first.len().div_ceil(first_len).min(second.len().div_ceil(second_len));
    let pieces = (Chunks::new(first, first_len), Chunks::new(second, second_len));
    for_each(n, pieces, work, || (), |(), i, (first, second)| f(i, first, second));
}

/// `f` of each number below `n`; in parallel as in [`for_each_chunk`]. `empty` is any value.
pub(crate) fn collect<R: Clone + Send>(
    n: usize,
    work: usize,
    empty: R,
    f: impl Fn(usize) -> R + Sync,
) -> Vec<R> {
    let mut results = vec![empty; n];
    for_each(n, Chunks::new(&mut results, 1), work, || (), |(), i, result| result[0] = f(i));
    results
}

/// Calls `f` with each of the `n` pieces; in parallel as in [`for_each_chunk`].
#[allow(clippy::needless_pass_by_value)] // nobody may ask for the pieces again
pub(crate) fn for_each<P: Pieces, S>(
    n: usize,
    pieces: P,
    work: usize,
    scratch: impl Fn() -> S + Sync,
    f: impl Fn(&mut S, usize, P::Piece) + Sync,
) {
    let team = if n > 1 && worthwhile(work) { Team::gather() } else { Team::alone() };
    team.for_each(n, scratch, |scratch, i| {
        // SAFETY: the team calls this once for each number, and `pieces` ends here.
        let piece = unsafe { pieces.get(i) };
        f(scratch, i, piece);
    });
}

/// Something that falls into pieces, each for one thread.
///
/// # Safety
/// Pieces of different numbers have nothing in common and may go to different threads.
pub(crate) unsafe trait Pieces: Sync {
    type Piece;

    /// The piece with this number; an empty one behind the end.
    ///
    /// # Safety
    /// It is asked for once only.
    unsafe fn get(&self, i: usize) -> Self::Piece;
}

/// A slice in chunks of `size` elements, of which the last may be shorter.
pub(crate) struct Chunks<'a, T> {
    start: *mut T,
    len: usize,
    size: usize,
    slice: PhantomData<&'a mut [T]>,
}

impl<'a, T> Chunks<'a, T> {
    pub(crate) fn new(slice: &'a mut [T], size: usize) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), size, slice: PhantomData }
    }
}

// SAFETY: a shared reference gives nothing but pieces, each once: as if each were sent.
unsafe impl<T: Send> Sync for Chunks<'_, T> {}

// SAFETY: chunks of different numbers do not overlap, and `T` may be sent.
unsafe impl<'a, T: Send> Pieces for Chunks<'a, T> {
    type Piece = &'a mut [T];

    unsafe fn get(&self, i: usize) -> &'a mut [T] {
        let start = i.saturating_mul(self.size).min(self.len);
        let len = self.size.min(self.len - start);
        // SAFETY: inside the slice, which is borrowed for 'a; the caller asks for no piece twice.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }
}

// SAFETY: as those of `A` and `B`.
unsafe impl<A: Pieces, B: Pieces> Pieces for (A, B) {
    type Piece = (A::Piece, B::Piece);

    unsafe fn get(&self, i: usize) -> Self::Piece {
        // SAFETY: as the caller vouches.
        unsafe { (self.0.get(i), self.1.get(i)) }
    }
}

// SAFETY: as those of `A`.
unsafe impl<A: Pieces, const N: usize> Pieces for [A; N] {
    type Piece = [A::Piece; N];

    unsafe fn get(&self, i: usize) -> Self::Piece {
        // SAFETY: as the caller vouches.
        self.each_ref().map(|pieces| unsafe { pieces.get(i) })
    }
}
