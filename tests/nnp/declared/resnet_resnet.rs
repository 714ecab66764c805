//! The network `resnet` of the file `resnet.nnp`, declared by `layerfn declare`.
//!
//! | input | shape |
//! | --- | --- |
//! | `x` | [-1, 3, 8, 8] |
//!
//! -1 is the size of the batch. The parameters are those of the file:
//!
//! ```text
//! load_parameters("resnet.nnp")?;
//! let y = resnet(&x)?;
//! ```

use layerfn::prelude::*;

network! {
    /// Gives `y`.
    pub fn resnet() |x|
    < stem: conv(4, (3, 3), pad = (1, 1), with_bias = false) -> bn: bn(batch_stat = false) -> relu
   -> stage1: {
       block1: residual {
           conv1: conv(4, (3, 3), pad = (1, 1), with_bias = false) -> bn1: bn(batch_stat = false) -> relu
           -> conv2: conv(4, (3, 3), pad = (1, 1), with_bias = false) -> bn2: bn(batch_stat = false)
       }
   }
   -> relu
   -> stage2: {
       block1: add {
           conv1: conv(6, (3, 3), pad = (1, 1), stride = (2, 2), with_bias = false)
           -> bn1: bn(batch_stat = false) -> relu -> conv2: conv(6, (3, 3), pad = (1, 1), with_bias = false)
           -> bn2: bn(batch_stat = false),
           shortcut: conv(6, (1, 1), stride = (2, 2), with_bias = false) -> bn3: bn(batch_stat = false),
       }
   }
   -> relu -> avg_pool((4, 4)) -> fc: affine(5) >
}
