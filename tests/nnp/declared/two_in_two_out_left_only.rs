//! The network `left_only` of the file `two_in_two_out.nnp`, declared by `layerfn declare`.
//!
//! | input | shape |
//! | --- | --- |
//! | `x0` | [-1, 5] |
//! | `x1` | [-1, 5] |
//!
//! -1 is the size of the batch. The parameters are those of the file:
//!
//! ```text
//! load_parameters("two_in_two_out.nnp")?;
//! let y = left_only(&x0, &x1)?;
//! ```

use layerfn::prelude::*;

network! {
    /// Gives `y0`.
    pub fn left_only() |x0, x1|
    < use(x1) -> shared shared: affine(6) as affine_out_1 -> use(x0) -> shared shared: affine(6)
   -> add { _, use(affine_out_1) } -> tanh -> left: affine(3) >
}
