//! The random generator of initializers.

use std::sync::{Arc, Mutex, PoisonError};

use rand_mt::Mt;

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
    /// The second of each pair of normal deviates, kept for the next call.
    spare: Option<f64>,
}

impl Rng {
    /// The stream of `numpy.random.RandomState(seed)`.
    #[must_use]
    pub fn new(seed: u32) -> Self {
        Self::from_mt(Mt::new(seed))
    }

    /// A stream for a key of any length; keys that differ give unrelated streams.
    pub(crate) fn from_key(key: &[u32]) -> Self {
        Self::from_mt(Mt::new_with_key(key.iter().copied()))
    }

    fn from_mt(mt: Mt) -> Self {
        Self(Arc::new(Mutex::new(State { mt, spare: None })))
    }

    /// The next 32 bits.
    #[must_use]
    pub fn next_u32(&self) -> u32 {
        self.with(|state| state.mt.next_u32())
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

    /// `n` draws of [`uniform`](Self::uniform) or [`normal`](Self::normal) under one lock, so that they are
    /// consecutive even when threads share the generator.
    pub(crate) fn draw(&self, n: usize, normal: bool, map: impl Fn(f64) -> f64) -> Vec<f64> {
        self.with(|state| {
            (0..n).map(|_| map(if normal { state.normal() } else { state.uniform() })).collect()
        })
    }

    /// Leaves out `n` results of [`next_u32`](Self::next_u32).
    pub(crate) fn skip(&self, n: u64) {
        self.with(|state| {
            for _ in 0..n {
                state.mt.next_u32();
            }
        });
    }

    /// Another generator in the same state.
    pub(crate) fn copied(&self) -> Self {
        Self(Arc::new(Mutex::new(self.with(|state| state.clone()))))
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
    fn uniform(&mut self) -> f64 {
        let (a, b) = (self.mt.next_u32() >> 5, self.mt.next_u32() >> 6);
        (f64::from(a) * 67_108_864.0 + f64::from(b)) / 9_007_199_254_740_992.0
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
