//! Batches of examples.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{Device, Tensor};

use super::{Augment, Batch, Batches, Dataset, Position};
use crate::{Error, Result, Rng};

type Change = Arc<dyn Fn(Vec<Tensor>, &Rng) -> Result<Vec<Tensor>> + Send + Sync>;

/// An epoch, and the order of its examples.
type EpochOrder = (u64, Arc<[usize]>);

/// Makes batches of the examples of a [`Dataset`]; see the [module](super).
///
/// By default, it goes through the examples once, in their order, with a smaller last batch if they don't fill
/// it, in the calling thread, on the CPU. Clones share the data.
#[derive(Clone)]
pub struct Loader {
    recipe: Recipe,
    workers: usize,
    start: Position,
}

/// The settings that determine each batch.
#[derive(Clone)]
pub(super) struct Recipe {
    dataset: Arc<dyn Dataset>,
    batch_size: usize,
    shuffle: Option<u64>,
    drop_last: bool,
    epochs: Option<u64>,
    rank: usize,
    n_ranks: usize,
    augment: Vec<(usize, Augment)>,
    changes: Vec<Change>,
    device: Device,
    /// The order of the epoch that was requested last.
    order: Arc<Mutex<Option<EpochOrder>>>,
}

impl Loader {
    /// Batches of `batch_size` examples.
    pub fn new(dataset: impl Dataset + 'static, batch_size: usize) -> Self {
        let recipe = Recipe {
            dataset: Arc::new(dataset),
            batch_size,
            shuffle: None,
            drop_last: false,
            epochs: Some(1),
            rank: 0,
            n_ranks: 1,
            augment: Vec::new(),
            changes: Vec::new(),
            device: Device::Cpu,
            order: Arc::default(),
        };
        Self { recipe, workers: 0, start: Position::default() }
    }

    /// Shuffles the examples, differently in each epoch. Augmentation draws from the same seed.
    #[must_use]
    pub fn shuffle(mut self, seed: u64) -> Self {
        self.recipe.shuffle = Some(seed);
        self.forget_order()
    }

    /// Goes through the examples `n` times.
    #[must_use]
    pub fn epochs(mut self, n: u64) -> Self {
        self.recipe.epochs = Some(n);
        self
    }

    /// Goes through the examples endlessly.
    #[must_use]
    pub fn endless(mut self) -> Self {
        self.recipe.epochs = None;
        self
    }

    /// Skips the last batch of an epoch if the examples don't fill it.
    #[must_use]
    pub fn drop_last(mut self) -> Self {
        self.recipe.drop_last = true;
        self
    }

    /// Changes the images of field `field` at random.
    #[must_use]
    pub fn augment(mut self, field: usize, augment: Augment) -> Self {
        self.recipe.augment.push((field, augment));
        self
    }

    /// Changes whole batches: `change` receives the fields and a generator for this batch.
    ///
    /// Changes are applied after augmentation, in the order of the calls.
    #[must_use]
    pub fn map(
        mut self,
        change: impl Fn(Vec<Tensor>, &Rng) -> Result<Vec<Tensor>> + Send + Sync + 'static,
    ) -> Self {
        self.recipe.changes.push(Arc::new(change));
        self
    }

    /// Prepares batches ahead in `n` threads, up to two in each; the batches are the same for any `n`.
    #[must_use]
    pub fn workers(mut self, n: usize) -> Self {
        self.workers = n;
        self
    }

    /// Gives the process `rank` of `size` processes its part of each batch. All parts together are the batches
    /// of a single process, so every example is seen once per epoch.
    #[must_use]
    pub fn shard(mut self, rank: usize, size: usize) -> Self {
        (self.recipe.rank, self.recipe.n_ranks) = (rank, size);
        self
    }

    /// Puts the batches on `device`.
    #[must_use]
    pub fn device(mut self, device: &Device) -> Self {
        self.recipe.device = device.clone();
        self
    }

    /// Starts at `position`, as if the batches before it had already been taken.
    #[must_use]
    pub fn start_at(mut self, position: Position) -> Self {
        self.start = position;
        self
    }

    /// The number of batches in an epoch.
    #[must_use]
    pub fn per_epoch(&self) -> u64 {
        self.recipe.per_epoch()
    }

    /// The batches.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if `batch_size` is 0, there are no examples or fewer than a batch with
    /// [`drop_last`](Self::drop_last), `rank` is not below `size`, a setting of an [`Augment`] is invalid, or
    /// the position is out of range.
    pub fn batches(&self) -> Result<Batches> {
        self.recipe.check()?;
        Batches::new(self.recipe.clone(), self.start, self.workers)
    }

    /// After a change of the order, it must not be shared with clones.
    fn forget_order(mut self) -> Self {
        self.recipe.order = Arc::default();
        self
    }
}

