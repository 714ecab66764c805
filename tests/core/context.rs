//! What threads see: nothing before they enter something, and all of a context after that.

use std::panic::{AssertUnwindSafe, catch_unwind};

use candle_core::{DType, Device, Tensor};
use layerfn::{
    Context, Error, Parameter, ParameterStore, Result, affine, batch_normalization, current_parameter_scope,
    dropout, get_all_parameters, get_parameters, is_training, load_parameters, mean_subtraction, network,
    no_grad, parameter_scope, save_parameters, set_parameter, test_mode,
};

fn input() -> Tensor {
    Tensor::new(&[[1f32, -2.0, 3.0], [0.5, 0.25, -1.0]], &Device::Cpu).unwrap()
}

/// Runs `f` on another thread.
fn elsewhere<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    std::thread::scope(|threads| threads.spawn(f).join().unwrap())
}

#[test]
fn a_thread_that_has_entered_nothing_makes_no_parameter() {
    let net = network! { fc: affine(2) };
    let error = elsewhere(|| net.forward(&input()).unwrap_err());
    assert!(matches!(error.root(), Error::NoStore { path } if path == "fc/affine/W"), "{error}");
    let text = error.to_string();
    for advice in
        ["`Context::current()`", "`context.enter(|| ..)`", "`Model`", "`ParameterStore::new().enter(|| ..)`"]
    {
        assert!(text.contains(advice), "{text}");
    }
    let file = tempfile::Builder::new().suffix(".safetensors").tempfile().unwrap();
    ParameterStore::new().enter(|| {
        affine(&input(), 2).call().unwrap();
        save_parameters(file.path()).unwrap();
    });
    elsewhere(|| {
        assert!(matches!(load_parameters(file.path()), Err(Error::NoStore { .. })));
        let var = candle_core::Var::new(&[1f32], &Device::Cpu).unwrap();
        assert!(matches!(set_parameter("p", Parameter::new(var, true)), Err(Error::NoStore { .. })));
        // The same through handles that the thread has from nowhere.
        let (store, context) = (ParameterStore::current(), Context::current());
        store.unseal();
        assert!(store.enter(|| affine(&input(), 2).call()).is_err());
        assert!(context.enter(|| affine(&input(), 2).call()).is_err());
        assert!(get_all_parameters().is_empty());
    });
}

/// A trained network's answer, here and by `run` on other threads.
fn same_answer(run: impl Fn(&(dyn Fn() -> Vec<f32> + Sync)) -> Vec<f32>) {
    ParameterStore::new().enter(|| {
        let net = network! { affine(4) -> batch_normalization -> dropout -> out: affine(2) };
        parameter_scope("model", || net.forward(&input())).unwrap();
        for var in get_parameters().vars() {
            var.set(&(var.as_tensor() + 1.0).unwrap()).unwrap();
        }
        let answer = || net.forward(&input()).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let here = parameter_scope("model", || test_mode(answer));
        let context = parameter_scope("model", || test_mode(|| no_grad(Context::current)));
        let there = || {
            context.enter(|| {
                assert_eq!(current_parameter_scope(), "model");
                assert!(!is_training());
                assert!(!net.forward(&input()).unwrap().track_op(), "no_grad comes along");
                answer()
            })
        };
        assert_eq!(run(&there), here);
        assert_eq!(get_all_parameters().len(), 8, "nothing was made");
    });
}

#[test]
fn a_context_goes_to_a_scoped_thread() {
    same_answer(|there| elsewhere(there));
}

#[test]
fn a_context_goes_to_tasks_of_rayon() {
    same_answer(|there| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        let (a, b) = pool.install(|| rayon::join(there, there));
        assert_eq!(a, b);
        a
    });
}

#[test]
fn a_context_goes_to_a_thread_of_its_own() {
    ParameterStore::new().enter(|| {
        affine(&input(), 2).call().unwrap();
        let context = test_mode(Context::current);
        let other = std::thread::spawn(move || {
            let seen = context.clone().enter(|| (get_all_parameters().len(), is_training()));
            (seen, get_all_parameters().len(), is_training())
        });
        assert_eq!(other.join().unwrap(), ((2, false), 0, true));
    });
}

