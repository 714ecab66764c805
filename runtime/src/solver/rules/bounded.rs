//! Adam with bounded rates.

use super::{Moments, moments, numbers};
use crate::solver::{At, Number, Rule, RuleSolver, WeightDecay};
use crate::{Result, check};

/// Averages and bounds, which both solvers have.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    final_lr: f64,
    gamma: f64,
}

impl Bounds {
    const DEFAULT: Self = Self { final_lr: 0.1, gamma: 1e-3 };

    fn check(&self, at: &At<'_>) -> Result<()> {
        check::within("final_lr", self.final_lr, 0.0..)?;
        check::positive("gamma", self.gamma)?;
        check::within("first_learning_rate", at.first_learning_rate, 0.0..)?;
        check::within("final_lr", self.last(at), 0.0..)
    }

    /// The final rate of all elements.
    fn last(&self, at: &At<'_>) -> f64 {
        self.final_lr * at.schedule()
    }

    /// The bounds of the rates, where `above` is the difference of the upper one from 1.
    fn of(&self, at: &At<'_>, above: f64) -> [f64; 2] {
        let (last, t) = (self.last(at), f64::from(at.t));
        [last * (1.0 - 1.0 / (self.gamma * t + 1.0)), last * (1.0 + above)]
    }
}

/// Adam that turns into gradient descent: the rate `αₜ / (√v + ε)` of each element is clipped to `[f·(1 −
/// 1/(γ·t + 1)), f·(1 + 1/(γ·t))]` with `f = final_lr·α / α₀`, and `w ← w − rate·m`; αₜ, `m` and `v` are those
/// of [`Adam`](super::Adam), and α₀ is the learning rate that the solver was made with.
///
/// # Source
/// NNabla `S.AdaBound`; Luo et al., [Adaptive Gradient Methods with Dynamic Bound of Learning Rate](https://arxiv.org/abs/1902.09843).
///
/// # Example
/// ```
/// use layerfn::{get_parameter_or_create, prelude::*, solver::AdaBound};
///
/// let w = get_parameter_or_create("w").initializer(Tensor::new(&[8f32], &Device::Cpu)?).call()?;
/// let mut solver = AdaBound::new(4.0).betas(0.5, 0.75).final_lr(1.0).gamma(1.0);
/// solver.set_parameters(&get_parameters());
/// solver.update(&backward(&w.sum_all()?)?)?; // the rate is cut to 2, m is 1/2
/// assert_eq!(w.to_vec1::<f32>()?, [7.]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub type AdaBound = RuleSolver<AdaBoundRule, 2>;

/// The rule of [`AdaBound`].
#[derive(Clone, Debug)]
pub struct AdaBoundRule {
    moments: Moments,
    bounds: Bounds,
}

impl AdaBound {
    /// Makes the solver with learning rate `alpha`, the α₀ above. NNabla's default: 0.001.
    #[must_use]
    pub fn new(alpha: f64) -> Self {
        Self::new_with(AdaBoundRule { moments: Moments::new(1e-8), bounds: Bounds::DEFAULT }, alpha)
    }
}

moments!(AdaBound, "1e-8");
numbers! { AdaBound:
    /// The final rate of all elements, at least 0. Default: 0.1.
    final_lr => bounds.final_lr;
    /// Speed at which the bounds converge, above 0. Default: 0.001.
    gamma => bounds.gamma;
}

impl WeightDecay for AdaBoundRule {}

