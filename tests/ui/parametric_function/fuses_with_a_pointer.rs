use layerfn::{Result, parametric_function};
use candle_core::Tensor;

const RELU: fn(&Tensor) -> Result<Tensor> = layerfn::functions::relu;

/// All functions of this signature would be this one.
#[parametric_function(fuses(RELU))]
#[expect(non_snake_case)]
fn a(inp: &Tensor) -> Result<Tensor> {
    if RELU_fused { RELU(inp) } else { Ok(inp.clone()) }
}

fn main() {}
