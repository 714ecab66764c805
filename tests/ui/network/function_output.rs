use candle_core::Tensor;
use layerfn::{Result, network, parametric_function};

/// A layer.
#[parametric_function(
    scope = "dense",
    params(
        /// Weights.
        W: [outmaps] = 0.0,
    )
)]
fn dense(inp: &Tensor, outmaps: usize, #[opt(default = 1)] stride: usize) -> Result<Tensor> {
    let _ = (param!(W)?, stride);
    Ok(inp.clone())
}

fn relu(x: &Tensor) -> Result<Tensor> {
    Ok(x.relu()?)
}

network! {
    /// It says what it makes, without `Result`.
    fn pair() -> (Tensor, Tensor) < tuple { dense(3), dense(4) } >
}

network! {
    fn one() -> Tensor { dense(3) -> relu }
}

network! {
    /// It says nothing, and makes two.
    fn silent() < relu -> tuple { dense(3), dense(4) } >
}

network! {
    fn silent_function(x: usize) < dense(x) -> both >
}

network! {
    /// It says something else.
    fn other() -> Result<(Tensor, Tensor)> < dense(3) -> relu >
}

fn both(x: &Tensor) -> Result<(Tensor, Tensor)> {
    Ok((x.clone(), x.clone()))
}

fn main() {}
