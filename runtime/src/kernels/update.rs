//! One step of a solver over the elements of a parameter.

use super::Float;
use super::parallel::{self, Chunks};
use super::simd::{Has, Job, Level, Simd};

/// Elements per piece of work.
const CHUNK: usize = 1 << 14;

/// Elements that are updated together.
const BLOCK: usize = 128;

/// Partial results side by side, so that the compiler can keep them in one register.
const LANES: usize = 16;

/// `(w, states) = f(w, g, states)` for each element, in place.
pub(crate) fn update<T: Float, const N: usize>(
    w: &mut [T],
    g: &[T],
    states: [&mut [T]; N],
    f: impl Fn(T, T, [T; N]) -> (T, [T; N]) + Sync,
) {
    for_each_piece(w, g, states, &|w, g, states| {
        T::run_plain(Level::detect(), Update { w, g, states, f: &f })
    });
}

/// What is done with a piece of a parameter, its gradient and its states.
type Piece<'a, T, const N: usize> = dyn Fn(&mut [T], &[T], [&mut [T]; N]) + Sync + 'a;

/// Calls `f` for each piece; what does not depend on the solver is compiled once.
fn for_each_piece<T: Float, const N: usize>(
    w: &mut [T],
    g: &[T],
    states: [&mut [T]; N],
    f: &Piece<'_, T, N>,
) {
    let work = w.len();
    let pieces = (Chunks::new(w, CHUNK), states.map(|state| Chunks::new(state, CHUNK)));
    parallel::for_each(
        work.div_ceil(CHUNK),
        pieces,
        work,
        || (),
        |(), i, (w, states)| {
            let g = &g[i * CHUNK..][..w.len()];
            f(w, g, states);
        },
    );
}

struct Update<'a, T, F, const N: usize> {
    w: &'a mut [T],
    g: &'a [T],
    states: [&'a mut [T]; N],
    f: &'a F,
}

impl<T: Float, F: Fn(T, T, [T; N]) -> (T, [T; N]), const N: usize> Job<T> for Update<'_, T, F, N> {
    #[inline(always)]
    fn run<V: Simd<T>>(self, _: Has<V>) {
        let Self { w, g, states, f } = self;
        let mut states = in_blocks(states);
        let (w, w_rest) = w.as_chunks_mut::<BLOCK>();
        let (g, g_rest) = g.as_chunks::<BLOCK>();
        for (i, (w, g)) in w.iter_mut().zip(g).enumerate() {
            let mut blocks = [[T::ZERO; BLOCK]; N];
            for (block, (blocks, _)) in blocks.iter_mut().zip(&states) {
                *block = blocks[i];
            }
            let mut values = *w;
            step(&mut values, g, &mut blocks, f);
            *w = values;
            for ((state, _), block) in states.iter_mut().zip(blocks) {
                state[i] = block;
            }
        }
        // The rest goes through a block of its own: one copy of the loop.
        let (mut values, mut gradients) = ([T::ZERO; BLOCK], [T::ZERO; BLOCK]);
        let mut blocks = [[T::ZERO; BLOCK]; N];
        let n = w_rest.len();
        values[..n].copy_from_slice(w_rest);
        gradients[..n].copy_from_slice(&g_rest[..n]);
        for (block, (_, rest)) in blocks.iter_mut().zip(&states) {
            block[..n].copy_from_slice(&rest[..n]);
        }
        step(&mut values, &gradients, &mut blocks, f);
        w_rest.copy_from_slice(&values[..n]);
        for (block, (_, rest)) in blocks.iter().zip(&mut states) {
            rest.copy_from_slice(&block[..n]);
        }
    }
}

#[inline(always)]
#[allow(clippy::type_complexity)] // whole blocks and the rest
fn in_blocks<T, const N: usize>(states: [&mut [T]; N]) -> [(&mut [[T; BLOCK]], &mut [T]); N] {
    states.map(|state| state.as_chunks_mut::<BLOCK>())
}

/// One block. Its elements are copies of its own, so the compiler knows that no store changes what `f` reads, and makes
/// vector instructions of the loop.
#[inline(always)]
fn step<T: Float, const N: usize>(
    w: &mut [T; BLOCK],
    g: &[T; BLOCK],
    states: &mut [[T; BLOCK]; N],
    f: &impl Fn(T, T, [T; N]) -> (T, [T; N]),
) {
    for i in 0..BLOCK {
        let mut before = [T::ZERO; N];
        for n in 0..N {
            before[n] = states[n][i];
        }
        let (value, after) = f(w[i], g[i], before);
        w[i] = value;
        for n in 0..N {
            states[n][i] = after[n];
        }
    }
}

