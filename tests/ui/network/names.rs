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
    let _ = network! { dense(3, name = "a b/../c") -> relu };
    let _ = network! { { dense(3, name = "./a") } -> relu };
    let _ = network! { dense(3, fix_parameters = 1) -> relu };
    let _ = network! { relu(fix_parameters = true, nmae = "r") };
}
