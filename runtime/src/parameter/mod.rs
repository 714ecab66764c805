//! Parameters: the store, the current scope, and descriptions of layers.

pub(crate) mod access;
mod candle_modules;
mod create;
mod info;
pub(crate) mod layer;
pub(crate) mod path;
pub(crate) mod scope;
pub(crate) mod shown;
pub(crate) mod store;
mod values;

pub use access::{
    clear_parameters, get_all_parameters, get_parameter, get_parameters, pop_parameter, set_parameter,
};
pub(crate) use create::named_parameter;
pub use create::{GetParameterOrCreate, get_parameter_or_create, initial_value};
pub use info::{ArgumentInfo, Family, LayerInfo, ParameterInfo, ParametricFunction};
pub use layer::update_state;
pub(crate) use scope::unfixed;
pub use scope::{current_parameter_scope, full_precision, no_grad, parameter_scope};
pub use store::ParameterStore;
pub use values::{Parameter, Parameters};
