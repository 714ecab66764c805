//! Learning rates that depend on the step.
//!
//! A [`Schedule`] gives a factor for each step, which multiplies the learning rate of a solver. It only depends
//! on the number of the step, so a resumed training needs no other state. Schedules can be multiplied:
//! `warmup(100).cosine(10_000)` is the cosine with a linear warmup in the first 100 steps.
//!
//! ```
//! use layerfn::solver::{Adam, Solver, schedule};
//!
//! let solver = Adam::new(4e-3).schedule(schedule::warmup(4).cosine(100));
//! assert_eq!(solver.learning_rate(), 1e-3); // of the first step
//! ```
//!
//! NNabla's schedulers correspond to these, for step `i` from 0, with their `init_lr` as the learning rate of
//! the solver:
//!
//! | NNabla | here | factor |
//! | --- | --- | --- |
//! | `PolynomialScheduler` | [`polynomial`] | `(1 − i / n)^power` |
//! | `CosineScheduler` | [`cosine`] | `(1 + cos(π·i / n)) / 2` |
//! | `ExponentialScheduler` | [`exponential`] | `gamma^⌊i / interval⌋` |
//! | `StepScheduler` | [`steps`] | `gamma` for each of the steps that is `≤ i` |
//! | `LinearWarmupScheduler` | [`warmup`] | `(i + 1) / n` while `i < n` |
//! | | [`linear`] | `1 − (1 − end)·i / n`, then `end` |
//! | | [`one_cycle`] | PyTorch's `OneCycleLR`: up from 1/25 to 1 in 0.3 of the steps, then down to 4e-6, along cosines |
//!
//! As in NNabla, the factors are not held after the last step: the polynomial becomes negative, which an update
//! rejects, and the cosine rises again. [`Schedule::then`] continues with another schedule.

use std::f64::consts::PI;

/// The initial learning rate of [`one_cycle`] divided by the highest, and the final one divided by the initial.
const ONE_CYCLE: [f64; 2] = [1.0 / 25.0, 1e-4];

/// A factor of the learning rate for each step; see the [module](self).
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// Factors that are multiplied, with the step from which they apply.
    phases: Vec<(u64, Vec<Factor>)>,
}

#[derive(Clone, Debug, PartialEq)]
enum Factor {
    Polynomial { n: u64, power: f64 },
    Cosine { n: u64 },
    Exponential { gamma: f64, interval: u64 },
    Steps { gamma: f64, at: Vec<u64> },
    Warmup { n: u64 },
    Linear { n: u64, end: f64 },
    OneCycle { n: u64 },
}

impl Factor {
    fn at(&self, i: u64) -> f64 {
        let step = i as f64;
        match self {
            Self::Polynomial { n, power } => (1.0 - step / *n as f64).powf(*power),
            Self::Cosine { n } => ((PI * step / *n as f64).cos() + 1.0) / 2.0,
            Self::Exponential { gamma, interval } => gamma.powf((i / (*interval).max(1)) as f64),
            Self::Steps { gamma, at } => gamma.powf(at.iter().filter(|&&at| at <= i).count() as f64),
            Self::Warmup { n } => {
                if i < *n {
                    (step + 1.0) / *n as f64
                } else {
                    1.0
                }
            }
            Self::Linear { n, end } => {
                let part = if i < *n { step / *n as f64 } else { 1.0 };
                1.0 - (1.0 - end) * part
            }
            Self::OneCycle { n } => one_cycle_at(step, *n as f64),
        }
    }
}

fn one_cycle_at(step: f64, n: f64) -> f64 {
    let along = |from: f64, to: f64, part: f64| to + (from - to) / 2.0 * (1.0 + (PI * part).cos());
    let [first, last] = [ONE_CYCLE[0], ONE_CYCLE[0] * ONE_CYCLE[1]];
    let (top, end) = (0.3 * n - 1.0, n - 1.0);
    if step <= top {
        along(first, 1.0, step / top)
    } else {
        along(1.0, last, ((step - top) / (end - top)).min(1.0))
    }
}

