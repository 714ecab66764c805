//! Updates that can't be right are errors that change nothing.

use candle_core::{DType, Tensor, Var};
use layerfn::prelude::*;
use layerfn::solver::{Adam, AdamW, Momentum, Nesterov, RMSprop, Sgd, SgdW};
use layerfn::{Parameter, Parameters, Result, clear_parameters, get_parameter};

use super::{assert_close, bits, flat, gradients, parameters, run};

/// The error of an update by `solver`, which must have changed nothing.
#[track_caller]
fn refused(mut solver: impl Solver) -> Result<String> {
    let parameters = parameters(&[("a/W", 3), ("a/b", 1)], DType::F32)?;
    let before = bits(&parameters)?;
    solver.set_parameters(&parameters);
    let error = run(&mut solver, &parameters, 0, 1).expect_err("a setting that makes no sense");
    assert_eq!(bits(&parameters)?, before);
    assert!(solver.get_states()?.is_empty());
    Ok(error.to_string())
}

#[test]
fn rates_out_of_range_are_named() -> Result<()> {
    for bad in [-1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e39] {
        let range = "must be at least 0 and finite in f32";
        for (setter, error) in [
            ("learning_rate", refused(Sgd::new(bad))?),
            ("learning_rate", {
                let mut solver = Adam::new(0.1);
                solver.set_learning_rate(bad);
                refused(solver)?
            }),
            ("weight_decay", refused(Momentum::new(0.1, 0.9).weight_decay(bad))?),
            ("learning_rate_factor", refused(Sgd::new(0.1).learning_rate_factor("a/**", bad))?),
            ("decay", refused(AdamW::new(0.1).decay_like_nnabla(bad))?),
            ("decay", refused(SgdW::new(0.1, 0.9).decay_like_pytorch(bad))?),
            ("decay_rate", refused(Adam::new(0.1).decay_rate("a/b", bad))?),
        ] {
            assert_eq!(error, format!("`{setter}` {range}, got {bad:?}"));
        }
        for (setter, error) in [
            ("momentum", refused(Momentum::new(0.1, bad))?),
            ("momentum", refused(Nesterov::new(0.1, bad))?),
            ("betas", refused(Adam::new(0.1).betas(bad, 0.9))?),
            ("betas", refused(AdamW::new(0.1).betas(0.9, bad))?),
            ("decay", refused(RMSprop::new(0.1).decay(bad))?),
        ] {
            assert!(error.starts_with(&format!("`{setter}` must be in [0, 1")), "{error}");
        }
    }
    for (setter, error) in [
        ("betas", refused(Adam::new(0.1).betas(1.0, 0.9))?),
        ("betas", refused(Adam::new(0.1).betas(0.9, 1.0))?),
        ("decay", refused(RMSprop::new(0.1).decay(1.0))?),
        ("eps", refused(Adam::new(0.1).eps(0.0))?),
        ("eps", refused(AdamW::new(0.1).eps(f64::NAN))?),
        ("eps", refused(RMSprop::new(0.1).eps(1e-60))?),
        ("learning_rate", refused(Sgd::new(1e30).learning_rate_factor("**", 1e30))?),
        (
            "decay",
            refused({
                let mut solver = AdamW::new(1e-30);
                solver.set_learning_rate(1e30);
                solver
            })?,
        ),
    ] {
        assert!(error.starts_with(&format!("`{setter}` must be ")), "{error}");
    }
    Ok(())
}

#[test]
fn limits_of_gradients_are_above_zero() -> Result<()> {
    for bad in [-1.0, 0.0, f64::NAN, f64::NEG_INFINITY] {
        for (setter, error) in [
            ("clip_grad_by_value", refused(Sgd::new(0.1).clip_grad_by_value(bad))?),
            ("clip_grad_by_norm", refused(Sgd::new(0.1).clip_grad_by_norm(bad))?),
            ("clip_grad_by_global_norm", refused(Sgd::new(0.1).clip_grad_by_global_norm(bad))?),
        ] {
            assert_eq!(error, format!("`{setter}` must be above 0, or infinity for no limit, got {bad:?}"));
        }
    }
    Ok(())
}

#[test]
fn an_update_that_can_move_nothing_is_an_error() -> Result<()> {
    ParameterStore::new().enter(|| {
        let x = Tensor::ones((1, 3), DType::F32, &Device::Cpu)?;
        let loss = || -> Result<Tensor> { Ok(affine(&x, 2).call()?.sum_all()?) };
        let mut solver = Sgd::new(0.1);
        let text = |result: Result<()>| result.unwrap_err().to_string();
        solver.set_parameters(&get_parameters());
        let first = text(solver.update(&backward(&loss()?)?));
        assert!(first.starts_with("`parameters` must be given to the solver by `set_parameters`"), "{first}");

        solver.set_parameters(&get_parameters());
        solver.update(&backward(&loss()?)?)?;
        clear_parameters();
        let gradients = backward(&loss()?)?;
        let before = get_parameter("affine/W").unwrap().var().to_vec2::<f32>()?;
        let second = text(solver.update(&gradients));
        assert!(
            second
                .contains("at least one parameter of the solver that is not frozen, `affine/W`, `affine/b`;"),
            "{second}"
        );
        assert_eq!(get_parameter("affine/W").unwrap().var().to_vec2::<f32>()?, before);
        Ok(())
    })
}

