//! Whose parameters there are: what layers declare, and who shares them.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::Tensor;

use super::report::{Property, Report};
use super::runs::tell;
use super::subject::{Fault, Subject, caught};
use crate::context::begin_run;
use crate::mode::with_mode;
use crate::run::Observer;
use crate::{Error, LayerInfo, Parameter, ParameterStore, Result, parameter_scope};

/// The layers that run, by path.
#[derive(Default)]
struct Layers(Mutex<Vec<(String, &'static LayerInfo)>>);

impl Observer for Layers {
    fn layer_begins(&self, path: &str, info: &'static LayerInfo, _outermost: bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((path.to_owned(), info));
    }

    fn takes_parameter(&self, _path: &str, _parameter: &Parameter, _trained: bool) {}

    fn layer_has_arguments(&self, _arguments: Vec<(&'static str, String)>) {}

    fn layer_multiplies(&self, _multiply_adds: u64) {}

    fn layer_ends(&self) {}
}

pub(super) fn declaration(subject: &Subject<'_>, report: &mut Report) {
    tell(Property::Declaration, true, as_declared(subject), report);
    tell(Property::Declaration, true, for_a_larger_batch(subject), report);
}

fn as_declared(subject: &Subject<'_>) -> Result<Option<String>, Fault> {
    let layers = Arc::new(Layers::default());
    let inputs = subject.inputs(1)?;
    let store = ParameterStore::new();
    caught(|| {
        store.enter(|| {
            let _run = begin_run(Some(layers.clone()));
            with_mode(true, || subject.call(&inputs)).map(drop)
        })
    })?;
    let layers = layers.0.lock().unwrap_or_else(PoisonError::into_inner);
    for (path, parameter) in store.parameters() {
        let (scope, name) = path.rsplit_once('/').unwrap_or(("", &path));
        let Some((_, info)) = layers.iter().find(|(layer, _)| layer == scope) else { continue };
        let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
        let is_named = |declared: &str, is_list: bool| declared == name || (is_list && declared == stem);
        let Some(declared) = info.parameters.iter().find(|p| is_named(p.name, p.index.is_some())) else {
            return Ok(Some(format!("`{}` makes `{path}`, which it does not declare", info.name)));
        };
        if declared.need_grad != parameter.need_grad() {
            let (want, got) = (declared.need_grad, parameter.need_grad());
            return Ok(Some(format!("`{path}` is declared with `need_grad({want})`, but has {got}")));
        }
        if super::subject::flat(parameter.var())?.iter().any(|x| !x.is_finite()) {
            return Ok(Some(format!("the first value of `{path}` has NaN or infinite numbers")));
        }
    }
    Ok(None)
}

fn for_a_larger_batch(subject: &Subject<'_>) -> Result<Option<String>, Fault> {
    let point = subject.point(1, true)?;
    let rows = point.inputs.first().and_then(|x| x.dims().first().copied());
    let doubled = |x: &Tensor| match x.dims().first() {
        Some(&n) if Some(n) == rows => Tensor::cat(&[x, x], 0),
        _ => Ok(x.clone()),
    };
    let inputs = point.inputs.iter().map(doubled).collect::<candle_core::Result<Vec<_>>>()?;
    match subject.run_with(&point, &inputs) {
        Err(Fault::Error(error)) if matches!(error.root(), Error::ShapeMismatch { .. }) => {
            Ok(Some(format!("another batch size: {error}")))
        }
        // Another refusal of a larger first axis may be right: it need not be the batch.
        Err(Fault::Error(_)) | Ok(_) => Ok(None),
        Err(fault) => Err(fault),
    }
}

pub(super) fn names(subject: &Subject<'_>, report: &mut Report) {
    let compared = || -> Result<Option<String>, Fault> {
        let inputs = subject.inputs(1)?;
        let store = ParameterStore::new();
        for scope in ["one", "two"] {
            caught(|| {
                store.enter(|| parameter_scope(scope, || with_mode(true, || subject.call(&inputs)))).map(drop)
            })?;
        }
        let all = store.parameters();
        if let Some(path) = all.paths().find(|path| !path.starts_with("one/") && !path.starts_with("two/")) {
            return Ok(Some(format!("`{path}` lies outside of the scope that the layer is called in")));
        }
        let (one, two) = (all.under("one"), all.under("two"));
        if one.paths().ne(two.paths()) {
            return Ok(Some(format!(
                "the second call has other parameters: {:?}",
                two.paths().collect::<Vec<_>>()
            )));
        }
        let shared = one.iter().find(|(_, a)| two.iter().any(|(_, b)| a.var().id() == b.var().id()));
        Ok(shared.map(|(path, _)| format!("calls in two scopes share `{path}`")))
    };
    tell(Property::Names, true, compared(), report);
}
