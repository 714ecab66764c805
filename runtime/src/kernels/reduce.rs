//! What runs along the middle axis of `(outer, len, inner)`: largest elements, products, running sums, norms.

use super::Float;
use super::parallel::{for_each_chunk, for_each_chunk2};
use super::softmax::Lanes;

/// The first of the elements that no other one is `better` than, and its number along the axis.
pub(crate) fn best<T: Float>(
    lanes: Lanes,
    x: &[T],
    y: &mut [T],
    numbers: &mut [u32],
    better: impl Fn(T, T) -> bool + Sync,
) {
    let Lanes { len, inner } = lanes;
    for_each_chunk2((y, inner), (numbers, inner), x.len(), |i, y, numbers| {
        let x = &x[i * len * inner..][..len * inner];
        if inner == 1 {
            (y[0], numbers[0]) = best_of(x, &better);
            return;
        }
        y.copy_from_slice(&x[..inner]);
        numbers.fill(0);
        for (number, row) in x.chunks_exact(inner).enumerate().skip(1) {
            for ((y, best), x) in y.iter_mut().zip(&mut *numbers).zip(row) {
                if better(*x, *y) {
                    (*y, *best) = (*x, number as u32);
                }
            }
        }
    });
}

/// The first of the elements that no other one is `better` than, and its number.
fn best_of<T: Float>(x: &[T], better: impl Fn(T, T) -> bool) -> (T, u32) {
    let mut best = (x[0], 0);
    for (number, x) in x.iter().enumerate().skip(1) {
        if better(*x, best.0) {
            best = (*x, number as u32);
        }
    }
    best
}

/// The transpose of taking an element of each lane: `dx` is `dy` at these numbers along the axis and zero elsewhere.
pub(crate) fn put<T: Float>(lanes: Lanes, numbers: &[u32], dy: &[T], dx: &mut [T]) {
    let Lanes { len, inner } = lanes;
    let work = dx.len();
    for_each_chunk(
        dx,
        len * inner,
        work,
        || (),
        |(), i, dx| {
            dx.fill(T::ZERO);
            let range = i * inner..(i + 1) * inner;
            for (lane, (number, dy)) in numbers[range.clone()].iter().zip(&dy[range]).enumerate() {
                dx[*number as usize * inner + lane] = *dy;
            }
        },
    );
}

/// The product of the elements of each lane.
pub(crate) fn product<T: Float>(lanes: Lanes, x: &[T], y: &mut [T]) {
    let Lanes { len, inner } = lanes;
    for_each_chunk(
        y,
        inner,
        x.len(),
        || (),
        |(), i, y| {
            y.fill(T::ONE);
            for row in x[i * len * inner..][..len * inner].chunks_exact(inner) {
                y.iter_mut().zip(row).for_each(|(y, x)| *y = *y * *x);
            }
        },
    );
}

/// `dx = dy * product of the other elements`, without a division: elements may be zero.
pub(crate) fn product_gradient<T: Float>(lanes: Lanes, x: &[T], dy: &[T], dx: &mut [T]) {
    let Lanes { len, inner } = lanes;
    let work = dx.len();
    for_each_chunk(
        dx,
        len * inner,
        work,
        || vec![T::ONE; inner],
        |others, i, dx| {
            let x = &x[i * len * inner..][..len * inner];
            others.copy_from_slice(&dy[i * inner..][..inner]);
            for (dx, x) in dx.chunks_exact_mut(inner).zip(x.chunks_exact(inner)) {
                dx.copy_from_slice(others); // dy times all elements before
                others.iter_mut().zip(x).for_each(|(others, x)| *others = *others * *x);
            }
            others.fill(T::ONE);
            for (dx, x) in dx.chunks_exact_mut(inner).zip(x.chunks_exact(inner)).rev() {
                for ((dx, others), x) in dx.iter_mut().zip(&mut *others).zip(x) {
                    *dx = *dx * *others;
                    *others = *others * *x;
                }
            }
        },
    );
}

