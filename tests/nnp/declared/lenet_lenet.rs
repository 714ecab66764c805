//! The network `lenet` of the file `lenet.nnp`, declared by `layerfn declare`.
//!
//! | input | shape |
//! | --- | --- |
//! | `image` | [-1, 1, 12, 12] |
//!
//! -1 is the size of the batch. The parameters are those of the file:
//!
//! ```text
//! load_parameters("lenet.nnp")?;
//! let y = lenet(&image)?;
//! ```

use layerfn::prelude::*;

network! {
    /// Gives `probability`.
    pub fn lenet() |image|
    < conv1: conv(4, (3, 3)) -> max_pool((2, 2)) -> relu -> conv2: conv(6, (3, 3), pad = (1, 1))
   -> max_pool((2, 2)) -> relu -> affine1: affine(10) -> relu -> affine2: affine(5) -> softmax(1) >
}
