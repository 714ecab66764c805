//! Trains LeNet on handwritten digits, saves it, and reports how it went.
//!
//! Run with `cargo run --release --bin mnist`; `-- --help` lists the options. Ctrl-C saves the state of the training, and the
//! same command goes on with it.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::backprop::GradStore;
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use layerfn::communicator::{Communicator, Local};
use layerfn::data::{Arrays, Augment, Dataset, Loader, Position};
use layerfn::metrics::Confusion;
use layerfn::monitor::Monitor;
use layerfn::prelude::*;
use layerfn::report::Report;
use layerfn::solver::{AdamW, Solver, schedule};
use layerfn::training::{DataParallel, StateFiles, TrainState, WeightAverage};
use layerfn_examples::digits::{self, Mnist, SIDE};
use layerfn_examples::pictures::{self, History, Mistake};

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

/// Keeps the memory of one step for the next; the system's allocator gives it back and has every page cleared anew.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BATCH: usize = 64;
/// Images to test at once: memory, not speed, asks for a limit.
const TEST_BATCH: usize = 500;
/// The highest learning rate; it rises over the first steps and falls along a cosine. Chosen with `--validate`.
const LEARNING_RATE: f64 = 4e-3;
/// How much of the weights each step takes away, times the learning rate.
const DECAY: f64 = 0.02;
/// The network is tested with an average of its weights over about so many steps, at most a tenth of all.
const AVERAGED: f64 = 100.0;
/// How much of a label goes to all digits alike.
const SOFTENING: f64 = 0.05;
/// Parts of a batch that ranks share, each part computed by one.
const MICRO_BATCHES: usize = 8;
/// Training digits that `--validate` holds back.
const HELD_BACK: usize = 1_000;

/// Trains LeNet on handwritten digits, saves it, and reports how it went.
#[derive(Clone, Parser)]
struct Options {
    /// Read the full MNIST set from DIR: the four IDX files train-images-idx3-ubyte, train-labels-idx1-ubyte,
    /// t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte, each plain or with .gz. Without it: the 10,000 digits built
    /// in, 8,000 to train, 2,000 to test
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Passes over the training digits [default: 15, with --smoke 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    epochs: Option<u16>,
    /// Seed of initial values, order and augmentation; equal seeds give equal results
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u32,
    /// Where models, pictures and the report go
    #[arg(long, value_name = "DIR", default_value = "target/mnist")]
    out: PathBuf,
    /// Test with 1,000 of the training digits, which are held back, and not with the test digits: to choose settings
    #[arg(long)]
    validate: bool,
    /// The highest learning rate
    #[arg(long, value_name = "RATE", default_value_t = LEARNING_RATE)]
    learning_rate: f64,
    /// Start anew, though a training was stopped
    #[arg(long)]
    fresh: bool,
    /// Train with other ranks: the processes that `mpirun` has started, in a build with the feature `mpi`, or N threads of this
    /// one. The weights are the same for any number of ranks, and a training that was stopped goes on after its last epoch with any
    /// number of them
    #[arg(long, value_name = "N", num_args = 0..=1, require_equals = true, default_missing_value = "0")]
    distributed: Option<usize>,
    /// A run of a second that shows that everything works: few digits, one epoch
    #[arg(long)]
    smoke: bool,
}

impl Options {
    fn epochs(&self) -> usize {
        self.epochs.map_or(if self.smoke { 1 } else { 15 }, usize::from)
    }

