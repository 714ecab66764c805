//! Models: whose parameters they use, what makes them, and what they refuse.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::{DType, Device, Module, ModuleT, Tensor};
use layerfn::prelude::{affine, batch_normalization, dropout, inq_affine, mean_subtraction};
use layerfn::solver::{Sgd, Solver};
use layerfn::{
    Error, Model, ParameterStore, Result, backward, get_all_parameters, is_training, network, test_mode,
};

use super::layers::{dense, relu};
use super::{input, values};

fn answer(model: &Model) -> Vec<f32> {
    values(&model.forward_t(&input(3).unwrap(), false).unwrap()).unwrap()
}

/// A model that has been trained for a few steps.
fn trained() -> Result<Model> {
    let model = network! { fc: affine(4) -> bn: batch_normalization -> dropout -> out: affine(2) }
        .boxed()
        .init(&input(3)?)?;
    let mut solver = Sgd::new(0.1);
    solver.set_parameters(&model.parameters());
    for _ in 0..3 {
        solver.update(&backward(&model.forward(&input(3)?)?.sqr()?.sum_all()?)?)?;
    }
    Ok(model)
}

#[test]
fn networks_with_equal_labels_do_not_share_as_models() -> Result<()> {
    let x = input(4)?;
    let net = network! { dense(8) -> relu -> out: dense(2) };
    let (teacher, student) = (net.init(&x)?, net.init(&x)?);
    for (path, parameter) in student.store().parameters().iter() {
        assert_ne!(parameter.var().id(), teacher.store().get(path).unwrap().var().id(), "{path}");
    }
    let before = values(&teacher.forward(&x)?)?;
    assert_eq!(values(&student.forward(&x)?)?, before, "both start from one seed");
    for var in student.parameters().vars() {
        var.set(&var.zeros_like()?)?;
    }
    assert_eq!(values(&teacher.forward(&x)?)?, before);
    assert_eq!(values(&student.forward(&x)?)?, [0.0; 4]);
    assert!(ParameterStore::current().parameters().is_empty(), "nothing is made elsewhere");
    Ok(())
}

#[test]
fn a_clone_shares_and_a_deep_copy_does_not() -> Result<()> {
    let model = trained()?;
    let (shared, copy) = (model.clone(), model.deep_copy()?);
    let before = answer(&model);
    for var in model.parameters().vars() {
        var.set(&var.ones_like()?)?;
    }
    assert_eq!(answer(&shared), answer(&model));
    assert_ne!(answer(&model), before);
    assert_eq!(answer(&copy), before);
    Ok(())
}

#[test]
fn any_thread_gets_the_same_answer() -> Result<()> {
    let model = trained()?;
    let here = answer(&model);
    std::thread::scope(|threads| {
        assert_eq!(threads.spawn(|| answer(&model)).join().unwrap(), here);
        // A store that the thread has entered does not matter.
        let entered = || ParameterStore::new().enter(|| (answer(&model), get_all_parameters().len()));
        assert_eq!(threads.spawn(entered).join().unwrap(), (here.clone(), 0));
    });
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    let (one, two) = pool.install(|| rayon::join(|| answer(&model), || answer(&model)));
    assert_eq!((&one, &two), (&here, &here));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let in_task = runtime.block_on(async {
        let model = model.clone();
        let context = test_mode(layerfn::Context::current);
        tokio::task::spawn_blocking(move || {
            let by_context = context.enter(|| values(&model.forward(&input(3).unwrap()).unwrap()).unwrap());
            assert_eq!(by_context, answer(&model), "the mode came along");
            by_context
        })
        .await
        .unwrap()
    });
    assert_eq!(in_task, here);
    Ok(())
}

