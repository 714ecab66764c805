//! Adam and its close variants.

use super::{Decoupled, Moments, moments};
use crate::Result;
use crate::solver::{At, Number, Rule, RuleSolver, WeightDecay};

/// Position of ε.
#[derive(Clone, Copy, Debug)]
enum Eps {
    /// `√v + ε`, before the correction of `v`: NNabla, and the paper's section 2.
    Before,
    /// `√(v / (1 − β₂ᵗ)) + ε`: PyTorch, and the paper's algorithm.
    After,
}

impl Eps {
    /// The number that is added to `√v`.
    fn of(self, moments: &Moments, t: u32) -> f64 {
        match self {
            Self::Before => moments.eps,
            Self::After => moments.eps * moments.corrections(t)[1],
        }
    }
}

macro_rules! eps_like_pytorch {
    ($Solver:ty) => {
        impl $Solver {
            /// Adds ε to the root *after* its correction, `√(v / (1 − β₂ᵗ)) + ε`, as PyTorch does: the same ε weighs less in the
            /// first steps.
            #[must_use]
            pub fn eps_like_pytorch(mut self) -> Self {
                self.rule.place = Eps::After;
                self
            }
        }
    };
}

/// Adam: `m ← β₁·m + (1 − β₁)·g`, `v ← β₂·v + (1 − β₂)·g²`, `w ← w − αₜ·m / (√v + ε)` with
/// `αₜ = α·√(1 − β₂ᵗ) / (1 − β₁ᵗ)` in step `t = 1, 2, ..`.
///
/// PyTorch and candle add ε to the corrected `√(v / (1 − β₂ᵗ))`; here, as in the paper's section 2 and in
/// NNabla, it is added before the correction, so that the same ε weighs more in the first steps.
/// [`eps_like_pytorch`](Adam::eps_like_pytorch) changes that.
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
///     solver.update(&backward(&loss()?)?)?;
/// }
/// assert!(loss()?.to_scalar::<f32>()? < first);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub type Adam = RuleSolver<AdamRule, 2>;

/// The rule of [`Adam`].
#[derive(Clone, Debug)]
pub struct AdamRule {
    moments: Moments,
    place: Eps,
}

impl AdamRule {
    const DEFAULT: Self = Self { moments: Moments::new(1e-8), place: Eps::Before };
}

impl Adam {
    /// Makes the solver with learning rate `alpha`. NNabla's default: 0.001.
    #[must_use]
    pub fn new(alpha: f64) -> Self {
        Self::new_with(AdamRule::DEFAULT, alpha)
    }
}

moments!(Adam, "1e-8");
eps_like_pytorch!(Adam);

impl WeightDecay for AdamRule {}

impl Rule<2> for AdamRule {
    const STATES: [&'static str; 2] = ["mean", "var"];
    const SQUARES: bool = true;
    type Rates = (f64, f64);

    fn check(&self, _: &At<'_>) -> Result<()> {
        self.moments.check()
    }

    fn rates(&self, at: &At<'_>) -> (f64, f64) {
        (self.moments.corrected(at), self.place.of(&self.moments, at.t))
    }

    fn step<V: Number>(&self, (alpha, eps): (f64, f64), w: V, g: V, [m, v]: [V; 2]) -> (V, [V; 2]) {
        let [m, v] = self.moments.average(g, m, v);
        (w - m.clone().scale(alpha) / v.clone().sqrt().offset(eps), [m, v])
    }
}

/// Adam with decoupled weight decay: [`Adam`]'s step and, computed from the same `w`, `− (α / α₀)·d·w`, where
/// α₀ is the learning rate that the solver was made with.
///
/// PyTorch's and candle's `AdamW` subtract `α·λ·w` instead: [`decay_like_pytorch`](AdamW::decay_like_pytorch). Without
/// gradients, with a learning rate of 1e-3, a weight of 8 and a rate of 0.01 for 100 steps:
///
/// ```
/// use layerfn::{get_parameter_or_create, prelude::*, solver::AdamW};
///
/// for (mut solver, expected) in [
///     (AdamW::new(1e-3).decay_like_nnabla(0.01), 2.928),
///     (AdamW::new(1e-3).decay_like_pytorch(0.01), 7.992),
/// ] {
///     let w = get_parameter_or_create("w").initializer(Tensor::new(&[8f32], &Device::Cpu)?).call()?;
///     let store = ParameterStore::current();
///     store.get("w").unwrap().var().set(&Tensor::new(&[8f32], &Device::Cpu)?)?;
///     solver.set_parameters(&get_parameters());
///     for _ in 0..100 {
///         solver.update(&backward(&(&w - &w)?.sum_all()?)?)?; // the gradient is 0
///     }
///     assert!((w.to_vec1::<f32>()?[0] - expected).abs() < 1e-3);
/// }
/// # Ok::<(), layerfn::Error>(())
/// ```
///
/// `torch.optim.AdamW(lr=a, weight_decay=d)` is `AdamW::new(a).eps_like_pytorch().decay_like_pytorch(d)`.
///
/// # Source
/// NNabla `S.AdamW`; Loshchilov & Hutter, [Decoupled Weight Decay Regularization](https://arxiv.org/abs/1711.05101),
/// whose schedule multiplier η is `α / α₀`.
pub type AdamW = RuleSolver<AdamWRule, 2>;

/// The rule of [`AdamW`].
#[derive(Clone, Debug)]
pub struct AdamWRule {
    moments: Moments,
    place: Eps,
    decay: f64,
    decoupled: Decoupled,
}

impl AdamW {
    /// Makes the solver with learning rate `alpha`, the α₀ above. NNabla's default: 0.001.
    #[must_use]
    pub fn new(alpha: f64) -> Self {
        let AdamRule { moments, place } = AdamRule::DEFAULT;
        Self::new_with(AdamWRule { moments, place, decay: 1e-4, decoupled: Decoupled::Schedule }, alpha)
    }

