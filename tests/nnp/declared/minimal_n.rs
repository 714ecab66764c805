//! The network `n` of the file `minimal.nnp`, declared by `layerfn declare`.
//!
//! | input | shape |
//! | --- | --- |
//! | `x` | [-1, 3] |
//!
//! -1 is the size of the batch. The parameters are those of the file:
//!
//! ```text
//! load_parameters("minimal.nnp")?;
//! let y = n(&x)?;
//! ```

use layerfn::functions;
use layerfn::prelude::*;

network! {
    /// Gives `y`.
    pub fn n() |x|
    < (|h: &Tensor| functions::affine(h, &parameter("w", &[3, 2])?, None, 1)) >
}

/// A parameter of a function that is not a layer.
fn parameter(path: &str, shape: &[usize]) -> Result<Tensor> {
    let is_trained = layerfn::get_parameter(path).is_none_or(|parameter| parameter.need_grad());
    layerfn::get_parameter_or_create(path).shape(shape).need_grad(is_trained).call()
}