#[test]
fn norms_beyond_the_squares_of_f64_are_exact() -> Result<()> {
    for composed in [false, true] {
        // Elements, limit, and the step of each element of four.
        for (size, limit, step) in [
            (1e200, 1.0, 0.5),
            (1e200, 1e-150, 0.5e-150),
            (1e300, 1e-300, 0.5e-300),
            (1e-200, 1e-220, 0.5e-220),
            (1e-200, 1.0, 1e-200),
        ] {
            for by_value in [f64::INFINITY, 0.7 * size] {
                let check = || -> Result<()> {
                    for global in [false, true] {
                        let w = Var::zeros(4, DType::F64, &Device::Cpu)?;
                        let all: Parameters =
                            [("w".to_owned(), Parameter::new(w.clone(), true))].into_iter().collect();
                        let solver = Sgd::new(1.0).clip_grad_by_value(by_value);
                        let mut solver = match global {
                            true => solver.clip_grad_by_global_norm(limit),
                            false => solver.clip_grad_by_norm(limit),
                        };
                        solver.set_parameters(&all);
                        solver.update(&gradients(&all, &[Some(vec![size; 4])])?)?;
                        let want = if step == size { step.min(by_value) } else { step };
                        let ratios: Vec<f64> = w.to_vec1::<f64>()?.iter().map(|w| w / want).collect();
                        assert_close(&ratios, &[-1.0; 4], 1e-14);
                    }
                    Ok(())
                };
                if composed { layerfn::__private::composed(check)? } else { check()? }
            }
        }
    }
    Ok(())
}

#[test]
fn small_steps_of_long_gradients_in_f32_do_not_vanish() -> Result<()> {
    let w = Var::zeros(4, DType::F32, &Device::Cpu)?;
    let all: Parameters = [("w".to_owned(), Parameter::new(w.clone(), true))].into_iter().collect();
    let mut solver = Sgd::new(1.0).clip_grad_by_norm(1e-30);
    solver.set_parameters(&all);
    solver.update(&gradients(&all, &[Some(vec![1e38; 4])])?)?;
    let ratios: Vec<f64> = flat(&all)?[0].iter().map(|w| w / 0.5e-30).collect();
    assert_close(&ratios, &[-1.0; 4], 1e-6);
    Ok(())
}

#[test]
fn a_norm_that_is_no_number_is_an_error() -> Result<()> {
    let all = parameters(&[("a", 4), ("b", 4)], DType::F64)?;
    let before = bits(&all)?;
    let huge = gradients(&all, &[Some(vec![1.7e308; 4]), Some(vec![1.0; 4])])?;
    let each = gradients(&all, &[Some(vec![0.8e308; 4]), Some(vec![0.8e308; 4])])?;
    for (gradients, text) in
        [(huge, "`gradient` of `a` must have a norm"), (each, "`gradients` together must have a norm")]
    {
        let mut solver = Sgd::new(1.0).clip_grad_by_global_norm(1.0);
        solver.set_parameters(&all);
        let error = solver.update(&gradients).unwrap_err().to_string();
        assert!(error.starts_with(text), "{error}");
        assert_eq!(bits(&all)?, before);
    }
    Ok(())
}

#[test]
fn a_parameter_without_floating_point_is_refused() -> Result<()> {
    for dtype in [DType::U32, DType::F8E4M3] {
        let w = Var::zeros(2, dtype, &Device::Cpu)?;
        let all: Parameters = [("w".to_owned(), Parameter::new(w.clone(), true))].into_iter().collect();
        let mut solver = Sgd::new(1.0);
        solver.set_parameters(&all);
        let mut gradients = gradients(&all, &[None])?;
        gradients.insert(&w, Tensor::ones(2, DType::F32, &Device::Cpu)?);
        let error = solver.update(&gradients).unwrap_err().to_string();
        assert!(error.starts_with("`parameters` must hold f32, f64, f16 or bf16 numbers"), "{error}");
    }
    Ok(())
}

/// A solver that squares gradients would add infinities, and then stand still.
#[test]
fn a_decay_that_is_too_large_to_be_squared_is_an_error() -> Result<()> {
    for value in [1e25f32, f32::NAN] {
        let (w, small) = (Var::new(&[value], &Device::Cpu)?, Var::new(&[1f32], &Device::Cpu)?);
        let all: Parameters = [("w", &w), ("small", &small)]
            .map(|(path, var)| (path.to_owned(), Parameter::new(var.clone(), true)))
            .into_iter()
            .collect();
        let gradients = backward(&(w.ones_like()? * w.as_tensor() + small.as_tensor())?.sum_all()?)?;
        let mut solver = Adam::new(1e-3).weight_decay(1e-2);
        solver.set_parameters(&all);
        let error = solver.update(&gradients).unwrap_err().to_string();
        assert!(
            error.starts_with("`gradient` of `w` must have elements of at most 1e16 after the weight decay"),
            "{error}"
        );
        assert_eq!(small.to_vec1::<f32>()?, [1.]);
        // One that squares nothing goes on.
        if value.is_finite() {
            let mut solver = Sgd::new(1e-3).weight_decay(1e-2);
            solver.set_parameters(&all);
            solver.update(&gradients)?;
        }
    }
    Ok(())
}
