//! Solvers that follow the gradient, with or without momentum.

use super::Decoupled;
use crate::solver::{At, Number, Rule, RuleSolver, WeightDecay};
use crate::{Result, check};

/// Stochastic gradient descent: `w ← w − η·g`.
///
/// # Source
/// NNabla `S.Sgd`.
///
/// # Example
/// ```
/// use layerfn::{get_parameter_or_create, prelude::*, solver::Sgd};
///
/// let w = get_parameter_or_create("w").initializer(Tensor::new(&[3f32, -4.], &Device::Cpu)?).call()?;
/// let mut solver = Sgd::new(0.5);
/// solver.set_parameters(&get_parameters());
/// solver.update(&backward(&w.sqr()?.sum_all()?.affine(0.5, 0.0)?)?)?; // the gradient is w
/// assert_eq!(w.to_vec1::<f32>()?, [1.5, -2.]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub type Sgd = RuleSolver<SgdRule, 0>;

/// The rule of [`Sgd`].
#[derive(Clone, Debug)]
pub struct SgdRule(());

impl Sgd {
    /// Makes the solver with learning rate `lr`, η above. NNabla's default: 0.001.
    #[must_use]
    pub fn new(lr: f64) -> Self {
        Self::new_with(SgdRule(()), lr)
    }
}

impl WeightDecay for SgdRule {}

impl Rule<0> for SgdRule {
    const STATES: [&'static str; 0] = [];
    type Rates = f64;

    fn rates(&self, at: &At<'_>) -> f64 {
        at.learning_rate
    }

    fn step<V: Number>(&self, lr: f64, w: V, g: V, []: [V; 0]) -> (V, [V; 0]) {
        (w - g.scale(lr), [])
    }
}

/// The quantity that a momentum accumulates.
#[derive(Clone, Copy, Debug)]
enum Holds {
    /// `η·g`: NNabla.
    Steps,
    /// `g`: PyTorch.
    Gradients,
}

impl Holds {
    /// The factor of a gradient that is added to the momentum, and that of the momentum in the step.
    fn factors(self, lr: f64) -> [f64; 2] {
        match self {
            Self::Steps => [lr, 1.0],
            Self::Gradients => [1.0, lr],
        }
    }
}

macro_rules! momentum_like_pytorch {
    ($Solver:ty) => {
        impl $Solver {
            /// Accumulates the gradients, `m ← γ·m + g`, and multiplies the sum by the learning rate in each
            /// step, as PyTorch does. With a constant learning rate, the results are the same.
            #[must_use]
            pub fn momentum_like_pytorch(mut self) -> Self {
                self.rule.holds = Holds::Gradients;
                self
            }
        }
    };
}

/// Gradient descent with momentum: `m ← γ·m + η·g`, `w ← w − m`.
///
/// # Source
/// NNabla `S.Momentum`; Qian, On the momentum term in gradient descent learning algorithms, 1999. PyTorch's `SGD` keeps
/// `g` in place of `η·g`: [`momentum_like_pytorch`](Momentum::momentum_like_pytorch).
///
/// # Example
/// ```
/// use layerfn::{get_parameter_or_create, prelude::*, solver::Momentum};
///
/// let w = get_parameter_or_create("w").initializer(Tensor::new(&[8f32], &Device::Cpu)?).call()?;
/// let mut solver = Momentum::new(0.5, 0.5);
/// solver.set_parameters(&get_parameters());
/// for expected in [4., 0.] {
///     solver.update(&backward(&w.sqr()?.sum_all()?.affine(0.5, 0.0)?)?)?;
///     assert_eq!(w.to_vec1::<f32>()?, [expected]);
/// }
/// # Ok::<(), layerfn::Error>(())
/// ```
pub type Momentum = RuleSolver<MomentumRule, 1>;

/// The rule of [`Momentum`].
#[derive(Clone, Debug)]
pub struct MomentumRule {
    momentum: f64,
    holds: Holds,
}

impl Momentum {
    /// Makes the solver with learning rate `lr`, η above, and `momentum`, γ, in [0, 1]. NNabla's defaults:
    /// 0.001 and 0.9.
    #[must_use]
    pub fn new(lr: f64, momentum: f64) -> Self {
        Self::new_with(MomentumRule { momentum, holds: Holds::Steps }, lr)
    }
}

momentum_like_pytorch!(Momentum);

impl WeightDecay for MomentumRule {}

impl Rule<1> for MomentumRule {
    const STATES: [&'static str; 1] = ["m"];
    type Rates = [f64; 2];

    fn check(&self, _: &At<'_>) -> Result<()> {
        check::within("momentum", self.momentum, 0.0..=1.0)
    }

    fn rates(&self, at: &At<'_>) -> [f64; 2] {
        self.holds.factors(at.learning_rate)
    }

    fn step<V: Number>(&self, [into, out]: [f64; 2], w: V, g: V, [m]: [V; 1]) -> (V, [V; 1]) {
        let m = m.scale(self.momentum) + g.scale(into);
        (w - m.clone().scale(out), [m])
    }
}

/// Momentum with decoupled weight decay: [`Momentum`]'s step and, computed from the same `w`, `− (η / η₀)·d·w`,
/// where η₀ is the learning rate that the solver was made with.
///
/// # Source
/// NNabla `S.SgdW`; Loshchilov & Hutter, [Decoupled Weight Decay Regularization](https://arxiv.org/abs/1711.05101), whose schedule
/// multiplier is `η / η₀`.
///
/// # Example
/// ```
/// use layerfn::{get_parameter_or_create, prelude::*, solver::SgdW};
///
/// let w = get_parameter_or_create("w").initializer(Tensor::new(&[8f32], &Device::Cpu)?).call()?;
/// let mut solver = SgdW::new(0.5, 0.5).decay_like_nnabla(0.25);
/// solver.set_parameters(&get_parameters());
/// solver.update(&backward(&w.sum_all()?)?)?; // the gradient is 1
/// assert_eq!(w.to_vec1::<f32>()?, [8. - 0.5 - 2.]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub type SgdW = RuleSolver<SgdWRule, 1>;

/// The rule of [`SgdW`].
#[derive(Clone, Debug)]
pub struct SgdWRule {
    momentum: f64,
    holds: Holds,
    decay: f64,
    decoupled: Decoupled,
}

impl SgdW {
    /// Makes the solver with learning rate `lr`, the η₀ above, and `momentum`, in [0, 1]. NNabla's defaults:
    /// 0.001 and 0.9.
    #[must_use]
    pub fn new(lr: f64, momentum: f64) -> Self {
        let rule = SgdWRule { momentum, holds: Holds::Steps, decay: 1e-4, decoupled: Decoupled::Schedule };
        Self::new_with(rule, lr)
    }

