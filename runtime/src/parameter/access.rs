//! The parameters of the current scope, by path.

use super::path::join;
use super::values::{Parameter, Parameters};
use crate::Result;
use crate::context::with;

/// The trainable parameters of the current scope, by their path in it; see
/// [`ParameterStore::parameters`](crate::ParameterStore::parameters) for their order.
#[must_use]
pub fn get_parameters() -> Parameters {
    get_all_parameters().into_iter().filter(|(_, parameter)| parameter.need_grad()).collect()
}

/// The parameters of the current scope, including those with `need_grad` false.
///
/// A name that starts with `_` is private state of its layer: it is saved and loaded with the others, and
/// [`get_parameter`] finds it, but it is not listed.
#[must_use]
pub fn get_all_parameters() -> Parameters {
    let listed = |path: &str| !path.rsplit('/').next().is_some_and(|name| name.starts_with('_'));
    parameters_with_state().into_iter().filter(|(path, _)| listed(path)).collect()
}

/// All parameters of the current scope, including private state: everything that is saved.
pub(crate) fn parameters_with_state() -> Parameters {
    with(|state| state.store.parameters_under(&state.path))
}

/// The parameter at `path` in the current scope.
#[must_use]
pub fn get_parameter(path: &str) -> Option<Parameter> {
    with(|state| state.store.get(&join(&state.path, path)))
}

/// Registers `parameter` at `path` in the current scope, replacing an existing one.
///
/// # Errors
/// [`Error::PathConflict`](crate::Error::PathConflict) if `path` or a prefix of it is taken by a scope or a
/// parameter; [`Error::InvalidArgument`](crate::Error::InvalidArgument) if no file could contain `path`.
#[track_caller]
pub fn set_parameter(path: &str, parameter: Parameter) -> Result<()> {
    let (store, path) = with(|state| (state.store.clone(), join(&state.path, path)));
    store.set(&path, parameter)
}

/// Removes and returns the parameter at `path` in the current scope.
pub fn pop_parameter(path: &str) -> Option<Parameter> {
    with(|state| state.store.pop(&join(&state.path, path)))
}

/// Removes every parameter of the current scope.
pub fn clear_parameters() {
    with(|state| state.store.clear_under(&state.path));
}
