use candle_core::Tensor;
use layerfn::{Result, parametric_function};

#[parametric_function(scope = "gate")]
fn gate(inp: &Tensor) -> Result<Tensor>;

fn main() {}
