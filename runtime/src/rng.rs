//! The random generator of initializers, and random tensors.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, Device, Tensor};
use rand_mt::Mt;

use crate::{Dims, Result, check};

/// This many consecutive numbers determine the state of a generator.
const WORDS: usize = 624;

/// A seeded generator with the streams of NumPy's `RandomState`: clones share one stream.
///
/// NNabla draws its initial values from such generators, so equal seeds give equal values.
///
/// ```
/// let rng = layerfn::Rng::new(313);
/// assert_eq!(rng.uniform(), 0.1655396242835081); // numpy.random.RandomState(313).random_sample()
/// ```
#[derive(Clone)]
pub struct Rng(Arc<Mutex<State>>);

#[derive(Clone)]
struct State {
    mt: Mt,
    /// The words before those of `mt`, in reverse order, from which its state was recovered.
    before: Vec<u32>,
    /// The second of each pair of normal deviates, kept for the next call.
    spare: Option<f64>,
}

impl Rng {
    /// The stream of `numpy.random.RandomState(seed)`.
    #[must_use]
    pub fn new(seed: u32) -> Self {
        Self::from_mt(Mt::new(seed))
    }

    /// A stream for a key of any length; different keys give unrelated streams.
    pub(crate) fn from_key(key: &[u32]) -> Self {
        Self::from_mt(Mt::new_with_key(key.iter().copied()))
    }

    fn from_mt(mt: Mt) -> Self {
        Self(Arc::new(Mutex::new(State { mt, before: Vec::new(), spare: None })))
    }

    /// The next 32 bits.
    #[must_use]
    pub fn next_u32(&self) -> u32 {
        self.with(State::next)
    }

    /// A number drawn uniformly from [0, 1), with 53 random bits.
    #[must_use]
    pub fn uniform(&self) -> f64 {
        self.with(State::uniform)
    }

    /// A number drawn from the standard normal distribution (polar method, as `RandomState.randn`).
    #[must_use]
    pub fn normal(&self) -> f64 {
        self.with(State::normal)
    }

    /// Numbers drawn uniformly from [0, 1): those of `RandomState.rand`, rounded to `f32`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if there is no memory for so many.
    ///
    /// # Example
    /// ```
    /// let rng = layerfn::Rng::new(313);
    /// assert_eq!(rng.rand(2)?.to_vec1::<f32>()?, [0.16553962, 0.5501044]);
    /// # Ok::<(), layerfn::Error>(())
    /// ```
    pub fn rand(&self, dims: impl Into<Dims>) -> Result<Tensor> {
        self.tensor(&dims.into(), |state| state.uniform() as f32)
    }

    /// Numbers drawn from the standard normal distribution: those of `RandomState.randn`, rounded to `f32`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if there is no memory for so many.
    ///
    /// # Example
    /// ```
    /// let rng = layerfn::Rng::new(313);
    /// assert_eq!(rng.randn((64, 8))?.dims(), [64, 8]);
    /// # Ok::<(), layerfn::Error>(())
    /// ```
    pub fn randn(&self, dims: impl Into<Dims>) -> Result<Tensor> {
        self.tensor(&dims.into(), |state| state.normal() as f32)
    }

    /// Ones with probability `p`, else zeros, in `f32`: the numbers of `RandomState.binomial(1, p)`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if `p` is not in [0, 1] or there is no memory for so many.
    ///
    /// # Example
    /// ```
    /// let rng = layerfn::Rng::new(313);
    /// assert_eq!(rng.bernoulli(0.4, 5)?.to_vec1::<f32>()?, [0., 0., 1., 1., 1.]);
    /// # Ok::<(), layerfn::Error>(())
    /// ```
    pub fn bernoulli(&self, p: f64, dims: impl Into<Dims>) -> Result<Tensor> {
        check::within("p", p, 0.0..=1.0)?;
        // NumPy draws the rarer of the two events and uses the logarithm; it also draws for certain events.
        let (rare, value) = if p <= 0.5 { (p, 1.0) } else { (1.0 - p, 0.0) };
        let limit = (1.0 - rare).ln().exp();
        self.tensor(&dims.into(), |state| if state.uniform() > limit { value } else { 1.0 - value })
    }

    /// The numbers from 0 to `n − 1` in a random order, as `i64`: those of `RandomState.permutation`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if there is no memory for so many.
    ///
    /// # Example
    /// Rows in another order:
    /// ```
    /// use candle_core::{Device, Tensor};
    /// let rng = layerfn::Rng::new(313);
    /// let x = Tensor::new(&[[1f32], [2.], [3.]], &Device::Cpu)?;
    /// let shuffled = x.index_select(&rng.permutation(3)?, 0)?;
    /// assert_eq!(shuffled.to_vec2::<f32>()?, [[2.], [3.], [1.]]);
    /// # Ok::<(), layerfn::Error>(())
    /// ```
    pub fn permutation(&self, n: usize) -> Result<Tensor> {
        check::tensor("n", &[n], DType::I64)?;
        let mut numbers: Vec<i64> = (0..n as i64).collect();
        self.with(|state| {
            for last in (1..n).rev() {
                numbers.swap(last, state.up_to(last as u64) as usize);
            }
        });
        Ok(Tensor::from_vec(numbers, n, &Device::Cpu)?)
    }