#[test]
fn making_a_model_moves_nothing() -> Result<()> {
    let outside = ParameterStore::with_seed(5);
    let model = outside.enter(|| {
        let net = network! {
            affine(3) -> bn: batch_normalization(batch_stat = true) -> mean_subtraction(update_running_mean = true)
                -> inq_affine(3, inq_iterations = [0, 1]) -> dropout
        };
        net.init(&input(3)?)
    })?;
    let value = |path: &str| values(model.store().get(path).unwrap().var()).unwrap();
    assert_eq!(value("bn/bn/mean"), [0.0; 3]);
    assert_eq!(value("bn/bn/var"), [1.0; 3]);
    assert_eq!(value("mean_subtraction/t"), [0.0]);
    assert!(value("inq_affine/_count").iter().all(|&count| count == 0.0));
    assert_eq!(value("inq_affine/I"), [0.0; 9]);
    let fresh = ParameterStore::with_seed(5).rng().next_u32();
    assert_eq!(model.store().rng().next_u32(), fresh);
    assert_eq!(outside.rng().next_u32(), fresh);
    assert!(outside.parameters().is_empty());

    // The same parameters as in a store with that seed.
    let by_hand = ParameterStore::with_seed(5);
    by_hand.enter(|| affine(&input(3)?, 3).call())?;
    assert_eq!(value("affine/W"), values(by_hand.get("affine/W").unwrap().var())?);
    Ok(())
}

#[test]
fn what_one_mode_alone_asks_for_is_made() -> Result<()> {
    fn by_mode(x: &Tensor) -> Result<Tensor> {
        if is_training() { dense(x, 2).name("auxiliary").call() } else { dense(x, 2).name("main").call() }
    }
    let model = network! { by_mode }.init(&input(3)?)?;
    let paths = model.parameters();
    assert_eq!(
        paths.paths().collect::<Vec<_>>(),
        ["auxiliary/dense/W", "auxiliary/dense/b", "main/dense/W", "main/dense/b"]
    );
    model.forward_t(&input(3)?, true)?;
    model.forward_t(&input(3)?, false)?;
    Ok(())
}

#[test]
fn a_model_makes_nothing_later() -> Result<()> {
    let more = AtomicBool::new(false);
    let net = network! {
        hidden: dense(3) -> (|x: &Tensor| if more.load(Ordering::Relaxed) { dense(x, 3).name("hiden").call() } else { Ok(x.clone()) })
    };
    let model = net.init(&input(3)?)?;
    model.forward(&input(3)?)?;
    more.store(true, Ordering::Relaxed);
    let error = model.forward(&input(3)?).unwrap_err();
    assert!(
        matches!(error.root(), Error::Sealed { path, nearest: Some(nearest), .. }
            if path == "hiden/dense/W" && nearest == "hidden/dense/W"),
        "{error}"
    );
    assert!(error.to_string().contains("sealed by `init`"), "{error}");
    Ok(())
}

#[test]
fn a_load_is_all_or_nothing() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let (file, other) = (folder.path().join("model.h5"), folder.path().join("other.safetensors"));
    let model = trained()?;
    model.save(&file)?;
    let again = network! { fc: affine(4) -> bn: batch_normalization -> dropout -> out: affine(2) }
        .boxed()
        .init(&input(3)?)?;
    assert_ne!(answer(&again), answer(&model));
    again.load(&file)?;
    assert_eq!(answer(&again), answer(&model));

    // Frozen parameters take a file's values and stay frozen.
    let frozen = again.deep_copy()?;
    frozen.freeze("**")?;
    frozen.load(&file)?;
    assert!(frozen.parameters().is_empty());

    let renamed = network! { fc: affine(4) -> bn: batch_normalization -> dropout -> head: affine(2) }
        .boxed()
        .init(&input(3)?)?;
    renamed.save(&other)?;
    for (model, file) in [(&renamed, &file), (&again, &other)] {
        let before = answer(model);
        let error = model.load(file).unwrap_err();
        assert!(matches!(&error, Error::Mismatch { differences, .. } if differences.len() == 4), "{error}");
        assert_eq!(answer(model), before);
    }
    Ok(())
}

