use layerfn::{Result, parametric_function};

#[parametric_function(scope = "")]
fn empty() -> Result<()> {
    Ok(())
}

#[parametric_function(scope = "/gate")]
fn empty_part() -> Result<()> {
    Ok(())
}

#[parametric_function(scope = "my gate")]
fn space() -> Result<()> {
    Ok(())
}

fn main() {}
