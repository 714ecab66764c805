//! Times training and inference of some networks and prints one line of JSON.
//!
//! Run with `cargo run --release --bin bench -- --workload w1 --mode train`; `-- --help` lists the options.
//!
//! All values are computed from fixed seeds, so that the loss of the 10th step can be compared with that of the same
//! network written in another framework.

use std::process::ExitCode;
use std::time::Instant;

use candle_core::backprop::GradStore;
use layerfn::prelude::*;
use layerfn::solver::{Adam, Momentum, Sgd};
use layerfn::{LSTMCell, Parameter, get_all_parameters};

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

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
  --max-wall SECONDS  Stop after so long, whatever is missing [default: 90]
  --smoke             Two steps of w1b1, to see that everything works
  --help              Print this

An unknown workload ends the program with status 3.
";

/// The status for a workload that does not exist.
const UNKNOWN_WORKLOAD: u8 = 3;

/// The step whose loss is printed.
const CHECK_STEP: usize = 10;

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
    let Some(workload) = Workload::named(&options.workload).filter(|w| options.infer || w.solver.is_some())
    else {
        let mode = if options.infer { "infer" } else { "train" };
        eprintln!("error: there is no workload `{}` to {mode}", options.workload);
        return ExitCode::from(UNKNOWN_WORKLOAD);
    };
    match run(&workload, &options) {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Options {
    workload: String,
    infer: bool,
    steps: usize,
    max_steps: usize,
    budget: f64,
    warmup: usize,
    threads: usize,
    max_wall: f64,
}

impl Options {
    /// Reads the arguments; `None` if help is asked for.
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        fn number<T: std::str::FromStr>(flag: &str, value: &str) -> Result<T, String> {
            value.parse().map_err(|_| format!("`{flag}` takes a number, not `{value}`"))
        }
        let mut options = Self {
            workload: "w1".to_owned(),
            infer: false,
            steps: 20,
            max_steps: 250,
            budget: 2.0,
            warmup: 3,
            threads: 2,
            max_wall: 90.0,
        };
        while let Some(flag) = arguments.next() {
            match flag.as_str() {
                "--help" => return Ok(None),
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
                "--max-wall" => options.max_wall = number(&flag, &value)?,
                other => return Err(format!("there is no option `{other}`; `--help` lists them")),
            }
        }
        Ok(Some(options))
    }
}

// The networks.

network! {
    /// LeNet.
    fn lenet()
    < c1: conv(16, (5, 5)) -> max_pool((2, 2)) -> relu
   -> c2: conv(16, (5, 5)) -> max_pool((2, 2)) -> relu
   -> fc: affine(50) -> relu -> out: affine(10) >

    /// ResNet-20.
    fn resnet20()
    < stem: conv(16, (3, 3), pad = (1, 1), with_bias = false) -> stem_bn: bn -> relu
   -> for (i, &(width, stride, project)) in blocks(16, &[16, 32, 64], 3).iter().enumerate() {
          block[i + 1]: block(width, stride, project)
      }
   -> global_average_pooling -> out: affine(10) >

    /// ResNet-18.
    fn resnet18()
    < stem: conv(64, (7, 7), pad = (3, 3), stride = (2, 2), with_bias = false) -> stem_bn: bn -> relu
   -> max_pool((3, 3), stride = (2, 2), pad = (1, 1))
   -> for (i, &(width, stride, project)) in blocks(64, &[64, 128, 256, 512], 2).iter().enumerate() {
          block[i + 1]: block(width, stride, project)
      }
   -> global_average_pooling -> out: affine(1000) >

    /// A perceptron with two hidden layers.
    fn perceptron() < fc1: affine(1024) -> relu -> fc2: affine(1024) -> relu -> out: affine(10) >

    /// Depthwise-separable convolutions.
    fn separable()
    < for (i, width) in [32, 64, 64, 128, 128, 128].into_iter().enumerate() {
          depthwise[i + 1]: depthwise_convolution((3, 3), pad = (1, 1), with_bias = false)
              -> pointwise[i + 1]: conv(width, (1, 1), with_bias = false) -> norm[i + 1]: bn -> relu
      }
   -> global_average_pooling -> out: affine(10) >

    /// Small layers, one after another.
    fn deep() < for i in 0..100 { fc[i + 1]: affine(64) -> relu } -> out: affine(10) >

    /// An LSTM whose last output is classified.
    fn lstm_classifier() < encoder: last_output(256) -> out: affine(10) >
}

network! {
    /// Two convolutions beside a shortcut, which is a projection where the shape changes.
    fn block(width: usize, stride: usize, project: bool)
    < add {
        c1: conv(width, (3, 3), pad = (1, 1), stride = (stride, stride), with_bias = false) -> n1: bn -> relu
            -> c2: conv(width, (3, 3), pad = (1, 1), with_bias = false) -> n2: bn,
        if project { side: conv(width, (1, 1), stride = (stride, stride), with_bias = false) -> side_bn: bn },
    } -> relu >
}

