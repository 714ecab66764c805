use layerfn::{Result, parametric_function};
use candle_core::Tensor;

/// Not imported.
#[parametric_function(fuses(relu))]
fn a(inp: &Tensor) -> Result<Tensor> {
    Ok(if relu_fused { inp.relu()? } else { inp.clone() })
}

/// Spelled wrongly.
#[parametric_function(fuses(layerfn::functions::rleu))]
fn b(inp: &Tensor) -> Result<Tensor> {
    Ok(if rleu_fused { inp.relu()? } else { inp.clone() })
}

fn main() {}
