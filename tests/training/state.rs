//! The state of a training in a file.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use layerfn::checkpoint::{Checkpoint, Load};
use layerfn::prelude::*;
use layerfn::solver::{Adam, Momentum, Sgd, schedule};
use layerfn::training::{EarlyStopping, LossScaler, StateFiles, TrainState, WeightAverage};
use layerfn::{Error, Network};

use super::{parameters, var};

fn text<T>(result: Result<T>) -> String {
    result.err().map_or_else(|| "no error".to_owned(), |error| error.to_string())
}

fn steps(net: &Network, solver: &mut dyn Solver, n: usize) -> Result<()> {
    let x = Tensor::ones((8, 4), DType::F32, &Device::Cpu)?;
    for _ in 0..n {
        let loss = net.forward(&x)?.sqr()?.mean_all()?;
        solver.set_parameters(&get_parameters());
        solver.update(&backward(&loss)?)?;
    }
    Ok(())
}

#[test]
fn dropout_goes_on_where_it_was() -> Result<()> {
    let net = network! { affine(16) -> dropout -> affine(2) }.boxed();
    let folder = tempfile::tempdir().unwrap();
    for name in ["half.safetensors", "half.h5"] {
        let file = folder.path().join(name);
        let run = |halves: bool| -> Result<Vec<f32>> {
            let mut store = ParameterStore::new();
            let mut solver = Adam::new(0.1).schedule(schedule::cosine(20));
            store.enter(|| steps(&net, &mut solver, 5))?;
            if halves {
                TrainState::new().with("store", &store).with("solver", &mut solver).save(&file)?;
                (store, solver) = (ParameterStore::new(), Adam::new(0.1).schedule(schedule::cosine(20)));
                store.enter(|| net.forward(&Tensor::ones((8, 4), DType::F32, &Device::Cpu)?))?;
                solver.set_parameters(&store.enter(get_parameters));
                TrainState::new().with("store", &store).with("solver", &mut solver).load(&file)?;
            }
            store.enter(|| steps(&net, &mut solver, 5))?;
            Ok(store.get("affine/b").unwrap().var().to_vec1()?)
        };
        assert_eq!(run(false)?, run(true)?);
    }
    Ok(())
}

#[test]
fn an_empty_store_gets_the_parameters() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state.safetensors");
    let net = network! { affine(2) -> bn };
    let x = Tensor::ones((4, 3), DType::F32, &Device::Cpu)?;
    let store = ParameterStore::new();
    store.enter(|| net.forward(&x))?;
    TrainState::new().with("store", &store).save(&file)?;
    let other = ParameterStore::new();
    TrainState::new().with("store", &other).load(&file)?;
    assert_eq!(
        other.parameters().paths().collect::<Vec<_>>(),
        store.parameters().paths().collect::<Vec<_>>()
    );
    let flags = |store: &ParameterStore| -> Vec<bool> {
        store.parameters().iter().map(|(_, parameter)| parameter.need_grad()).collect()
    };
    assert_eq!(flags(&other), flags(&store));
    // Its parameters are to be had without the rest.
    let model = net.init(&x)?;
    Load::new(Checkpoint::open(&file)?)
        .partial(["store/parameters/**"])
        .rename("store/parameters/**", "**")
        .apply_to(model.store(), "")?;
    Ok(())
}

#[test]
fn every_kind_of_part_comes_back_to_the_bit() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    for name in ["state.safetensors", "state.h5"] {
        let file = folder.path().join(name);
        let rng = Rng::new(5);
        let _ = rng.normal();
        let (mut count, mut size, mut number, mut flag) = (u64::MAX - 3, 7usize, 0.1 + 0.2, true);
        let mut words = "größer \n\0".to_owned();
        let mut empty = String::new();
        let mut losses = vec![1.0, f64::NAN, -0.0, f64::INFINITY, 5e-324];
        let mut tensor = Tensor::new(&[[1f32, 2.], [3., f32::MIN_POSITIVE]], &Device::Cpu)?;
        let mut scaler = LossScaler::new().start(4.0);
        let mut stopping = EarlyStopping::new(2);
        stopping.observe(0.3);
        let mut boxed: Box<dyn Solver> = Box::new(Sgd::new(0.25));
        let bits = |losses: &[f64]| losses.iter().map(|loss| loss.to_bits()).collect::<Vec<_>>();
        let want_losses = bits(&losses);
        let mut save = |load: bool| -> Result<()> {
            let mut state = TrainState::new()
                .with("rng", &rng)
                .with("count", &mut count)
                .with("size", &mut size)
                .with("number", &mut number)
                .with("flag", &mut flag)
                .with("words", &mut words)
                .with("empty", &mut empty)
                .with("losses", &mut losses)
                .with("tensor", &mut tensor)
                .with("scaler", &mut scaler)
                .with("stopping", &mut stopping)
                .with("solver", &mut boxed);
            if load { state.load(&file) } else { state.save(&file) }
        };
        save(false)?;
        let drawn = [rng.normal(), rng.normal(), rng.uniform()];
        let first = std::fs::read(&file).unwrap();
        save(true)?;
        save(false)?;
        assert_eq!(std::fs::read(&file).unwrap(), first);
        assert_eq!([rng.normal(), rng.normal(), rng.uniform()], drawn);
        assert_eq!((count, size, number, flag), (u64::MAX - 3, 7, 0.1 + 0.2, true));
        assert_eq!((words.as_str(), empty.as_str()), ("größer \n\0", ""));
        assert_eq!(bits(&losses), want_losses);
        assert_eq!(tensor.to_vec2::<f32>()?, [[1.0, 2.0], [3.0, f32::MIN_POSITIVE]]);
        assert_eq!((scaler.scale(), stopping.best(), boxed.learning_rate()), (4.0, Some(0.3), 0.25));
    }
    Ok(())
}

