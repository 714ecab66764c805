//! Embeddings of positions.

use candle_core::{Result, Tensor};

use super::rule::attach;
use crate::kernels::{Positions, angle};

/// `(outer, positions, between, features)`
fn viewed(x: &Tensor, positions: Positions) -> Result<Tensor> {
    let Positions { n, between, features } = positions;
    let outer = x.elem_count().checked_div(n * between * features).unwrap_or(0);
    x.reshape((outer, n, between, features))
}

pub(crate) fn add(x: &Tensor, w: &Tensor, positions: Positions) -> Result<Tensor> {
    let rows = w.narrow(0, 0, positions.n)?.reshape((1, positions.n, 1, positions.features))?;
    if x.elem_count() == 0 {
        return Ok(x.clone());
    }
    viewed(x, positions)?.broadcast_add(&rows)?.reshape(x.shape())
}

pub(crate) fn rotate(x: &Tensor, positions: Positions, base: f64) -> Result<Tensor> {
    if x.elem_count() == 0 {
        return Ok(x.clone());
    }
    let y = turned(&x.detach(), positions, base, 1.0)?;
    attach("rotary_position_embedding", &[x], &y, move |dy, _| {
        Ok(vec![Some(turned(dy, positions, base, -1.0)?)])
    })
}

fn turned(x: &Tensor, positions: Positions, base: f64, sign: f64) -> Result<Tensor> {
    let Positions { n, features, .. } = positions;
    let table = |f: fn(f64) -> f64| {
        let values = (0..n * (features / 2))
            .map(|i| f(sign * angle(i / (features / 2), i % (features / 2), features, base)));
        Tensor::from_iter(values, x.device())?.reshape((1, n, 1, features / 2, 1))?.to_dtype(x.dtype())
    };
    let (cos, sin) = (table(f64::cos)?, table(f64::sin)?);
    let view = viewed(x, positions)?;
    let (outer, n, between, _) = view.dims4()?;
    let pairs = view.reshape((outer, n, between, features / 2, 2))?;
    let (u, v) = (pairs.narrow(4, 0, 1)?.contiguous()?, pairs.narrow(4, 1, 1)?.contiguous()?);
    let first = (u.broadcast_mul(&cos)? - v.broadcast_mul(&sin)?)?;
    let second = (u.broadcast_mul(&sin)? + v.broadcast_mul(&cos)?)?;
    Tensor::cat(&[first, second], 4)?.reshape(x.shape())
}
