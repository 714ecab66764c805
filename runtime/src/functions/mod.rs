//! Differentiable functions: tensors in, tensors out; no parameters, no scope.
//!
//! What NNabla calls `F.*`, as far as layers need it. Each function has its own gradient, since several of candle's
//! are wrong or missing; inputs may be `f32`, `f64`, `f16` or `bf16` (the half precisions are computed in `f32`) and need
//! not be contiguous. Bad input is an [`Error`](crate::Error), never a panic. On the CPU, results do not depend on the number
//! of threads; on other devices each function is a composition of candle's operations.

pub(crate) mod activation;
mod affine;
mod composed;
mod convolution;
mod embed;
mod factorization;
mod geometry;
pub(crate) mod graph;
mod inq;
mod loss;
mod lstm;
mod node;
mod normalization;
mod operation;
mod pointwise;
pub(crate) mod pooling;
mod quantization;
mod relu;
mod row_normalization;
mod sum;

pub use activation::{
    elu, gelu, hard_sigmoid, leaky_relu, log_softmax, prelu, selu, sigmoid, silu, softmax, softplus, tanh,
};
pub use affine::affine;
pub(crate) use affine::affine_then;
pub use convolution::{convolution, deconvolution};
pub(crate) use convolution::{convolution_then, deconvolution_then};
pub(crate) use embed::check_indices;
pub use embed::embed;
pub use factorization::{Cpd3Options, check_rank, cpd3_factors, svd_factors, svd_factors_by_map};
pub use geometry::{ConvGeometry, DeconvGeometry};
pub use inq::{Inq, InqStep, SelectionAlgorithm};
pub use loss::{
    mean_softmax_cross_entropy, mean_squared_error, sigmoid_cross_entropy, softmax_cross_entropy,
    squared_error,
};
pub use lstm::lstm_cell;
pub use normalization::{batch_normalization, batch_normalization_by, subtract_mean};
pub(crate) use normalization::{batch_normalization_by_then, batch_normalization_then, sample_mean};
pub use pooling::global_average_pooling;
pub use quantization::{
    BinaryWeight, FixedPoint, Pow2, Prune, Transform, binary_connect, binary_weight, straight_through,
};
pub(crate) use relu::add;
pub use relu::relu;
pub(crate) use row_normalization::RowNormalization;
pub use row_normalization::{
    group_normalization, instance_normalization, layer_normalization, rms_normalization,
};