/// Running sums: of all elements up to each one, without itself if `exclusive`, from the end on if `reverse`.
pub(crate) fn running_sums<T: Float>(lanes: Lanes, exclusive: bool, reverse: bool, x: &[T], y: &mut [T]) {
    let Lanes { len, inner } = lanes;
    let work = y.len();
    for_each_chunk(
        y,
        len * inner,
        work,
        || vec![0.0; inner],
        |sums, i, y| {
            sums.fill(0.0);
            let x = &x[i * len * inner..][..len * inner];
            let mut step = |y: &mut [T], x: &[T]| {
                for ((y, x), sum) in y.iter_mut().zip(x).zip(&mut *sums) {
                    let before = *sum;
                    *sum += x.wide();
                    *y = T::of(if exclusive { before } else { *sum });
                }
            };
            let rows = y.chunks_exact_mut(inner).zip(x.chunks_exact(inner));
            if reverse {
                rows.rev().for_each(|(y, x)| step(y, x));
            } else {
                rows.for_each(|(y, x)| step(y, x));
            }
        },
    );
}

/// `(sum of |x|^p)^(1/p)` of each lane.
pub(crate) fn norms<T: Float>(lanes: Lanes, p: f64, x: &[T], y: &mut [T]) {
    let Lanes { len, inner } = lanes;
    for_each_chunk(
        y,
        inner,
        x.len() * 4,
        || vec![0.0; inner],
        |sums, i, y| {
            sums.fill(0.0);
            let x = &x[i * len * inner..][..len * inner];
            if inner == 1 {
                sums[0] = x.iter().map(|x| power(x.wide().abs(), p)).sum();
            } else {
                for row in x.chunks_exact(inner) {
                    sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += power(x.wide().abs(), p));
                }
            }
            y.iter_mut().zip(sums).for_each(|(y, sum)| *y = T::of(root(*sum, p)));
        },
    );
}

/// `dx = dy sign(x) (|x| / norm)^(p - 1)`, zero where the norm is.
pub(crate) fn norms_gradient<T: Float>(lanes: Lanes, p: f64, x: &[T], y: &[T], dy: &[T], dx: &mut [T]) {
    let Lanes { len, inner } = lanes;
    let work = dx.len() * 4;
    for_each_chunk(
        dx,
        len * inner,
        work,
        || (),
        |(), i, dx| {
            let (y, dy) = (&y[i * inner..][..inner], &dy[i * inner..][..inner]);
            let x = &x[i * len * inner..][..len * inner];
            for (dx, x) in dx.chunks_exact_mut(inner).zip(x.chunks_exact(inner)) {
                for (((dx, x), norm), dy) in dx.iter_mut().zip(x).zip(y).zip(dy) {
                    *dx = T::of(dy.wide() * norm_slope(x.wide(), norm.wide(), p));
                }
            }
        },
    );
}

/// `y = x / max(norm, least)`.
pub(crate) fn normalized<T: Float>(lanes: Lanes, least: f64, x: &[T], norms: &[T], y: &mut [T]) {
    let Lanes { len, inner } = lanes;
    let work = y.len();
    for_each_chunk(
        y,
        len * inner,
        work,
        || (),
        |(), i, y| {
            let norms = &norms[i * inner..][..inner];
            let x = &x[i * len * inner..][..len * inner];
            for (y, x) in y.chunks_exact_mut(inner).zip(x.chunks_exact(inner)) {
                y.iter_mut()
                    .zip(x)
                    .zip(norms)
                    .for_each(|((y, x), norm)| *y = T::of(x.wide() / norm.wide().max(least)));
            }
        },
    );
}

