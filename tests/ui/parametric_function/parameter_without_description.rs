use candle_core::Tensor;
use layerfn::{Result, parametric_function};

#[parametric_function(
    scope = "gate",
    params(
        g: [outmaps] = 1.0,
        ///
        b: [outmaps] = 0.0,
    )
)]
fn gate(outmaps: usize) -> Result<Tensor> {
    Ok((param!(g)? + param!(b)?)?)
}

fn main() {}
