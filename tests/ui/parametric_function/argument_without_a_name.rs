use candle_core::Tensor;
use layerfn::{Result, parametric_function};

#[parametric_function(scope = "gate")]
fn gate((a, b): (usize, usize), _: &Tensor, ref c: usize) -> Result<usize> {
    Ok(a + b + c)
}

fn main() {}
