//! AdaBelief.

use super::{Decoupled, Moments};
use crate::solver::{At, Number, Rule, RuleSolver, WeightDecay};
use crate::{Result, check};

/// AdaBelief: Adam that divides by the deviation of the gradient from its average: `m ← β₁·m + (1 − β₁)·g`, `s
/// ← β₂·s + (1 − β₂)·(g − m)² + ε`, `w ← w − α / (1 − β₁ᵗ)·m / (√(s / (1 − β₂ᵗ)) + ε)`.
///
/// As in the paper, the ε stays in `s` and so accumulates from step to step.
///
/// - [`amsgrad`](Self::amsgrad) divides by `ŝ ← max(ŝ, s) + ε`, and `s` stays without ε.
/// - [`decoupled_decay`](Self::decoupled_decay) and [`fixed_decay`](Self::fixed_decay) take a part of `w` first.
/// - [`rectify`](Self::rectify) is RAdam's: `ρ = ρ∞ − 2t·β₂ᵗ / (1 − β₂ᵗ)` with `ρ∞ = 2 / (1 − β₂) − 1`. While `ρ ≤ 4`,
///   `w ← w − α·m`; then α is multiplied by `√((ρ−4)(ρ−2)ρ∞ / ((ρ∞−4)(ρ∞−2)ρ))`. The paper of RAdam has `α·m / (1 − β₁ᵗ)` in the first
///   steps: [`rectify_like_paper`](Self::rectify_like_paper).
///
/// # Source
/// NNabla `S.AdaBelief`; Zhuang et al., [AdaBelief Optimizer](https://arxiv.org/abs/2010.07468); Liu et al.,
/// [On the Variance of the Adaptive Learning Rate and Beyond](https://arxiv.org/abs/1908.03265).
///
/// # Example
/// ```
/// use layerfn::{get_parameter_or_create, prelude::*, solver::AdaBelief};
///
/// let w = get_parameter_or_create("w").initializer(Tensor::new(&[8f32], &Device::Cpu)?).call()?;
/// let mut solver = AdaBelief::new(1.0).betas(0.5, 0.75);
/// solver.set_parameters(&get_parameters());
/// solver.update(&backward(&w.sum_all()?)?)?; // m = 1/2, s = 1/16; corrected, 1 and 1/4
/// assert!((w.to_vec1::<f32>()?[0] - 6.).abs() < 1e-5);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub type AdaBelief<const N: usize = 2> = RuleSolver<AdaBeliefRule, N>;

/// The rule of [`AdaBelief`].
#[derive(Clone, Debug)]
pub struct AdaBeliefRule {
    moments: Moments,
    decay: Option<(f64, Decay)>,
    rectify: Option<FirstSteps>,
}

/// A decay that is not a part of the gradient.
#[derive(Clone, Copy, Debug)]
enum Decay {
    TimesRate,
    Fixed,
}

/// Rectified steps before the variance is known.
#[derive(Clone, Copy, Debug)]
enum FirstSteps {
    Plain,
    Corrected,
}

impl AdaBelief {
    /// Makes the solver with learning rate `alpha`. NNabla's default: 0.001.
    #[must_use]
    pub fn new(alpha: f64) -> Self {
        Self::new_with(AdaBeliefRule { moments: Moments::new(1e-8), decay: None, rectify: None }, alpha)
    }

    /// Divides by the largest `s` so far.
    #[must_use]
    pub fn amsgrad(self) -> AdaBelief<3> {
        self.with_rule(|rule| rule)
    }
}

impl<const N: usize> AdaBelief<N>
where
    AdaBeliefRule: Rule<N>,
{
    /// Sets the decay rates of the two averages, in [0, 1). Default: 0.9 and 0.999.
    #[must_use]
    pub fn betas(mut self, beta1: f64, beta2: f64) -> Self {
        (self.rule.moments.beta1, self.rule.moments.beta2) = (beta1, beta2);
        self
    }

    /// Sets ε, which avoids a division by zero; above 0. Default: 1e-8.
    #[must_use]
    pub fn eps(mut self, eps: f64) -> Self {
        self.rule.moments.eps = eps;
        self
    }

    /// Starts each step with `w ← w − α·decay·w`; at least 0.
    #[must_use]
    pub fn decoupled_decay(mut self, decay: f64) -> Self {
        self.rule.decay = Some((decay, Decay::TimesRate));
        self
    }

    /// Starts each step with `w ← w − decay·w`, whatever the learning rate; at least 0.
    #[must_use]
    pub fn fixed_decay(mut self, decay: f64) -> Self {
        self.rule.decay = Some((decay, Decay::Fixed));
        self
    }

    /// Scales steps by how well the variance is known.
    #[must_use]
    pub fn rectify(mut self) -> Self {
        self.rule.rectify = Some(FirstSteps::Plain);
        self
    }

    /// As [`rectify`](Self::rectify), with corrected momentum in the first steps.
    #[must_use]
    pub fn rectify_like_paper(mut self) -> Self {
        self.rule.rectify = Some(FirstSteps::Corrected);
        self
    }
}

