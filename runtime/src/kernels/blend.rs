//! Sums along one axis: of all its elements, or of a few with weights, as interpolation takes them.

use super::Float;
use super::channels::{Channels, sum};
use super::parallel::for_each_chunk;
use super::sum::{LongSums, MOST};

/// Columns per piece of work.
const COLUMNS: usize = 1 << 10;

/// Inner sizes below which columns are too few for a loop of their own.
const NARROW: usize = 16;

/// `out[o, i] = scale * sum of x[o, .., i]` of `x` seen as `(outer, n, inner)`.
pub(crate) fn sum_middle<T: Float>([outer, n, inner]: [usize; 3], scale: f64, x: &[T], out: &mut [T]) {
    if n == 0 {
        out.fill(T::ZERO);
    } else if inner == 1 && outer == 1 {
        out.iter_mut().for_each(|out| *out = T::of(sum(x) * scale));
    } else if inner == 1 {
        let per_chunk = (COLUMNS / n).max(1);
        for_each_chunk(
            out,
            per_chunk,
            x.len(),
            || (),
            |(), chunk, out| {
                for (out, x) in out.iter_mut().zip(x[chunk * per_chunk * n..].chunks_exact(n)) {
                    *out = T::of(total(x) * scale);
                }
            },
        );
    } else if outer == 1 && inner < NARROW {
        let sums = Channels { outer: n, channels: inner, inner: 1 }.sums(x, x, |_| |x, _| [x]);
        out.iter_mut().zip(sums).for_each(|(out, [sum])| *out = T::of(sum * scale));
    } else {
        // A piece is some columns of one plane.
        let columns = if outer == 1 { COLUMNS.min(inner) } else { inner };
        for_each_chunk(
            out,
            columns,
            x.len(),
            || (),
            |(), chunk, out| {
                let start = if outer == 1 { chunk * columns } else { chunk * n * inner };
                out.fill(T::ZERO);
                let width = out.len();
                let mut sums = LongSums::new(out);
                for row in 0..n {
                    let x = &x[start + row * inner..][..width];
                    // Counted as four: equal terms are all rounded in one direction.
                    sums.next(4).iter_mut().zip(x).for_each(|(sum, x)| *sum += *x);
                }
                sums.finish();
                out.iter_mut().for_each(|out| *out = T::of(out.wide() * scale));
            },
        );
    }
}

/// `scale` times the sum over these axes, which are in increasing order, of `x` with axes of `dims`.
pub(crate) fn sum_axes<T: Float>(dims: &[usize], axes: &[usize], scale: f64, x: &[T], out: &mut [T]) {
    let mut dims = dims.to_vec();
    // Neighbours are summed together; the last ones first, where the elements lie side by side.
    let mut groups: Vec<(usize, usize)> = Vec::new();
    for &axis in axes.iter().rev() {
        match groups.last_mut() {
            Some((first, _)) if *first == axis + 1 => *first = axis,
            _ => groups.push((axis, axis)),
        }
    }
    if x.is_empty() || groups.is_empty() {
        out.fill(T::ZERO);
        out[..x.len()].copy_from_slice(x);
        return;
    }
    let mut sums: Option<Vec<T>> = None;
    for (i, &(first, last)) in groups.iter().enumerate() {
        let size = |axes: &[usize]| axes.iter().product::<usize>();
        let sizes @ [outer, _, inner] =
            [size(&dims[..first]), size(&dims[first..=last]), size(&dims[last + 1..])];
        let from = sums.as_deref().unwrap_or(x);
        if i + 1 == groups.len() {
            sum_middle(sizes, scale, from, out);
        } else {
            let mut partial = vec![T::ZERO; outer * inner];
            sum_middle(sizes, 1.0, from, &mut partial);
            sums = Some(partial);
        }
        dims[first..=last].fill(1);
    }
}

