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
use workloads::Workload;

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// Keeps the memory of one step for the next; the system's allocator gives it back and has every page cleared anew.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HELP: &str = "\
Times training and inference of some networks and prints one line of JSON.

Usage: bench [OPTIONS]

Options:
  --workload NAME     w1, w1b1, w1b8, w1b512: LeNet at batch 64, 1, 8, 512; w2: ResNet-20; w3: a perceptron;
                      w4: an LSTM; w5: depthwise-separable convolutions; w6: ResNet-18, infer only;
                      deep: 101 small affine layers [default: w1]
  --mode MODE         train or infer [default: train]
  --steps N           Time at least so many steps [default: 20]
  --max-steps N       Time at most so many [default: 250]
  --budget SECONDS    Time steps for at least so long [default: 2]
  --warmup N          Steps before those that are timed [default: 3]
  --threads N         Threads to compute with [default: 2]
  --device NAME       cpu or cuda, the first GPU of a build with that feature [default: cpu]
  --max-wall SECONDS  Stop after so long, whatever is missing [default: 90]
  --table             Every workload, each in a process of its own, with its share of the speed of a large matrix
                      product measured in the same run; a table in Markdown
  --sweep             LeNet at batch sizes up to 512 and `deep` at depths up to 200: a table, and a plot in
                      target/bench/sweep.svg
  --smoke             Two steps of w1b1, to see that everything works
  --help              Print this

An unknown workload ends the program with status 3.
";

/// The status for a workload that does not exist.
const UNKNOWN_WORKLOAD: u8 = 3;

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(message) => {
            eprintln!("error: {message}");
            return ExitCode::from(2);
        }
    };
    if options.what == What::Workload && !options.is_known() {
        let mode = if options.infer { "infer" } else { "train" };
        eprintln!("error: there is no workload `{}` to {mode}", options.workload);
        return ExitCode::from(UNKNOWN_WORKLOAD);
    }
    let done = match options.what {
        What::Workload => run(&options),
        What::Table => report::table(&options),
        What::Sweep => report::sweep(&options),
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
    let timing = measure::time(&workload, options)?;
    let peak_rss = measure::memory("VmHWM:"); // before the dry run that counts operations
    println!("{}", timing.to_json(options, [base_rss, peak_rss], workload.operations(options.infer)?));
    Ok(())
}

/// What the program does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Workload,
    Table,
    Sweep,
}

#[derive(Clone)]
struct Options {
    what: What,
    workload: String,
    infer: bool,
    steps: usize,
    max_steps: usize,
    budget: f64,
    warmup: usize,
    threads: usize,
    device: Device,
    max_wall: f64,
}

impl Options {
    /// Reads the arguments; `None` if help is asked for.
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        fn number<T: std::str::FromStr>(flag: &str, value: &str) -> Result<T, String> {
            value.parse().map_err(|_| format!("`{flag}` takes a number, not `{value}`"))
        }
        let mut options = Self {
            what: What::Workload,
            workload: "w1".to_owned(),
            infer: false,
            steps: 20,
            max_steps: 250,
            budget: 2.0,
            warmup: 3,
            threads: 2,
            device: Device::Cpu,
            max_wall: 90.0,
        };
        while let Some(flag) = arguments.next() {
            match flag.as_str() {
                "--help" => return Ok(None),
                "--table" | "--sweep" => {
                    options.what = if flag == "--table" { What::Table } else { What::Sweep };
                    continue;
                }
                "--smoke" => {
                    options =
                        Self { workload: "w1b1".to_owned(), steps: 2, max_steps: 2, warmup: 0, ..options };
                    continue;
                }
                _ => {}
            }
            let value =
                arguments.next().ok_or_else(|| format!("`{flag}` needs a value, or does not exist"))?;
            match flag.as_str() {
                "--workload" => options.workload = value,
                "--mode" => {
                    options.infer = match value.as_str() {
                        "train" => false,
                        "infer" => true,
                        other => return Err(format!("`--mode` is `train` or `infer`, not `{other}`")),
                    }
                }
                "--steps" => options.steps = number(&flag, &value)?,
                "--max-steps" => options.max_steps = number::<usize>(&flag, &value)?.max(1),
                "--budget" => options.budget = number(&flag, &value)?,
                "--warmup" => options.warmup = number(&flag, &value)?,
                "--threads" => options.threads = number(&flag, &value)?,
                "--device" => {
                    options.device = match value.as_str() {
                        "cpu" => Device::Cpu,
                        "cuda" => Device::new_cuda(0).map_err(|error| error.to_string())?,
                        other => return Err(format!("`--device` is `cpu` or `cuda`, not `{other}`")),
                    }
                }
                "--max-wall" => options.max_wall = number(&flag, &value)?,
                other => return Err(format!("there is no option `{other}`; `--help` lists them")),
            }
        }
        Ok(Some(options))
    }

    fn is_known(&self) -> bool {
        Workload::named(&self.workload).is_some_and(|workload| self.infer || workload.trains())
    }
}
