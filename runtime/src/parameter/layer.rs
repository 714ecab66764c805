//! Calls of layers: the runtime part of the code that is generated for a layer.

use std::ops::Range;
use std::panic::Location;
use std::sync::Arc;

use candle_core::{DType, Tensor};

use super::create::{Asked, take};
use super::info::{LayerInfo, ParameterInfo};
use super::path::join;
use super::scope::current_parameter_scope;
use super::store::lock;
use super::values::Parameter;
use crate::context::{Restore, State, with};
use crate::run::Observer;
use crate::{Error, Initializer, Result};

/// Description of one call, from the generated code.
#[derive(Clone, Copy)]
pub struct LayerCall<'a> {
    /// The layer.
    pub info: &'static LayerInfo,
    /// The scope around that of the layer.
    pub name: Option<&'a str>,
    /// Whether its parameters are taken detached.
    pub fix_parameters: bool,
    /// The tensor whose type and device new parameters get.
    pub like: Option<&'a Tensor>,
}

/// Runs the body of a layer in its scope, and adds the layer to its errors.
///
/// # Errors
/// Those of the body, as [`Error::InLayer`].
#[track_caller]
pub fn call_layer<T>(call: LayerCall<'_>, body: impl FnOnce() -> Result<T>) -> Result<T> {
    let (mut ends, _restore) = begin_layer(call, Location::caller());
    let result = layer_begins(call.info).and_then(|()| body()).map_err(|error| in_layer(call.info, error));
    ends.succeeded = result.is_ok();
    result
}

fn begin_layer(call: LayerCall<'_>, called_at: &'static Location<'static>) -> (LayerEnds, Restore) {
    let mut ends = LayerEnds { info: call.info, outermost: false, n_created: 0, succeeded: false };
    let restore = with(|state| {
        (ends.outermost, ends.n_created) = (state.flags.called_at.is_none(), state.created.len());
        let mut flags = state.flags.clone();
        flags.detached_around = flags.detached;
        flags.detached |= call.fix_parameters;
        flags.called_at.get_or_insert(called_at);
        if let Some(like) = call.like {
            flags.device = like.device().clone();
            flags.dtype = if like.dtype().is_float() { like.dtype() } else { DType::F32 };
        }
        let scopes = [call.name.unwrap_or_default(), call.info.scope];
        state.enter(&scopes, Some(flags))
    });
    (ends, restore)
}

fn layer_begins(info: &'static LayerInfo) -> Result<()> {
    with(|State { run, position, path, .. }| match run {
        Some(run) => run.layer_begins(position, path, info),
        None => Ok(()),
    })
}

/// Adds the layer to the error, unless it already names one.
fn in_layer(info: &'static LayerInfo, error: Error) -> Error {
    match error {
        within @ Error::InLayer { .. } => within,
        other => {
            Error::InLayer { path: current_parameter_scope(), layer: info.name, source: Box::new(other) }
        }
    }
}

/// When dropped, notifies the run and removes the parameters that a failed call has created.
struct LayerEnds {
    info: &'static LayerInfo,
    outermost: bool,
    /// Number of parameters that the outer layers have created in this call.
    n_created: usize,
    succeeded: bool,
}

impl Drop for LayerEnds {
    fn drop(&mut self) {
        let kept = if self.succeeded && !self.outermost { usize::MAX } else { self.n_created };
        let ended = with(|State { run, position, created, .. }| {
            if let Some(run) = run {
                run.layer_ends(position, self.info);
            }
            if created.len() > kept { created.split_off(kept) } else { Vec::new() }
        });
        if !self.succeeded {
            for (store, path) in ended {
                drop(store.pop(&path));
            }
        }
    }
}

/// The declared parameter of the running layer.
///
/// # Errors
/// Those of [`GetParameterOrCreate::call`](crate::GetParameterOrCreate::call).
#[track_caller]
pub fn parameter(
    info: &'static ParameterInfo,
    shape: impl FnOnce() -> Vec<usize>,
    initial: impl FnOnce() -> Initializer,
) -> Result<Tensor> {
    let asked = Asked {
        name: info.name,
        need_grad: info.need_grad,
        overwrites: false,
        as_need_grad: (!info.need_grad).then_some(false),
        asked_at: Location::caller(),
    };
    take(asked, shape, || Ok(initial()))
}

/// One of a declared list of parameters of the running layer.
///
/// # Errors
/// [`Error::InvalidArgument`] if the list has no such parameter; those of [`parameter`].
#[track_caller]
pub fn parameter_at(
    info: &'static ParameterInfo,
    index: usize,
    indices: Range<usize>,
    shape: impl FnOnce(usize) -> Vec<usize>,
    initial: impl FnOnce(usize) -> Initializer,
) -> Result<Tensor> {
    let name = numbered(info, index, &indices)?;
    let asked = Asked {
        name: &name,
        need_grad: info.need_grad,
        overwrites: false,
        as_need_grad: (!info.need_grad).then_some(false),
        asked_at: Location::caller(),
    };
    take(asked, || shape(index), || Ok(initial(index)))
}

