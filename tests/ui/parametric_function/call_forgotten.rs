#![deny(unused_must_use)]

use candle_core::Tensor;
use layerfn::{Dims, Result, parametric_function};

#[parametric_function(
    scope = "gate",
    params(
        /// Gate.
        g: [outmaps] = 1.0,
    )
)]
fn gate(inp: &Tensor, outmaps: usize, #[opt(into, default = 1)] stride: Dims) -> Result<Tensor> {
    let _ = stride;
    Ok((param!(g)? + inp)?)
}

fn layer(x: &Tensor) {
    gate(x, 2).stride(1);
}

fn main() {}
