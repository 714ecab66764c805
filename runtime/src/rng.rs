//! The random generator of initializers.

use std::sync::{Arc, Mutex, PoisonError};

use rand_mt::Mt;

/// As many consecutive numbers say all of a generator.
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
    /// What comes before the numbers of `mt`, the last first: those that its state was found by.
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

    /// A stream for a key of any length; keys that differ give unrelated streams.
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
                state.next();
            }
        });
    }

    /// Another generator in the same state.
    pub(crate) fn copied(&self) -> Self {
        Self(Arc::new(Mutex::new(self.with(|state| state.clone()))))
    }

    /// The next 624 results of [`next_u32`](Self::next_u32), from which all later ones follow, and the deviate that is kept for
    /// the next call of [`normal`](Self::normal).
    pub(crate) fn position(&self) -> (Vec<u32>, Option<f64>) {
        let mut ahead = self.with(|state| state.clone());
        ((0..WORDS).map(|_| ahead.next()).collect(), ahead.spare)
    }

    /// Goes on where [`position`](Self::position) was; whether there are as many words as that gives.
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
                // From where it was found to be, too.
                let (words, spare) = rng.position();
                assert!(rng.set_position(&words, spare));
            }
        }
        assert!(!Rng::new(0).set_position(&[1, 2], None));
    }
}
