//! Several processes, or threads, that compute together: NNabla's communicators.
//!
//! A [`Communicator`] is what one rank has of the group. Its operations are collective: all ranks of the group call the same ones in
//! the same order. Sums are taken in the order of the ranks, so they are the same on every rank and in every run. Nothing waits for
//! ever: where a rank fails, or sends nothing for as long as the time limit, the operation is an error of the others that names it.
//!
//! [`Local`] runs threads of one process as ranks; [`Communicator::alone`] is the group of one. What another way of sending
//! messages has to do is [`Transport`].
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

/// How messages get from rank to rank.
///
/// Messages between two ranks arrive in the order in which they were sent.
pub trait Transport: Send + Sync {
    /// What it is called.
    fn name(&self) -> &'static str;

    /// The number of ranks.
    fn size(&self) -> usize;

    /// The number of this rank, from 0.
    fn rank(&self) -> usize;

    /// The number of this rank among those of its machine: that of the GPU to take.
    fn local_rank(&self) -> usize;

    /// Sends a message without waiting for the receiver.
    ///
    /// # Errors
    /// [`Error::Communication`] if a rank has failed.
    fn send(&self, to: usize, message: Vec<u8>) -> Result<()>;

    /// Waits for the next message of a rank, for as long as the time limit.
    ///
    /// # Errors
    /// [`Error::Communication`] if a rank has failed, or sent nothing in time.
    fn receive(&self, from: usize) -> Result<Vec<u8>>;

    /// Makes the operations of the other ranks fail.
    fn abort(&self, reason: &str);

    /// Replaces the values by their sums over all ranks, added up in any order. Returns false, and changes nothing, if the transport
    /// cannot add up.
    ///
    /// # Errors
    /// [`Error::Communication`] if a rank has failed, or does not come in time.
    fn sum(&self, _values: &mut [f32]) -> Result<bool> {
        Ok(false)
    }

    /// Whether tensors on the device of this one are sent by [`pass`](Self::pass).
    fn passes(&self, _tensor: &Tensor) -> bool {
        false
    }

    /// Sends tensors to ranks, and receives those that other ranks send at the same time: from GPU to GPU.
    ///
    /// # Errors
    /// [`Error::Communication`] if a rank has failed, or does not come in time.
    fn pass(&self, _outgoing: &[(usize, Tensor)], _incoming: &[Incoming]) -> Result<Vec<Tensor>> {
        Err(Error::communication(self.rank(), "has no other way for tensors than messages"))
    }
}

/// A tensor that a rank sends: the rank, and the type and the sizes of the tensor.
pub type Incoming = (usize, DType, Vec<usize>);

/// How long a rank waits for another one, if nothing else is said.
const TIME_LIMIT: Duration = Duration::from_secs(300);

/// The name of the group of all ranks.
const WORLD: &str = "world";

/// A group of ranks, as one of them sees it. A clone is the same group.
#[derive(Clone)]
pub struct Communicator {
    transport: Arc<dyn Transport>,
    /// The ranks of the transport that belong to this group.
    members: Arc<[usize]>,
    /// The place of this rank among them.
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

    /// A group of one, which sends nothing: the same program runs in one process.
    #[must_use]
    pub fn alone() -> Self {
        Self::new(Arc::new(local::Alone))
    }

    /// What the transport is called.
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

    /// Makes a group of some ranks of this one. All ranks must call this, also those that do not belong to the group; they get `None`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the name is taken, or a rank does not exist or stands there twice.
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

    /// The names of the groups that were made: `world`, and those of [`new_group`](Self::new_group).
    #[must_use]
    pub fn list_groups(&self) -> Vec<String> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// The group of this name, if there is one and this rank belongs to it.
    #[must_use]
    pub fn find_group(&self, name: &str) -> Option<Self> {
        let members = self.groups.lock().unwrap_or_else(PoisonError::into_inner).get(name)?.clone();
        self.of(members)
    }

    fn of(&self, members: Arc<[usize]>) -> Option<Self> {
        let rank = members.iter().position(|&member| member == self.transport.rank())?;
        Some(Self { members, rank, ..self.clone() })
    }

