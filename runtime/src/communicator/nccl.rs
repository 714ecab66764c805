//! Communication between GPUs.

use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use candle_core::cuda_backend::cudarc::driver::{CudaSlice, DeviceRepr, DriverError, ValidAsZeroBits};
use candle_core::cuda_backend::cudarc::nccl::result::NcclError;
use candle_core::cuda_backend::cudarc::nccl::{Comm, Id, NcclType, ReduceOp, group_end, group_start};
use candle_core::cuda_backend::{CudaDType, CudaDevice, CudaStorage};
use candle_core::op::BackpropOp;
use candle_core::{DType, Device, Storage, Tensor};
use half::{bf16, f16};

use super::{Communicator, Incoming, TIME_LIMIT, Transport};
use crate::{Error, Result};

/// Ranks with a GPU each, whose tensors are sent from GPU to GPU. Requires the feature `nccl`, which needs the
/// CUDA toolkit and NCCL to build.
///
/// Another group, of [`Mpi`](super::Mpi) or [`Local`](super::Local), provides the ranks and sends everything
/// that is not on the GPUs.
///
/// ```no_run
/// use candle_core::Device;
/// use layerfn::communicator::{Local, Nccl};
///
/// // Two GPUs in one process. With the feature `mpi`, `Mpi::new()?.communicator()` is a group of processes.
/// Local::new(2).run(|communicator| {
///     let device = Device::new_cuda(communicator.local_rank())?;
///     let communicator = Nccl::new(&communicator, &device)?.communicator();
///     assert_eq!(communicator.name(), "nccl");
///     Ok(())
/// })?;
/// # Ok::<(), layerfn::Error>(())
/// ```
#[derive(Debug)]
pub struct Nccl {
    group: Communicator,
    device: Device,
    limit: Duration,
    /// Sends jobs to the thread that NCCL runs in.
    jobs: Mutex<mpsc::Sender<Job>>,
}

impl Nccl {
    /// Makes a group of GPUs from the ranks of `group`, where this rank uses `device`. All ranks must call
    /// this, each with a different GPU.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if `device` is not a GPU; [`Error::Communication`] if NCCL does not start
    /// (set the environment variable `NCCL_DEBUG=WARN` to see why), or if a rank fails.
    pub fn new(group: &Communicator, device: &Device) -> Result<Self> {
        let Device::Cuda(cuda) = device else {
            return Err(Error::invalid("device", "must be an NVIDIA GPU", device.location()));
        };
        let (rank, size) = (group.rank(), group.size());
        let failed =
            move |error: NcclError| Error::communication(rank, format!("cannot start NCCL: {:?}", error.0));
        let id = if rank == 0 { Id::new().map_err(failed)? } else { Id::uninit([0; 128]) };
        let bytes: Vec<u8> = id.internal().iter().map(|&byte| byte as u8).collect();
        let bytes = group.broadcast(&[Tensor::from_vec(bytes, 128, &Device::Cpu)?], 0)?[0].to_vec1::<u8>()?;
        let mut internal = [0; 128];
        internal.iter_mut().zip(bytes).for_each(|(to, byte)| *to = byte as _);
        let (jobs, incoming) = mpsc::channel();
        let (started, start) = mpsc::channel();
        let cuda = cuda.clone();
        // The NCCL handle must stay in one thread.
        let run = move || match Comm::from_rank(cuda.cuda_stream(), rank, size, Id::uninit(internal)) {
            Ok(comm) => {
                let _ = started.send(Ok(()));
                serve(&comm, &cuda, incoming);
            }
            Err(error) => {
                let _ = started.send(Err(failed(error)));
            }
        };
        thread::Builder::new().name("nccl".to_owned()).spawn(run).map_err(|error| {
            Error::communication(rank, format!("cannot start a thread for NCCL: {error}"))
        })?;
        let nccl =
            Self { group: group.clone(), device: device.clone(), limit: TIME_LIMIT, jobs: Mutex::new(jobs) };
        nccl.wait(&start)??;
        Ok(nccl)
    }

