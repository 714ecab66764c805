//! When to stop.

use super::part::{Part, gather, scatter};
use crate::{Parameters, Result};

/// Remembers the best value of a metric and says when to stop waiting for a better one.
///
/// ```
/// use layerfn::training::{EarlyStopping, Progress};
///
/// let mut accuracy = EarlyStopping::new(2).larger();
/// assert_eq!(accuracy.observe(0.5), Progress::Best);
/// assert_eq!(accuracy.observe(0.4), Progress::Worse);
/// assert_eq!(accuracy.observe(0.5), Progress::Stop);
/// assert_eq!(accuracy.best(), Some(0.5));
/// ```
#[derive(Clone, Debug)]
pub struct EarlyStopping {
    patience: u64,
    larger: bool,
    best: f64,
    /// Values since the best; none before the first.
    since: Option<u64>,
}

/// What a value means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It is the best so far: the state is worth keeping.
    Best,
    /// An earlier value was as good or better.
    Worse,
    /// It is the last of `patience` values in a row that were not the best.
    Stop,
}

impl EarlyStopping {
    /// Waits for `patience` values in a row that are not the best, of which smaller ones are better.
    #[must_use]
    pub fn new(patience: u64) -> Self {
        Self { patience, larger: false, best: f64::NAN, since: None }
    }

    /// Larger values are better, as of an accuracy.
    #[must_use]
    pub fn larger(mut self) -> Self {
        self.larger = true;
        self
    }

    /// Notes a value. NaN is never the best.
    pub fn observe(&mut self, value: f64) -> Progress {
        let better = match self.since {
            None => !value.is_nan(),
            Some(_) if self.best.is_nan() => !value.is_nan(),
            Some(_) if self.larger => value > self.best,
            Some(_) => value < self.best,
        };
        if better {
            (self.best, self.since) = (value, Some(0));
            return Progress::Best;
        }
        let since = self.since.unwrap_or(0) + 1;
        self.since = Some(since);
        if since >= self.patience { Progress::Stop } else { Progress::Worse }
    }

    /// The best value.
    #[must_use]
    pub fn best(&self) -> Option<f64> {
        Some(self.best).filter(|best| !best.is_nan())
    }
}

impl Part for EarlyStopping {
    fn state(&self) -> Result<Parameters> {
        let since = self.since.map_or(0, |since| since + 1);
        gather(&[("best", &self.best), ("since", &since)])
    }

    fn set_state(&mut self, state: &Parameters) -> Result<()> {
        let (mut best, mut since) = (0.0, 0u64);
        scatter(state, &mut [("best", &mut best), ("since", &mut since)])?;
        (self.best, self.since) = (best, since.checked_sub(1));
        Ok(())
    }
}
