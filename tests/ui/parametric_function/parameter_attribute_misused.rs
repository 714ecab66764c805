use candle_core::Tensor;
use layerfn::{Result, parametric_function};

#[parametric_function(
    scope = "gate",
    params(
        /// Not a literal.
        #[need_grad(outmaps > 1)]
        a: [outmaps] = 0.0,
        /// No value.
        #[need_grad]
        b: [outmaps] = 0.0,
        /// No condition.
        #[when()]
        c: [outmaps] = 0.0,
        /// No parentheses.
        #[when]
        d: [outmaps] = 0.0,
        /// Two conditions.
        #[when(outmaps > 1)]
        #[when(outmaps > 2)]
        e: [outmaps] = 0.0,
        /// Another spelling.
        #[needs_grad(false)]
        f: [outmaps] = 0.0,
        /// Another word.
        #[trainable]
        g: [outmaps] = 0.0,
    )
)]
fn gate(outmaps: usize) -> Result<Tensor> {
    let _ = (param!(a)?, param!(b)?, param!(c)?, param!(d)?, param!(e)?, param!(f)?);
    param!(g)
}

fn main() {}
