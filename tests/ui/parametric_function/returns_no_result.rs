use candle_core::Tensor;
use layerfn::{Result, parametric_function};

#[parametric_function(scope = "gate")]
fn returns_tensor(inp: &Tensor) -> Tensor {
    inp.clone()
}

#[parametric_function(scope = "gate")]
fn returns_option(inp: &Tensor) -> Option<Tensor> {
    Some(inp.clone())
}

#[parametric_function(scope = "gate")]
fn returns_nothing(_inp: &Tensor) {}

#[parametric_function(scope = "gate")]
fn returns_unknown(_inp: &Tensor) -> std::fmt::Result {
    Ok(())
}

#[parametric_function(scope = "gate")]
fn returns_borrowed(inp: &Tensor) -> Result<&Tensor> {
    Ok(inp)
}

fn main() {}
