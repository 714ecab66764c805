use layerfn::{Result, parametric_function};

#[parametric_function(rename = "my gate")]
fn gate() -> Result<()> {
    Ok(())
}

fn main() {}
