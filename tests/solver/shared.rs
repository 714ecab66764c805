use candle_core::DType;
use layerfn::Result;
use layerfn::prelude::*;
use layerfn::solver::{Adam, Momentum, Sgd};

use super::{assert_close, bits, flat, gradients, parameters, run};

fn norm<'a>(values: impl IntoIterator<Item = &'a f64>) -> f64 {
    values.into_iter().map(|x| x * x).sum::<f64>().sqrt()
}

#[test]
fn norms_are_clipped() -> Result<()> {
    let g = [vec![3.0, 0.0, 4.0], vec![-12.0]];
    // By the norm of each, then by that of both: lengths 5 and 12 become 5 and 6, and √61 becomes 2.
    let both = 2.0 / 61f64.sqrt();
    for (limits, factors) in [
        ((f64::INFINITY, f64::INFINITY), [1.0, 1.0]),
        ((6.0, f64::INFINITY), [1.0, 0.5]),
        ((f64::INFINITY, 6.5), [0.5, 0.5]),
        ((f64::INFINITY, 13.5), [1.0, 1.0]),
        ((6.0, 2.0), [both, 0.5 * both]),
    ] {
        let parameters = parameters(&[("a", 3), ("b", 1)], DType::F64)?;
        let before = flat(&parameters)?;
        let mut solver = Sgd::new(1.0).clip_grad_by_norm(limits.0).clip_grad_by_global_norm(limits.1);
        solver.set_parameters(&parameters);
        solver.update(&gradients(&parameters, &g.clone().map(Some))?)?;
        for (i, after) in flat(&parameters)?.iter().enumerate() {
            let want: Vec<f64> = before[i].iter().zip(&g[i]).map(|(w, g)| w - factors[i] * g).collect();
            assert_close(after, &want, 1e-14);
        }
    }
    assert_eq!(norm(&g[0]), 5.0);
    Ok(())
}

#[test]
fn norms_are_right_where_squares_are_not_numbers() -> Result<()> {
    for size in [1e200, 1e-200, 1e308] {
        for of_all in [false, true] {
            let parameters = parameters(&[("a", 4)], DType::F64)?;
            parameters.vars()[0].set(&parameters.vars()[0].zeros_like()?)?;
            let solver = Sgd::new(1.0);
            let mut solver = match of_all {
                false => solver.clip_grad_by_norm(size),
                true => solver.clip_grad_by_global_norm(size),
            };
            solver.set_parameters(&parameters);
            let gradient = vec![size / 2.0 * 1.5; 4];
            solver.update(&gradients(&parameters, &[Some(gradient)])?)?;
            let got = &flat(&parameters)?[0];
            assert!(got.iter().all(|w| (w / (-0.5 * size) - 1.0).abs() < 1e-14), "{size}: {got:?}");
        }
    }
    Ok(())
}

#[test]
fn norms_are_taken_after_clipping_by_value() -> Result<()> {
    let parameters = parameters(&[("a", 2)], DType::F32)?;
    let before = flat(&parameters)?;
    let mut solver = Sgd::new(1.0).clip_grad_by_value(4.0).clip_grad_by_global_norm(2.5);
    solver.set_parameters(&parameters);
    solver.update(&gradients(&parameters, &[Some(vec![3.0, 100.0])])?)?;
    let want: Vec<f64> = before[0].iter().zip([1.5, 2.0]).map(|(w, g)| w - g).collect();
    assert_close(&flat(&parameters)?[0], &want, 1e-6);
    Ok(())
}

#[test]
fn learning_rates_follow_the_path() -> Result<()> {
    let parameters = parameters(&[("c1/conv/W", 1), ("c1/conv/b", 1), ("out/affine/b", 1)], DType::F64)?;
    let before = flat(&parameters)?;
    let mut solver = Sgd::new(7.0).learning_rate_factor("**/b", 2.0).learning_rate_factor("out/**", 0.0);
    solver.set_parameters(&parameters);
    solver.set_learning_rate(0.5);
    assert_eq!(solver.learning_rate(), 0.5);
    solver.update(&gradients(&parameters, &vec![Some(vec![1.0]); 3])?)?;
    let moved: Vec<f64> =
        flat(&parameters)?.iter().zip(&before).map(|(after, before)| before[0] - after[0]).collect();
    assert_close(&moved, &[0.5, 1.0, 0.0], 1e-15);
    Ok(())
}

#[test]
fn without_gradient_nothing_changes() -> Result<()> {
    let both = parameters(&[("a", 2), ("b", 2)], DType::F32)?;
    let before = bits(&both)?;
    let mut solver = Momentum::new(0.1, 0.9).weight_decay(0.1);
    solver.set_parameters(&both);
    solver.update(&gradients(&both, &[Some(vec![1.0, 1.0]), None])?)?;
    assert_ne!(bits(&both)?[0], before[0]);
    assert_eq!(bits(&both)?[1], before[1]);
    assert_eq!(solver.get_states()?.paths().collect::<Vec<_>>(), ["a/m", "a/t"]);
    Ok(())
}

