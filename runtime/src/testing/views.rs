//! Inputs that lie in memory in unusual ways, and batches of unusual size.

use candle_core::{DType, Tensor};

use super::gradients::slopes;
use super::report::{Property, Report};
use super::subject::{Fault, Point, Subject, differences, flat, mode_name};
use crate::Result;

type View = fn(&Tensor) -> Result<Tensor>;

/// What a view is called, how it is made, and the same values as they usually lie.
const VIEWS: [(&str, View); 4] = [
    ("with other strides", scattered),
    ("from the middle of a storage", offset),
    ("that repeat the first row", |x| repeated(x, 0)),
    ("that repeat the first element of the last axis", |x| repeated(x, x.rank().saturating_sub(1))),
];

pub(super) fn views(subject: &Subject<'_>, report: &mut Report) {
    let tolerance = if subject.dtype == DType::F64 { 1e-9 } else { 1e-4 };
    for training in [true, false] {
        for (name, view) in VIEWS {
            let compared = || -> Result<Option<String>, Fault> {
                let point = subject.point(1, training)?;
                let views = point.inputs.iter().map(view).collect::<Result<Vec<_>>>()?;
                let plain =
                    views.iter().map(Tensor::force_contiguous).collect::<candle_core::Result<Vec<_>>>()?;
                let (got, want) = (subject.run_with(&point, &views)?, subject.run_with(&point, &plain)?);
                Ok(differences(&got, &want, tolerance)?)
            };
            let mode = mode_name(training);
            match compared() {
                Ok(None) => {}
                Ok(Some(difference)) => {
                    report.fail(Property::Views, format!("inputs {name}, in {mode} mode: {difference}"));
                }
                Err(fault) => report.fail(Property::Views, format!("inputs {name}, in {mode} mode: {fault}")),
            }
        }
    }
}

/// The same values with strides as if the axes were stored in reverse order.
fn scattered(x: &Tensor) -> Result<Tensor> {
    if x.rank() < 2 {
        let rank = x.rank();
        return Ok(Tensor::stack(&[x, x], rank)?.narrow(rank, 1, 1)?.squeeze(rank)?);
    }
    let reversed: Vec<usize> = (0..x.rank()).rev().collect();
    Ok(x.permute(reversed.clone())?.contiguous()?.permute(reversed)?)
}

/// The same values from the middle of a larger storage on.
fn offset(x: &Tensor) -> Result<Tensor> {
    let (flat, n) = (x.flatten_all()?, x.elem_count());
    Ok(Tensor::cat(&[&flat, &flat], 0)?.narrow(0, n, n)?.reshape(x.dims())?)
}

/// The first place of `axis` at all of its places, in memory once.
fn repeated(x: &Tensor, axis: usize) -> Result<Tensor> {
    match x.dims().get(axis) {
        None | Some(0) => Ok(x.clone()),
        Some(_) => Ok(x.narrow(axis, 0, 1)?.contiguous()?.broadcast_as(x.dims())?),
    }
}

/// The inputs with some of the rows; those whose first axis is not that of the first input stay whole.
fn narrowed(inputs: &[Tensor], start: usize, n: usize) -> Result<Vec<Tensor>> {
    let rows = inputs.first().and_then(|x| x.dims().first().copied());
    let narrowed = |x: &Tensor| match x.dims().first() {
        Some(&size) if Some(size) == rows => Ok(x.narrow(0, start, n)?.contiguous()?),
        _ => Ok(x.clone()),
    };
    inputs.iter().map(narrowed).collect()
}

pub(super) fn empty_batch(subject: &Subject<'_>, report: &mut Report) {
    for training in [true, false] {
        if let Err(fault) = empty_at(subject, training, report) {
            report.fail(Property::EmptyBatch, format!("in {} mode: {fault}", mode_name(training)));
        }
    }
}

fn empty_at(subject: &Subject<'_>, training: bool, report: &mut Report) -> Result<(), Fault> {
    let point = subject.point(1, training)?;
    if point.inputs.first().is_none_or(|x| x.rank() == 0) {
        report.skip(Property::EmptyBatch, "the first input has no axis");
        return Ok(());
    }
    let inputs = narrowed(&point.inputs, 0, 0)?;
    let store = point.store.deep_copy()?;
    let outputs = match subject.run(&store, &inputs, training) {
        Ok(outputs) => outputs,
        // An error is an answer, if it leaves everything as it was.
        Err(Fault::Error(_)) => Vec::new(),
        Err(fault) => return Err(fault),
    };
    let is_finite = |x: &Tensor| -> Result<bool> { Ok(flat(x)?.iter().all(|x| x.is_finite())) };
    let mode = mode_name(training);
    for (i, y) in outputs.iter().enumerate() {
        if !is_finite(y)? {
            let what = format!("in {mode} mode output {i} has NaN or infinite numbers");
            report.fail(Property::EmptyBatch, what);
        }
    }
    for (path, parameter) in store.parameters() {
        let was_finite = point.store.get(&path).map_or(Ok(true), |p| is_finite(p.var()))?;
        if was_finite && !is_finite(parameter.var())? {
            let what = format!("in {mode} mode it makes `{path}` NaN or infinite");
            report.fail(Property::EmptyBatch, what);
        }
    }
    if !outputs.is_empty() {
        let point = Point { inputs, ..point };
        if let Err(Fault::Panic(text)) = slopes(subject, &point) {
            report.fail(Property::EmptyBatch, format!("the backward pass panics: {text}"));
        }
    }
    Ok(())
}

pub(super) fn rows(subject: &Subject<'_>, report: &mut Report) {
    let compared = || -> Result<Option<String>, Fault> {
        let point = subject.point(1, false)?;
        let n = point.inputs.first().and_then(|x| x.dims().first().copied()).unwrap_or(0);
        let all = subject.run_at(&point)?;
        for row in 0..n {
            let alone = subject.run_with(&point, &narrowed(&point.inputs, row, 1)?)?;
            let mut of_all = Vec::new();
            for y in &all {
                if y.dims().first() != Some(&n) {
                    return Ok(Some(format!(
                        "the first axis of an output of shape {:?} is not {n}",
                        y.dims()
                    )));
                }
                of_all.push(y.narrow(0, row, 1)?);
            }
            let tolerance = if subject.dtype == DType::F64 { 1e-9 } else { 1e-4 };
            if let Some(difference) = differences(&alone, &of_all, tolerance)? {
                return Ok(Some(format!("row {row} alone: {difference}")));
            }
        }
        Ok(None)
    };
    match compared() {
        Ok(None) => {}
        Ok(Some(difference)) => report.fail(Property::IndependentRows, difference),
        Err(fault) => report.fail(Property::IndependentRows, fault.to_string()),
    }
}
