//! A Transformer that reads handwritten digits row by row.
//!
//! Run with `cargo run --release --bin transformer`. Each of the 28 rows of a digit is a token; the encoder's outputs are
//! averaged and classified. Besides the accuracy it prints what the network is made of, and draws it in
//! `target/transformer/`.

use std::error::Error;
use std::fs;
use std::path::Path;

use layerfn::data::{Arrays, Augment, Dataset, Loader};
use layerfn::functions::mean;
use layerfn::metrics::Confusion;
use layerfn::prelude::*;
use layerfn::solver::{AdamW, Solver, schedule};
use layerfn_examples::digits::{Mnist, SIDE};

/// Keeps the memory of one step for the next; the system's allocator gives it back and has every page cleared anew.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Numbers that stand for a row.
const WIDTH: usize = 64;
const BATCH: usize = 64;
/// The highest learning rate; it rises in the first tenth of the steps and falls to 0 along a cosine.
const LEARNING_RATE: f64 = 2e-3;

network! {
    /// Rows become tokens, tokens look at each other, and their mean is classified.
    fn reader(layers: usize)
    < rows -> embedding: affine(WIDTH, base_axis = 2) -> learned_position_embedding(SIDE)
   -> for i in 0..layers { encoder[i]: transformer_encode(WIDTH, 4, dim_feedforward = 128, activation = gelu) }
   -> mean(0, false) -> out: affine(10) >
}

/// Images `(batch, 1, 28, 28)` as sequences `(28, batch, 28)`.
fn rows(images: &Tensor) -> Result<Tensor> {
    Ok(images.squeeze(1)?.transpose(0, 1)?.contiguous()?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let smoke = std::env::args().any(|argument| argument == "--smoke");
    let mut mnist = Mnist::built_in()?;
    if smoke {
        mnist = mnist.smoke()?;
    }
    let layers = if smoke { 1 } else { 3 };
    let network = network! { move < reader(layers) > }.boxed();
    let summary = network.summary([(1, 1, SIDE, SIDE)])?;
    println!("{summary}");
    let dir = Path::new("target/transformer");
    fs::create_dir_all(dir)?;
    fs::write(dir.join("transformer.svg"), summary.to_svg())?;
    println!("drew {}", dir.join("transformer.svg").display());

    let model = network.init((1, 1, SIDE, SIDE))?;
    train(&model, &mnist, if smoke { 1 } else { 12 })?;
    Ok(())
}

fn train(model: &Model, mnist: &Mnist, epochs: u64) -> Result<(), Box<dyn Error>> {
    let loader =
        Loader::new(mnist.train.clone(), BATCH).shuffle(1).augment(0, Augment::new().shift(2)).epochs(epochs);
    let steps = epochs * loader.per_epoch();
    let schedule = schedule::warmup(steps / 10 + 1).cosine(steps);
    let mut solver = AdamW::new(LEARNING_RATE).decay_like_pytorch(0.01).schedule(schedule);
    solver.set_parameters(&model.parameters());
    let mut loss_of_epoch = 0.0;
    for batch in loader.batches()? {
        let batch = batch?;
        let [images, labels] = batch.fields()?;
        let loss = mean_softmax_cross_entropy(&model.forward(images)?, labels, 1)?;
        loss_of_epoch += f64::from(loss.to_scalar::<f32>()?) * batch.len() as f64;
        solver.update(&backward(loss)?)?;
        if batch.ends_epoch() {
            let loss = std::mem::take(&mut loss_of_epoch) / mnist.train.len() as f64;
            let (epoch, accuracy) = (batch.position().epoch + 1, accuracy(model, &mnist.test)?);
            println!("epoch {epoch:2}/{epochs}   loss {loss:.4}   test accuracy {accuracy:.2} %");
        }
    }
    Ok(())
}

/// Share of the digits that are recognized, in percent.
fn accuracy(model: &Model, digits: &Arrays) -> Result<f64, Box<dyn Error>> {
    let mut confusion = Confusion::new(10);
    for batch in Loader::new(digits.clone(), 500).batches()? {
        let batch = batch?;
        let [images, labels] = batch.fields()?;
        confusion.add(&no_grad(|| model.forward_t(images, false))?, labels)?;
    }
    Ok(100.0 * confusion.accuracy())
}
