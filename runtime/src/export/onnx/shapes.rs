//! Functions that move elements, change shapes or reduce axes.

use super::graph::{Call, Written};
use crate::onnx::{self, INT64};
use crate::told::UNSAID;

pub(super) fn write(call: &mut Call<'_, '_>) -> Written {
    Ok(match call.kind() {
        "Split" => Some(split(call)),
        "Max" | "Min" => extreme(call),
        "Sort" => sort(call),
        _ => one(call).map(|y| vec![y]),
    })
}

fn one(call: &mut Call<'_, '_>) -> Option<String> {
    let axis = |call: &Call<'_, '_>| vec![onnx::int("axis", call.integer("axis"))];
    Some(match call.kind() {
        "Broadcast" => {
            let (x, sizes) = (call.input(0), call.integers("shape"));
            let shape = call.shape(&sizes);
            call.node("Expand", &[&x, &shape], Vec::new())
        }
        "Constant" => {
            let (value, sizes) = (call.scalar(call.number("val")), call.integers("shape"));
            let shape = call.shape(&sizes);
            call.node("Expand", &[&value, &shape], Vec::new())
        }
        "Concatenate" => {
            let inputs: Vec<_> = (0..call.n_inputs()).map(|n| call.input(n)).collect();
            let inputs: Vec<_> = inputs.iter().map(String::as_str).collect();
            call.node("Concat", &inputs, axis(call))
        }
        "Stack" => {
            let axes = call.list(&[call.integer("axis")]);
            let inputs: Vec<_> = (0..call.n_inputs())
                .map(|n| {
                    let x = call.input(n);
                    call.node("Unsqueeze", &[&x, &axes], Vec::new())
                })
                .collect();
            let inputs: Vec<_> = inputs.iter().map(String::as_str).collect();
            call.node("Concat", &inputs, axis(call))
        }
        "CumSum" => {
            let (x, along) = (call.input(0), call.integers_of(&[], &[call.integer("axis")]));
            let flags = ["exclusive", "reverse"].map(|name| onnx::int(name, i64::from(call.flag(name))));
            call.node("CumSum", &[&x, &along], flags.to_vec())
        }
        "Flip" => {
            let (x, axes) = (call.input(0), call.integers("axes"));
            let n = axes.len();
            let [starts, ends, steps] = [-1, i64::MIN, -1].map(|value| call.list(&vec![value; n]));
            let axes = call.list(&axes);
            call.node("Slice", &[&x, &starts, &ends, &axes, &steps], Vec::new())
        }
        "Gather" if call.integer("batch_dims") == 0 => {
            let (x, mut indices) = (call.input(0), call.input(1));
            if call.flow(1).tensor.dtype().is_float() {
                indices = call.cast(&indices, INT64);
            }
            call.node("Gather", &[&x, &indices], axis(call))
        }
        "Interpolate" => interpolate(call),
        "Unpooling" if !call.flag("channel_last") => {
            let (x, kernel) = (call.input(0), call.integers("kernel"));
            let first = (call.rank(0) - kernel.len()) as i64;
            let scales: Vec<f32> = kernel.iter().map(|&size| size as f32).collect();
            let scales = call.constant(onnx::floats("_scales", &[kernel.len() as i64], &scales));
            let axes = (first..call.rank(0) as i64).collect();
            let attributes = vec![
                onnx::ints("axes", axes),
                onnx::text("mode", "nearest"),
                onnx::text("coordinate_transformation_mode", "asymmetric"),
                onnx::text("nearest_mode", "floor"),
            ];
            call.node("Resize", &[&x, "", &scales], attributes)
        }
        "Softmax" | "LogSoftmax" => {
            let x = call.input(0);
            call.node(call.kind(), &[&x], axis(call))
        }
        "Mean" => reduced(call, "ReduceMean"),
        "Sum" => reduced(call, "ReduceSum"),
        "Prod" => reduced(call, "ReduceProd"),
        "Norm" if call.number("p") == 1.0 => reduced(call, "ReduceL1"),
        "Norm" if call.number("p") == 2.0 => reduced(call, "ReduceL2"),
        "NormNormalization" if [1.0, 2.0].contains(&call.number("p")) => {
            let (x, axes, p) = (call.input(0), call.list(&call.integers("axes")), call.number("p"));
            let op = if p == 1.0 { "ReduceL1" } else { "ReduceL2" };
            let norm = call.node(op, &[&x, &axes], vec![onnx::int("keepdims", 1)]);
            let norm = call.with_number("Max", &norm, call.number("eps").powf(1.0 / p));
            call.node("Div", &[&x, &norm], Vec::new())
        }
        "OneHot" if call.integers("shape").len() == 1 => {
            let x = call.input(0);
            let x = if call.flow(0).tensor.dtype().is_float() { call.cast(&x, INT64) } else { x };
            let last = call.list(&[call.rank(0) as i64 - 1]);
            let x = call.node("Squeeze", &[&x, &last], Vec::new());
            let depth = call.integers_of(&[], &call.integers("shape"));
            let values = call.constant(onnx::floats("_off_and_on", &[2], &[0.0, 1.0]));
            call.node("OneHot", &[&x, &depth, &values], vec![onnx::int("axis", -1)])
        }
        "Pad" => pad(call),
        "Reshape" => {
            let (x, sizes) = (call.input(0), call.integers("shape"));
            call.reshaped(&x, &sizes)
        }
        "Shift" => shift(call)?,
        "Slice" => slice(call),
        "Tile" => {
            let (mut x, reps) = (call.input(0), call.integers("reps"));
            if reps.len() > call.rank(0) {
                let front = vec![1; reps.len() - call.rank(0)];
                let sizes = [&front[..], &call.flow(0).sizes].concat();
                x = call.reshaped(&x, &sizes);
            }
            let reps = call.list(&reps);
            call.node("Tile", &[&x, &reps], Vec::new())
        }
        "Transpose" => {
            let x = call.input(0);
            call.node("Transpose", &[&x], vec![onnx::ints("perm", call.integers("axes"))])
        }
        _ => return None,
    })
}