#[test]
fn a_run_goes_on_in_another_thread() {
    ParameterStore::new().enter(|| {
        let twice = |x: &Tensor| -> Result<Tensor> {
            let context = Context::current();
            let y = elsewhere(|| context.enter(|| affine(x, 3).name("a").call()))?;
            affine(&y, 3).name("a").call()
        };
        let fine = network! { pair: twice -> relu -> b: affine(3) };
        fn relu(x: &Tensor) -> Result<Tensor> {
            Ok(x.relu()?)
        }
        fine.forward(&input()).unwrap();
        let summary = fine.summary([(2, 3)]).unwrap();
        assert_eq!(summary.parameter_count(), 2 * 12);
        // Both threads are in one run: a path that another stage owns is noticed in either.
        let clash = network! { a: affine(3) -> (|x: &Tensor| twice(x)) };
        let error = clash.forward(&input()).unwrap_err();
        assert!(
            matches!(error.root(), Error::SharedByAccident { path, .. } if path == "a/affine"),
            "{error}"
        );
    });
}

#[test]
fn entering_a_store_changes_the_store_only() {
    let store = ParameterStore::new();
    let y = no_grad(|| test_mode(|| store.enter(|| (affine(&input(), 2).call().unwrap(), is_training()))));
    assert!(!y.0.track_op() && !y.1);
    assert_eq!(store.parameters().len(), 2);
}

#[test]
fn a_store_entered_in_a_stage_has_paths_of_its_own() {
    network! { fn body() < fc: affine(3) > }
    let teacher = ParameterStore::new();
    ParameterStore::new().enter(|| {
        let net = network! { fc: affine(3) -> (|x: &Tensor| teacher.enter(|| body(x))) };
        net.forward(&input()).unwrap();
        assert_eq!(get_all_parameters().len(), 2);
    });
    assert_eq!(teacher.parameters().len(), 2);
}

#[test]
fn a_panic_in_a_context_restores_all_of_the_one_before() {
    let outer = ParameterStore::new();
    let context =
        ParameterStore::new().enter(|| parameter_scope("in", || test_mode(|| no_grad(Context::current))));
    outer.enter(|| {
        parameter_scope("out", || {
            for _ in 0..3 {
                let panicking =
                    || context.enter(|| parameter_scope("deep", || -> () { panic!("on purpose") }));
                assert!(catch_unwind(AssertUnwindSafe(panicking)).is_err());
                assert_eq!(current_parameter_scope(), "out");
                assert!(is_training());
            }
            assert!(affine(&input(), 2).call().unwrap().track_op());
        });
    });
    assert_eq!(outer.parameters().paths().next(), Some("out/affine/W"));
    context.enter(|| assert_eq!(current_parameter_scope(), "in"));
}

#[test]
fn no_update_of_state_is_lost() {
    let store = ParameterStore::new();
    let x = Tensor::ones((8, 1), DType::F32, &Device::Cpu).unwrap();
    std::thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                store.enter(|| {
                    for _ in 0..500 {
                        mean_subtraction(&x).call().unwrap();
                        batch_normalization(&x).decay_rate(0.999).call().unwrap();
                    }
                });
            });
        }
    });
    let value =
        |path: &str| store.get(path).unwrap().var().flatten_all().unwrap().to_vec1::<f32>().unwrap()[0];
    assert_eq!(value("mean_subtraction/t"), 2000.0);
    assert_eq!(value("mean_subtraction/mean"), 1.0);
    // 2000 steps of the same length towards 1, whatever their order.
    let mean = f64::from(value("bn/mean"));
    assert!((mean - (1.0 - 0.999f64.powi(2000))).abs() < 1e-4, "{mean}");
    assert!(!get_parameters().is_empty() || dropout(&x).call().is_ok());
}
