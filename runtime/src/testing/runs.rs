//! Runs that must be equal: of one seed, one after the other, and on several threads.

use std::thread;

use super::report::{Property, Report};
use super::subject::{Fault, Subject, changed, differences, mode_name};
use crate::kernels::with_threads;
use crate::{ParameterStore, Result};

pub(super) fn determinism(subject: &Subject<'_>, report: &mut Report) {
    for training in [true, false] {
        let compared = || -> Result<Option<String>, Fault> {
            let inputs = subject.inputs(1)?;
            let [a, b] = [ParameterStore::with_seed(7), ParameterStore::with_seed(7)];
            let y = subject.run(&a, &inputs, training)?;
            let again = subject.run(&b, &inputs, training)?;
            if let Some(difference) = changed(&b, &a)? {
                return Ok(Some(format!("two runs of one seed: {difference}")));
            }
            if let Some(difference) = differences(&again, &y, 0.0)? {
                return Ok(Some(format!("two runs of one seed: {difference}")));
            }
            let point = subject.point(1, training)?;
            let y = subject.run_at(&point)?;
            subject.run_with(&point, &subject.inputs(2)?)?;
            let again = subject.run_at(&point)?;
            let difference = differences(&again, &y, 0.0)?;
            Ok(difference
                .map(|d| format!("after a run on another input, with the parameters as before: {d}")))
        };
        tell(Property::Determinism, training, compared(), report);
    }
}

pub(super) fn threads(subject: &Subject<'_>, report: &mut Report) {
    for training in [true, false] {
        let compared = || -> Result<Option<String>, Fault> {
            let point = subject.point(1, training)?;
            let want = with_threads(1, || subject.run_at(&point))?;
            let got = with_threads(3, || subject.run_at(&point))?;
            if let Some(difference) = differences(&got, &want, 0.0)? {
                return Ok(Some(format!("three threads for the kernels: {difference}")));
            }
            // At once: in training each with a copy, in test mode all with the same parameters.
            let run = || {
                if training {
                    subject.run_at(&point)
                } else {
                    subject.run(&point.store, &point.inputs, false)
                }
            };
            let all: Vec<_> = thread::scope(|scope| {
                let started: Vec<_> = (0..4).map(|_| scope.spawn(run)).collect();
                started.into_iter().filter_map(|thread| thread.join().ok()).collect()
            });
            for got in all {
                if let Some(difference) = differences(&got?, &want, 0.0)? {
                    return Ok(Some(format!("four calls at once: {difference}")));
                }
            }
            Ok(None)
        };
        tell(Property::Threads, training, compared(), report);
    }
}

/// Reports what was found in one mode.
pub(super) fn tell(
    property: Property,
    training: bool,
    found: Result<Option<String>, Fault>,
    report: &mut Report,
) {
    let what = match found {
        Ok(None) => return,
        Ok(Some(what)) => what,
        Err(fault) => fault.to_string(),
    };
    report.fail(property, format!("in {} mode: {what}", mode_name(training)));
}