/// The sum of a row.
fn total<T: Float>(x: &[T]) -> f64 {
    let mut lanes = [0.0; 8];
    let (parts, rest) = x.as_chunks::<8>();
    for part in parts {
        for lane in 0..8 {
            lanes[lane] += part[lane].wide();
        }
    }
    rest.iter().fold(lanes.iter().sum(), |sum, x| sum + x.wide())
}

/// For each place of an axis some places of another axis and their weights.
#[derive(Clone, Debug)]
pub(crate) struct Blend {
    /// Size of the axis that is read.
    n: usize,
    /// Where the terms of each place end.
    ends: Vec<usize>,
    terms: Vec<(usize, f64)>,
}

impl Blend {
    /// From `n` places to `len` ones; `(to, from, weight)` for each term.
    pub(crate) fn new(n: usize, len: usize, mut terms: Vec<(usize, usize, f64)>) -> Self {
        terms.sort_by_key(|(to, from, _)| (*to, *from));
        let mut ends = vec![0; len];
        for (to, ..) in &terms {
            ends[*to] += 1;
        }
        let mut end = 0;
        for place in &mut ends {
            end += *place;
            *place = end;
        }
        Self { n, ends, terms: terms.into_iter().map(|(_, from, weight)| (from, weight)).collect() }
    }

    /// The size of the axis that is read.
    pub(crate) fn n(&self) -> usize {
        self.n
    }

    /// The size of the axis that is made.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The places that `place` reads, with their weights.
    pub(crate) fn terms(&self, place: usize) -> &[(usize, f64)] {
        let start = if place == 0 { 0 } else { self.ends[place - 1] };
        &self.terms[start..self.ends[place]]
    }

    /// Each place adds what it gets to the places that it reads.
    pub(crate) fn transposed(&self) -> Self {
        let terms = (0..self.len())
            .flat_map(|to| self.terms(to).iter().map(move |&(from, weight)| (from, to, weight)))
            .collect();
        Self::new(self.len(), self.n, terms)
    }

    /// Axes of `x`, which has the sizes `dims`, blended one after another.
    pub(crate) fn apply_all<T: Float>(blends: &[(usize, Self)], dims: &[usize], x: &[T], out: &mut [T]) {
        if x.is_empty() {
            out.fill(T::ZERO);
            return;
        }
        let mut dims = dims.to_vec();
        let mut partial: Option<Vec<T>> = None;
        for (i, (axis, blend)) in blends.iter().enumerate() {
            let (outer, inner) = (dims[..*axis].iter().product(), dims[axis + 1..].iter().product());
            dims[*axis] = blend.len();
            let from = partial.as_deref().unwrap_or(x);
            if i + 1 == blends.len() {
                blend.apply(outer, inner, from, out);
            } else {
                let mut to = vec![T::ZERO; dims.iter().product()];
                blend.apply(outer, inner, from, &mut to);
                partial = Some(to);
            }
        }
    }

    /// From `(outer, n, inner)` to `(outer, len, inner)`.
    pub(crate) fn apply<T: Float>(&self, outer: usize, inner: usize, x: &[T], out: &mut [T]) {
        let work = outer * inner * self.terms.len();
        if inner < NARROW {
            let plane = self.len() * inner;
            for_each_chunk(
                out,
                plane,
                work,
                || (),
                |(), i, out| {
                    let x = &x[i * self.n * inner..][..self.n * inner];
                    for (place, out) in out.chunks_exact_mut(inner).enumerate() {
                        for (column, out) in out.iter_mut().enumerate() {
                            let terms = self.terms(place).iter();
                            let sum =
                                terms.fold(0.0, |sum, (from, w)| sum + x[from * inner + column].wide() * w);
                            *out = T::of(sum);
                        }
                    }
                },
            );
            return;
        }
        for_each_chunk(
            out,
            inner,
            work,
            || (),
            |(), i, out| {
                let (plane, place) = (i / self.len(), i % self.len());
                let row = |from: usize| &x[(plane * self.n + from) * inner..][..inner];
                self.add_rows(place, row, out);
            },
        );
    }

