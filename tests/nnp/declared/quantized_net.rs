//! The network `net` of the file `quantized.nnp`, declared by `layerfn declare`.
//!
//! | input | shape |
//! | --- | --- |
//! | `x` | [-1, 2, 6, 6] |
//!
//! -1 is the size of the batch. The parameters are those of the file:
//!
//! ```text
//! load_parameters("quantized.nnp")?;
//! let y = net(&x)?;
//! ```

use layerfn::functions;
use layerfn::prelude::*;

network! {
    /// Gives `y`.
    pub fn net() |x|
    < (|h: &Tensor| functions::convolution(
       h,
       &functions::Transform::apply(
           &functions::FixedPoint { sign: true, n: 4, delta: 0.125, ste_fine_grained: true },
           &parameter("fp/fp_quantized_conv/W", &[4, 2, 3, 3])?
       )?,
       Some(
           &functions::Transform::apply(
               &functions::FixedPoint { sign: true, n: 8, delta: 0.0625, ste_fine_grained: true },
               &parameter("fp/fp_quantized_conv/b", &[4])?
           )?
       ),
       &functions::ConvGeometry::new(
           h.dims(), &(3, 3).into(), &(0, 0).into(), &(1, 1).into(), &(1, 1).into(), 1, 1
       )?
   ))
   -> relu
   -> (|h: &Tensor| functions::Transform::apply(
       &functions::FixedPoint { sign: false, n: 6, delta: 0.125, ste_fine_grained: true }, h
   ))
   -> (|h: &Tensor| functions::convolution(
       h,
       &functions::Transform::apply(
           &functions::Pow2 { sign: true, with_zero: false, n: 4, m: 0, ste_fine_grained: true },
           &parameter("p2/pow2_quantized_conv/W", &[3, 4, 3, 3])?
       )?,
       Some(
           &functions::Transform::apply(
               &functions::Pow2 { sign: true, with_zero: false, n: 8, m: 2, ste_fine_grained: true },
               &parameter("p2/pow2_quantized_conv/b", &[3])?
           )?
       ),
       &functions::ConvGeometry::new(
           h.dims(), &(3, 3).into(), &(0, 0).into(), &(2, 2).into(), &(1, 1).into(), 1, 1
       )?
   ))
   -> tanh
   -> (|h: &Tensor| functions::affine(
       h,
       &functions::Transform::apply(
           &functions::Prune { rate: 0.5 }, &parameter("pruned/pruned_affine/W", &[3, 6])?
       )?,
       Some(
           &functions::Transform::apply(
               &functions::Prune { rate: 0.25 }, &parameter("pruned/pruned_affine/b", &[6])?
           )?
       ),
       1
   ))
   -> (|h: &Tensor| functions::affine(
       h,
       &min_max_quantize(
           &parameter("mm/min_max_quantized_affine/W", &[6, 4])?
       ).name("mm/min_max_quantized_affine/min_max_quantize_w").call()?,
       Some(
           &min_max_quantize(
               &parameter("mm/min_max_quantized_affine/b", &[4])?
           ).name("mm/min_max_quantized_affine/min_max_quantize_b").call()?
       ),
       1
   )) >
}

/// A parameter of a function that is not a layer.
fn parameter(path: &str, shape: &[usize]) -> Result<Tensor> {
    let is_trained = layerfn::get_parameter(path).is_none_or(|parameter| parameter.need_grad());
    layerfn::get_parameter_or_create(path).shape(shape).need_grad(is_trained).call()
}
