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

#[parametric_function(scope = "block/../gate")]
fn folder() -> Result<()> {
    Ok(())
}

fn main() {}
