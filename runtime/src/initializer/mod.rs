//! Initial values of parameters.

mod fan;

use std::fmt;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

pub use fan::{
    calc_normal_std_glorot, calc_normal_std_he_backward, calc_normal_std_he_forward, calc_normal_std_xavier,
    calc_uniform_lim_glorot, calc_uniform_lim_xavier,
};

use crate::{Error, Result, Rng, check};

/// Makes the initial value of a parameter.
///
/// A number, a tensor or a closure from the shape to a tensor converts into an initializer, so that
/// `.b_init(0.1)`, `.w_init(tensor)` and `.w_init(|shape: &[usize]| ..)` all work.
///
/// Random values depend only on the store's seed, the parameter's full path, its shape and the initializer:
/// neither the order of creation nor the number of threads changes them. [`with_rng`](Self::with_rng) draws from
/// a generator of your own instead. Draws are made in `f64` and rounded to the parameter's type.
///
/// ```
/// use layerfn::{Initializer, calc_normal_std_he_forward};
/// let init = Initializer::normal(calc_normal_std_he_forward(16, 32, &[5, 5]));
/// # let _ = init;
/// ```
#[derive(Clone)]
pub struct Initializer(Kind);

#[derive(Clone)]
enum Kind {
    Constant(f64),
    Random { distribution: Distribution, rng: Option<Rng> },
    Array(Tensor),
    Function(Arc<InitFn>),
}

type InitFn = dyn Fn(&[usize]) -> Result<Tensor> + Send + Sync;

#[derive(Clone, Copy, Debug)]
enum Distribution {
    Normal {
        sigma: f64,
    },
    Uniform {
        low: f64,
        high: f64,
    },
    /// Uniform up to the first limit in the first columns, and up to the second limit in the others.
    Beside {
        columns: usize,
        limits: [f64; 2],
    },
}

impl Initializer {
    /// Every element is `value`.
    #[must_use]
    pub fn constant(value: f64) -> Self {
        Self(Kind::Constant(value))
    }

    /// Draws from the normal distribution N(0, σ²).
    #[must_use]
    pub fn normal(sigma: f64) -> Self {
        Self::random(Distribution::Normal { sigma })
    }

    /// Draws uniformly from the interval [`low`, `high`).
    #[must_use]
    pub fn uniform(low: f64, high: f64) -> Self {
        Self::random(Distribution::Uniform { low, high })
    }

    /// Uniform within [`calc_uniform_lim_glorot`], the default of weights.
    #[must_use]
    pub fn glorot_uniform(inmaps: usize, outmaps: usize, kernel: &[usize]) -> Self {
        let (low, high) = calc_uniform_lim_glorot(inmaps, outmaps, kernel);
        Self::uniform(low, high)
    }

    /// Normal with [`calc_normal_std_glorot`].
    #[must_use]
    pub fn glorot_normal(inmaps: usize, outmaps: usize, kernel: &[usize]) -> Self {
        Self::normal(calc_normal_std_glorot(inmaps, outmaps, kernel))
    }

    /// Uniform within [`calc_uniform_lim_xavier`], the default of weights in NNabla today.
    #[must_use]
    pub fn xavier_uniform(inmaps: usize, outmaps: usize, kernel: &[usize]) -> Self {
        let (low, high) = calc_uniform_lim_xavier(inmaps, outmaps, kernel);
        Self::uniform(low, high)
    }

    /// Normal with [`calc_normal_std_xavier`].
    #[must_use]
    pub fn xavier_normal(inmaps: usize, outmaps: usize, kernel: &[usize]) -> Self {
        Self::normal(calc_normal_std_xavier(inmaps, outmaps, kernel))
    }

    /// For weights `(.., state, inmaps + state)`: Glorot uniform for those of the input and for those of the state.
    pub(crate) fn glorot_recurrent(inmaps: usize, state: usize) -> Self {
        let limits = [inmaps, state].map(|inmaps| calc_uniform_lim_glorot(inmaps, state, &[]).1);
        Self::random(Distribution::Beside { columns: inmaps, limits })
    }

    fn random(distribution: Distribution) -> Self {
        Self(Kind::Random { distribution, rng: None })
    }

