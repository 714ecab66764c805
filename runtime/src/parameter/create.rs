//! Parameters that are created on first use.

use std::panic::Location;

use candle_core::Tensor;

use super::access::get_parameter;
use super::path::join;
use super::store::Request;
use crate::context::{Flags, State, with};
use crate::{Dims, Error, Initializer, Result, told};

/// A parameter of the current scope, created on first use: [`call`](Self::call) returns its tensor.
#[must_use = "nothing is registered before `.call()?`"]
pub struct GetParameterOrCreate {
    name: String,
    shape: Option<Dims>,
    initializer: Initializer,
    need_grad: bool,
    as_need_grad: Option<bool>,
}

/// Returns the parameter `name` of the current scope, which is created if it does not exist.
///
/// ```
/// use layerfn::{Initializer, get_parameter_or_create};
///
/// let w = get_parameter_or_create("W").shape((3, 4)).initializer(Initializer::normal(0.1)).call()?;
/// assert_eq!(w.dims(), [3, 4]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn get_parameter_or_create(name: impl Into<String>) -> GetParameterOrCreate {
    GetParameterOrCreate {
        name: name.into(),
        shape: None,
        initializer: Initializer::constant(0.0),
        need_grad: true,
        as_need_grad: None,
    }
}

impl GetParameterOrCreate {
    /// Sets the shape; may be left out if the parameter exists or the initializer is a tensor.
    pub fn shape(mut self, shape: impl Into<Dims>) -> Self {
        self.shape = Some(shape.into());
        self
    }

    /// Sets the initial value. Default: zeros.
    pub fn initializer(mut self, initializer: impl Into<Initializer>) -> Self {
        self.initializer = initializer.into();
        self
    }

    /// Sets whether the parameter is registered as trainable; on an existing one, the flag is overwritten and
    /// the values are kept. Default: true.
    pub fn need_grad(mut self, need_grad: bool) -> Self {
        self.need_grad = need_grad;
        self
    }

    /// Sets whether the returned tensor is tracked, without changing the registered flag. Default: as
    /// registered.
    pub fn as_need_grad(mut self, as_need_grad: bool) -> Self {
        self.as_need_grad = Some(as_need_grad);
        self
    }

    /// Finds or creates the parameter.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] if it exists with another shape; [`Error::InvalidArgument`] if it does not exist and
    /// no shape is known; [`Error::PathConflict`] if the name belongs to a scope.
    #[track_caller]
    pub fn call(self) -> Result<Tensor> {
        let asked_at = Location::caller();
        let shape = match (&self.shape, self.initializer.array(), get_parameter(&self.name)) {
            (Some(shape), ..) => shape.to_vec(),
            (None, Some(array), _) => array.dims().to_vec(),
            (None, None, Some(parameter)) => parameter.var().dims().to_vec(),
            (None, None, None) => {
                let reason = "is needed unless the parameter exists or the initializer is a tensor";
                return Err(Error::invalid("shape", reason, "none"));
            }
        };
        let Self { need_grad, as_need_grad, .. } = self;
        let asked = Asked { name: &self.name, need_grad, overwrites: true, as_need_grad, asked_at };
        take(asked, || shape, || Ok(self.initializer))
    }
}

/// The parameter `name` of the current scope, for use outside of layers; `need_grad` and `initial` apply if it
/// does not exist yet.
///
/// # Errors
/// As [`GetParameterOrCreate::call`], and those of `initial`.
#[track_caller]
pub(crate) fn named_parameter(
    name: &str,
    shape: &[usize],
    need_grad: bool,
    initial: impl FnOnce() -> Result<Initializer>,
) -> Result<Tensor> {
    let asked_at = Location::caller();
    let asked = Asked { name, need_grad, overwrites: false, as_need_grad: None, asked_at };
    take(asked, || shape.to_vec(), initial)
}

/// A request for a parameter.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) name: &'a str,
    pub(super) need_grad: bool,
    /// As in [`Request`].
    pub(super) overwrites: bool,
    /// Whether the tensor is tracked, whatever is registered.
    pub(super) as_need_grad: Option<bool>,
    pub(super) asked_at: &'static Location<'static>,
}

