//! Loops over tensors of several shapes: where one has size 1 on an axis, its element stands for all.

use super::Float;
use super::channels::Channels;
use super::elementwise::{CHUNK, Piece};
use super::parallel::for_each_chunk;

/// How `N` tensors lie below one result. Axes that are alike for all of them are one.
#[derive(Clone, Debug)]
pub(crate) struct Spread<const N: usize> {
    axes: Vec<Axis<N>>,
}

#[derive(Clone, Copy, Debug)]
struct Axis<const N: usize> {
    size: usize,
    /// Whether each tensor has this size, and not 1.
    has: [bool; N],
}

impl<const N: usize> Spread<N> {
    /// For a result of size `dims`, from tensors that have these sizes or 1.
    pub(crate) fn new(dims: &[usize], inputs: [&[usize]; N]) -> Self {
        let mut axes: Vec<Axis<N>> = Vec::new();
        for (axis, &size) in dims.iter().enumerate().filter(|(_, size)| **size != 1) {
            let has = inputs.map(|input| input[axis] == size);
            match axes.last_mut() {
                Some(last) if last.has == has => last.size *= size,
                _ => axes.push(Axis { size, has }),
            }
        }
        Self { axes }
    }

    fn is_whole(&self, input: usize) -> bool {
        self.axes.iter().all(|axis| axis.has[input])
    }

    /// The elements of an input for a piece of the result that begins at element `start`.
    fn fill<T: Float>(&self, input: usize, x: &[T], start: usize, out: &mut [T]) {
        let Some((last, outer)) = self.axes.split_last() else {
            out.fill(x[0]);
            return;
        };
        let (mut at, end) = (start, start + out.len());
        let mut out = out;
        while at < end {
            let (mut row, column) = (at / last.size, at % last.size);
            let (run, rest) = out.split_at_mut((last.size - column).min(end - at));
            let mut step = if last.has[input] { last.size } else { 1 };
            let mut first = 0;
            for axis in outer.iter().rev() {
                if axis.has[input] {
                    first += row % axis.size * step;
                    step *= axis.size;
                }
                row /= axis.size;
            }
            if last.has[input] {
                run.copy_from_slice(&x[first + column..][..run.len()]);
            } else {
                run.fill(x[first]);
            }
            at += run.len();
            out = rest;
        }
    }

    /// Calls `f(start, elements of the inputs, piece of the result)` for each piece.
    pub(crate) fn for_each_piece<T: Float>(&self, inputs: [&[T]; N], out: &mut [T], f: &Piece<'_, T, N>) {
        let work = out.len();
        let scratch = || [(); N].map(|()| Vec::new());
        for_each_chunk(out, CHUNK, work, scratch, |scratch, i, out| {
            let start = i * CHUNK;
            for (input, scratch) in scratch.iter_mut().enumerate().filter(|(input, _)| !self.is_whole(*input))
            {
                scratch.resize(out.len(), T::ZERO);
                self.fill(input, inputs[input], start, scratch);
            }
            let mut pieces = [&[][..]; N];
            for (input, piece) in pieces.iter_mut().enumerate() {
                *piece = if self.is_whole(input) { &inputs[input][start..] } else { &scratch[input] };
            }
            f(start, pieces, out);
        });
    }

    /// `out` = the sums of `x`, which has the size of the result, over what each element of an input stands for.
    pub(crate) fn sum<T: Float>(&self, input: usize, x: &[T], out: &mut [T]) {
        let mut groups: Vec<(usize, bool)> = Vec::new();
        for axis in &self.axes {
            match groups.last_mut() {
                Some((size, kept)) if *kept == axis.has[input] => *size *= axis.size,
                _ => groups.push((axis.size, axis.has[input])),
            }
        }
        sum_groups(&groups, x, out);
    }
}