    /// Draws from `rng` instead of the parameter's own stream; no effect on an initializer that draws nothing
    /// or already has a generator.
    #[must_use]
    pub fn with_rng<'a>(mut self, rng: impl Into<Option<&'a Rng>>) -> Self {
        if let (Kind::Random { rng: slot @ None, .. }, Some(given)) = (&mut self.0, rng.into()) {
            *slot = Some(given.clone());
        }
        self
    }

    /// Makes the value; `stream` is called if the parameter's own generator is needed.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if a tensor or a closure's result has another shape, if the limits of a
    /// distribution are not finite or not in order, or if there is no memory for so many elements.
    pub fn generate(
        &self,
        shape: &[usize],
        dtype: DType,
        device: &Device,
        stream: impl FnOnce() -> Rng,
    ) -> Result<Tensor> {
        // Values are made in f64.
        let n = check::tensor("shape", shape, DType::F64)?;
        let tensor = match &self.0 {
            Kind::Constant(value) => Tensor::full(*value, shape, device)?,
            Kind::Random { distribution, rng } => {
                distribution.check()?;
                let rng = rng.clone().unwrap_or_else(stream);
                let values = distribution.draw(&rng, shape, n);
                Tensor::from_vec(values, shape, device)?
            }
            Kind::Array(tensor) => tensor.clone(),
            Kind::Function(function) => function(shape)?,
        };
        if tensor.dims() != shape {
            return Err(Error::invalid(
                "initializer",
                format!("must give the parameter's shape {shape:?}"),
                tensor.dims(),
            ));
        }
        Ok(tensor.to_dtype(dtype)?.to_device(device)?.detach())
    }

    /// The tensor, if this initializer is one: a parameter then needs no explicit shape.
    pub(crate) fn array(&self) -> Option<&Tensor> {
        match &self.0 {
            Kind::Array(tensor) => Some(tensor),
            _ => None,
        }
    }

    /// Distinguishes initializers, so that they draw different values for the same parameter.
    pub(crate) fn key(&self) -> [u64; 3] {
        match &self.0 {
            Kind::Random { distribution: Distribution::Normal { sigma }, .. } => [1, sigma.to_bits(), 0],
            Kind::Random { distribution: Distribution::Uniform { low, high }, .. } => {
                [2, low.to_bits(), high.to_bits()]
            }
            Kind::Random { distribution: Distribution::Beside { limits: [first, second], .. }, .. } => {
                [3, first.to_bits(), second.to_bits()]
            }
            Kind::Constant(_) | Kind::Array(_) | Kind::Function(_) => [0; 3],
        }
    }
}

impl Distribution {
    fn check(self) -> Result<()> {
        let valid = match self {
            Self::Normal { sigma } => sigma.is_finite() && sigma >= 0.0,
            Self::Uniform { low, high } => low.is_finite() && high.is_finite() && low <= high,
            Self::Beside { limits, .. } => limits.iter().all(|limit| limit.is_finite()),
        };
        if valid {
            return Ok(());
        }
        Err(Error::invalid("initializer", "needs finite limits in order, or a finite sigma >= 0", self))
    }

    fn draw(self, rng: &Rng, shape: &[usize], n: usize) -> Vec<f64> {
        match self {
            Self::Normal { sigma } => rng.draw(n, true, |x| x * sigma),
            Self::Uniform { low, high } => rng.draw(n, false, |x| low + (high - low) * x),
            Self::Beside { columns, limits } => {
                let mut values = rng.draw(n, false, |x| 2.0 * x - 1.0);
                for row in values.chunks_mut(shape.last().copied().unwrap_or(1).max(1)) {
                    for (column, value) in row.iter_mut().enumerate() {
                        *value *= limits[usize::from(column >= columns)];
                    }
                }
                values
            }
        }
    }
}

impl fmt::Debug for Initializer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Constant(value) => write!(f, "constant({value})"),
            Kind::Random { distribution: Distribution::Normal { sigma }, .. } => write!(f, "normal({sigma})"),
            Kind::Random { distribution: Distribution::Uniform { low, high }, .. } => {
                write!(f, "uniform({low}, {high})")
            }
            Kind::Random { distribution: Distribution::Beside { limits: [first, second], .. }, .. } => {
                write!(f, "uniform(±{first} for the input, ±{second} for the state)")
            }
            Kind::Array(tensor) => write!(f, "array of shape {:?}", tensor.dims()),
            Kind::Function(_) => f.write_str("closure"),
        }
    }
}

impl From<f64> for Initializer {
    fn from(value: f64) -> Self {
        Self::constant(value)
    }
}

impl From<Tensor> for Initializer {
    fn from(tensor: Tensor) -> Self {
        Self(Kind::Array(tensor))
    }
}

impl From<&Tensor> for Initializer {
    fn from(tensor: &Tensor) -> Self {
        Self(Kind::Array(tensor.clone()))
    }
}

impl<F> From<F> for Initializer
where
    F: Fn(&[usize]) -> Result<Tensor> + Send + Sync + 'static,
{
    fn from(function: F) -> Self {
        Self(Kind::Function(Arc::new(function)))
    }
}
