//! Muon.

use candle_core::Tensor;

use super::{Decoupled, numbers};
use crate::functions::affine;
use crate::solver::{At, Mixed, Number, Rule, RuleSolver, WeightDecay, state};
use crate::{Error, Result, check};

/// Momentum whose steps are orthogonal matrices: `m ← μ·m + g`, `w ← w − η·(√max(1, rows / columns)·O(g + μ·m) + d·w)`, with the
/// [weight decay](RuleSolver::weight_decay) `d`.
///
/// `O(u)` approximates `U·Vᵀ` of the singular value decomposition `u = U·Σ·Vᵀ` by five Newton–Schulz steps `x ←
/// 3.4445·x + (−4.775·a + 2.0315·a²)·x` with `a = x·xᵀ`, which start at `u` divided by its norm. The resulting
/// singular values are about 1, between 0.7 and 1.2.
///
/// Use it for the matrices inside a network. The rows are on the first axis; a convolution kernel counts as a
/// matrix with a row for each output map. Give vectors, embeddings and the last layer to another solver:
///
/// ```
/// use layerfn::{prelude::*, solver::{AdamW, Muon}};
///
/// let net = network! { < h: affine(16) -> relu -> out: affine(2) > };
/// let x = Tensor::ones((4, 8), DType::F32, &Device::Cpu)?;
/// net.forward(&x)?;
/// let (hidden, others): (Vec<_>, Vec<_>) =
///     get_parameters().into_iter().partition(|(path, _)| path == "h/affine/W");
/// let mut solvers: [Box<dyn Solver>; 2] = [Box::new(Muon::new(0.02)), Box::new(AdamW::new(1e-3))];
/// solvers[0].set_parameters(&hidden.into_iter().collect());
/// solvers[1].set_parameters(&others.into_iter().collect());
/// let gradients = backward(&net.forward(&x)?.sqr()?.mean_all()?)?;
/// for solver in &mut solvers {
///     solver.update(&gradients)?;
/// }
/// # Ok::<(), layerfn::Error>(())
/// ```
///
/// # Source
/// Jordan et al., [Muon: An optimizer for hidden layers in neural networks](https://kellerjordan.github.io/posts/muon/), 2024. NNabla
/// has none.
pub type Muon = RuleSolver<MuonRule, 1>;

/// The rule of [`Muon`], for elements and for matrices.
#[derive(Clone, Debug)]
pub struct MuonRule {
    momentum: f64,
}

impl Muon {
    /// Makes the solver with learning rate `lr`, η above; its author uses 0.02.
    #[must_use]
    pub fn new(lr: f64) -> Self {
        Self::new_with(MuonRule { momentum: 0.95 }, lr)
    }
}

numbers! { Muon:
    /// Momentum, μ above, in [0, 1]. Default: 0.95.
    momentum => momentum;
}

impl WeightDecay for MuonRule {}

/// Number of rows and columns of a parameter as a matrix.
fn sizes(dims: &[usize]) -> [usize; 2] {
    match dims {
        [rows, rest @ ..] => [*rows, rest.iter().product()],
        [] => [1, 1],
    }
}

impl Rule<1> for MuonRule {
    const STATES: [&'static str; 1] = ["m"];
    const MIXES: bool = true;
    type Rates = [f64; 2];

    fn own_decay(&self) -> Option<f64> {
        Some(0.0)
    }

    fn check(&self, at: &At<'_>) -> Result<()> {
        check::within("momentum", self.momentum, 0.0..=1.0)?;
        Decoupled::Rate.check(at)?;
        if at.dims.len() >= 2 {
            return Ok(());
        }
        let reason =
            format!("must be matrices for Muon; give `{}` to another solver, such as `AdamW`", at.path);
        Err(Error::invalid("parameters", reason, at.dims))
    }

    fn rates(&self, at: &At<'_>) -> [f64; 2] {
        let [rows, columns] = sizes(at.dims).map(|size| size as f64);
        [at.learning_rate * (rows / columns).max(1.0).sqrt(), Decoupled::Rate.part(at)]
    }

    fn step<V: Number>(&self, [rate, decay]: [f64; 2], w: V, direction: V, [m]: [V; 1]) -> (V, [V; 1]) {
        let decayed = w.clone().scale(decay);
        (w - direction.scale(rate) - decayed, [m])
    }

    fn mix(&self, gradient: &Tensor, states: &[Tensor]) -> Result<Mixed> {
        let m = match states {
            [m] => ((m * self.momentum)? + gradient)?,
            _ => gradient.clone(),
        };
        let u = (gradient + (&m * self.momentum)?)?;
        let direction = orthogonal(&u.reshape(&sizes(u.dims())[..])?)?.reshape(u.dims())?;
        Ok(Mixed { direction, states: vec![m] })
    }
}

/// Approximates the orthogonal matrix that is nearest to `u`.
fn orthogonal(u: &Tensor) -> Result<Tensor> {
    let length = state::norm(&u.contiguous()?, f64::INFINITY)?;
    if length == 0.0 {
        return Ok(u.clone());
    }
    let is_tall = u.dim(0)? > u.dim(1)?;
    let mut x = (u / length)?;
    if is_tall {
        x = x.t()?;
    }
    for _ in 0..5 {
        let x_t = x.t()?.contiguous()?;
        let a = affine(&x, &x_t, None, 1)?;
        let b = ((&a * -4.775)? + (affine(&a, &a, None, 1)? * 2.0315)?)?;
        x = ((&x * 3.4445)? + affine(&b, &x.contiguous()?, None, 1)?)?;
    }
    Ok(if is_tall { x.t()?.contiguous()? } else { x })
}
