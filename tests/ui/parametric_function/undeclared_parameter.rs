use candle_core::Tensor;
use layerfn::{Result, parametric_function};

#[parametric_function(
    scope = "gate",
    params(
        /// Gate.
        gamma: [outmaps] = 1.0,
        /// Offset.
        beta: [outmaps] = 0.0,
    )
)]
fn gate(outmaps: usize) -> Result<Tensor> {
    let offset = param!(betta)?;
    println!("{:?}", param!(W)?);
    Ok((param!(gamma)? + param!(beta)? + offset)?)
}

#[parametric_function(scope = "none")]
fn none() -> Result<Tensor> {
    param!(W)
}

fn main() {}
