//! The parametric functions: thin annotated functions, one family per file.

mod affine;
mod attention;
mod binary;
mod convolution;
mod deformable;
mod embed;
mod factorized;
mod inq;
mod lstm;
mod min_max;
mod multi_head_attention;
mod normalization;
mod position;
mod prelu;
mod quantized;
mod recurrent;
mod reparameterization;
mod row_normalization;
mod stages;
mod transformer;

pub use affine::*;
pub use attention::*;
pub use binary::*;
pub use convolution::*;
pub use deformable::*;
pub use embed::*;
pub use factorized::*;
pub use inq::*;
pub use lstm::*;
pub use min_max::*;
pub use multi_head_attention::*;
pub(crate) use normalization::moved_statistics;
pub use normalization::*;
pub use position::*;
pub use prelu::*;
pub use quantized::*;
pub use recurrent::*;
pub use reparameterization::*;
pub use row_normalization::*;
pub use stages::*;
pub use transformer::*;

use candle_core::Tensor;

use crate::{Axis, Error, LayerInfo, Result, WeightFn, check};

/// The list of the layers, from which the rest follows.
macro_rules! layers {
    ($($Layer:ident $function:ident,)+) => {
        /// Every parametric function of the crate, in the order of NNabla's documentation, followed by newer
        /// ones.
        pub const LAYERS: &[&LayerInfo] = &[$($Layer::INFO),+];

        /// The layers and the structures that hold their calls: for the crate's root.
        pub(crate) mod layers {
            pub use super::{$($Layer, $function),+};
        }

        /// The layers alone: for the prelude.
        pub(crate) mod calls {
            pub use super::{$($function),+};
        }
    };
}

layers! {
    Affine affine,
    Convolution convolution,
    DepthwiseConvolution depthwise_convolution,
    Deconvolution deconvolution,
    DepthwiseDeconvolution depthwise_deconvolution,
    BatchNormalization batch_normalization,
    MeanSubtraction mean_subtraction,
    Embed embed,
    Prelu prelu,
    SvdAffine svd_affine,
    SvdConvolution svd_convolution,
    Cpd3Convolution cpd3_convolution,
    BinaryConnectAffine binary_connect_affine,
    BinaryConnectConvolution binary_connect_convolution,
    BinaryWeightAffine binary_weight_affine,
    BinaryWeightConvolution binary_weight_convolution,
    InqAffine inq_affine,
    InqConvolution inq_convolution,
    FixedPointQuantizedAffine fixed_point_quantized_affine,
    FixedPointQuantizedConvolution fixed_point_quantized_convolution,
    Pow2QuantizedAffine pow2_quantized_affine,
    Pow2QuantizedConvolution pow2_quantized_convolution,
    PrunedAffine pruned_affine,
    PrunedConvolution pruned_convolution,
    Lstm lstm,
    Rnn rnn,
    Gru gru,
    LstmNStep lstm_n_step,
    GruCell gru_cell,
    FusedBatchNormalization fused_batch_normalization,
    SyncBatchNormalization sync_batch_normalization,
    LayerNormalization layer_normalization,
    GroupNormalization group_normalization,
    InstanceNormalization instance_normalization,
    RmsNormalization rms_normalization,
    DeformableConvolution deformable_convolution,
    MultiHeadAttention multi_head_attention,
    Transformer transformer,
    TransformerEncode transformer_encode,
    TransformerDecode transformer_decode,
    LearnedPositionEmbedding learned_position_embedding,
    WeightNormalization weight_normalization,
    SpectralNorm spectral_norm,
    MinMaxQuantize min_max_quantize,
    MinMaxQuantizedAffine min_max_quantized_affine,
    MinMaxQuantizedConvolution min_max_quantized_convolution,
}

/// The weight and the bias that a layer computes with: its own, or the results of the functions `apply_w` and
/// `apply_b`.
fn reparameterized(
    w: Result<Tensor>,
    b: impl FnOnce() -> Result<Option<Tensor>>,
    [apply_w, apply_b]: &[Option<WeightFn>; 2],
) -> Result<(Tensor, Option<Tensor>)> {
    let w = WeightFn::apply("apply_w", apply_w.as_ref(), w?)?;
    let b = b()?.map(|b| WeightFn::apply("apply_b", apply_b.as_ref(), b)).transpose()?;
    Ok((w, b))
}

/// Checks the inputs of a recurrent cell before it makes a parameter; the states must be `(batch_size,
/// state_size)`.
fn cell_sizes(x: &Tensor, states: &[(&'static str, &Tensor)], state_size: usize) -> Result<usize> {
    let &[batch_size, inmaps] = x.dims() else {
        return Err(Error::invalid("x", "must have the shape (batch_size, input_size)", x.dims()));
    };
    for (argument, state) in states {
        if state.dims() != [batch_size, state_size] {
            let reason =
                format!("must have the shape (batch_size, state_size) = ({batch_size}, {state_size})");
            return Err(Error::invalid(argument, reason, state.dims()));
        }
    }
    check_states(x, states)?;
    check::count("state_size", &[inmaps.saturating_add(state_size), 4, state_size])?;
    Ok(inmaps)
}

/// Checks that the input of a recurrent layer and its states have the same floating point type.
fn check_states(x: &Tensor, states: &[(&'static str, &Tensor)]) -> Result<()> {
    check::input("x", x)?;
    for (argument, state) in states {
        check::input(argument, state)?;
        if state.dtype() != x.dtype() {
            let reason = format!("must have the element type of `x`, {:?}", x.dtype());
            return Err(Error::invalid(argument, reason, state.dtype()));
        }
    }
    Ok(())
}

/// Number of inputs and outputs per sample of an affine layer, checked before it makes a parameter.
fn affine_sizes(inp: &Tensor, base_axis: Axis, n_outmaps: &[usize]) -> Result<[usize; 2]> {
    check::input("inp", inp)?;
    let (samples, sample) = inp.dims().split_at(base_axis.split("base_axis", inp.dims())?);
    let (inmaps, outmaps) = (check::count("inp", sample)?, check::count("n_outmaps", n_outmaps)?);
    check::tensor("n_outmaps", &[inmaps, outmaps], inp.dtype())?;
    check::tensor_of("n_outmaps", &[samples, &[outmaps]], inp.dtype())?;
    Ok([inmaps, outmaps])
}
