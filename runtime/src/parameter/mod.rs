//! Parameters: the store, the current scope, and what layers say of themselves.

mod info;
pub(crate) mod scope;
pub(crate) mod store;

pub use info::{ArgumentInfo, LayerInfo, ParameterInfo, ParametricFunction};
pub use scope::{
    GetParameterOrCreate, clear_parameters, current_parameter_scope, full_precision, get_all_parameters,
    get_parameter, get_parameter_or_create, get_parameters, initial_value, no_grad, parameter_scope,
    pop_parameter, set_parameter,
};
pub use store::{Parameter, ParameterStore, Parameters};
