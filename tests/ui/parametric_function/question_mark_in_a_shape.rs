use candle_core::Tensor;
use layerfn::{Result, parametric_function};

#[parametric_function(
    scope = "gate",
    params(
        /// Weight matrix.
        W: [inp.dim(1)?, outmaps] = 0.0,
    )
)]
fn gate(inp: &Tensor, outmaps: usize) -> Result<Tensor> {
    Ok(inp.matmul(&param!(W)?)?)
}

fn main() {}
