//! Losses.

use super::graph::{Call, Written};
use crate::onnx::{self, FLOAT, INT64};

/// What probabilities must have to be put into a logarithm.
const LEAST: f64 = f32::MIN_POSITIVE as f64;

pub(super) fn write(call: &mut Call<'_, '_>) -> Written {
    Ok(Some(vec![match call.kind() {
        "SquaredError" => {
            let difference = difference(call);
            call.node("Mul", &[&difference, &difference], Vec::new())
        }
        "AbsoluteError" => distance(call),
        "HuberLoss" => {
            let (size, delta) = (distance(call), call.number("delta"));
            let near = call.node("Mul", &[&size, &size], Vec::new());
            let twice = call.with_number("Mul", &size, 2.0);
            let beyond = call.with_number("Sub", &twice, delta);
            let far = call.with_number("Mul", &beyond, delta);
            let is_near = call.with_number("Less", &size, delta);
            call.node("Where", &[&is_near, &near, &far], Vec::new())
        }
        "EpsilonInsensitiveLoss" => {
            let (size, epsilon) = (distance(call), call.number("epsilon"));
            let beyond = call.with_number("Sub", &size, epsilon);
            call.node("Relu", &[&beyond], Vec::new())
        }
        "SigmoidCrossEntropy" => {
            let (x, target) = (call.input(0), target(call));
            let positive = call.node("Relu", &[&x], Vec::new());
            let part = call.node("Mul", &[&x, &target], Vec::new());
            let y = call.node("Sub", &[&positive, &part], Vec::new());
            let size = call.node("Abs", &[&x], Vec::new());
            let below = call.node("Neg", &[&size], Vec::new());
            let rest = call.node("Softplus", &[&below], Vec::new());
            call.node("Add", &[&y, &rest], Vec::new())
        }
        "BinaryCrossEntropy" => {
            let (p, target) = (call.input(0), target(call));
            let complements = [&p, &target].map(|x| {
                let one = call.scalar(1.0);
                call.node("Sub", &[&one, x], Vec::new())
            });
            let [other, rest] = complements;
            let parts = [(p, target), (other, rest)].map(|(p, share)| {
                let log = bounded_log(call, &p);
                call.node("Mul", &[&log, &share], Vec::new())
            });
            let sum = call.node("Add", &[&parts[0], &parts[1]], Vec::new());
            call.node("Neg", &[&sum], Vec::new())
        }
        "BinaryError" => {
            let (p, target) = (call.input(0), target(call));
            let sides = [p, target].map(|x| {
                let half = call.scalar(0.5);
                call.node("GreaterOrEqual", &[&x, &half], Vec::new())
            });
            let differ = call.node("Xor", &[&sides[0], &sides[1]], Vec::new());
            call.cast(&differ, FLOAT)
        }
        "KLMultinomial" => {
            let first = call.integer("base_axis");
            let logs = [0, 1].map(|n| {
                let x = call.input(n);
                let above = call.with_number("Add", &x, 1e-8);
                call.node("Log", &[&above], Vec::new())
            });
            let (p, difference) = (call.input(0), call.node("Sub", &[&logs[0], &logs[1]], Vec::new()));
            let each = call.node("Mul", &[&p, &difference], Vec::new());
            let axes: Vec<i64> = (first..call.rank(0) as i64).collect();
            let axes = call.list(&axes);
            let sum = call.node("ReduceSum", &[&each, &axes], vec![onnx::int("keepdims", 0)]);
            let last = call.list(&[-1]);
            call.node("Unsqueeze", &[&sum, &last], Vec::new())
        }
        "SoftmaxCrossEntropy" => {
            let x = call.input(0);
            let logs = call.node("LogSoftmax", &[&x], vec![onnx::int("axis", call.integer("axis"))]);
            of_labels(call, &logs)
        }
        "CategoricalCrossEntropy" => {
            let p = call.input(0);
            let logs = bounded_log(call, &p);
            of_labels(call, &logs)
        }
        _ => return Ok(None),
    }]))
}

fn difference(call: &mut Call<'_, '_>) -> String {
    let (a, b) = (call.input(0), call.input(1));
    call.node("Sub", &[&a, &b], Vec::new())
}

fn distance(call: &mut Call<'_, '_>) -> String {
    let difference = difference(call);
    call.node("Abs", &[&difference], Vec::new())
}

/// What the first input is compared with, which may be integers.
fn target(call: &mut Call<'_, '_>) -> String {
    let target = call.input(1);
    if call.flow(1).tensor.dtype().is_float() { target } else { call.cast(&target, FLOAT) }
}

fn bounded_log(call: &mut Call<'_, '_>, p: &str) -> String {
    let p = call.with_number("Max", p, LEAST);
    call.node("Log", &[&p], Vec::new())
}

/// Minus the number at each label, 0 where the label is below 0.
fn of_labels(call: &mut Call<'_, '_>, logs: &str) -> String {
    let labels = target(call);
    let counted = call.node("Relu", &[&labels], Vec::new());
    let places = call.cast(&counted, INT64);
    let axis = vec![onnx::int("axis", call.integer("axis"))];
    let found = call.node("GatherElements", &[logs, &places], axis);
    let y = call.node("Neg", &[&found], Vec::new());
    let zero = call.scalar(0.0);
    let is_left_out = call.node("Less", &[&labels, &zero], Vec::new());
    call.node("Where", &[&is_left_out, &zero, &y], Vec::new())
}
