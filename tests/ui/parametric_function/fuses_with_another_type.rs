use layerfn::{Result, parametric_function};
use candle_core::Tensor;

use layerfn::functions::leaky_relu;

fn twice(x: &Tensor) -> Result<(Tensor, Tensor)> {
    Ok((x.clone(), x.clone()))
}

fn length(x: &str) -> Result<Tensor> {
    Tensor::new(x.len() as u32, &candle_core::Device::Cpu).map_err(Into::into)
}

/// Another argument.
#[parametric_function(fuses(leaky_relu))]
fn a(inp: &Tensor) -> Result<Tensor> {
    if leaky_relu_fused { leaky_relu(inp, 0.1) } else { Ok(inp.clone()) }
}

/// Another output.
#[parametric_function(fuses(twice))]
fn b(inp: &Tensor) -> Result<Tensor> {
    Ok(if twice_fused { inp.relu()? } else { inp.clone() })
}

/// Another input.
#[parametric_function(fuses(length))]
fn c(inp: &Tensor) -> Result<Tensor> {
    Ok(if length_fused { inp.relu()? } else { inp.clone() })
}

fn main() {}
