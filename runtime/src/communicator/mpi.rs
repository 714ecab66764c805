//! Processes started by `mpirun`.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, OnceLock, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use mpi::Threading;
use mpi::collective::SystemOperation;
use mpi::environment::Universe;
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator as _, CommunicatorCollectives, Destination, MatchedReceiveVec, Source};

use super::{Communicator, TIME_LIMIT, Transport};
use crate::{Error, Result};

/// Size in bytes of each piece of a message but the last, which is smaller; MPI counts in 31 bits.
const PIECE: usize = 1 << 30;

/// How long a rank sleeps between two checks for a message, after the first ones.
const PAUSE: Duration = Duration::from_micros(50);

/// A channel for messages to one rank, and the thread that sends them.
type Outgoing = (mpsc::Sender<Vec<u8>>, JoinHandle<()>);

/// Ranks that are processes, started by `mpirun`. Requires the feature `mpi`, which needs an MPI library and
/// libclang to build.
///
/// If a rank dies, `mpirun` ends the others; if one hangs, the operation returns an error after the time limit.
/// MPI cannot shut down cleanly without all ranks. So if the last communicator of a rank is dropped after such
/// an error or by a panic, all processes end, with a message that says why. [`Communicator::abort`] ends them
/// at once.
///
/// ```no_run
/// use layerfn::communicator::Mpi;
///
/// let communicator = Mpi::new()?.communicator();
/// println!("rank {} of {}", communicator.rank(), communicator.size());
/// # Ok::<(), layerfn::Error>(())
/// ```
pub struct Mpi {
    rank: usize,
    size: usize,
    local_rank: usize,
    limit: Duration,
    /// A sending thread for each receiver: a message may have to wait for its receiver, and must not delay
    /// those to others.
    senders: Mutex<HashMap<usize, Outgoing>>,
    /// The failure of another rank because of which this one has stopped waiting.
    failed: OnceLock<String>,
    /// Finalizes MPI when dropped.
    _universe: Universe,
}

impl Mpi {
    /// All processes of this run; a single one, if the program was started without `mpirun`.
    ///
    /// # Errors
    /// [`Error::Communication`] if MPI is already running in this process, or only allows calls from one
    /// thread.
    pub fn new() -> Result<Self> {
        let refused = |reason: &str| Error::communication(0, reason);
        let Some((universe, threading)) = mpi::initialize_with_threading(Threading::Multiple) else {
            return Err(refused("has begun with MPI already; make one `Mpi` in a process"));
        };
        if threading != Threading::Multiple {
            return Err(refused("has an MPI library that was built without MPI_THREAD_MULTIPLE"));
        }
        let world = universe.world();
        let (rank, size) = (world.rank() as usize, world.size() as usize);
        let local_rank = world.split_shared(world.rank()).rank() as usize;
        let limit = TIME_LIMIT;
        let (senders, failed) = (Mutex::default(), OnceLock::new());
        Ok(Self { rank, size, local_rank, limit, senders, failed, _universe: universe })
    }

    /// Sets how long a rank waits for a message of another one. Default: five minutes.
    #[must_use]
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// The group of all processes.
    #[must_use]
    pub fn communicator(self) -> Communicator {
        Communicator::new(std::sync::Arc::new(self))
    }

    /// The next piece of a message: the last one is smaller than [`PIECE`].
    fn piece(&self, from: usize, end: Instant) -> Result<Vec<u8>> {
        let world = SimpleCommunicator::world();
        let process = world.process_at_rank(from as i32);
        let mut looks = Looks::default();
        loop {
            if let Some(message) = process.immediate_matched_probe() {
                return Ok(message.matched_receive_vec::<u8>().0);
            }
            if Instant::now() > end {
                let error = Error::communication(from, format!("has sent nothing for {:?}", self.limit));
                self.failed.get_or_init(|| error.to_string());
                return Err(error);
            }
            looks.pause();
        }
    }
}

