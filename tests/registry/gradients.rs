//! Layers as a whole against finite differences, and on batches of unusual size.

use candle_core::{DType, Device, Tensor, Var};
use layerfn::{Parameter, ParameterStore};
use layerfn_tests::support::fixtures::Tensors;
use layerfn_tests::support::layers::{Arguments, Failure, find};
use layerfn_tests::values;
use serde_json::{Map, Value};

use crate::cases::{CASES, Case};

/// More shapes: axes of size 1, odd sizes with stride 2, batches of one.
const SHAPES: &[Case] = &[
    case(
        "convolution",
        &[("inp", &[1, 2, 7, 5])],
        r#"{"outmaps": 3, "kernel": [3, 2], "stride": [2, 2], "pad": [1, 0]}"#,
    ),
    case("convolution", &[("inp", &[2, 1, 1, 5])], r#"{"outmaps": 1, "kernel": [1, 3], "stride": [2, 2]}"#),
    case(
        "deconvolution",
        &[("inp", &[1, 2, 3, 1])],
        r#"{"outmaps": 3, "kernel": [3, 2], "stride": [2, 2], "pad": [1, 0]}"#,
    ),
    case("depthwise_convolution", &[("inp", &[1, 3, 7, 1])], r#"{"kernel": [3, 1], "stride": [2, 1]}"#),
    case("batch_normalization", &[("inp", &[3, 1])], r#"{}"#),
    case("batch_normalization", &[("inp", &[1, 2, 3, 1])], r#"{"batch_stat": true}"#),
    case("affine", &[("inp", &[1, 1])], r#"{"n_outmaps": 1}"#),
    case("prelu", &[("inp", &[1, 3])], r#"{"shared": false}"#),
    case(
        "svd_convolution",
        &[("inp", &[1, 2, 7, 5])],
        r#"{"outmaps": 3, "kernel": [3, 2], "r": 2, "stride": [2, 2]}"#,
    ),
    case(
        "cpd3_convolution",
        &[("inp", &[1, 2, 5, 5])],
        r#"{"outmaps": 3, "kernel": [3, 3], "r": 2, "stride": [2, 2]}"#,
    ),
    case("lstm", &[("x", &[1, 1]), ("h", &[1, 2]), ("c", &[1, 2])], r#"{"state_size": 2}"#),
    case(
        "deformable_convolution",
        &[("inp", &[1, 1, 3, 4]), ("offset", &[1, 4, 3, 4]), ("mask", &[1, 2, 3, 4])],
        r#"{"outmaps": 1, "kernel": [2, 1]}"#,
    ),
    case("rnn", &[("x", &[1, 1, 1]), ("h", &[1, 2, 1, 1])], r#"{"bidirectional": true}"#),
    case("gru", &[("x", &[5, 1, 2]), ("h", &[2, 1, 1, 3])], r#"{}"#),
];

const fn case(
    layer: &'static str,
    inputs: &'static [(&'static str, &'static [usize])],
    arguments: &'static str,
) -> Case {
    Case { layer, inputs, arguments }
}

/// Layers whose gradient is defined otherwise than by the derivative; those rules have tests of their own beside the
/// functions. The gradient of their inputs is the derivative, but for mean subtraction.
fn straight_through(case: &Case) -> bool {
    ["binary", "inq", "fixed_point", "pow2", "pruned", "min_max", "mean_subtraction"]
        .iter()
        .any(|kind| case.layer.starts_with(kind))
}

pub(crate) fn run(case: &Case, inputs: &[Tensor]) -> Result<Vec<Tensor>, Failure> {
    let arguments: Map<String, Value> = serde_json::from_str(case.arguments).expect("arguments in JSON");
    let function = if case.layer == "lstm" { "lstm_cell" } else { case.layer };
    let call = find(function, &arguments).expect("a layer");
    let named =
        case.inputs.iter().zip(inputs).map(|((name, _), tensor)| ((*name).to_owned(), tensor.clone()));
    let tensors = Tensors::default();
    call(&mut Arguments::new(named.collect(), arguments, &tensors))
}

/// A sum of all outputs with weights that differ from element to element.
fn loss(case: &Case, inputs: &[Tensor]) -> Tensor {
    let outputs = run(case, inputs).unwrap_or_else(|error| panic!("{case:?}: {error}"));
    let weighted =
        |(seed, y): (usize, &Tensor)| (y * values(y.dims(), 100 + seed as u64)).unwrap().sum_all().unwrap();
    outputs.iter().enumerate().map(weighted).reduce(|a, b| (a + b).unwrap()).unwrap()
}

#[test]
fn gradients_of_layers_equal_finite_differences() {
    const STEP: f64 = 1e-5;
    let without = ["embed", "mean_subtraction", "min_max_quantize"];
    for case in CASES.iter().chain(SHAPES).filter(|case| !without.contains(&case.layer)) {
        let inputs: Vec<Var> = case
            .inputs
            .iter()
            .enumerate()
            .map(|(seed, (_, dims))| Var::from_tensor(&values(*dims, 7 + seed as u64)).unwrap())
            .collect();
        let tensors: Vec<Tensor> = inputs.iter().map(|var| var.as_tensor().clone()).collect();
        // Each evaluation starts from the same state: running statistics and schedules move with every call.
        let fresh = || {
            let store = ParameterStore::new();
            store.enter(|| drop(run(case, &tensors)));
            store
        };
        let evaluate = |path: Option<(&str, &Tensor)>, inputs: &[Tensor]| {
            let store = fresh();
            if let Some((path, value)) = path {
                store.set(path, Parameter::new(Var::from_tensor(value).unwrap(), true)).unwrap();
            }
            store.enter(|| loss(case, inputs)).to_scalar::<f64>().unwrap()
        };
        let store = fresh();
        let gradients = store.enter(|| loss(case, &tensors)).backward().unwrap();
        let compare = |what: &str, var: &Var, at: &dyn Fn(&Tensor) -> f64| {
            let gradient = gradients.get(var).unwrap_or_else(|| panic!("{case:?}: {what} has no gradient"));
            let gradient: Vec<f64> = gradient.flatten_all().unwrap().to_vec1().unwrap();
            let data: Vec<f64> = var.flatten_all().unwrap().to_vec1().unwrap();
            for k in (0..data.len()).step_by(data.len().div_ceil(12)) {
                let moved = |by: f64| {
                    let mut data = data.clone();
                    data[k] += by;
                    at(&Tensor::from_vec(data, var.dims(), &Device::Cpu).unwrap())
                };
                let expected = (moved(STEP) - moved(-STEP)) / (2.0 * STEP);
                let error = (gradient[k] - expected).abs();
                assert!(
                    error < 1e-5 * (1.0 + expected.abs()),
                    "{case:?}: {what}[{k}]: {} for {expected}",
                    gradient[k]
                );
            }
        };
        for (n, var) in inputs.iter().enumerate() {
            compare(case.inputs[n].0, var, &|moved| {
                let mut inputs = tensors.clone();
                inputs[n] = moved.clone();
                evaluate(None, &inputs)
            });
        }
        for (path, parameter) in store.parameters().iter().filter(|(_, p)| p.need_grad()) {
            let transformed = path.ends_with("/W") || path.ends_with("/b") || path.contains("/qr_");
            if !(straight_through(case) && transformed) {
                compare(path, parameter.var(), &|moved| evaluate(Some((path, moved)), &tensors));
            }
        }
    }
}

/// No samples: an error or an empty result, in single precision and double.
#[test]
fn an_empty_batch_never_panics() {
    for case in CASES {
        for dtype in [DType::F32, DType::F64] {
            let dtype = if case.layer == "embed" { DType::U32 } else { dtype };
            let empty = |(_, dims): &(&str, &[usize])| {
                Tensor::zeros([&[0], &dims[1..]].concat(), dtype, &Device::Cpu).unwrap()
            };
            let inputs: Vec<Tensor> = case.inputs.iter().map(empty).collect();
            match ParameterStore::new().enter(|| run(case, &inputs)) {
                Ok(outputs) => assert!(outputs.iter().all(|y| y.elem_count() == 0), "{case:?}"),
                Err(Failure::Layer(error)) => {
                    assert!(error.to_string().contains(case.layer), "{case:?}: {error}")
                }
                Err(Failure::Description(text)) => panic!("{case:?}: {text}"),
            }
        }
    }
}
