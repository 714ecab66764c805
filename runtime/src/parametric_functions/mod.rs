//! The parametric functions: thin annotated functions, one family a file.

mod affine;
mod attention;
mod binary;
mod convolution;
mod deformable;
mod embed;
mod factorized;
mod inq;
mod lstm;
mod multi_head_attention;
mod normalization;
mod position;
mod prelu;
mod quantized;
mod recurrent;
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
pub use multi_head_attention::*;
pub use normalization::*;
pub use position::*;
pub use prelu::*;
pub use quantized::*;
pub use recurrent::*;
pub use row_normalization::*;
pub use stages::*;
pub use transformer::*;

use candle_core::Tensor;

use crate::{Axis, Error, LayerInfo, Result, check};

/// Every parametric function of the crate, in the order of NNabla's documentation, newer ones behind.
pub const LAYERS: &[&LayerInfo] = &[
    Affine::INFO,
    Convolution::INFO,
    DepthwiseConvolution::INFO,
    Deconvolution::INFO,
    DepthwiseDeconvolution::INFO,
    BatchNormalization::INFO,
    MeanSubtraction::INFO,
    Embed::INFO,
    Prelu::INFO,
    SvdAffine::INFO,
    SvdConvolution::INFO,
    Cpd3Convolution::INFO,
    BinaryConnectAffine::INFO,
    BinaryConnectConvolution::INFO,
    BinaryWeightAffine::INFO,
    BinaryWeightConvolution::INFO,
    InqAffine::INFO,
    InqConvolution::INFO,
    FixedPointQuantizedAffine::INFO,
    FixedPointQuantizedConvolution::INFO,
    Pow2QuantizedAffine::INFO,
    Pow2QuantizedConvolution::INFO,
    PrunedAffine::INFO,
    PrunedConvolution::INFO,
    Lstm::INFO,
    Rnn::INFO,
    Gru::INFO,
    LstmNStep::INFO,
    GruCell::INFO,
    FusedBatchNormalization::INFO,
    SyncBatchNormalization::INFO,
    LayerNormalization::INFO,
    GroupNormalization::INFO,
    InstanceNormalization::INFO,
    RmsNormalization::INFO,
    DeformableConvolution::INFO,
    MultiHeadAttention::INFO,
    Transformer::INFO,
    TransformerEncode::INFO,
    TransformerDecode::INFO,
    LearnedPositionEmbedding::INFO,
];

/// The inputs of a recurrent cell, whose states must be `(batch_size, state_size)`, checked before it makes a parameter.
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

/// Whether the input of a recurrent layer and its states are of one type that is computed with.
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

/// Inputs and outputs of an affine layer for each sample, checked before it makes a parameter.
fn affine_sizes(inp: &Tensor, base_axis: Axis, n_outmaps: &[usize]) -> Result<[usize; 2]> {
    check::input("inp", inp)?;
    let (samples, sample) = inp.dims().split_at(base_axis.split("base_axis", inp.dims())?);
    let (inmaps, outmaps) = (check::count("inp", sample)?, check::count("n_outmaps", n_outmaps)?);
    check::tensor("n_outmaps", &[inmaps, outmaps], inp.dtype())?;
    check::tensor_of("n_outmaps", &[samples, &[outmaps]], inp.dtype())?;
    Ok([inmaps, outmaps])
}
