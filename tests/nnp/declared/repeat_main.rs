//! The network `Main` of the file `repeat.nnp`, declared by `layerfn declare`.
//!
//! | input | shape |
//! | --- | --- |
//! | `x` | [-1, 5] |
//!
//! -1 is the size of the batch. The parameters are those of the file:
//!
//! ```text
//! load_parameters("repeat.nnp")?;
//! let y = main_network(&x)?;
//! ```

use layerfn::functions;
use layerfn::prelude::*;

network! {
    /// Gives `y`.
    pub fn main_network() |x|
    < fc1: affine(4)
   -> for i in 0..3 {
       affine(4, name = format!("body[{i}]"))
       -> (|h: &Tensor| functions::prelu(h, &parameter(&format!("slope/prelu/slope_Loop[{i}]"), &[])?, 1))
       -> shared shared: affine(4, with_bias = false)
   }
   -> out: affine(2, with_bias = false) >
}

/// A parameter of a function that is not a layer.
fn parameter(path: &str, shape: &[usize]) -> Result<Tensor> {
    let is_trained = layerfn::get_parameter(path).is_none_or(|parameter| parameter.need_grad());
    layerfn::get_parameter_or_create(path).shape(shape).need_grad(is_trained).call()
}
