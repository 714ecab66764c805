//! The network `net` of the file `lowrank.nnp`, declared by `layerfn declare`.
//!
//! | input | shape |
//! | --- | --- |
//! | `x` | [-1, 2, 6, 5] |
//!
//! -1 is the size of the batch. The parameters are those of the file:
//!
//! ```text
//! load_parameters("lowrank.nnp")?;
//! let y = net(&x)?;
//! ```

use layerfn::functions;
use layerfn::prelude::*;

network! {
    /// Gives `y`.
    pub fn net() |x|
    < (|h: &Tensor| functions::convolution(
       h, &parameter("svd/svd_conv/U", &[4, 3, 3])?.unsqueeze(1)?, None,
       &functions::ConvGeometry::depthwise(
           h.dims(), &(3, 3).into(), &(1, 1).into(), &(1, 1).into(), &(1, 1).into(), 1
       )?
   ))
   -> (|h: &Tensor| functions::convolution(
       h, &parameter("svd/svd_conv/V", &[4, 4, 1, 1])?, Some(&parameter("svd/svd_conv/b", &[4])?),
       &functions::ConvGeometry::new(
           h.dims(), &(1, 1).into(), &(0, 0).into(), &(1, 1).into(), &(1, 1).into(), 1, 1
       )?
   ))
   -> relu
   -> (|h: &Tensor| functions::convolution(
       h, &parameter("cpd/cpd3_conv/I", &[2, 4, 1, 1])?, None,
       &functions::ConvGeometry::new(
           h.dims(), &(1, 1).into(), &(0, 0).into(), &(1, 1).into(), &(1, 1).into(), 1, 1
       )?
   ))
   -> (|h: &Tensor| functions::convolution(
       h, &parameter("cpd/cpd3_conv/K", &[2, 3, 3])?.unsqueeze(1)?, None,
       &functions::ConvGeometry::depthwise(
           h.dims(), &(3, 3).into(), &(0, 0).into(), &(1, 1).into(), &(1, 1).into(), 1
       )?
   ))
   -> (|h: &Tensor| functions::convolution(
       h, &parameter("cpd/cpd3_conv/O", &[3, 2, 1, 1])?, Some(&parameter("cpd/cpd3_conv/b", &[3])?),
       &functions::ConvGeometry::new(
           h.dims(), &(1, 1).into(), &(0, 0).into(), &(1, 1).into(), &(1, 1).into(), 1, 1
       )?
   ))
   -> relu -> (|h: &Tensor| functions::affine(h, &parameter("low/svd_affine/U", &[36, 2])?, None, 1))
   -> (|h: &Tensor| functions::affine(
       h, &parameter("low/svd_affine/V", &[2, 4])?, Some(&parameter("low/svd_affine/b", &[4])?), 1
   )) >
}

/// A parameter of a function that is not a layer.
fn parameter(path: &str, shape: &[usize]) -> Result<Tensor> {
    let is_trained = layerfn::get_parameter(path).is_none_or(|parameter| parameter.need_grad());
    layerfn::get_parameter_or_create(path).shape(shape).need_grad(is_trained).call()
}
