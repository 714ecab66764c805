//! Every layer: the calls of the registry with some of their arguments replaced.

use layerfn::{LAYERS, LSTMCell, LayerInfo, ParameterStore, PerAxis, backward};
use layerfn_tests::support::fixtures::Tensors;
use layerfn_tests::support::layers::{Arguments, Failure, find};
use serde_json::{Map, Value, json};

use crate::cases::{CASES, Case};
use crate::draw::Draw;
use crate::{Call, Outcome};

pub(crate) const CALLS: &[(&str, Call)] =
    &[("layer", layer), ("layer", layer), ("layer", layer), ("LSTMCell", cell)];

fn layer(draw: &mut Draw) -> Outcome {
    let info = draw.pick(LAYERS);
    let cases: Vec<&Case> = CASES.iter().filter(|case| case.layer == info.name).collect();
    if cases.is_empty() {
        return Err(Failure::Description(format!(
            "fault: `{}` is not among the registry's cases",
            info.name
        )));
    }
    let case = draw.pick(&cases);
    draw.note(info.name);
    let mut arguments: Map<String, Value> = serde_json::from_str(case.arguments).expect("arguments in JSON");
    replace(draw, info, case, &mut arguments);
    draw.note(Value::Object(arguments.clone()).to_string());
    let inputs = case.inputs.iter().map(|(name, dims)| {
        let tensor = match info.name == "embed" && !draw.once_in(8) {
            true => draw.of_type(dims, candle_core::DType::U32),
            false => draw.like(dims),
        };
        ((*name).to_owned(), tensor)
    });
    let inputs: Vec<_> = inputs.collect();
    let Some(call) = find(info.name, &arguments) else {
        return Err(Failure::Description(format!("{} has no description", info.name)));
    };
    draw.go();
    let tensors = Tensors::default();
    let store = ParameterStore::new();
    let outcome = store.enter(|| call(&mut Arguments::new(inputs, arguments, &tensors)));
    match outcome {
        Err(Failure::Layer(error)) if !store.parameters().is_empty() => {
            let left: Vec<_> = store.parameters().paths().map(str::to_owned).collect();
            Err(Failure::Description(format!("fault: {error}; but it has left {left:?}")))
        }
        Ok(outputs) => {
            if let Some(y) = outputs.first().filter(|y| y.elem_count() < 1 << 20 && y.track_op()) {
                backward(&y.sum_all()?)?;
            }
            Ok(outputs)
        }
        other => other,
    }
}

/// Gives some of the arguments other values.
fn replace(draw: &mut Draw, info: &LayerInfo, case: &Case, arguments: &mut Map<String, Value>) {
    let inputs = |name: &str| case.inputs.iter().any(|(input, _)| *input == name);
    for argument in info.arguments.iter().filter(|argument| !inputs(argument.name)) {
        if !draw.once_in(8) {
            continue;
        }
        let value = match argument.ty.replace(' ', "").as_str() {
            "usize" => json!(draw.raw_size()),
            "f64" => float(draw.raw_number()),
            "bool" => json!(draw.once_in(2)),
            "i32" => json!(draw.pick(&[0, 1, -1, 100, -101, i32::MAX, i32::MIN])),
            "i64" => json!(draw.pick(&[0, -1, 3, 1 << 40, i64::MAX, i64::MIN])),
            "Axis" => json!(draw.raw_axis()),
            "Axes" => json!((0..draw.below(4)).map(|_| draw.raw_axis()).collect::<Vec<_>>()),
            "Option<BatchStat>" => json!(true),
            "Dims" => json!(draw.dims().to_vec()),
            "Vec<usize>" => json!(draw.counts()),
            "PerAxis" => match draw.per_axis() {
                PerAxis::Every(size) => json!(size),
                PerAxis::Each(sizes) => json!(sizes),
            },
            "Initializer" | "Option<Initializer>" => {
                json!({ "initializer": "constant", "value": float(draw.raw_number()) })
            }
            _ => continue,
        };
        arguments.insert(argument.name.to_owned(), value);
    }
}

/// JSON has no infinity and no NaN.
fn float(value: f64) -> Value {
    if value.is_finite() { json!(value) } else { json!(value.to_string()) }
}

fn cell(draw: &mut Draw) -> Outcome {
    let (batch, state, x) = (draw.size(), draw.size(), draw.matrix());
    draw.go();
    let mut cell = LSTMCell::new(batch, state);
    Ok(ParameterStore::new().enter(|| Ok::<_, layerfn::Error>(vec![cell.step(&x)?, cell.step(&x)?]))?)
}
