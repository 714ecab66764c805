//! Attention by a matrix of weights.

use candle_core::{D, Result, Tensor};

use crate::kernels::{Attention, Order};

/// `(batches, heads, positions, dim)` of queries, keys or values.
fn heads_first(attention: &Attention, x: &Tensor, positions: usize, dim: usize) -> Result<Tensor> {
    let &Attention { order, batches, heads, .. } = attention;
    match order {
        Order::HeadsFirst => x.reshape((batches, heads, positions, dim)),
        Order::PositionsFirst => {
            x.reshape((positions, batches, heads, dim))?.permute((1, 2, 0, 3))?.contiguous()
        }
    }
}

/// `(batches, heads, targets, sources)`
pub(crate) fn weights(
    attention: &Attention,
    query: &Tensor,
    key: &Tensor,
    masks: [Option<&Tensor>; 2],
) -> Result<Tensor> {
    let &Attention { batches, heads, targets, sources, dim, scale, causal, .. } = attention;
    let all = [batches, heads, targets, sources];
    if all.contains(&0) {
        return Tensor::zeros(&all, query.dtype(), query.device());
    }
    let query = heads_first(attention, query, targets, dim)?;
    let key = heads_first(attention, key, sources, dim)?;
    let mut scores = match dim {
        0 => Tensor::zeros(&all, query.dtype(), query.device())?, // candle has no products of nothing
        _ => (query.matmul(&key.t()?.contiguous()?)? * scale)?,
    };
    for mask in masks.into_iter().flatten() {
        scores = scores.broadcast_add(mask)?;
    }
    if causal {
        scores = scores.broadcast_add(&later(targets, sources, &scores)?)?;
    }
    // Where all keys are hidden, the largest score is -inf: counted from another number, the exponentials are 0.
    let largest = scores.detach().max_keepdim(D::Minus1)?;
    let powers = scores.broadcast_sub(&largest.maximum(f64::from(f32::MIN))?)?.exp()?;
    let totals = powers.sum_keepdim(D::Minus1)?;
    let none = totals.detach().eq(&totals.zeros_like()?)?.to_dtype(totals.dtype())?;
    powers.broadcast_div(&(totals + none)?)
}

/// -inf for the keys that come too late for a query.
pub(crate) fn later(targets: usize, sources: usize, like: &Tensor) -> Result<Tensor> {
    let seen = |target: usize| (target + 1 + sources).saturating_sub(targets);
    let mask: Vec<f32> = (0..targets * sources)
        .map(|i| if i % sources < seen(i / sources) { 0.0 } else { f32::NEG_INFINITY })
        .collect();
    Tensor::from_vec(mask, (targets, sources), like.device())?.to_dtype(like.dtype())
}

/// The outputs in the order of the inputs.
pub(crate) fn apply(attention: &Attention, weights: &Tensor, value: &Tensor) -> Result<Tensor> {
    let &Attention { order, batches, heads, targets, sources, value_dim, .. } = attention;
    let all = [batches, heads, targets, value_dim];
    if all.contains(&0) || sources == 0 {
        return Tensor::zeros(&all, value.dtype(), value.device());
    }
    let y = weights.matmul(&heads_first(attention, value, sources, value_dim)?)?;
    match order {
        Order::HeadsFirst => Ok(y),
        Order::PositionsFirst => y.permute((2, 0, 1, 3))?.contiguous(),
    }
}
