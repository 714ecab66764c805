use layerfn::{Result, parametric_function};

#[parametric_function(scope = "gate")]
fn gate(#[opt(maybe)] size: Option<usize>, #[opt] maybe_size: usize) -> Result<usize> {
    Ok(size.unwrap_or(maybe_size))
}

fn main() {}
