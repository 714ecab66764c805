use candle_core::DType;
use layerfn::Result;
use layerfn::solver::{Adam, AdamW, Momentum, Nesterov, RMSprop, Sgd, Solver};

use super::{assert_close, flat, parameters, run, step_gradients};

const STEPS: u64 = 7;

/// Compares `solver` with `reference`, which changes `(w, g, states, t)`, with the kernels and without them.
#[track_caller]
fn check<S: Solver>(
    solver: impl Fn() -> S,
    reference: impl Fn(&mut f64, f64, &mut [f64; 2], i32),
) -> Result<()> {
    check_every_type(&solver, &reference)?;
    layerfn::__private::composed(|| check_every_type(&solver, &reference))
}

/// One parameter is long enough for several threads.
#[track_caller]
fn check_every_type<S: Solver>(
    solver: impl Fn() -> S,
    reference: impl Fn(&mut f64, f64, &mut [f64; 2], i32),
) -> Result<()> {
    for (dtype, tolerance) in
        [(DType::F64, 1e-13), (DType::F32, 2e-5), (DType::BF16, 4e-2), (DType::F16, 5e-3)]
    {
        let parameters = parameters(&[("a/W", 5), ("a/b", 1), ("long", 40_000)], dtype)?;
        let mut want = flat(&parameters)?;
        let mut states: Vec<_> = want.iter().map(|w| vec![[0.0; 2]; w.len()]).collect();
        for t in 0..STEPS {
            let gradients = step_gradients(&parameters, t)?;
            for ((w, g), states) in want.iter_mut().zip(gradients).zip(&mut states) {
                for ((w, g), states) in w.iter_mut().zip(g.unwrap_or_default()).zip(states) {
                    reference(w, g, states, t as i32 + 1);
                }
            }
        }
        let mut solver = solver();
        solver.set_parameters(&parameters);
        run(&mut solver, &parameters, 0, STEPS)?;
        for (got, want) in flat(&parameters)?.iter().zip(&want) {
            assert_close(got, want, tolerance);
        }
    }
    Ok(())
}

#[test]
fn sgd() -> Result<()> {
    check(|| Sgd::new(0.1), |w, g, _, _| *w -= 0.1 * g)
}

#[test]
fn momentum() -> Result<()> {
    check(
        || Momentum::new(0.1, 0.8),
        |w, g, s, _| {
            s[0] = 0.8 * s[0] + 0.1 * g;
            *w -= s[0];
        },
    )
}

#[test]
fn nesterov() -> Result<()> {
    check(
        || Nesterov::new(0.1, 0.8),
        |w, g, s, _| {
            let before = s[0];
            s[0] = 0.8 * before - 0.1 * g;
            *w += -0.8 * before + 1.8 * s[0];
        },
    )
}

fn adam_reference(w: &mut f64, g: f64, s: &mut [f64; 2], t: i32) {
    s[0] = 0.8 * s[0] + 0.2 * g;
    s[1] = 0.95 * s[1] + 0.05 * g * g;
    let alpha = 0.01 * (1.0 - 0.95f64.powi(t)).sqrt() / (1.0 - 0.8f64.powi(t));
    *w -= alpha * s[0] / (s[1].sqrt() + 1e-3);
}

#[test]
fn adam() -> Result<()> {
    check(|| Adam::new(0.01).betas(0.8, 0.95).eps(1e-3), adam_reference)
}

#[test]
fn adam_w() -> Result<()> {
    check(
        || AdamW::new(0.01).betas(0.8, 0.95).eps(1e-3).decay_like_nnabla(0.1),
        |w, g, s, t| {
            let decay = 0.1 * *w;
            adam_reference(w, g, s, t);
            *w -= decay;
        },
    )
}

#[test]
fn the_decay_of_adam_w_follows_the_learning_rate() -> Result<()> {
    check(
        || {
            let mut solver = AdamW::new(0.02).betas(0.8, 0.95).eps(1e-3).decay_like_nnabla(0.1);
            solver.set_learning_rate(0.01);
            solver
        },
        |w, g, s, t| {
            let decay = 0.05 * *w;
            adam_reference(w, g, s, t);
            *w -= decay;
        },
    )
}

#[test]
fn rms_prop() -> Result<()> {
    check(
        || RMSprop::new(0.01).decay(0.7).eps(1e-3),
        |w, g, s, _| {
            s[0] = 0.7 * s[0] + 0.3 * g * g;
            *w -= 0.01 * g / (s[0].sqrt() + 1e-3);
        },
    )
}

#[test]
fn weight_decay_and_clipping_by_value() -> Result<()> {
    check(
        || Sgd::new(0.1).clip_grad_by_value(0.25).weight_decay(0.3),
        |w, g, _, _| *w -= 0.1 * (g.clamp(-0.25, 0.25) + 0.3 * *w),
    )
}
