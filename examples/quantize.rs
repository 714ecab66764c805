//! Two ways to few bits: integers after the training, and a quantizer of one's own in the training.
//!
//! Run with `cargo run --release --bin quantize`. It trains the same small network twice on the built-in digits, with float
//! weights and with weights that are −a, 0 or a through a straight-through estimator. The float network is written as an ONNX file
//! of 8-bit integers, too, whose ranges follow from some digits. It compares what they reach and how many values their weights take.

use std::error::Error;

use layerfn::data::{Arrays, Augment, Loader};
use layerfn::export::Range;
use layerfn::functions::straight_through;
use layerfn::import::Onnx;
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
        let accuracy = test(|images| model.forward_t(images, false), &mnist.test)?;
        let parameters = model.store().parameters();
        let first = parameters.iter().find(|(path, _)| path.ends_with("W_q")).map(|(_, w)| w.var());
        let values = match first {
            Some(w) => format!("{} values in an output's weights", distinct(&w.get_on_dim(1, 0)?)?),
            None => "any value".to_owned(),
        };
        println!("{name:8} {accuracy:5.2} %, {values}");
        if name == "float" {
            after_training(&model, &mnist)?;
        }
    }
    Ok(())
}

/// Writes the trained network with floats and with integers; what the latter reaches, and the sizes of the files.
fn after_training(model: &Model, mnist: &Mnist) -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let [floats, integers] = ["float.onnx", "int8.onnx"].map(|name| folder.path().join(name));
    model.export_onnx(&floats, [(1, 1, SIDE, SIDE)])?;
    let some = Loader::new(mnist.train.slice(0..512)?, 64).batches()?;
    let batches = some.map(|batch| Ok([batch?.fields::<2>()?[0].clone()])).collect::<Result<Vec<_>>>()?;
    let layers = model.export_onnx_int8(&integers, batches, Range::Percentile(99.99))?;

    let imported = Onnx::open(&integers)?.model()?;
    let run = |images: &Tensor| Ok(imported.forward_t(std::slice::from_ref(images), false)?.swap_remove(0));
    let accuracy = test(run, &mnist.test)?;
    let [before, after] = [floats, integers].map(|file| file.metadata().map_or(0, |file| file.len() / 1024));
    println!("int8     {accuracy:5.2} %, {after} KB in place of {before}; {layers}");
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
fn test(run: impl Fn(&Tensor) -> Result<Tensor>, digits: &Arrays) -> Result<f64, Box<dyn Error>> {
    let mut confusion = Confusion::new(10);
    for batch in Loader::new(digits.clone(), 500).batches()? {
        let batch = batch?;
        let [images, labels] = batch.fields()?;
        confusion.add(&no_grad(|| run(images))?, labels)?;
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