    /// A tensor of numbers that are drawn under a single lock.
    fn tensor(&self, dims: &Dims, draw: impl Fn(&mut State) -> f32) -> Result<Tensor> {
        let n = check::tensor("dims", dims, DType::F32)?;
        let values = self.with(|state| (0..n).map(|_| draw(state)).collect());
        Ok(Tensor::from_vec::<_, f32>(values, &**dims, &Device::Cpu)?)
    }

    /// `n` draws of [`uniform`](Self::uniform) or [`normal`](Self::normal) under a single lock, so that they
    /// are consecutive even if threads share the generator.
    pub(crate) fn draw(&self, n: usize, normal: bool, map: impl Fn(f64) -> f64) -> Vec<f64> {
        self.with(|state| {
            (0..n).map(|_| map(if normal { state.normal() } else { state.uniform() })).collect()
        })
    }

    /// Skips `n` results of [`next_u32`](Self::next_u32).
    pub(crate) fn skip(&self, n: u64) {
        self.with(|state| {
            for _ in 0..n {
                state.next();
            }
        });
    }

    /// Another generator in the same state.
    pub(crate) fn copied(&self) -> Self {
        Self(Arc::new(Mutex::new(self.with(|state| state.clone()))))
    }

    /// The next 624 results of [`next_u32`](Self::next_u32), which determine all later ones, and the deviate
    /// that is kept for the next call of [`normal`](Self::normal).
    pub(crate) fn position(&self) -> (Vec<u32>, Option<f64>) {
        let mut ahead = self.with(|state| state.clone());
        ((0..WORDS).map(|_| ahead.next()).collect(), ahead.spare)
    }

    /// Continues at a [`position`](Self::position); returns false if the number of words is wrong.
    pub(crate) fn set_position(&self, words: &[u32], spare: Option<f64>) -> bool {
        let Ok(mt) = Mt::recover(words.iter().copied()) else { return false };
        let before = words.iter().rev().copied().collect();
        self.with(|state| *state = State { mt, before, spare });
        true
    }

    fn with<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl From<&Rng> for Rng {
    fn from(rng: &Rng) -> Self {
        rng.clone()
    }
}

impl State {
    fn next(&mut self) -> u32 {
        self.before.pop().unwrap_or_else(|| self.mt.next_u32())
    }

    fn uniform(&mut self) -> f64 {
        let (a, b) = (self.next() >> 5, self.next() >> 6);
        (f64::from(a) * 67_108_864.0 + f64::from(b)) / 9_007_199_254_740_992.0
    }

    /// An integer from 0 to `limit`: draws are masked to its number of bits, and repeated if they are larger.
    fn up_to(&mut self, limit: u64) -> u64 {
        let mask = u64::MAX.checked_shr(limit.leading_zeros()).unwrap_or(0);
        loop {
            let bits = match u32::try_from(limit) {
                Ok(_) => u64::from(self.mt.next_u32()),
                Err(_) => u64::from(self.mt.next_u32()) << 32 | u64::from(self.mt.next_u32()),
            };
            if bits & mask <= limit {
                return bits & mask;
            }
        }
    }

    fn normal(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        loop {
            let (x, y) = (2.0 * self.uniform() - 1.0, 2.0 * self.uniform() - 1.0);
            let r2 = x * x + y * y;
            if r2 < 1.0 && r2 != 0.0 {
                let f = (-2.0 * r2.ln() / r2).sqrt();
                self.spare = Some(f * x);
                return f * y;
            }
        }
    }
}

impl std::fmt::Debug for Rng {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Rng")
    }
}

#[cfg(test)]
mod tests {
    use super::Rng;

    #[test]
    fn a_generator_goes_on_where_it_was() {
        let draw = |rng: &Rng, n: usize| -> Vec<[u64; 2]> {
            (0..n).map(|_| [rng.normal().to_bits(), rng.uniform().to_bits()]).collect()
        };
        for drawn in [0, 1, 5, 623, 624, 625, 2000] {
            let rng = Rng::new(9);
            rng.skip(drawn);
            for more in [1, 10, 700] {
                assert!(!draw(&rng, more).is_empty());
                let (words, spare) = rng.position();
                let other = Rng::new(0);
                assert!(other.set_position(&words, spare));
                assert_eq!(other.position(), (words, spare));
                assert_eq!(draw(&other, 700), draw(&rng.copied(), 700));
                // Also from a recovered position.
                let (words, spare) = rng.position();
                assert!(rng.set_position(&words, spare));
            }
        }
        assert!(!Rng::new(0).set_position(&[1, 2], None));
    }
}
