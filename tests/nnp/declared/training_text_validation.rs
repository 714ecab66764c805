//! The network `validation` of the file `training_text.nntxt`, declared by `layerfn declare`.
//!
//! | input | shape |
//! | --- | --- |
//! | `x` | [-1, 6] |
//! | `y` | [-1, 1], integers |
//!
//! -1 is the size of the batch. The parameters are those of the file:
//!
//! ```text
//! load_parameters("training_text.nntxt")?;
//! let y = validation(&x, &y)?;
//! ```

use layerfn::functions;
use layerfn::prelude::*;

network! {
    /// Gives `error`.
    pub fn validation() |x, y|
    < fc1: affine(5) -> relu -> fc2: affine(3) -> functions::top_n_error(y, 1, 1)
   -> functions::mean([0, 1], false) >
}
