//! The parametric functions: thin annotated functions, one family a file.

mod affine;
mod binary;
mod convolution;
mod embed;
mod factorized;
mod inq;
mod lstm;
mod normalization;
mod prelu;
mod quantized;
mod stages;

pub use affine::*;
pub use binary::*;
pub use convolution::*;
pub use embed::*;
pub use factorized::*;
pub use inq::*;
pub use lstm::*;
pub use normalization::*;
pub use prelu::*;
pub use quantized::*;
pub use stages::*;

use candle_core::Tensor;

use crate::{Error, LayerInfo, Result};

/// Every parametric function of the crate, in the order of the specification.
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
];

/// The axes of the samples and those of each sample.
fn split_at(inp: &Tensor, base_axis: usize) -> Result<(&[usize], &[usize])> {
    inp.dims().split_at_checked(base_axis).ok_or_else(|| {
        let reason = format!("must be at most the rank of the input {:?}", inp.dims());
        Error::invalid("base_axis", reason, base_axis)
    })
}

/// Elements of each sample.
fn sample_size(inp: &Tensor, base_axis: usize) -> Result<usize> {
    Ok(split_at(inp, base_axis)?.1.iter().product())
}