/// Returns a parameter's tensor; everything that takes one goes through here.
pub(super) fn take(
    asked: Asked<'_>,
    shape: impl FnOnce() -> Vec<usize>,
    initial: impl FnOnce() -> Result<Initializer>,
) -> Result<Tensor> {
    let shape = shape();
    let tensor = match find(asked, &shape)? {
        Some(tensor) => tensor,
        None => make(asked, &shape, &initial()?)?,
    };
    told::parameter(&tensor, || with(|State { path, .. }| join(path, asked.name)));
    Ok(tensor)
}

/// The tensor of an existing parameter.
fn find(asked: Asked<'_>, shape: &[usize]) -> Result<Option<Tensor>> {
    let Asked { name, need_grad, overwrites, as_need_grad, asked_at } = asked;
    with(|State { store, path, place, flags, run, .. }| {
        let asked_at = flags.called_at.unwrap_or(asked_at);
        let request = Request { scope: path, name, shape, need_grad, overwrites, asked_at };
        let observer = run.as_ref().and_then(|run| run.observer.as_ref());
        let found = store.get_checked(&request, place, |parameter| {
            if let Some(observer) = observer {
                let trained = parameter.need_grad() && !flags.detached;
                observer.takes_parameter(&request.path(), parameter, trained);
            }
            parameter.tensor(as_need_grad.unwrap_or(parameter.need_grad()) && !flags.detached)
        });
        found?.map(|tensor| flags.fit(tensor, || request.path())).transpose()
    })
}

/// The tensor of a new parameter.
fn make(asked: Asked<'_>, shape: &[usize], initial: &Initializer) -> Result<Tensor> {
    let Asked { name, need_grad, overwrites, as_need_grad, asked_at } = asked;
    let (store, scope, flags, run) =
        with(|state| (state.store.clone(), state.path.clone(), state.flags.clone(), state.run.clone()));
    let asked_at = flags.called_at.unwrap_or(asked_at);
    let request = Request { scope: &scope, name, shape, need_grad, overwrites, asked_at };
    let path = request.path();
    let stream = || store.stream(&path, shape, initial.key());
    let value = initial
        .generate(shape, flags.dtype, &flags.device, stream)
        .map_err(|error| initializer_of(&path, error))?;
    let parameter = store.insert_new(&request, &value)?;
    if flags.called_at.is_some() {
        with(|state| state.created.push((store, path.clone())));
    }
    let trained = parameter.need_grad() && !flags.detached;
    if let Some(observer) = run.as_ref().and_then(|run| run.observer.as_ref()) {
        observer.takes_parameter(&path, &parameter, trained);
    }
    let tracked = as_need_grad.unwrap_or(parameter.need_grad()) && !flags.detached;
    flags.fit(parameter.tensor(tracked), || path)
}

impl Flags {
    /// Converts the tensor of the parameter for use with the input.
    pub(super) fn fit(&self, tensor: Tensor, path: impl FnOnce() -> String) -> Result<Tensor> {
        // Outside of a layer there is no input.
        if self.called_at.is_some() && !tensor.device().same_device(&self.device) {
            let (path, lives) = (path(), tensor.device().location());
            return Err(Error::InvalidArgument {
                argument: "inp",
                reason: format!(
                    "must be where parameter `{path}` is, on {lives:?}; move it, or the store by `to_device`"
                ),
                got: format!("an input on {:?}", self.device.location()),
            });
        }
        // A parameter in another precision than the input is converted to the input's.
        Ok(if tensor.dtype() == self.dtype { tensor } else { tensor.to_dtype(self.dtype)? })
    }
}

/// The initial value that a parameter `name` of this shape would have in the current scope; nothing is
/// registered.
///
/// For layers whose parameters are derived from another tensor, such as the factors of a weight.
///
/// # Errors
/// Those of [`Initializer::generate`].
pub fn initial_value(name: &str, shape: &[usize], initializer: &Initializer) -> Result<Tensor> {
    let (store, path, flags) =
        with(|state| (state.store.clone(), join(&state.path, name), state.flags.clone()));
    initializer
        .generate(shape, flags.dtype, &flags.device, || store.stream(&path, shape, initializer.key()))
        .map_err(|error| initializer_of(&path, error))
}

/// Adds the parameter to an error of its initializer.
fn initializer_of(path: &str, error: Error) -> Error {
    match error {
        Error::InvalidArgument { argument: argument @ "initializer", reason, got } => {
            Error::InvalidArgument { argument, reason: format!("of `{path}` {reason}"), got }
        }
        other => other,
    }
}
