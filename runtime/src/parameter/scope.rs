//! The current scope of the thread: which store, which path, which flags.

use std::cell::RefCell;
use std::panic::Location;
use std::rc::Rc;

use candle_core::{DType, Device, Tensor};

use super::info::{LayerInfo, ParameterInfo};
use super::store::{Parameter, ParameterStore, Parameters, Place, Request, segments};
use crate::{Dims, Error, Initializer, Result};

/// What a layer called now on this thread sees.
struct Context {
    store: ParameterStore,
    path: String,
    /// Where the scope at `path`, or one around it, lies in the store.
    place: Place,
    flags: Flags,
    observer: Option<Rc<dyn Observer>>,
    relu: Relu,
}

/// Whether a layer may apply the `relu` that follows it in a network.
#[derive(Clone, Copy)]
enum Relu {
    Apart,
    /// The layer that is called next may, if it is this one.
    OfferedTo(&'static LayerInfo),
    Taken,
}

/// Is told of the layers that run on the thread; networks check and record their runs with it.
///
/// It may be told while the context is borrowed, so it must not look at it.
pub(crate) trait Observer {
    /// A layer's scope, `path`, has been entered; an error here is the layer's.
    fn layer_begins(&self, path: &str, info: &'static LayerInfo) -> Result<()>;

    /// Whether it wants to know of parameters.
    fn wants_parameters(&self) -> bool;

    /// The layer has found or made a parameter.
    fn takes_parameter(&self, path: &str, parameter: &Parameter);

    /// The layer that began last has ended, with an error or a panic perhaps.
    fn layer_ends(&self, info: &'static LayerInfo);
}

/// Makes `observer` the thread's and returns the one before.
pub(crate) fn set_observer(observer: Option<Rc<dyn Observer>>) -> Option<Rc<dyn Observer>> {
    with(|context| std::mem::replace(&mut context.observer, observer))
}

#[derive(Clone)]
struct Flags {
    /// Parameters are taken detached: inside `no_grad` or a call with `fix_parameters`.
    detached: bool,
    /// Type and device of parameters made now: those of the layer's input.
    dtype: DType,
    device: Device,
    /// Where the outermost layer was called.
    called_at: Option<&'static Location<'static>>,
    /// Whether the layer that runs now may apply the `relu` that follows it.
    may_apply_relu: bool,
}

impl Flags {
    fn new() -> Self {
        Self {
            detached: false,
            dtype: DType::F32,
            device: Device::Cpu,
            called_at: None,
            may_apply_relu: false,
        }
    }
}

impl Flags {
    /// The tensor of the parameter asked for, as it can stand beside the input.
    fn fit(&self, request: &Request<'_>, tensor: Tensor) -> Result<Tensor> {
        // Outside of a layer there is no input to stand beside.
        if self.called_at.is_some() && !tensor.device().same_device(&self.device) {
            let (path, lives) = (request.path(), tensor.device().location());
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

thread_local! {
    static CONTEXT: RefCell<Context> = RefCell::new(Context {
        store: ParameterStore::new(),
        path: String::new(),
        place: Place::default(),
        flags: Flags::new(),
        observer: None,
        relu: Relu::Apart,
    });
}

/// Looks at the context; user code never runs inside.
fn with<R>(f: impl FnOnce(&mut Context) -> R) -> R {
    CONTEXT.with_borrow_mut(f)
}

/// Restores what it holds when dropped, on an early return and a panic too.
pub(crate) struct Restore {
    store: Option<ParameterStore>,
    path: Path,
    flags: Option<Flags>,
}

enum Path {
    /// The scope entered lies below: cut it off.
    Below(usize, (usize, usize)),
    Whole(String, Place),
}

impl Drop for Restore {
    fn drop(&mut self) {
        with(|context| {
            if let Some(store) = self.store.take() {
                context.store = store;
            }
            match &mut self.path {
                Path::Below(length, depth) => {
                    context.path.truncate(*length);
                    context.place.truncate(*depth);
                }
                Path::Whole(path, place) => {
                    context.path = std::mem::take(path);
                    context.place = std::mem::take(place);
                }
            }
            if let Some(flags) = self.flags.take() {
                context.flags = flags;
            }
        });
    }
}

pub(crate) fn current_store() -> ParameterStore {
    with(|context| context.store.clone())
}

pub(super) fn enter_store<R>(store: &ParameterStore, f: impl FnOnce() -> R) -> R {
    let _restore = with(|context| Restore {
        store: Some(std::mem::replace(&mut context.store, store.clone())),
        path: Path::Whole(std::mem::take(&mut context.path), std::mem::take(&mut context.place)),
        flags: Some(std::mem::replace(&mut context.flags, Flags::new())),
    });
    f()
}

/// Appends `name` to the path until the guard is dropped. The scope gets its place in the order when a layer or a
/// parameter comes to stand in it, so that a name without parameters leaves nothing behind.
pub(crate) fn enter_unclaimed(name: &str) -> Restore {
    with(|context| {
        let path = Path::Below(context.path.len(), context.place.depth());
        append(&mut context.path, name);
        Restore { store: None, path, flags: None }
    })
}

fn append(path: &mut String, name: &str) {
    for segment in segments(name) {
        if !path.is_empty() {
            path.push('/');
        }
        path.push_str(segment);
    }
}

/// Appends `scopes` to the path and takes over `flags`, until the guard is dropped.
fn enter(context: &mut Context, scopes: &[&str], flags: Option<Flags>) -> Restore {
    let length = context.path.len();
    let path = Path::Below(length, context.place.depth());
    scopes.iter().for_each(|scope| append(&mut context.path, scope));
    if context.path.len() > length {
        context.store.claim_scope(&context.path, &mut context.place);
    }
    let flags = flags.map(|flags| std::mem::replace(&mut context.flags, flags));
    Restore { store: None, path, flags }
}

/// Runs `f` with parameters registered and looked up under `name`, below the scope that is current.
///
/// Scopes nest, and `"a/b"` is the same as `"a"` and `"b"` nested. Empty parts do not count. What was current
/// before is restored after `f`, on an early return and a panic too.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use layerfn::{affine, get_parameters, parameter_scope};
///
/// let x = Tensor::zeros((4, 3), DType::F32, &Device::Cpu)?;
/// parameter_scope("network1/head", || affine(&x, 2).call())?;
/// assert!(get_parameters().get("network1/head/affine/W").is_some());
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn parameter_scope<R>(name: impl AsRef<str>, f: impl FnOnce() -> R) -> R {
    let _restore = with(|context| enter(context, &[name.as_ref()], None));
    f()
}

/// The path of the current scope; empty at the root.
#[must_use]
pub fn current_parameter_scope() -> String {
    with(|context| context.path.clone())
}

/// Runs `f` with every parameter taken detached: no gradient flows to any, whatever its `need_grad`.
pub fn no_grad<R>(f: impl FnOnce() -> R) -> R {
    let _restore = with(|context| {
        let flags = Flags { detached: true, ..context.flags.clone() };
        enter(context, &[], Some(flags))
    });
    f()
}

/// Runs `f` with the parameters of layers of half precision made and taken in `f32`: for statistics that add up many small
/// numbers.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use layerfn::{batch_normalization, get_parameter};
///
/// let x = Tensor::ones((4, 3), DType::BF16, &Device::Cpu)?;
/// batch_normalization(&x).call()?; // takes `mean` by `full_precision(|| param!(mean))?`
/// assert_eq!(get_parameter("bn/gamma").unwrap().var().dtype(), DType::BF16);
/// assert_eq!(get_parameter("bn/mean").unwrap().var().dtype(), DType::F32);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn full_precision<R>(f: impl FnOnce() -> R) -> R {
    let _restore = with(|context| {
        let mut flags = context.flags.clone();
        if matches!(flags.dtype, DType::F16 | DType::BF16) {
            flags.dtype = DType::F32;
        }
        enter(context, &[], Some(flags))
    });
    f()
}

/// The trainable parameters of the current scope, by their path in it; see [`ParameterStore::parameters`] for
/// their order.
#[must_use]
pub fn get_parameters() -> Parameters {
    get_all_parameters().into_iter().filter(|(_, parameter)| parameter.need_grad()).collect()
}

/// The parameters of the current scope, those with `need_grad` false too.
///
/// A name that starts with `_` is private state of its layer: it is saved and loaded with the others and found by
/// [`get_parameter`], but not listed.
#[must_use]
pub fn get_all_parameters() -> Parameters {
    let listed = |path: &str| !path.rsplit('/').next().is_some_and(|name| name.starts_with('_'));
    parameters_with_state().into_iter().filter(|(path, _)| listed(path)).collect()
}

/// All parameters of the current scope, private state too: what is saved.
pub(crate) fn parameters_with_state() -> Parameters {
    with(|context| context.store.parameters_under(&context.path))
}

/// The parameter at `path` in the current scope.
#[must_use]
pub fn get_parameter(path: &str) -> Option<Parameter> {
    with(|context| context.store.get(&join(&context.path, path)))
}

/// Registers `parameter` at `path` in the current scope, in place of the one there.
///
/// # Errors
/// [`Error::PathConflict`] if `path` or a part of it is taken by a scope or a parameter.
#[track_caller]
pub fn set_parameter(path: &str, parameter: Parameter) -> Result<()> {
    let (store, path) = with(|context| (context.store.clone(), join(&context.path, path)));
    store.set(&path, parameter)
}

/// Removes and returns the parameter at `path` in the current scope.
pub fn pop_parameter(path: &str) -> Option<Parameter> {
    with(|context| context.store.pop(&join(&context.path, path)))
}

/// Removes every parameter of the current scope.
pub fn clear_parameters() {
    with(|context| context.store.clear_under(&context.path));
}

pub(super) fn join(scope: &str, path: &str) -> String {
    let mut joined = String::with_capacity(scope.len() + 1 + path.len());
    append(&mut joined, scope);
    append(&mut joined, path);
    joined
}

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
        take(&self.name, self.need_grad, self.as_need_grad, asked_at, || shape, || self.initializer)
    }
}

/// The path of `name` in the current scope.
fn current_path(name: &str) -> String {
    with(|context| join(&context.path, name))
}

/// The one way to a parameter's tensor.
fn take(
    name: &str,
    need_grad: bool,
    as_need_grad: Option<bool>,
    asked_at: &'static Location<'static>,
    shape: impl FnOnce() -> Vec<usize>,
    initial: impl FnOnce() -> Initializer,
) -> Result<Tensor> {
    let shape = shape();
    let tracked = as_need_grad.unwrap_or(need_grad);
    let found = with(|Context { store, path, place, flags, observer, .. }| {
        let asked_at = flags.called_at.unwrap_or(asked_at);
        let request = Request { scope: path, name, shape: &shape, need_grad, asked_at };
        let observer = observer.as_ref().filter(|observer| observer.wants_parameters());
        let found = store.get_checked(&request, place, |parameter| {
            if let Some(observer) = observer {
                observer.takes_parameter(&request.path(), parameter);
            }
            parameter.tensor(tracked && !flags.detached)
        });
        found?.map(|tensor| flags.fit(&request, tensor)).transpose()
    });
    if let Some(tensor) = found? {
        return Ok(tensor);
    }
    let (store, scope, flags) =
        with(|context| (context.store.clone(), context.path.clone(), context.flags.clone()));
    let asked_at = flags.called_at.unwrap_or(asked_at);
    let request = Request { scope: &scope, name, shape: &shape, need_grad, asked_at };
    let path = request.path();
    let initial = initial();
    let stream = || store.stream(&path, &shape, initial.key());
    let value = initial
        .generate(&shape, flags.dtype, &flags.device, stream)
        .map_err(|error| initializer_of(&path, error))?;
    let parameter = store.insert_new(&request, &value)?;
    if let Some(observer) = with(|context| context.observer.clone()) {
        observer.takes_parameter(&path, &parameter);
    }
    flags.fit(&request, parameter.tensor(tracked && !flags.detached))
}

/// The first value that a parameter `name` of this shape would have in the current scope; nothing is registered.
///
/// For layers whose parameters follow from another tensor, as the factors of a weight do.
///
/// # Errors
/// Those of [`Initializer::generate`].
pub fn initial_value(name: &str, shape: &[usize], initializer: &Initializer) -> Result<Tensor> {
    let (store, path, flags) =
        with(|context| (context.store.clone(), join(&context.path, name), context.flags.clone()));
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

/// What the code generated for a layer says of one call.
#[derive(Clone, Copy)]
pub struct LayerCall<'a> {
    /// The layer.
    pub info: &'static LayerInfo,
    /// The scope around the layer's own.
    pub name: Option<&'a str>,
    /// Whether its parameters are taken detached.
    pub fix_parameters: bool,
    /// The tensor whose type and device new parameters get.
    pub like: Option<&'a Tensor>,
}

/// Runs the body of a layer in its scope and says in an error where it happened.
///
/// # Errors
/// Those of the body, as [`Error::InLayer`].
#[track_caller]
pub fn call_layer<T>(call: LayerCall<'_>, body: impl FnOnce() -> Result<T>) -> Result<T> {
    let called_at = Location::caller();
    let (_restore, observer) = with(|context| {
        let mut flags = context.flags.clone();
        flags.detached |= call.fix_parameters;
        flags.called_at.get_or_insert(called_at);
        let offer = std::mem::replace(&mut context.relu, Relu::Apart);
        flags.may_apply_relu = matches!(offer, Relu::OfferedTo(layer) if std::ptr::eq(layer, call.info));
        if let Some(like) = call.like {
            flags.device = like.device().clone();
            flags.dtype = if like.dtype().is_float() { like.dtype() } else { DType::F32 };
        }
        let scopes = [call.name.unwrap_or_default(), call.info.scope];
        (enter(context, &scopes, Some(flags)), context.observer.clone())
    });
    let observed = LayerEnds(observer, call.info);
    let begun = match &observed.0 {
        Some(observer) => with(|context| observer.layer_begins(&context.path, call.info)),
        None => Ok(()),
    };
    begun.and_then(|()| body()).map_err(|error| match error {
        within @ Error::InLayer { .. } => within,
        other => {
            Error::InLayer { path: current_parameter_scope(), layer: call.info.name, source: Box::new(other) }
        }
    })
}

/// Offers the layer that is called next to apply the `relu` that follows it; withdrawn when dropped.
pub(crate) struct ReluOffer {
    before: Relu,
}

impl ReluOffer {
    pub(crate) fn to(layer: &'static LayerInfo) -> Self {
        Self { before: with(|context| std::mem::replace(&mut context.relu, Relu::OfferedTo(layer))) }
    }

    /// Whether the layer has applied it.
    pub(crate) fn is_taken(&self) -> bool {
        with(|context| matches!(context.relu, Relu::Taken))
    }
}

impl Drop for ReluOffer {
    fn drop(&mut self) {
        with(|context| context.relu = self.before);
    }
}

/// Whether the layer that runs now is to return `relu` of its output, since a network goes on with that: asked at its end.
pub(crate) fn then_relu() -> bool {
    with(|context| {
        if context.flags.may_apply_relu {
            context.relu = Relu::Taken;
        }
        context.flags.may_apply_relu
    })
}

/// Tells the observer when dropped.
struct LayerEnds(Option<Rc<dyn Observer>>, &'static LayerInfo);

impl Drop for LayerEnds {
    fn drop(&mut self) {
        if let Some(observer) = &self.0 {
            observer.layer_ends(self.1);
        }
    }
}

/// The declared parameter of the layer that runs now.
///
/// # Errors
/// Those of [`GetParameterOrCreate::call`].
#[track_caller]
pub fn parameter(
    info: &'static ParameterInfo,
    shape: impl FnOnce() -> Vec<usize>,
    initial: impl FnOnce() -> Initializer,
) -> Result<Tensor> {
    take(info.name, info.need_grad, None, Location::caller(), shape, initial)
}

/// As [`parameter`], if the declared condition holds.
///
/// # Errors
/// Those of [`parameter`].
#[track_caller]
pub fn parameter_when(
    condition: bool,
    info: &'static ParameterInfo,
    shape: impl FnOnce() -> Vec<usize>,
    initial: impl FnOnce() -> Initializer,
) -> Result<Option<Tensor>> {
    if condition { parameter(info, shape, initial).map(Some) } else { Ok(None) }
}

/// Overwrites the values of a declared parameter of the layer that runs now.
///
/// # Errors
/// [`Error::NoParameter`] if `param!` has not made it yet; [`Error::InvalidArgument`] for another shape.
pub fn assign(info: &'static ParameterInfo, value: &Tensor) -> Result<()> {
    let path = current_path(info.name);
    match get_parameter(info.name) {
        Some(parameter) => parameter.assign(&path, value),
        None => Err(Error::NoParameter { path, nearest: None }),
    }
}

/// Appends `sizes` to a shape.
pub fn splice(shape: &mut Vec<usize>, sizes: &(impl AsRef<[usize]> + ?Sized)) {
    shape.extend_from_slice(sizes.as_ref());
}
