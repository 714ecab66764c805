//! One step on several ranks, with the same bits for any number of them.

mod exchange;
mod numbers;
mod turns;

use std::mem;
use std::ops::Range;
use std::sync::{Arc, mpsc};
use std::thread;

use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor};

use crate::communicator::Communicator;
use crate::context::enter_group;
use crate::functions::graph::backward_each;
use crate::group::Group;
use crate::{Error, ParameterStore, Result, Rng, functions};
use exchange::Exchange;
use numbers::{Numbers, Pack, Sum, Variables, Weights};
use turns::Turns;

/// Data-parallel training: each rank computes some of the micro-batches of a step, and all get the same gradients.
///
/// A step consists of a fixed number of micro-batches, whichever ranks compute them. Their gradients are added
/// up along a binary tree over the numbers of the micro-batches, and the random numbers of a micro-batch follow
/// from its number. So one, two or five ranks, threads or processes, get bitwise equal weights.
///
/// While the backward pass of a rank's last micro-batch runs, the gradients that are already complete are sent
/// and added up, in packs. Results do not depend on the size of the packs.
///
/// Batch normalization sees one micro-batch at a time;
/// [`sync_batch_normalization`](crate::sync_batch_normalization()) sees all of them, in a
/// [step](Self::step_together) that runs them together. Running statistics, and other values that layers keep
/// from call to call, become the mean of their values after each micro-batch.
///
/// ```
/// use layerfn::{communicator::Local, prelude::*, solver::Sgd, training::DataParallel};
///
/// let train = |ranks: usize| {
///     Local::new(ranks).run(|communicator| {
///         let model = network! { affine(8) -> relu -> dropout -> out: affine(2) }.init((1, 4))?;
///         let mut parallel = DataParallel::new(&communicator, model.store(), 4)?;
///         let mut solver = Sgd::new(0.1);
///         solver.set_parameters(&model.parameters());
///         let x = Tensor::arange(0f32, 32., &Device::Cpu)?.reshape((8, 4))?;
///         for _ in 0..3 {
///             let step = parallel.step(8, |rows| {
///                 let x = x.narrow(0, rows.start, rows.len())?;
///                 Ok(model.forward(&x)?.sqr()?.mean_all()?)
///             })?;
///             solver.update(&step.gradients)?;
///         }
///         Ok(model.store().get("out/affine/W").unwrap().var().flatten_all()?.to_vec1::<f32>()?)
///     })
/// };
/// assert_eq!(train(1)?[0], train(3)?[2]);
/// # Ok::<(), layerfn::Error>(())
/// ```
#[derive(Debug)]
pub struct DataParallel {
    communicator: Communicator,
    store: ParameterStore,
    n_micro: usize,
    pack_size: usize,
    is_fast: bool,
}

/// Default size of a pack in bytes.
const PACK_SIZE: usize = 4 << 20;

/// The result of a [step](DataParallel::step).
#[derive(Debug)]
pub struct ParallelStep {
    /// The mean of the gradients over all examples of the step: the same on every rank.
    pub gradients: GradStore,
    /// The mean loss.
    pub loss: f64,
}

impl DataParallel {
    /// Trains the parameters in `store`, in steps of `n_micro` micro-batches; choose the largest number of
    /// ranks that the training should run on. Every rank gets the values of rank 0.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if `n_micro` is 0; [`Error::Communication`] if the ranks have different parameters.
    pub fn new(communicator: &Communicator, store: &ParameterStore, n_micro: usize) -> Result<Self> {
        if n_micro == 0 {
            return Err(Error::invalid("n_micro", "must be at least 1", n_micro));
        }
        communicator.broadcast_parameters(&store.parameters())?;
        Ok(Self {
            communicator: communicator.clone(),
            store: store.clone(),
            n_micro,
            pack_size: PACK_SIZE,
            is_fast: false,
        })
    }

    /// Sets the minimum number of bytes of gradients that are sent together; the gradients of neighbouring
    /// parameters fill a pack. Default: 4 MiB. Every rank must set the same.
    #[must_use]
    pub fn pack_size(mut self, bytes: usize) -> Self {
        self.pack_size = bytes;
        self
    }

    /// Trades equal bits for any number of ranks for fewer messages: each rank adds up its own micro-batches
    /// and sends the sum as `f32` (`f64` for parameters of that type), and MPI chooses the order in which it
    /// adds these up. Every rank still gets the same gradients. All ranks must call this, or none.
    #[must_use]
    pub fn fast_sums(mut self) -> Self {
        self.is_fast = true;
        self
    }

