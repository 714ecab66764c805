//! What each layer registers by default, against NNabla's `default_initializers.json`.

use layerfn::{
    Initializer, ParameterStore, calc_uniform_lim_glorot, calc_uniform_lim_xavier, get_all_parameters,
    get_parameter_or_create, test_mode,
};
use layerfn_tests::support::compare::{difference, values};
use layerfn_tests::support::fixtures::{Tensors, json};
use layerfn_tests::support::layers::{Arguments, Failure, find};
use serde_json::{Map, Value};

use crate::refused_calls::{inputs, sizes};

/// N, M and kernel of the weights of a layer, as its declaration passes them to the rule.
fn fans(function: &str, row: &Value, path: &str) -> (usize, usize, Vec<usize>) {
    let args = &row["args"];
    let count = |key: &str| args[key].as_u64().map(|count| count as usize);
    let channels = || sizes(&row["inputs"]["inp"])[count("base_axis").unwrap_or(1)];
    let kernel = sizes(&args["kernel"]);
    match function {
        "depthwise_convolution" => (channels() * count("multiplier").unwrap_or(1), channels(), kernel),
        "depthwise_deconvolution" => (channels(), channels(), kernel),
        // The roles are swapped: the weights' first axis is the input's channels.
        "deconvolution" => (count("outmaps").expect("outmaps"), channels(), kernel),
        "lstm_cell" | "LSTMCell" => {
            let state = count("state_size").expect("state_size");
            (sizes(&row["inputs"]["x"])[1] + state, 4 * state, kernel)
        }
        // Every matrix has fans of its own.
        "multi_head_attention" => {
            let parameters = row["parameters"].as_array().expect("parameters");
            let parameter =
                parameters.iter().find(|parameter| parameter["path"] == path).expect("a parameter");
            let shape = sizes(&parameter["shape"]);
            (shape[shape.len() - 2], shape[shape.len() - 1], kernel)
        }
        _ if count("outmaps").is_some() => (channels(), count("outmaps").expect("outmaps"), kernel),
        _ => {
            let inmaps = sizes(&row["inputs"]["inp"])[count("base_axis").unwrap_or(1)..].iter().product();
            let outmaps = count("n_outmaps").unwrap_or_else(|| sizes(&args["n_outmaps"]).iter().product());
            (inmaps, outmaps, kernel)
        }
    }
}

/// Parameters that the forward pass computes; what they start from is gone when it is over.
const COMPUTED: [&str; 5] = ["Wb", "W_q", "b_q", "alpha", "t"];

#[test]
fn layers_start_with_the_documented_values() {
    let Some(file) = json("default_initializers.json") else { return };
    let (mut failures, mut missing) = (Vec::new(), Vec::new());
    for row in file["table"].as_array().expect("table") {
        let function = row["function"].as_str().expect("function");
        let arguments = row["args"].as_object().cloned().unwrap_or_default();
        if find(function, &arguments).is_none() {
            missing.push(function);
            continue;
        }
        ParameterStore::new().enter(|| match check_row(function, row, arguments) {
            Ok(wrong) => failures.extend(wrong.into_iter().map(|text| format!("{function}: {text}"))),
            Err(failure) => failures.push(format!("{function}: {failure}")),
        });
    }
    for function in missing {
        eprintln!("skipped: there is no layer `{function}`");
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn check_row(function: &str, row: &Value, arguments: Map<String, Value>) -> Result<Vec<String>, Failure> {
    let call = find(function, &arguments).expect("found before");
    let tensors = Tensors::default();
    // Statistics stay as they start while testing.
    test_mode(|| call(&mut Arguments::new(inputs(function, &row["inputs"]), arguments, &tensors)))?;
    let mut failures = Vec::new();
    let expected = row["parameters"].as_array().expect("parameters");
    let registered = get_all_parameters();
    let paths: Vec<&str> = expected.iter().filter_map(|parameter| parameter["path"].as_str()).collect();
    if registered.paths().collect::<Vec<_>>() != paths {
        failures.push(format!("registered {:?}, expected {paths:?}", registered.paths().collect::<Vec<_>>()));
    }
    for want in expected {
        let path = want["path"].as_str().expect("path");
        let Some(got) = registered.get(path) else { continue };
        let shape = sizes(&want["shape"]);
        if got.var().dims() != shape || Some(got.need_grad()) != want["need_grad"].as_bool() {
            let (dims, need_grad) = (got.var().dims(), got.need_grad());
            failures.push(format!("`{path}` has shape {dims:?} and need_grad {need_grad}, expected {want}"));
            continue;
        }
        if COMPUTED.contains(&path.rsplit('/').next().unwrap_or(path)) {
            continue;
        }
        if let Some(initializer) = documented(function, path, row, &want["initializer"]) {
            // Equal values in another store show the same law: they follow from path, shape and initializer.
            let same = ParameterStore::new().enter(|| {
                get_parameter_or_create(path).shape(shape).initializer(initializer.clone()).call()
            })?;
            let text = difference(got.var(), &same, None);
            failures.extend(text.map(|text| format!("`{path}` does not start as {initializer:?}: {text}")));
        }
    }
    Ok(failures)
}

/// The first value that the documentation gives, checked against what NNabla does today; `None` for factors.
fn documented(function: &str, path: &str, row: &Value, recorded: &Value) -> Option<Initializer> {
    match recorded["kind"].as_str().expect("kind") {
        // NNabla's slopes start at 0.25 today, and at -1 in its documentation.
        "constant" if path.ends_with("/slope") => Some(Initializer::constant(-1.0)),
        "constant" => Some(Initializer::constant(recorded["value"].as_f64().expect("value"))),
        "uniform" if function == "embed" => {
            let limit = 3f64.sqrt();
            assert_eq!(recorded["lim"][1].as_f64(), Some(limit));
            Some(Initializer::uniform(-limit, limit))
        }
        "uniform" => {
            let (n, m, kernel) = fans(function, row, path);
            let today = calc_uniform_lim_xavier(n, m, &kernel).1;
            let recorded = recorded["lim"][1].as_f64().expect("limit");
            assert!((today - recorded).abs() <= 1e-15, "{function}: {today} is not the recorded {recorded}");
            let (low, high) = calc_uniform_lim_glorot(n, m, &kernel);
            Some(Initializer::uniform(low, high))
        }
        _ => None,
    }
}

#[test]
fn a_wrong_law_would_be_seen() {
    let path = "affine/W";
    let create = |initializer: Initializer| {
        ParameterStore::new()
            .enter(|| get_parameter_or_create(path).shape((4, 3)).initializer(initializer).call())
    };
    let one = create(Initializer::glorot_uniform(4, 3, &[3, 3])).unwrap();
    let other = create(Initializer::xavier_uniform(4, 3, &[3, 3])).unwrap();
    assert!(difference(&one, &other, None).is_some());
    let limit = calc_uniform_lim_glorot(4, 3, &[3, 3]).1;
    assert!(values(&one).iter().all(|value| value.abs() <= limit));
}
