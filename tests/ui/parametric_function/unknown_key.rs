use candle_core::Tensor;
use layerfn::{Result, parametric_function};

#[parametric_function(scop = "gate")]
fn gate(inp: &Tensor) -> Result<Tensor> {
    Ok(inp.clone())
}

#[parametric_function(scope = "gate", parameters(W: [1] = 0.0), colour = "red")]
fn other_gate(inp: &Tensor) -> Result<Tensor> {
    Ok(inp.clone())
}

fn main() {}
