//! The other formulas, which have names of their own.

use candle_core::DType;
use layerfn::Result;
use layerfn::solver::{
    AMSBound, AMSGRAD, AdaBelief, Adam, AdamW, Adamax, Momentum, Nesterov, RMSpropGraves, SgdW, Solver,
};

use super::{assert_close, flat, gradients, parameters, step_gradients};

/// Compares with `reference`, which changes `(w, g, states, rate, t)`; the learning rate falls from 0.1 to 0.05 after three steps.
#[track_caller]
fn check(mut solver: impl Solver, reference: impl Fn(&mut f64, f64, &mut [f64; 3], f64, i32)) -> Result<()> {
    let all = parameters(&[("a", 7)], DType::F64)?;
    let mut want = flat(&all)?.remove(0);
    let mut states = vec![[0.0; 3]; want.len()];
    solver.set_parameters(&all);
    for t in 1..=6 {
        let rate = if t <= 3 { 0.1 } else { 0.05 };
        solver.set_learning_rate(rate);
        let g = step_gradients(&all, t as u64)?;
        for ((w, g), states) in want.iter_mut().zip(g[0].as_deref().unwrap_or_default()).zip(&mut states) {
            reference(w, *g, states, rate, t);
        }
        solver.update(&gradients(&all, &g)?)?;
    }
    assert_close(&flat(&all)?[0], &want, 1e-13);
    Ok(())
}

#[test]
fn momenta_hold_gradients() -> Result<()> {
    check(Momentum::new(0.1, 0.8).momentum_like_pytorch(), |w, g, s, rate, _| {
        s[0] = 0.8 * s[0] + g;
        *w -= rate * s[0];
    })?;
    check(Nesterov::new(0.1, 0.8).momentum_like_pytorch(), |w, g, s, rate, _| {
        s[0] = 0.8 * s[0] + g;
        *w -= rate * (g + 0.8 * s[0]);
    })?;
    check(SgdW::new(0.1, 0.8).momentum_like_pytorch().decay_like_pytorch(0.3), |w, g, s, rate, _| {
        s[0] = 0.8 * s[0] + g;
        *w -= rate * (s[0] + 0.3 * *w);
    })
}

fn adam(w: &mut f64, g: f64, s: &mut [f64; 3], rate: f64, t: i32) {
    s[0] = 0.8 * s[0] + 0.2 * g;
    s[1] = 0.95 * s[1] + 0.05 * g * g;
    *w -= rate * s[0] / (1.0 - 0.8f64.powi(t)) / ((s[1] / (1.0 - 0.95f64.powi(t))).sqrt() + 1e-2);
}

#[test]
fn eps_stands_behind_the_correction() -> Result<()> {
    check(Adam::new(0.1).betas(0.8, 0.95).eps(1e-2).eps_like_pytorch(), adam)?;
    let solver = AdamW::new(0.1).betas(0.8, 0.95).eps(1e-2).eps_like_pytorch().decay_like_pytorch(0.3);
    check(solver, |w, g, s, rate, t| {
        *w *= 1.0 - rate * 0.3;
        adam(w, g, s, rate, t);
    })?;
    let solver = AMSGRAD::new(0.1).betas(0.8, 0.95).eps(1e-2).bias_correction(true).eps_like_pytorch();
    check(solver, |w, g, s, rate, t| {
        s[0] = 0.8 * s[0] + 0.2 * g;
        s[1] = 0.95 * s[1] + 0.05 * g * g;
        s[2] = s[2].max(s[1]);
        *w -= rate * s[0] / (1.0 - 0.8f64.powi(t)) / ((s[2] / (1.0 - 0.95f64.powi(t))).sqrt() + 1e-2);
    })?;
    check(Adamax::new(0.1).betas(0.8, 0.95).eps(1e-2).eps_like_pytorch(), |w, g, s, rate, t| {
        s[0] = 0.8 * s[0] + 0.2 * g;
        s[1] = (0.95 * s[1]).max(g.abs() + 1e-2);
        *w -= rate / (1.0 - 0.8f64.powi(t)) * s[0] / s[1];
    })
}

#[test]
fn centered_rms_prop() -> Result<()> {
    let solver = RMSpropGraves::new(0.1).decay(0.8).momentum(0.7).eps(1e-2).like_pytorch();
    check(solver, |w, g, s, rate, _| {
        s[0] = 0.8 * s[0] + 0.2 * g * g;
        s[1] = 0.8 * s[1] + 0.2 * g;
        s[2] = 0.7 * s[2] + g / ((s[0] - s[1] * s[1]).max(0.0).sqrt() + 1e-2);
        *w -= rate * s[2];
    })
}

#[test]
fn the_bound_of_the_paper() -> Result<()> {
    let solver = AMSBound::new(0.1).betas(0.8, 0.95).eps(1e-2).final_lr(0.05).gamma(0.5).bound_like_paper();
    check(solver, |w, g, s, rate, t| {
        s[0] = 0.8 * s[0] + 0.2 * g;
        s[1] = 0.95 * s[1] + 0.05 * g * g;
        s[2] = s[2].max(s[1]);
        let (last, t) = (0.05 * rate / 0.1, 0.5 * f64::from(t));
        let (low, high) = (last * (1.0 - 1.0 / (t + 1.0)), last * (1.0 + 1.0 / t));
        *w -= (rate / (s[2].sqrt() + 1e-2)).clamp(low, high) * s[0];
    })
}

#[test]
fn first_steps_of_radam() -> Result<()> {
    let solver = AdaBelief::new(0.1).betas(0.8, 0.95).eps(1e-2).rectify_like_paper();
    check(solver, |w, g, s, rate, t| {
        s[0] = 0.8 * s[0] + 0.2 * g;
        s[1] = 0.95 * s[1] + 0.05 * (g - s[0]) * (g - s[0]) + 1e-2;
        let m = s[0] / (1.0 - 0.8f64.powi(t));
        let (top, power) = (2.0 / 0.05 - 1.0, 0.95f64.powi(t));
        let rho = top - 2.0 * f64::from(t) * power / (1.0 - power);
        if rho <= 4.0 {
            *w -= rate * m;
        } else {
            let factor = (rho - 4.0) * (rho - 2.0) * top / ((top - 4.0) * (top - 2.0) * rho);
            *w -= rate * factor.sqrt() * m / ((s[1] / (1.0 - power)).sqrt() + 1e-2);
        }
    })
}
