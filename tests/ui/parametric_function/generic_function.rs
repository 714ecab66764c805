use candle_core::Tensor;
use layerfn::{Result, parametric_function};

#[parametric_function(scope = "gate")]
fn with_type<T: Into<f64>>(inp: &Tensor, value: T) -> Result<Tensor> {
    Ok((inp * value.into())?)
}

#[parametric_function(scope = "gate")]
fn with_const<const N: usize>(inp: &Tensor) -> Result<Tensor> {
    Ok(inp.clone())
}

#[parametric_function(scope = "gate")]
fn with_lifetime<'a>(inp: &'a Tensor) -> Result<Tensor> {
    Ok(inp.clone())
}

#[parametric_function(scope = "gate")]
fn with_where(inp: &Tensor) -> Result<Tensor>
where
    Tensor: Clone,
{
    Ok(inp.clone())
}

fn main() {}