    /// Sets the fraction of each weight that decays in a step with the first learning rate: `w ← w − (η /
    /// η₀)·decay·w`. This is NNabla's `wd`, at least 0. Default: 1e-4.
    #[must_use]
    pub fn decay_like_nnabla(mut self, decay: f64) -> Self {
        (self.rule.decay, self.rule.decoupled) = (decay, Decoupled::Schedule);
        self
    }

    /// Multiplies the decay by the learning rate, as PyTorch's `AdamW` does: `w ← w − η·decay·w`. At least 0.
    #[must_use]
    pub fn decay_like_pytorch(mut self, decay: f64) -> Self {
        (self.rule.decay, self.rule.decoupled) = (decay, Decoupled::Rate);
        self
    }
}

momentum_like_pytorch!(SgdW);

impl Rule<1> for SgdWRule {
    const STATES: [&'static str; 1] = ["m"];
    type Rates = ([f64; 2], f64);

    fn own_decay(&self) -> Option<f64> {
        Some(self.decay)
    }

    fn check(&self, at: &At<'_>) -> Result<()> {
        check::within("momentum", self.momentum, 0.0..=1.0)?;
        self.decoupled.check(at)
    }

    fn rates(&self, at: &At<'_>) -> ([f64; 2], f64) {
        (self.holds.factors(at.learning_rate), self.decoupled.part(at))
    }

    fn step<V: Number>(&self, ([into, out], decay): ([f64; 2], f64), w: V, g: V, [m]: [V; 1]) -> (V, [V; 1]) {
        let m = m.scale(self.momentum) + g.scale(into);
        let decayed = w.clone().scale(decay);
        (w - m.clone().scale(out) - decayed, [m])
    }
}

/// Nesterov's accelerated gradient: `m' ← γ·m − η·g`, `w ← w − γ·m + (1 + γ)·m'`.
///
/// # Source
/// NNabla `S.Nesterov`; Nesterov, A method for solving the convex programming problem with convergence rate O(1/k²),
/// 1983. PyTorch's `SGD(nesterov=True)` keeps `g` in place of `−η·g`:
/// [`momentum_like_pytorch`](Nesterov::momentum_like_pytorch).
///
/// # Example
/// ```
/// use layerfn::{get_parameter_or_create, prelude::*, solver::Nesterov};
///
/// let w = get_parameter_or_create("w").initializer(Tensor::new(&[8f32], &Device::Cpu)?).call()?;
/// let mut solver = Nesterov::new(0.5, 0.5);
/// solver.set_parameters(&get_parameters());
/// solver.update(&backward(&w.sqr()?.sum_all()?.affine(0.5, 0.0)?)?)?;
/// assert_eq!(w.to_vec1::<f32>()?, [2.]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub type Nesterov = RuleSolver<NesterovRule, 1>;

/// The rule of [`Nesterov`].
#[derive(Clone, Debug)]
pub struct NesterovRule {
    momentum: f64,
    holds: Holds,
}

impl Nesterov {
    /// Makes the solver with learning rate `lr`, η above, and `momentum`, γ, in [0, 1]. NNabla's defaults:
    /// 0.001 and 0.9.
    #[must_use]
    pub fn new(lr: f64, momentum: f64) -> Self {
        Self::new_with(NesterovRule { momentum, holds: Holds::Steps }, lr)
    }
}

momentum_like_pytorch!(Nesterov);

impl WeightDecay for NesterovRule {}

impl Rule<1> for NesterovRule {
    const STATES: [&'static str; 1] = ["m"];
    type Rates = f64;

    fn check(&self, _: &At<'_>) -> Result<()> {
        check::within("momentum", self.momentum, 0.0..=1.0)
    }

    fn rates(&self, at: &At<'_>) -> f64 {
        at.learning_rate
    }

    fn step<V: Number>(&self, lr: f64, w: V, g: V, [before]: [V; 1]) -> (V, [V; 1]) {
        match self.holds {
            Holds::Steps => {
                let m = before.clone().scale(self.momentum) - g.scale(lr);
                (w - before.scale(self.momentum) + m.clone().scale(1.0 + self.momentum), [m])
            }
            Holds::Gradients => {
                let m = before.scale(self.momentum) + g.clone();
                (w - (g + m.clone().scale(self.momentum)).scale(lr), [m])
            }
        }
    }
}

/// Lion: `u = sign(β₁·m + (1 − β₁)·g)`, `m ← β₂·m + (1 − β₂)·g`, `w ← w − η·(u + d·w)`, with the
/// [weight decay](RuleSolver::weight_decay) `d`.
///
/// # Source
/// NNabla `S.Lion`; Chen et al., [Symbolic Discovery of Optimization Algorithms](https://arxiv.org/abs/2302.06675).
///
/// # Example
/// ```
/// use layerfn::{get_parameter_or_create, prelude::*, solver::Lion};
///
/// let w = get_parameter_or_create("w").initializer(Tensor::new(&[8f32, -8.], &Device::Cpu)?).call()?;
/// let mut solver = Lion::new(0.25).weight_decay(0.5);
/// solver.set_parameters(&get_parameters());
/// solver.update(&backward(&w.sqr()?.sum_all()?)?)?; // steps of one length
/// assert_eq!(w.to_vec1::<f32>()?, [8. - 0.25 * (1. + 4.), -8. + 0.25 * (1. + 4.)]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub type Lion = RuleSolver<LionRule, 1>;

/// The rule of [`Lion`].
#[derive(Clone, Debug)]
pub struct LionRule {
    beta1: f64,
    beta2: f64,
}

impl Lion {
    /// Makes the solver with learning rate `lr`, η above. NNabla's default: 0.0001.
    #[must_use]
    pub fn new(lr: f64) -> Self {
        Self::new_with(LionRule { beta1: 0.9, beta2: 0.99 }, lr)
    }

