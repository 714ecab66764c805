//! Pooling, one axis after another: the largest of the largest, the sum of sums.

use candle_core::{Result, Tensor};

use super::window::table;
use crate::device::{Arguments, fused_indices};
use crate::kernels::cuda::Kernel;
use crate::kernels::{Divisor, Window};

/// The largest value of each window, of equal ones the first.
///
/// It is found without a gradient, together with its place; what is taken from that place has one.
pub(crate) fn max(x: &Tensor, window: &Window, output_dims: &[usize]) -> Result<Tensor> {
    let n_planes = x.elem_count() / window.n_inputs();
    let sizes = [window.input, window.output, window.kernel, window.stride, window.pad].concat();
    let (arguments, n) =
        (Arguments { sizes: &sizes, numbers: &[], inputs: &[x] }, n_planes * window.n_outputs());
    let place = match fused_indices(Kernel::named("max_pool_places"), n, arguments, n)? {
        Some(place) => place.reshape((n_planes, window.n_outputs()))?,
        None => places(x, window)?,
    };
    x.reshape((n_planes, window.n_inputs()))?.gather(&place.contiguous()?, 1)?.reshape(output_dims)
}

/// Where in its plane the largest value of each window stands: `(planes, outputs)`.
fn places(x: &Tensor, window: &Window) -> Result<Tensor> {
    let [d, h, w] = window.input;
    let n_planes = x.elem_count() / window.n_inputs();
    let mut best = x.detach().reshape((n_planes, d, h, w))?;
    let mut place = Tensor::arange(0, window.n_inputs() as u32, x.device())?.reshape((1, d, h, w))?;
    // From the last axis on, so that of equal values the first in row-major order is kept.
    for axis in (0..3).rev() {
        let outputs = window.output[axis];
        if (window.kernel[axis], window.stride[axis], window.pad[axis]) == (1, 1, 0) {
            continue;
        }
        // A tap on padding looks at the nearest input of its window instead, which changes nothing.
        let nearest = |tap: usize, o: usize| {
            let covered = window.inputs_covered(axis, o);
            (o * window.stride[axis] + tap)
                .saturating_sub(window.pad[axis])
                .clamp(covered.start, covered.end - 1)
        };
        let taps = Tensor::new(table(window, axis, nearest), x.device())?;
        let (values, places, mut found) = (best, place, None);
        for tap in 0..window.kernel[axis] {
            let seen = taps.narrow(0, tap * outputs, outputs)?;
            let value = values.index_select(&seen, 1 + axis)?;
            let at = places.index_select(&seen, 1 + axis)?.broadcast_as(value.shape())?;
            found = Some(match found {
                None => (value, at.contiguous()?),
                Some((most, its_place)) => {
                    let better = value.gt(&most)?;
                    (better.where_cond(&value, &most)?, better.where_cond(&at, &its_place)?)
                }
            });
        }
        (best, place) =
            found.ok_or_else(|| candle_core::Error::msg("a window must have at least one tap"))?;
    }
    place.broadcast_as(best.shape())?.reshape((n_planes, window.n_outputs()))
}

/// The sum of each window, divided.
pub(crate) fn sum(x: &Tensor, window: &Window, by: Divisor, output_dims: &[usize]) -> Result<Tensor> {
    let [mut d, mut h, mut w] = window.input;
    let n_planes = x.elem_count() / window.n_inputs();
    let mut sums = x.clone();
    for axis in 0..3 {
        let (taps, outputs) = (window.kernel[axis], window.output[axis]);
        let places = table(window, axis, |tap, o| window.source(axis, o, tap).unwrap_or(0));
        let shares = (0..taps * outputs).map(|i| {
            let (tap, o) = (i / outputs, i % outputs);
            let counted = by.along(window, axis, o, window.inputs_covered(axis, o).len());
            if window.source(axis, o, tap).is_some() { 1.0 / counted as f64 } else { 0.0 }
        });
        let (before, behind) = ([n_planes, n_planes * d, n_planes * d * h][axis], [h * w, w, 1][axis]);
        let shares = Tensor::from_iter(shares, x.device())?.to_dtype(x.dtype())?;
        let seen = sums
            .reshape((before, window.input[axis], behind))?
            .index_select(&Tensor::new(places, x.device())?, 1)?;
        let weighed = seen
            .reshape((before, taps, outputs, behind))?
            .broadcast_mul(&shares.reshape((1, taps, outputs, 1))?)?;
        sums = weighed.sum(1)?;
        *[&mut d, &mut h, &mut w][axis] = outputs;
    }
    sums.reshape(output_dims)
}

/// The mean over all axes behind the first two, which keep size 1.
pub(crate) fn global_average(x: &Tensor) -> Result<Tensor> {
    let dims = x.dims();
    let mut output_dims = dims.to_vec();
    output_dims[2..].fill(1);
    let n = dims[2..].iter().product::<usize>();
    (x.flatten_from(2)?.sum(2)? / n as f64)?.reshape(output_dims)
}
