//! What happens to gradients before the step, in the order in which it is asked for.

use candle_core::{DType, Device, Tensor, Var};
use layerfn::Result;
use layerfn::solver::{Adagrad, Adam, AdamW, Change, Lamb, Lars, Lion, RMSprop, Sgd, Solver};
use layerfn::{Parameter, Parameters};

use super::{assert_close, bits, flat, gradients, parameters, run};

/// The changes one after the other, in plain loops.
fn naive(w: &[Vec<f64>], g: &mut [Vec<f64>], changes: &[Change]) {
    let norm = |g: &[f64]| g.iter().map(|g| g * g).sum::<f64>().sqrt();
    for change in changes {
        let global = norm(&g.iter().map(|g| norm(g)).collect::<Vec<_>>());
        for (w, g) in w.iter().zip(g.iter_mut()) {
            let own = norm(g);
            for (w, g) in w.iter().zip(g.iter_mut()) {
                match *change {
                    Change::WeightDecay(rate) => *g += rate * w,
                    Change::ClipByValue(limit) => *g = g.clamp(-limit, limit),
                    Change::ClipByNorm(limit) if own > limit => *g *= limit / own,
                    Change::ClipByGlobalNorm(limit) if global > limit => *g *= limit / global,
                    Change::Scale(factor) => *g *= factor,
                    _ => {}
                }
            }
        }
    }
}

#[test]
fn every_order_is_that_of_the_loops() -> Result<()> {
    let all = [
        Change::WeightDecay(0.4),
        Change::ClipByValue(0.5),
        Change::ClipByNorm(0.9),
        Change::ClipByGlobalNorm(0.8),
        Change::Scale(-1.5),
    ];
    let mut orders = vec![Vec::new()];
    for _ in 0..all.len() {
        let longer = orders.iter().flat_map(|order: &Vec<Change>| {
            all.iter()
                .filter(|change| !order.contains(change))
                .map(|change| [&order[..], &[*change]].concat())
        });
        let longer: Vec<_> = longer.collect();
        orders.extend(longer);
    }
    orders.sort_by(|a, b| format!("{a:?}").cmp(&format!("{b:?}")));
    orders.dedup();
    assert_eq!(orders.len(), 1 + 5 + 20 + 60 + 120 + 120);
    let check = || -> Result<()> {
        for (dtype, tolerance) in [(DType::F64, 1e-13), (DType::F32, 1e-5)] {
            for order in &orders {
                let parameters = parameters(&[("a", 5), ("b", 3)], dtype)?;
                let w = flat(&parameters)?;
                let mut g = super::step_gradients(&parameters, 3)?.into_iter().flatten().collect::<Vec<_>>();
                let mut solver = Sgd::new(1.0);
                solver.set_parameters(&parameters);
                let store = gradients(&parameters, &g.iter().cloned().map(Some).collect::<Vec<_>>())?;
                let changed = solver.changed_gradients(&store, order)?;
                solver.update_with(&store, order)?;
                naive(&w, &mut g, order);
                for (((var, g), w), after) in parameters.vars().iter().zip(&g).zip(&w).zip(flat(&parameters)?)
                {
                    let changed = changed.get(var).unwrap().to_dtype(DType::F64)?.to_vec1::<f64>()?;
                    assert_close(&changed, g, tolerance);
                    assert_close(&after, &w.iter().zip(g).map(|(w, g)| w - g).collect::<Vec<_>>(), tolerance);
                }
            }
        }
        Ok(())
    };
    check()?;
    layerfn::__private::composed(check)
}

#[test]
fn settings_act_in_their_order() -> Result<()> {
    let after = |solver: Sgd| -> Result<f64> {
        let all = parameters(&[("a", 1)], DType::F64)?;
        all.vars()[0].set(&Tensor::new(&[10f64], &Device::Cpu)?)?;
        let mut solver = solver;
        solver.set_parameters(&all);
        solver.update(&gradients(&all, &[Some(vec![3.0])])?)?;
        Ok(flat(&all)?[0][0])
    };
    assert_eq!(after(Sgd::new(1.0).clip_grad_by_norm(2.0).weight_decay(0.1))?, 10.0 - 2.0 - 1.0);
    assert_eq!(after(Sgd::new(1.0).weight_decay(0.1).clip_grad_by_norm(2.0))?, 10.0 - 2.0);
    assert_eq!(after(Sgd::new(1.0).weight_decay(0.1).scale_grad(0.5))?, 10.0 - 2.0);
    Ok(())
}

