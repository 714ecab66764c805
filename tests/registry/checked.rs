//! `layerfn::testing` on every layer: no false alarm, and no exception that is not written down here.

use layerfn::testing::{Check, Property};
use layerfn_tests::support::layers::Failure;
use layerfn_tests::values;

use crate::cases::{CASES, Case};
use crate::gradients::run;

/// What does not hold of a layer, on purpose.
fn exceptions(case: &Case) -> Vec<(Property, &'static str)> {
    use Property::*;
    let mut exceptions = Vec::new();
    let is = |kinds: &[&str]| kinds.iter().any(|kind| case.layer.starts_with(kind));
    if is(&["binary", "inq", "fixed_point", "pow2", "pruned", "min_max", "mean_subtraction"]) {
        exceptions.push((Gradients, "the gradient is not the derivative; its rule has tests of its own"));
    }
    if is(&["binary", "inq", "fixed_point", "pow2", "pruned", "min_max"]) {
        exceptions.push((Precisions, "numbers are rounded to a grid or compared with a threshold"));
    }
    if is(&["binary", "inq", "fixed_point", "pow2", "pruned", "min_max"]) {
        exceptions.push((TestMode, "the state of a quantization follows from the weights in each call"));
    }
    if is(&["inq"]) {
        exceptions.push((Threads, "a schedule moves on with each call"));
        exceptions.push((Files, "a schedule moves on with each call, and draws"));
    }
    let starts_with_layers = is(&["gru", "lstm_n_step"]) && case.inputs.iter().all(|(_, dims)| dims[0] == 3);
    if is(&["weight_normalization", "spectral_norm"]) || starts_with_layers {
        exceptions.push((Declaration, "the first axis is not a batch"));
    }
    if is(&["spectral_norm"]) {
        exceptions.push((Gradients, "hundreds of iterations take long; `gradients.rs` compares them"));
    }
    exceptions
}

#[test]
fn the_checks_for_users_pass_on_every_layer() {
    let mut failed = Vec::new();
    for case in CASES {
        let layer = |inputs: &[layerfn::candle_core::Tensor]| match run(case, inputs) {
            Ok(outputs) => Ok(outputs),
            Err(Failure::Layer(error)) => Err(error),
            Err(Failure::Description(text)) => panic!("{case:?}: {text}"),
        };
        let inputs = case.inputs.iter().enumerate().map(|(seed, (_, dims))| {
            let numbers = values(*dims, seed as u64);
            let indices =
                |x: &layerfn::candle_core::Tensor| x.zeros_like()?.to_dtype(candle_core::DType::U32);
            if case.layer == "embed" { indices(&numbers).unwrap() } else { numbers }
        });
        let inputs: Vec<_> = inputs.collect();
        let check = Check::new(layer, &inputs);
        let report = exceptions(case)
            .into_iter()
            .fold(check, |check, (property, why)| check.skip(property, why))
            .run();
        if !report.passed() {
            failed.push(format!("{case:?}\n{report}"));
        }
    }
    assert!(failed.is_empty(), "{} fail:\n{}", failed.len(), failed.join("\n"));
}
