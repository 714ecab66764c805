//! The network `net` of the file `conv1d3d.nnp`, declared by `layerfn declare`.
//!
//! | input | shape |
//! | --- | --- |
//! | `x` | [-1, 3, 10] |
//! | `v` | [-1, 1, 4, 5, 4] |
//!
//! -1 is the size of the batch. The parameters are those of the file:
//!
//! ```text
//! load_parameters("conv1d3d.nnp")?;
//! let y = net(&x, &v)?;
//! ```

use layerfn::prelude::*;

network! {
    /// Gives `sequence`, `volume`.
    pub fn net() -> Result<(Tensor, Tensor)> |x, v|
    < c1: conv(4, 3, pad = 2, dilation = 2) -> relu
   -> d1: deconvolution(2, 4, stride = 2, output_padding = 1)
   -> dd1: depthwise_deconvolution(3, divisor = 2) as sequence -> use(v) -> c3: conv(2, (2, 3, 2)) -> relu
   -> max_pool((1, 2, 2), stride = (1, 1, 1))
   -> avg_pool((2, 1, 2), ignore_border = false, pad = (0, 0, 1), including_pad = false)
   -> sum_pooling((1, 2, 1)) -> fc: affine(3) as volume -> use((sequence, volume)) >
}
