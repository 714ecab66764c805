//! Embeddings of positions.

use super::Float;
use super::parallel::for_each_chunk;

/// A tensor seen as `(.., positions, between, features)`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Positions {
    pub(crate) n: usize,
    pub(crate) between: usize,
    pub(crate) features: usize,
}

impl Positions {
    /// Calls `f(position, start, rows)` for the elements of each position, which start at `start` in the tensor.
    fn for_each<T: Float>(self, out: &mut [T], f: impl Fn(usize, usize, &mut [T]) + Sync) {
        let (size, work) = (self.between * self.features, out.len() * 2);
        for_each_chunk(out, size, work, || (), |(), i, out| f(i % self.n, i * size, out));
    }
}

/// `y = x + w[position]`
pub(crate) fn add_positions<T: Float>(positions: Positions, x: &[T], w: &[T], y: &mut [T]) {
    let features = positions.features;
    positions.for_each(y, |position, start, y| {
        let w = &w[position * features..][..features];
        for (y, x) in y.chunks_exact_mut(features).zip(x[start..].chunks_exact(features)) {
            for ((y, x), w) in y.iter_mut().zip(x).zip(w) {
                *y = *x + *w;
            }
        }
    });
}

/// The sum of `dy` over all rows of a position, and zeros for positions that there are not.
pub(crate) fn sum_positions<T: Float>(positions: Positions, dy: &[T], dw: &mut [T]) {
    let Positions { n, between, features } = positions;
    for_each_chunk(
        dw,
        features,
        dy.len(),
        || vec![0.0; features],
        |totals, position, dw| {
            totals.fill(0.0);
            let size = between * features;
            if position < n && size > 0 {
                for rows in dy.chunks_exact(size).skip(position).step_by(n) {
                    for row in rows.chunks_exact(features) {
                        totals.iter_mut().zip(row).for_each(|(total, dy)| *total += dy.wide());
                    }
                }
            }
            dw.iter_mut().zip(&*totals).for_each(|(dw, total)| *dw = T::of(*total));
        },
    );
}

/// The angle by which a pair of features is turned.
pub(crate) fn angle(position: usize, pair: usize, features: usize, base: f64) -> f64 {
    position as f64 * base.powf(-2.0 * pair as f64 / features as f64)
}

/// Turns each pair of features by its angle times `sign`.
pub(crate) fn rotate<T: Float>(positions: Positions, base: f64, sign: f64, x: &[T], y: &mut [T]) {
    let features = positions.features;
    positions.for_each(y, |position, start, y| {
        let turns: Vec<[T; 2]> = (0..features / 2)
            .map(|pair| {
                let (sin, cos) = (sign * angle(position, pair, features, base)).sin_cos();
                [T::of(cos), T::of(sin)]
            })
            .collect();
        let x = &x[start..][..y.len()];
        for (y, x) in y.chunks_exact_mut(features).zip(x.chunks_exact(features)) {
            let (pairs, x) = (y.as_chunks_mut::<2>().0, x.as_chunks::<2>().0);
            for ((y, [u, v]), [cos, sin]) in pairs.iter_mut().zip(x).zip(&turns) {
                *y = [*u * *cos - *v * *sin, *u * *sin + *v * *cos];
            }
        }
    });
}
