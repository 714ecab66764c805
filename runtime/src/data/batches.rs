//! Iteration over batches.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use candle_core::Tensor;

use super::loader::Recipe;
use crate::{Error, Result};

/// A position in the data, to be saved and resumed from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The epoch, from 0.
    pub epoch: u64,
    /// The batch within the epoch, from 0.
    pub batch: u64,
}

/// Some examples at once.
#[derive(Clone, Debug)]
pub struct Batch {
    pub(super) fields: Vec<Tensor>,
    pub(super) len: usize,
    pub(super) position: Position,
    pub(super) ends_epoch: bool,
}

impl Batch {
    /// The fields, of which there must be `N`: each is a tensor whose first axis is that of the examples.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there are more or fewer fields.
    pub fn fields<const N: usize>(&self) -> Result<[&Tensor; N]> {
        let fields: Vec<&Tensor> = self.fields.iter().collect();
        fields.try_into().map_err(|fields: Vec<_>| {
            Error::invalid(
                "fields",
                format!("of this data are {}", fields.len()),
                format!("a pattern of {N}"),
            )
        })
    }

    /// The number of examples.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no examples, which happens when a small last batch is divided among many ranks.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The position of this batch.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// Whether this is the last batch of its epoch.
    #[must_use]
    pub fn ends_epoch(&self) -> bool {
        self.ends_epoch
    }
}

/// The batches of a [`Loader`](super::Loader).
pub struct Batches {
    recipe: Arc<Recipe>,
    next: Position,
    workers: Vec<Worker>,
    /// The worker that has the next batch.
    turn: usize,
}

struct Worker {
    /// Dropped together with the batches, which stops the thread.
    results: Option<Receiver<Result<Batch>>>,
    thread: Option<JoinHandle<()>>,
}

/// Batches that a worker prepares ahead.
const AHEAD: usize = 2;

impl Batches {
    pub(super) fn new(recipe: Recipe, start: Position, n_workers: usize) -> Result<Self> {
        let recipe = Arc::new(recipe);
        let next = recipe.checked(start)?;
        let mut workers = Vec::with_capacity(n_workers);
        for turn in 0..n_workers {
            workers.push(Worker::start(recipe.clone(), next, turn, n_workers)?);
        }
        Ok(Self { recipe, next, workers, turn: 0 })
    }

    /// The position of the next batch. Save it after a step to resume training with that batch.
    #[must_use]
    pub fn position(&self) -> Position {
        self.next
    }

    /// The number of batches in an epoch.
    #[must_use]
    pub fn per_epoch(&self) -> u64 {
        self.recipe.per_epoch()
    }
}

impl Iterator for Batches {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.recipe.is_over(self.next) {
            return None;
        }
        let position = self.next;
        self.next = self.recipe.after(position, 1);
        let n_workers = self.workers.len();
        let Some(worker) = self.workers.get(self.turn) else { return Some(self.recipe.batch(position)) };
        self.turn = (self.turn + 1) % n_workers;
        let result = worker.results.as_ref().and_then(|results| results.recv().ok());
        Some(result.unwrap_or_else(|| {
            Err(Error::invalid("dataset", "must not panic", format!("a panic in the batch at {position:?}")))
        }))
    }
}

impl Worker {
    /// Starts a thread that prepares every `of`-th batch from `start`, beginning with number `turn`.
    fn start(recipe: Arc<Recipe>, start: Position, turn: usize, of: usize) -> Result<Self> {
        let (sender, results) = sync_channel(AHEAD);
        let work = move || {
            let mut position = recipe.after(start, turn as u64);
            while !recipe.is_over(position) && sender.send(recipe.batch(position)).is_ok() {
                position = recipe.after(position, of as u64);
            }
        };
        let thread =
            std::thread::Builder::new().name("layerfn data".to_owned()).spawn(work).map_err(|source| {
                Error::Io { action: "start a thread for", file: "the data".to_owned(), source }
            })?;
        Ok(Self { results: Some(results), thread: Some(thread) })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.results = None;
        if let Some(thread) = self.thread.take() {
            // Its panic was already reported when its batch was requested.
            let _ = thread.join();
        }
    }
}

impl std::fmt::Debug for Batches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batches").field("next", &self.next).finish_non_exhaustive()
    }
}
