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
    let _ = network! { for i in 0..3 };
    let _ = network! { for 0..3 { relu } };
    let _ = network! { if { relu } };
    let _ = network! { if true { relu } else relu };
    let _ = network! { relu -> else { relu } };
    let _ = network! { match 3 { relu } };
    let _ = network! { use x };
    let _ = network! { relu as };
}
