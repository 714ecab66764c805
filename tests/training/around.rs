//! Accumulation, averages, scaling, guards.

use candle_core::{DType, Device, Tensor};
use layerfn::prelude::*;
use layerfn::solver::{Momentum, Sgd};
use layerfn::training::{Accumulator, EarlyStopping, LossScaler, NanGuard, Part, Progress, WeightAverage};
use layerfn::{Error, get_parameters};

use super::{gradients, parameters, values, var};

fn loss(x: &Tensor) -> Result<Tensor> {
    Ok(affine(x, 3).name("a").call()?.sqr()?.mean_all()?)
}

#[test]
fn parts_of_a_batch_make_the_step_of_the_batch() -> Result<()> {
    for dtype in [DType::F32, DType::F64] {
        for sizes in [&[8][..], &[2, 2, 2, 2], &[5, 1, 2]] {
            ParameterStore::new().enter(|| {
                let x = layerfn_tests::values([8, 4], 1).to_dtype(dtype)?;
                let whole = backward(&loss(&x)?)?;
                let all = get_parameters();
                let mut sum = Accumulator::new(&all);
                let mut start = 0;
                for &size in sizes {
                    sum.add(&backward(&loss(&x.narrow(0, start, size)?)?)?, size as f64)?;
                    start += size;
                }
                let mean = sum.take()?;
                for var in all.vars() {
                    let (got, want) = (values(mean.get(&var).unwrap())?, values(whole.get(&var).unwrap())?);
                    let tolerance = if dtype == DType::F32 { 1e-6 } else { 1e-14 };
                    assert!(got.iter().zip(&want).all(|(got, want)| (got - want).abs() <= tolerance));
                    if sizes.len() == 1 {
                        assert_eq!(got, want);
                    }
                }
                assert!(sum.take().is_err(), "it starts anew");
                Ok::<_, Error>(())
            })?;
        }
    }
    Ok(())
}

#[test]
fn exact_parts_make_the_same_bits() -> Result<()> {
    ParameterStore::new().enter(|| {
        // Small integers: no sum is rounded.
        let x = Tensor::from_iter((0..32).map(|i| f32::from(i as u8 % 7) - 3.0), &Device::Cpu)?
            .reshape((8, 4))?;
        let loss = |x: &Tensor| -> Result<Tensor> { Ok((affine(x, 2).call()?.sum_all()? / 8.0)?) };
        let whole = backward(&loss(&x)?)?;
        let mut sum = Accumulator::new(&get_parameters());
        for part in x.chunk(4, 0)? {
            sum.add(&backward(&(loss(&part)? * 4.0)?)?, 2.0)?;
        }
        let mean = sum.take()?;
        for var in get_parameters().vars() {
            assert_eq!(values(mean.get(&var).unwrap())?, values(whole.get(&var).unwrap())?);
        }
        Ok(())
    })
}

#[test]
fn tied_gradients_are_added_once() -> Result<()> {
    let w = var(&[1.0, 2.0], DType::F32)?;
    let all = parameters(&[("a/W", &w), ("b/W", &w)]);
    let mut sum = Accumulator::new(&all);
    sum.add(&gradients(&[(&w, vec![3.0, 4.0])])?, 1.0)?;
    assert_eq!(values(sum.take()?.get(&w).unwrap())?, [3.0, 4.0]);
    let error = sum.add(&gradients(&[(&w, vec![3.0, 4.0])])?, 0.0).unwrap_err().to_string();
    assert!(error.starts_with("`weight` must be above 0"), "{error}");
    assert!(sum.take().unwrap_err().to_string().contains("must be added before"));
    Ok(())
}