/// Counts how often a thread has checked for something.
#[derive(Default)]
struct Looks(u32);

impl Looks {
    fn pause(&mut self) {
        self.0 = self.0.saturating_add(1);
        if self.0 < 1000 { thread::yield_now() } else { thread::sleep(PAUSE) }
    }
}

impl Transport for Mpi {
    fn name(&self) -> &'static str {
        "mpi"
    }

    fn size(&self) -> usize {
        self.size
    }

    fn rank(&self) -> usize {
        self.rank
    }

    fn local_rank(&self) -> usize {
        self.local_rank
    }

    fn send(&self, to: usize, message: Vec<u8>) -> Result<()> {
        let mut senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        let (outgoing, _) = match senders.entry(to) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(sender(to).map_err(|error| {
                Error::communication(self.rank, format!("cannot start a thread that sends: {error}"))
            })?),
        };
        outgoing.send(message).map_err(|_| {
            Error::communication(self.rank, format!("has lost the thread that sends to rank {to}"))
        })
    }

    fn receive(&self, from: usize) -> Result<Vec<u8>> {
        let end = Instant::now() + self.limit;
        let mut message = self.piece(from, end)?;
        let mut is_over = message.len() < PIECE;
        while !is_over {
            let piece = self.piece(from, end)?;
            is_over = piece.len() < PIECE;
            message.extend(piece);
        }
        Ok(message)
    }

    fn sum(&self, values: &mut [f32]) -> Result<bool> {
        let world = SimpleCommunicator::world();
        for values in values.chunks_mut(PIECE / size_of::<f32>()) {
            let (own, end) = (values.to_vec(), Instant::now() + self.limit);
            mpi::request::scope(|scope| {
                let mut looks = Looks::default();
                let mut sum =
                    world.immediate_all_reduce_into(scope, &own[..], &mut *values, SystemOperation::sum());
                while let Err(pending) = sum.test() {
                    sum = pending;
                    if Instant::now() > end {
                        // MPI writes to the values until all ranks have arrived.
                        self.abort(&format!("a sum of all ranks has not ended for {:?}", self.limit));
                    }
                    looks.pause();
                }
            });
        }
        Ok(true)
    }

    fn abort(&self, reason: &str) {
        eprintln!("error: rank {}: {reason}", self.rank);
        SimpleCommunicator::world().abort(1);
    }
}

/// A thread that sends messages to one rank.
fn sender(to: usize) -> std::io::Result<Outgoing> {
    let (outgoing, messages) = mpsc::channel::<Vec<u8>>();
    let run = move || {
        let world = SimpleCommunicator::world();
        let process = world.process_at_rank(to as i32);
        let send = |piece: &[u8]| {
            mpi::request::scope(|scope| {
                let (mut looks, mut send) = (Looks::default(), process.immediate_send(scope, piece));
                // MPI's own wait keeps a processor busy until the receiver arrives.
                while let Err(pending) = send.test() {
                    send = pending;
                    looks.pause();
                }
            });
        };
        for message in messages {
            let pieces = message.chunks_exact(PIECE);
            let last = pieces.remainder();
            pieces.for_each(&send);
            send(last);
        }
    };
    Ok((outgoing, thread::Builder::new().name(format!("to rank {to}")).spawn(run)?))
}

impl Drop for Mpi {
    fn drop(&mut self) {
        // A sender may wait for the rank that hangs, and so would the finalization of MPI.
        if let Some(reason) = self.failed.get() {
            self.abort(reason);
        } else if thread::panicking() {
            self.abort("panicked");
        }
        let senders = self.senders.get_mut().unwrap_or_else(PoisonError::into_inner);
        for (_, (outgoing, thread)) in senders.drain() {
            drop(outgoing); // the thread ends when it has sent everything
            // A panic there has already been reported as an error of a rank.
            let _ = thread.join();
        }
    }
}
