use candle_core::Tensor;
use layerfn::{Result, parametric_function};

#[parametric_function(params(
    /// Gate.
    g: [outmaps] = 1.0,
))]
fn gate(outmaps: usize) -> Result<Tensor> {
    param!(g)
}

fn main() {}
