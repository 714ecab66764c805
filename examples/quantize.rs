//! A quantizer of one's own: weights that are −a, 0 or a, trained through a straight-through estimator.
//!
//! Run with `cargo run --release --bin quantize`. It trains the same small network twice on the built-in digits, with float
//! and with ternary weights, and compares what they reach and how many values their weights take.

use std::error::Error;

use layerfn::data::{Arrays, Augment, Loader};
use layerfn::functions::straight_through;
use layerfn::metrics::Confusion;
use layerfn::prelude::*;
use layerfn::solver::{Adam, Solver};
use layerfn_examples::digits::{Mnist, SIDE};

/// `±a` for the weights of an output that are above 0.7 times their mean modulus, 0 for the others; `a` is the mean
/// modulus of those kept (Li, Zhang & Liu, Ternary Weight Networks). The gradient passes unchanged.
fn ternary(w: &Tensor) -> Result<Tensor> {
    let size = w.detach().abs()?;
    let kept = size.broadcast_gt(&(size.mean_keepdim(0)? * 0.7)?)?.to_dtype(w.dtype())?;
    let a = ((&size * &kept)?.sum_keepdim(0)? / kept.sum_keepdim(0)?)?;
    straight_through(w, &(w.detach().sign()? * kept)?.broadcast_mul(&a)?)
}

/// Affine layer with ternary weights.
#[parametric_function(
    scope = "ternary_affine",
    params(
        /// Weight matrix in float.
        W: [inmaps, outmaps] = Initializer::glorot_uniform(inmaps, outmaps, &[]),
        /// Ternary weights.
        #[need_grad(false)]
        W_q: [inmaps, outmaps] = 0.0,
        /// Bias vector.
        b: [outmaps] = 0.0,
    )
)]
fn ternary_affine(
    /// Input, of shape (batch, inmaps).
    inp: &Tensor,
    /// Number of outputs.
    outmaps: usize,
) -> Result<Tensor> {
    let inmaps = inp.dim(1)?;
    let (w, _) = (ternary(&param!(W)?)?, param!(W_q)?);
    param!(W_q = &w)?;
    layerfn::functions::affine(inp, &w, Some(&param!(b)?), 1)
}

fn main() -> Result<(), Box<dyn Error>> {
    let smoke = std::env::args().any(|argument| argument == "--smoke");
    let mut mnist = Mnist::built_in()?;
    if smoke {
        mnist = mnist.smoke()?;
    }
    let float = network! { < flat -> affine(128) -> relu -> affine(10) > }.boxed();
    let quantized = network! { < flat -> ternary_affine(128) -> relu -> ternary_affine(10) > }.boxed();
    for (name, network) in [("float", &float), ("ternary", &quantized)] {
        let model = network.init((1, 1, SIDE, SIDE))?;
        train(&model, &mnist.train, if smoke { 1 } else { 5 })?;
        let accuracy = test(&model, &mnist.test)?;
        let parameters = model.store().parameters();
        let first = parameters.iter().find(|(path, _)| path.ends_with("W_q")).map(|(_, w)| w.var());
        let values = match first {
            Some(w) => format!("{} values in an output's weights", distinct(&w.get_on_dim(1, 0)?)?),
            None => "any value".to_owned(),
        };
        println!("{name:8} {accuracy:5.2} %, {values}");
    }
    Ok(())
}

fn flat(x: &Tensor) -> Result<Tensor> {
    Ok(x.flatten_from(1)?)
}

fn train(model: &Model, digits: &Arrays, epochs: u64) -> Result<(), Box<dyn Error>> {
    let mut solver = Adam::new(2e-3);
    solver.set_parameters(&model.parameters());
    let loader = Loader::new(digits.clone(), 64).shuffle(1).augment(0, Augment::new().shift(1));
    for batch in loader.epochs(epochs).batches()? {
        let batch = batch?;
        let [images, labels] = batch.fields()?;
        let loss = mean_softmax_cross_entropy(&model.forward(images)?, labels, 1)?;
        solver.update(&backward(loss)?)?;
    }
    Ok(())
}

/// Share of the digits that are recognized, in percent.
fn test(model: &Model, digits: &Arrays) -> Result<f64, Box<dyn Error>> {
    let mut confusion = Confusion::new(10);
    for batch in Loader::new(digits.clone(), 500).batches()? {
        let batch = batch?;
        let [images, labels] = batch.fields()?;
        confusion.add(&no_grad(|| model.forward_t(images, false))?, labels)?;
    }
    Ok(100.0 * confusion.accuracy())
}

fn distinct(tensor: &Tensor) -> Result<usize, Box<dyn Error>> {
    let mut bits: Vec<u32> =
        tensor.flatten_all()?.to_vec1::<f32>()?.into_iter().map(|x| (x + 0.0).to_bits()).collect();
    bits.sort_unstable();
    bits.dedup();
    Ok(bits.len())
}