/// The largest `|x|`: NaN if an element is.
pub(crate) fn largest<T: Float>(values: &[T]) -> f64 {
    let of_chunk = |i: usize| {
        let mut result = T::Bits::default();
        T::run(Level::detect(), Largest { values: chunk(values, i), result: &mut result });
        T::of_magnitude(result).wide()
    };
    let of_chunks = parallel::collect(values.len().div_ceil(CHUNK), values.len(), 0.0, of_chunk);
    of_chunks.into_iter().fold(0.0, |a, b| if a.is_nan() || b <= a { a } else { b })
}

struct Largest<'a, T: Float> {
    values: &'a [T],
    result: &'a mut T::Bits,
}

impl<T: Float> Job<T> for Largest<'_, T> {
    #[inline(always)]
    fn run<V: Simd<T>>(self, _: Has<V>) {
        let mut lanes = [T::Bits::default(); 4 * LANES];
        let (whole, rest) = self.values.as_chunks::<{ 4 * LANES }>();
        for values in whole {
            for (lane, value) in lanes.iter_mut().zip(values) {
                *lane = (*lane).max(value.magnitude());
            }
        }
        *self.result =
            lanes.into_iter().chain(rest.iter().map(|value| value.magnitude())).max().unwrap_or_default();
    }
}

/// `√(Σ x²)` for each number of what `f` makes of the elements, in an order that follows from the length alone.
pub(crate) fn norms<T: Float, const N: usize, const M: usize>(
    w: &[T],
    g: &[T],
    states: [&[T]; N],
    f: impl Fn(T, T, [T; N]) -> [T; M] + Sync,
) -> [f64; M] {
    let of_chunk = |i: usize| {
        let mut sums = [0.0; M];
        let (w, g, states) = (chunk(w, i), chunk(g, i), chunks(states, i));
        T::run_plain(Level::detect(), Norms { w, g, states, f: &f, sums: &mut sums });
        sums
    };
    let of_chunks = parallel::collect(w.len().div_ceil(CHUNK), w.len(), [0.0; M], of_chunk);
    let add = |sums: [f64; M], more: [f64; M]| std::array::from_fn(|m| sums[m] + more[m]);
    of_chunks.into_iter().fold([0.0; M], add).map(f64::sqrt)
}

struct Norms<'a, T, F, const N: usize, const M: usize> {
    w: &'a [T],
    g: &'a [T],
    states: [&'a [T]; N],
    f: &'a F,
    sums: &'a mut [f64; M],
}

impl<T: Float, F: Fn(T, T, [T; N]) -> [T; M], const N: usize, const M: usize> Job<T>
    for Norms<'_, T, F, N, M>
{
    #[inline(always)]
    fn run<V: Simd<T>>(self, _: Has<V>) {
        let Self { w, g, states, f, sums } = self;
        let mut lanes = [[0.0; LANES]; M];
        for start in (0..w.len()).step_by(LANES) {
            for lane in 0..LANES.min(w.len() - start) {
                let i = start + lane;
                let mut at_i = [T::ZERO; N];
                for n in 0..N {
                    at_i[n] = states[n][i];
                }
                let values = f(w[i], g[i], at_i);
                for (lanes, value) in lanes.iter_mut().zip(values) {
                    lanes[lane] += value.wide() * value.wide();
                }
            }
        }
        for (sum, lanes) in sums.iter_mut().zip(lanes) {
            *sum = lanes.iter().sum();
        }
    }
}

/// `√(Σ min(max(x, −limit), limit)²)`, in an order that follows from the length alone. It is right for every length that
/// an `f64` can hold: where the squares would be too large or too small, the values are scaled first. NaN if a value is.
pub(crate) fn norm<T: Float>(values: &[T], limit: f64) -> f64 {
    /// Below this, squares have lost digits.
    const SMALL: f64 = 1e-280;

    let squares = sum_of_squares(values, limit, 1.0);
    if squares.is_nan() || (SMALL..f64::INFINITY).contains(&squares) {
        return squares.sqrt();
    }
    let largest = values.iter().fold(0.0, |largest: f64, value| largest.max(value.wide().abs())).min(limit);
    if largest == 0.0 || largest.is_infinite() {
        return largest;
    }
    // A power of two, so that nothing is rounded; in two factors, since that of a denormal number is infinite.
    let half = (-largest.log2() / 2.0).round().exp2();
    sum_of_squares(values, limit, half).sqrt() / half / half
}

