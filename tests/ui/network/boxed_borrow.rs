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

use layerfn::Network;

fn of_a_variable() -> Network {
    let widths = vec![1, 2];
    network! { for &width in &widths { layer[width]: dense(width) -> relu } }.boxed()
}

fn of_a_variable_with_inputs() -> Network {
    let width = 3;
    network! { |x| < dense(width) -> add { use(x), relu } > }.boxed()
}

fn of_an_argument(widths: &[usize]) -> Network {
    network! { move for &width in widths { layer[width]: dense(width) -> relu } }.boxed()
}

fn main() {}
