//! Convolutions that are a product of matrices: a kernel of 1, one group.

use std::ops::Range;

use super::super::gemm::{Mat, MatMut, Start, Threads, gemm};
use super::super::sum::LongSums;
use super::super::{Float, parallel};
use super::Convolution;

/// `y = w * x + b`.
pub(super) fn forward<T: Float>(conv: &Convolution, x: &[T], w: &[T], b: Option<&[T]>, y: &mut [T]) {
    let w = Mat::new(w, conv.outmaps, conv.inmaps, conv.inmaps);
    multiply(conv, w, b, (x, conv.inmaps), (y, conv.outmaps));
}

/// `dx = transpose of w * dy`, plus `offset` per input channel if given.
pub(super) fn data_gradient<T: Float>(
    conv: &Convolution,
    dy: &[T],
    w: &[T],
    offset: Option<&[T]>,
    dx: &mut [T],
) {
    let w = Mat::new(w, conv.outmaps, conv.inmaps, conv.inmaps).t();
    multiply(conv, w, offset, (dy, conv.outmaps), (dx, conv.inmaps));
}

/// `w` times each image, one image a thread, or all threads on an only image.
fn multiply<T: Float>(
    conv: &Convolution,
    w: Mat<'_, T>,
    bias: Option<&[T]>,
    (source, source_maps): (&[T], usize),
    (dest, dest_maps): (&mut [T], usize),
) {
    let n_pixels = conv.window.n_outputs();
    let alone = conv.n_images == 1 && parallel::worthwhile(conv.n_products());
    let (threads, work) = if alone { (Threads::All, 0) } else { (Threads::One, conv.n_products()) };
    parallel::for_each_chunk(
        dest,
        dest_maps * n_pixels,
        work,
        || (),
        |(), n, dest| {
            let source = &source[n * source_maps * n_pixels..][..source_maps * n_pixels];
            gemm(
                MatMut::new(dest, dest_maps, n_pixels, n_pixels),
                w,
                Mat::new(source, source_maps, n_pixels, n_pixels),
                bias.map_or(Start::Zero, Start::Rows),
                threads,
            );
        },
    );
}

/// `dw = sum over images of dy * transpose of x`.
pub(super) fn weight_gradient<T: Float>(conv: &Convolution, x: &[T], dy: &[T], dw: &mut [T]) {
    let (n_pixels, inmaps, outmaps) = (conv.window.n_outputs(), conv.inmaps, conv.outmaps);
    let n_parts = conv.n_parts::<T>(dw.len());
    let add = |images: Range<usize>, dw: &mut [T], threads| {
        let mut sums = LongSums::new(dw);
        for n in images {
            let x = Mat::new(&x[n * inmaps * n_pixels..], inmaps, n_pixels, n_pixels);
            let dy = Mat::new(&dy[n * outmaps * n_pixels..], outmaps, n_pixels, n_pixels);
            let dw = sums.next(n_pixels.div_ceil(64)); // a product adds sums of about a hundred terms
            gemm(MatMut::new(dw, outmaps, inmaps, inmaps), dy, x.t(), Start::Kept, threads);
        }
        sums.finish();
    };
    if n_parts == 1 {
        dw.fill(T::ZERO);
        add(0..conv.n_images, dw, Threads::All);
        return;
    }
    let images_at_once = conv.n_images.div_ceil(n_parts);
    let len = dw.len();
    let mut partial = vec![T::ZERO; n_parts * len];
    parallel::for_each_chunk(
        &mut partial,
        len,
        conv.n_products(),
        || (),
        |(), part, dw| {
            let first = (part * images_at_once).min(conv.n_images);
            add(first..(first + images_at_once).min(conv.n_images), dw, Threads::One);
        },
    );
    parallel::for_each_chunk(
        dw,
        1 << 12,
        partial.len(),
        || (),
        |(), chunk, dw| {
            dw.fill(T::ZERO);
            for part in partial.chunks(len) {
                for (sum, addend) in dw.iter_mut().zip(&part[chunk << 12..]) {
                    *sum += *addend;
                }
            }
        },
    );
}