/// Width, stride and whether there is a projection, for each block.
fn blocks(input: usize, widths: &[usize], each: usize) -> Vec<(usize, usize, bool)> {
    let mut before = input;
    let mut blocks = Vec::new();
    for (stage, &width) in widths.iter().enumerate() {
        for block in 0..each {
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            blocks.push((width, stride, stride != 1 || before != width));
            before = width;
        }
    }
    blocks
}

/// The output of an LSTM after the last of the steps along the first axis.
fn last_output(x: &Tensor, state_size: usize) -> layerfn::Result<Tensor> {
    let (steps, batch_size, _) = x.dims3()?;
    let mut cell = LSTMCell::new(batch_size, state_size);
    let mut h = Tensor::zeros((batch_size, state_size), x.dtype(), x.device())?;
    for step in 0..steps {
        h = cell.step(&x.get(step)?)?;
    }
    Ok(h)
}

/// What a solver does with the gradients of a step.
type Update = Box<dyn FnMut(&GradStore) -> layerfn::Result<()>>;

fn adam(lr: f64) -> Update {
    let mut solver = Adam::new(lr);
    solver.set_parameters(&get_parameters());
    Box::new(move |gradients| solver.update(gradients))
}

fn momentum(lr: f64) -> Update {
    let mut solver = Momentum::new(lr, 0.9);
    solver.set_parameters(&get_parameters());
    Box::new(move |gradients| solver.update(gradients))
}

fn sgd(lr: f64) -> Update {
    let mut solver = Sgd::new(lr);
    solver.set_parameters(&get_parameters());
    Box::new(move |gradients| solver.update(gradients))
}

struct Workload {
    /// The first seed.
    base: u64,
    input: Vec<usize>,
    batch: usize,
    network: fn(&Tensor) -> layerfn::Result<Tensor>,
    /// Makes the solver for the parameters of the current store, with its learning rate; none if there is no training.
    solver: Option<(MakeSolver, f64)>,
}

/// Makes a solver with a learning rate.
type MakeSolver = fn(f64) -> Update;

impl Workload {
    fn named(name: &str) -> Option<Self> {
        let images = |batch: usize, maps: usize, side: usize| (vec![batch, maps, side, side], batch);
        let lenet_at = |batch| {
            (
                1000,
                images(batch, 1, 28),
                lenet as fn(&Tensor) -> layerfn::Result<Tensor>,
                Some((adam as fn(f64) -> Update, 1e-3)),
            )
        };
        let (base, (input, batch), network, solver) = match name {
            "w1" => lenet_at(64),
            "w1b1" => lenet_at(1),
            "w1b8" => lenet_at(8),
            "w1b512" => lenet_at(512),
            "w2" => (2000, images(64, 3, 32), resnet20 as _, Some((momentum as _, 1e-2))),
            "w3" => (3000, (vec![128, 784], 128), perceptron as _, Some((adam as _, 1e-4))),
            "w4" => (4000, (vec![64, 32, 64], 32), lstm_classifier as _, Some((adam as _, 1e-3))),
            "w5" => (5000, images(16, 32, 56), separable as _, Some((sgd as _, 1e-2))),
            "w6" => (6000, images(1, 3, 224), resnet18 as _, None),
            "deep" => (7000, (vec![1, 64], 1), deep as _, Some((sgd as _, 1e-3))),
            _ => return None,
        };
        Some(Self { base, input, batch, network, solver })
    }

    fn inputs(&self) -> Result<Tensor> {
        let values = values(self.base + 1, self.input.iter().product(), 3f64.sqrt());
        Ok(Tensor::from_vec(values, &*self.input, &Device::Cpu)?)
    }

    fn labels(&self) -> Result<Tensor> {
        let labels: Vec<u32> = (0..self.batch as u64).map(|i| (bits(self.base + 2, i) % 10) as u32).collect();
        Ok(Tensor::new(labels, &Device::Cpu)?)
    }

    /// Gives every weight its value; the other parameters start with the right ones.
    fn set_weights(&self) -> Result<()> {
        let mut seed = self.base + 10;
        let mut next = |n: usize, bound: f64| {
            seed += 1;
            values(seed - 1, n, bound)
        };
        for (path, parameter) in get_all_parameters() {
            let dims = parameter.var().dims();
            let elements = parameter.var().elem_count();
            let weights = match path.rsplit('/').collect::<Vec<_>>()[..] {
                ["W", "affine", "lstm", ..] => lstm_weights(&parameter, &mut next)?,
                ["W", "affine", ..] => next(elements, (6.0 / dims[0] as f64).sqrt()),
                ["W", ..] => next(elements, (6.0 / dims[1..].iter().product::<usize>() as f64).sqrt()),
                _ => continue,
            };
            parameter.var().set(&Tensor::from_vec(weights, dims, &Device::Cpu)?)?;
        }
        Ok(())
    }
}

