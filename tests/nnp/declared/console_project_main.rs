//! The network `Main` of the file `console_project.nnp`, declared by `layerfn declare`.
//!
//! | input | shape |
//! | --- | --- |
//! | `Input` | [-1, 4] |
//! | `Noise` | [-1, 4] |
//! | `Target` | [-1, 2] |
//!
//! -1 is the size of the batch. The parameters are those of the file:
//!
//! ```text
//! load_parameters("console_project.nnp")?;
//! let y = main_network(&input, &noise, &target)?;
//! ```

use layerfn::prelude::*;

network! {
    /// Gives `SquaredError`.
    pub fn main_network() |input, noise, target|
    < add { _, use(noise) } -> for i in 0..2 { affine(4, name = format!("Affine[{i}]")) -> relu }
   -> Affine_2: affine(2, with_bias = false) -> squared_error(target) >
}
