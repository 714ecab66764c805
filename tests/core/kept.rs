//! What forward passes leave as it is: sealed stores and frozen parameters.

use candle_core::{DType, Device, Tensor, Var};
use layerfn::checkpoint::{Checkpoint, Load};
use layerfn::solver::{Sgd, Solver};
use layerfn::{
    Error, Parameter, ParameterStore, Result, affine, backward, batch_normalization, clear_parameters,
    get_parameter, get_parameter_or_create, get_parameters, inq_affine, load_parameters, mean_subtraction,
    network, parameter_scope, save_parameters, set_parameter,
};
use layerfn_tests::support::compare::values;

fn input() -> Tensor {
    Tensor::new(&[[1f32, -2.0, 3.0], [0.5, 0.25, -1.0]], &Device::Cpu).unwrap()
}

/// A file with the parameters that `f` makes.
fn file_of(f: impl FnOnce() -> Result<Tensor>) -> tempfile::TempPath {
    let file = tempfile::Builder::new().suffix(".safetensors").tempfile().unwrap().into_temp_path();
    ParameterStore::new().enter(|| {
        f().unwrap();
        save_parameters(&file).unwrap();
    });
    file
}

#[test]
fn a_sealed_store_names_the_nearest_parameter() {
    let store = ParameterStore::new();
    store.enter(|| {
        affine(&input(), 2).name("hidden").call().unwrap();
        store.seal();
        assert!(store.is_sealed());
        affine(&input(), 2).name("hidden").call().unwrap();
        let error = affine(&input(), 2).name("hiden").call().unwrap_err();
        assert_eq!(
            error.root().to_string(),
            "there is no parameter `hiden/affine/W` (the nearest is `hidden/affine/W`), and the store is sealed by `seal`; \
             give the layer the label that the parameter has, or let layers make new parameters by `ParameterStore::unseal`"
        );
        // What is asked for by name is made.
        set_parameter("extra", Parameter::new(Var::new(&[1f32], &Device::Cpu).unwrap(), true)).unwrap();
        clear_parameters();
        assert!(affine(&input(), 2).name("hidden").call().is_err(), "what is sealed by request stays so");
        store.unseal();
        affine(&input(), 2).name("hiden").call().unwrap();
    });
}

#[test]
fn a_load_into_an_empty_store_seals_it() {
    let file = file_of(|| affine(&input(), 2).name("hidden").call());
    let store = ParameterStore::new();
    store.enter(|| {
        load_parameters(&file).unwrap();
        affine(&input(), 2).name("hidden").call().unwrap();
        let error = affine(&input(), 2).name("other").call().unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains(&format!("since `{}` was loaded into it when it was empty", file.display())),
            "{text}"
        );
        assert!(matches!(error.root(), Error::Sealed { path, .. } if path == "other/affine/W"));
        // Another file adds what it has.
        let more = file_of(|| affine(&input(), 2).name("other").call());
        load_parameters(&more).unwrap();
        affine(&input(), 2).name("other").call().unwrap();
        clear_parameters();
        affine(&input(), 2).name("third").call().unwrap();
    });
}

#[test]
fn a_load_beside_what_is_there_seals_nothing() {
    let file = file_of(|| affine(&input(), 2).name("hidden").call());
    ParameterStore::new().enter(|| {
        affine(&input(), 2).name("head").call().unwrap();
        load_parameters(&file).unwrap();
        affine(&input(), 2).name("other").call().unwrap();
    });
}

#[test]
fn a_load_into_an_empty_scope_seals_that_scope() {
    let file = file_of(|| affine(&input(), 2).name("fc").call());
    let store = ParameterStore::new();
    store.enter(|| {
        parameter_scope("features", || load_parameters(&file)).unwrap();
        affine(&input(), 2).name("features/fc").call().unwrap();
        affine(&input(), 2).name("head").call().unwrap();
        affine(&input(), 2).name("features2").call().unwrap();
        let error = affine(&input(), 2).name("features/fc2").call().unwrap_err();
        assert!(error.to_string().contains("the scope `features` is sealed"), "{error}");
        // A part of a file is no different: what the layers do not find is an error until told otherwise.
        let load = Load::new(Checkpoint::open(&file).unwrap()).partial(["**/W"]).create_unknown(true);
        load.apply_to(&store, "part").unwrap();
        assert!(affine(&input(), 2).name("part/fc").call().is_err());
        store.unseal();
        affine(&input(), 2).name("part/fc").call().unwrap();
    });
}

