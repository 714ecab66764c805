//! Threads for loops whose pieces are independent.

use rayon::prelude::*;

/// Below this many elementary operations, waking threads costs more than they bring.
const MIN_WORK: usize = 1 << 15;

/// Whether `work` elementary operations are worth more than one thread, if there are more: a pool of one would only be
/// handed the work and waited for.
pub(crate) fn worthwhile(work: usize) -> bool {
    work >= MIN_WORK && rayon::current_num_threads() > 1
}

/// Calls `f(i, chunk)` for the `i`-th chunk of `len` elements of `out`; in parallel if `work`, the elementary
/// operations of all chunks together, is worth it. Each call may use its thread's scratch memory, made by `scratch`.
pub(crate) fn for_each_chunk<T: Send, S>(
    out: &mut [T],
    len: usize,
    work: usize,
    scratch: impl Fn() -> S + Send + Sync,
    f: impl Fn(&mut S, usize, &mut [T]) + Send + Sync,
) {
    if len == 0 || out.is_empty() {
        return;
    }
    if worthwhile(work) && out.len() > len {
        out.par_chunks_mut(len)
            .enumerate()
            .for_each_init(scratch, |scratch, (i, chunk)| f(scratch, i, chunk));
    } else {
        let mut scratch = scratch();
        for (i, chunk) in out.chunks_mut(len).enumerate() {
            f(&mut scratch, i, chunk);
        }
    }
}

/// [`for_each_chunk`] over two slices cut into equally many chunks.
pub(crate) fn for_each_chunk2<T: Send, U: Send>(
    (first, first_len): (&mut [T], usize),
    (second, second_len): (&mut [U], usize),
    work: usize,
    f: impl Fn(usize, &mut [T], &mut [U]) + Send + Sync,
) {
    if first_len == 0 || second_len == 0 {
        return;
    }
    if worthwhile(work) && first.len() > first_len {
        first
            .par_chunks_mut(first_len)
            .zip(second.par_chunks_mut(second_len))
            .enumerate()
            .for_each(|(i, (first, second))| f(i, first, second));
    } else {
        let chunks = first.chunks_mut(first_len).zip(second.chunks_mut(second_len));
        for (i, (first, second)) in chunks.enumerate() {
            f(i, first, second);
        }
    }
}

/// [`for_each_chunk`] over several slices that are each cut into `n` equal chunks.
pub(crate) fn for_each_part<T: Send, const N: usize>(
    slices: [&mut [T]; N],
    n: usize,
    work: usize,
    f: impl Fn(usize, [&mut [T]; N]) + Send + Sync,
) {
    let mut chunks = slices.map(|slice| {
        let len = slice.len() / n.max(1);
        slice.chunks_mut(len.max(1))
    });
    let mut parts: Vec<_> =
        (0..n).map(|_| chunks.each_mut().map(|chunks| chunks.next().unwrap_or_default())).collect();
    if worthwhile(work) && n > 1 {
        parts.par_drain(..).enumerate().for_each(|(i, part)| f(i, part));
    } else {
        parts.into_iter().enumerate().for_each(|(i, part)| f(i, part));
    }
}