    fn digits(&self) -> Result<Mnist> {
        let mut mnist = match &self.data {
            Some(dir) => Mnist::from_dir(dir)?,
            None => Mnist::built_in()?,
        };
        if self.smoke {
            mnist = mnist.smoke()?;
        }
        if self.validate {
            let n = mnist.train.len().saturating_sub(HELD_BACK);
            let (train, test) = mnist.train.split_at(n)?;
            mnist = Mnist { train, test };
        }
        Ok(mnist)
    }
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// LeNet with parameters of its own, whose first values follow from `seed`.
fn lenet(seed: u32) -> layerfn::Result<Model> {
    let network = network! {
        < c1: conv(16, (5, 5)) -> max_pool((2, 2)) -> relu
       -> c2: conv(16, (5, 5)) -> max_pool((2, 2)) -> relu
       -> affine(50) -> relu -> out: affine(10) >
    };
    ParameterStore::with_seed(seed.into()).enter(|| network.boxed().init((1, 1, SIDE, SIDE)))
}

/// What trains its parameters, and the average of their values over the last steps.
fn solver(options: &Options, model: &Model, steps: u64) -> layerfn::Result<(AdamW, WeightAverage)> {
    let mut solver = AdamW::new(options.learning_rate)
        .decay_like_pytorch(DECAY)
        .decay_rate("**/b", 0.0)
        .schedule(schedule::warmup(steps / 20 + 1).cosine(steps));
    solver.set_parameters(&model.parameters());
    let averaged = AVERAGED.min(steps as f64 / 10.0).max(1.0);
    Ok((solver, WeightAverage::new(&model.parameters(), 1.0 - 1.0 / averaged)?))
}

/// The training digits in batches, a little turned, scaled and shifted.
fn loader(options: &Options, digits: &Arrays) -> Loader {
    let augment = Augment::new().rotate(12.0).scale(0.12).shift(2);
    let loader = Loader::new(digits.clone(), BATCH).shuffle(options.seed.into()).augment(0, augment);
    loader.epochs(options.epochs() as u64).workers(1)
}

fn run(options: &Options) -> Result<ExitCode> {
    let mnist = options.digits()?;
    if let Some(threads) = options.distributed {
        distributed(options, &mnist, threads)?;
        return Ok(ExitCode::SUCCESS);
    }
    fs::create_dir_all(&options.out).map_err(|error| format!("`{}`: {error}", options.out.display()))?;
    let file = |name: &str| options.out.join(name);

    let mut training = Training::new(options, &mnist.train)?;
    if !training.run(options, &mnist)? {
        println!("stopped after {} steps; the same command goes on", training.losses.len());
        return Ok(ExitCode::from(130));
    }
    let Training { model, average, .. } = &training;
    let (mistakes, confusion) = average.with(|| test(model, &mnist.test))??;
    for name in ["lenet.h5", "lenet.safetensors"] {
        average.with(|| model.save(file(name)))??;
        check_saved(&mnist.test, &mistakes, &file(name))?;
    }
    let history = training.history();
    pictures::learning_curve(&file("learning_curve.svg"), &history)?;
    pictures::mistakes(&file("mistakes.svg"), &mnist.test, &mistakes)?;
    report(model, &history, &mnist.test, &mistakes, &confusion)?.save(file("report.html"))?;
    println!("wrote {}", file("report.html").display());
    println!("test accuracy: {:.2} %", 100.0 * confusion.accuracy());
    Ok(ExitCode::SUCCESS)
}

/// Loads `file` into another model and sees that it makes the same mistakes, as sure of each.
fn check_saved(digits: &Arrays, mistakes: &[Mistake], file: &Path) -> Result<()> {
    let model = lenet(0)?;
    model.load(file)?;
    let (loaded, _) = test(&model, digits)?;
    if loaded != mistakes {
        let reason = format!("read back, it makes {} mistakes, not {}", loaded.len(), mistakes.len());
        return Err(format!("`{}`: {reason}, or others", file.display()).into());
    }
    println!("saved {}; read back, its test accuracy is the same", file.display());
    Ok(())
}

/// All that changes while the network learns.
struct Training {
    model: Model,
    solver: AdamW,
    average: WeightAverage,
    position: Position,
    /// Of each step.
    losses: Vec<f64>,
    /// After each epoch, in percent.
    accuracies: Vec<f64>,
    /// What a training that goes on must have in common with the one that was stopped.
    settings: Vec<f64>,
}

impl Training {
    fn new(options: &Options, digits: &Arrays) -> layerfn::Result<Self> {
        let steps = (options.epochs() * digits.len().div_ceil(BATCH)) as u64;
        let model = lenet(options.seed)?;
        let (solver, average) = solver(options, &model, steps)?;
        let settings =
            vec![f64::from(options.seed), options.learning_rate, steps as f64, digits.len() as f64];
        let (losses, accuracies) = (Vec::new(), Vec::new());
        Ok(Self { model, solver, average, position: Position::default(), losses, accuracies, settings })
    }

