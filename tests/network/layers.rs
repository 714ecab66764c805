//! Small layers that these tests can compute by hand.

use candle_core::Tensor;
use layerfn::{Error, Initializer, Result, parametric_function};

/// Affine layer without the details.
#[parametric_function(
    scope = "dense",
    family = Affine,
    multiply_adds = [inp.elem_count(), outmaps],
    params(
        /// Weights.
        W: [inmaps, outmaps] = Initializer::normal(0.5),
        /// Bias.
        #[when(with_bias)]
        b: [outmaps] = 0.5,
    )
)]
pub(crate) fn dense(inp: &Tensor, outmaps: usize, #[opt(default = true)] with_bias: bool) -> Result<Tensor> {
    if inp.rank() != 2 {
        return Err(Error::invalid("inp", "must have two axes", inp.dims()));
    }
    let inmaps = inp.dim(1)?;
    let y = inp.matmul(&param!(W)?)?;
    Ok(match param!(b)? {
        Some(b) => y.broadcast_add(&b)?,
        None => y,
    })
}

pub(crate) use dense as fully_connected;

/// Scales each feature.
#[parametric_function(
    scope = "scaling",
    multiply_adds = [0],
    params(
        /// Factors.
        s: [features] = 2.0,
    )
)]
pub(crate) fn scaling(inp: &Tensor) -> Result<Tensor> {
    let features = inp.dim(1)?;
    Ok(inp.broadcast_mul(&param!(s)?)?)
}

pub(crate) fn relu(x: &Tensor) -> Result<Tensor> {
    Ok(x.relu()?)
}

pub(crate) fn times(x: &Tensor, factor: f64) -> candle_core::Result<Tensor> {
    x * factor
}

pub(crate) fn failing(_x: &Tensor) -> Result<Tensor> {
    Err(Error::invalid("x", "is never right", 1))
}
