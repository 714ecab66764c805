//! Solvers whose steps depend on the norms of a parameter and its gradient.

use super::{Moments, moments, numbers};
use crate::solver::{At, Number, Rule, RuleSolver, WeightDecay};
use crate::{Result, check};

/// Lars: steps in proportion to the norm of the parameter. `x = ‖g‖ + d·‖w‖`, `a = η·c·‖w‖ / x`, `v ← μ·v +
/// a·(g + d·w)`, `w ← w − v`, with the [weight decay](RuleSolver::weight_decay) `d`.
///
/// ε is added to `x` only if `x` is below ε, and `a = η` if `‖w‖` is below ε.
///
/// # Source
/// NNabla `S.Lars`; You et al., [Large Batch Training of Convolutional Networks](https://arxiv.org/abs/1708.03888).
///
/// # Example
/// ```
/// use layerfn::{get_parameter_or_create, prelude::*, solver::Lars};
///
/// let w = get_parameter_or_create("w").initializer(Tensor::new(&[3f32, 4.], &Device::Cpu)?).call()?;
/// let mut solver = Lars::new(1.0, 0.0).coefficient(0.5);
/// solver.set_parameters(&get_parameters());
/// solver.update(&backward(&(&w * &w)?.sum_all()?)?)?; // ‖w‖ = 5, ‖g‖ = 10: the step is half as long as w
/// assert_eq!(w.to_vec1::<f32>()?, [1.5, 2.]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub type Lars = RuleSolver<LarsRule, 1>;

/// The rule of [`Lars`].
#[derive(Clone, Debug)]
pub struct LarsRule {
    momentum: f64,
    coefficient: f64,
    eps: f64,
}

impl Lars {
    /// Makes the solver with learning rate `lr`, η above, and `momentum`, μ, in [0, 1]. NNabla's defaults:
    /// 0.001 and 0.9.
    #[must_use]
    pub fn new(lr: f64, momentum: f64) -> Self {
        Self::new_with(LarsRule { momentum, coefficient: 1e-3, eps: 1e-6 }, lr)
    }
}

numbers! { Lars:
    /// Norm of a step divided by that of the parameter, `c` above, at least 0. Default: 0.001.
    coefficient => coefficient;
    /// Threshold below which norms count as zero; above 0. Default: 1e-6.
    eps => eps;
}

impl WeightDecay for LarsRule {}

impl Rule<1> for LarsRule {
    const STATES: [&'static str; 1] = ["v"];
    const MEASURES: bool = true;
    type Rates = (f64, f64);

    fn own_decay(&self) -> Option<f64> {
        Some(0.0)
    }

    fn check(&self, at: &At<'_>) -> Result<()> {
        check::within("momentum", self.momentum, 0.0..=1.0)?;
        check::within("coefficient", self.coefficient, 0.0..)?;
        check::positive("eps", self.eps)?;
        check::within("weight_decay", at.decay, 0.0..)
    }

    fn rates(&self, at: &At<'_>) -> (f64, f64) {
        let [w, g] = at.norms;
        let x = g + at.decay * w;
        let x = if x < self.eps { x + self.eps } else { x };
        let trust = if w < self.eps { 1.0 } else { self.coefficient * w / x };
        (at.learning_rate * trust, at.decay)
    }

    fn step<V: Number>(&self, (rate, decay): (f64, f64), w: V, g: V, [v]: [V; 1]) -> (V, [V; 1]) {
        let g = g + w.clone().scale(decay);
        let v = v.scale(self.momentum) + g.scale(rate);
        (w - v.clone(), [v])
    }
}

/// Lamb: the direction of Adam with a norm in proportion to that of the parameter. `q = m / (√v + ε) + d·w`,
/// `w ← w − η·clip(‖w‖, γₗ, γᵤ) / ‖q‖·q`, with `m` and `v` as for [`Adam`](super::Adam) and the
/// [weight decay](RuleSolver::weight_decay) `d`. Where `‖q‖` is at most ε, the factor is 1.
///
/// The paper corrects `m` and `v` in the first steps: [`bias_correction`](Lamb::bias_correction).
///
/// # Source
/// NNabla `S.Lamb`; You et al., [Large Batch Optimization for Deep Learning](https://arxiv.org/abs/1904.00962).
///
/// # Example
/// ```
/// use layerfn::{get_parameter_or_create, prelude::*, solver::Lamb};
///
/// let w = get_parameter_or_create("w").initializer(Tensor::new(&[3f32, 4.], &Device::Cpu)?).call()?;
/// let mut solver = Lamb::new(0.5);
/// solver.set_parameters(&get_parameters());
/// solver.update(&backward(&w.sum_all()?)?)?; // a step of length 2.5, equal in both directions
/// let length = 2.5 / 2f32.sqrt();
/// assert!((w.to_vec1::<f32>()?[0] - (3. - length)).abs() < 1e-5);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub type Lamb = RuleSolver<LambRule, 2>;

/// The rule of [`Lamb`].
#[derive(Clone, Debug)]
pub struct LambRule {
    moments: Moments,
    least: f64,
    most: f64,
    bias_correction: bool,
}

impl Lamb {
    /// Makes the solver with learning rate `eta`, η above. NNabla's default: 0.001.
    #[must_use]
    pub fn new(eta: f64) -> Self {
        let rule = LambRule { moments: Moments::new(1e-6), least: 0.0, most: 10.0, bias_correction: false };
        Self::new_with(rule, eta)
    }