/// The gradient of [`normalized`]: `dx = (dy - slope sum of dy x / norm) / norm`, the second term only where the norm counts.
pub(crate) fn normalized_gradient<T: Float>(
    lanes: Lanes,
    p: f64,
    least: f64,
    [x, norms, dy]: [&[T]; 3],
    dx: &mut [T],
) {
    let Lanes { len, inner } = lanes;
    let work = dx.len() * 4;
    for_each_chunk(
        dx,
        len * inner,
        work,
        || vec![0.0; inner],
        |sums, i, dx| {
            let norms = &norms[i * inner..][..inner];
            let range = i * len * inner..(i + 1) * len * inner;
            let (x, dy) = (&x[range.clone()], &dy[range]);
            sums.fill(0.0);
            for (x, dy) in x.chunks_exact(inner).zip(dy.chunks_exact(inner)) {
                sums.iter_mut().zip(x).zip(dy).for_each(|((sum, x), dy)| *sum += x.wide() * dy.wide());
            }
            for (sum, norm) in sums.iter_mut().zip(norms) {
                *sum = if norm.wide() > least { *sum / norm.wide() } else { 0.0 };
            }
            let rows = dx.chunks_exact_mut(inner).zip(x.chunks_exact(inner)).zip(dy.chunks_exact(inner));
            for ((dx, x), dy) in rows {
                for ((((dx, x), dy), norm), sum) in dx.iter_mut().zip(x).zip(dy).zip(norms).zip(&*sums) {
                    let slope = norm_slope(x.wide(), norm.wide(), p);
                    *dx = T::of((dy.wide() - slope * sum) / norm.wide().max(least));
                }
            }
        },
    );
}

/// The derivative of a norm by one of its elements; that of nothing is 0.
fn norm_slope(x: f64, norm: f64, p: f64) -> f64 {
    if norm == 0.0 || x == 0.0 { 0.0 } else { x.signum() * power(x.abs() / norm, p - 1.0) }
}

fn power(x: f64, p: f64) -> f64 {
    if p == 2.0 {
        x * x
    } else if p == 1.0 {
        x
    } else {
        x.powf(p)
    }
}

fn root(x: f64, p: f64) -> f64 {
    if p == 2.0 {
        x.sqrt()
    } else if p == 1.0 {
        x
    } else {
        x.powf(1.0 / p)
    }
}

/// For each lane its places from the smallest to the largest element, or from the largest on; equal ones in their order, NaN
/// last. Results stand where the elements do.
pub(crate) fn order<T: Float>(lanes: Lanes, reverse: bool, x: &[T], numbers: &mut [u32]) {
    let Lanes { len, inner } = lanes;
    let work = x.len() * 16;
    for_each_chunk(
        numbers,
        len * inner,
        work,
        || vec![0; len],
        |order: &mut Vec<u32>, i, numbers| {
            let x = &x[i * len * inner..][..len * inner];
            for lane in 0..inner {
                let value = |number: u32| x[number as usize * inner + lane].wide();
                order.iter_mut().zip(0..).for_each(|(order, number)| *order = number);
                order.sort_by(|a, b| {
                    let (a, b) = (value(*a), value(*b));
                    let ascending = a.partial_cmp(&b);
                    let ordered =
                        if reverse { ascending.map(std::cmp::Ordering::reverse) } else { ascending };
                    ordered.unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
                });
                numbers[lane..].iter_mut().step_by(inner).zip(&*order).for_each(|(to, from)| *to = *from);
            }
        },
    );
}

/// `y` is `x` at these numbers along the axis, as many of each lane as `x` has.
pub(crate) fn pick<T: Float>(lanes: Lanes, numbers: &[u32], x: &[T], y: &mut [T]) {
    each_lane(lanes, numbers, y, |start, place, y, i| y[i] = x[start + place]);
}

/// The transpose of [`pick`], where each place is taken once.
pub(crate) fn unpick<T: Float>(lanes: Lanes, numbers: &[u32], dy: &[T], dx: &mut [T]) {
    each_lane(lanes, numbers, dx, |start, place, dx, i| dx[place] = dy[start + i]);
}

/// Calls `f(start of the block, place that the number stands for, block of out, place of the number)`.
fn each_lane<T: Float>(
    lanes: Lanes,
    numbers: &[u32],
    out: &mut [T],
    f: impl Fn(usize, usize, &mut [T], usize) + Sync,
) {
    let Lanes { len, inner } = lanes;
    let (block, work) = (len * inner, out.len());
    for_each_chunk(
        out,
        block,
        work,
        || (),
        |(), i, out| {
            for (place, number) in numbers[i * block..][..block].iter().enumerate() {
                f(i * block, *number as usize * inner + place % inner, out, place);
            }
        },
    );
}
