//! The solvers that there are, each as what it does to one element.

use super::{Number, Rule, Solver};
use crate::{Result, check};

/// Stochastic gradient descent: `w ← w − η·g`.
///
/// # Source
/// NNabla `S.Sgd`.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// use layerfn::{get_parameter_or_create, get_parameters, solver::Sgd};
///
/// let w = get_parameter_or_create("w").initializer(Tensor::new(&[3f32, -4.], &Device::Cpu)?).call()?;
/// let mut solver = Sgd::new(0.5);
/// solver.set_parameters(&get_parameters());
/// solver.update(&w.sqr()?.sum_all()?.affine(0.5, 0.0)?.backward()?)?; // the gradient is w
/// assert_eq!(w.to_vec1::<f32>()?, [1.5, -2.]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub type Sgd = Solver<SgdRule, 0>;

/// What [`Sgd`] does to an element.
#[derive(Clone, Debug)]
pub struct SgdRule(());

impl Sgd {
    /// The solver with learning rate `lr`, η above. NNabla's default: 0.001.
    #[must_use]
    pub fn new(lr: f64) -> Self {
        Self::with_rule(SgdRule(()), lr)
    }
}

impl Rule<0> for SgdRule {
    const STATES: [&'static str; 0] = [];
    type Rates = f64;

    fn rates(&self, lr: f64, _: u32) -> f64 {
        lr
    }

    fn step<V: Number>(&self, lr: f64, w: V, g: V, []: [V; 0]) -> (V, [V; 0]) {
        (w - g.scale(lr), [])
    }
}

/// Gradient descent with momentum: `v ← γ·v + η·g`, `w ← w − v`.
///
/// # Source
/// NNabla `S.Momentum`; Qian, On the momentum term in gradient descent learning algorithms, 1999.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// use layerfn::{get_parameter_or_create, get_parameters, solver::Momentum};
///
/// let w = get_parameter_or_create("w").initializer(Tensor::new(&[8f32], &Device::Cpu)?).call()?;
/// let mut solver = Momentum::new(0.5, 0.5);
/// solver.set_parameters(&get_parameters());
/// for expected in [4., 0.] {
///     solver.update(&w.sqr()?.sum_all()?.affine(0.5, 0.0)?.backward()?)?;
///     assert_eq!(w.to_vec1::<f32>()?, [expected]);
/// }
/// # Ok::<(), layerfn::Error>(())
/// ```
pub type Momentum = Solver<MomentumRule, 1>;

/// What [`Momentum`] does to an element.
#[derive(Clone, Debug)]
pub struct MomentumRule(f64);

impl Momentum {
    /// The solver with learning rate `lr`, η above, and `momentum`, γ, in [0, 1]. NNabla's defaults: 0.001 and 0.9.
    #[must_use]
    pub fn new(lr: f64, momentum: f64) -> Self {
        Self::with_rule(MomentumRule(momentum), lr)
    }
}

impl Rule<1> for MomentumRule {
    const STATES: [&'static str; 1] = ["v"];
    type Rates = f64;

    fn check(&self, _: f64) -> Result<()> {
        check::within("momentum", self.0, 0.0..=1.0)
    }

    fn rates(&self, lr: f64, _: u32) -> f64 {
        lr
    }

    fn step<V: Number>(&self, lr: f64, w: V, g: V, [v]: [V; 1]) -> (V, [V; 1]) {
        let v = v.scale(self.0) + g.scale(lr);
        (w - v.clone(), [v])
    }
}

/// Nesterov's accelerated gradient: `v' ← γ·v − η·g`, `w ← w − γ·v + (1 + γ)·v'`.
///
/// # Source
/// NNabla `S.Nesterov`; Nesterov, A method for solving the convex programming problem with convergence rate O(1/k²),
/// 1983.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// use layerfn::{get_parameter_or_create, get_parameters, solver::Nesterov};
///
/// let w = get_parameter_or_create("w").initializer(Tensor::new(&[8f32], &Device::Cpu)?).call()?;
/// let mut solver = Nesterov::new(0.5, 0.5);
/// solver.set_parameters(&get_parameters());
/// solver.update(&w.sqr()?.sum_all()?.affine(0.5, 0.0)?.backward()?)?;
/// assert_eq!(w.to_vec1::<f32>()?, [2.]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub type Nesterov = Solver<NesterovRule, 1>;

/// What [`Nesterov`] does to an element.
#[derive(Clone, Debug)]
pub struct NesterovRule(f64);

impl Nesterov {
    /// The solver with learning rate `lr`, η above, and `momentum`, γ, in [0, 1]. NNabla's defaults: 0.001 and 0.9.
    #[must_use]
    pub fn new(lr: f64, momentum: f64) -> Self {
        Self::with_rule(NesterovRule(momentum), lr)
    }
}

impl Rule<1> for NesterovRule {
    const STATES: [&'static str; 1] = ["v"];
    type Rates = f64;

    fn check(&self, _: f64) -> Result<()> {
        check::within("momentum", self.0, 0.0..=1.0)
    }

    fn rates(&self, lr: f64, _: u32) -> f64 {
        lr
    }

    fn step<V: Number>(&self, lr: f64, w: V, g: V, [before]: [V; 1]) -> (V, [V; 1]) {
        let v = before.clone().scale(self.0) - g.scale(lr);
        (w - before.scale(self.0) + v.clone().scale(1.0 + self.0), [v])
    }
}

/// Adam: `m ← β₁·m + (1 − β₁)·g`, `v ← β₂·v + (1 − β₂)·g²`, `w ← w − αₜ·m / (√v + ε)` with
/// `αₜ = α·√(1 − β₂ᵗ) / (1 − β₁ᵗ)` in step `t = 1, 2, ..`.
///
/// PyTorch and candle add ε to the corrected `√(v / (1 − β₂ᵗ))`; here it stands where the paper's section 2 and NNabla
/// have it, so that the same ε weighs more in the first steps.
///
/// # Source
/// NNabla `S.Adam`; Kingma & Ba, [Adam](https://arxiv.org/abs/1412.6980).
///
/// # Example
/// ```
/// use layerfn::{prelude::*, solver::Adam};
///
/// let x = Tensor::ones((8, 3), DType::F32, &Device::Cpu)?;
/// let labels = Tensor::zeros(8, DType::U32, &Device::Cpu)?;
/// let loss = || mean_softmax_cross_entropy(&affine(&x, 2).call()?, &labels, 1);
/// let first = loss()?.to_scalar::<f32>()?;
///
/// let mut solver = Adam::new(1e-2).betas(0.9, 0.99).clip_grad_by_global_norm(1.0);
/// solver.set_parameters(&get_parameters());
/// for _ in 0..10 {
///     solver.update(&loss()?.backward()?)?;
/// }
/// assert!(loss()?.to_scalar::<f32>()? < first);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub type Adam = Solver<AdamRule, 2>;

/// What [`Adam`] does to an element.
#[derive(Clone, Debug)]
pub struct AdamRule {
    beta1: f64,
    beta2: f64,
    eps: f64,
}

impl AdamRule {
    const DEFAULT: Self = Self { beta1: 0.9, beta2: 0.999, eps: 1e-8 };
}

impl Adam {
    /// The solver with learning rate `alpha`. NNabla's default: 0.001.
    #[must_use]
    pub fn new(alpha: f64) -> Self {
        Self::with_rule(AdamRule::DEFAULT, alpha)
    }

