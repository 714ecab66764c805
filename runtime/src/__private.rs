//! All that generated code may name; not part of the public interface.

pub use candle_core::Tensor;

pub use crate::parameter::scope::{LayerCall, assign, call_layer, parameter, parameter_when, splice};
pub use crate::{ArgumentInfo, Initializer, LayerInfo, ParameterInfo, ParametricFunction, Result};