    /// Sets the bounds of the norm of a parameter, γₗ and γᵤ above. Default: 0 and 10.
    #[must_use]
    pub fn gammas(mut self, least: f64, most: f64) -> Self {
        (self.rule.least, self.rule.most) = (least, most);
        self
    }

    /// Sets whether `m / (1 − β₁ᵗ)` and `v / (1 − β₂ᵗ)` replace `m` and `v`, as in the paper. Default: false.
    #[must_use]
    pub fn bias_correction(mut self, bias_correction: bool) -> Self {
        self.rule.bias_correction = bias_correction;
        self
    }
}

moments!(Lamb, "1e-6");

/// The values that are the same for all elements.
#[derive(Clone, Copy, Debug)]
pub struct LambRates {
    /// `1 / (1 − β₁ᵗ)` and `1 / (1 − β₂ᵗ)`, or 1.
    corrections: [f64; 2],
    decay: f64,
    /// The factor of the direction.
    rate: f64,
}

impl LambRule {
    fn direction<V: Number>(&self, rates: LambRates, w: V, m: V, v: V) -> V {
        let [first, second] = rates.corrections;
        let root = v.scale(second).sqrt().offset(self.moments.eps);
        m.scale(first) / root + w.scale(rates.decay)
    }
}

impl WeightDecay for LambRule {}

impl Rule<2> for LambRule {
    const STATES: [&'static str; 2] = ["mean", "var"];
    const SQUARES: bool = true;
    const MEASURES: bool = true;
    type Rates = LambRates;

    fn own_decay(&self) -> Option<f64> {
        Some(0.0)
    }

    fn check(&self, at: &At<'_>) -> Result<()> {
        self.moments.check()?;
        check::within("gammas", self.most, 0.0..)?;
        check::within("gammas", self.least, 0.0..=self.most)?;
        check::within("weight_decay", at.decay, 0.0..)
    }

    fn rates(&self, at: &At<'_>) -> LambRates {
        let [w, direction] = at.norms;
        let length = w.max(self.least).min(self.most);
        let trust = if direction > self.moments.eps { length / direction } else { 1.0 };
        let [first, second] = self.moments.corrections(at.t);
        let corrections =
            if self.bias_correction { [first.recip(), (second * second).recip()] } else { [1.0; 2] };
        LambRates { corrections, decay: at.decay, rate: at.learning_rate * trust }
    }

    fn measure<V: Number>(&self, rates: LambRates, w: V, g: V, [m, v]: [V; 2]) -> [V; 2] {
        let [m, v] = self.moments.average(g, m, v);
        let direction = self.direction(rates, w.clone(), m, v);
        [w, direction]
    }

    fn step<V: Number>(&self, rates: LambRates, w: V, g: V, [m, v]: [V; 2]) -> (V, [V; 2]) {
        let [m, v] = self.moments.average(g, m, v);
        let direction = self.direction(rates, w.clone(), m.clone(), v.clone());
        (w - direction.scale(rates.rate), [m, v])
    }
}
