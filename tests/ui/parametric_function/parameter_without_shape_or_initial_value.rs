use candle_core::Tensor;
use layerfn::{Result, parametric_function};

#[parametric_function(
    scope = "gate",
    params(
        /// No shape.
        a,
        /// No shape either.
        b = 0.0,
        /// No brackets.
        c: outmaps = 0.0,
        /// No initial value.
        d: [outmaps],
        /// Nothing behind the `=`.
        e: [outmaps] =,
        /// Nothing behind the `:`.
        f:,
        /// The last comma is missing.
        g: [outmaps] = 0.0
        /// And so this one is lost.
        h: [outmaps] = 0.0,
        /// Described, but not there.
    )
)]
fn gate(outmaps: usize) -> Result<Tensor> {
    param!(a)?;
    param!(g)?;
    param!(e)
}

fn main() {}
