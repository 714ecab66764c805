//! Ranks that are processes and share the GPUs that there are.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use candle_core::{DType, Device, Tensor};
use layerfn::communicator::{Communicator, Nccl, Transport};
use layerfn::prelude::*;
use layerfn::solver::Sgd;
use layerfn::training::DataParallel;
use layerfn_tests::flat;
use layerfn_tests::support::collectives;

/// How long a rank waits for another one.
const LIMIT: Duration = Duration::from_secs(60);

/// The first argument of a process that is a rank; its number, how many there are, and their folder follow.
const RANK: &str = "--nccl-rank";

/// If this process is a rank, what it has found.
pub(crate) fn as_rank() -> Option<bool> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, first, rank, size, folder] = arguments.as_slice() else { return None };
    let (true, Ok(rank), Ok(size)) = (first == RANK, rank.parse(), size.parse()) else { return None };
    let result = run(rank, size, Path::new(folder));
    match &result {
        Ok(weights) => println!("weights {weights:08x}"),
        Err(error) => println!("rank {rank}: {error}"),
    }
    Some(result.is_ok())
}

/// Runs one, two and three ranks; whether all operations do what they say, and the trainings end with the same weights.
pub(crate) fn check() -> bool {
    let results: Vec<Vec<String>> = (1..=3).map(ranks).collect();
    let first = &results[0][0];
    let passed = first.starts_with("weights") && results.iter().flatten().all(|result| result == first);
    if !passed {
        println!("FAILED nccl: {results:#?}");
    }
    println!("nccl: {}", if passed { "1, 2 and 3 ranks agree" } else { "failed" });
    passed
}

/// What each of so many ranks prints.
fn ranks(size: usize) -> Vec<String> {
    let folder = tempfile::tempdir().expect("a folder");
    let start = |rank: usize| {
        // NCCL refuses two ranks on one GPU of one machine. These say that they are machines of their own.
        let program = std::env::current_exe().expect("this program");
        Command::new(program)
            .args([RANK, &rank.to_string(), &size.to_string()])
            .arg(folder.path())
            .env("NCCL_HOSTID", format!("machine {rank}"))
            .env("NCCL_SOCKET_IFNAME", "lo")
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process")
    };
    let ranks: Vec<_> = (0..size).map(start).collect();
    // NCCL prints its version, in a line before or after that of the rank.
    let text = |output: std::process::Output| {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().find(|line| line.starts_with("weights")).map_or(text.clone(), str::to_owned)
    };
    ranks.into_iter().map(|rank| rank.wait_with_output().map(text).unwrap_or_default()).collect()
}

fn run(rank: usize, size: usize, folder: &Path) -> Result<u32> {
    let device = Device::new_cuda(rank).or_else(|_| Device::new_cuda(0))?;
    let control = Communicator::new(Arc::new(Folder::new(rank, size, folder.to_owned())));
    let transport = Arc::new(Nccl::new(&control, &device)?.time_limit(LIMIT));
    let communicator = Communicator::new(transport.clone());
    assert_eq!((communicator.name(), communicator.rank(), communicator.size()), ("nccl", rank, size));
    for n in [0, 1, 3, 1001, 100_000] {
        for dtype in [DType::F32, DType::F64, DType::F16, DType::BF16] {
            collectives::check(&communicator, n, dtype, &device)?;
            collectives::check(&communicator, n, dtype, &Device::Cpu)?;
        }
    }
    // A rank that is alone has nobody else to send to.
    let x = Tensor::arange(0f32, 7., &device)?;
    let (next, before) = ((rank + 1) % size, (rank + size - 1) % size);
    let passed = transport.pass(&[(next, x.clone())], &[(before, DType::F32, vec![7])])?;
    assert_eq!(flat(&passed[0]), flat(&x));
    let mut values = vec![rank as f32, 1.0];
    assert!(transport.sum(&mut values)?);
    assert_eq!(values, [(size * (size - 1) / 2) as f32, size as f32]);
    trained(&communicator, &device)
}

/// The checksum of the weights after a training.
fn trained(communicator: &Communicator, device: &Device) -> Result<u32> {
    let store = ParameterStore::new();
    let network = network! { affine(12) -> bn -> relu -> dropout -> out: affine(3) };
    let model = store.enter(|| network.init(&Tensor::zeros((1, 5), DType::F32, device)?))?;
    let mut solver = Sgd::new(0.1);
    solver.set_parameters(&model.parameters());
    let mut parallel = DataParallel::new(communicator, model.store(), 6)?;
    let x = Tensor::arange(0f32, 110., device)?.reshape((22, 5))?.affine(0.02, -1.0)?;
    let labels = Tensor::from_vec((0..22u32).map(|i| i % 3).collect(), 22, device)?;
    for _ in 0..4 {
        let step = parallel.step(22, |rows| {
            let [x, labels] = [&x, &labels].map(|all| all.narrow(0, rows.start, rows.len()));
            mean_softmax_cross_entropy(&model.forward(&x?)?, &labels?, 1)
        })?;
        solver.update(&step.gradients)?;
    }
    communicator.check_parameters(&model.parameters())?;
    let weights = model.parameters().vars().into_iter().flat_map(|var| flat(&var));
    Ok(weights.fold(0, |sum: u32, value| sum.rotate_left(5) ^ (value as f32).to_bits()))
}

/// Messages as files.
struct Folder {
    rank: usize,
    size: usize,
    folder: PathBuf,
    /// The number of the next message, by sender and receiver.
    numbers: Mutex<HashMap<(usize, usize), usize>>,
}

impl Folder {
    fn new(rank: usize, size: usize, folder: PathBuf) -> Self {
        Self { rank, size, folder, numbers: Mutex::default() }
    }

    fn next(&self, from: usize, to: usize) -> PathBuf {
        let mut numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        let number = numbers.entry((from, to)).or_default();
        *number += 1;
        self.folder.join(format!("{from} {to} {number}"))
    }

    fn error(rank: usize, error: &dyn std::fmt::Display) -> layerfn::Error {
        layerfn::Error::Communication { rank, reason: error.to_string() }
    }
}

impl Transport for Folder {
    fn name(&self) -> &'static str {
        "folder"
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
        let path = self.next(self.rank, to);
        let unfinished = path.with_extension("part");
        let written = fs::write(&unfinished, message).and_then(|()| fs::rename(&unfinished, &path));
        written.map_err(|error| Self::error(self.rank, &error))
    }

    fn receive(&self, from: usize) -> Result<Vec<u8>> {
        let (path, end) = (self.next(from, self.rank), Instant::now() + LIMIT);
        loop {
            if let Ok(message) = fs::read(&path) {
                return Ok(message);
            }
            if self.folder.join("failed").exists() || Instant::now() > end {
                return Err(Self::error(from, &"has failed, or has sent nothing in time"));
            }
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    fn abort(&self, reason: &str) {
        // It ends the others all the same, later.
        let _ = fs::write(self.folder.join("failed"), reason);
    }
}
