//! Solvers that divide by the root of averaged squares of the gradient, without Adam's momentum.

use super::numbers;
use crate::solver::{At, Number, Rule, RuleSolver, WeightDecay};
use crate::{Result, check};

/// Adagrad: `v ← v + g²`, `w ← w − η·g / (√v + ε)`.
///
/// # Source
/// NNabla `S.Adagrad`; Duchi et al., Adaptive Subgradient Methods for Online Learning and Stochastic Optimization, 2011.
///
/// # Example
/// ```
/// use layerfn::{get_parameter_or_create, prelude::*, solver::Adagrad};
///
/// let w = get_parameter_or_create("w").initializer(Tensor::new(&[8f32], &Device::Cpu)?).call()?;
/// let mut solver = Adagrad::new(2.0);
/// solver.set_parameters(&get_parameters());
/// solver.update(&backward(&w.sqr()?.sum_all()?)?)?; // the first step is as long as the learning rate
/// assert!((w.to_vec1::<f32>()?[0] - 6.).abs() < 1e-5);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub type Adagrad = RuleSolver<AdagradRule, 1>;

/// The rule of [`Adagrad`].
#[derive(Clone, Debug)]
pub struct AdagradRule {
    eps: f64,
}

impl Adagrad {
    /// Makes the solver with learning rate `lr`, η above. NNabla's default: 0.01.
    #[must_use]
    pub fn new(lr: f64) -> Self {
        Self::new_with(AdagradRule { eps: 1e-8 }, lr)
    }
}

numbers! { Adagrad:
    /// Added to the root, to avoid a division by zero; above 0. Default: 1e-8.
    eps => eps;
}

impl WeightDecay for AdagradRule {}

impl Rule<1> for AdagradRule {
    const STATES: [&'static str; 1] = ["v"];
    const SQUARES: bool = true;
    type Rates = f64;

    fn check(&self, _: &At<'_>) -> Result<()> {
        check::positive("eps", self.eps)
    }

    fn rates(&self, at: &At<'_>) -> f64 {
        at.learning_rate
    }

    fn step<V: Number>(&self, lr: f64, w: V, g: V, [v]: [V; 1]) -> (V, [V; 1]) {
        let v = v + g.clone() * g.clone();
        (w - g.scale(lr) / v.clone().sqrt().offset(self.eps), [v])
    }
}

/// Adadelta: `a ← γ·a + (1 − γ)·g²`, `u = √((b + ε) / (a + ε))·g`, `b ← γ·b + (1 − γ)·u²`, `w ← w − η·u`.
///
/// # Source
/// NNabla `S.Adadelta`; Zeiler, [ADADELTA](https://arxiv.org/abs/1212.5701), where η is 1.
///
/// # Example
/// ```
/// use layerfn::{get_parameter_or_create, prelude::*, solver::Adadelta};
///
/// let w = get_parameter_or_create("w").initializer(Tensor::new(&[8f32], &Device::Cpu)?).call()?;
/// let mut solver = Adadelta::new(1.0).decay(0.5).eps(0.5);
/// solver.set_parameters(&get_parameters());
/// solver.update(&backward(&w.sum_all()?)?)?; // a = 0.5, u = √(0.5 / 1)
/// assert!((w.to_vec1::<f32>()?[0] - (8. - 0.5f32.sqrt())).abs() < 1e-6);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub type Adadelta = RuleSolver<AdadeltaRule, 2>;

/// The rule of [`Adadelta`].
#[derive(Clone, Debug)]
pub struct AdadeltaRule {
    decay: f64,
    eps: f64,
}

impl Adadelta {
    /// Makes the solver with learning rate `lr`, η above. NNabla's default: 1.
    #[must_use]
    pub fn new(lr: f64) -> Self {
        Self::new_with(AdadeltaRule { decay: 0.95, eps: 1e-6 }, lr)
    }
}

numbers! { Adadelta:
    /// Decay rate of the averages, γ above, in [0, 1). Default: 0.95.
    decay => decay;
    /// Added to both averages; above 0. Default: 1e-6.
    eps => eps;
}

impl WeightDecay for AdadeltaRule {}

impl Rule<2> for AdadeltaRule {
    const STATES: [&'static str; 2] = ["e_sqr_grad", "e_sqr_delta"];
    const SQUARES: bool = true;
    type Rates = f64;

    fn check(&self, _: &At<'_>) -> Result<()> {
        check::within("decay", self.decay, 0.0..1.0)?;
        check::positive("eps", self.eps)
    }

    fn rates(&self, at: &At<'_>) -> f64 {
        at.learning_rate
    }

    fn step<V: Number>(&self, lr: f64, w: V, g: V, [a, b]: [V; 2]) -> (V, [V; 2]) {
        let a = a.scale(self.decay) + g.clone().scale(1.0 - self.decay) * g.clone();
        let u = (b.clone().offset(self.eps) / a.clone().offset(self.eps)).sqrt() * g;
        let b = b.scale(self.decay) + u.clone().scale(1.0 - self.decay) * u.clone();
        (w - u.scale(lr), [a, b])
    }
}

/// RMSprop: `v ← γ·v + (1 − γ)·g²`, `w ← w − η·g / (√v + ε)`.
///
/// # Source
/// NNabla `S.RMSprop`; Tieleman & Hinton, Lecture 6.5 – RMSprop, 2012.
///
/// # Example
/// ```
/// use layerfn::{get_parameter_or_create, prelude::*, solver::RMSprop};
///
/// let w = get_parameter_or_create("w").initializer(Tensor::new(&[8f32], &Device::Cpu)?).call()?;
/// let mut solver = RMSprop::new(1.0).decay(0.75);
/// solver.set_parameters(&get_parameters());
/// solver.update(&backward(&w.sum_all()?)?)?; // the gradient is 1, v becomes 1/4
/// assert_eq!(w.to_vec1::<f32>()?, [6.]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub type RMSprop = RuleSolver<RMSpropRule, 1>;

/// The rule of [`RMSprop`].
#[derive(Clone, Debug)]
pub struct RMSpropRule {
    decay: f64,
    eps: f64,
}

impl RMSprop {
    /// Makes the solver with learning rate `lr`, η above. NNabla's default: 0.001.
    #[must_use]
    pub fn new(lr: f64) -> Self {
        Self::new_with(RMSpropRule { decay: 0.9, eps: 1e-8 }, lr)
    }
}

numbers! { RMSprop:
    /// Decay rate of the average, γ above, in [0, 1). Default: 0.9.
    decay => decay;
    /// Added to the root, to avoid a division by zero; above 0. Default: 1e-8.
    eps => eps;
}

impl WeightDecay for RMSpropRule {}

impl Rule<1> for RMSpropRule {
    const STATES: [&'static str; 1] = ["v"];
    const SQUARES: bool = true;
    type Rates = f64;

    fn check(&self, _: &At<'_>) -> Result<()> {
        check::within("decay", self.decay, 0.0..1.0)?;
        check::positive("eps", self.eps)
    }

    fn rates(&self, at: &At<'_>) -> f64 {
        at.learning_rate
    }

    fn step<V: Number>(&self, lr: f64, w: V, g: V, [v]: [V; 1]) -> (V, [V; 1]) {
        let v = v.scale(self.decay) + g.clone().scale(1.0 - self.decay) * g.clone();
        (w - g.scale(lr) / v.clone().sqrt().offset(self.eps), [v])
    }
}

/// RMSprop that divides by the variance, with momentum: `n ← γ·n + (1 − γ)·g²`, `h ← γ·h + (1 − γ)·g`,
/// `d ← μ·d − η·g / √(n − h² + ε)`, `w ← w + d`.
///
/// PyTorch's `RMSprop(centered=True, momentum=μ)` has ε outside of the root and the learning rate outside of the momentum:
/// [`like_pytorch`](RMSpropGraves::like_pytorch).
///
/// # Source
/// NNabla `S.RMSpropGraves`; Graves, [Generating Sequences With Recurrent Neural Networks](https://arxiv.org/abs/1308.0850).
///
/// # Example
/// ```
/// use layerfn::{get_parameter_or_create, prelude::*, solver::RMSpropGraves};
///
/// let w = get_parameter_or_create("w").initializer(Tensor::new(&[8f32], &Device::Cpu)?).call()?;
/// let mut solver = RMSpropGraves::new(1.0).decay(0.5).eps(0.75);
/// solver.set_parameters(&get_parameters());
/// solver.update(&backward(&w.sum_all()?)?)?; // n = 1/2, h = 1/2, and 1/2 − 1/4 + 3/4 is 1
/// assert_eq!(w.to_vec1::<f32>()?, [7.]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub type RMSpropGraves = RuleSolver<RMSpropGravesRule, 3>;

/// The rule of [`RMSpropGraves`].
#[derive(Clone, Debug)]
pub struct RMSpropGravesRule {
    decay: f64,
    momentum: f64,
    eps: f64,
    like_pytorch: bool,
}

impl RMSpropGraves {
    /// Makes the solver with learning rate `lr`, η above. NNabla's default: 0.0001.
    #[must_use]
    pub fn new(lr: f64) -> Self {
        Self::new_with(RMSpropGravesRule { decay: 0.95, momentum: 0.9, eps: 1e-4, like_pytorch: false }, lr)
    }