    /// Sets how long a rank waits for the others in an operation of the GPUs. Default: five minutes.
    #[must_use]
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// The group of all ranks.
    #[must_use]
    pub fn communicator(self) -> Communicator {
        Communicator::new(Arc::new(self))
    }

    fn wait<T>(&self, answer: &mpsc::Receiver<T>) -> Result<T> {
        answer.recv_timeout(self.limit).map_err(|error| {
            let reason = match error {
                mpsc::RecvTimeoutError::Timeout => {
                    format!("has waited for the GPUs of the other ranks for {:?}", self.limit)
                }
                mpsc::RecvTimeoutError::Disconnected => "has lost the thread that NCCL runs in".to_owned(),
            };
            Error::communication(self.group.rank(), reason)
        })
    }

    /// Runs `work` in the NCCL thread, and waits until the GPU has finished it.
    fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Comm, &CudaDevice) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T> {
        let (sender, answer) = mpsc::channel();
        let end = Instant::now() + self.limit;
        let job = move |comm: &Comm, device: &CudaDevice| {
            let result = work(comm, device).and_then(|result| {
                let done = device.cuda_stream().record_event(None)?;
                while !done.try_is_complete()? {
                    if Instant::now() > end {
                        return Err(Failure("is slower than the time limit".to_owned()));
                    }
                    thread::yield_now();
                }
                Ok(result)
            });
            let is_over = result.is_err();
            let _ = sender.send(result); // nobody listens after the time limit
            !is_over
        };
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let rank = self.group.rank();
        jobs.send(Box::new(job)).map_err(|_| Error::communication(rank, "has ended NCCL after an error"))?;
        self.wait(&answer)?
            .map_err(|Failure(reason)| Error::communication(rank, format!("failed in NCCL: {reason}")))
    }
}

/// Returns whether to continue.
type Job = Box<dyn FnOnce(&Comm, &CudaDevice) -> bool + Send>;

/// Runs jobs until one fails, after which the ranks are out of step, or until the last sender is dropped.
fn serve(comm: &Comm, device: &CudaDevice, jobs: mpsc::Receiver<Job>) {
    jobs.into_iter().all(|job| job(comm, device));
}

impl Transport for Nccl {
    fn name(&self) -> &'static str {
        "nccl"
    }

    fn size(&self) -> usize {
        self.group.size()
    }

    fn rank(&self) -> usize {
        self.group.rank()
    }

    fn local_rank(&self) -> usize {
        self.group.local_rank()
    }

    fn send(&self, to: usize, message: Vec<u8>) -> Result<()> {
        self.group.send(to, message)
    }

    fn receive(&self, from: usize) -> Result<Vec<u8>> {
        self.group.receive(from)
    }

    fn abort(&self, reason: &str) {
        self.group.abort(reason);
    }

    fn passes(&self, tensor: &Tensor) -> bool {
        tensor.device().same_device(&self.device)
    }

    fn pass(&self, outgoing: &[(usize, Tensor)], incoming: &[Incoming]) -> Result<Vec<Tensor>> {
        let (outgoing, incoming) = (outgoing.to_vec(), incoming.to_vec());
        self.run(move |comm, device| pass(comm, device, &outgoing, &incoming))
    }

    fn sum(&self, values: &mut [f32]) -> Result<bool> {
        if values.is_empty() {
            return Ok(true);
        }
        let own = values.to_vec();
        let sums = self.run(move |comm, device| {
            let mut slice = device.clone_htod(&own)?;
            comm.all_reduce_in_place(&mut slice, &ReduceOp::Sum)?;
            Ok(slice)
        })?;
        let Device::Cuda(device) = &self.device else { return Ok(false) };
        values.copy_from_slice(&device.clone_dtoh(&sums)?);
        Ok(true)
    }
}

