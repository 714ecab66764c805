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

fn main() {
    let _ = network! { shared { dense(3) -> relu } };
    let _ = network! { frozen { dense(3) -> relu } };
    let _ = network! { relu -> frozen shared dense(3) };
    let _ = network! { frozen shared frozen a: dense(3) };
    let _ = network! { frozen 1: dense(3) };
    let _ = network! { relu as h -> frozen a: _ -> frozen b: use(h) };
    let _ = network! { relu as h -> a: _ -> b[0]: use(h) };
    let _ = network! { tuple { main: dense(3), shared rest: _ } };
    let _ = network! { shared shared a: dense(3) -> shared a: dense(3) };
    let _ = network! { relu -> shared dense(3) };
    let _ = network! { shared 1: dense(3) };
}
