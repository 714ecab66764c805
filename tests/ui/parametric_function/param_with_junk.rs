use candle_core::Tensor;
use layerfn::{Result, parametric_function};

#[parametric_function(
    scope = "gate",
    params(
        /// Gate.
        g: [outmaps] = 1.0,
    )
)]
fn gate(outmaps: usize) -> Result<Tensor> {
    param!()?;
    param!("g")?;
    param!(g, 1)?;
    param!(g =)?;
    param!(g == 1)?;
    param!(&g)?;
    param!(g)
}

fn main() {}