    /// Decay rates of the two averages, in [0, 1). Default: 0.9 and 0.999.
    #[must_use]
    pub fn betas(mut self, beta1: f64, beta2: f64) -> Self {
        (self.rule.beta1, self.rule.beta2) = (beta1, beta2);
        self
    }

    /// Added to the root, against a division by zero; above 0. Default: 1e-8.
    #[must_use]
    pub fn eps(mut self, eps: f64) -> Self {
        self.rule.eps = eps;
        self
    }
}

impl Rule<2> for AdamRule {
    const STATES: [&'static str; 2] = ["mean", "var"];
    type Rates = f64;

    fn check(&self, _: f64) -> Result<()> {
        check::within("betas", self.beta1, 0.0..1.0)?;
        check::within("betas", self.beta2, 0.0..1.0)?;
        check::positive("eps", self.eps)
    }

    fn rates(&self, alpha: f64, t: u32) -> f64 {
        let t = f64::from(t);
        alpha * (1.0 - self.beta2.powf(t)).sqrt() / (1.0 - self.beta1.powf(t))
    }

    fn step<V: Number>(&self, alpha: f64, w: V, g: V, [m, v]: [V; 2]) -> (V, [V; 2]) {
        let m = m.scale(self.beta1) + g.clone().scale(1.0 - self.beta1);
        let v = v.scale(self.beta2) + g.clone().scale(1.0 - self.beta2) * g;
        (w - m.clone().scale(alpha) / v.clone().sqrt().offset(self.eps), [m, v])
    }
}

/// Adam with decoupled weight decay: [`Adam`]'s step and, from the same `w`, `− (α / α₀)·wd·w`, where α₀ is the
/// learning rate that the solver was made with.
///
/// PyTorch's and candle's `AdamW` subtract `α·λ·w` instead: their λ is `wd / α₀`.
///
/// # Source
/// NNabla `S.AdamW`; Loshchilov & Hutter, [Decoupled Weight Decay Regularization](https://arxiv.org/abs/1711.05101),
/// whose schedule multiplier η is `α / α₀`.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// use layerfn::{get_parameter_or_create, get_parameters, solver::AdamW};
///
/// let w = get_parameter_or_create("w").initializer(Tensor::new(&[8f32], &Device::Cpu)?).call()?;
/// let mut solver = AdamW::new(1e-3).wd(0.25);
/// solver.set_parameters(&get_parameters());
/// solver.update(&(&w - &w)?.sum_all()?.backward()?)?; // the gradient is 0
/// assert_eq!(w.to_vec1::<f32>()?, [6.]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub type AdamW = Solver<AdamWRule, 2>;

/// What [`AdamW`] does to an element.
#[derive(Clone, Debug)]
pub struct AdamWRule {
    adam: AdamRule,
    first_alpha: f64,
    wd: f64,
}

impl AdamW {
    /// The solver with learning rate `alpha`, the α₀ above. NNabla's default: 0.001.
    #[must_use]
    pub fn new(alpha: f64) -> Self {
        Self::with_rule(AdamWRule { adam: AdamRule::DEFAULT, first_alpha: alpha, wd: 1e-4 }, alpha)
    }