/// `Σ (x · half · half)²` of limited values.
fn sum_of_squares<T: Float>(values: &[T], limit: f64, half: f64) -> f64 {
    let sum = |i: usize| {
        let mut lanes = [0.0; LANES];
        for values in chunk(values, i).chunks(LANES) {
            for (lane, &value) in lanes.iter_mut().zip(values) {
                let value = value.wide().clamp(-limit, limit) * half * half;
                *lane += value * value;
            }
        }
        lanes.iter().sum::<f64>()
    };
    parallel::collect(values.len().div_ceil(CHUNK), values.len(), 0.0, sum).iter().sum()
}

fn chunks<T, const N: usize>(states: [&[T]; N], i: usize) -> [&[T]; N] {
    states.map(|state| chunk(state, i))
}

/// The `i`-th [`CHUNK`] elements.
fn chunk<T>(values: &[T], i: usize) -> &[T] {
    &values[i * CHUNK..values.len().min((i + 1) * CHUNK)]
}

#[cfg(test)]
mod tests {
    use super::{CHUNK, largest, norm, norms, update};

    #[test]
    fn every_element_is_updated_once() {
        for n in [0, 1, CHUNK, 3 * CHUNK + 5] {
            let (mut w, g, mut m) = (vec![1f32; n], vec![2f32; n], vec![3f32; n]);
            update(&mut w, &g, [&mut m], |w, g, [m]| (w + g + m, [m + g]));
            assert!(w.iter().all(|&w| w == 6.0) && m.iter().all(|&m| m == 5.0), "{n}");
        }
    }

    #[test]
    fn one_bad_element_is_found_anywhere() {
        for (n, at) in [(1, 0), (17, 16), (40, 3), (3 * CHUNK + 5, 2 * CHUNK), (3 * CHUNK + 5, 3 * CHUNK + 4)]
        {
            let mut values = vec![-1f32; n];
            assert_eq!(largest(&values), 1.0);
            for (bad, found) in
                [(f32::INFINITY, f64::INFINITY), (f32::NEG_INFINITY, f64::INFINITY), (-3.0, 3.0), (2.0, 2.0)]
            {
                values[at] = bad;
                assert_eq!(largest(&values), found, "{n} {at} {bad}");
            }
            values[at] = f32::NAN;
            assert!(largest(&values).is_nan(), "{n} {at}");
            values[0] = f32::INFINITY;
            assert!(!largest(&values).is_finite(), "{n} {at}");
        }
        assert_eq!(largest::<f64>(&[]), 0.0);
    }

    #[test]
    fn norms_of_a_formula() {
        for n in [0, 1, 17, 2 * CHUNK + 5] {
            let (w, g, m) = (vec![3f32; n], vec![1f32; n], vec![2f32; n]);
            let found = norms(&w, &g, [&m], |w, g, [m]| [w, g + m - w - w]);
            assert_eq!(found, [3.0 * (n as f64).sqrt(), 3.0 * (n as f64).sqrt()], "{n}");
        }
    }

    #[test]
    fn squares_are_summed_after_the_limit() {
        let values = vec![-2f32; 2 * CHUNK + 3];
        let n = values.len() as f64;
        assert_eq!(norm(&values, f64::INFINITY), (4.0 * n).sqrt());
        assert_eq!(norm(&values, 1.0), n.sqrt());
    }

    #[test]
    fn lengths_are_right_where_their_squares_are_not_numbers() {
        for size in [1e200, 1e308, 1e-200, 5e-324, 1e-154, 1e154, 0.0] {
            for n in [1, 4, 16 * CHUNK] {
                let (got, want) = (norm(&vec![-size; n], f64::INFINITY), size * (n as f64).sqrt());
                assert!(got == want || (got / want - 1.0).abs() < 1e-13, "{n} times {size}: {got}");
            }
        }
        assert!((norm(&[3e200, f64::INFINITY], 4e200) / 5e200 - 1.0).abs() < 1e-15);
        assert_eq!(norm(&[1.0, f64::NEG_INFINITY], f64::INFINITY), f64::INFINITY);
        assert!(norm(&[f64::MAX; 2], f64::INFINITY).is_infinite()); // no f64 is that large
        assert!(norm(&[1.0, f64::NAN], f64::INFINITY).is_nan());
        assert!(norm(&[1e200, f64::NAN], f64::INFINITY).is_nan());
        assert_eq!(norm::<f64>(&[], f64::INFINITY), 0.0);
        let ones = vec![0.1f32; 10_000_000];
        assert!((norm(&ones, f64::INFINITY) / (f64::from(0.1f32) * 1e7f64.sqrt()) - 1.0).abs() < 1e-12);
    }
}