fn reduced(call: &mut Call<'_, '_>, op: &str) -> String {
    let (x, axes) = (call.input(0), call.integers("axes"));
    if axes.is_empty() {
        return call.node("Identity", &[&x], Vec::new());
    }
    let axes = call.list(&axes);
    call.node(op, &[&x, &axes], vec![onnx::int("keepdims", i64::from(call.flag("keep_dims")))])
}

/// The values, and their places if these are taken.
fn extreme(call: &mut Call<'_, '_>) -> Option<Vec<String>> {
    let (reduce, find) = match call.kind() {
        "Max" => ("ReduceMax", "ArgMax"),
        _ => ("ReduceMin", "ArgMin"),
    };
    let mut results = vec![reduced(call, reduce)];
    if call.is_taken(1) {
        let [axis] = call.integers("axes")[..] else { return None };
        let x = call.input(0);
        let keepdims = onnx::int("keepdims", i64::from(call.flag("keep_dims")));
        results.push(call.node(find, &[&x], vec![onnx::int("axis", axis), keepdims]));
    }
    Some(results)
}

fn sort(call: &mut Call<'_, '_>) -> Option<Vec<String>> {
    let (x, axis) = (call.input(0), call.integer("axis"));
    let size = *call.dims(0).get(usize::try_from(axis).ok()?)?;
    let k = call.list(&[size as i64]);
    let largest = onnx::int("largest", i64::from(call.flag("reverse")));
    Some(call.nodes("TopK", &[&x, &k], vec![onnx::int("axis", axis), largest], 2))
}

fn split(call: &mut Call<'_, '_>) -> Vec<String> {
    let (x, axis, n) = (call.input(0), call.integer("axis"), call.step.outputs.len());
    let attributes = vec![onnx::int("axis", axis), onnx::int("num_outputs", n as i64)];
    let parts = call.nodes("Split", &[&x], attributes, n);
    let axes = call.list(&[axis]);
    parts.iter().map(|part| call.node("Squeeze", &[part, &axes], Vec::new())).collect()
}

