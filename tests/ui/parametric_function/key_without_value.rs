use layerfn::{Result, parametric_function};

#[parametric_function(scope)]
fn without_scope() -> Result<()> {
    Ok(())
}

#[parametric_function(scope("gate"))]
fn scope_in_parentheses() -> Result<()> {
    Ok(())
}

#[parametric_function(scope = gate)]
fn scope_without_quotes() -> Result<()> {
    Ok(())
}

#[parametric_function("gate")]
fn without_key() -> Result<()> {
    Ok(())
}

#[parametric_function(scope = "gate", params = [W])]
fn params_with_equals() -> Result<()> {
    Ok(())
}

#[parametric_function(scope = "gate", scope = "gates")]
fn scope_twice() -> Result<()> {
    Ok(())
}

#[parametric_function(scope = "gate" params())]
fn comma_forgotten() -> Result<()> {
    Ok(())
}

fn main() {}