    /// Decay rates of the two averages, in [0, 1). Default: 0.9 and 0.999.
    #[must_use]
    pub fn betas(mut self, beta1: f64, beta2: f64) -> Self {
        (self.rule.adam.beta1, self.rule.adam.beta2) = (beta1, beta2);
        self
    }

    /// Added to the root, against a division by zero; above 0. Default: 1e-8.
    #[must_use]
    pub fn eps(mut self, eps: f64) -> Self {
        self.rule.adam.eps = eps;
        self
    }

    /// The part of a weight that decays in a step with the first learning rate, at least 0. Default: 1e-4.
    #[must_use]
    pub fn wd(mut self, wd: f64) -> Self {
        self.rule.wd = wd;
        self
    }
}

impl AdamWRule {
    /// The part of a weight that decays with the learning rate `alpha`.
    fn decay(&self, alpha: f64) -> f64 {
        // A solver made with learning rate 0 has no schedule to measure by.
        let eta = if self.first_alpha == 0.0 { 1.0 } else { alpha / self.first_alpha };
        eta * self.wd
    }
}

impl Rule<2> for AdamWRule {
    const STATES: [&'static str; 2] = ["mean", "var"];
    type Rates = (f64, f64);

    fn check(&self, alpha: f64) -> Result<()> {
        self.adam.check(alpha)?;
        check::within("alpha", self.first_alpha, 0.0..)?;
        check::within("wd", self.wd, 0.0..)?;
        check::within("wd", self.decay(alpha), 0.0..)
    }

    fn rates(&self, alpha: f64, t: u32) -> (f64, f64) {
        (self.adam.rates(alpha, t), self.decay(alpha))
    }

    fn step<V: Number>(&self, (alpha, decay): (f64, f64), w: V, g: V, states: [V; 2]) -> (V, [V; 2]) {
        let decayed = w.clone().scale(decay);
        let (w, states) = self.adam.step(alpha, w, g, states);
        (w - decayed, states)
    }
}

/// RMSprop: `v ← γ·v + (1 − γ)·g²`, `w ← w − η·g / (√v + ε)`.
///
/// # Source
/// NNabla `S.RMSprop`; Tieleman & Hinton, Lecture 6.5 – RMSprop, 2012.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// use layerfn::{get_parameter_or_create, get_parameters, solver::RMSprop};
///
/// let w = get_parameter_or_create("w").initializer(Tensor::new(&[8f32], &Device::Cpu)?).call()?;
/// let mut solver = RMSprop::new(1.0).decay(0.75);
/// solver.set_parameters(&get_parameters());
/// solver.update(&w.sum_all()?.backward()?)?; // the gradient is 1, v becomes 1/4
/// assert_eq!(w.to_vec1::<f32>()?, [6.]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub type RMSprop = Solver<RMSpropRule, 1>;

/// What [`RMSprop`] does to an element.
#[derive(Clone, Debug)]
pub struct RMSpropRule {
    decay: f64,
    eps: f64,
}

impl RMSprop {
    /// The solver with learning rate `lr`, η above. NNabla's default: 0.001.
    #[must_use]
    pub fn new(lr: f64) -> Self {
        Self::with_rule(RMSpropRule { decay: 0.9, eps: 1e-8 }, lr)
    }

    /// Decay rate of the average, γ above, in [0, 1). Default: 0.9.
    #[must_use]
    pub fn decay(mut self, decay: f64) -> Self {
        self.rule.decay = decay;
        self
    }

    /// Added to the root, against a division by zero; above 0. Default: 1e-8.
    #[must_use]
    pub fn eps(mut self, eps: f64) -> Self {
        self.rule.eps = eps;
        self
    }
}

impl Rule<1> for RMSpropRule {
    const STATES: [&'static str; 1] = ["v"];
    type Rates = f64;

    fn check(&self, _: f64) -> Result<()> {
        check::within("decay", self.decay, 0.0..1.0)?;
        check::positive("eps", self.eps)
    }

    fn rates(&self, lr: f64, _: u32) -> f64 {
        lr
    }

    fn step<V: Number>(&self, lr: f64, w: V, g: V, [v]: [V; 1]) -> (V, [V; 1]) {
        let v = v.scale(self.decay) + g.clone().scale(1.0 - self.decay) * g.clone();
        (w - g.scale(lr) / v.clone().sqrt().offset(self.eps), [v])
    }
}
