//! Parameters, scopes and initial values: what every layer stands on.

mod attention;
mod candle_modules;
mod compare;
mod context;
mod initial_values;
mod initializers;
mod kept;
mod layers;
mod limits;
mod lists;
mod parameter_api;
mod random;
mod refused_calls;
mod store;
mod sums;
mod texts;
mod weight_fn;

use candle_core::{DType, Device, Tensor};

/// Zeros on the CPU.
fn zeros(shape: &[usize], dtype: DType) -> Tensor {
    Tensor::zeros(shape, dtype, &Device::Cpu).expect("zeros")
}