    /// Sets the weights of the momentum in the step and in the new momentum, in [0, 1). Default: 0.9 and 0.99.
    #[must_use]
    pub fn betas(mut self, beta1: f64, beta2: f64) -> Self {
        (self.rule.beta1, self.rule.beta2) = (beta1, beta2);
        self
    }
}

impl WeightDecay for LionRule {}

impl Rule<1> for LionRule {
    const STATES: [&'static str; 1] = ["m"];
    type Rates = (f64, f64);

    fn own_decay(&self) -> Option<f64> {
        Some(0.0)
    }

    fn check(&self, at: &At<'_>) -> Result<()> {
        check::within("betas", self.beta1, 0.0..1.0)?;
        check::within("betas", self.beta2, 0.0..1.0)?;
        Decoupled::Rate.check(at)
    }

    fn rates(&self, at: &At<'_>) -> (f64, f64) {
        (at.learning_rate, Decoupled::Rate.part(at))
    }

    fn step<V: Number>(&self, (lr, decay): (f64, f64), w: V, g: V, [m]: [V; 1]) -> (V, [V; 1]) {
        let u = m.clone().scale(self.beta1) + g.clone().scale(1.0 - self.beta1);
        let decayed = w.clone().scale(decay);
        let m = m.scale(self.beta2) + g.scale(1.0 - self.beta2);
        (w - u.sign().scale(lr) - decayed, [m])
    }
}