    /// Computes `d ← μ·d − g / (√(n − h²) + ε)`, `w ← w + η·d`, as PyTorch does.
    #[must_use]
    pub fn like_pytorch(mut self) -> Self {
        self.rule.like_pytorch = true;
        self
    }
}

numbers! { RMSpropGraves:
    /// Decay rate of the averages, γ above, in [0, 1). Default: 0.95.
    decay => decay;
    /// Momentum, μ above, in [0, 1]. Default: 0.9.
    momentum => momentum;
    /// Avoids a division by zero; above 0. Default: 1e-4.
    eps => eps;
}

impl WeightDecay for RMSpropGravesRule {}

impl Rule<3> for RMSpropGravesRule {
    const STATES: [&'static str; 3] = ["n", "g", "d"];
    const SQUARES: bool = true;
    type Rates = f64;

    fn check(&self, _: &At<'_>) -> Result<()> {
        check::within("decay", self.decay, 0.0..1.0)?;
        check::within("momentum", self.momentum, 0.0..=1.0)?;
        check::positive("eps", self.eps)
    }

    fn rates(&self, at: &At<'_>) -> f64 {
        at.learning_rate
    }

    fn step<V: Number>(&self, lr: f64, w: V, g: V, [n, h, d]: [V; 3]) -> (V, [V; 3]) {
        let n = n.scale(self.decay) + g.clone().scale(1.0 - self.decay) * g.clone();
        let h = h.scale(self.decay) + g.clone().scale(1.0 - self.decay);
        // Rounding may make the variance negative.
        let variance = n.clone() - h.clone() * h.clone();
        let variance = variance.clone().larger(variance.constant(0.0));
        if self.like_pytorch {
            let d = d.scale(self.momentum) - g / variance.sqrt().offset(self.eps);
            return (w + d.clone().scale(lr), [n, h, d]);
        }
        let d = d.scale(self.momentum) - g.scale(lr) / variance.offset(self.eps).sqrt();
        (w + d.clone(), [n, h, d])
    }
}
