use layerfn::{Dims, Result, parametric_function};

#[parametric_function(scope = "gate")]
fn gate(
    #[opt(default = "one")] a: usize,
    #[opt(default = 1)] b: Option<usize>,
    #[opt(into, default = "one")] c: Dims,
    #[opt] d: Dims,
) -> Result<usize> {
    Ok(a + b.unwrap_or(0) + c.len() + d.len())
}

fn main() {}