impl WeightDecay for AdaBeliefRule {}

/// The values that are the same for all elements.
#[derive(Clone, Copy, Debug)]
pub struct BeliefRates {
    /// The factor of the momentum.
    rate: f64,
    /// `1 / √(1 − β₂ᵗ)`; 0 in steps that do not divide.
    correction: f64,
    decay: f64,
}

impl AdaBeliefRule {
    fn own(&self) -> Option<f64> {
        self.decay.map(|(rate, _)| rate)
    }

    fn check_at(&self, at: &At<'_>) -> Result<()> {
        self.moments.check()?;
        check::within("decay", at.decay, 0.0..)?;
        Decoupled::Rate.check(at)
    }

    fn rates_at(&self, at: &At<'_>) -> BeliefRates {
        let [first, second] = self.moments.corrections(at.t);
        let decay = match self.decay {
            Some((_, Decay::TimesRate)) => Decoupled::Rate.part(at),
            Some((_, Decay::Fixed)) => at.decay,
            None => 0.0,
        };
        let corrected = at.learning_rate / first;
        let [rate, correction] = match (self.rectify, self.rectification(at.t)) {
            (None, _) => [corrected, second.recip()],
            (Some(_), Some(factor)) => [corrected * factor, second.recip()],
            (Some(FirstSteps::Plain), None) => [at.learning_rate, 0.0],
            (Some(FirstSteps::Corrected), None) => [corrected, 0.0],
        };
        BeliefRates { rate, correction, decay }
    }

    /// The factor of the rate; `None` before the variance is known.
    fn rectification(&self, t: u32) -> Option<f64> {
        let (beta2, t) = (self.moments.beta2, f64::from(t));
        let (top, power) = (2.0 / (1.0 - beta2) - 1.0, beta2.powf(t));
        let rho = top - 2.0 * t * power / (1.0 - power);
        let factor = (rho - 4.0) * (rho - 2.0) * top / ((top - 4.0) * (top - 2.0) * rho);
        (rho > 4.0).then(|| factor.sqrt())
    }

    fn average<V: Number>(&self, g: V, m: V, s: V) -> [V; 2] {
        let Moments { beta1, beta2, .. } = self.moments;
        let m = m.scale(beta1) + g.clone().scale(1.0 - beta1);
        let far = g - m.clone();
        let s = s.scale(beta2) + far.clone().scale(1.0 - beta2) * far;
        [m, s]
    }

    fn moved<V: Number>(&self, rates: BeliefRates, w: V, m: V, s: V) -> V {
        let w = w.clone() - w.scale(rates.decay);
        if rates.correction == 0.0 {
            return w - m.scale(rates.rate);
        }
        w - m.scale(rates.rate) / s.sqrt().scale(rates.correction).offset(self.moments.eps)
    }
}

impl Rule<2> for AdaBeliefRule {
    const STATES: [&'static str; 2] = ["mean", "var"];
    const SQUARES: bool = true;
    type Rates = BeliefRates;

    fn own_decay(&self) -> Option<f64> {
        self.own()
    }

    fn check(&self, at: &At<'_>) -> Result<()> {
        self.check_at(at)
    }

    fn rates(&self, at: &At<'_>) -> BeliefRates {
        self.rates_at(at)
    }

    fn step<V: Number>(&self, rates: BeliefRates, w: V, g: V, [m, s]: [V; 2]) -> (V, [V; 2]) {
        let [m, s] = self.average(g, m, s);
        let s = s.offset(self.moments.eps);
        (self.moved(rates, w, m.clone(), s.clone()), [m, s])
    }
}

impl Rule<3> for AdaBeliefRule {
    const STATES: [&'static str; 3] = ["mean", "var", "s_max"];
    const SQUARES: bool = true;
    type Rates = BeliefRates;

    fn own_decay(&self) -> Option<f64> {
        self.own()
    }

    fn check(&self, at: &At<'_>) -> Result<()> {
        self.check_at(at)
    }

    fn rates(&self, at: &At<'_>) -> BeliefRates {
        self.rates_at(at)
    }

    fn step<V: Number>(&self, rates: BeliefRates, w: V, g: V, [m, s, largest]: [V; 3]) -> (V, [V; 3]) {
        let [m, s] = self.average(g, m, s);
        let largest = largest.larger(s.clone()).offset(self.moments.eps);
        (self.moved(rates, w, m.clone(), largest.clone()), [m, s, largest])
    }
}
