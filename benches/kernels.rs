//! How much of the machine's speed convolutions reach: a table in percent of a large matrix product, on one thread. And how
//! long layer normalization takes beside copies of its tensors.
//!
//! Run with `cargo run --release --bin kernels`. The shapes are those of the networks that `bench` runs. The product is
//! measured beside each row, since the clock of a processor is not constant; each figure is the best of many calls.
//! The multiplications of the definition count as done, as is usual, so a kernel that needs fewer, Winograd's or one that
//! leaves out the padding, can exceed 100 %.

use std::time::{Duration, Instant};

use candle_core::{DType, Device, Tensor, Var};
use layerfn::functions::{
    ConvGeometry, DeconvGeometry, affine, convolution, deconvolution, layer_normalization,
};

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// Name, images, input maps, output maps, input size, kernel, padding, stride, groups.
type Shape = (&'static str, usize, usize, usize, usize, usize, usize, usize, usize);

const SHAPES: &[Shape] = &[
    ("w1 first", 64, 1, 16, 28, 5, 0, 1, 1),
    ("w1 second", 64, 16, 16, 12, 5, 0, 1, 1),
    ("w2 3@32 to 16@32", 64, 3, 16, 32, 3, 1, 1, 1),
    ("w2 16@32", 64, 16, 16, 32, 3, 1, 1, 1),
    ("w2 32@16", 64, 32, 32, 16, 3, 1, 1, 1),
    ("w2 64@8", 64, 64, 64, 8, 3, 1, 1, 1),
    ("w2 16@32 to 32@16", 64, 16, 32, 32, 3, 1, 2, 1),
    ("w2 32@16 to 64@8", 64, 32, 64, 16, 3, 1, 2, 1),
    ("w2 1x1 16@32 to 32@16", 64, 16, 32, 32, 1, 0, 2, 1),
    ("w2 1x1 32@16 to 64@8", 64, 32, 64, 16, 1, 0, 2, 1),
    ("w5 depthwise 32@56", 16, 32, 32, 56, 3, 1, 1, 32),
    ("w5 depthwise 128@56", 16, 128, 128, 56, 3, 1, 1, 128),
    ("w5 pointwise 32@56", 16, 32, 32, 56, 1, 0, 1, 1),
    ("w5 pointwise 128@56", 16, 128, 128, 56, 1, 0, 1, 1),
    ("w6 3@224 to 64@112", 1, 3, 64, 224, 7, 3, 2, 1),
    ("w6 64@56 to 128@28", 1, 64, 128, 56, 3, 1, 2, 1),
    ("w6 128@28 to 256@14", 1, 128, 256, 28, 3, 1, 2, 1),
    ("w6 256@14 to 512@7", 1, 256, 512, 14, 3, 1, 2, 1),
    ("w6 64@56", 1, 64, 64, 56, 3, 1, 1, 1),
    ("w6 128@28", 1, 128, 128, 28, 3, 1, 1, 1),
    ("w6 256@14", 1, 256, 256, 14, 3, 1, 1, 1),
    ("w6 512@7", 1, 512, 512, 7, 3, 1, 1, 1),
];

fn main() -> Result<()> {
    let budget = match std::env::args().nth(1).as_deref() {
        None => Duration::from_millis(300),
        Some("--smoke") => Duration::ZERO,
        Some(other) => return Err(format!("`{other}` is not an option; the only one is `--smoke`").into()),
    };
    rayon::ThreadPoolBuilder::new().num_threads(1).build_global()?;
    println!("{}\n", layerfn::__private::level());
    println!("{:22}{:>10}{:>22}{:>22}{:>22}", "", "product", "forward", "data gradient", "weight gradient");
    println!("{:22}{:>10}{:>22}{:>22}{:>22}", "", "GFLOP/s", "GFLOP/s", "GFLOP/s", "GFLOP/s");
    for shape in SHAPES {
        let product = product(budget)?;
        print!("{:22}{product:10.1}", shape.0);
        for speed in convolutions(shape, budget)? {
            print!("{speed:15.1} {:4.0} %", 100.0 * speed / product);
        }
        println!();
    }
    let [copy, forward, backward] = normalization(budget)?.map(|time| time / 1e6);
    println!(
        "\nlayer normalization (8192, 256): forward {forward:.2} ms, backward {backward:.2} ms, a copy {copy:.2} ms"
    );
    Ok(())
}

/// Nanoseconds of a copy, and of layer normalization forward and backward. Backward reads two tensors and writes one, a copy
/// one each; the gradient that the pass begins with, a tensor of ones, counts too.
fn normalization(budget: Duration) -> Result<[f64; 3]> {
    let x = Var::from_tensor(&random(&[8192, 256])?)?;
    let (beta, gamma) = (Var::from_tensor(&random(&[1, 256])?)?, Var::from_tensor(&random(&[1, 256])?)?);
    let copy = nanoseconds(budget, || Ok(x.as_tensor().copy()?))?;
    let normalized = || layer_normalization(&x, Some(&beta), Some(&gamma), &[0], 1e-5);
    let forward = nanoseconds(budget, || Ok(normalized()?))?;
    let (y, ..) = normalized()?;
    let backward = nanoseconds(budget, || Ok(layerfn::backward(&y)?))?;
    Ok([copy, forward, backward])
}

/// GFLOP/s of a product of two matrices of 1024 rows and columns.
fn product(budget: Duration) -> Result<f64> {
    let (a, b) = (random(&[1024, 1024])?, random(&[1024, 1024])?);
    Ok(2.0 * 1024f64.powi(3) / nanoseconds(budget, || Ok(affine(&a, &b, None, 1)?))?)
}

/// GFLOP/s of a convolution, of its data gradient (the deconvolution) and of its weight gradient.
fn convolutions(shape: &Shape, budget: Duration) -> Result<[f64; 3]> {
    let &(_, images, inmaps, outmaps, size, kernel, pad, stride, group) = shape;
    let x = random(&[images, inmaps, size, size])?;
    let w = random(&[outmaps, inmaps / group, kernel, kernel])?;
    let [kernel, pad, stride] = [kernel, pad, stride].map(layerfn::PerAxis::from);
    let sizes = ConvGeometry::new(x.dims(), &kernel, &pad, &stride, &1.into(), group, 1)?;
    let forward = nanoseconds(budget, || Ok(convolution(&x, &w, None, &sizes)?))?;

    let dy = random(&sizes.output_dims(outmaps))?;
    let transposed = DeconvGeometry::new(dy.dims(), &kernel, &pad, &stride, &1.into(), group, 1)?;
    let data = nanoseconds(budget, || Ok(deconvolution(&dy, &w, None, &transposed)?))?;

    let w = Var::from_tensor(&w)?;
    let y = convolution(&x, w.as_tensor(), None, &sizes)?;
    let weights = nanoseconds(budget, || Ok(y.backward()?))?;

    let per_weight = images * sizes.output_spatial().iter().product::<usize>();
    let work = 2.0 * (per_weight * w.elem_count()) as f64;
    Ok([forward, data, weights].map(|time| work / time))
}

/// Of the fastest call.
fn nanoseconds<R>(budget: Duration, mut f: impl FnMut() -> Result<R>) -> Result<f64> {
    let begun = Instant::now();
    let mut best = f64::INFINITY;
    loop {
        let call = Instant::now();
        f()?;
        best = best.min(call.elapsed().as_secs_f64() * 1e9);
        if begun.elapsed() >= budget {
            return Ok(best);
        }
    }
}

fn random(dims: &[usize]) -> Result<Tensor> {
    Ok(Tensor::randn(0.0, 1.0, dims, &Device::Cpu)?.to_dtype(DType::F32)?)
}
