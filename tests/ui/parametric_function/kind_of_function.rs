use candle_core::Tensor;
use layerfn::{Result, parametric_function};

#[parametric_function(scope = "gate")]
async fn waiting(inp: &Tensor) -> Result<Tensor> {
    Ok(inp.clone())
}

#[parametric_function(scope = "gate")]
const fn constant(inp: &Tensor) -> Result<usize> {
    Ok(1)
}

#[parametric_function(scope = "gate")]
unsafe fn dangerous(inp: &Tensor) -> Result<Tensor> {
    Ok(inp.clone())
}

#[parametric_function(scope = "gate")]
extern "C" fn foreign(inp: &Tensor) -> Result<Tensor> {
    Ok(inp.clone())
}

fn main() {}