#[test]
fn averages_follow_their_formula() -> Result<()> {
    for (dtype, tolerance) in [(DType::F64, 1e-15), (DType::F32, 1e-6), (DType::F16, 1e-3)] {
        let w = var(&[1.0, -2.0, 4.0], dtype)?;
        let all = parameters(&[("a/W", &w), ("b/W", &w)]);
        let mut average = WeightAverage::new(&all, 0.75)?;
        let mut want = values(&w)?;
        for step in 1..5 {
            w.set(&(w.as_detached_tensor() * (1.0 + 0.5 / f64::from(step)))?)?;
            for (want, w) in want.iter_mut().zip(values(&w)?) {
                *want = 0.75 * *want + 0.25 * w;
            }
            average.update()?;
        }
        assert_eq!(average.averages().paths().collect::<Vec<_>>(), ["a/W"]);
        let got = values(average.averages().get("a/W").unwrap().var())?;
        assert!(
            got.iter().zip(&want).all(|(got, want)| (got - want).abs() <= tolerance * want.abs()),
            "{got:?}"
        );

        let before = values(&w)?;
        let inside = average.with(|| values(&w))??;
        assert!(inside.iter().zip(&want).all(|(got, want)| (got - want).abs() <= tolerance * want.abs()));
        assert_eq!(values(&w)?, before);
        let panicked =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| average.with(|| panic!("in f"))));
        assert!(panicked.is_err());
        assert_eq!(values(&w)?, before);
    }
    Ok(())
}

#[test]
fn averages_refuse_what_they_cannot_average() -> Result<()> {
    let w = var(&[1.0], DType::F32)?;
    let all = parameters(&[("w", &w)]);
    for bad in [-0.1, 1.0, f64::NAN] {
        assert!(
            WeightAverage::new(&all, bad).unwrap_err().to_string().starts_with("`decay` must be in [0, 1)")
        );
    }
    assert!(WeightAverage::new(&parameters(&[]), 0.5).is_err());
    let mut average = WeightAverage::new(&all, 0.5)?;
    w.set(&Tensor::new(&[f32::NAN], &Device::Cpu)?)?;
    assert!(average.update().unwrap_err().to_string().contains("`w`"));
    assert_eq!(values(average.averages().get("w").unwrap().var())?, [1.0]);
    Ok(())
}

/// A loss whose gradient times a scale of more than `limit` does not fit f16.
fn steep(w: &Tensor, steepness: f64) -> Result<Tensor> {
    Ok((w * steepness)?.sum_all()?)
}

#[test]
fn a_scale_is_halved_until_the_gradients_are_finite() -> Result<()> {
    let w = var(&[1.0, 2.0], DType::F16)?;
    let all = parameters(&[("w", &w)]);
    let mut solver = Sgd::new(2f64.powi(-10));
    solver.set_parameters(&all);
    let mut scaler = LossScaler::new().start(2f64.powi(12));
    // 64 · 2^12 is above the 65504 of f16; 64 · 2^9 is not.
    let loss = scaler.update(&mut solver, &mut || steep(w.as_tensor(), 64.0))?;
    assert_eq!(values(&loss)?, [192.0]);
    assert_eq!(scaler.scale(), 2f64.powi(9));
    assert_eq!(values(&w)?, [1.0 - 0.0625, 2.0 - 0.0625]);
    Ok(())
}

#[test]
fn a_scale_grows_as_nnablas() -> Result<()> {
    let w = var(&[1.0], DType::F32)?;
    let all = parameters(&[("w", &w)]);
    let mut solver = Momentum::new(1e-3, 0.9);
    solver.set_parameters(&all);
    let mut scaler = LossScaler::new().interval(2);
    let mut scales = Vec::new();
    for _ in 0..8 {
        scaler.update(&mut solver, &mut || steep(w.as_tensor(), 1.0))?;
        scales.push(scaler.scale());
    }
    // `if counter > N: scale *= 2, counter = 0`, then `counter += 1`.
    assert_eq!(scales, [8.0, 8.0, 8.0, 16.0, 16.0, 16.0, 32.0, 32.0]);
    // Its state goes on.
    let mut other = LossScaler::new().interval(2);
    other.set_state(&scaler.state()?)?;
    for scaler in [&mut scaler, &mut other] {
        scaler.update(&mut solver, &mut || steep(w.as_tensor(), 1.0))?;
        assert_eq!(scaler.scale(), 32.0);
        scaler.update(&mut solver, &mut || steep(w.as_tensor(), 1.0))?;
        assert_eq!(scaler.scale(), 64.0);
    }
    Ok(())
}

