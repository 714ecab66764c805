//! Threads of one process as ranks.

use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use super::{Communicator, TIME_LIMIT, Transport};
use crate::{Error, ParameterStore, Result};

/// Ranks that are threads of this process: for tests, and to try out distributed training without MPI.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use layerfn::communicator::Local;
///
/// let sums = Local::new(3).run(|communicator| {
///     let own = Tensor::new(&[communicator.rank() as f32, 1.0], &Device::Cpu)?;
///     Ok(communicator.all_reduce(&[own], false)?[0].to_vec1::<f32>()?)
/// })?;
/// assert_eq!(sums, [[3.0, 3.0]; 3]);
/// # Ok::<(), layerfn::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Local {
    size: usize,
    limit: Duration,
}

impl Local {
    /// Makes `size` ranks, at least one.
    #[must_use]
    pub fn new(size: usize) -> Self {
        Self { size: size.max(1), limit: TIME_LIMIT }
    }

    /// Sets how long a rank waits for a message of another one. Default: five minutes.
    #[must_use]
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Runs `f` as each of the ranks, in separate threads with separate parameter stores, and returns the
    /// results by rank.
    ///
    /// If a rank fails, the others fail in their next collective operation. This function waits for a rank that
    /// hangs no longer than the time limit, and leaves its thread behind.
    ///
    /// # Errors
    /// The error of the rank that failed first; [`Error::Communication`] if it panicked or hangs.
    pub fn run<R: Send + 'static>(
        &self,
        f: impl Fn(Communicator) -> Result<R> + Send + Sync + 'static,
    ) -> Result<Vec<R>> {
        let hub = Arc::new(Hub::default());
        let (f, (sender, receiver)) = (Arc::new(f), mpsc::channel());
        for rank in 0..self.size {
            let transport = Rank { hub: hub.clone(), rank, size: self.size, limit: self.limit };
            let (f, sender, own_hub) = (f.clone(), sender.clone(), hub.clone());
            let run = move || {
                let communicator = Communicator::new(Arc::new(transport));
                let result =
                    catch_unwind(AssertUnwindSafe(|| ParameterStore::new().enter(|| f(communicator))));
                let result =
                    result.unwrap_or_else(|panic| Err(Error::communication(rank, panicked(&*panic))));
                if let Err(error) = &result {
                    own_hub.fail(rank, error.to_string());
                }
                // There is no receiver if this rank was given up.
                let _ = sender.send((rank, result));
            };
            let started = thread::Builder::new().name(format!("rank {rank}")).spawn(run);
            if let Err(error) = started {
                hub.fail(rank, error.to_string());
                return Err(Error::communication(rank, format!("cannot be started as a thread: {error}")));
            }
        }
        drop(sender);
        self.collect(&hub, &receiver)
    }

    fn collect<R>(&self, hub: &Hub, receiver: &mpsc::Receiver<(usize, Result<R>)>) -> Result<Vec<R>> {
        let mut results: Vec<Option<R>> = (0..self.size).map(|_| None).collect();
        let mut errors = Vec::new();
        for _ in 0..self.size {
            // As long as no rank has failed, a rank may compute for any time.
            let next =
                if errors.is_empty() { receiver.recv().ok() } else { receiver.recv_timeout(self.limit).ok() };
            match next {
                Some((rank, Ok(result))) => results[rank] = Some(result),
                Some((rank, Err(error))) => errors.push((rank, error)),
                None => break,
            }
        }
        let failed = hub.lock().failed.clone();
        if let Some((rank, reason)) = failed {
            let place = errors.iter().position(|(other, _)| *other == rank);
            // A rank that hangs has not reported anything itself.
            return Err(
                place.map_or_else(|| Error::communication(rank, reason), |place| errors.swap_remove(place).1)
            );
        }
        results
            .into_iter()
            .enumerate()
            .map(|(rank, result)| {
                result.ok_or_else(|| Error::communication(rank, "has ended without a result"))
            })
            .collect()
    }
}

fn panicked(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied().map(str::to_owned);
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    format!("panicked: {}", text.unwrap_or_else(|| "without a text".to_owned()))
}

/// Messages in transit.
#[derive(Default)]
struct Hub {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// By sender and receiver.
    messages: HashMap<(usize, usize), VecDeque<Vec<u8>>>,
    /// The first rank that failed, and why.
    failed: Option<(usize, String)>,
}

impl Hub {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, rank: usize, reason: String) {
        self.lock().failed.get_or_insert((rank, reason));
        self.changed.notify_all();
    }
}

struct Rank {
    hub: Arc<Hub>,
    rank: usize,
    size: usize,
    limit: Duration,
}

impl Transport for Rank {
    fn name(&self) -> &'static str {
        "local"
    }

    fn size(&self) -> usize {
        self.size
    }

    fn rank(&self) -> usize {
        self.rank
    }

    fn local_rank(&self) -> usize {
        self.rank
    }

    fn send(&self, to: usize, message: Vec<u8>) -> Result<()> {
        let mut state = self.hub.lock();
        state.check()?;
        state.messages.entry((self.rank, to)).or_default().push_back(message);
        drop(state);
        self.hub.changed.notify_all();
        Ok(())
    }

    fn receive(&self, from: usize) -> Result<Vec<u8>> {
        let end = Instant::now() + self.limit;
        let mut state = self.hub.lock();
        loop {
            if let Some(message) = state.messages.get_mut(&(from, self.rank)).and_then(VecDeque::pop_front) {
                return Ok(message);
            }
            state.check()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let reason = format!("has sent nothing for {:?}", self.limit);
                state.failed.get_or_insert_with(|| (from, reason.clone()));
                drop(state);
                self.hub.changed.notify_all();
                return Err(Error::communication(from, reason));
            }
            state = self.hub.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn abort(&self, reason: &str) {
        self.hub.fail(self.rank, reason.to_owned());
    }
}

impl State {
    fn check(&self) -> Result<()> {
        match &self.failed {
            Some((rank, reason)) => Err(Error::communication(*rank, format!("failed: {reason}"))),
            None => Ok(()),
        }
    }
}

/// A single rank.
pub(super) struct Alone;

impl Transport for Alone {
    fn name(&self) -> &'static str {
        "local"
    }

    fn size(&self) -> usize {
        1
    }

    fn rank(&self) -> usize {
        0
    }

    fn local_rank(&self) -> usize {
        0
    }

    fn send(&self, to: usize, _: Vec<u8>) -> Result<()> {
        Err(Error::communication(to, "does not exist: there is one rank"))
    }

    fn receive(&self, from: usize) -> Result<Vec<u8>> {
        Err(Error::communication(from, "does not exist: there is one rank"))
    }

    fn abort(&self, _: &str) {}
}
