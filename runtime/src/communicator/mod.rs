//! Several processes, or threads, that compute together, like NNabla's communicators.
//!
//! A [`Communicator`] is the view of one rank on its group. Its operations are collective: all ranks of the
//! group must call the same ones in the same order. Sums are taken in the order of the ranks, so they are the
//! same on every rank and in every run. Nothing waits forever: if a rank fails, or sends nothing within the
//! time limit, the operation returns an error on the other ranks that names it.
//!
//! [`Local`] runs threads of one process as ranks; [`Communicator::alone`] is the group of one. Implement
//! [`Transport`] for other ways of sending messages.
//!
//! For a training that gives the same bits with any number of ranks, see
//! [`DataParallel`](crate::training::DataParallel).

mod bytes;
mod local;
#[cfg(feature = "mpi")]
mod mpi;
#[cfg(feature = "nccl")]
mod nccl;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use candle_core::{DType, Device, Tensor, WithDType};
use indexmap::IndexMap;

use bytes::{from_bytes, from_head, to_bytes, to_head};
pub(crate) use bytes::{from_numbers, to_numbers};
pub use local::Local;
#[cfg(feature = "mpi")]
pub use mpi::Mpi;
#[cfg(feature = "nccl")]
pub use nccl::Nccl;

use crate::group::{self, Group};
use crate::{Error, Parameters, Result, context};

/// A way of sending messages from rank to rank.
///
/// Messages between two ranks must arrive in the order in which they were sent.
pub trait Transport: Send + Sync {
    /// Returns its name.
    fn name(&self) -> &'static str;

    /// Returns the number of ranks.
    fn size(&self) -> usize;

    /// Returns the number of this rank, from 0.
    fn rank(&self) -> usize;

    /// Returns the number of this rank among those of its machine, which is that of the GPU to use.
    fn local_rank(&self) -> usize;

    /// Sends a message without waiting for the receiver.
    ///
    /// # Errors
    /// [`Error::Communication`] if a rank has failed.
    fn send(&self, to: usize, message: Vec<u8>) -> Result<()>;

    /// Waits for the next message of a rank, up to the time limit.
    ///
    /// # Errors
    /// [`Error::Communication`] if a rank has failed, or sent nothing in time.
    fn receive(&self, from: usize) -> Result<Vec<u8>>;

    /// Makes the operations of the other ranks fail.
    fn abort(&self, reason: &str);

    /// Replaces the values by their sums over all ranks, added up in any order. Returns false, and changes
    /// nothing, if the transport does not support it.
    ///
    /// # Errors
    /// [`Error::Communication`] if a rank has failed, or does not call this in time.
    fn sum(&self, _values: &mut [f32]) -> Result<bool> {
        Ok(false)
    }

    /// Whether [`pass`](Self::pass) can send tensors on the device of this one.
    fn passes(&self, _tensor: &Tensor) -> bool {
        false
    }

    /// Sends tensors to ranks, and receives those that other ranks send at the same time, from GPU to GPU.
    ///
    /// # Errors
    /// [`Error::Communication`] if a rank has failed, or does not call this in time.
    fn pass(&self, _outgoing: &[(usize, Tensor)], _incoming: &[Incoming]) -> Result<Vec<Tensor>> {
        Err(Error::communication(self.rank(), "has no other way for tensors than messages"))
    }
}

/// A tensor to receive: the rank of the sender, and the type and the sizes of the tensor.
pub type Incoming = (usize, DType, Vec<usize>);

/// Default time that a rank waits for another one.
const TIME_LIMIT: Duration = Duration::from_secs(300);

/// The name of the group of all ranks.
const WORLD: &str = "world";

/// A group of ranks, seen from one of them. A clone is another handle to the same group.
#[derive(Clone)]
pub struct Communicator {
    transport: Arc<dyn Transport>,
    /// The ranks of the transport that belong to this group.
    members: Arc<[usize]>,
    /// The index of this rank among them.
    rank: usize,
    groups: Arc<Mutex<IndexMap<String, Arc<[usize]>>>>,
}