    /// What a file keeps.
    fn state(&mut self) -> TrainState<'_> {
        TrainState::new()
            .with("model", &self.model)
            .with("solver", &mut self.solver)
            .with("average", &mut self.average)
            .with("position", &mut self.position)
            .with("losses", &mut self.losses)
            .with("accuracies", &mut self.accuracies)
            .with("settings", &mut self.settings)
    }

    /// Goes on with a training that was stopped; whether there is one.
    fn resume(&mut self, files: &StateFiles) -> layerfn::Result<bool> {
        let settings = self.settings.clone();
        let goes_on = files.resume(&mut self.state())?;
        if self.settings != settings {
            let wanted = "must be those of the training that was stopped, or have --fresh to start anew";
            let names = ["seed", "learning rate", "steps", "digits"];
            let got: Vec<_> = names.into_iter().zip(settings).collect();
            return Err(layerfn::Error::invalid("options", wanted, got));
        }
        Ok(goes_on)
    }

    /// Trains until the end, which is true, or until Ctrl-C.
    fn run(&mut self, options: &Options, mnist: &Mnist) -> Result<bool> {
        let folder = options.out.join("state");
        if options.fresh && folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        let files = StateFiles::new(&folder, "safetensors").keep(2);
        if self.resume(&files)? {
            println!("goes on after {} steps", self.losses.len());
        }
        println!(
            "{} parameters, {} digits to train on, {} to test with",
            self.model.parameters().elem_count(),
            mnist.train.len(),
            mnist.test.len()
        );
        let stop = Arc::new(AtomicBool::new(false));
        let asked = stop.clone();
        ctrlc::set_handler(move || asked.store(true, Ordering::Relaxed))?;
        let mut monitor = Monitor::resume(options.out.join("monitor"), self.losses.len() as u64)?;
        if self.losses.is_empty() {
            monitor.network(&self.model.summary()?)?;
        }
        let mut batches = loader(options, &mnist.train).start_at(self.position).batches()?;
        let bar = progress_bar(options.epochs() as u64 * batches.per_epoch(), self.losses.len() as u64)?;
        while let Some(batch) = batches.next() {
            let batch = batch?;
            let [images, labels] = batch.fields()?;
            let loss = self.step(images, labels)?;
            monitor.scalar("training loss", self.losses.len() as u64 - 1, loss)?;
            bar.set_message(format!("loss {loss:.3}"));
            bar.inc(1);
            self.position = batches.position();
            if batch.ends_epoch() {
                let line = self.end_epoch(options.epochs(), batches.per_epoch() as usize, &mnist.test)?;
                let accuracy = self.accuracies.last().copied().unwrap_or_default();
                let step = self.losses.len() as u64 - 1;
                monitor.scalar("test accuracy", step, accuracy)?;
                for (path, parameter) in self.model.parameters().iter() {
                    monitor.histogram(path, step, parameter.var())?;
                }
                bar.suspend(|| println!("{line}"));
            }
            let stopped = stop.load(Ordering::Relaxed);
            if batch.ends_epoch() || stopped {
                let step = self.losses.len() as u64;
                files.save(&self.state(), step)?;
            }
            if stopped {
                return Ok(false);
            }
        }
        bar.finish_and_clear();
        // The next run starts anew.
        fs::remove_dir_all(&folder)?;
        Ok(true)
    }

    /// One step; its loss.
    fn step(&mut self, images: &Tensor, labels: &Tensor) -> Result<f64> {
        let loss = softened_cross_entropy(&self.model.forward(images)?, labels)?;
        let value = f64::from(loss.to_scalar::<f32>()?);
        self.update(&backward(loss)?, value)?;
        Ok(value)
    }