/// The sums over the groups of axes that are not kept.
fn sum_groups<T: Float>(groups: &[(usize, bool)], x: &[T], out: &mut [T]) {
    let sums = |channels: Channels, x: &[T], out: &mut [T]| {
        for (out, [sum]) in out.iter_mut().zip(channels.sums(x, x, |_| |x, _| [x])) {
            *out = T::of(sum);
        }
    };
    let product = |groups: &[(usize, bool)]| groups.iter().map(|(size, _)| size).product::<usize>();
    if x.is_empty() {
        out.fill(T::ZERO);
        return;
    }
    match *groups {
        [] | [(_, true)] => out.copy_from_slice(x),
        [(outer, false)] => sums(Channels { outer, channels: 1, inner: 1 }, x, out),
        [(outer, false), (channels, true)] => sums(Channels { outer, channels, inner: 1 }, x, out),
        [(channels, true), (inner, false)] => sums(Channels { outer: 1, channels, inner }, x, out),
        [(outer, false), (channels, true), (inner, false)] => {
            sums(Channels { outer, channels, inner }, x, out)
        }
        [ref before @ .., (inner, true)] if !before.is_empty() => {
            // The sums of each row over what stands before the last group and is not kept.
            let Some(((len, _), before)) = before.split_last() else { return };
            let mut partial = vec![T::ZERO; product(before) * inner];
            for (x, partial) in x.chunks(len * inner).zip(partial.chunks_mut(inner)) {
                sums(Channels { outer: *len, channels: inner, inner: 1 }, x, partial);
            }
            let mut groups = before.to_vec();
            match groups.last_mut() {
                Some((size, true)) => *size *= inner,
                _ => groups.push((inner, true)),
            }
            sum_groups(&groups, &partial, out);
        }
        [ref before @ .., (inner, _)] => {
            let mut partial = vec![T::ZERO; product(before)];
            sums(Channels { outer: 1, channels: partial.len(), inner }, x, &mut partial);
            sum_groups(before, &partial, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(mut index: usize, dims: &[usize], of: &[usize]) -> usize {
        let (mut position, mut step) = (0, 1);
        for (&size, &own) in dims.iter().zip(of).rev() {
            if own != 1 {
                position += index % size * step;
                step *= own;
            }
            index /= size;
        }
        position
    }

    #[test]
    fn every_pattern_agrees_with_the_definition() {
        let dims = [3, 4, 2, 5, 3];
        for pattern in 0..1u32 << 10 {
            let of = |shift: u32| -> Vec<usize> {
                (0..5)
                    .map(|axis| if pattern >> (shift + axis) & 1 == 1 { dims[axis as usize] } else { 1 })
                    .collect()
            };
            let (a_dims, b_dims) = (of(0), of(5));
            let values =
                |dims: &[usize]| (0..dims.iter().product()).map(|i: usize| i as f64).collect::<Vec<_>>();
            let (a, b) = (values(&a_dims), values(&b_dims));
            let spread = Spread::new(&dims, [&a_dims, &b_dims]);
            let n: usize = dims.iter().product();
            let mut got = vec![0.0; n];
            spread.for_each_piece([&a, &b], &mut got, &|_, [a, b], got| {
                got.iter_mut().zip(a.iter().zip(b)).for_each(|(got, (a, b))| *got = a * 1000.0 + b);
            });
            let mut sums = [vec![0.0; a.len()], vec![0.0; b.len()]];
            for (i, got) in got.iter().enumerate() {
                let (at_a, at_b) = (position(i, &dims, &a_dims), position(i, &dims, &b_dims));
                assert_eq!(*got, a[at_a] * 1000.0 + b[at_b], "{a_dims:?} {b_dims:?} {i}");
                sums[0][at_a] += i as f64;
                sums[1][at_b] += i as f64;
            }
            let whole = values(&dims);
            for (input, want) in sums.iter().enumerate() {
                let mut got = vec![0.0; want.len()];
                spread.sum(input, &whole, &mut got);
                assert_eq!(got, *want, "{a_dims:?} {b_dims:?} {input}");
            }
        }
    }
}
