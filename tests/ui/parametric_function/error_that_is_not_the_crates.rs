use candle_core::Tensor;
use layerfn::parametric_function;

#[parametric_function(scope = "gate")]
fn gate(inp: &Tensor) -> Result<Tensor, std::fmt::Error> {
    Ok(inp.clone())
}

fn main() {}
