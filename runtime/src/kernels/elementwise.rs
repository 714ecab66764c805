//! Loops over elements that do not see each other.

use super::Float;
use super::parallel::for_each_chunk;

/// Elements per piece of work.
const CHUNK: usize = 1 << 13;

/// `out = f(a)`.
pub(crate) fn map<T: Float>(a: &[T], out: &mut [T], f: impl Fn(T) -> T + Send + Sync) {
    let work = out.len();
    for_each_chunk(
        out,
        CHUNK,
        work,
        || (),
        |(), i, out| {
            for (out, a) in out.iter_mut().zip(&a[i * CHUNK..]) {
                *out = f(*a);
            }
        },
    );
}

/// `out = f(a, b)`.
pub(crate) fn zip<T: Float>(a: &[T], b: &[T], out: &mut [T], f: impl Fn(T, T) -> T + Send + Sync) {
    let work = out.len();
    for_each_chunk(
        out,
        CHUNK,
        work,
        || (),
        |(), i, out| {
            for ((out, a), b) in out.iter_mut().zip(&a[i * CHUNK..]).zip(&b[i * CHUNK..]) {
                *out = f(*a, *b);
            }
        },
    );
}

/// `a = f(a, b)`.
pub(crate) fn zip_in_place<T: Float>(a: &mut [T], b: &[T], f: impl Fn(T, T) -> T + Send + Sync) {
    let work = a.len();
    for_each_chunk(
        a,
        CHUNK,
        work,
        || (),
        |(), i, a| {
            for (a, b) in a.iter_mut().zip(&b[i * CHUNK..]) {
                *a = f(*a, *b);
            }
        },
    );
}

/// `out = f(a, b, c)`.
pub(crate) fn zip3<T: Float>(
    a: &[T],
    b: &[T],
    c: &[T],
    out: &mut [T],
    f: impl Fn(T, T, T) -> T + Send + Sync,
) {
    let work = out.len();
    for_each_chunk(
        out,
        CHUNK,
        work,
        || (),
        |(), i, out| {
            for (((out, a), b), c) in
                out.iter_mut().zip(&a[i * CHUNK..]).zip(&b[i * CHUNK..]).zip(&c[i * CHUNK..])
            {
                *out = f(*a, *b, *c);
            }
        },
    );
}