impl Communicator {
    /// All ranks of a transport.
    #[must_use]
    pub fn new(transport: Arc<dyn Transport>) -> Self {
        let members: Arc<[usize]> = (0..transport.size()).collect();
        let groups = IndexMap::from([(WORLD.to_owned(), members.clone())]);
        Self { rank: transport.rank(), transport, members, groups: Arc::new(Mutex::new(groups)) }
    }

    /// A group of one, which sends nothing, so that the same program runs in a single process.
    #[must_use]
    pub fn alone() -> Self {
        Self::new(Arc::new(local::Alone))
    }

    /// Returns the name of the transport.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.transport.name()
    }

    /// The number of ranks.
    #[must_use]
    pub fn size(&self) -> usize {
        self.members.len()
    }

    /// The number of this rank, from 0.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// The number of this rank among those of its machine.
    #[must_use]
    pub fn local_rank(&self) -> usize {
        self.transport.local_rank()
    }

    /// Makes a group of some of the ranks. All ranks must call this, including those that do not belong to the
    /// group; they get `None`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the name is taken, or a rank does not exist or is repeated.
    pub fn new_group(&self, name: &str, ranks: &[usize]) -> Result<Option<Self>> {
        let mut members = Vec::new();
        for &rank in ranks {
            let Some(&member) = self.members.get(rank) else {
                let reason = format!("must be ranks below {}", self.size());
                return Err(Error::invalid("ranks", reason, ranks));
            };
            if members.contains(&member) {
                return Err(Error::invalid("ranks", "must not contain a rank twice", ranks));
            }
            members.push(member);
        }
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        if groups.contains_key(name) {
            return Err(Error::invalid("name", "must differ from the names of the other groups", name));
        }
        groups.insert(name.to_owned(), members.clone().into());
        drop(groups);
        Ok(self.of(members.into()))
    }

    /// Returns the names of the groups: `world`, and those of [`new_group`](Self::new_group).
    #[must_use]
    pub fn list_groups(&self) -> Vec<String> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// Returns the group of this name, if there is one and this rank belongs to it.
    #[must_use]
    pub fn find_group(&self, name: &str) -> Option<Self> {
        let members = self.groups.lock().unwrap_or_else(PoisonError::into_inner).get(name)?.clone();
        self.of(members)
    }

    fn of(&self, members: Arc<[usize]>) -> Option<Self> {
        let rank = members.iter().position(|&member| member == self.transport.rank())?;
        Some(Self { members, rank, ..self.clone() })
    }

    /// Waits until every rank has called this.
    ///
    /// # Errors
    /// [`Error::Communication`] if a rank fails or does not arrive in time, as for all of these operations.
    pub fn barrier(&self) -> Result<()> {
        self.exchange(vec![Vec::new(); self.size()]).map(drop)
    }

    /// Returns the tensors of the rank `root` on every rank. The others must pass tensors of the same shapes
    /// and types.
    ///
    /// # Errors
    /// As [`barrier`](Self::barrier); [`Error::InvalidArgument`] if there is no such rank or the shapes differ.
    pub fn broadcast(&self, tensors: &[Tensor], root: usize) -> Result<Vec<Tensor>> {
        self.check_rank(root)?;
        if self.rank == root {
            for tensor in tensors {
                let outgoing: Vec<_> = self.others().map(|rank| (rank, tensor)).collect();
                self.pass(&outgoing, &[], tensor)?;
            }
            return Ok(tensors.to_vec());
        }
        tensors.iter().map(|tensor| self.one_like(root, tensor)).collect()
    }

    /// Returns the sums of the tensors over all ranks, in the order of the ranks, or their means with
    /// `division`.
    ///
    /// Each rank adds up a part of every tensor and sends it to the others, so that no more bytes than
    /// necessary are sent.
    ///
    /// # Errors
    /// As [`broadcast`](Self::broadcast).
    pub fn all_reduce(&self, tensors: &[Tensor], division: bool) -> Result<Vec<Tensor>> {
        let one = |tensor: &Tensor| {
            let flat = tensor.flatten_all()?;
            let parts = (0..self.size()).map(|rank| self.part(&flat, rank)).collect::<Result<Vec<_>>>()?;
            let own = self.reduce_scatter(&parts, division)?;
            Ok(Tensor::cat(&self.all_gather(&own)?, 0)?.reshape(tensor.shape())?)
        };
        tensors.iter().map(one).collect()
    }

    /// As [`all_reduce`](Self::all_reduce), but only the rank `root` gets the result; the others get `None`.
    ///
    /// # Errors
    /// As [`broadcast`](Self::broadcast).
    pub fn reduce(&self, tensors: &[Tensor], root: usize, division: bool) -> Result<Option<Vec<Tensor>>> {
        self.check_rank(root)?;
        if self.rank != root {
            for tensor in tensors {
                self.pass(&[(root, tensor)], &[], tensor)?;
            }
            return Ok(None);
        }
        let one = |tensor: &Tensor| {
            let of_rank = |rank: usize| match rank == root {
                true => Ok(tensor.clone()),
                false => self.one_like(rank, tensor),
            };
            self.sum_of((0..self.size()).map(of_rank), division)
        };
        tensors.iter().map(one).collect::<Result<_>>().map(Some)
    }

    /// Returns the tensors of all ranks, by rank; their first axes may differ.
    ///
    /// # Errors
    /// As [`barrier`](Self::barrier).
    pub fn all_gather(&self, tensor: &Tensor) -> Result<Vec<Tensor>> {
        self.trade(&vec![tensor; self.size()], tensor)
    }

    /// Each rank passes one tensor for every rank, and gets the sum of those for itself, or their mean with
    /// `division`.
    ///
    /// # Errors
    /// As [`broadcast`](Self::broadcast); [`Error::InvalidArgument`] if there are not as many tensors as ranks.
    pub fn reduce_scatter(&self, tensors: &[Tensor], division: bool) -> Result<Tensor> {
        if tensors.len() != self.size() {
            let reason = format!("must be one for each of the {} ranks", self.size());
            return Err(Error::invalid("tensors", reason, tensors.len()));
        }
        let own = &tensors[self.rank];
        let traded = self.trade(&tensors.iter().collect::<Vec<_>>(), own)?;
        self.sum_of(
            traded.into_iter().enumerate().map(|(rank, tensor)| self.alike(rank, tensor, own)),
            division,
        )
    }

    /// Copies the values of the parameters of rank 0 to all ranks.
    ///
    /// # Errors
    /// [`Error::Communication`] if another rank has other parameters than rank 0; it names the first path that
    /// differs. Nothing is changed then.
    pub fn broadcast_parameters(&self, parameters: &Parameters) -> Result<()> {
        self.check_alike(parameters, false)?;
        for (_, parameter) in parameters.iter() {
            let value = self.broadcast(&[parameter.var().as_detached_tensor()], 0)?.swap_remove(0);
            if self.rank != 0 {
                parameter.var().set(&value)?;
            }
        }
        Ok(())
    }

    /// Checks that all ranks have the same parameters: paths, shapes, types and values.
    ///
    /// # Errors
    /// [`Error::Communication`] on every rank, with the rank and the first path that differs.
    pub fn check_parameters(&self, parameters: &Parameters) -> Result<()> {
        self.check_alike(parameters, true)
    }

    fn check_alike(&self, parameters: &Parameters, with_values: bool) -> Result<()> {
        let line = |(path, parameter): (&str, &crate::Parameter)| {
            let tensor = parameter.var().as_detached_tensor();
            let hash = if with_values { crc32c::crc32c(&to_bytes(&tensor)?) } else { 0 };
            Ok(format!("{path}\t{:?} of {:?}\t{hash:08x}", tensor.dtype(), tensor.dims()))
        };
        let lines = parameters.iter().map(line).collect::<Result<Vec<_>>>()?;
        let messages = self.exchange(vec![lines.join("\n").into_bytes(); self.size()])?;
        let text = |rank: usize| match rank == self.rank {
            true => lines.join("\n"),
            false => String::from_utf8_lossy(&messages[rank]).into_owned(),
        };
        let first = text(0);
        for rank in 1..self.size() {
            let other = text(rank);
            if let Some(reason) = difference(&first, &other) {
                return Err(Error::communication(rank, reason));
            }
        }
        Ok(())
    }

    /// Aborts the work of all ranks: their next operations return errors that say `reason`.
    pub fn abort(&self, reason: &str) {
        self.transport.abort(reason);
    }

    /// Runs `f` with this group as that of [`sync_batch_normalization`](crate::sync_batch_normalization()): its
    /// statistics and their gradients are those of the inputs of all ranks together, and the running statistics
    /// of every rank are updated equally.
    ///
    /// All ranks must call the same layers, in `f` and in the backward pass. The gradients are those of the sum
    /// of all ranks' losses; add them up with [`all_reduce`](Self::all_reduce), or average them if the batches
    /// have the same size. The statistics depend on how the batch is split; for results that do not, see
    /// [`DataParallel::step_together`](crate::training::DataParallel::step_together).
    ///
    /// ```
    /// use candle_core::{Device, Tensor};
    /// use layerfn::{communicator::Local, sync_batch_normalization};
    ///
    /// let outputs = Local::new(2).run(|communicator| {
    ///     let x = Tensor::new(&[[communicator.rank() as f32]], &Device::Cpu)?;
    ///     let y = communicator.enter(|| sync_batch_normalization(&x).eps(0.0).call())?;
    ///     Ok(y.to_vec2::<f32>()?[0][0])
    /// })?;
    /// assert_eq!(outputs, [-1.0, 1.0]);
    /// # Ok::<(), layerfn::Error>(())
    /// ```
    pub fn enter<R>(&self, f: impl FnOnce() -> R) -> R {
        context::enter_group(Some(Arc::new(self.clone())), f)
    }

    /// The sums over all ranks, in the order of the ranks.
    pub(crate) fn sum<T: WithDType>(&self, values: Vec<T>) -> Result<Vec<T>> {
        let n = values.len();
        let sums = self.all_reduce(&[Tensor::from_vec(values, n, &Device::Cpu)?], false)?;
        Ok(sums[0].to_vec1()?)
    }

    /// The sums over all ranks, in the fastest order.
    pub(crate) fn fast_sum(&self, mut values: Vec<f32>) -> Result<Vec<f32>> {
        let is_world = self.size() == self.transport.size();
        if self.size() == 1 || is_world && self.transport.sum(&mut values)? {
            return Ok(values);
        }
        self.sum(values)
    }

    /// Some of the ranks as an unnamed group; `None` if this rank does not belong to it.
    pub(crate) fn among(&self, ranks: impl Iterator<Item = usize>) -> Option<Self> {
        self.of(ranks.map(|rank| self.members[rank]).collect())
    }

    /// The parts of all ranks, by rank. All have the same length.
    pub(crate) fn gather_parts(&self, own: Vec<Vec<f64>>) -> Result<Vec<Vec<f64>>> {
        let n = own.first().map_or(0, Vec::len);
        let header = [n as f64, own.len() as f64];
        let message = from_numbers([&header[..]].into_iter().chain(own.iter().map(Vec::as_slice)));
        let messages = self.exchange(vec![message; self.size()])?;
        let mut own = Some(own);
        let mut parts = Vec::new();
        for (rank, message) in messages.into_iter().enumerate() {
            if rank == self.rank {
                parts.extend(own.take().unwrap_or_default());
                continue;
            }
            let values = to_numbers(&message);
            match values.split_first_chunk::<2>() {
                Some((&[length, count], values))
                    if length == n as f64 && values.len() as f64 == count * length && n > 0 =>
                {
                    parts.extend(values.chunks(n).map(<[f64]>::to_vec));
                }
                _ => return Err(Error::communication(rank, group::UNLIKE)),
            }
        }
        Ok(parts)
    }

    /// Sends a message to each rank and receives one from each. The message to this rank itself is not sent.
    pub(crate) fn exchange(&self, mut messages: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>> {
        for rank in self.others() {
            self.send(rank, std::mem::take(&mut messages[rank]))?;
        }
        for rank in self.senders() {
            messages[rank] = self.receive(rank)?;
        }
        Ok(messages)
    }

    /// The other ranks, in the order in which this one sends to them all.
    fn others(&self) -> impl Iterator<Item = usize> {
        let (rank, size) = (self.rank, self.size());
        (1..size).map(move |step| (rank + step) % size)
    }

    /// The other ranks, in the order in which they send to this one if all send to all.
    fn senders(&self) -> impl Iterator<Item = usize> {
        let (rank, size) = (self.rank, self.size());
        (1..size).map(move |step| (rank + size - step) % size)
    }

    /// Sends a tensor to each rank and receives one from each, by rank. The tensor for this rank itself is not
    /// sent.
    fn trade(&self, tensors: &[&Tensor], own: &Tensor) -> Result<Vec<Tensor>> {
        let outgoing: Vec<_> = self.others().map(|rank| (rank, tensors[rank])).collect();
        let senders: Vec<_> = self.senders().collect();
        let mut traded = vec![own.clone(); self.size()];
        for (rank, tensor) in senders.iter().zip(self.pass(&outgoing, &senders, own)?) {
            traded[*rank] = tensor;
        }
        Ok(traded)
    }

    /// Sends tensors to ranks and receives tensors from others, on the device of `place`; from GPU to GPU, if
    /// the transport supports that.
    fn pass(&self, outgoing: &[(usize, &Tensor)], incoming: &[usize], place: &Tensor) -> Result<Vec<Tensor>> {
        let (mut passed_on, mut last) = (Vec::new(), None);
        for &(rank, tensor) in outgoing {
            if self.transport.passes(tensor) {
                self.send(rank, to_head(tensor)?)?;
                passed_on.push((self.members[rank], tensor.clone()));
                continue;
            }
            // The same tensor often goes to all ranks.
            let message = match last.take() {
                Some((id, message)) if id == tensor.id() => message,
                _ => to_bytes(tensor)?,
            };
            self.send(rank, message.clone())?;
            last = Some((tensor.id(), message));
        }
        let messages = incoming.iter().map(|&rank| self.receive(rank)).collect::<Result<Vec<_>>>()?;
        let heads: Vec<_> = messages.iter().map(|message| from_head(message)).collect();
        let apart = heads
            .iter()
            .zip(incoming)
            .filter_map(|(head, &rank)| head.clone().map(|(dtype, dims)| (self.members[rank], dtype, dims)));
        let apart: Vec<Incoming> = apart.collect();
        let passed = match passed_on.is_empty() && apart.is_empty() {
            true => Vec::new(),
            false => self.transport.pass(&passed_on, &apart)?,
        };
        let mut passed = passed.into_iter();
        let tensor = |((head, message), &rank): ((&Option<_>, &Vec<u8>), &usize)| match head {
            Some(_) => Ok(passed.next().ok_or_else(|| self.no_tensor(rank))?.to_device(place.device())?),
            None => from_bytes(message, place.device())?.ok_or_else(|| self.no_tensor(rank)),
        };
        heads.iter().zip(&messages).zip(incoming).map(tensor).collect()
    }

    fn send(&self, rank: usize, message: Vec<u8>) -> Result<()> {
        self.transport.send(self.members[rank], message).map_err(|error| self.named(rank, error))
    }

    fn receive(&self, rank: usize) -> Result<Vec<u8>> {
        self.transport.receive(self.members[rank]).map_err(|error| self.named(rank, error))
    }

    /// The part of a flat tensor that this rank adds up.
    fn part(&self, flat: &Tensor, rank: usize) -> Result<Tensor> {
        let n = flat.elem_count();
        let (start, end) = (n * rank / self.size(), n * (rank + 1) / self.size());
        Ok(flat.narrow(0, start, end - start)?)
    }

    fn sum_of(&self, tensors: impl Iterator<Item = Result<Tensor>>, division: bool) -> Result<Tensor> {
        let sum = tensors.reduce(|sum, tensor| Ok((sum? + tensor?)?));
        let sum = sum.unwrap_or_else(|| Err(Error::invalid("ranks", "must be at least one", 0)))?;
        Ok(if division { (sum / self.size() as f64)? } else { sum })
    }

    /// A tensor of a rank that must have the shape and type of another one.
    fn one_like(&self, rank: usize, like: &Tensor) -> Result<Tensor> {
        let tensor = self.pass(&[], &[rank], like)?.pop().ok_or_else(|| self.no_tensor(rank))?;
        self.alike(rank, tensor, like)
    }

    fn alike(&self, rank: usize, tensor: Tensor, like: &Tensor) -> Result<Tensor> {
        if tensor.dims() != like.dims() || tensor.dtype() != like.dtype() {
            let reason = format!(
                "has sent a tensor of {:?} with shape {:?} where rank {} has {:?} with shape {:?}",
                tensor.dtype(),
                tensor.dims(),
                self.rank,
                like.dtype(),
                like.dims()
            );
            return Err(Error::communication(rank, reason));
        }
        Ok(tensor)
    }

    fn no_tensor(&self, rank: usize) -> Error {
        let reason = format!(
            "has sent something else than a tensor to rank {}: all call the same operations",
            self.rank
        );
        Error::communication(rank, reason)
    }

    /// The error with the rank's number in this group.
    fn named(&self, rank: usize, error: Error) -> Error {
        match error {
            Error::Communication { rank: member, reason } if self.members.get(rank) == Some(&member) => {
                Error::Communication { rank, reason }
            }
            other => other,
        }
    }

    fn check_rank(&self, root: usize) -> Result<()> {
        if root < self.size() {
            return Ok(());
        }
        Err(Error::invalid("root", format!("must be a rank below {}", self.size()), root))
    }
}

