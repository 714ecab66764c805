use candle_core::Tensor;
use layerfn::{Result, parametric_function};

#[parametric_function(scope = "gate")]
fn gate(
    a: impl Into<f64>,
    b: &mut Tensor,
    c: &'a Tensor,
    d: &[&Tensor],
    e: (usize, &Tensor),
    f: &dyn Fn(&Tensor) -> Tensor,
    g: std::borrow::Cow<'_, str>,
    h: Option<impl Fn()>,
    i: _,
) -> Result<Tensor> {
    Ok(b.clone())
}

fn main() {}
