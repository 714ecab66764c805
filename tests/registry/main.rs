//! Every layer of `LAYERS` against its own declaration.

mod cases;
mod checked;
mod formula;
mod gradients;
mod mutants;
mod readme;
mod refused;

use candle_core::{DType, Tensor};
use layerfn::{
    LAYERS, LayerInfo, ParameterStore, Parameters, get_all_parameters, parameter_scope, test_mode,
};
use layerfn_tests::support::fixtures::Tensors;
use layerfn_tests::support::layers::{Arguments, find};
use layerfn_tests::values;
use serde_json::{Map, Value};

use cases::{CASES, Case};

/// The layer's outputs on repeatable inputs of type `dtype`.
fn call(case: &Case, dtype: DType, extra: &[(&str, Value)]) -> Vec<Tensor> {
    let mut arguments: Map<String, Value> = serde_json::from_str(case.arguments).expect("arguments in JSON");
    arguments.extend(extra.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    let function = if case.layer == "lstm" { "lstm_cell" } else { case.layer };
    let call = find(function, &arguments).unwrap_or_else(|| panic!("no call for {function}"));
    let inputs = case.inputs.iter().enumerate().map(|(seed, (name, shape))| {
        let tensor = match case.layer {
            "embed" => Tensor::zeros(*shape, DType::U32, &candle_core::Device::Cpu).expect("indices"),
            _ => values(*shape, seed as u64).to_dtype(dtype).expect("a float type"),
        };
        ((*name).to_owned(), tensor)
    });
    let tensors = Tensors::default();
    let mut arguments = Arguments::new(inputs.collect(), arguments, &tensors);
    call(&mut arguments).unwrap_or_else(|error| panic!("{case:?}: {error}"))
}

fn info(case: &Case) -> &'static LayerInfo {
    LAYERS.iter().find(|info| info.name == case.layer).unwrap_or_else(|| panic!("no layer {}", case.layer))
}

fn bits(tensors: &[Tensor]) -> Vec<Vec<u64>> {
    let bits = |tensor: &Tensor| -> candle_core::Result<Vec<u64>> {
        Ok(tensor
            .to_dtype(DType::F64)?
            .flatten_all()?
            .to_vec1::<f64>()?
            .iter()
            .map(|x| x.to_bits())
            .collect())
    };
    tensors.iter().map(|tensor| bits(tensor).expect("values")).collect()
}

#[test]
fn every_layer_has_a_case() {
    for info in LAYERS {
        assert!(CASES.iter().any(|case| case.layer == info.name), "`{}` has no line in cases.rs", info.name);
    }
}

/// As many as there are declarations with a scope in the sources.
#[test]
fn every_layer_is_in_the_list() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../runtime/src/parametric_functions");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let sources = files.map(|path| std::fs::read_to_string(path).unwrap());
    let starts = ["#[parametric_function(scope = \"", "#[parametric_function(\n    scope = \""];
    let declared: usize =
        sources.map(|source| starts.map(|start| source.matches(start).count()).iter().sum::<usize>()).sum();
    assert_eq!(LAYERS.len(), declared);
}

#[test]
fn every_declaration_is_documented() {
    for info in LAYERS {
        assert!(!info.doc.is_empty() && !info.scope.is_empty(), "{}", info.name);
        for argument in info.arguments {
            assert!(!argument.doc.is_empty(), "{}: `{}` has no description", info.name, argument.name);
        }
        for parameter in info.parameters {
            assert!(!parameter.doc.is_empty(), "{}: `{}` has no description", info.name, parameter.name);
        }
    }
}

/// Layers of layers: what is registered is declared by those inside.
const COMPOSITES: [&str; 3] = ["transformer", "transformer_encode", "transformer_decode"];

/// The name of a parameter that belongs to the layer itself.
fn own<'a>(info: &LayerInfo, path: &'a str) -> Option<&'a str> {
    path.strip_prefix(info.scope)?.strip_prefix('/').filter(|name| !name.contains('/'))
}

/// Name, order, shape formula and `need_grad` as declared, under the layer's scope.
#[test]
fn what_is_registered_is_what_is_declared() {
    for case in CASES.iter().filter(|case| !COMPOSITES.contains(&case.layer)) {
        let info = info(case);
        let store = ParameterStore::new();
        store.enter(|| call(case, DType::F32, &[]));
        let variables = formula::Variables::of(case);
        let declared =
            info.parameters.iter().filter(|parameter| variables.holds(parameter.when)).map(|parameter| {
                let path = format!("{}/{}", info.scope, parameter.name);
                (path, variables.shape(parameter.shape), parameter.need_grad)
            });
        let registered: Vec<_> = store
            .parameters()
            .into_iter()
            .map(|(path, parameter)| (path, parameter.var().dims().to_vec(), parameter.need_grad()))
            .collect();
        // Layers inside the layer have their own declarations.
        let (registered, inside): (Vec<_>, Vec<_>) =
            registered.into_iter().partition(|(path, ..)| own(info, path).is_some());
        for (path, ..) in inside {
            let declared = LAYERS.iter().any(|layer| {
                let ends = |name: &str| path.ends_with(&format!("/{}/{name}", layer.scope));
                layer.parameters.iter().any(|parameter| ends(parameter.name))
            });
            assert!(declared, "{case:?}: {path}");
        }
        // Conditions and order of evaluation are the body's; the declaration says which and how.
        let (mut declared, mut registered): (Vec<_>, _) = (declared.collect(), registered);
        assert_eq!(registered.len(), declared.len(), "{case:?}: {registered:?}");
        declared.sort();
        registered.sort();
        assert_eq!(registered, declared, "{case:?}");
    }
}

