//! Weighted sums along axes: the places of the first terms, of the second ones, ..

use candle_core::{Result, Tensor};

use super::rule::attach;
use crate::kernels::blend::Blend;

/// Each axis named blended, one after another.
pub(crate) fn blended(x: &Tensor, blends: &[(usize, Blend)]) -> Result<Tensor> {
    let mut y = x.detach();
    for (axis, blend) in blends {
        y = forward(&y, *axis, blend)?;
    }
    let blends = blends.to_vec();
    attach("interpolate", &[x], &y, move |dy, _| {
        let mut dx = dy.clone();
        for (axis, blend) in blends.iter().rev() {
            dx = backward(&dx, *axis, blend)?;
        }
        Ok(vec![Some(dx)])
    })
}

fn forward(x: &Tensor, axis: usize, blend: &Blend) -> Result<Tensor> {
    let mut dims = x.dims().to_vec();
    dims[axis] = blend.len();
    let x = x.contiguous()?;
    terms(&x, axis, blend)?
        .into_iter()
        .try_fold(Tensor::zeros(dims, x.dtype(), x.device())?, |sum, (places, weights)| {
            sum + x.index_select(&places, axis)?.broadcast_mul(&weights)?
        })
}

fn backward(dy: &Tensor, axis: usize, blend: &Blend) -> Result<Tensor> {
    let mut dims = dy.dims().to_vec();
    dims[axis] = blend.n();
    terms(dy, axis, blend)?
        .into_iter()
        .try_fold(Tensor::zeros(dims, dy.dtype(), dy.device())?, |sum, (places, weights)| {
            sum.index_add(&places, &dy.broadcast_mul(&weights)?, axis)
        })
}

/// For the first, the second, .. term of all places of the result where it is read and its weight, which is 0 if there is none.
fn terms(like: &Tensor, axis: usize, blend: &Blend) -> Result<Vec<(Tensor, Tensor)>> {
    let most = (0..blend.len()).map(|place| blend.terms(place).len()).max().unwrap_or(0);
    let mut dims = vec![1; like.rank()];
    dims[axis] = blend.len();
    let term = |k: usize| {
        let all = || (0..blend.len()).map(|place| blend.terms(place).get(k).copied().unwrap_or((0, 0.0)));
        let places = Tensor::from_iter(all().map(|(from, _)| from as u32), like.device())?;
        let weights = Tensor::from_iter(all().map(|(_, weight)| weight), like.device())?;
        Ok((places, weights.to_dtype(like.dtype())?.reshape(&*dims)?))
    };
    (0..most).map(term).collect()
}