    /// The sum of the rows that `place` reads.
    fn add_rows<'a, T: Float>(&self, place: usize, row: impl Fn(usize) -> &'a [T], out: &mut [T]) {
        let terms = self.terms(place);
        if let [(a, weight), (b, other)] = terms {
            let (weight, other) = (T::of(*weight), T::of(*other));
            for ((out, a), b) in out.iter_mut().zip(row(*a)).zip(row(*b)) {
                *out = *a * weight + *b * other;
            }
            return;
        }
        out.fill(T::ZERO);
        let add = |out: &mut [T], from: usize, weight: f64| {
            let weight = T::of(weight);
            out.iter_mut().zip(row(from)).for_each(|(out, x)| *out += *x * weight);
        };
        if terms.len() <= MOST {
            terms.iter().for_each(|(from, weight)| add(out, *from, *weight));
            return;
        }
        let mut sums = LongSums::new(out);
        for (from, weight) in terms {
            add(sums.next(1), *from, *weight);
        }
        sums.finish();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_every_shape_are_those_of_the_definition() {
        for [outer, n, inner] in [
            [1, 7, 1],
            [3, 5, 1],
            [3, 100, 1],
            [1, 9, 3],
            [1, 9, 40],
            [4, 70, 3],
            [2, 3, 2000],
            [0, 3, 2],
            [2, 0, 2],
        ] {
            let x: Vec<f64> = (0..outer * n * inner).map(|i| (i * 7 % 11) as f64).collect();
            let mut want = vec![0.0; outer * inner];
            for (i, x) in x.iter().enumerate() {
                want[i / (n * inner) * inner + i % inner] += x / 2.0;
            }
            let mut got = vec![f64::NAN; outer * inner];
            sum_middle([outer, n, inner], 0.5, &x, &mut got);
            assert_eq!(got, want, "{outer} {n} {inner}");
        }
    }

    #[test]
    fn ten_million_terms_are_summed_to_the_last_digits() {
        const N: usize = 10_000_000;
        let x = vec![0.1f32; N];
        for [outer, n, inner] in [[1, N, 1], [2, N / 2, 1], [1, N / 2, 2], [1, N / 20, 20], [2, N / 4, 2]] {
            let mut sums = vec![0.0; outer * inner];
            sum_middle([outer, n, inner], 1.0, &x, &mut sums);
            let exact = f64::from(0.1f32) * n as f64;
            assert!(
                sums.iter().all(|sum| (f64::from(*sum) / exact - 1.0).abs() < 5e-7),
                "{sums:?}, not {exact}"
            );
        }
    }

    #[test]
    fn a_blend_and_its_transpose_are_matrices() {
        let terms = vec![(0, 1, 0.5), (2, 0, 2.0), (0, 0, 0.25), (3, 2, 1.0), (3, 1, -1.0), (3, 0, 3.0)];
        let blend = Blend::new(3, 4, terms.clone());
        for (outer, inner) in [(2, 1), (2, 3), (1, 20)] {
            let x: Vec<f64> = (0..outer * 3 * inner).map(|i| (i * 5 % 7) as f64).collect();
            let dy: Vec<f64> = (0..outer * 4 * inner).map(|i| (i * 3 % 5) as f64).collect();
            let (mut want, mut want_dx) = (vec![0.0; dy.len()], vec![0.0; x.len()]);
            for o in 0..outer {
                for (to, from, weight) in &terms {
                    for i in 0..inner {
                        want[(o * 4 + to) * inner + i] += weight * x[(o * 3 + from) * inner + i];
                        want_dx[(o * 3 + from) * inner + i] += weight * dy[(o * 4 + to) * inner + i];
                    }
                }
            }
            let (mut y, mut dx) = (vec![f64::NAN; dy.len()], vec![f64::NAN; x.len()]);
            blend.apply(outer, inner, &x, &mut y);
            blend.transposed().apply(outer, inner, &dy, &mut dx);
            assert_eq!((y, dx), (want, want_dx), "{outer} {inner}");
        }
    }
}