    /// The micro-batches of this rank.
    #[must_use]
    pub fn own(&self) -> Range<usize> {
        of_rank(self.n_micro, &self.communicator, self.communicator.rank())
    }

    /// Runs one step over a batch of `n_examples`. `loss` is called for each micro-batch of this rank, one
    /// after the other, with the range of its examples in the batch, and returns its mean loss over them.
    ///
    /// # Errors
    /// Those of `loss`, after which the other ranks fail too; [`Error::InvalidArgument`] if there are no
    /// examples, or if [`sync_batch_normalization`](crate::sync_batch_normalization()) would need more than one
    /// micro-batch; [`Error::Communication`] if another rank fails.
    pub fn step(
        &mut self,
        n_examples: usize,
        loss: impl FnMut(Range<usize>) -> Result<Tensor>,
    ) -> Result<ParallelStep> {
        let apart = (self.n_micro > 1).then(|| Arc::new(Apart { n_micro: self.n_micro }) as Arc<dyn Group>);
        self.whole(n_examples, false, |batch, ready| enter_group(apart, || batch.one_by_one(loss, ready)))
    }

    /// Like [`step`](Self::step), but runs all micro-batches together, so that
    /// [`sync_batch_normalization`](crate::sync_batch_normalization()) computes its statistics over the whole
    /// batch: the gradients are those of the undivided batch, up to rounding, and have the same bits for any
    /// number of ranks.
    ///
    /// The micro-batches of a rank run in threads that take turns: each runs until it needs statistics, then
    /// the next one does, and the ranks exchange theirs. So a rank needs memory for the activations of all its
    /// micro-batches, and no gradient is sent before the backward pass is over. All micro-batches must go
    /// through the same layers: whether a stage is skipped must not depend on the examples.
    ///
    /// # Errors
    /// As [`step`](Self::step); [`Error::Communication`] if the micro-batches do not go through the same normalizations.
    ///
    /// ```
    /// use layerfn::{communicator::Local, prelude::*, training::DataParallel};
    ///
    /// let gradient = |ranks: usize| {
    ///     Local::new(ranks).run(|communicator| {
    ///         let model = network! { affine(8) -> sync_bn: sync_batch_normalization -> out: affine(2) }.init((1, 4))?;
    ///         let mut parallel = DataParallel::new(&communicator, model.store(), 4)?;
    ///         let x = Tensor::arange(0f32, 32., &Device::Cpu)?.reshape((8, 4))?;
    ///         let step = parallel.step_together(8, |rows| {
    ///             let x = x.narrow(0, rows.start, rows.len())?;
    ///             Ok(model.forward(&x)?.sqr()?.mean_all()?)
    ///         })?;
    ///         let w = model.store().get("out/affine/W").unwrap().var().clone();
    ///         Ok(step.gradients.get(&w).unwrap().flatten_all()?.to_vec1::<f32>()?)
    ///     })
    /// };
    /// assert_eq!(gradient(1)?[0], gradient(3)?[2]);
    /// # Ok::<(), layerfn::Error>(())
    /// ```
    pub fn step_together(
        &mut self,
        n_examples: usize,
        loss: impl Fn(Range<usize>) -> Result<Tensor> + Sync,
    ) -> Result<ParallelStep> {
        self.whole(n_examples, true, |batch, ready| batch.at_once(loss, ready))
    }

    /// Runs a step: `compute` hands over each pack of sums as soon as it is complete, and a thread sends it.
    fn whole(
        &self,
        n_examples: usize,
        is_at_once: bool,
        compute: impl FnOnce(&Batch<'_>, &mut Ready<'_>) -> Result<()>,
    ) -> Result<ParallelStep> {
        self.try_whole(n_examples, is_at_once, compute)
            .inspect_err(|error| self.communicator.abort(&error.to_string()))
    }