    /// Waits until every rank has come here.
    ///
    /// # Errors
    /// [`Error::Communication`] if a rank fails or does not come in time; so for all of these operations.
    pub fn barrier(&self) -> Result<()> {
        self.exchange(vec![Vec::new(); self.size()]).map(drop)
    }

    /// The tensors of the rank `root`, on every rank. The others give tensors of the same shapes and types.
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

    /// The sums of the tensors over all ranks, in the order of the ranks, or their means with `division`.
    ///
    /// Each rank adds up a part of every tensor and sends it to the others: as many bytes as there have to be.
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

    /// As [`all_reduce`](Self::all_reduce), on the rank `root` alone; the others get `None`.
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

    /// The tensors of all ranks, by rank; the first axis may differ.
    ///
    /// # Errors
    /// As [`barrier`](Self::barrier).
    pub fn all_gather(&self, tensor: &Tensor) -> Result<Vec<Tensor>> {
        self.trade(&vec![tensor; self.size()], tensor)
    }

    /// Each rank gives a tensor for every rank; gets the sum of those for itself, or their mean with `division`.
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

    /// Gives the parameters of all ranks the values that rank 0 has.
    ///
    /// # Errors
    /// [`Error::Communication`] if another rank has other parameters than rank 0; it names the first path that differs. Nothing has
    /// changed then.
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
    /// [`Error::Communication`] on every rank, with the first path that differs and the rank.
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

    /// Ends the work of all ranks: their next operations are errors that say `reason`.
    pub fn abort(&self, reason: &str) {
        self.transport.abort(reason);
    }

    /// Runs `f` with this group as that of [`sync_batch_normalization`](crate::sync_batch_normalization()): its statistics and their
    /// gradients are those of the inputs of all ranks together, and every rank's running statistics move alike.
    ///
    /// All ranks call the same layers, in `f` and in the backward pass. The gradients are those of the sum of all ranks' losses; to
    /// be added up, with [`all_reduce`](Self::all_reduce), or averaged where the batches are of one size. The statistics depend
    /// on how the batch is cut; for bits that do not, see
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

    /// The sums over all ranks, in the order that is fastest.
    pub(crate) fn fast_sum(&self, mut values: Vec<f32>) -> Result<Vec<f32>> {
        let is_world = self.size() == self.transport.size();
        if self.size() == 1 || is_world && self.transport.sum(&mut values)? {
            return Ok(values);
        }
        self.sum(values)
    }

    /// Some of the ranks as a group without a name; none if this rank does not belong to it.
    pub(crate) fn among(&self, ranks: impl Iterator<Item = usize>) -> Option<Self> {
        self.of(ranks.map(|rank| self.members[rank]).collect())
    }

    /// What the parts of all ranks are, by rank. All are of one length.
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

    /// Sends a message to each rank and gets one of each. That of this rank to itself stays here.
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

    /// Sends a tensor to each rank and gets one of each, by rank. That of this rank to itself stays here.
    fn trade(&self, tensors: &[&Tensor], own: &Tensor) -> Result<Vec<Tensor>> {
        let outgoing: Vec<_> = self.others().map(|rank| (rank, tensors[rank])).collect();
        let senders: Vec<_> = self.senders().collect();
        let mut traded = vec![own.clone(); self.size()];
        for (rank, tensor) in senders.iter().zip(self.pass(&outgoing, &senders, own)?) {
            traded[*rank] = tensor;
        }
        Ok(traded)
    }

    /// Sends tensors to ranks and gets one of each of others, to where `place` lies. From GPU to GPU, if the transport can do that.
    fn pass(&self, outgoing: &[(usize, &Tensor)], incoming: &[usize], place: &Tensor) -> Result<Vec<Tensor>> {
        let (mut passed_on, mut last) = (Vec::new(), None);
        for &(rank, tensor) in outgoing {
            if self.transport.passes(tensor) {
                self.send(rank, to_head(tensor)?)?;
                passed_on.push((self.members[rank], tensor.clone()));
                continue;
            }
            // The same tensor often goes to all.
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

    /// A tensor of a rank that is to be like another one.
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