    /// Takes the gradients of a step, whose loss was `loss`.
    fn update(&mut self, gradients: &GradStore, loss: f64) -> layerfn::Result<()> {
        self.solver.update(gradients)?;
        self.average.update()?;
        self.losses.push(loss);
        Ok(())
    }

    /// Tests, and says how the epoch went.
    fn end_epoch(&mut self, epochs: usize, per_epoch: usize, digits: &Arrays) -> layerfn::Result<String> {
        let (_, confusion) = self.average.with(|| test(&self.model, digits))??;
        let accuracy = 100.0 * confusion.accuracy();
        self.accuracies.push(accuracy);
        let loss = mean(&self.losses[self.losses.len() - per_epoch..]);
        let epoch = self.accuracies.len();
        Ok(format!("epoch {epoch:2}/{epochs}   loss {loss:.4}   test accuracy {accuracy:.2} %"))
    }

    fn history(&self) -> History {
        let per_epoch = self.losses.len() / self.accuracies.len().max(1);
        let means = self.losses.chunks(per_epoch.max(1)).map(mean);
        History {
            losses: self.losses.iter().map(|&loss| loss as f32).collect(),
            epochs: means.zip(self.accuracies.iter().copied()).collect(),
        }
    }
}

/// Trains with the processes of MPI, or with threads, if there are to be some.
fn distributed(options: &Options, mnist: &Mnist, threads: usize) -> Result<()> {
    if threads > 0 {
        let (options, mnist) = (options.clone(), mnist.clone());
        Local::new(threads).run(move |communicator| train_rank(&communicator, &options, &mnist))?;
        return Ok(());
    }
    #[cfg(feature = "mpi")]
    return Ok(train_rank(&layerfn::communicator::Mpi::new()?.communicator(), options, mnist)?);
    #[cfg(not(feature = "mpi"))]
    Err("this build knows no MPI; build it with `cargo build --release --features layerfn-examples/mpi --bin mnist`, or give a \
         number of threads, `--distributed=2`"
        .into())
}

/// What one rank does: some of the micro-batches of each step. Rank 0 tests, prints and saves; after each epoch it saves what any
/// number of ranks goes on with.
fn train_rank(communicator: &Communicator, options: &Options, mnist: &Mnist) -> layerfn::Result<()> {
    let leads = communicator.rank() == 0;
    let folder = options.out.join("distributed");
    if leads && options.fresh && folder.exists() {
        fs::remove_dir_all(&folder).map_err(candle_core::Error::wrap)?;
    }
    communicator.barrier()?;
    let files = StateFiles::new(&folder, "safetensors").keep(2);
    let mut training = Training::new(options, &mnist.train)?;
    if training.resume(&files)? && leads {
        println!("goes on after {} steps", training.losses.len());
    }
    // A rank that does not see the file would start anew.
    communicator.check_parameters(&training.model.parameters())?;
    let mut parallel = DataParallel::new(communicator, training.model.store(), MICRO_BATCHES)?;
    let mut batches = loader(options, &mnist.train).start_at(training.position).batches()?;
    while let Some(batch) = batches.next() {
        let batch = batch?;
        let [images, labels] = batch.fields()?;
        let step = parallel.step(batch.len(), |rows| {
            let part = |field: &Tensor| field.narrow(0, rows.start, rows.len());
            softened_cross_entropy(&training.model.forward(&part(images)?)?, &part(labels)?)
        })?;
        training.update(&step.gradients, step.loss)?;
        training.position = batches.position();
        if leads && batch.ends_epoch() {
            println!("{}", training.end_epoch(options.epochs(), batches.per_epoch() as usize, &mnist.test)?);
            let step = training.losses.len() as u64;
            files.save(&training.state(), step)?;
        }
    }
    if leads {
        let file = options.out.join("distributed.safetensors");
        fs::create_dir_all(&options.out).map_err(candle_core::Error::wrap)?;
        training.average.with(|| training.model.save(&file))??;
        // The next run starts anew.
        fs::remove_dir_all(&folder).map_err(candle_core::Error::wrap)?;
        println!("{} ranks, {}; saved {}", communicator.size(), communicator.name(), file.display());
    }
    communicator.barrier()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Cross entropy with labels that give every digit a little: a network need not be dead sure of the digits that even
/// people misread.
fn softened_cross_entropy(logits: &Tensor, labels: &Tensor) -> layerfn::Result<Tensor> {
    let to_label = mean_softmax_cross_entropy(logits, labels, 1)?;
    let to_all = log_softmax(logits, 1)?.mean_all()?.neg()?;
    Ok(((to_label * (1.0 - SOFTENING))? + (to_all * SOFTENING)?)?)
}

/// A bar on the terminal; nothing where standard error goes to a file.
fn progress_bar(steps: u64, done: u64) -> Result<ProgressBar> {
    let style = ProgressStyle::with_template("{bar:40.cyan/dim} {percent:>3} %   {msg}   {eta} left")?;
    Ok(ProgressBar::new(steps).with_position(done).with_style(style.progress_chars("━╸─")))
}

/// The digits that the model reads wrongly, and how often it takes which for which.
fn test(model: &Model, digits: &Arrays) -> layerfn::Result<(Vec<Mistake>, Confusion)> {
    let (mut mistakes, mut confusion, mut index) = (Vec::new(), Confusion::new(10), 0);
    for batch in Loader::new(digits.clone(), TEST_BATCH).batches()? {
        let batch = batch?;
        let [images, labels] = batch.fields()?;
        let logits = no_grad(|| model.forward_t(images, false))?;
        confusion.add(&logits, labels)?;
        for (probabilities, label) in
            softmax(&logits, 1)?.to_vec2::<f32>()?.iter().zip(labels.to_vec1::<u32>()?)
        {
            let (read_as, probability) = surest(probabilities);
            if u32::from(read_as) != label {
                mistakes.push(Mistake { index, read_as, probability });
            }
            index += 1;
        }
    }
    Ok((mistakes, confusion))
}

/// The most probable digit, and its probability.
fn surest(probabilities: &[f32]) -> (u8, f32) {
    let pairs = (0u8..).zip(probabilities.iter().copied());
    pairs.max_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or_default()
}

/// The whole training on one page.
fn report(
    model: &Model,
    history: &History,
    digits: &Arrays,
    mistakes: &[Mistake],
    confusion: &Confusion,
) -> Result<Report> {
    let mut report = Report::new("LeNet on handwritten digits");
    let facts = [
        ("test accuracy", format!("{:.2} %", 100.0 * confusion.accuracy())),
        ("epochs", history.epochs.len().to_string()),
        ("parameters", model.parameters().elem_count().to_string()),
    ];
    report.facts("Result", facts);
    let steps = (0..).map(f64::from).zip(history.losses.iter().map(|&loss| f64::from(loss)));
    report.chart("Training loss", "step", [("loss of a batch", steps.collect())])?;
    let epochs = (1..).map(f64::from).zip(history.epochs.iter().map(|&(_, accuracy)| accuracy));
    report.chart("Test accuracy, in percent", "epoch", [("after each epoch", epochs.collect())])?;
    report.confusion("Which digit was taken for which", confusion, &[]);
    report.network("Network", &model.summary()?);
    let mut worst = mistakes.to_vec();
    worst.sort_by(|a, b| b.probability.total_cmp(&a.probability));
    let labels = digits::labels(digits)?;
    let images = worst.iter().take(40).map(|mistake| {
        let image = digits.example(mistake.index)?.swap_remove(0);
        Ok((image, format!("{} read as {}", labels[mistake.index], mistake.read_as)))
    });
    report.images("Mistakes, the surest first", images.collect::<layerfn::Result<Vec<_>>>()?)?;
    Ok(report)
}