    fn try_whole(
        &self,
        n_examples: usize,
        is_at_once: bool,
        compute: impl FnOnce(&Batch<'_>, &mut Ready<'_>) -> Result<()>,
    ) -> Result<ParallelStep> {
        if n_examples == 0 {
            return Err(Error::invalid("n_examples", "must be at least 1", n_examples));
        }
        let variables = &Variables::of(&self.store, self.pack_size, self.is_fast)?;
        let noise = self.store.rng();
        let seeds = [noise.next_u32(), noise.next_u32()];
        let (words, spare) = noise.position();
        let communicator = &self.communicator;
        let weights = &*weights(n_examples, self.n_micro, is_at_once);
        let batch = Batch { communicator, weights, n_examples, variables, noise: &noise, seeds };
        let exchange =
            Exchange { communicator, weights, n_examples: n_examples as f64, is_fast: self.is_fast };
        let means = thread::scope(|threads| {
            let (outgoing, incoming) = mpsc::channel::<(&Pack, Vec<Sum>)>();
            let send = move || {
                let means =
                    incoming.iter().map(|(pack, own)| variables.read(pack, &exchange.means(pack, &own)?));
                means.collect::<Result<Vec<_>>>()
            };
            let sends = thread::Builder::new().name("gradients".to_owned()).spawn_scoped(threads, send);
            let sends = sends.map_err(|error| {
                Error::communication(
                    communicator.rank(),
                    format!("cannot start a thread that sends: {error}"),
                )
            })?;
            // Tell the other ranks first: waiting for the thread may mean waiting for them.
            let aborts = AbortOnPanic(communicator);
            let mut packs = variables.packs().iter();
            let computed = compute(&batch, &mut |sums| {
                if let Some(pack) = packs.next() {
                    // If the thread has ended, its error is returned below.
                    let _ = outgoing.send((pack, sums));
                }
            });
            drop(aborts);
            if let Err(error) = &computed {
                communicator.abort(&error.to_string());
            }
            drop(outgoing);
            let means = sends.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            computed.and(means)
        });
        noise.set_position(&words, spare);
        match means {
            Ok(means) => variables.take(means),
            Err(error) => variables.restore().and(Err(error)),
        }
    }
}

/// Takes the sums of the next pack for nodes of the tree that cover this rank's micro-batches, in order.
type Ready<'a> = dyn FnMut(Vec<Sum>) + 'a;

/// The micro-batches of a rank.
fn of_rank(n_micro: usize, communicator: &Communicator, rank: usize) -> Range<usize> {
    let size = communicator.size();
    n_micro * rank / size..n_micro * (rank + 1) / size
}

/// The examples of a micro-batch.
fn rows(n_examples: usize, n_micro: usize, micro: usize) -> Range<usize> {
    n_examples * micro / n_micro..n_examples * (micro + 1) / n_micro
}

/// Weights of the micro-batches. If they run together, their gradients already are those of the sum of all
/// losses.
fn weights(n_examples: usize, n_micro: usize, is_at_once: bool) -> Vec<Weights> {
    let of_rest = |micro| rows(n_examples, n_micro, micro).len() as f64;
    let n_parts = (0..n_micro).filter(|&micro| of_rest(micro) > 0.0).count() as f64;
    let of_gradients = |micro| if is_at_once { n_examples as f64 / n_parts } else { of_rest(micro) };
    (0..n_micro).map(|micro| Weights { of_gradients: of_gradients(micro), of_rest: of_rest(micro) }).collect()
}

/// The part of a step that this rank computes.
struct Batch<'a> {
    communicator: &'a Communicator,
    /// Of each micro-batch.
    weights: &'a [Weights],
    n_examples: usize,
    variables: &'a Variables,
    noise: &'a Rng,
    seeds: [u32; 2],
}

