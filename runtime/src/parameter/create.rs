//! Parameters that are made on first use.

use std::panic::Location;

use candle_core::Tensor;

use super::access::get_parameter;
use super::path::join;
use super::store::Request;
use crate::context::{Flags, State, with};
use crate::{Dims, Error, Initializer, Result, told};

/// A parameter of the current scope, made on first use: [`call`](Self::call) gives its tensor.
#[must_use = "nothing is registered before `.call()?`"]
pub struct GetParameterOrCreate {
    name: String,
    shape: Option<Dims>,
    initializer: Initializer,
    need_grad: bool,
    as_need_grad: Option<bool>,
}

/// The parameter `name` of the current scope, which is made if it does not exist.
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
    /// Shape; may be left out if the parameter exists or the initializer is a tensor.
    pub fn shape(mut self, shape: impl Into<Dims>) -> Self {
        self.shape = Some(shape.into());
        self
    }

    /// First value. Default: zeros.
    pub fn initializer(mut self, initializer: impl Into<Initializer>) -> Self {
        self.initializer = initializer.into();
        self
    }

    /// Whether the parameter is registered as trainable; on an existing one the flag is overwritten and the values
    /// are kept. Default: true.
    pub fn need_grad(mut self, need_grad: bool) -> Self {
        self.need_grad = need_grad;
        self
    }

    /// Whether the tensor returned is tracked, leaving the registered flag alone. Default: as registered.
    pub fn as_need_grad(mut self, as_need_grad: bool) -> Self {
        self.as_need_grad = Some(as_need_grad);
        self
    }

    /// Finds or makes the parameter.
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

/// The parameter `name` of the current scope, for what is not a layer; `need_grad` and `initial` are for one that does not exist.
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

/// What is asked for.
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

/// The one way to a parameter's tensor.
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

/// The tensor of a parameter that there is.
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

/// The tensor of a parameter that is made now.
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
    /// The tensor of the parameter asked for, as it can stand beside the input.
    pub(super) fn fit(&self, tensor: Tensor, path: impl FnOnce() -> String) -> Result<Tensor> {
        // Outside of a layer there is no input to stand beside.
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
        // A parameter stored in another precision than the input's takes part in the input's.
        Ok(if tensor.dtype() == self.dtype { tensor } else { tensor.to_dtype(self.dtype)? })
    }
}

/// The first value that a parameter `name` of this shape would have in the current scope; nothing is registered.
///
/// For layers whose parameters follow from another tensor, as the factors of a weight do.
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

/// Says of which parameter the initializer was.
fn initializer_of(path: &str, error: Error) -> Error {
    match error {
        Error::InvalidArgument { argument: argument @ "initializer", reason, got } => {
            Error::InvalidArgument { argument, reason: format!("of `{path}` {reason}"), got }
        }
        other => other,
    }
}