fn interpolate(call: &mut Call<'_, '_>) -> String {
    let (x, sizes) = (call.input(0), call.integers("output_size"));
    let first = (call.rank(0) - sizes.len()) as i64;
    let axes = (first..call.rank(0) as i64).collect();
    let is_linear = call.text("mode") == "linear";
    let for_nearest = !is_linear && call.flag("half_pixel_for_nn");
    let coordinates = match () {
        () if for_nearest => "half_pixel",
        () if call.flag("align_corners") => "align_corners",
        () if call.flag("half_pixel") => "half_pixel",
        () => "asymmetric",
    };
    let sizes = call.list(&sizes);
    let mut attributes = vec![
        onnx::ints("axes", axes),
        onnx::text("mode", if is_linear { "linear" } else { "nearest" }),
        onnx::text("coordinate_transformation_mode", coordinates),
    ];
    if !is_linear {
        attributes.push(onnx::text("nearest_mode", if for_nearest { "round_prefer_ceil" } else { "floor" }));
    }
    call.node("Resize", &[&x, "", "", &sizes], attributes)
}

fn pad(call: &mut Call<'_, '_>) -> String {
    let (x, widths) = (call.input(0), call.integers("pad_width"));
    let front = vec![0; call.rank(0) - widths.len() / 2];
    let of = |n: usize| widths.iter().skip(n).step_by(2).copied();
    let pads: Vec<i64> =
        front.iter().copied().chain(of(0)).chain(front.iter().copied()).chain(of(1)).collect();
    let pads = call.list(&pads);
    let mode = match call.text("mode") {
        "reflect" => "reflect",
        "repeat" => "edge",
        _ => "constant",
    };
    let value = call.scalar(call.number("constant_value"));
    call.node("Pad", &[&x, &pads, &value], vec![onnx::text("mode", mode)])
}

/// Each shifted axis by the places where its elements come from.
fn shift(call: &mut Call<'_, '_>) -> Option<String> {
    let (mut x, shifts) = (call.input(0), call.integers("shifts"));
    let (first, reflects) = (call.rank(0) - shifts.len(), call.text("border_mode") == "reflect");
    for (i, by) in shifts.into_iter().enumerate().filter(|(_, by)| *by != 0) {
        let n = call.flow(0).sizes[first + i];
        if n < 1 {
            return None;
        }
        let from = |to: i64| match (to.saturating_sub(by), reflects) {
            (at, false) => at.clamp(0, n - 1),
            (at, true) => {
                let at = at.rem_euclid(2 * n);
                at.min(2 * n - 1 - at)
            }
        };
        let places: Vec<i64> = (0..n).map(from).collect();
        let places = call.list(&places);
        x = call.node("Gather", &[&x, &places], vec![onnx::int("axis", (first + i) as i64)]);
    }
    Some(x)
}

fn slice(call: &mut Call<'_, '_>) -> String {
    let x = call.input(0);
    let (start, stop, step) = (call.integers("start"), call.integers("stop"), call.integers("step"));
    let first = (call.rank(0) - start.len()) as i64;
    let unsaid = UNSAID as i64;
    let begin = |n: usize| match (start[n] == unsaid, step[n] > 0) {
        (true, true) => 0,
        (true, false) => i64::MAX,
        (false, _) => start[n],
    };
    let end = |n: usize| match (stop[n] == unsaid, step[n] > 0) {
        (true, true) => i64::MAX,
        (true, false) => i64::MIN,
        (false, _) => stop[n],
    };
    let whole = |n: &usize| begin(*n) == 0 && end(*n) == i64::MAX && step[*n] == 1;
    let sliced: Vec<usize> = (0..start.len()).filter(|n| !whole(n)).collect();
    if sliced.is_empty() {
        return call.node("Identity", &[&x], Vec::new());
    }
    let starts: Vec<i64> = sliced.iter().map(|&n| begin(n)).collect();
    let ends: Vec<i64> = sliced.iter().map(|&n| end(n)).collect();
    let steps: Vec<i64> = sliced.iter().map(|&n| step[n]).collect();
    let axes: Vec<i64> = sliced.iter().map(|&n| first + n as i64).collect();
    let [starts, ends, axes, steps] = [starts, ends, axes, steps].map(|list| call.list(&list));
    call.node("Slice", &[&x, &starts, &ends, &axes, &steps], Vec::new())
}
