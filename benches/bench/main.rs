//! Times training and inference of some networks and prints one line of JSON.
//!
//! Run with `cargo run --release --bin bench -- --workload w1 --mode train`; `-- --help` lists the options.
//!
//! All values are computed from fixed seeds, so that the loss of the 10th step can be compared with that of the same
//! network written in another framework.

mod measure;
mod report;
mod workloads;

use std::process::ExitCode;

use candle_core::Device;
use clap::{Parser, ValueEnum};
use layerfn::communicator::Communicator;
use workloads::Workload;

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// Keeps the memory of one step for the next; the system's allocator gives it back and has every page cleared anew.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The status for a workload that does not exist.
const UNKNOWN_WORKLOAD: u8 = 3;

fn main() -> ExitCode {
    let options = Options::parse().for_smoke().for_processes();
    if !(options.table || options.sweep || options.is_known()) {
        eprintln!("error: there is no workload `{}` to {}", options.workload, options.mode.name());
        return ExitCode::from(UNKNOWN_WORKLOAD);
    }
    let done = if options.table {
        report::table(&options)
    } else if options.sweep {
        report::sweep(&options)
    } else {
        run(&options)
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    let workload = Workload::named(&options.workload).ok_or("there is no such workload")?;
    let base_rss = measure::memory("VmRSS:");
    measure::set_threads(options.threads)?;
    let communicator = options.distributed.then(communicator).transpose()?;
    let timing = measure::time(&workload, options, communicator.as_ref())?;
    let peak_rss = measure::memory("VmHWM:"); // before the dry run that counts operations
    if communicator.is_none_or(|communicator| communicator.rank() == 0) {
        println!("{}", timing.to_json(options, [base_rss, peak_rss], workload.operations(options.infer())?));
    }
    Ok(())
}

/// The processes that `mpirun` has started.
#[cfg(feature = "mpi")]
fn communicator() -> Result<Communicator> {
    Ok(layerfn::communicator::Mpi::new()?.communicator())
}

#[cfg(not(feature = "mpi"))]
fn communicator() -> Result<Communicator> {
    Err("this build knows no MPI; build it with `cargo build --release --features layerfn-benches/mpi --bin bench`".into())
}

/// Times training and inference of some networks and prints one line of JSON.
///
/// An unknown workload ends the program with status 3.
#[derive(Clone, Parser)]
struct Options {
    /// w1, w1b1, w1b8, w1b512: LeNet at batch 64, 1, 8, 512; w2: ResNet-20; w3: a perceptron; w4: an LSTM;
    /// w5: depthwise-separable convolutions; w6: ResNet-18, infer only; w7, w7b1: a Transformer's encoder at batch 8, 1;
    /// deep: 101 small affine layers
    #[arg(long, value_name = "NAME", default_value = "w1")]
    workload: String,
    /// What to time
    #[arg(long, value_enum, default_value_t = Mode::Train)]
    mode: Mode,
    /// Time at least so many steps
    #[arg(long, value_name = "N", default_value_t = 20)]
    steps: usize,
    /// Time at most so many
    #[arg(long, value_name = "N", default_value_t = 250, value_parser = at_least_one)]
    max_steps: usize,
    /// Time steps for at least so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    budget: f64,
    /// Steps before those that are timed
    #[arg(long, value_name = "N", default_value_t = 3)]
    warmup: usize,
    /// Threads to compute with
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = at_least_one)]
    threads: usize,
    /// cpu, or cuda: the first GPU of a build with that feature
    #[arg(long, value_name = "NAME", default_value = "cpu", value_parser = device)]
    device: Device,
    /// Stop after so many seconds, whatever is missing
    #[arg(long, value_name = "SECONDS", default_value_t = 90.0)]
    max_wall: f64,
    /// Train with the processes that `mpirun` has started, in a build with the feature `mpi`: each takes its share of the batch.
    /// Exactly --steps steps are timed
    #[arg(long, conflicts_with_all = ["table", "sweep", "smoke"])]
    distributed: bool,
    /// With --distributed: parts of a batch that processes share
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = at_least_one)]
    micro_batches: usize,
    /// With --distributed: give up equal bits for any number of processes
    #[arg(long)]
    fast_sums: bool,
    /// With --distributed: bytes of a pack of gradients, if not as many as by default; very many: nothing is sent before the backward
    /// pass is over
    #[arg(long, value_name = "BYTES")]
    pack_size: Option<usize>,
    /// Every workload, each in a process of its own, with its share of the speed of a large matrix product measured in
    /// the same run; a table in Markdown
    #[arg(long, conflicts_with = "sweep")]
    table: bool,
    /// LeNet at batch sizes up to 512 and `deep` at depths up to 200: a table, and a plot in target/bench/sweep.svg
    #[arg(long)]
    sweep: bool,
    /// Two steps of w1b1, to see that everything works
    #[arg(long, conflicts_with_all = ["table", "sweep"])]
    smoke: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    Train,
    Infer,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Infer => "infer",
        }
    }
}

impl Options {
    fn for_smoke(self) -> Self {
        match self.smoke {
            true => Self { workload: "w1b1".to_owned(), steps: 2, max_steps: 2, warmup: 0, ..self },
            false => self,
        }
    }

    /// All processes take the same number of steps.
    fn for_processes(self) -> Self {
        match self.distributed {
            true => Self {
                mode: Mode::Train,
                budget: 0.0,
                max_steps: self.steps,
                max_wall: f64::INFINITY,
                ..self
            },
            false => self,
        }
    }

    fn infer(&self) -> bool {
        self.mode == Mode::Infer
    }

    fn is_known(&self) -> bool {
        Workload::named(&self.workload).is_some_and(|workload| self.infer() || workload.trains())
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|&n| n > 0).ok_or_else(|| "expected a whole number above 0".to_owned())
}

fn device(name: &str) -> Result<Device, String> {
    match name {
        "cpu" => Ok(Device::Cpu),
        "cuda" => Device::new_cuda(0).map_err(|error| error.to_string()),
        _ => Err("expected `cpu` or `cuda`".to_owned()),
    }
}