/// The constructors, as functions and as methods that multiply a schedule.
macro_rules! factors {
    ($($(#[$doc:meta])* $name:ident($($argument:ident: $T:ty),*) => $factor:expr;)+) => {
        $(
            $(#[$doc])*
            #[must_use]
            pub fn $name($($argument: $T),*) -> Schedule {
                Schedule { phases: vec![(0, vec![$factor])] }
            }
        )+

        impl Schedule {
            $(
                $(#[$doc])*
                ///
                /// It multiplies the existing factors.
                #[must_use]
                pub fn $name(self, $($argument: $T),*) -> Self {
                    self.times($factor)
                }
            )+
        }
    };
}

factors! {
    /// The factor `(1 − i / n)^power` in step `i`.
    polynomial(n: u64, power: f64) => Factor::Polynomial { n, power };
    /// The factor `(1 + cos(π·i / n)) / 2` in step `i`: from 1 to 0 in `n` steps.
    cosine(n: u64) => Factor::Cosine { n };
    /// The factor `gamma^⌊i / interval⌋` in step `i`. An interval of 0 counts as 1.
    exponential(gamma: f64, interval: u64) => Factor::Exponential { gamma, interval };
    /// Another factor `gamma` from each of these steps on, in any order.
    steps(gamma: f64, at: &[u64]) => Factor::Steps { gamma, at: at.to_vec() };
    /// The factor `(i + 1) / n` in step `i` of the first `n`, then 1.
    warmup(n: u64) => Factor::Warmup { n };
    /// A linear change from 1 to `end` in `n` steps, then `end`.
    linear(n: u64, end: f64) => Factor::Linear { n, end };
    /// Smith's one-cycle schedule over `n` steps with PyTorch's defaults: from 1/25 up to 1 in the first 30 %,
    /// then down to 4e-6.
    one_cycle(n: u64) => Factor::OneCycle { n };
}

impl Schedule {
    /// The factor of step `i`, counted from 0.
    #[must_use]
    pub fn at(&self, i: u64) -> f64 {
        let phase = self.phases.iter().rev().find(|(start, _)| *start <= i);
        phase.map_or(1.0, |(start, factors)| factors.iter().map(|factor| factor.at(i - start)).product())
    }

    /// Continues with `next` after step `n`, which is its first step.
    ///
    /// ```
    /// use layerfn::solver::schedule;
    ///
    /// let schedule = schedule::warmup(10).then(10, schedule::linear(100, 0.0));
    /// assert_eq!([0, 9, 10, 60, 110, 1000].map(|i| schedule.at(i)), [0.1, 1.0, 1.0, 0.5, 0.0, 0.0]);
    /// ```
    #[must_use]
    pub fn then(mut self, n: u64, next: Self) -> Self {
        self.phases.retain(|(start, _)| *start < n || *start == 0);
        self.phases
            .extend(next.phases.into_iter().map(|(start, factors)| (start.saturating_add(n), factors)));
        self
    }

    /// Multiplies the last phase by the factor.
    fn times(mut self, factor: Factor) -> Self {
        if let Some((_, factors)) = self.phases.last_mut() {
            factors.push(factor);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_cycle_is_pytorchs() {
        // torch.optim.lr_scheduler.OneCycleLR(sgd, max_lr=1.0, total_steps=10)
        let want = [
            0.04,
            0.52,
            1.0,
            0.950_484_631_478_443,
            0.811_745_091_489_078_2,
            0.611_260_630_062_588,
            0.388_743_369_937_412,
            0.188_258_908_510_921_85,
            0.049_519_368_521_557_1,
            4e-6,
        ];
        let schedule = one_cycle(10);
        for (i, want) in want.into_iter().enumerate() {
            assert!((schedule.at(i as u64) - want).abs() < 1e-5, "{i}: {}", schedule.at(i as u64));
        }
        assert_eq!(schedule.at(10), schedule.at(9));
    }

    #[test]
    fn schedules_are_products_and_phases() {
        let schedule = warmup(4).cosine(8);
        for i in 0..8 {
            assert_eq!(schedule.at(i), warmup(4).at(i) * cosine(8).at(i));
        }
        let schedule = warmup(2).then(3, steps(0.5, &[1]).then(2, linear(2, 0.0)));
        assert_eq!(
            [0, 1, 2, 3, 4, 5, 6, 7, 8].map(|i| schedule.at(i)),
            [0.5, 1., 1., 1., 0.5, 1., 0.5, 0., 0.]
        );
    }

    #[test]
    fn nothing_is_held_at_the_end() {
        assert_eq!(polynomial(4, 1.0).at(5), -0.25);
        assert!(polynomial(4, 0.5).at(5).is_nan() && cosine(0).at(0).is_nan());
        assert_eq!(cosine(4).at(8), 1.0);
    }
}