/// The first parameter in which two lists differ.
fn difference(first: &str, other: &str) -> Option<String> {
    let (mut first, mut other) = (first.lines(), other.lines());
    loop {
        let (a, b) = match (first.next(), other.next()) {
            (None, None) => return None,
            (Some(a), Some(b)) if a == b => continue,
            pair => pair,
        };
        let path =
            |line: Option<&str>| line.and_then(|line| line.split('\t').next()).unwrap_or("none").to_owned();
        let form =
            |line: Option<&str>| line.and_then(|line| line.split('\t').nth(1)).unwrap_or("").to_owned();
        return Some(if path(a) != path(b) {
            format!("has the parameter `{}` where rank 0 has `{}`", path(b), path(a))
        } else if form(a) != form(b) {
            format!("has the parameter `{}` as {}, rank 0 as {}", path(a), form(b), form(a))
        } else {
            format!("has other values in the parameter `{}` than rank 0", path(a))
        });
    }
}

impl Group for Communicator {
    fn gather(&self, own: Vec<f64>) -> Result<Vec<Vec<f64>>> {
        self.gather_parts(vec![own])
    }
}

impl fmt::Debug for Communicator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Communicator")
            .field("name", &self.name())
            .field("rank", &self.rank)
            .field("size", &self.size())
            .finish_non_exhaustive()
    }
}
