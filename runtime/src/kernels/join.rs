//! Pieces of tensors side by side.

use super::Float;
use super::parallel::for_each_chunk;

/// Rows of `out`, each made of a row of every part; parts have rows of `widths` elements.
pub(crate) fn join<T: Float>(parts: &[&[T]], widths: &[usize], out: &mut [T]) {
    let work = out.len();
    for_each_chunk(
        out,
        widths.iter().sum(),
        work,
        || (),
        |(), row, mut out| {
            for (part, width) in parts.iter().zip(widths) {
                let piece = out.split_off_mut(..*width).unwrap_or_default();
                piece.copy_from_slice(&part[row * width..][..*width]);
            }
        },
    );
}

/// From each row of `x`, of `width` elements, those from `start` on, as many as a row of `out` has.
pub(crate) fn part<T: Float>(x: &[T], width: usize, start: usize, out: &mut [T], len: usize) {
    let work = out.len();
    for_each_chunk(
        out,
        len,
        work,
        || (),
        |(), row, out| out.copy_from_slice(&x[row * width + start..][..len]),
    );
}