fn pass(
    comm: &Comm,
    device: &CudaDevice,
    outgoing: &[(usize, Tensor)],
    incoming: &[Incoming],
) -> Result<Vec<Tensor>, Failure> {
    let outgoing = outgoing.iter().map(|(rank, tensor)| Ok((*rank, tensor.contiguous()?)));
    let outgoing = outgoing.collect::<Result<Vec<_>, Failure>>()?;
    // NCCL starts everything between these two calls together, so that ranks do not wait for each other in a
    // circle.
    group_start()?;
    let all = || {
        outgoing.iter().try_for_each(|(rank, tensor)| send(comm, tensor, *rank))?;
        incoming.iter().map(|incoming| receive(comm, device, incoming)).collect::<Result<Vec<_>, Failure>>()
    };
    let received = all();
    group_end()?;
    received
}

fn send(comm: &Comm, tensor: &Tensor, to: usize) -> Result<(), Failure> {
    match tensor.dtype() {
        DType::F32 => send_as::<f32>(comm, tensor, to),
        DType::F64 => send_as::<f64>(comm, tensor, to),
        DType::F16 => send_as::<f16>(comm, tensor, to),
        DType::BF16 => send_as::<bf16>(comm, tensor, to),
        DType::U8 => send_as::<u8>(comm, tensor, to),
        DType::U32 => send_as::<u32>(comm, tensor, to),
        DType::I64 => send_as::<i64>(comm, tensor, to),
        other => Err(Failure(format!("{other:?} cannot be sent"))),
    }
}

fn send_as<T: CudaDType + DeviceRepr + NcclType>(
    comm: &Comm,
    tensor: &Tensor,
    to: usize,
) -> Result<(), Failure> {
    let (storage, layout) = tensor.storage_and_layout();
    let (Storage::Cuda(storage), Some((start, end))) = (&*storage, layout.contiguous_offsets()) else {
        return Err(Failure("a tensor is not on the GPU in one piece".to_owned()));
    };
    if start < end {
        comm.send(&storage.as_cuda_slice::<T>()?.slice(start..end), to as i32)?;
    }
    Ok(())
}

fn receive(comm: &Comm, device: &CudaDevice, (from, dtype, dims): &Incoming) -> Result<Tensor, Failure> {
    let n = dims.iter().product();
    let storage = match dtype {
        DType::F32 => receive_as::<f32>(comm, device, n, *from),
        DType::F64 => receive_as::<f64>(comm, device, n, *from),
        DType::F16 => receive_as::<f16>(comm, device, n, *from),
        DType::BF16 => receive_as::<bf16>(comm, device, n, *from),
        DType::U8 => receive_as::<u8>(comm, device, n, *from),
        DType::U32 => receive_as::<u32>(comm, device, n, *from),
        DType::I64 => receive_as::<i64>(comm, device, n, *from),
        other => Err(Failure(format!("{other:?} cannot be received"))),
    }?;
    Ok(Tensor::from_storage(Storage::Cuda(storage), dims.as_slice(), BackpropOp::none(), false))
}

fn receive_as<T: CudaDType + DeviceRepr + NcclType + ValidAsZeroBits>(
    comm: &Comm,
    device: &CudaDevice,
    n: usize,
    from: usize,
) -> Result<CudaStorage, Failure> {
    let mut slice: CudaSlice<T> = device.alloc_zeros(n)?;
    if n > 0 {
        comm.recv(&mut slice, from as i32)?;
    }
    Ok(CudaStorage::wrap_cuda_slice(slice, device.clone()))
}

/// The reason why NCCL, or the code around it, has failed.
struct Failure(String);

impl From<NcclError> for Failure {
    fn from(error: NcclError) -> Self {
        Self(format!("{:?}", error.0))
    }
}

impl From<DriverError> for Failure {
    fn from(error: DriverError) -> Self {
        Self(error.to_string())
    }
}

impl From<candle_core::Error> for Failure {
    fn from(error: candle_core::Error) -> Self {
        Self(error.to_string())
    }
}