/// Puts two matrices with rows for the gates i, f, g, o, one for the input and one for the state, into one with columns
/// for i, o, f, g.
fn lstm_weights(parameter: &Parameter, next: &mut impl FnMut(usize, f64) -> Vec<f32>) -> Result<Vec<f32>> {
    let (rows, gates, state) = parameter.var().dims3()?;
    let (inputs, bound) = (rows - state, 1.0 / (state as f64).sqrt());
    let (of_input, of_state) = (next(gates * state * inputs, bound), next(gates * state * state, bound));
    let mut weights = Vec::with_capacity(rows * gates * state);
    for row in 0..rows {
        for gate in [0, 3, 1, 2] {
            weights.extend((gate * state..(gate + 1) * state).map(|out| {
                if row < inputs { of_input[out * inputs + row] } else { of_state[out * state + row - inputs] }
            }));
        }
    }
    Ok(weights)
}

/// 24 random bits, the `i`-th of the sequence `seed`.
fn bits(seed: u64, i: u64) -> u64 {
    let mut z =
        seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add((i + 1).wrapping_mul(0xD1B5_4A32_D192_ED03));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (z ^ (z >> 31)) >> 40
}

/// `n` values in `[−bound, bound)`.
fn values(seed: u64, n: usize, bound: f64) -> Vec<f32> {
    (0..n as u64).map(|i| (2.0 * (bits(seed, i) as f32 / 16_777_216.0) - 1.0) * bound as f32).collect()
}

// The measurement.

fn run(workload: &Workload, options: &Options) -> Result<String> {
    rayon::ThreadPoolBuilder::new().num_threads(options.threads).build_global()?;
    let base_rss = memory("VmRSS:");
    let (network, x) = (workload.network, workload.inputs()?);
    let forward = || test_mode(|| no_grad(|| network(&x)));
    forward()?; // makes the parameters
    workload.set_weights()?;

    let timing = if options.infer {
        measure(options, 1, || Ok(forward()?.abs()?.mean_all()?.to_scalar::<f32>()?))?
    } else {
        let (solver, learning_rate) = workload.solver.ok_or("the workload is not for training")?;
        let (mut update, labels) = (solver(learning_rate), workload.labels()?);
        measure(options, CHECK_STEP, || {
            let loss = mean_softmax_cross_entropy(&network(&x)?, &labels, 1)?;
            update(&backward(&loss)?)?;
            Ok(loss.to_scalar::<f32>()?)
        })?
    };
    Ok(timing.to_json(options, base_rss))
}

struct Timing {
    /// Milliseconds of each step, the shortest first.
    steps: Vec<f64>,
    /// Milliseconds of all processors a step.
    cpu: f64,
    /// The value of the check step, if it was reached.
    loss: Option<f32>,
}

fn measure(options: &Options, check: usize, mut step: impl FnMut() -> Result<f32>) -> Result<Timing> {
    let begun = Instant::now();
    let over = || begun.elapsed().as_secs_f64() > options.max_wall;
    let mut timed = || -> Result<(f64, f32)> {
        let begun = Instant::now();
        let value = step()?;
        Ok((begun.elapsed().as_secs_f64() * 1e3, value))
    };

    let (mut steps, mut loss, mut cpu_before) = (Vec::new(), None, cpu_seconds());
    for i in 1..=check + options.warmup {
        let (time, value) = timed()?;
        steps.push(time);
        if i == check {
            loss = Some(value);
        }
        if over() {
            break;
        }
    }
    // Where the time is up already, the steps so far are the result.
    if !over() {
        steps.clear();
        cpu_before = cpu_seconds();
        let begun = Instant::now();
        while steps.len() < options.max_steps && !over() {
            if steps.len() >= options.steps && begun.elapsed().as_secs_f64() >= options.budget {
                break;
            }
            steps.push(timed()?.0);
        }
    }
    let cpu = (cpu_seconds() - cpu_before) * 1e3 / steps.len().max(1) as f64;
    steps.sort_by(f64::total_cmp);
    Ok(Timing { steps, cpu, loss: loss.filter(|loss| loss.is_finite()) })
}

impl Timing {
    fn to_json(&self, options: &Options, base_rss: f64) -> String {
        let steps = &self.steps;
        let n = steps.len();
        format!(
            r#"{{"workload":"{}","mode":"{}","ms_median":{:.5},"ms_min":{:.5},"ms_mean":{:.5},"cpu_ms":{:.5},"steps":{n},"peak_rss_mb":{:.1},"base_rss_mb":{base_rss:.1},"loss":{}}}"#,
            options.workload,
            if options.infer { "infer" } else { "train" },
            (steps[(n - 1) / 2] + steps[n / 2]) / 2.0,
            steps[0],
            steps.iter().sum::<f64>() / n as f64,
            self.cpu,
            memory("VmHWM:"),
            self.loss.map_or_else(|| "null".to_owned(), |loss| loss.to_string()),
        )
    }
}

/// Megabytes of this process, by the kernel's name for them; 0 where there is no `/proc`.
fn memory(key: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).map_or(0.0, |kb: f64| kb / 1024.0)
}

/// Processor time of all threads, to a hundredth of a second; 0 where there is no `/proc`.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name in parentheses may hold anything; user and system time are the 12th and 13th field after it.
    let Some((_, fields)) = stat.rsplit_once(')') else { return 0.0 };
    fields.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>()
        / 100.0
}
