//! The network `net` of the file `norms.nnp`, declared by `layerfn declare`.
//!
//! | input | shape |
//! | --- | --- |
//! | `x` | [-1, 4, 5, 4] |
//!
//! -1 is the size of the batch. The parameters are those of the file:
//!
//! ```text
//! load_parameters("norms.nnp")?;
//! let y = net(&x)?;
//! ```

use layerfn::functions;
use layerfn::prelude::*;

network! {
    /// Gives `y`.
    pub fn net() |x|
    < conv(4, (3, 3), pad = (1, 1)) -> train: bn(decay_rate = 0.8, batch_stat = true) -> relu
   -> plain: bn(batch_stat = false, no_scale = true) -> ln: layer_normalization(no_bias = true)
   -> gn: group_normalization(2) -> instance_normalization(eps = 0.01, name = "in")
   -> (|h: &Tensor| functions::convolution(
       h, &weight_normalization(&parameter("wn/conv/W", &[3, 4, 2, 2])?).name("wn/conv").call()?,
       Some(&parameter("wn/conv/b", &[3])?),
       &functions::ConvGeometry::new(
           h.dims(), &(2, 2).into(), &(0, 0).into(), &(1, 1).into(), &(1, 1).into(), 1, 1
       )?
   ))
   -> (|h: &Tensor| functions::affine(
       h, &spectral_norm(&parameter("sn/affine/W", &[36, 4])?).dim(1).test(false).name("sn/affine").call()?,
       Some(&parameter("sn/affine/b", &[4])?), 1
   ))
   -> fused: fused_batch_normalization(batch_stat = false) -> functions::norm_normalization(2.0, 1, 1e-12) >
}

/// A parameter of a function that is not a layer.
fn parameter(path: &str, shape: &[usize]) -> Result<Tensor> {
    let is_trained = layerfn::get_parameter(path).is_none_or(|parameter| parameter.need_grad());
    layerfn::get_parameter_or_create(path).shape(shape).need_grad(is_trained).call()
}
