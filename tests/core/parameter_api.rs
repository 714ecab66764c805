//! Scripts of scopes and parameter calls, replayed from NNabla's `parameter_api.json`.

use candle_core::{Device, Tensor, Var};
use layerfn::{
    Parameter, ParameterStore, Parameters, clear_parameters, get_all_parameters, get_parameter,
    get_parameter_or_create, get_parameters, pop_parameter, set_parameter,
};
use layerfn_tests::support::compare::values;
use layerfn_tests::support::fixtures::{Tensors, json};
use layerfn_tests::support::layers::{Arguments, find, in_scopes};
use serde_json::{Map, Value, json};

use crate::refused_calls::inputs;

#[test]
fn parameter_calls_match_nnabla() {
    let Some(file) = json("parameter_api.json") else { return };
    let mut failures = Vec::new();
    for scenario in file["scenarios"].as_array().expect("scenarios") {
        ParameterStore::new().enter(|| {
            let name = &scenario["name"];
            for (i, step) in scenario["steps"].as_array().expect("steps").iter().enumerate() {
                let scopes: Vec<&str> = strings(&step["scope"]);
                let got = in_scopes(&scopes, || replay(step["op"].as_str().expect("op"), &step["args"]));
                let right = match (&got, step.get("error")) {
                    (Err(_), Some(_)) => true,
                    (Ok(got), None) => *got == step["result"],
                    _ => false,
                };
                if !right {
                    failures.push(format!("{name}, step {i} {step}: got {got:?}"));
                }
            }
            let left = listing(&get_all_parameters(), "");
            if left != scenario["final"] {
                failures.push(format!("{name}: in the end {left}, expected {}", scenario["final"]));
            }
        });
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Runs one step; its result in the form of the file.
fn replay(op: &str, args: &Value) -> Result<Value, String> {
    let name = args["name"].as_str().unwrap_or_default();
    Ok(match op {
        "call" => {
            let function = args["function"].as_str().unwrap_or_default();
            let arguments = args["args"].as_object().cloned().unwrap_or_default();
            let call = find(function, &arguments).ok_or_else(|| format!("there is no layer `{function}`"))?;
            let tensors = Tensors::default();
            let outputs = call(&mut Arguments::new(inputs(function, &args["inputs"]), arguments, &tensors));
            let outputs = outputs.map_err(|error| error.to_string())?;
            outputs.iter().map(|output| json!(output.dims())).collect()
        }
        "get_parameters" => {
            let grad_only = args["grad_only"].as_bool().unwrap_or(true);
            let found = if grad_only { get_parameters() } else { get_all_parameters() };
            listing(&found, args["path"].as_str().unwrap_or_default())
        }
        "get_parameter" => match get_parameter(name) {
            None => Value::Null,
            Some(found) => described(found.var(), found.need_grad()),
        },
        "get_parameter_or_create" => get_or_create(name, args)?,
        "set_parameter" => {
            let var = Var::from_tensor(&array(&args["values"])).map_err(|error| error.to_string())?;
            let need_grad = args["need_grad"].as_bool().unwrap_or(true);
            set_parameter(name, Parameter::new(var, need_grad)).map_err(|error| error.to_string())?;
            Value::Null
        }
        "pop_parameter" => pop_parameter(name).map_or(Value::Null, |popped| json!(popped.var().dims())),
        "clear_parameters" => {
            clear_parameters();
            Value::Null
        }
        other => return Err(format!("unknown step `{other}`")),
    })
}

fn get_or_create(name: &str, args: &Value) -> Result<Value, String> {
    let mut call = get_parameter_or_create(name);
    if let Some(shape) = args["shape"].as_array() {
        call = call.shape(shape.iter().map(|size| size.as_u64().expect("size") as usize).collect::<Vec<_>>());
    }
    if let Some(constant) = args["initializer"]["constant"].as_f64() {
        call = call.initializer(constant);
    } else if args["initializer"].get("array").is_some() {
        call = call.initializer(array(&args["initializer"]["array"]));
    }
    if let Some(need_grad) = args["need_grad"].as_bool() {
        call = call.need_grad(need_grad);
    }
    if let Some(as_need_grad) = args["as_need_grad"].as_bool() {
        call = call.as_need_grad(as_need_grad);
    }
    let returned = call.call().map_err(|error| error.to_string())?;
    let registered = get_parameter(name).ok_or("nothing is registered")?;
    let result = described(&returned, returned.track_op());
    Ok(json!({
        "returned": result,
        "registered_need_grad": registered.need_grad(),
        "same_storage": shares_storage(registered.var(), &returned),
    }))
}

/// Whether what is written into `var` shows in `tensor`.
fn shares_storage(var: &Var, tensor: &Tensor) -> bool {
    let before = var.copy().expect("copy");
    var.set(&before.affine(1.0, 1.0).expect("add")).expect("set");
    let same = values(tensor) == values(var);
    var.set(&before).expect("set");
    same
}

fn described(tensor: &Tensor, need_grad: bool) -> Value {
    json!({"shape": tensor.dims(), "need_grad": need_grad, "values": values(tensor)})
}

/// NNabla puts its argument `path` in front of the names.
fn listing(parameters: &Parameters, path: &str) -> Value {
    let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
    let line = |(path, parameter): (&str, &Parameter)| {
        let mut line = Map::new();
        line.insert("path".to_owned(), json!(format!("{prefix}{path}")));
        line.insert("shape".to_owned(), json!(parameter.var().dims()));
        line.insert("need_grad".to_owned(), json!(parameter.need_grad()));
        Value::Object(line)
    };
    parameters.iter().map(line).collect()
}

fn array(values: &Value) -> Tensor {
    let values: Vec<f32> = values
        .as_array()
        .expect("values")
        .iter()
        .map(|value| value.as_f64().expect("number") as f32)
        .collect();
    Tensor::new(values, &Device::Cpu).expect("array")
}
