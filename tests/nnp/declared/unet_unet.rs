//! The network `unet` of the file `unet.nnp`, declared by `layerfn declare`.
//!
//! | input | shape |
//! | --- | --- |
//! | `x` | [-1, 1, 8, 8] |
//!
//! -1 is the size of the batch. The parameters are those of the file:
//!
//! ```text
//! load_parameters("unet.nnp")?;
//! let y = unet(&x)?;
//! ```

use layerfn::prelude::*;

network! {
    /// Gives `mask`.
    pub fn unet() |x|
    < enc1: for i in 1..3 { conv[i]: conv(3, (3, 3), pad = (1, 1)) -> relu }
   -> concat(1) {
       max_pool((2, 2)) -> enc2: for i in 1..3 { conv[i]: conv(4, (3, 3), pad = (1, 1)) -> relu }
       -> concat(1) {
           avg_pool((2, 2)) -> middle: for i in 1..3 { conv[i]: conv(5, (3, 3), pad = (1, 1)) -> relu }
           -> up2: deconvolution(4, (2, 2), stride = (2, 2)),
           _,
       }
       -> dec2: for i in 1..3 { conv[i]: conv(4, (3, 3), pad = (1, 1)) -> relu }
       -> up1: deconvolution(3, (4, 4), pad = (1, 1), stride = (2, 2), with_bias = false),
       _,
   }
   -> dec1: for i in 1..3 { conv[i]: conv(3, (3, 3), pad = (1, 1)) -> relu } -> out: conv(2, (1, 1))
   -> sigmoid >
}
