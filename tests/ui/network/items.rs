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
    /// A block.
    pub fn block<T>(n: usize) < dense(n) >
}

network! {
    pub fn other(n: usize) dense(n)
}

network! {
    pub struct Other;
}

network! {
    fn third(n: usize) < dense(n) => relu >
}

network! {
    #[inline]
    pub other(n: usize) < dense(n) >
}

fn main() {}
