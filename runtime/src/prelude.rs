//! What a model needs, in one `use`.

pub use candle_core::{DType, Device, Module, ModuleT, Tensor};

pub use crate::checkpoint::{load_parameters, save_parameters};
pub use crate::functions::{
    elu, gelu, global_average_pooling, hard_sigmoid, leaky_relu, log_softmax, mean_softmax_cross_entropy,
    mean_squared_error, relu, selu, sigmoid, sigmoid_cross_entropy, silu, softmax, softmax_cross_entropy,
    softplus, squared_error, tanh,
};
pub use crate::parametric_functions::{
    affine, average_pooling, batch_normalization, binary_connect_affine, binary_connect_convolution,
    binary_weight_affine, binary_weight_convolution, convolution, cpd3_convolution, deconvolution,
    deformable_convolution, depthwise_convolution, depthwise_deconvolution, dropout, embed,
    fixed_point_quantized_affine, fixed_point_quantized_convolution, flatten, fused_batch_normalization,
    group_normalization, gru, gru_cell, inq_affine, inq_convolution, instance_normalization, interpolate,
    layer_normalization, learned_position_embedding, lstm, lstm_n_step, max_pooling, mean_subtraction,
    multi_head_attention, pad, pow2_quantized_affine, pow2_quantized_convolution, prelu, pruned_affine,
    pruned_convolution, rms_normalization, rnn, rotary_position_embedding, scaled_dot_product_attention,
    sum_pooling, svd_affine, svd_convolution, sync_batch_normalization, transformer, transformer_decode,
    transformer_encode, unpooling,
};
pub use crate::solver::Solver;
pub use crate::{
    Axes, Axis, Dims, Error, Initializer, Model, Network, ParameterStore, PerAxis, Result, Rng, avg_pool,
    backward, bn, conv, get_all_parameters, get_parameters, is_training, max_pool, network, no_grad,
    parameter_scope, parametric_function, test_mode,
};