#[test]
fn what_is_frozen_gets_no_gradient_and_does_not_move() {
    let net = network! {
        features: { affine(3) -> batch_normalization -> mean_subtraction -> inq_affine(3, inq_iterations = [0, 1]) } -> head: affine(2)
    };
    let store = ParameterStore::new();
    store.enter(|| {
        for _ in 0..3 {
            net.forward(&input()).unwrap();
        }
        let mut solver = Sgd::new(0.1);
        solver.set_parameters(&get_parameters());
        store.freeze("features/**").unwrap();
        let all = || -> Vec<(String, Vec<f64>)> {
            store
                .parameters()
                .iter()
                .map(|(path, parameter)| (path.to_owned(), values(parameter.var())))
                .collect()
        };
        let before = all();
        for batch_stat in [false, true] {
            let y = net.forward(&input()).unwrap();
            if batch_stat {
                parameter_scope("features", || batch_normalization(&input()).batch_stat(true).call())
                    .unwrap();
                parameter_scope("features", || mean_subtraction(&input()).update_running_mean(true).call())
                    .unwrap();
            }
            solver.update(&backward(y.sqr().unwrap().sum_all().unwrap()).unwrap()).unwrap();
        }
        let moved: Vec<String> = before
            .iter()
            .zip(all())
            .filter(|(old, new)| **old != *new)
            .map(|(old, _)| old.0.clone())
            .collect();
        assert_eq!(moved, ["head/affine/W", "head/affine/b"]);
        assert_eq!(get_parameters().paths().collect::<Vec<_>>(), moved);
        assert!(get_parameter("features/bn/mean").unwrap().is_frozen());

        let summary = net.summary([(2, 3)]).unwrap();
        assert_eq!(summary.parameter_count(), 3 * 2 + 2);
        let audit = net.gradient_audit(&input(), |y: &Tensor| y.sqr()?.sum_all()).unwrap();
        assert!(audit.is_clean(), "{audit}");

        store.unfreeze("features/**").unwrap();
        net.forward(&input()).unwrap();
        assert_eq!(get_parameters().len(), 8, "running statistics are still no trained parameters");
        assert!(all().iter().zip(&before).any(|(new, old)| new.0 == "features/bn/mean" && new.1 != old.1));
    });
}

#[test]
fn a_pattern_that_matches_nothing_is_an_error() {
    let store = ParameterStore::new();
    store.enter(|| affine(&input(), 2).name("features").call()).unwrap();
    for result in [store.freeze("feature/affine/W"), store.unfreeze("feature/affine/W")] {
        assert_eq!(
            result.unwrap_err().to_string(),
            "no parameter `feature/affine/W` is registered; did you mean `features/affine/W`?"
        );
    }
}

#[test]
fn the_flag_of_a_call_by_name_counts() {
    ParameterStore::new().enter(|| {
        let take =
            |need_grad| get_parameter_or_create("w").shape(1).need_grad(need_grad).call().unwrap().track_op();
        assert!(take(true));
        assert!(!take(false));
        assert!(take(true));
        layerfn::ParameterStore::current().freeze("w").unwrap();
        assert!(!take(true), "a forward pass that asks by name does not unfreeze");
    });
}

#[test]
fn copies_keep_flags_seals_and_ties() {
    let store = ParameterStore::new();
    let tied = Var::new(&[1f32, 2.0], &Device::Cpu).unwrap();
    for path in ["encoder/W", "decoder/W"] {
        store.set(path, Parameter::new(tied.clone(), true)).unwrap();
    }
    store.set("fixed", Parameter::new(Var::new(&[3f32], &Device::Cpu).unwrap(), false)).unwrap();
    store.freeze("encoder/**").unwrap();
    assert!(store.get("decoder/W").unwrap().is_frozen(), "it is the same variable");
    store.seal();
    for copy in [store.deep_copy().unwrap(), store.to_device(&Device::Cpu).unwrap()] {
        let get = |path: &str| copy.get(path).unwrap();
        assert_eq!(get("encoder/W").var().id(), get("decoder/W").var().id());
        assert_ne!(get("encoder/W").var().id(), tied.id());
        assert!(get("encoder/W").is_frozen() && !get("fixed").need_grad() && !get("fixed").is_frozen());
        assert!(copy.is_sealed());
        get("encoder/W").var().set(&Tensor::zeros(2, DType::F32, &Device::Cpu).unwrap()).unwrap();
    }
    assert_eq!(values(&tied), [1.0, 2.0]);
}

#[test]
fn an_audit_leaves_out_what_is_taken_without_gradient() {
    network! { fn backbone() < affine(3) -> batch_normalization -> relu > }
    fn relu(x: &Tensor) -> Result<Tensor> {
        Ok(x.relu()?)
    }
    ParameterStore::new().enter(|| {
        let net =
            network! { features: { (|x: &Tensor| layerfn::no_grad(|| backbone(x))) } -> head: affine(2) };
        let audit = net.gradient_audit(&input(), |y: &Tensor| y.sqr()?.sum_all()).unwrap();
        assert!(audit.is_clean(), "{audit}");
        assert_eq!(net.summary([(2, 3)]).unwrap().parameter_count(), 3 * 2 + 2);
        let net = network! { a: affine(3, fix_parameters = true) -> head: affine(2) };
        let audit = net.gradient_audit(&input(), |y: &Tensor| y.sqr()?.sum_all()).unwrap();
        assert!(audit.is_clean(), "{audit}");
    });
}
