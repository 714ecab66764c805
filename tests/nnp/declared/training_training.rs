//! The network `training` of the file `training.nnp`, declared by `layerfn declare`.
//!
//! | input | shape |
//! | --- | --- |
//! | `x` | [-1, 6] |
//! | `y` | [-1, 1], integers |
//!
//! -1 is the size of the batch. The parameters are those of the file:
//!
//! ```text
//! load_parameters("training.nnp")?;
//! let y = training(&x, &y)?;
//! ```

use layerfn::functions;
use layerfn::prelude::*;

network! {
    /// Gives `loss`.
    pub fn training() |x, y|
    < fc1: affine(5) -> relu -> fc2: affine(3) -> softmax_cross_entropy(y, 1)
   -> functions::mean([0, 1], false) >
}
