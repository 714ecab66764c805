//! Normalizations.

use super::graph::{Call, Written};
use crate::onnx;

pub(super) fn write(call: &mut Call<'_, '_>) -> Written {
    Ok(match call.kind() {
        "BatchNormalization" => Some(vec![batch_normalization(call)]),
        "LayerNormalization" | "GroupNormalization" | "InstanceNormalization" => {
            if call.is_taken(1) || call.is_taken(2) {
                return Ok(None);
            }
            of_rows(call)
        }
        _ => None,
    })
}

/// The places of the bias and the scale behind the input, and of what follows.
fn coefficients(call: &Call<'_, '_>) -> (Option<usize>, Option<usize>, usize) {
    let mut next = 1;
    let mut place = |missing: bool| (!missing).then(|| (next, next += 1).0);
    let (beta, gamma) = (place(call.flag("no_bias")), place(call.flag("no_scale")));
    (beta, gamma, next)
}

/// The input as a list of numbers, or a list of so many `otherwise`.
fn list(call: &mut Call<'_, '_>, place: Option<usize>, n: usize, otherwise: f32) -> String {
    match place {
        Some(place) => {
            let x = call.input(place);
            call.reshaped(&x, &[n as i64])
        }
        None => call.constant(onnx::floats("_coefficients", &[n as i64], &vec![otherwise; n])),
    }
}

fn batch_normalization(call: &mut Call<'_, '_>) -> String {
    let (beta, gamma, mean) = coefficients(call);
    let (x, eps) = (call.input(0), call.number("eps"));
    if call.integers("axes") == [1] && call.rank(0) > 1 {
        let n = call.dims(0)[1];
        let (scale, bias) = (list(call, gamma, n, 1.0), list(call, beta, n, 0.0));
        let (mean, var) = (list(call, Some(mean), n, 0.0), list(call, Some(mean + 1), n, 1.0));
        return call.node(
            "BatchNormalization",
            &[&x, &scale, &bias, &mean, &var],
            vec![onnx::float("epsilon", eps)],
        );
    }
    let (center, var) = (call.input(mean), call.input(mean + 1));
    let y = call.node("Sub", &[&x, &center], Vec::new());
    scaled(call, &y, &var, [beta, gamma])
}

/// `x / sqrt(var + eps)`, times the scale, plus the bias.
fn scaled(call: &mut Call<'_, '_>, x: &str, var: &str, [beta, gamma]: [Option<usize>; 2]) -> String {
    let sum = call.with_number("Add", var, call.number("eps"));
    let deviation = call.node("Sqrt", &[&sum], Vec::new());
    let mut y = call.node("Div", &[x, &deviation], Vec::new());
    for (op, place) in [("Mul", gamma), ("Add", beta)] {
        if let Some(place) = place {
            let coefficient = call.input(place);
            y = call.node(op, &[&y, &coefficient], Vec::new());
        }
    }
    y
}

fn of_rows(call: &mut Call<'_, '_>) -> Option<Vec<String>> {
    let (beta, gamma, _) = coefficients(call);
    let (kind, rank, x) = (call.kind(), call.rank(0), call.input(0));
    let (batch, channel) = (call.integers("batch_axis"), call.integer("channel_axis"));
    let epsilon = onnx::float("epsilon", call.number("eps"));
    let n_batch = batch.len();
    let is_front = batch.iter().enumerate().all(|(n, &axis)| axis == n as i64);
    if kind == "LayerNormalization" && is_front && n_batch < rank {
        let dims: Vec<i64> = call.dims(0)[n_batch..].iter().map(|&size| size as i64).collect();
        let n = dims.iter().product::<i64>() as usize;
        let scale = list(call, gamma, n, 1.0);
        let mut inputs = vec![call.reshaped(&scale, &dims)];
        if let Some(beta) = beta {
            let bias = call.input(beta);
            inputs.push(call.reshaped(&bias, &dims));
        }
        let inputs: Vec<&str> = std::iter::once(&*x).chain(inputs.iter().map(String::as_str)).collect();
        let attributes = vec![onnx::int("axis", n_batch as i64), epsilon];
        return Some(vec![call.node("LayerNormalization", &inputs, attributes)]);
    }
    if kind != "LayerNormalization" && batch == [0] && channel == 1 && rank > 2 {
        let n = call.dims(0)[1];
        let (scale, bias) = (list(call, gamma, n, 1.0), list(call, beta, n, 0.0));
        let mut attributes = vec![epsilon];
        if kind == "GroupNormalization" {
            attributes.push(onnx::int("num_groups", call.integer("num_groups")));
        }
        return Some(vec![call.node(kind, &[&x, &scale, &bias], attributes)]);
    }
    if kind == "GroupNormalization" {
        return None;
    }
    let kept = |axis: &i64| batch.contains(axis) || (kind == "InstanceNormalization" && *axis == channel);
    let axes: Vec<i64> = (0..rank as i64).filter(|axis| !kept(axis)).collect();
    let axes = call.list(&axes);
    let mean = call.node("ReduceMean", &[&x, &axes], vec![onnx::int("keepdims", 1)]);
    let difference = call.node("Sub", &[&x, &mean], Vec::new());
    let square = call.node("Mul", &[&difference, &difference], Vec::new());
    let var = call.node("ReduceMean", &[&square, &axes], vec![onnx::int("keepdims", 1)]);
    Some(vec![scaled(call, &difference, &var, [beta, gamma])])
}