/// The name of one of a list of parameters.
fn numbered(info: &'static ParameterInfo, index: usize, indices: &Range<usize>) -> Result<String> {
    if indices.contains(&index) {
        return Ok(format!("{}{index}", info.name));
    }
    let path = join(&current_parameter_scope(), info.name);
    let reason = format!("must be one of the numbers {indices:?} of the parameters `{path}`");
    Err(Error::invalid("index", reason, index))
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

/// Overwrites the values of a declared parameter of the running layer; a frozen one is left unchanged.
///
/// # Errors
/// [`Error::NoParameter`] if `param!` has not made it yet; [`Error::InvalidArgument`] for another shape.
pub fn assign(info: &'static ParameterInfo, value: &Tensor) -> Result<()> {
    let (store, scope, fixed) = with(|state| (state.store.clone(), state.path.clone(), state.flags.fixed));
    let (version, [parameter]) = store.state(&scope, [info.name])?;
    if fixed || parameter.is_frozen() {
        return Ok(());
    }
    let value = parameter.prepared(&join(&scope, info.name), value)?;
    let mut version = lock(&version);
    *version += 1;
    parameter.set(&value)
}

/// As [`assign`], for one of a list.
///
/// # Errors
/// Those of [`assign`], and [`Error::InvalidArgument`] if the list has no such parameter.
pub fn assign_at(
    info: &'static ParameterInfo,
    index: usize,
    indices: Range<usize>,
    value: &Tensor,
) -> Result<()> {
    let name = numbered(info, index, &indices)?;
    update_state([name.as_str()], |_| Ok([value.clone()])).map(drop)
}

/// Passes the caller's arguments to the recorder of the run, if there is one; they are only computed then.
pub fn tell_arguments<const N: usize>(arguments: impl FnOnce() -> [(&'static str, Option<String>); N]) {
    if let Some(observer) = observer() {
        let given = arguments()
            .into_iter()
            .filter_map(|(name, text)| Some((name.strip_prefix("r#").unwrap_or(name), text?)));
        observer.layer_has_arguments(given.collect());
    }
}

/// Passes the number of multiply-adds of the layer to the recorder of the run: the product of the factors.
pub fn note_multiply_adds(factors: impl FnOnce() -> Vec<usize>) {
    if let Some(observer) = observer() {
        let product =
            factors().into_iter().fold(1, |product: u64, factor| product.saturating_mul(factor as u64));
        observer.layer_multiplies(product);
    }
}

fn observer() -> Option<Arc<dyn Observer>> {
    with(|state| state.run.as_ref()?.observer.clone())
}

/// Updates parameters that a layer keeps from call to call, such as running statistics, in one step: `f`
/// receives the values of the named parameters of the current scope and computes the next ones, which are
/// returned.
///
/// Many threads may run the layer at once without losing a step: `f` is called again if another thread was
/// faster. The result is `None`, and nothing is changed, if one of the parameters is
/// [frozen](crate::ParameterStore::freeze) or the layer runs inside something frozen.
///
/// ```
/// use candle_core::Tensor;
/// use layerfn::{Result, parametric_function, update_state};
///
/// /// Counts its calls.
/// #[parametric_function(
///     scope = "counter",
///     params(
///         /// Number of calls.
///         #[need_grad(false)]
///         n: [1] = 0.0,
///     )
/// )]
/// fn counter(
///     /// Input.
///     inp: &Tensor,
/// ) -> Result<Tensor> {
///     param!(n)?;
///     update_state(["n"], |[n]| Ok([(n + 1.0)?]))?;
///     Ok(inp.clone())
/// }
///
/// let x = Tensor::new(&[1f32], &candle_core::Device::Cpu)?;
/// counter(&x).call()?;
/// counter(&x).call()?;
/// assert_eq!(layerfn::get_parameter("counter/n").unwrap().var().to_vec1::<f32>()?, [2.0]);
/// # Ok::<(), layerfn::Error>(())
/// ```
///
/// # Errors
/// Those of `f`; [`Error::NoParameter`] if one of the parameters does not exist yet; [`Error::InvalidArgument`]
/// for a value of another shape. Nothing is changed then.
pub fn update_state<const N: usize>(
    names: [&str; N],
    f: impl Fn([Tensor; N]) -> Result<[Tensor; N]>,
) -> Result<Option<[Tensor; N]>> {
    let (store, scope, flags) = with(|state| (state.store.clone(), state.path.clone(), state.flags.clone()));
    let (version, parameters) = store.state(&scope, names)?;
    if flags.fixed || parameters.iter().any(Parameter::is_frozen) {
        return Ok(None);
    }
    loop {
        let (before, seen) = {
            let version = lock(&version);
            (parameters.each_ref().map(Parameter::snapshot), *version)
        };
        let mut fitting = Vec::with_capacity(N);
        for (value, name) in before.into_iter().zip(names) {
            fitting.push(flags.fit(value?, || join(&scope, name))?);
        }
        let Ok(fitting) = fitting.try_into() else { return Ok(None) };
        let after: [Tensor; N] = f(fitting)?;
        let mut prepared = Vec::with_capacity(N);
        for ((parameter, value), name) in parameters.iter().zip(&after).zip(names) {
            prepared.push(parameter.prepared(&join(&scope, name), value)?);
        }
        let mut version = lock(&version);
        if *version == seen {
            *version += 1;
            for (parameter, value) in parameters.iter().zip(&prepared) {
                parameter.set(value)?;
            }
            return Ok(Some(after));
        }
    }
}

/// Appends `sizes` to a shape.
pub fn splice(shape: &mut Vec<usize>, sizes: &(impl AsRef<[usize]> + ?Sized)) {
    shape.extend_from_slice(sizes.as_ref());
}
