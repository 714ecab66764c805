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

fn number(_: &Tensor) -> f64 {
    1.0
}

fn count(x: &Tensor) -> Result<usize> {
    Ok(x.rank())
}

struct Plain;

fn main() {
    let _ = network! { number -> relu };
    let _ = network! { count -> relu };
    let _ = network! { Plain -> relu };
    let _ = network! { 3 -> relu };
    let _ = network! { |x: &Tensor| x.relu() -> relu };
    let _ = network! { (|x: &Tensor| 3.0) -> relu };
    let _ = network! { tuple { _, _ } -> relu };
    let _ = network! { while true { relu } };
    let _ = network! { let h = relu };
}
