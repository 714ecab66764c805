use candle_core::{DType, Device, Tensor, Var};
use layerfn::checkpoint::{Checkpoint, Format};
use layerfn::solver::{Adam, Momentum, Sgd, Solver};
use layerfn::{Parameter, ParameterStore, Parameters, Result};

use super::{bits, flat, parameters, run};

/// Runs 3 + 2 steps, once through and once with the state saved to a file and taken over by a new solver in between.
fn assert_restored<S: Solver>(solver: impl Fn() -> S, dtype: DType, extension: &str) -> Result<()> {
    let sizes = [("c1/conv/W", 70), ("c1/conv/b", 3), ("s", 1)];
    let through = parameters(&sizes, dtype)?;
    let mut first = solver();
    first.set_parameters(&through);
    run(&mut first, &through, 0, 3)?;

    let resumed = parameters(&sizes, dtype)?;
    for (from, to) in through.vars().iter().zip(resumed.vars()) {
        to.set(from)?;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("states").with_extension(extension);
    Checkpoint::from_parameters(&first.get_states()?)?.save(&file)?;
    let read = ParameterStore::new();
    read.load_parameters(&file)?;
    let mut second = solver();
    second.set_parameters(&resumed);
    second.set_states(&read.parameters())?;
    assert_eq!(bits(&second.get_states()?)?, bits(&first.get_states()?)?);

    run(&mut first, &through, 3, 2)?;
    run(&mut second, &resumed, 3, 2)?;
    assert_eq!(bits(&through)?, bits(&resumed)?);
    assert_eq!(bits(&second.get_states()?)?, bits(&first.get_states()?)?);
    Ok(())
}

#[test]
fn states_survive_files_bit_for_bit() -> Result<()> {
    for extension in Format::extensions() {
        assert_restored(|| Adam::new(0.1), DType::F32, extension)?;
        assert_restored(|| Momentum::new(0.1, 0.9), DType::BF16, extension)?;
        assert_restored(|| Sgd::new(0.1), DType::F32, extension)?;
    }
    assert_restored(|| Adam::new(0.1), DType::F64, "safetensors")?;
    assert_restored(|| Adam::new(0.1), DType::F64, "h5")
}

#[test]
fn states_are_copies_with_names() -> Result<()> {
    let parameters = parameters(&[("a/W", 2)], DType::F32)?;
    let mut solver = Adam::new(0.1);
    solver.set_parameters(&parameters);
    assert!(solver.get_states()?.is_empty());
    run(&mut solver, &parameters, 0, 1)?;
    let states = solver.get_states()?;
    assert_eq!(states.paths().collect::<Vec<_>>(), ["a/W/mean", "a/W/var", "a/W/t"]);
    assert_eq!(states.get("a/W/t").map(|t| t.var().to_scalar::<i64>()).transpose()?, Some(1));
    let before = flat(&states)?;
    run(&mut solver, &parameters, 1, 1)?;
    assert_eq!(flat(&states)?, before);
    Ok(())
}

#[test]
fn states_that_do_not_fit_are_refused() -> Result<()> {
    let all = parameters(&[("a", 2), ("b", 3)], DType::F32)?;
    let mut solver = Adam::new(0.1);
    solver.set_parameters(&all);
    run(&mut solver, &all, 0, 2)?;
    let before = bits(&solver.get_states()?)?;
    type States = Vec<(String, Parameter)>;
    let states = |change: &dyn Fn(&mut States)| -> Result<Parameters> {
        let mut states: States = solver.get_states()?.into_iter().collect();
        change(&mut states);
        Ok(states.into_iter().collect())
    };
    let var =
        |n: usize, dtype: DType| Tensor::zeros(n, dtype, &Device::Cpu).and_then(|t| Var::from_tensor(&t));
    let (long, wide) = (var(3, DType::F32)?, var(2, DType::F64)?);
    let cases = [
        (
            states(&|states| drop(states.remove(1)))?,
            "`states` must hold `a/var` too, got \"none\"".to_owned(),
        ),
        (
            states(&|states| states[0].1 = Parameter::new(long.clone(), false))?,
            "`states` must hold `a/mean` as F32 of shape [2], got (F32, [3])".to_owned(),
        ),
        (
            states(&|states| states[0].1 = Parameter::new(wide.clone(), false))?,
            "`states` must hold `a/mean` as F32 of shape [2], got (F64, [2])".to_owned(),
        ),
        (
            states(&|states| states.push(("c/mean".to_owned(), Parameter::new(long.clone(), false))))?,
            "`states` must belong to parameters that the solver was given by `set_parameters`, got [\"c/mean\"]".to_owned(),
        ),
    ];
    for (states, message) in cases {
        assert_eq!(solver.set_states(&states).unwrap_err().to_string(), message);
        assert_eq!(bits(&solver.get_states()?)?, before);
    }
    Ok(())
}

#[test]
fn a_path_keeps_its_state() -> Result<()> {
    let all = parameters(&[("a", 2), ("b", 3)], DType::F32)?;
    let mut solver = Adam::new(0.1);
    solver.set_parameters(&all);
    run(&mut solver, &all, 0, 2)?;
    let before = bits(&solver.get_states()?)?;

    let other = parameters(&[("a", 2), ("b", 4)], DType::F32)?;
    solver.set_parameters(&other);
    assert_eq!(solver.parameters().paths().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(bits(&solver.get_states()?)?, before[..3]);
    run(&mut solver, &other, 2, 1)
}

#[test]
fn every_path_takes_its_own_states_back() -> Result<()> {
    let var = || Var::from_tensor(&Tensor::ones(2, DType::F32, &Device::Cpu)?);
    let paths = ["a", "a/m", "/b", "c//d/", "", "t", "m/t"];
    let all = paths.map(|path| Ok((path.to_owned(), Parameter::new(var()?, true))));
    let all: Parameters = all.into_iter().collect::<Result<Vec<_>>>()?.into_iter().collect();
    let mut solver = Momentum::new(0.1, 0.9);
    solver.set_parameters(&all);
    run(&mut solver, &all, 0, 2)?;
    let states = solver.get_states()?;
    assert_eq!(states.len(), 2 * paths.len());
    let before = bits(&states)?;
    solver.set_states(&states)?;
    assert_eq!(bits(&solver.get_states()?)?, before);
    Ok(())
}

#[test]
fn damaged_states_are_refused() -> Result<()> {
    let all = parameters(&[("a", 2)], DType::F32)?;
    let mut solver = Momentum::new(0.1, 0.9);
    solver.set_parameters(&all);
    run(&mut solver, &all, 0, 1)?;
    let before = bits(&solver.get_states()?)?;
    let states = |v: &[f32], t: f32| -> Result<Parameters> {
        let state = |values: &[f32]| -> Result<Parameter> {
            Ok(Parameter::new(Var::new(values, &Device::Cpu)?, false))
        };
        let states = [("a/m".to_owned(), state(v)?), ("a/t".to_owned(), state(&[t])?)];
        Ok(states.into_iter().collect())
    };
    for t in [-1.0, 0.5, f32::NAN, f32::INFINITY, 1e10] {
        let error = solver.set_states(&states(&[1.0, 2.0], t)?).unwrap_err().to_string();
        assert!(error.starts_with("`states` must hold a number of steps in `a/t`, from 0"), "{error}");
    }
    assert_eq!(bits(&solver.get_states()?)?, before);
    solver.set_states(&states(&[1.0, 2.0], 3.0)?)
}
