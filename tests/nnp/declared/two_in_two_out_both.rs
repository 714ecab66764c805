//! The network `both` of the file `two_in_two_out.nnp`, declared by `layerfn declare`.
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
//! let y = both(&x0, &x1)?;
//! ```

use layerfn::prelude::*;

network! {
    /// Gives `y0`, `y1`.
    pub fn both() -> Result<(Tensor, Tensor)> |x0, x1|
    < use(x1) -> shared shared: affine(6) as affine_out_1 -> use(x0) -> shared shared: affine(6)
   -> add { _, use(affine_out_1) } -> tanh as tanh_out -> left: affine(3) as y0 -> use(tanh_out)
   -> right: affine(2) -> sigmoid as y1 -> use((y0, y1)) >
}
