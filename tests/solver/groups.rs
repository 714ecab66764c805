//! Settings by patterns of paths, schedules, and solvers that are chosen at run time.

use candle_core::DType;
use layerfn::Result;
use layerfn::solver::{Adam, AdamW, Lion, Momentum, Sgd, Solver, schedule};

use super::{assert_close, bits, flat, gradients, parameters, run};

const SIZES: [(&str, usize); 4] = [("c1/conv/W", 4), ("c1/conv/b", 2), ("out/W", 3), ("out/b", 1)];

#[test]
fn groups_are_those_of_naive_loops() -> Result<()> {
    let all = parameters(&SIZES, DType::F64)?;
    let mut want = flat(&all)?;
    let mut momenta: Vec<Vec<f64>> = want.iter().map(|w| vec![0.0; w.len()]).collect();
    let mut solver = Momentum::new(0.1, 0.5)
        .clip_grad_by_global_norm(0.7)
        .weight_decay(0.3)
        .decay_rate("**/b", 0.0)
        .learning_rate_factor("out/**", 2.0)
        .learning_rate_factor("out/b", 0.5)
        .frozen("c1/conv/b");
    solver.set_parameters(&all);
    for t in 0..6 {
        let g: Vec<Vec<f64>> = super::step_gradients(&all, t)?.into_iter().flatten().collect();
        let live = [0, 2, 3];
        let norm = live.iter().flat_map(|&i| &g[i]).map(|g| g * g).sum::<f64>().sqrt();
        let clip = (0.7 / norm).min(1.0);
        for i in live {
            let (decay, rate) = [(0.3, 0.1), (0.0, 0.0), (0.3, 0.2), (0.0, 0.05)][i];
            for ((w, m), g) in want[i].iter_mut().zip(&mut momenta[i]).zip(&g[i]) {
                *m = 0.5 * *m + rate * (clip * g + decay * *w);
                *w -= *m;
            }
        }
        run(&mut solver, &all, t, 1)?;
        for (got, want) in flat(&all)?.iter().zip(&want) {
            assert_close(got, want, 1e-14);
        }
    }
    assert!(!solver.get_states()?.paths().any(|path| path.starts_with("c1/conv/b")));
    Ok(())
}

#[test]
fn a_gradient_of_what_is_frozen_stops_nobody() -> Result<()> {
    let all = parameters(&[("a", 1), ("b", 1)], DType::F32)?;
    let before = bits(&all)?;
    let mut solver = Sgd::new(0.1).clip_grad_by_global_norm(1.0).frozen("a");
    solver.set_parameters(&all);
    let bad = gradients(&all, &[Some(vec![f64::NAN]), Some(vec![1.0])])?;
    assert_eq!(solver.bad_gradient(&bad)?, None);
    solver.update(&bad)?;
    assert_eq!(bits(&all)?[0], before[0]);
    assert_ne!(bits(&all)?[1], before[1]);
    let mut solver = Sgd::new(0.1).frozen("**");
    solver.set_parameters(&all);
    let error = solver.update(&bad).unwrap_err().to_string();
    assert!(error.contains("at least one parameter of the solver that is not frozen, `a`, `b`;"), "{error}");
    Ok(())
}

#[test]
fn a_pattern_that_matches_nothing_is_an_error() -> Result<()> {
    for (solver, setter) in [
        (Sgd::new(0.1).learning_rate_factor("**/bais", 2.0), "learning_rate_factor"),
        (Sgd::new(0.1).decay_rate("**/bais", 2.0), "decay_rate"),
        (Sgd::new(0.1).frozen("**/bais"), "frozen"),
    ] {
        let mut solver = solver;
        let all = parameters(&[("a/bias", 1)], DType::F32)?;
        solver.set_parameters(&all);
        let error = run(&mut solver, &all, 0, 1).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("`{setter}` must have a pattern that matches a parameter")),
            "{error}"
        );
        assert!(error.contains("**/bais"), "{error}");
    }
    Ok(())
}

#[test]
fn decays_of_a_step_have_groups_too() -> Result<()> {
    let check = |solver: &mut dyn Solver, step: [f64; 2]| -> Result<()> {
        let all = parameters(&[("a/W", 1), ("a/b", 1)], DType::F64)?;
        let before = flat(&all)?;
        solver.set_parameters(&all);
        solver.update(&gradients(&all, &[Some(vec![0.0]), Some(vec![0.0])])?)?;
        for ((before, after), step) in before.iter().zip(flat(&all)?).zip(step) {
            assert_close(&after, &[before[0] * (1.0 - step)], 1e-14);
        }
        Ok(())
    };
    check(&mut AdamW::new(0.1).decay_like_nnabla(0.5).decay_rate("**/b", 0.25), [0.5, 0.25])?;
    check(&mut AdamW::new(0.1).decay_like_pytorch(0.5).decay_rate("**/b", 0.0), [0.05, 0.0])?;
    check(&mut Lion::new(0.1).decay_rate("**/W", 0.5), [0.05, 0.0])
}

#[test]
fn solvers_are_chosen_at_run_time() -> Result<()> {
    let mut solvers: Vec<Box<dyn Solver>> = vec![Box::new(Sgd::new(0.1)), Box::new(Adam::new(0.1))];
    for solver in &mut solvers {
        let all = parameters(&SIZES, DType::F32)?;
        let before = bits(&all)?;
        solver.set_parameters(&all);
        run(&mut **solver, &all, 0, 2)?;
        assert_ne!(bits(&all)?, before);
        assert_eq!(solver.n_updates(), 2);
    }
    Ok(())
}

#[test]
fn a_schedule_multiplies_the_rate_of_each_step() -> Result<()> {
    let all = parameters(&[("a", 1)], DType::F64)?;
    let mut want = flat(&all)?[0][0];
    let mut solver = Sgd::new(0.5).schedule(schedule::warmup(2).linear(4, 0.0));
    solver.set_parameters(&all);
    for (i, rate) in [0.25, 0.375, 0.25, 0.125, 0.0, 0.0].into_iter().enumerate() {
        assert_eq!(solver.learning_rate(), rate);
        solver.update(&gradients(&all, &[Some(vec![2.0])])?)?;
        want -= 2.0 * rate;
        assert_close(&flat(&all)?[0], &[want], 1e-15);
        assert_eq!(solver.n_updates(), i as u64 + 1);
    }
    // It goes on where the states say.
    let mut other = Sgd::new(0.5).schedule(schedule::warmup(2).linear(4, 0.0));
    other.set_parameters(&all);
    other.set_states(&solver.get_states()?)?;
    assert_eq!(other.n_updates(), 6);
    Ok(())
}

#[test]
fn a_negative_rate_of_a_schedule_is_refused() -> Result<()> {
    let all = parameters(&[("a", 1)], DType::F64)?;
    let mut solver = Sgd::new(0.5).schedule(schedule::polynomial(1, 1.0));
    solver.set_parameters(&all);
    run(&mut solver, &all, 0, 2)?;
    let error = run(&mut solver, &all, 2, 1).unwrap_err().to_string();
    assert_eq!(error, "`schedule` must give a learning rate of at least 0 in step 2, got -0.5");
    Ok(())
}