impl Batch<'_> {
    fn own(&self) -> Range<usize> {
        of_rank(self.n_micro(), self.communicator, self.communicator.rank())
    }

    fn n_micro(&self) -> usize {
        self.weights.len()
    }

    /// The examples of a micro-batch.
    fn rows(&self, micro: usize) -> Range<usize> {
        rows(self.n_examples, self.n_micro(), micro)
    }

    /// The generator for the random numbers of a micro-batch.
    fn noise_of(&self, micro: usize) -> Rng {
        Rng::from_key(&[self.seeds[0], self.seeds[1], micro as u32])
    }

    fn one_by_one(
        &self,
        mut loss: impl FnMut(Range<usize>) -> Result<Tensor>,
        ready: &mut Ready<'_>,
    ) -> Result<()> {
        let packs = self.variables.packs();
        let mut run = |micro: usize, is_final: &mut IsFinal<'_>| -> Result<Vec<Vec<u8>>> {
            let rows = self.rows(micro);
            if rows.is_empty() {
                return Ok(Numbers::new(self.variables).take_all());
            }
            let (words, spare) = self.noise_of(micro).position();
            self.noise.set_position(&words, spare);
            self.variables.restore()?;
            let loss = loss(rows)?;
            numbers_of(self.variables, &loss, scalar(&loss)?, is_final)
        };
        let mut sums: Vec<Vec<Sum>> = packs.iter().map(|_| Vec::new()).collect();
        let Range { start, end } = self.own();
        let Some(last) = end.checked_sub(1).filter(|last| start <= *last) else {
            sums.into_iter().for_each(ready);
            return Ok(());
        };
        for micro in start..last {
            let numbers = run(micro, &mut |_, _| ())?;
            for ((pack, sums), bytes) in packs.iter().zip(&mut sums).zip(numbers) {
                pack.push_sum(sums, Sum::of_micro(micro, bytes), self.weights);
            }
        }
        // The last micro-batch completes all sums; each pack is handed over when its gradients are complete.
        let mut complete = |place: usize, bytes: Vec<u8>| {
            let mut sums = mem::take(&mut sums[place]);
            sums.push(Sum::of_micro(last, bytes));
            ready(sums);
        };
        let (mut is_there, mut n_ready) = (vec![false; self.variables.n_trained()], 0);
        let numbers = run(last, &mut |numbers, place| {
            is_there[place] = true;
            // The last pack has the loss.
            while let [pack, _, ..] = &packs[n_ready..]
                && is_there.get(pack.variables.clone()).is_some_and(|there| there.iter().all(|there| *there))
            {
                complete(n_ready, numbers.take(n_ready));
                n_ready += 1;
            }
        })?;
        numbers.into_iter().enumerate().skip(n_ready).for_each(|(place, bytes)| complete(place, bytes));
        Ok(())
    }

    fn at_once(
        &self,
        loss: impl Fn(Range<usize>) -> Result<Tensor> + Sync,
        ready: &mut Ready<'_>,
    ) -> Result<()> {
        let takes_part = |micro: &usize| !self.rows(*micro).is_empty();
        let own: Vec<usize> = self.own().filter(takes_part).collect();
        let ranks = (0..self.communicator.size())
            .filter(|&rank| of_rank(self.n_micro(), self.communicator, rank).any(|micro| takes_part(&micro)));
        let mut sums: Vec<Vec<Sum>> = self.variables.packs().iter().map(|_| Vec::new()).collect();
        let mut all = Vec::new();
        if let Some(among) = self.communicator.among(ranks) {
            let kept = self.variables.kept().map(|(var, before)| (var.clone(), before.clone())).collect();
            let noises: Vec<Rng> = own.iter().map(|&micro| self.noise_of(micro)).collect();
            let turns = Turns::new(among, self.noise.clone(), &noises, kept);
            all = turns.run(|number| {
                let loss = loss(self.rows(own[number]))?;
                // The gradients of statistics are those of the sum of all losses, so each is weighted by its
                // number of examples.
                let Weights { of_gradients, of_rest } = self.weights[own[number]];
                let share = of_rest / of_gradients;
                let scaled = if share == 1.0 { loss.clone() } else { functions::mul_scalar(&loss, share)? };
                numbers_of(self.variables, &scaled, scalar(&loss)?, &mut |_, _| ())
            })?;
        }
        let mut all = own.into_iter().zip(all).peekable();
        for micro in self.own() {
            let numbers = all.next_if(|(number, _)| *number == micro);
            let numbers =
                numbers.map_or_else(|| Numbers::new(self.variables).take_all(), |(_, numbers)| numbers);
            for (sums, bytes) in sums.iter_mut().zip(numbers) {
                sums.push(Sum::of_micro(micro, bytes));
            }
        }
        sums.into_iter().for_each(ready);
        Ok(())
    }
}

/// Called for each variable whose gradient is complete.
type IsFinal<'a> = dyn FnMut(&mut Numbers<'_>, usize) + 'a;

/// The contribution of a micro-batch to the step: its gradients, the values that layers keep, and `value`, its
/// loss.
fn numbers_of(
    variables: &Variables,
    loss: &Tensor,
    value: f64,
    is_final: &mut IsFinal<'_>,
) -> Result<Vec<Vec<u8>>> {
    let mut numbers = Numbers::new(variables);
    let rest = backward_each(loss, &mut |id, gradient| {
        if let Some(place) = variables.place(id) {
            numbers.set(place, &gradient)?;
            is_final(&mut numbers, place);
        }
        Ok(())
    })?;
    numbers.finish(&rest, value)?;
    Ok(numbers.take_all())
}

fn scalar(loss: &Tensor) -> Result<f64> {
    Ok(loss.to_dtype(DType::F64)?.to_scalar::<f64>()?)
}

/// Micro-batches that run one after the other.
struct Apart {
    n_micro: usize,
}

impl Group for Apart {
    fn gather(&self, _: Vec<f64>) -> Result<Vec<Vec<f64>>> {
        let reason = "must be `step_together` for layers with statistics of all micro-batches, which does not run one after the other";
        Err(Error::invalid("step", reason, format!("{} micro-batches", self.n_micro)))
    }
}

/// Tells the other ranks of a panic.
struct AbortOnPanic<'a>(&'a Communicator);

impl Drop for AbortOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.abort("panicked");
        }
    }
}
