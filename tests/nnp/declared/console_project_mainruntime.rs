//! The network `MainRuntime` of the file `console_project.nnp`, declared by `layerfn declare`.
//!
//! | input | shape |
//! | --- | --- |
//! | `Input` | [-1, 4] |
//! | `Noise` | [-1, 4] |
//!
//! -1 is the size of the batch. The parameters are those of the file:
//!
//! ```text
//! load_parameters("console_project.nnp")?;
//! let y = main_runtime(&input, &noise)?;
//! ```

use layerfn::prelude::*;

network! {
    /// Gives `Affine_2`.
    pub fn main_runtime() |input, noise|
    < add { _, use(noise) } -> for i in 0..2 { affine(4, name = format!("Affine[{i}]")) -> relu }
   -> Affine_2: affine(2, with_bias = false) >
}