impl Recipe {
    fn check(&self) -> Result<()> {
        if self.batch_size == 0 {
            return Err(Error::invalid("batch_size", "must be at least 1", 0));
        }
        if self.rank >= self.n_ranks {
            let reason = format!("must be below the number of processes, {}", self.n_ranks);
            return Err(Error::invalid("rank", reason, self.rank));
        }
        if self.per_epoch() == 0 {
            let reason = format!("must have enough examples for a batch of {}", self.batch_size);
            return Err(Error::invalid("dataset", reason, format!("{} examples", self.dataset.len())));
        }
        self.augment.iter().try_for_each(|(_, augment)| augment.check())
    }

    pub(super) fn per_epoch(&self) -> u64 {
        let (len, size) = (self.dataset.len(), self.batch_size.max(1));
        let n = if self.drop_last { len / size } else { len.div_ceil(size) };
        n as u64
    }

    /// Checks `position`; that after the last batch becomes the start of the next epoch.
    pub(super) fn checked(&self, position: Position) -> Result<Position> {
        let n = self.per_epoch();
        match position.batch {
            batch if batch < n => Ok(position),
            batch if batch == n => Ok(Position { epoch: position.epoch + 1, batch: 0 }),
            _ => {
                let reason = format!("must be one of this data, which has {n} batches in an epoch");
                Err(Error::invalid("position", reason, position))
            }
        }
    }

    pub(super) fn is_over(&self, position: Position) -> bool {
        self.epochs.is_some_and(|epochs| position.epoch >= epochs)
    }

    /// The position `n` batches later.
    pub(super) fn after(&self, position: Position, n: u64) -> Position {
        let batch = position.batch + n;
        Position { epoch: position.epoch + batch / self.per_epoch(), batch: batch % self.per_epoch() }
    }

    pub(super) fn batch(&self, position: Position) -> Result<Batch> {
        let start = position.batch as usize * self.batch_size;
        let whole = self.batch_size.min(self.dataset.len() - start);
        let part = |rank: usize| start + (whole as u128 * rank as u128 / self.n_ranks as u128) as usize;
        let range = part(self.rank)..part(self.rank + 1);
        let order = self.order(position.epoch);
        let indices = match &order {
            Some(order) => order[range.clone()].to_vec(),
            None => range.clone().collect(),
        };
        let mut fields = self.dataset.batch(&indices)?;
        for (field, augment) in &self.augment {
            let n_fields = fields.len();
            let images = fields.get_mut(*field).ok_or_else(|| {
                Error::invalid("field", format!("must be below {n_fields}, the number of fields"), field)
            })?;
            *images = augment.batch(images, |n| self.rng(&[0, position.epoch, indices[n] as u64]))?;
        }
        for change in &self.changes {
            fields = change(fields, &self.rng(&[1, position.epoch, position.batch, self.rank as u64]))?;
        }
        let fields = fields.iter().map(|field| field.to_device(&self.device));
        Ok(Batch {
            fields: fields.collect::<candle_core::Result<_>>()?,
            len: indices.len(),
            position,
            ends_epoch: position.batch + 1 == self.per_epoch(),
        })
    }

    /// The order of an epoch, or `None` if it is that of the data.
    fn order(&self, epoch: u64) -> Option<Arc<[usize]>> {
        self.shuffle?;
        if let Some((of, order)) = &*self.order.lock().unwrap_or_else(PoisonError::into_inner)
            && *of == epoch
        {
            return Some(order.clone());
        }
        let order: Arc<[usize]> = shuffled(self.dataset.len(), &self.rng(&[2, epoch])).into();
        *self.order.lock().unwrap_or_else(PoisonError::into_inner) = Some((epoch, order.clone()));
        Some(order)
    }

    /// A generator that is seeded with the seed and `key`.
    fn rng(&self, key: &[u64]) -> Rng {
        let words = [self.shuffle.unwrap_or(0)].into_iter().chain(key.iter().copied());
        let halves: Vec<u32> = words.flat_map(|word| [word as u32, (word >> 32) as u32]).collect();
        Rng::from_key(&halves)
    }
}

/// The numbers from 0 to `n` − 1 in a random order.
pub(super) fn shuffled(n: usize, rng: &Rng) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        order.swap(i, below(rng, i + 1));
    }
    order
}

/// A random integer, uniformly distributed from 0 to `n` − 1.
pub(super) fn below(rng: &Rng, n: usize) -> usize {
    // `uniform` is below 1, but the product may still be rounded up to `n`.
    ((rng.uniform() * n as f64) as usize).min(n - 1)
}

impl std::fmt::Debug for Loader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loader")
            .field("examples", &self.recipe.dataset.len())
            .field("batch_size", &self.recipe.batch_size)
            .field("workers", &self.workers)
            .finish_non_exhaustive()
    }
}
