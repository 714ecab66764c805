//! One variable under two paths, as tied weights are, is one variable.

use candle_core::{DType, Device, Tensor, Var};
use layerfn::solver::{Momentum, Sgd, Solver};
use layerfn::{Parameter, Parameters, Result, backward};

use super::assert_close;

fn tied() -> Result<(Var, Parameters)> {
    let w = Var::new(&[1f64, 2.], &Device::Cpu)?;
    let paths = ["encoder/W", "decoder/W"];
    Ok((
        w.clone(),
        paths.map(|path| (path.to_owned(), Parameter::new(w.clone(), true))).into_iter().collect(),
    ))
}

#[test]
fn it_is_stepped_and_clipped_once() -> Result<()> {
    for (limit, step) in [(f64::INFINITY, 0.1), (1.0, 0.1 / 2f64.sqrt())] {
        let (w, all) = tied()?;
        let mut solver = Sgd::new(0.1).clip_grad_by_global_norm(limit);
        solver.set_parameters(&all);
        solver.update(&backward(&w.sum_all()?)?)?;
        assert_close(&w.to_vec1::<f64>()?, &[1.0 - step, 2.0 - step], 1e-15);
        assert_eq!(solver.parameters().paths().collect::<Vec<_>>(), ["encoder/W", "decoder/W"]);
    }
    Ok(())
}

#[test]
fn it_counts_once() -> Result<()> {
    let (_, all) = tied()?;
    assert_eq!((all.len(), all.elem_count(), all.vars().len()), (2, 2, 1));
    Ok(())
}

#[test]
fn its_factors_must_agree() -> Result<()> {
    let (w, all) = tied()?;
    let mut solver = Sgd::new(0.1).learning_rate_factor("decoder/**", 2.0);
    solver.set_parameters(&all);
    let error = solver.update(&backward(&w.sum_all()?)?).unwrap_err().to_string();
    assert_eq!(
        error,
        "`learning_rate_factor` must be the same for `encoder/W` and `decoder/W`, which are one variable, got [\"none\", \"2.0\"]"
    );
    assert_eq!(w.to_vec1::<f64>()?, [1.0, 2.0]);
    let mut solver = solver.learning_rate_factor("encoder/**", 2.0);
    solver.update(&backward(&w.sum_all()?)?)?;
    assert_close(&w.to_vec1::<f64>()?, &[0.8, 1.8], 1e-15);
    Ok(())
}

#[test]
fn it_has_one_state() -> Result<()> {
    let (w, all) = tied()?;
    let mut solver = Momentum::new(0.1, 0.5);
    solver.set_parameters(&all);
    solver.update(&backward(&w.sum_all()?)?)?;
    let states = solver.get_states()?;
    assert_eq!(states.paths().collect::<Vec<_>>(), ["encoder/W/m", "encoder/W/t"]);
    solver.set_states(&states)?;

    // Under the other path, too; but not twice.
    let moved = |(path, state): (String, Parameter)| (path.replace("encoder", "decoder"), state);
    let other: Parameters = states.clone().into_iter().map(moved).collect();
    solver.set_states(&other)?;
    assert_eq!(solver.get_states()?.paths().collect::<Vec<_>>(), ["encoder/W/m", "encoder/W/t"]);
    let both: Parameters = states.into_iter().chain(other).collect();
    let error = solver.set_states(&both).unwrap_err().to_string();
    assert!(error.contains("`states` must hold one for `encoder/W` and `decoder/W`"), "{error}");

    // The state stays with the path that it had first.
    solver.set_parameters(&all);
    solver.update(&backward(&w.sum_all()?)?)?;
    assert_close(&w.to_vec1::<f64>()?, &[1.0 - 0.25, 2.0 - 0.25], 1e-15);
    let t = |solver: &Momentum| -> Result<Vec<f64>> {
        Ok(solver
            .get_states()?
            .get("encoder/W/t")
            .unwrap()
            .var()
            .to_dtype(DType::F64)?
            .flatten_all()?
            .to_vec1()?)
    };
    assert_eq!(t(&solver)?, [2.0]);
    let apart: Vec<_> = all.iter().map(|(path, parameter)| (path.to_owned(), parameter.clone())).collect();
    let copy = Parameter::new(Var::from_tensor(&Tensor::new(&[5f64, 6.], &Device::Cpu)?)?, true);
    let apart: Parameters = [apart[0].clone(), ("decoder/W".to_owned(), copy)].into_iter().collect();
    solver.set_parameters(&apart);
    assert_eq!(solver.get_states()?.paths().collect::<Vec<_>>(), ["encoder/W/m", "encoder/W/t"]);
    Ok(())
}