    /// Sets the fraction of each weight that decays in a step with the first learning rate: `w ← w − (α /
    /// α₀)·decay·w`. This is NNabla's `wd`, at least 0. Default: 1e-4.
    #[must_use]
    pub fn decay_like_nnabla(mut self, decay: f64) -> Self {
        (self.rule.decay, self.rule.decoupled) = (decay, Decoupled::Schedule);
        self
    }

    /// Multiplies the decay by the learning rate: `w ← w − α·decay·w`. This is PyTorch's `weight_decay`, whose
    /// default is 0.01; at least 0.
    #[must_use]
    pub fn decay_like_pytorch(mut self, decay: f64) -> Self {
        (self.rule.decay, self.rule.decoupled) = (decay, Decoupled::Rate);
        self
    }
}

moments!(AdamW, "1e-8");
eps_like_pytorch!(AdamW);

impl Rule<2> for AdamWRule {
    const STATES: [&'static str; 2] = ["mean", "var"];
    const SQUARES: bool = true;
    type Rates = (f64, f64, f64);

    fn own_decay(&self) -> Option<f64> {
        Some(self.decay)
    }

    fn check(&self, at: &At<'_>) -> Result<()> {
        self.moments.check()?;
        self.decoupled.check(at)
    }

    fn rates(&self, at: &At<'_>) -> (f64, f64, f64) {
        (self.moments.corrected(at), self.place.of(&self.moments, at.t), self.decoupled.part(at))
    }

    fn step<V: Number>(&self, (alpha, eps, decay): Self::Rates, w: V, g: V, [m, v]: [V; 2]) -> (V, [V; 2]) {
        let [m, v] = self.moments.average(g, m, v);
        let decayed = w.clone().scale(decay);
        (w - m.clone().scale(alpha) / v.clone().sqrt().offset(eps) - decayed, [m, v])
    }
}

/// Adamax: `m ← β₁·m + (1 − β₁)·g`, `u ← max(β₂·u, |g|)`, `w ← w − α / (1 − β₁ᵗ)·m / (u + ε)`.
///
/// PyTorch adds ε before the maximum, `u ← max(β₂·u, |g| + ε)`: [`eps_like_pytorch`](Adamax::eps_like_pytorch).
///
/// # Source
/// NNabla `S.Adamax`, whose page has a factor `√(1 − β₂ᵗ)` that it does not compute; Kingma & Ba,
/// [Adam](https://arxiv.org/abs/1412.6980), section 7.
///
/// # Example
/// ```
/// use layerfn::{get_parameter_or_create, prelude::*, solver::Adamax};
///
/// let w = get_parameter_or_create("w").initializer(Tensor::new(&[8f32], &Device::Cpu)?).call()?;
/// let mut solver = Adamax::new(2.0);
/// solver.set_parameters(&get_parameters());
/// solver.update(&backward(&w.sqr()?.sum_all()?)?)?; // the first step is as long as the learning rate
/// assert!((w.to_vec1::<f32>()?[0] - 6.).abs() < 1e-5);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub type Adamax = RuleSolver<AdamaxRule, 2>;

/// The rule of [`Adamax`].
#[derive(Clone, Debug)]
pub struct AdamaxRule {
    moments: Moments,
    place: Eps,
}

impl Adamax {
    /// Makes the solver with learning rate `alpha`. NNabla's default: 0.002.
    #[must_use]
    pub fn new(alpha: f64) -> Self {
        Self::new_with(AdamaxRule { moments: Moments::new(1e-8), place: Eps::Before }, alpha)
    }

