use candle_core::Tensor;
use layerfn::{Result, network, parametric_function};

/// A layer.
#[parametric_function(
    scope = "dense",
    params(
        /// Weights.
        W: [outmaps] = 0.0,
    )
)]
fn dense(inp: &Tensor, outmaps: usize, #[opt(default = 1)] stride: usize) -> Result<Tensor> {
    let _ = (param!(W)?, stride);
    Ok(inp.clone())
}

fn relu(x: &Tensor) -> Result<Tensor> {
    Ok(x.relu()?)
}

fn main() {
    let _ = network! { c1: relu -> c2: relu -> c1: relu };
    let _ = network! { c1: { a: relu -> { a: relu } } -> if true { b: relu } else { b: relu } -> b: relu };
    let _ = network! { for i in 0..3 { c[i]: relu -> c[i]: relu } -> shared d: relu -> d: relu };
    let _ = network! { dense(3) -> c1: dense(3, name = "other") };
}
