//! Trains LeNet on handwritten digits, saves it, and draws how it went.
//!
//! Run with `cargo run --release --bin mnist`; `-- --help` lists the options.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use indicatif::{HumanDuration, ProgressBar, ProgressStyle};
use layerfn::prelude::*;
use layerfn::solver::Adam;
use layerfn_examples::digits::{Batches, Digits, Mnist, SIDE};
use layerfn_examples::pictures::{self, History, Mistake};

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

/// Keeps the memory of one step for the next; the system's allocator gives it back and has every page cleared anew.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BATCH: usize = 64;
/// Images to test at once: memory, not speed, asks for a limit.
const TEST_BATCH: usize = 500;
/// Learning rate at the start; it falls to 0 along a cosine.
const LEARNING_RATE: f64 = 4e-3;
/// Training images are moved by up to so many pixels.
const SHIFT: usize = 2;
/// How much of a label goes to all digits alike.
const SOFTENING: f64 = 0.05;

/// Trains LeNet on handwritten digits, saves it, and draws how it went.
#[derive(Parser)]
struct Options {
    /// Read the full MNIST set from DIR: the four IDX files train-images-idx3-ubyte, train-labels-idx1-ubyte,
    /// t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte, each plain or with .gz. Without it: the 10,000 digits built
    /// in, 8,000 to train, 2,000 to test
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Passes over the training digits [default: 10, with --smoke 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    epochs: Option<u16>,
    /// Seed of initial values, order and shifts; equal seeds give equal results
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u32,
    /// Where models and pictures go
    #[arg(long, value_name = "DIR", default_value = "target/mnist")]
    out: PathBuf,
    /// A run of a second that shows that everything works: few digits, one epoch
    #[arg(long)]
    smoke: bool,
}

impl Options {
    fn epochs(&self) -> usize {
        self.epochs.map_or(if self.smoke { 1 } else { 10 }, usize::from)
    }
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// LeNet with parameters of its own, whose first values follow from `seed`.
fn lenet(seed: u32) -> Result<Model> {
    let network = network! {
        < c1: conv(16, (5, 5)) -> max_pool((2, 2)) -> relu
       -> c2: conv(16, (5, 5)) -> max_pool((2, 2)) -> relu
       -> affine(50) -> relu -> out: affine(10) >
    };
    Ok(ParameterStore::with_seed(seed.into()).enter(|| network.boxed().init((1, 1, SIDE, SIDE)))?)
}

fn run(options: &Options) -> Result<()> {
    let mut mnist = match &options.data {
        Some(dir) => Mnist::from_dir(dir)?,
        None => Mnist::built_in()?,
    };
    if options.smoke {
        mnist = Mnist { train: mnist.train.first(640), test: mnist.test.first(200) };
    }
    fs::create_dir_all(&options.out).map_err(|error| format!("`{}`: {error}", options.out.display()))?;
    let file = |name: &str| options.out.join(name);

    let model = lenet(options.seed)?;
    let history = train(&model, &mnist, options)?;
    let mistakes = test(&model, &mnist.test)?;
    for name in ["lenet.h5", "lenet.safetensors"] {
        model.save(file(name))?;
        check_saved(&mnist.test, &mistakes, &file(name))?;
    }
    pictures::learning_curve(&file("learning_curve.svg"), &history)?;
    pictures::mistakes(&file("mistakes.svg"), &mnist.test, &mistakes)?;
    println!("drew {} and {}", file("learning_curve.svg").display(), file("mistakes.svg").display());
    println!("test accuracy: {:.2} %", accuracy(&mistakes, &mnist.test));
    Ok(())
}

/// Loads `file` into another model and sees that it makes the same mistakes, as sure of each.
fn check_saved(digits: &Digits, mistakes: &[Mistake], file: &Path) -> Result<()> {
    let model = lenet(0)?;
    model.load(file)?;
    let loaded = test(&model, digits)?;
    if loaded != mistakes {
        return Err(format!(
            "`{}`: read back, it gives a test accuracy of {:.2} %, not {:.2} %",
            file.display(),
            accuracy(&loaded, digits),
            accuracy(mistakes, digits)
        )
        .into());
    }
    println!("saved {}; read back, its test accuracy is the same", file.display());
    Ok(())
}

/// Trains the model.
fn train(model: &Model, mnist: &Mnist, options: &Options) -> Result<History> {
    let parameters = model.parameters();
    println!(
        "{} parameters, {} digits to train on, {} to test with",
        parameters.elem_count(),
        mnist.train.len(),
        mnist.test.len()
    );
    let mut solver = Adam::new(LEARNING_RATE);
    solver.set_parameters(&parameters);
    let steps = options.epochs() * mnist.train.len().div_ceil(BATCH);
    let bar = progress_bar(steps)?;
    let started = Instant::now();

    let rng = Rng::new(options.seed);
    let mut history = History::default();
    for epoch in 1..=options.epochs() {
        let batches = Batches::shuffled(&mnist.train, BATCH, SHIFT, &rng);
        let n_batches = batches.len();
        for batch in batches {
            let batch = batch?;
            let done = history.losses.len() as f64 / steps as f64;
            solver.set_learning_rate(0.5 * LEARNING_RATE * (1.0 + (std::f64::consts::PI * done).cos()));
            let logits = model.forward(&batch.images)?;
            let loss = softened_cross_entropy(&logits, &batch.labels)?;
            solver.update(&backward(&loss)?)?;
            let loss = loss.to_scalar::<f32>()?;
            if !loss.is_finite() {
                return Err(format!("the loss became {loss} in epoch {epoch}").into());
            }
            history.losses.push(loss);
            bar.set_message(format!("loss {loss:.3}"));
            bar.inc(1);
        }
        let losses = &history.losses[history.losses.len() - n_batches..];
        let loss = losses.iter().map(|&loss| f64::from(loss)).sum::<f64>() / n_batches as f64;
        let accuracy = accuracy(&test(model, &mnist.test)?, &mnist.test);
        history.epochs.push((loss, accuracy));
        bar.suspend(|| {
            println!("epoch {epoch:2}/{}   loss {loss:.4}   test accuracy {accuracy:.2} %", options.epochs());
        });
    }
    bar.finish_and_clear();
    eprintln!("trained in {}", HumanDuration(started.elapsed()));
    Ok(history)
}

/// Cross entropy with labels that give every digit a little: a network need not be dead sure of the digits that even
/// people misread.
fn softened_cross_entropy(logits: &Tensor, labels: &Tensor) -> layerfn::Result<Tensor> {
    let to_label = mean_softmax_cross_entropy(logits, labels, 1)?;
    let to_all = log_softmax(logits, 1)?.mean_all()?.neg()?;
    Ok(((to_label * (1.0 - SOFTENING))? + (to_all * SOFTENING)?)?)
}

/// A bar on the terminal; nothing where standard error goes to a file.
fn progress_bar(steps: usize) -> Result<ProgressBar> {
    let style = ProgressStyle::with_template("{bar:40.cyan/dim} {percent:>3} %   {msg}   {eta} left")?;
    Ok(ProgressBar::new(steps as u64).with_style(style.progress_chars("━╸─")))
}

/// The digits that the model reads wrongly.
fn test(model: &Model, digits: &Digits) -> Result<Vec<Mistake>> {
    let mut mistakes = Vec::new();
    let mut index = 0;
    for batch in Batches::in_order(digits, TEST_BATCH) {
        let logits = no_grad(|| model.forward_t(&batch?.images, false))?;
        let probabilities = softmax(&logits, 1)?.to_vec2::<f32>()?;
        for probabilities in probabilities {
            let (read_as, probability) = surest(&probabilities);
            if read_as != digits.label(index) {
                mistakes.push(Mistake { index, read_as, probability });
            }
            index += 1;
        }
    }
    Ok(mistakes)
}

/// The most probable digit, and its probability.
fn surest(probabilities: &[f32]) -> (u8, f32) {
    let pairs = (0u8..).zip(probabilities.iter().copied());
    pairs.max_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or_default()
}

/// Right answers, in percent.
fn accuracy(mistakes: &[Mistake], digits: &Digits) -> f64 {
    100.0 * (digits.len() - mistakes.len()) as f64 / digits.len() as f64
}
