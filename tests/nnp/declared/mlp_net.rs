//! The network `net` of the file `mlp.nnp`, declared by `layerfn declare`.
//!
//! | input | shape |
//! | --- | --- |
//! | `x` | [-1, 6] |
//!
//! -1 is the size of the batch. The parameters are those of the file:
//!
//! ```text
//! load_parameters("mlp.nnp")?;
//! let y = net(&x)?;
//! ```

use layerfn::prelude::*;

network! {
    /// Gives `y`.
    pub fn net() |x|
    < fc1: affine(8) -> tanh -> fc2: affine(7, with_bias = false) -> relu -> fc3: affine(3) -> softmax(1) >
}