#[test]
fn what_is_frozen_is_not_trained() -> Result<()> {
    let net = network! { features: { affine(4) -> batch_normalization } -> head: affine(2) };
    let model = net.init(&input(3)?)?;
    model.freeze("features/**")?;
    assert_eq!(model.parameters().paths().collect::<Vec<_>>(), ["head/affine/W", "head/affine/b"]);
    assert_eq!(model.summary()?.parameter_count(), 4 * 2 + 2);
    let stored = |path: &str| values(model.store().get(path).unwrap().var()).unwrap();
    let before = stored("features/bn/mean");
    let in_training = values(&model.forward_t(&input(3)?, true)?)?;
    assert_eq!(stored("features/bn/mean"), before);
    assert_eq!(
        in_training,
        values(&model.forward_t(&input(3)?, false)?)?,
        "batch normalization is in test mode"
    );
    model.unfreeze("features/**")?;
    assert_eq!(model.parameters().len(), 6);
    model.forward_t(&input(3)?, true)?;
    assert_ne!(stored("features/bn/mean"), before);
    assert!(matches!(model.freeze("feature/**"), Err(Error::NoParameter { .. })));
    Ok(())
}

#[test]
fn a_model_is_a_module_of_candle() -> Result<()> {
    fn run(module: &impl Module, x: &Tensor) -> candle_core::Result<Tensor> {
        module.forward(x)
    }
    fn run_t(module: &impl ModuleT, x: &Tensor, train: bool) -> candle_core::Result<Tensor> {
        module.forward_t(x, train)
    }
    fn shareable<T: Clone + Send + Sync + 'static>(_: &T) {}
    fn mode(x: &Tensor) -> Result<Tensor> {
        Ok(if is_training() { x.ones_like()? } else { x.clone() })
    }
    let model = network! { mode }.boxed().init(&input(2)?)?;
    shareable(&model);
    let x = input(2)?;
    assert_eq!(values(&test_mode(|| run(&model, &x))?)?, values(&x)?);
    assert_eq!(values(&run_t(&model.module_t(), &x, false)?)?, values(&x)?);
    assert_eq!(values(&run_t(&model.module_t(), &x, true)?)?, [1.0; 4]);
    Ok(())
}

#[test]
fn a_model_is_made_on_shapes_and_on_several_inputs() -> Result<()> {
    let model = network! { dense(5) -> relu }.init((2, 3))?;
    assert_eq!(model.forward(&input(3)?)?.dims(), [2, 5]);
    assert_eq!(model.summary()?.parameter_count(), 20);

    let calls = Cell::new(0);
    let two = network! { |a, b| { use(a) -> dense(5) -> (|x: &Tensor| { calls.set(calls.get() + 1); Ok::<_, Error>((x + b.sum_all()?.to_scalar::<f32>()? as f64)?) }) } };
    let model = two.init(&input(3)?, [1])?;
    let b = Tensor::zeros(1, DType::F32, &Device::Cpu)?;
    assert_eq!(model.forward(&input(3)?, &b)?.dims(), [2, 5]);
    assert_eq!(model.forward_t(&input(3)?, &b, false)?.dims(), [2, 5]);
    assert_eq!(model.summary()?.parameter_count(), 20);
    assert_eq!(calls.get(), 5, "two for making it, one for each call");

    let five =
        network! { |a, b, c, d, e| { use(a) -> (|x: &Tensor| (((x + b)? + c)? + d)? + e) -> dense(2) } };
    let model = five.init((2, 3), (2, 3), (2, 3), (2, 3), (2, 3))?;
    let x = input(3)?;
    assert_eq!(model.forward_t(&x, &x, &x, &x, &x, false)?.dims(), [2, 2]);
    assert_eq!(model.summary()?.parameter_count(), 3 * 2 + 2);
    Ok(())
}

#[test]
fn shapes_that_no_memory_holds_are_refused() -> Result<()> {
    let net = network! { dense(2) };
    for shape in [[1 << 45, 3], [usize::MAX, 3]] {
        for error in [net.summary([shape]).unwrap_err(), net.init(shape).map(drop).unwrap_err()] {
            assert!(matches!(error, Error::InvalidArgument { .. }), "{error}");
        }
    }
    let huge = Tensor::zeros(1, DType::F32, &Device::Cpu)?.broadcast_as((1_usize << 30, 1_usize << 10))?;
    for net in [network! { concat(1) { _, _ } }.boxed(), network! { mul { _, _ } }.boxed()] {
        assert!(net.forward(&huge).unwrap_err().to_string().contains("memory"));
    }
    Ok(())
}