#[test]
fn parameters_are_listed_in_the_declared_order() {
    for case in CASES.iter().filter(|case| !COMPOSITES.contains(&case.layer)) {
        let info = info(case);
        let registered = ParameterStore::new().enter(|| {
            call(case, DType::F32, &[]);
            parameter_scope(info.scope, get_all_parameters)
        });
        let declared: Vec<_> = info.parameters.iter().map(|parameter| parameter.name).collect();
        let declared: Vec<_> = declared.into_iter().filter(|name| registered.get(name).is_some()).collect();
        let own: Vec<_> = registered.paths().filter(|path| !path.contains('/')).collect();
        assert_eq!(own, declared, "{case:?}");
    }
}

#[test]
fn names_and_scopes_make_the_path() {
    for case in CASES {
        let paths = |parameters: &Parameters| parameters.paths().map(str::to_owned).collect::<Vec<_>>();
        let (plain, nested, joined) = (ParameterStore::new(), ParameterStore::new(), ParameterStore::new());
        plain.enter(|| call(case, DType::F32, &[]));
        nested.enter(|| {
            parameter_scope("net", || {
                parameter_scope("block", || call(case, DType::F32, &[("name", "l/1".into())]))
            })
        });
        joined.enter(|| parameter_scope("net/block/l", || call(case, DType::F32, &[("name", "1".into())])));
        let wanted: Vec<_> =
            paths(&plain.parameters()).into_iter().map(|path| format!("net/block/l/1/{path}")).collect();
        assert_eq!(paths(&nested.parameters()), wanted, "{case:?}");
        assert_eq!(paths(&joined.parameters()), wanted, "{case:?}");
    }
}

#[test]
fn fixed_parameters_get_no_gradient_and_keep_their_flags() {
    for case in CASES {
        if case.layer == "mean_subtraction" {
            continue; // It has nothing trainable.
        }
        let gradients = |extra: &[(&str, Value)]| {
            let store = ParameterStore::new();
            let outputs = store.enter(|| call(case, DType::F64, extra));
            let loss =
                outputs.iter().map(|y| y.sqr().unwrap().sum_all().unwrap()).reduce(|a, b| (a + b).unwrap());
            let gradients = loss.unwrap().backward().unwrap();
            let reached = |parameters: &Parameters| {
                parameters
                    .iter()
                    .filter(|(_, p)| gradients.get(p.var()).is_some())
                    .map(|(path, _)| path.to_owned())
                    .collect()
            };
            let parameters = store.parameters();
            let trainable =
                parameters.iter().filter(|(_, p)| p.need_grad()).map(|(path, _)| path.to_owned()).collect();
            let reached: Vec<String> = reached(&parameters);
            (reached, trainable)
        };
        let (reached, trainable): (_, Vec<String>) = gradients(&[]);
        assert_eq!(reached, trainable, "{case:?}: the trainable ones, and no other");
        let (reached, flags) = gradients(&[("fix_parameters", true.into())]);
        match COMPOSITES.contains(&case.layer) {
            true => assert_eq!(reached, trainable, "{case:?}: the layers inside do not hear of it"),
            false => assert!(reached.is_empty(), "{case:?}: {reached:?}"),
        }
        assert_eq!(flags, trainable, "{case:?}");
    }
}

/// Parameters have the input's type, and the two types agree to single precision.
#[test]
fn single_and_double_precision_agree() {
    for case in CASES {
        let run = |dtype| {
            let store = ParameterStore::new();
            let outputs = store.enter(|| call(case, dtype, &[]));
            if case.layer != "embed" {
                assert!(store.parameters().iter().all(|(_, p)| p.var().dtype() == dtype), "{case:?}");
                assert!(outputs.iter().all(|y| y.dtype() == dtype), "{case:?}");
            }
            outputs.iter().map(|y| y.to_dtype(DType::F64).unwrap().flatten_all().unwrap()).collect::<Vec<_>>()
        };
        for (single, double) in run(DType::F32).iter().zip(&run(DType::F64)) {
            let error =
                (single - double).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f64>().unwrap();
            assert!(error < 2e-4, "{case:?}: {error}");
        }
    }
}

/// In every format, into a fresh store of another seed.
#[test]
fn a_saved_layer_computes_the_same() {
    let folder = tempfile::tempdir().unwrap();
    for case in CASES {
        let store = ParameterStore::new();
        // Two passes: running statistics and schedules have moved.
        store.enter(|| (call(case, DType::F32, &[]), call(case, DType::F32, &[])));
        for extension in ["h5", "protobuf", "safetensors"] {
            let file = folder.path().join("layer").with_extension(extension);
            store.save_parameters(&file).unwrap();
            let again = ParameterStore::with_seed(1);
            again.load_parameters(&file).unwrap();
            let [before, after] =
                [&store, &again].map(|store| store.enter(|| test_mode(|| call(case, DType::F32, &[]))));
            assert_eq!(bits(&before), bits(&after), "{case:?} in {extension}");
            assert_eq!(
                store.parameters().paths().collect::<Vec<_>>(),
                again.parameters().paths().collect::<Vec<_>>(),
                "{case:?} in {extension}"
            );
            // A layer with a schedule moves on in each call: both stores are one pass further now.
        }
    }
}