#[test]
fn one_bad_gradient_stops_the_whole_step() -> Result<()> {
    for dtype in [DType::F32, DType::F64, DType::F16, DType::BF16] {
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let parameters = parameters(&[("a/W", 3), ("a/b", 2)], dtype)?;
            let mut solver = Adam::new(0.1).clip_grad_by_value(1.0);
            solver.set_parameters(&parameters);
            run(&mut solver, &parameters, 0, 2)?;
            let (before, states) = (bits(&parameters)?, bits(&solver.get_states()?)?);
            let gradients = gradients(&parameters, &[Some(vec![1.0; 3]), Some(vec![0.0, bad])])?;
            assert_eq!(
                solver.update(&gradients).unwrap_err().to_string(),
                "`gradient` of `a/b` must be finite; nothing was updated, got \"infinite or NaN elements\""
            );
            assert_eq!(bits(&parameters)?, before);
            assert_eq!(bits(&solver.get_states()?)?, states);
        }
    }
    Ok(())
}

#[test]
fn a_gradient_of_another_shape_is_refused() -> Result<()> {
    let parameters = parameters(&[("a", 3)], DType::F32)?;
    let mut solver = Sgd::new(0.1);
    solver.set_parameters(&parameters);
    let mut gradients = gradients(&parameters, &[None])?;
    gradients.insert(parameters.vars()[0].as_tensor(), Tensor::ones((1, 3), DType::F32, &Device::Cpu)?);
    let error = solver.update(&gradients).unwrap_err().to_string();
    assert_eq!(error, "`gradient` of `a` must have its shape [3], got [1, 3]");
    Ok(())
}

#[test]
fn a_gradient_may_be_the_variable_or_any_view() -> Result<()> {
    let parameters = parameters(&[("a", 4)], DType::F64)?;
    let var = parameters.vars()[0].clone();
    let before = flat(&parameters)?;
    let mut solver = Sgd::new(0.25);
    solver.set_parameters(&parameters);
    let mut gradients = gradients(&parameters, &[None])?;
    gradients.insert(&var, var.as_detached_tensor());
    solver.update(&gradients)?;
    let want: Vec<f64> = before[0].iter().map(|w| 0.75 * w).collect();
    assert_close(&flat(&parameters)?[0], &want, 1e-15);

    let columns = Tensor::new(&[[1f64, 0.], [2., 0.], [3., 0.], [4., 0.]], &Device::Cpu)?;
    gradients.insert(&var, columns.narrow(1, 0, 1)?.squeeze(1)?);
    solver.update(&gradients)?;
    let want: Vec<f64> = want.iter().zip(1..).map(|(w, g)| w - 0.25 * f64::from(g)).collect();
    assert_close(&flat(&parameters)?[0], &want, 1e-15);
    Ok(())
}

#[test]
fn results_do_not_depend_on_the_threads() -> Result<()> {
    let run_on = |threads: usize| {
        layerfn::__private::with_threads(threads, || {
            let parameters = parameters(&[("a", 200_003), ("b", 17)], DType::F32)?;
            let mut solver = Adam::new(0.1).clip_grad_by_global_norm(1.0).weight_decay(0.1);
            solver.set_parameters(&parameters);
            run(&mut solver, &parameters, 0, 3)?;
            Ok::<_, layerfn::Error>((bits(&parameters)?, bits(&solver.get_states()?)?))
        })
    };
    assert_eq!(run_on(1)?, run_on(4)?);
    Ok(())
}

#[test]
fn a_network_learns() -> Result<()> {
    ParameterStore::new().enter(|| {
        let net = network! { < fc: affine(16) -> relu -> out: affine(3) > };
        let x = layerfn_tests::values([12, 4], 1).to_dtype(DType::F32)?;
        let labels = Tensor::from_iter((0..12u32).map(|i| i % 3), &Device::Cpu)?;
        let loss = || mean_softmax_cross_entropy(&net.forward(&x)?, &labels, 1);
        let first = loss()?.to_scalar::<f32>()?;
        let mut solver = Adam::new(0.02);
        solver.set_parameters(&get_parameters());
        for _ in 0..100 {
            solver.update(&loss()?.backward()?)?;
        }
        let last = loss()?.to_scalar::<f32>()?;
        assert!(last < 0.3 * first, "{first} became {last}");
        Ok(())
    })
}

#[test]
fn a_parameter_without_elements_stops_nobody() -> Result<()> {
    let both = parameters(&[("a", 0), ("b", 2)], DType::F32)?;
    let empty = candle_core::Var::zeros((1 << 40, 2, 0), DType::F32, &Device::Cpu)?;
    let more = [("c".to_owned(), layerfn::Parameter::new(empty, true))];
    let all: layerfn::Parameters = both.into_iter().chain(more).collect();
    let before = bits(&all)?;
    let mut solver = Adam::new(0.1);
    solver.set_parameters(&all);
    run(&mut solver, &all, 0, 1)?;
    assert_ne!(bits(&all)?[1], before[1]);
    solver.set_states(&solver.get_states()?)
}
