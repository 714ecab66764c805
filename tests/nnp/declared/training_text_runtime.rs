//! The network `runtime` of the file `training_text.nntxt`, declared by `layerfn declare`.
//!
//! | input | shape |
//! | --- | --- |
//! | `x` | [-1, 6] |
//!
//! -1 is the size of the batch. The parameters are those of the file:
//!
//! ```text
//! load_parameters("training_text.nntxt")?;
//! let y = runtime(&x)?;
//! ```

use layerfn::prelude::*;

network! {
    /// Gives `p`.
    pub fn runtime() |x|
    < fc1: affine(5) -> relu -> fc2: affine(3) >
}
