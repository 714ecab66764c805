//! Groups of arguments: what may stand in them, and what a layer that names one may not do.

use layerfn::prelude::*;
use layerfn::option_group;

option_group! {
    required {
        /// Not optional.
        size: usize,
        #[opt]
        without_description: f64,
        /// Once.
        #[opt]
        twice: f64,
        /// Again.
        #[opt]
        twice: f64,
    }
}

option_group! { without_braces }

option_group! {
    gating {
        /// Factor.
        #[opt(default = 1.0)]
        scale: f64,
    }
}

/// Has the argument already.
#[parametric_function(options(gating))]
fn collides(
    /// Input.
    inp: &Tensor,
    /// Factor of one's own.
    #[opt]
    scale: f64,
) -> Result<Tensor> {
    Ok((inp * scale)?)
}

/// A group that does not exist.
#[parametric_function(options(gatling))]
fn unknown(
    /// Input.
    inp: &Tensor,
) -> Result<Tensor> {
    Ok(inp.clone())
}

/// Without parentheses.
#[parametric_function(options = gating)]
fn assigned(
    /// Input.
    inp: &Tensor,
) -> Result<Tensor> {
    Ok(inp.clone())
}

/// Sound.
#[parametric_function(options(gating))]
fn gated(
    /// Input.
    inp: &Tensor,
) -> Result<Tensor> {
    Ok((inp * scale)?)
}

fn main() -> Result<()> {
    let x = Tensor::zeros((2, 3), DType::F32, &Device::Cpu)?;
    gated(&x).scale("half").call()?;
    gated(&x).scala(0.5).call()?;
    let _ = network! { gated(scala = 0.5) };
    Ok(())
}
