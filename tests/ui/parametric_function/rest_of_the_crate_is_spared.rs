use candle_core::Tensor;
use layerfn::{Result, parametric_function};

/// With an error inside; those who use it get none.
#[parametric_function(
    scope = "gate",
    params(
        /// Gate.
        g: [outmaps] = 1.0,
        /// No initial value.
        b: [outmaps],
    )
)]
fn gate(inp: &Tensor, outmaps: usize, #[opt(deafult = 1)] n: usize) -> Result<Tensor> {
    let h = ((param!(g)? + param!(b)?)? + n as f64)?;
    println!("{:?}", param!(c)?.dims());
    Ok((h + inp)?)
}

fn user(x: &Tensor) -> Result<Tensor> {
    let call: Gate = gate(x, 2).n(3);
    call.name("x").fix_parameters(true).call()
}

fn main() {}
