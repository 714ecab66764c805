//! Everything a model needs, in one `use`.

pub use candle_core::{DType, Device, Module, ModuleT, Tensor};

pub use crate::checkpoint::{load_parameters, save_parameters};
pub use crate::functions::{
    elu, gelu, global_average_pooling, hard_sigmoid, leaky_relu, log_softmax, mean_softmax_cross_entropy,
    mean_squared_error, relu, selu, sigmoid, sigmoid_cross_entropy, silu, softmax, softmax_cross_entropy,
    softplus, squared_error, tanh,
};
pub use crate::parametric_functions::calls::*;
pub use crate::parametric_functions::{
    average_pooling, dropout, flatten, interpolate, max_pooling, pad, rotary_position_embedding,
    scaled_dot_product_attention, sum_pooling, unpooling,
};
pub use crate::solver::Solver;
pub use crate::{
    Axes, Axis, Dims, Error, Initializer, Model, Network, ParameterStore, PerAxis, Result, Rng, WeightFn,
    avg_pool, backward, bn, conv, get_all_parameters, get_parameters, is_training, max_pool, network,
    no_grad, parameter_scope, parametric_function, test_mode,
};
