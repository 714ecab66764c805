//! Differentiable functions from tensors to tensors, without parameters or scopes.
//!
//! These are NNabla's `F.*`, as far as layers need them. Each function has its own gradient, since several of
//! candle's are wrong or missing; inputs may be `f32`, `f64`, `f16` or `bf16` (half precisions are computed in
//! `f32`) and need not be contiguous. Invalid input is an [`Error`](crate::Error), never a panic. On the CPU,
//! results do not depend on the number of threads; on other devices, each function is a composition of candle's
//! operations.

pub(crate) mod activation;
mod affine;
mod arithmetic;
pub(crate) mod arrange;
pub(crate) mod attention;
mod cell;
mod clip;
mod comparison;
mod composed;
mod convolution;
mod create;
mod deformable;
mod elementary;
mod embed;
mod factorization;
mod geometry;
pub(crate) mod graph;
mod inq;
mod interpolate;
mod join;
mod lookup;
mod loss;
mod lstm;
mod matrices;
mod metrics;
mod min_max;
mod node;
mod normalization;
mod operation;
mod parts;
mod places;
mod pointwise;
pub(crate) mod pooling;
pub(crate) mod position;
mod quantization;
mod recurrent;
mod reduce;
mod relu;
mod reparameterization;
mod row_normalization;
mod shape;
mod sort;
mod standardize;
mod sum;

pub use activation::{
    binary_sigmoid, binary_tanh, celu, crelu, elu, gelu, gelu_exact, hard_sigmoid, hard_tanh, leaky_relu,
    log_sigmoid, log_softmax, mish, prelu, relu6, selu, selu_with, sigmoid, silu, softmax, softplus,
    softplus_with, softsign, tanh, tanh_shrink,
};
pub use affine::affine;
pub(crate) use affine::affine_then;
pub use arithmetic::{
    add_n, add_scalar, add2, atan2, div2, maximum_scalar, maximum2, minimum_scalar, minimum2, mul_scalar,
    mul2, pow_scalar, pow2, r_div_scalar, r_pow_scalar, r_sub_scalar, sub2,
};
pub use arrange::{
    BorderMode, PadMode, broadcast, flip, pad, shift, slice, swapaxes, tile, transpose, unpooling,
};
pub use attention::scaled_dot_product_attention;
pub use clip::{Limit, clip_by_norm, clip_by_value, clip_grad_by_norm, clip_grad_by_value};
pub use comparison::{
    equal, equal_scalar, greater, greater_equal, greater_equal_scalar, greater_scalar, isinf, isnan, less,
    less_equal, less_equal_scalar, less_scalar, logical_and, logical_not, logical_or, logical_xor, not_equal,
    not_equal_scalar, reset_inf, reset_nan, where_cond,
};
pub use convolution::{convolution, deconvolution};
pub(crate) use convolution::{convolution_then, deconvolution_then};
pub use create::{arange, constant};
pub(crate) use deformable::Deformable;
pub use deformable::deformable_convolution;
pub use elementary::{
    abs, acos, acosh, asin, asinh, atan, atanh, ceil, cos, cosh, erf, exp, floor, identity, log, round, sign,
    sin, sinc, sinh, tan,
};
pub(crate) use embed::check_indices;
pub use embed::embed;
pub use factorization::{Cpd3Options, check_rank, cpd3_factors, svd_factors, svd_factors_by_map};
pub use geometry::{ConvGeometry, DeconvGeometry, channels_first};
pub use inq::{Inq, InqStep, SelectionAlgorithm};
pub use interpolate::{Interpolation, InterpolationMode, interpolate};
pub use join::{concatenate, split, stack};
pub use lookup::{gather, gather_nd, one_hot, scatter_nd};
pub use loss::{
    absolute_error, binary_cross_entropy, binary_error, categorical_cross_entropy, epsilon_insensitive_loss,
    huber_loss, kl_multinomial, mean_softmax_cross_entropy, mean_squared_error, sigmoid_cross_entropy,
    softmax_cross_entropy, squared_error,
};
pub use lstm::lstm_cell;
pub use matrices::{batch_matmul, matrix_diag, matrix_diag_part};
pub use metrics::top_n_error;
pub use min_max::{MinMax, MinMaxQuantized};
pub use normalization::{batch_normalization, batch_normalization_by, subtract_mean};
pub(crate) use normalization::{
    batch_normalization_among, batch_normalization_by_then, batch_normalization_then, sample_mean,
};
pub use pooling::{average_pooling, global_average_pooling, max_pooling, sum_pooling};
pub use position::{add_position_embedding, rotary_position_embedding};
pub use quantization::{
    BinaryWeight, FixedPoint, Pow2, Prune, Transform, binary_connect, binary_weight, straight_through,
};
pub(crate) use recurrent::Layers;
pub use recurrent::{Nonlinearity, gru, gru_cell, lstm, rnn};
pub use reduce::{
    cumsum, max, max_with_index, mean, min, min_with_index, norm, norm_normalization, prod, reduce_mean,
    reduce_sum, sum,
};
pub(crate) use relu::add;
pub use relu::relu;
pub(crate) use reparameterization::{check_itr, weight_norms};
pub use reparameterization::{spectral_norm, weight_normalization};
pub(crate) use row_normalization::RowNormalization;
pub use row_normalization::{
    group_normalization, instance_normalization, layer_normalization, rms_normalization,
};
pub use shape::{flatten, reshape, unlink};
pub use sort::{sort, sort_with_index};
pub use standardize::{tensor_normalization, weight_standardization};
