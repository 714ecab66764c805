//! The solvers, each as a rule for one element.

mod adam;
mod adaptive;
mod belief;
mod bounded;
mod descent;
mod layerwise;
mod muon;

pub use adam::{AMSGRAD, AMSGRADRule, Adam, AdamRule, AdamW, AdamWRule, Adamax, AdamaxRule};
pub use adaptive::{
    Adadelta, AdadeltaRule, Adagrad, AdagradRule, RMSprop, RMSpropGraves, RMSpropGravesRule, RMSpropRule,
};
pub use belief::{AdaBelief, AdaBeliefRule};
pub use bounded::{AMSBound, AMSBoundRule, AdaBound, AdaBoundRule};
pub use descent::{
    Lion, LionRule, Momentum, MomentumRule, Nesterov, NesterovRule, Sgd, SgdRule, SgdW, SgdWRule,
};
pub use layerwise::{Lamb, LambRule, Lars, LarsRule};
pub use muon::{Muon, MuonRule};

use super::{At, Number};
use crate::{Result, check};

/// The two averages of Adam and its variants, and ε.
#[derive(Clone, Copy, Debug)]
struct Moments {
    beta1: f64,
    beta2: f64,
    eps: f64,
}

impl Moments {
    const fn new(eps: f64) -> Self {
        Self { beta1: 0.9, beta2: 0.999, eps }
    }

    fn check(&self) -> Result<()> {
        check::within("betas", self.beta1, 0.0..1.0)?;
        check::within("betas", self.beta2, 0.0..1.0)?;
        check::positive("eps", self.eps)
    }

    /// `m ← β₁·m + (1 − β₁)·g`, `v ← β₂·v + (1 − β₂)·g²`.
    fn average<V: Number>(&self, g: V, m: V, v: V) -> [V; 2] {
        let m = m.scale(self.beta1) + g.clone().scale(1.0 - self.beta1);
        let v = v.scale(self.beta2) + g.clone().scale(1.0 - self.beta2) * g;
        [m, v]
    }

    /// `1 − β₁ᵗ` and `√(1 − β₂ᵗ)`, which correct the averages in the first steps.
    fn corrections(&self, t: u32) -> [f64; 2] {
        let t = f64::from(t);
        [1.0 - self.beta1.powf(t), (1.0 - self.beta2.powf(t)).sqrt()]
    }

    /// The learning rate times `√(1 − β₂ᵗ) / (1 − β₁ᵗ)`.
    fn corrected(&self, at: &At<'_>) -> f64 {
        let [first, second] = self.corrections(at.t);
        at.learning_rate * second / first
    }
}

/// The factor of a decoupled decay.
#[derive(Clone, Copy, Debug)]
enum Decoupled {
    /// The learning rate divided by the first one: NNabla, and the original paper.
    Schedule,
    /// The learning rate.
    Rate,
}

impl Decoupled {
    /// The fraction of a weight that decays in this step.
    fn part(self, at: &At<'_>) -> f64 {
        at.decay
            * match self {
                Self::Schedule => at.schedule(),
                Self::Rate => at.learning_rate,
            }
    }

    fn check(self, at: &At<'_>) -> Result<()> {
        check::within("first_learning_rate", at.first_learning_rate, 0.0..)?;
        check::within("decay", at.decay, 0.0..)?;
        check::within("decay", self.part(at), 0.0..)
    }
}

/// Setters of one number each.
macro_rules! numbers {
    ($Solver:ty: $($(#[$doc:meta])* $setter:ident => $($field:ident).+;)+) => {
        impl $Solver {
            $(
                $(#[$doc])*
                #[must_use]
                pub fn $setter(mut self, $setter: f64) -> Self {
                    self.rule.$($field).+ = $setter;
                    self
                }
            )+
        }
    };
}

/// The setters of [`Moments`].
macro_rules! moments {
    ($Solver:ty, $eps:literal) => {
        impl $Solver {
            /// Sets the decay rates of the two averages, in [0, 1). Default: 0.9 and 0.999.
            #[must_use]
            pub fn betas(mut self, beta1: f64, beta2: f64) -> Self {
                (self.rule.moments.beta1, self.rule.moments.beta2) = (beta1, beta2);
                self
            }

            #[doc = concat!("Added to the root, to avoid a division by zero; above 0. Default: ", $eps, ".")]
            #[must_use]
            pub fn eps(mut self, eps: f64) -> Self {
                self.rule.moments.eps = eps;
                self
            }
        }
    };
}

use {moments, numbers};
