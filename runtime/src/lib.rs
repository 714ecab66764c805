//! Declarative neural-network layers.

// Generated code names the crate as its users do.
extern crate self as layerfn;

#[doc(hidden)]
pub mod __private;
mod dims;
mod error;
pub mod functions;
mod initializer;
mod kernels;
mod mode;
mod network;
mod parameter;
mod rng;

pub use dims::{Dims, PerAxis};
pub use error::{Error, Result};
#[doc = include_str!("macro_docs/parametric_function.md")]
pub use layerfn_macros::parametric_function;

pub use initializer::{
    Initializer, calc_normal_std_glorot, calc_normal_std_he_backward, calc_normal_std_he_forward,
    calc_normal_std_xavier, calc_uniform_lim_glorot, calc_uniform_lim_xavier,
};
pub use mode::{is_training, test_mode, train_mode};
/// Declares a network.
#[doc = include_str!("macro_docs/network.md")]
pub use layerfn_macros::network;
pub use network::{BoxedForward, IntoValue, Label, Network, Stage, Value};
pub use parameter::{
    ArgumentInfo, GetParameterOrCreate, LayerInfo, Parameter, ParameterInfo, ParameterStore, Parameters,
    ParametricFunction, clear_parameters, current_parameter_scope, get_all_parameters, get_parameter,
    get_parameter_or_create, get_parameters, no_grad, parameter_scope, pop_parameter, set_parameter,
};
pub use rng::Rng;
