use layerfn::{Result, parametric_function};
use candle_core::Tensor;

use layerfn::functions::relu;

/// No parentheses.
#[parametric_function(fuses = relu)]
fn a(inp: &Tensor) -> Result<Tensor> {
    Ok(inp.clone())
}

/// No function.
#[parametric_function(fuses())]
fn b(inp: &Tensor) -> Result<Tensor> {
    Ok(inp.clone())
}

/// An expression.
#[parametric_function(fuses(|x| relu(x)))]
fn c(inp: &Tensor) -> Result<Tensor> {
    Ok(inp.clone())
}

/// Twice.
#[parametric_function(fuses(relu, layerfn::functions::relu))]
fn d(inp: &Tensor) -> Result<Tensor> {
    if relu_fused { relu(inp) } else { Ok(inp.clone()) }
}

/// The body does not do it.
#[parametric_function(fuses(relu))]
fn e(inp: &Tensor) -> Result<Tensor> {
    Ok(inp.clone())
}

/// An argument has the name.
#[parametric_function(fuses(relu))]
fn f(inp: &Tensor, relu_fused: bool) -> Result<Tensor> {
    if relu_fused { relu(inp) } else { Ok(inp.clone()) }
}

fn main() {}