#[test]
fn a_state_of_another_training_is_refused_and_changes_nothing() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state.safetensors");
    let w = var(&[1.0, 2.0], DType::F32)?;
    let all = parameters(&[("a/W", &w)]);
    let mut solver = Momentum::new(0.1, 0.9);
    solver.set_parameters(&all);
    let mut average = WeightAverage::new(&all, 0.5)?;
    let mut step = 3u64;
    let state =
        TrainState::new().with("step", &mut step).with("average", &mut average).with("solver", &mut solver);
    state.save(&file)?;
    step = 9;

    let error = text(TrainState::new().with("step", &mut step).with("average", &mut average).load(&file));
    assert!(error.starts_with("`state` must belong to one of the parts [\"step\", \"average\"]"), "{error}");
    let error = text(
        TrainState::new()
            .with("step", &mut step)
            .with("average", &mut average)
            .with("solver", &mut solver)
            .with("epoch", &mut 0u64)
            .load(&file),
    );
    assert!(error.ends_with("in the part `epoch`, got None"), "{error}");
    assert_eq!(step, 9);

    let long = var(&[1.0, 2.0, 3.0], DType::F32)?;
    let mut other = WeightAverage::new(&parameters(&[("a/W", &long)]), 0.5)?;
    let mut state =
        TrainState::new().with("step", &mut step).with("average", &mut other).with("solver", &mut solver);
    let error = text(state.load(&file));
    assert!(error.contains("must hold `a/W` as F32 of shape [3], in the part `average`"), "{error}");
    assert_eq!(step, 9);

    let error = text(TrainState::new().with("a", &mut step).with("a", &mut 1u64).save(&file));
    assert!(error.starts_with("`name` must not be empty, and must differ between parts"), "{error}");
    let error = text(TrainState::new().with("a", &mut step).save(folder.path().join("state.npz")));
    assert!(error.starts_with("`path` must be a `.safetensors` or `.h5`"), "{error}");
    Ok(())
}

#[test]
fn a_solver_without_its_parameters_says_what_it_lacks() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state.h5");
    let w = var(&[1.0, 2.0], DType::F32)?;
    let mut solver = Momentum::new(0.1, 0.9);
    solver.set_parameters(&parameters(&[("a/W", &w)]));
    solver.update(&super::gradients(&[(&w, vec![1.0, 1.0])])?)?;
    TrainState::new().with("solver", &mut solver).save(&file)?;
    let mut other = Momentum::new(0.1, 0.9);
    let error = text(TrainState::new().with("solver", &mut other).load(&file));
    assert!(error.contains("that the solver was given by `set_parameters`, in the part `solver`"), "{error}");
    Ok(())
}

#[test]
fn the_last_states_stay_and_the_best() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let files = StateFiles::new(folder.path().join("run"), "h5").keep(2);
    assert_eq!(files.latest()?, None);
    let mut step = 0u64;
    assert!(!files.resume(&mut TrainState::new().with("step", &mut step))?);
    for at in [1, 5, 12, 30] {
        step = at;
        files.save(&TrainState::new().with("step", &mut step), at)?;
        if at == 5 {
            files.save_best(&TrainState::new().with("step", &mut step))?;
        }
    }
    std::fs::write(folder.path().join("run/.layerfn-x.tmp"), "left by one that was killed").unwrap();
    let names = |folder: &Path| {
        let mut names: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    let want = [".layerfn-x.tmp", "best.h5", "step-000000000012.h5", "step-000000000030.h5"];
    assert_eq!(names(&folder.path().join("run")), want);
    step = 0;
    assert!(files.resume(&mut TrainState::new().with("step", &mut step))?);
    assert_eq!(step, 30);
    TrainState::new().with("step", &mut step).load(files.best().unwrap())?;
    assert_eq!(step, 5);
    Ok(())
}

#[test]
fn a_damaged_file_changes_nothing() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state.safetensors");
    let mut step = 3u64;
    let rng = Rng::new(1);
    TrainState::new().with("step", &mut step).with("rng", &rng).save(&file)?;
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() - 4]).unwrap();
    let error = TrainState::new().with("step", &mut step).with("rng", &rng).load(&file).unwrap_err();
    assert!(matches!(error, Error::Checkpoint { .. }), "{error}");
    Ok(())
}
