//! Layers among the strictest lints.
#![deny(warnings, missing_docs, unreachable_pub, unused_qualifications, clippy::pedantic)]

use candle_core::{DType, Device, Tensor};
use layerfn::{Dims, Initializer, ParameterStore, PerAxis, Result, parametric_function};

/// A layer with every kind of option.
///
/// # Example
/// None.
#[parametric_function(
    scope = "strict",
    params(
        /// Weights.
        W: [outmaps, ..&inp.dims()[1..]] = w_init.unwrap_or_else(|| Initializer::uniform(-1.0, 1.0)),
        /// Bias.
        #[when(with_bias && !other)]
        b: [outmaps] = b_init,
        /// Mean.
        #[need_grad(false)]
        mean: [outmaps] = Initializer::constant(0.0),
    )
)]
pub(crate) fn strict(
    inp: &Tensor,
    outmaps: usize,
    #[into] kernel: Dims,
    first: bool,
    second: bool,
    third: bool,
    fourth: bool,
    /// Stride.
    #[opt(into, default = 1)]
    stride: PerAxis,
    /// Padding.
    #[opt(into, default = PerAxis::Every(0))]
    pad: PerAxis,
    #[opt] w_init: Option<Initializer>,
    #[opt(into, default = 0.0)] b_init: Initializer,
    #[opt(default = true)] with_bias: bool,
    #[opt] other: bool,
    #[opt(default = None)] text: Option<&str>,
    #[opt(maybe)] maybe: Option<usize>,
) -> Result<Tensor> {
    let flags = [first, second, third, fourth];
    let _ = (kernel.len(), flags, &stride, &pad, text, maybe);
    let w = param!(W)?;
    let mean = param!(mean)?;
    param!(mean = &(mean + 1.0)?)?;
    Ok(match param!(b)? {
        Some(b) => (w.sum_keepdim(0)?.flatten_all()?.sum_all()? + b.sum_all()?)?,
        None => w,
    })
}

/// Returns always the same, takes nothing.
#[parametric_function]
fn constant() -> Result<usize> {
    Ok(1)
}

#[test]
fn strict_lints_allow_layers() -> Result<()> {
    let x = Tensor::ones((2, 3), DType::F32, &Device::Cpu)?;
    ParameterStore::new().enter(|| {
        let y = strict(&x, 4, (1, 1), true, false, true, false).with_bias(false).call()?;
        assert_eq!(y.dims(), [4, 3]);
        assert_eq!(constant().call()?, 1);
        Ok(())
    })
}