    /// Adds ε before the maximum, `u ← max(β₂·u, |g| + ε)`, as PyTorch does.
    #[must_use]
    pub fn eps_like_pytorch(mut self) -> Self {
        self.rule.place = Eps::After;
        self
    }
}

moments!(Adamax, "1e-8");

impl WeightDecay for AdamaxRule {}

impl Rule<2> for AdamaxRule {
    const STATES: [&'static str; 2] = ["m", "u"];
    type Rates = f64;

    fn check(&self, _: &At<'_>) -> Result<()> {
        self.moments.check()
    }

    fn rates(&self, at: &At<'_>) -> f64 {
        at.learning_rate / self.moments.corrections(at.t)[0]
    }

    fn step<V: Number>(&self, alpha: f64, w: V, g: V, [m, u]: [V; 2]) -> (V, [V; 2]) {
        let Moments { beta1, beta2, eps } = self.moments;
        let m = m.scale(beta1) + g.clone().scale(1.0 - beta1);
        let [inside, outside] = match self.place {
            Eps::Before => [0.0, eps],
            Eps::After => [eps, 0.0],
        };
        let u = u.scale(beta2).larger(g.abs().offset(inside));
        (w - m.clone().scale(alpha) / u.clone().offset(outside), [m, u])
    }
}

/// AMSGrad: Adam with the largest `v` so far, `v̂ ← max(v̂, v)`: `w ← w − α·m / (√v̂ + ε)`, without the correction of the first steps
/// unless [`bias_correction`](AMSGRAD::bias_correction) asks for it.
///
/// PyTorch's `Adam(amsgrad=True)` is `AMSGRAD::new(a).bias_correction(true).eps_like_pytorch()`.
///
/// # Source
/// NNabla `S.AMSGRAD`; Reddi et al., [On the Convergence of Adam and Beyond](https://openreview.net/forum?id=ryQu7f-RZ).
///
/// # Example
/// ```
/// use layerfn::{get_parameter_or_create, prelude::*, solver::AMSGRAD};
///
/// let w = get_parameter_or_create("w").initializer(Tensor::new(&[8f32], &Device::Cpu)?).call()?;
/// let mut solver = AMSGRAD::new(1.0).betas(0.5, 0.75);
/// solver.set_parameters(&get_parameters());
/// solver.update(&backward(&w.sum_all()?)?)?; // m = 0.5, v = 0.25
/// assert!((w.to_vec1::<f32>()?[0] - 7.).abs() < 1e-5);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub type AMSGRAD = RuleSolver<AMSGRADRule, 3>;

/// The rule of [`AMSGRAD`].
#[derive(Clone, Debug)]
pub struct AMSGRADRule {
    moments: Moments,
    place: Eps,
    bias_correction: bool,
}

impl AMSGRAD {
    /// Makes the solver with learning rate `alpha`. NNabla's default: 0.001.
    #[must_use]
    pub fn new(alpha: f64) -> Self {
        let rule = AMSGRADRule { moments: Moments::new(1e-8), place: Eps::Before, bias_correction: false };
        Self::new_with(rule, alpha)
    }

    /// Sets whether the first steps are corrected like those of [`Adam`]. Default: false.
    #[must_use]
    pub fn bias_correction(mut self, bias_correction: bool) -> Self {
        self.rule.bias_correction = bias_correction;
        self
    }
}

moments!(AMSGRAD, "1e-8");
eps_like_pytorch!(AMSGRAD);

impl WeightDecay for AMSGRADRule {}

impl Rule<3> for AMSGRADRule {
    const STATES: [&'static str; 3] = ["m", "v", "v_hat"];
    const SQUARES: bool = true;
    type Rates = (f64, f64);

    fn check(&self, _: &At<'_>) -> Result<()> {
        self.moments.check()
    }

    fn rates(&self, at: &At<'_>) -> (f64, f64) {
        match self.bias_correction {
            true => (self.moments.corrected(at), self.place.of(&self.moments, at.t)),
            false => (at.learning_rate, self.moments.eps),
        }
    }

    fn step<V: Number>(&self, (alpha, eps): (f64, f64), w: V, g: V, [m, v, largest]: [V; 3]) -> (V, [V; 3]) {
        let [m, v] = self.moments.average(g, m, v);
        let largest = largest.larger(v.clone());
        (w - m.clone().scale(alpha) / largest.clone().sqrt().offset(eps), [m, v, largest])
    }
}