#[test]
fn squares_that_f32_cannot_hold_are_refused() -> Result<()> {
    fn check(mut solver: impl Solver) -> Result<()> {
        let all = parameters(&[("a/W", 3)], DType::F32)?;
        solver.set_parameters(&all);
        let before = bits(&all)?;
        let error = solver.update(&gradients(&all, &[Some(vec![1.0, -1e30, 0.0])])?).unwrap_err().to_string();
        assert!(
            error.starts_with("`gradient` of `a/W` must have elements of at most 1e16, since"),
            "{error}"
        );
        assert_eq!(bits(&all)?, before);
        assert!(solver.get_states()?.is_empty());
        // Clipped, it is a gradient like others.
        let clipped = gradients(&all, &[Some(vec![1.0, -1e30, 0.0])])?;
        solver.update_with(&clipped, &[Change::ClipByNorm(1.0)])?;
        assert!(flat(&all)?[0].iter().all(|w| w.is_finite()));
        assert_ne!(bits(&all)?, before);
        Ok(())
    }
    check(Adam::new(0.1))?;
    check(AdamW::new(0.1))?;
    check(RMSprop::new(0.1))?;
    check(Adagrad::new(0.1))?;
    check(Lamb::new(0.1))?;
    layerfn::__private::composed(|| check(Adam::new(0.1)))
}

#[test]
fn a_scaled_gradient_beyond_f32_is_refused() -> Result<()> {
    let all = parameters(&[("a", 1)], DType::F32)?;
    let mut solver = Sgd::new(1.0).scale_grad(1e30);
    solver.set_parameters(&all);
    let error = solver.update(&gradients(&all, &[Some(vec![1e30])])?).unwrap_err().to_string();
    assert!(error.starts_with("`gradient` of `a` must have elements of at most"), "{error}");
    solver.update_with(&gradients(&all, &[Some(vec![1e30])])?, &[Change::Scale(1e-40)])?;
    Ok(())
}

#[test]
fn decays_have_names_that_say_which() -> Result<()> {
    // A weight of 8, learning rate 1e-3, 100 steps without gradients.
    for (mut solver, want) in [
        (AdamW::new(1e-3).decay_like_pytorch(0.01), 8.0 * (1.0 - 1e-3 * 0.01f64).powi(100)),
        (AdamW::new(1e-3).decay_like_nnabla(0.01), 8.0 * 0.99f64.powi(100)),
    ] {
        let w = Var::new(&[8f64], &Device::Cpu)?;
        let all: Parameters = [("w".to_owned(), Parameter::new(w.clone(), true))].into_iter().collect();
        solver.set_parameters(&all);
        for _ in 0..100 {
            solver.update(&gradients(&all, &[Some(vec![0.0])])?)?;
        }
        assert_close(&w.to_vec1::<f64>()?, &[want], 1e-12);
    }
    Ok(())
}

#[test]
fn layerwise_solvers_take_lengths_of_whole_parameters() -> Result<()> {
    let check = || -> Result<()> {
        for n in [1, 5, 40_000] {
            for dtype in [DType::F64, DType::F32] {
                let all = parameters(&[("a", n)], dtype)?;
                let (w, g) = (flat(&all)?.remove(0), super::step_gradients(&all, 0)?.remove(0).unwrap());
                let norm = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>().sqrt();
                let mut solver = Lars::new(0.5, 0.9).coefficient(0.1).weight_decay(0.2);
                solver.set_parameters(&all);
                run(&mut solver, &all, 0, 1)?;
                let rate = 0.5 * 0.1 * norm(&w) / (norm(&g) + 0.2 * norm(&w));
                let want: Vec<f64> = w.iter().zip(&g).map(|(w, g)| w - rate * (g + 0.2 * w)).collect();
                assert_close(&flat(&all)?[0], &want, if dtype == DType::F64 { 1e-13 } else { 1e-6 });

                let all = parameters(&[("a", n)], dtype)?;
                let mut solver = Lamb::new(0.5).betas(0.5, 0.75).eps(0.1).weight_decay(0.2).gammas(0.0, 1e9);
                solver.set_parameters(&all);
                run(&mut solver, &all, 0, 1)?;
                let q: Vec<f64> =
                    w.iter().zip(&g).map(|(w, g)| 0.5 * g / (0.5 * g.abs() + 0.1) + 0.2 * w).collect();
                let rate = 0.5 * norm(&w) / norm(&q);
                let want: Vec<f64> = w.iter().zip(&q).map(|(w, q)| w - rate * q).collect();
                assert_close(&flat(&all)?[0], &want, if dtype == DType::F64 { 1e-13 } else { 1e-5 });
            }
        }
        Ok(())
    };
    check()?;
    layerfn::__private::composed(check)
}

#[test]
fn the_sign_of_nothing_is_nothing() -> Result<()> {
    let check = || -> Result<()> {
        let all = parameters(&[("a", 3)], DType::F32)?;
        let before = flat(&all)?;
        let mut solver = Lion::new(0.5);
        solver.set_parameters(&all);
        solver.update(&gradients(&all, &[Some(vec![1e-20, 0.0, -3.0])])?)?;
        let moved: Vec<f64> =
            flat(&all)?[0].iter().zip(&before[0]).map(|(after, before)| before - after).collect();
        assert_close(&moved, &[0.5, 0.0, -0.5], 1e-6);
        Ok(())
    };
    check()?;
    layerfn::__private::composed(check)
}
