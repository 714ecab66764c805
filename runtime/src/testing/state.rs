//! What a layer keeps: in files, and in the modes in which nothing may move.

use super::report::{Property, Report};
use super::runs::tell;
use super::subject::{Fault, Point, Subject, changed, differences};
use crate::checkpoint::{Checkpoint, Format, Load};
use crate::{ParameterStore, Result, no_grad};

pub(super) fn files(subject: &Subject<'_>, report: &mut Report) {
    let point = match subject.point(1, false) {
        Ok(point) => point,
        Err(fault) => return report.fail(Property::Files, fault.to_string()),
    };
    if point.store.parameters().is_empty() {
        return report.skip(Property::Files, "the layer has no parameters");
    }
    for extension in Format::extensions() {
        match reloaded(subject, &point, extension) {
            Ok(None) => {}
            Ok(Some(difference)) => {
                report.fail(Property::Files, format!("saved as .{extension} and loaded: {difference}"));
            }
            Err(fault) => report.fail(Property::Files, format!("saved as .{extension} and loaded: {fault}")),
        }
    }
}

fn reloaded(subject: &Subject<'_>, point: &Point, extension: &str) -> Result<Option<String>, Fault> {
    let format = Format::from_path(format!("layer.{extension}"))?;
    let bytes = Checkpoint::from_parameters(&point.store.parameters())?.to_bytes(format)?;
    let store = ParameterStore::with_seed(1);
    Load::new(Checkpoint::from_bytes(format, &bytes)?).create_unknown(true).apply_to(&store, "")?;
    if let Some(difference) = changed(&store, &point.store)? {
        return Ok(Some(difference));
    }
    let (got, want) = (subject.run(&store, &point.inputs, false)?, subject.run_at(point)?);
    Ok(differences(&got, &want, 0.0)?)
}

pub(super) fn test_mode(subject: &Subject<'_>, report: &mut Report) {
    let tested = || -> Result<Option<String>, Fault> {
        let point = subject.point(1, false)?;
        let before = point.store.deep_copy()?;
        let y = no_grad(|| subject.run(&point.store, &point.inputs, false))?;
        if let Some(i) = y.iter().position(|y| y.track_op()) {
            return Ok(Some(format!("inside `no_grad` output {i} has a graph")));
        }
        if let Some(difference) = changed(&point.store, &before)? {
            return Ok(Some(format!("a run moves {difference}")));
        }
        let again = subject.run(&point.store, &point.inputs, false)?;
        Ok(differences(&again, &y, 0.0)?.map(|difference| format!("a second run: {difference}")))
    };
    tell(Property::TestMode, false, tested(), report);
    let frozen = || -> Result<Option<String>, Fault> {
        let point = subject.point(1, true)?;
        if point.store.parameters().is_empty() {
            return Ok(None);
        }
        point.store.freeze("**")?;
        let before = point.store.deep_copy()?;
        let y = subject.run(&point.store, &point.inputs, true)?;
        if let Some(i) = y.iter().position(|y| y.track_op()) {
            return Ok(Some(format!("with everything frozen output {i} has a graph")));
        }
        Ok(changed(&point.store, &before)?.map(|difference| format!("frozen, a run moves {difference}")))
    };
    tell(Property::TestMode, true, frozen(), report);
}
