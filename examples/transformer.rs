//! A Transformer that reads handwritten digits row by row.
//!
//! Run with `cargo run --release --bin transformer`. Each of the 28 rows of a digit is a token; the encoder's outputs are
//! averaged and classified. Besides the accuracy it prints what the network is made of, and draws it in
//! `target/transformer/`.

use std::error::Error;
use std::fs;
use std::path::Path;

use layerfn::functions::mean;
use layerfn::prelude::*;
use layerfn::solver::AdamW;
use layerfn_examples::digits::{Batches, Digits, Mnist, SIDE};

/// Keeps the memory of one step for the next; the system's allocator gives it back and has every page cleared anew.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Numbers that stand for a row.
const WIDTH: usize = 64;
const BATCH: usize = 64;
/// Learning rate at its highest; it rises in the first tenth of the steps and falls to 0 along a cosine.
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
        mnist = Mnist { train: mnist.train.first(256), test: mnist.test.first(100) };
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

fn train(model: &Model, mnist: &Mnist, epochs: usize) -> Result<(), Box<dyn Error>> {
    let rng = Rng::new(1);
    let mut solver = AdamW::new(LEARNING_RATE);
    solver.set_parameters(&model.parameters());
    let steps = epochs * mnist.train.len().div_ceil(BATCH);
    let mut step = 0;
    for epoch in 1..=epochs {
        let mut loss_of_epoch = 0.0;
        for batch in Batches::shuffled(&mnist.train, BATCH, 2, &rng) {
            let batch = batch?;
            solver.set_learning_rate(learning_rate(step as f64 / steps as f64));
            let loss = mean_softmax_cross_entropy(&model.forward(&batch.images)?, &batch.labels, 1)?;
            solver.update(&backward(&loss)?)?;
            loss_of_epoch += f64::from(loss.to_scalar::<f32>()?) * batch.labels.elem_count() as f64;
            step += 1;
        }
        let loss = loss_of_epoch / mnist.train.len() as f64;
        if !loss.is_finite() {
            return Err(format!("the loss became {loss} in epoch {epoch}").into());
        }
        let accuracy = accuracy(model, &mnist.test)?;
        println!("epoch {epoch:2}/{epochs}   loss {loss:.4}   test accuracy {accuracy:.2} %");
    }
    Ok(())
}

/// The learning rate after this share of the steps.
fn learning_rate(done: f64) -> f64 {
    let falling = 0.5 * (1.0 + (std::f64::consts::PI * done).cos());
    LEARNING_RATE * falling * (done * 10.0).clamp(0.01, 1.0)
}

/// Share of the digits that are recognized, in percent.
fn accuracy(model: &Model, digits: &Digits) -> Result<f64, Box<dyn Error>> {
    let mut right = 0.0;
    for batch in Batches::in_order(digits, 500) {
        let batch = batch?;
        let guesses = no_grad(|| model.forward_t(&batch.images, false))?.argmax(1)?;
        right += guesses.eq(&batch.labels)?.to_dtype(DType::F64)?.sum_all()?.to_scalar::<f64>()?;
    }
    Ok(100.0 * right / digits.len() as f64)
}
