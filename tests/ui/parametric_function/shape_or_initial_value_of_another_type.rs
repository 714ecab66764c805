use candle_core::Tensor;
use layerfn::{Result, parametric_function};

#[parametric_function(
    scope = "gate",
    params(
        /// A size that is no `usize`.
        a: [1.5] = 0.0,
        /// A single size spliced.
        b: [..size] = 0.0,
        /// No initializer.
        c: [size] = "zeros",
        /// No condition.
        #[when(size)]
        d: [size] = 0.0,
        /// Unknown variable.
        e: [sizes] = 0.0,
    )
)]
fn gate(size: usize) -> Result<Tensor> {
    let _ = (param!(a)?, param!(b)?, param!(c)?, param!(d)?);
    param!(e)
}

fn main() {}