impl Rule<2> for AdaBoundRule {
    const STATES: [&'static str; 2] = ["mean", "var"];
    const SQUARES: bool = true;
    type Rates = (f64, [f64; 2]);

    fn check(&self, at: &At<'_>) -> Result<()> {
        self.moments.check()?;
        self.bounds.check(at)
    }

    fn rates(&self, at: &At<'_>) -> Self::Rates {
        let above = 1.0 / (self.bounds.gamma * f64::from(at.t));
        (self.moments.corrected(at), self.bounds.of(at, above))
    }

    fn step<V: Number>(&self, (alpha, [low, high]): Self::Rates, w: V, g: V, [m, v]: [V; 2]) -> (V, [V; 2]) {
        let [m, v] = self.moments.average(g, m, v);
        let rate = v.constant(alpha) / v.clone().sqrt().offset(self.moments.eps);
        (w - rate.between(low, high) * m.clone(), [m, v])
    }
}

/// [`AdaBound`] with the largest `v` so far, `v̂ ← max(v̂, v)`, in place of `v`, with the upper bound `f·(1 +
/// t/γ)`, and without the correction of the first steps unless [`bias_correction`](AMSBound::bias_correction)
/// asks for it.
///
/// The upper bound in the paper and on NNabla's page is `f·(1 + 1/(γ·t))`:
/// [`bound_like_paper`](AMSBound::bound_like_paper). NNabla computes the other one, which has no effect after
/// the first steps.
///
/// # Source
/// NNabla `S.AMSBound`; the paper of [`AdaBound`].
///
/// # Example
/// ```
/// use layerfn::{get_parameter_or_create, prelude::*, solver::AMSBound};
///
/// let w = get_parameter_or_create("w").initializer(Tensor::new(&[8f32], &Device::Cpu)?).call()?;
/// let mut solver = AMSBound::new(4.0).betas(0.5, 0.75).final_lr(1.0).gamma(1.0).bound_like_paper();
/// solver.set_parameters(&get_parameters());
/// solver.update(&backward(&w.sum_all()?)?)?; // the rate is cut to 2, m is 1/2
/// assert_eq!(w.to_vec1::<f32>()?, [7.]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub type AMSBound = RuleSolver<AMSBoundRule, 3>;

/// The rule of [`AMSBound`].
#[derive(Clone, Debug)]
pub struct AMSBoundRule {
    moments: Moments,
    bounds: Bounds,
    bias_correction: bool,
    like_paper: bool,
}

impl AMSBound {
    /// Makes the solver with learning rate `alpha`. NNabla's default: 0.001.
    #[must_use]
    pub fn new(alpha: f64) -> Self {
        let (moments, bounds) = (Moments::new(1e-8), Bounds::DEFAULT);
        Self::new_with(AMSBoundRule { moments, bounds, bias_correction: false, like_paper: false }, alpha)
    }

    /// Sets whether the first steps are corrected like those of [`Adam`](super::Adam). Default: false.
    #[must_use]
    pub fn bias_correction(mut self, bias_correction: bool) -> Self {
        self.rule.bias_correction = bias_correction;
        self
    }

    /// Uses the upper bound `f·(1 + 1/(γ·t))`.
    #[must_use]
    pub fn bound_like_paper(mut self) -> Self {
        self.rule.like_paper = true;
        self
    }
}

moments!(AMSBound, "1e-8");
numbers! { AMSBound:
    /// The final rate of all elements, at least 0. Default: 0.1.
    final_lr => bounds.final_lr;
    /// Speed at which the bounds converge, above 0. Default: 0.001.
    gamma => bounds.gamma;
}

impl WeightDecay for AMSBoundRule {}

impl Rule<3> for AMSBoundRule {
    const STATES: [&'static str; 3] = ["m", "v", "v_hat"];
    const SQUARES: bool = true;
    type Rates = (f64, [f64; 2]);

    fn check(&self, at: &At<'_>) -> Result<()> {
        self.moments.check()?;
        self.bounds.check(at)
    }

    fn rates(&self, at: &At<'_>) -> Self::Rates {
        let (gamma, t) = (self.bounds.gamma, f64::from(at.t));
        let above = if self.like_paper { 1.0 / (gamma * t) } else { t / gamma };
        let alpha = if self.bias_correction { self.moments.corrected(at) } else { at.learning_rate };
        (alpha, self.bounds.of(at, above))
    }

    fn step<V: Number>(
        &self,
        (alpha, [low, high]): Self::Rates,
        w: V,
        g: V,
        [m, v, largest]: [V; 3],
    ) -> (V, [V; 3]) {
        let [m, v] = self.moments.average(g, m, v);
        let largest = largest.larger(v.clone());
        let rate = largest.constant(alpha) / largest.clone().sqrt().offset(self.moments.eps);
        (w - rate.between(low, high) * m.clone(), [m, v, largest])
    }
}
