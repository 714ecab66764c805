//! Types of numbers.

use candle_core::DType;

use super::gradients::slopes;
use super::report::{Property, Report};
use super::subject::{Fault, Subject, difference, differences};

/// How far results of a type may be from exact ones, of the largest element.
const TYPES: [(DType, f64); 3] = [(DType::F32, 1e-4), (DType::F16, 3e-2), (DType::BF16, 2e-1)];

pub(super) fn precisions(double: &Subject<'_>, single: &Subject<'_>, report: &mut Report) {
    if let Err(fault) = double.point(0, true) {
        return report.fail(Property::Precisions, format!("the layer runs in f32, but not in f64: {fault}"));
    }
    for (dtype, tolerance) in TYPES {
        if let Err(fault) = compare(double, single, dtype, tolerance, report) {
            if fault.is_of_candle() {
                report.skip(Property::Precisions, format!("{dtype:?}: {fault}"));
            } else {
                report.fail(Property::Precisions, format!("in {dtype:?} the layer fails: {fault}"));
            }
        }
    }
}

fn compare(
    double: &Subject<'_>,
    single: &Subject<'_>,
    dtype: DType,
    tolerance: f64,
    report: &mut Report,
) -> Result<(), Fault> {
    // Rounded first, so that only the layer's own errors count.
    let low = double.point(5, true)?.cast(dtype)?;
    let exact = low.cast(DType::F64)?;
    let (got, want) = (single.run_at(&low)?, double.run_at(&exact)?);
    let has_fraction = low.inputs.iter().any(|x| x.dtype().is_float());
    for (i, y) in got.iter().enumerate().filter(|(_, y)| has_fraction && y.dtype().is_float()) {
        if y.dtype() != dtype {
            let what = format!("output {i} of inputs in {dtype:?} is in {:?}", y.dtype());
            report.fail(Property::Precisions, what);
        }
    }
    if let Some(difference) = differences(&got, &want, tolerance)? {
        report.fail(Property::Precisions, format!("in {dtype:?}, against f64: {difference}"));
    }
    let (got, want) = (slopes(single, &low)?, slopes(double, &exact)?);
    let (Some(got), Some(want)) = (got, want) else { return Ok(()) };
    // Gradients of half precision are sums of rounded numbers, in which much may cancel; that they can be computed is enough.
    if dtype != DType::F32 {
        return Ok(());
    }
    let inputs = got.inputs.iter().zip(&want.inputs).enumerate();
    let inputs = inputs.map(|(i, ((_, got), (_, want)))| (format!("input {i}"), got, want));
    let parameters = got.parameters.iter().zip(&want.parameters);
    let parameters = parameters.map(|((path, _, got), (_, _, want))| (format!("`{path}`"), got, want));
    for (name, got, want) in inputs.chain(parameters) {
        let (Some(got), Some(want)) = (got, want) else { continue };
        if let Some(difference) = difference(got, want, 10.0 * tolerance)? {
            let what = format!("the gradient of {name} in {dtype:?}, against f64: {difference}");
            report.fail(Property::Precisions, what);
        }
    }
    Ok(())
}
