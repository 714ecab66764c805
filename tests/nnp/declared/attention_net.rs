//! The network `net` of the file `attention.nnp`, declared by `layerfn declare`.
//!
//! | input | shape |
//! | --- | --- |
//! | `x` | [4, 2, 8] |
//! | `mask` | [4, 4] |
//!
//! -1 is the size of the batch. The parameters are those of the file:
//!
//! ```text
//! load_parameters("attention.nnp")?;
//! let y = net(&x, &mask)?;
//! ```

use layerfn::functions;
use layerfn::prelude::*;

network! {
    /// Gives `y`.
    pub fn net() |x, mask|
    < (|h: &Tensor| functions::affine(
       h, &parameter("block0/transformer_encode/src_self_attn/multi_head_attention/k_weight", &[8, 8])?,
       Some(&parameter("block0/transformer_encode/src_self_attn/multi_head_attention/k_bias", &[8])?), 2
   ))
   -> functions::reshape(&[4, 4, 4]) -> functions::transpose([1, 0, 2]) as transpose_out_1 -> use(mask)
   -> functions::reshape(&[1, 4, 4]) as reshape_out_2 -> use(x)
   -> (|h: &Tensor| functions::affine(
       h, &parameter("block0/transformer_encode/src_self_attn/multi_head_attention/v_weight", &[8, 8])?,
       Some(&parameter("block0/transformer_encode/src_self_attn/multi_head_attention/v_bias", &[8])?), 2
   ))
   -> functions::reshape(&[4, 4, 4]) -> functions::transpose([1, 0, 2]) as transpose_out_2 -> use(x)
   -> (|h: &Tensor| functions::affine(
       h, &parameter("cross/multi_head_attention/k_weight", &[8, 8])?,
       Some(&parameter("cross/multi_head_attention/k_bias", &[8])?), 2
   ))
   -> functions::reshape(&[4, 8, 2]) -> functions::transpose([1, 0, 2]) as transpose_out_5 -> use(x)
   -> (|h: &Tensor| functions::affine(
       h, &parameter("cross/multi_head_attention/v_weight", &[8, 8])?,
       Some(&parameter("cross/multi_head_attention/v_bias", &[8])?), 2
   ))
   -> functions::reshape(&[4, 8, 2]) -> functions::transpose([1, 0, 2]) as transpose_out_6 -> use(x)
   -> residual {
       (|h: &Tensor| functions::affine(
           h, &parameter("block0/transformer_encode/src_self_attn/multi_head_attention/q_weight", &[8, 8])?,
           Some(&parameter("block0/transformer_encode/src_self_attn/multi_head_attention/q_bias", &[8])?), 2
       ))
       -> functions::mul_scalar(0.5) -> functions::reshape(&[4, 4, 4]) -> functions::transpose([1, 0, 2])
       -> functions::batch_matmul(transpose_out_1, false, true) -> functions::add2(reshape_out_2)
       -> softmax(2) -> functions::batch_matmul(transpose_out_2, false, false)
       -> functions::transpose([1, 0, 2]) -> functions::reshape(&[4, 2, 8])
       -> (|h: &Tensor| functions::affine(
           h,
           &parameter("block0/transformer_encode/src_self_attn/multi_head_attention/out_weight", &[8, 8])?,
           Some(&parameter("block0/transformer_encode/src_self_attn/multi_head_attention/out_bias", &[8])?),
           2
       ))
   }
   -> block0: {
       transformer_encode: {
           enc_layer_norm1: layer_normalization(batch_axis = [0, 1])
           -> residual {
               enc_affine1: affine(6, base_axis = 2) -> gelu -> enc_affine2: affine(8, base_axis = 2)
           }
           -> enc_layer_norm2: layer_normalization(batch_axis = [0, 1])
       }
   }
   -> (|h: &Tensor| functions::affine(
       h, &parameter("cross/multi_head_attention/q_weight", &[8, 8])?,
       Some(&parameter("cross/multi_head_attention/q_bias", &[8])?), 2
   ))
   -> functions::mul_scalar(0.7071067811865476) -> functions::reshape(&[4, 8, 2])
   -> functions::transpose([1, 0, 2]) -> functions::batch_matmul(transpose_out_5, false, true) -> softmax(2)
   -> functions::batch_matmul(transpose_out_6, false, false) -> functions::transpose([1, 0, 2])
   -> functions::reshape(&[4, 2, 8])
   -> (|h: &Tensor| functions::affine(
       h, &parameter("cross/multi_head_attention/out_weight", &[8, 8])?,
       Some(&parameter("cross/multi_head_attention/out_bias", &[8])?), 2
   )) >
}

/// A parameter of a function that is not a layer.
fn parameter(path: &str, shape: &[usize]) -> Result<Tensor> {
    let is_trained = layerfn::get_parameter(path).is_none_or(|parameter| parameter.need_grad());
    layerfn::get_parameter_or_create(path).shape(shape).need_grad(is_trained).call()
}
