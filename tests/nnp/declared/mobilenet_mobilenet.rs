//! The network `mobilenet` of the file `mobilenet.nnp`, declared by `layerfn declare`.
//!
//! | input | shape |
//! | --- | --- |
//! | `x` | [-1, 3, 9, 8] |
//!
//! -1 is the size of the batch. The parameters are those of the file:
//!
//! ```text
//! load_parameters("mobilenet.nnp")?;
//! let y = mobilenet(&x)?;
//! ```

use layerfn::functions;
use layerfn::prelude::*;

network! {
    /// Gives `y`.
    pub fn mobilenet() |x|
    < conv(4, (3, 3), pad = (1, 1), stride = (2, 2), with_bias = false) -> bn0: bn(batch_stat = false)
   -> functions::relu6
   -> sep1: {
       depthwise_convolution((3, 3), pad = (1, 1), with_bias = false) -> bn1: bn(batch_stat = false)
       -> functions::relu6 -> conv(6, (1, 1), with_bias = false) -> bn2: bn(batch_stat = false)
       -> mul {
           _,
           global_average_pooling -> squeeze: conv(2, (1, 1)) -> relu -> excite: conv(6, (1, 1))
           -> hard_sigmoid,
       }
   }
   -> silu
   -> sep2: {
       depthwise_convolution((3, 3), pad = (1, 1), stride = (2, 1), with_bias = false)
       -> bn1: bn(batch_stat = false) -> functions::relu6 -> conv(8, (1, 1), with_bias = false)
       -> bn2: bn(batch_stat = false)
       -> mul {
           _,
           global_average_pooling -> squeeze: conv(2, (1, 1)) -> relu -> excite: conv(8, (1, 1))
           -> hard_sigmoid,
       }
   }
   -> silu -> global_average_pooling -> affine(4) >
}
