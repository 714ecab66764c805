//! Digits out of noise: a small U-Net that learns the way from noise to a digit that is asked for.
//!
//! Run with `cargo run --release --bin diffusion`. Between a noise `n` and a digit `d` lies the straight line
//! `(1 − t) n + t d`; from a point on it, the time `t` and the label, the network learns the direction `d − n` (Liu, Gong
//! and Liu, Flow Straight and Fast, 2022). A new digit is a walk along these directions that starts at noise. The network,
//! the loss and ten digits of each kind are drawn in `target/diffusion/`.

use std::error::Error;
use std::fs;
use std::path::Path;

use layerfn::data::{Arrays, Dataset, Loader};
use layerfn::functions::{one_hot, silu, squared_error};
use layerfn::prelude::*;
use layerfn::solver::{AdamW, Solver, schedule};
use layerfn::training::WeightAverage;
use layerfn_examples::digits::{Mnist, SIDE};
use layerfn_examples::pictures::{History, digits, loss_curve};

/// Keeps the memory of one step for the next; the system's allocator gives it back and has every page cleared anew.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BATCH: usize = 64;
const CLASSES: usize = 10;
/// Steps of a walk from noise to a digit.
const WALK: usize = 40;

network! {
    /// Two convolutions with normalizations.
    fn block(outmaps: usize)
    < for i in 0..2 { layer[i]: { conv(outmaps, (3, 3), pad = 1) -> group_normalization(8) -> silu } } >

    /// A U-Net of three levels: each level is joined with what comes up from below it.
    fn unet(maps: usize)
    < down1: block(maps)
   -> concat(1) {
          _,
          level2: {
              halve: conv(2 * maps, (2, 2), stride = 2) -> down: block(2 * maps)
                  -> concat(1) {
                      _,
                      level3: {
                          halve: conv(4 * maps, (2, 2), stride = 2) -> block(4 * maps)
                              -> up: deconvolution(2 * maps, (2, 2), stride = 2)
                      },
                  }
                  -> block(2 * maps) -> up: deconvolution(maps, (2, 2), stride = 2)
          },
      }
   -> up1: block(maps) -> out: conv(1, (1, 1)) >
}

fn main() -> Result<(), Box<dyn Error>> {
    let smoke = std::env::args().any(|argument| argument == "--smoke");
    let mut mnist = Mnist::built_in()?;
    if smoke {
        mnist = mnist.smoke()?;
    }
    let (maps, epochs, each) = if smoke { (8, 1, 1) } else { (16, 12, 10) };
    let network = network! { move < unet(maps) > }.boxed();
    let summary = network.summary([(1, 2 + CLASSES, SIDE, SIDE)])?;
    println!("{summary}");
    let dir = Path::new("target/diffusion");
    fs::create_dir_all(dir)?;
    fs::write(dir.join("unet.svg"), summary.to_svg())?;

    let model = network.init((1, 2 + CLASSES, SIDE, SIDE))?;
    let rng = Rng::new(1);
    let (history, average) = train(&model, &mnist.train, &rng, epochs)?;
    loss_curve(&dir.join("loss.svg"), &history)?;

    let labels: Vec<u32> = (0..CLASSES as u32).flat_map(|label| vec![label; each]).collect();
    let drawn = average.with(|| walk(&model, &Tensor::new(labels, &Device::Cpu)?, &rng))??;
    digits(&dir.join("digits.svg"), "Drawn by the network", &drawn, each)?;
    println!("pictures: {}", dir.display());
    Ok(())
}

fn train(
    model: &Model,
    data: &Arrays,
    rng: &Rng,
    epochs: u64,
) -> Result<(History, WeightAverage), Box<dyn Error>> {
    let loader = Loader::new(data.clone(), BATCH).shuffle(1).epochs(epochs);
    let steps = epochs * loader.per_epoch();
    let mut solver = AdamW::new(2e-3).schedule(schedule::warmup(steps / 20 + 1).cosine(steps));
    solver.set_parameters(&model.parameters());
    let mut average = WeightAverage::new(&model.parameters(), 0.99)?;
    let mut history = History::default();
    let mut loss_of_epoch = 0.0;
    for batch in loader.batches()? {
        let batch = batch?;
        let [images, labels] = batch.fields()?;
        let digit = images.affine(2.0, -1.0)?; // from −1 to 1, as wide as the noise
        let noise = rng.randn(digit.dims())?;
        let time = rng.rand((batch.len(), 1, 1, 1))?;
        let direction = (&digit - &noise)?;
        let point = (&noise + direction.broadcast_mul(&time)?)?;
        let loss =
            squared_error(&model.forward(&question(&point, &time, labels)?)?, &direction)?.mean_all()?;
        history.losses.push(loss.to_scalar()?);
        loss_of_epoch += f64::from(loss.to_scalar::<f32>()?) * batch.len() as f64;
        solver.update(&backward(loss)?)?;
        average.update()?;
        if batch.ends_epoch() {
            let loss = std::mem::take(&mut loss_of_epoch) / data.len() as f64;
            println!("epoch {:2}/{epochs}   loss {loss:.4}", batch.position().epoch + 1);
        }
    }
    Ok((history, average))
}

/// What the network is asked: a point on the way, and planes that say when and which digit.
fn question(point: &Tensor, time: &Tensor, labels: &Tensor) -> Result<Tensor> {
    let (n, _, height, width) = point.dims4()?;
    let digit = one_hot(&labels.unsqueeze(1)?, CLASSES)?.reshape((n, CLASSES, 1, 1))?;
    let planes = |values: &Tensor| values.broadcast_as((n, values.dim(1)?, height, width));
    Ok(Tensor::cat(&[point, &planes(time)?, &planes(&digit)?], 1)?)
}

/// Goes from noise to digits with these labels in equal steps; the ink of each, 0 to 1.
fn walk(model: &Model, labels: &Tensor, rng: &Rng) -> Result<Tensor> {
    let n = labels.dim(0)?;
    let mut point = rng.randn((n, 1, SIDE, SIDE))?;
    for step in 0..WALK {
        let time = Tensor::full(step as f32 / WALK as f32, (n, 1, 1, 1), &Device::Cpu)?;
        let direction = no_grad(|| model.forward_t(&question(&point, &time, labels)?, false))?;
        point = (point + (direction / WALK as f64)?)?;
    }
    Ok(point.affine(0.5, 0.5)?.clamp(0f32, 1f32)?)
}