#[test]
fn a_gradient_that_stays_infinite_is_an_error() -> Result<()> {
    let w = var(&[1.0], DType::F32)?;
    let all = parameters(&[("a/w", &w)]);
    let mut solver = Sgd::new(1e-3);
    solver.set_parameters(&all);
    let error =
        LossScaler::new().update(&mut solver, &mut || steep(w.as_tensor(), f64::INFINITY)).unwrap_err();
    assert!(error.to_string().starts_with("`gradient` of `a/w` must be finite after 100 tries"), "{error}");
    assert_eq!(values(&w)?, [1.0]);
    let error = LossScaler::new().scaling_factor(1.0).update(&mut solver, &mut || steep(w.as_tensor(), 1.0));
    assert!(error.unwrap_err().to_string().starts_with("`scaling_factor` must be above 1"));
    Ok(())
}

#[test]
fn the_changes_of_the_solver_see_gradients_without_scale() -> Result<()> {
    let w = var(&[1.0], DType::F32)?;
    let all = parameters(&[("w", &w)]);
    let mut solver = Sgd::new(1.0).clip_grad_by_norm(0.25);
    solver.set_parameters(&all);
    LossScaler::new().update(&mut solver, &mut || steep(w.as_tensor(), 0.125))?;
    assert_eq!(values(&w)?, [1.0 - 0.125]);
    Ok(())
}

#[test]
fn bad_steps_are_left_out_and_then_told() -> Result<()> {
    let w = var(&[1.0], DType::F32)?;
    let all = parameters(&[("a/w", &w)]);
    let mut solver = Sgd::new(0.5);
    solver.set_parameters(&all);
    let mut guard = NanGuard::new(2);
    let number = |value: f64| Tensor::new(value, &Device::Cpu);
    let bad = gradients(&[(&w, vec![f64::NAN])])?;
    let good = gradients(&[(&w, vec![1.0])])?;
    assert!(!guard.update(&mut solver, &number(1.0)?, &bad)?);
    assert!(!guard.update(&mut solver, &number(f64::INFINITY)?, &good)?);
    assert!(guard.update(&mut solver, &number(1.0)?, &good)?);
    assert_eq!((values(&w)?, guard.n_left_out()), (vec![0.5], 2));
    for _ in 0..2 {
        assert!(!guard.update(&mut solver, &number(1.0)?, &bad)?);
    }
    let error = guard.update(&mut solver, &number(1.0)?, &bad).unwrap_err().to_string();
    assert!(error.starts_with("`gradient` of `a/w` must be finite in one of 3 steps in a row"), "{error}");
    assert_eq!(values(&w)?, [0.5]);
    Ok(())
}

#[test]
fn the_best_value_is_waited_for() -> Result<()> {
    let mut stopping = EarlyStopping::new(3);
    let progress: Vec<_> = [f64::NAN, 2.0, 3.0, 1.0, 1.0, f64::NAN].map(|loss| stopping.observe(loss)).into();
    let (best, worse) = (Progress::Best, Progress::Worse);
    assert_eq!(progress, [worse, best, worse, best, worse, worse]);
    let mut other = EarlyStopping::new(3);
    other.set_state(&stopping.state()?)?;
    for mut stopping in [stopping, other] {
        assert_eq!(stopping.best(), Some(1.0));
        assert_eq!(stopping.observe(4.0), Progress::Stop);
    }
    assert_eq!(EarlyStopping::new(1).observe(f64::NAN), Progress::Stop);
    Ok(())
}
