//! Incremental network quantization: weights become powers of two, half of them at a time.

use candle_core::Tensor;

use super::affine_sizes;
pub use crate::functions::SelectionAlgorithm;
use crate::functions::{ConvGeometry, Inq};
use crate::options::{bias, grouped, weights, window};
use crate::{
    Axis, Dims, Initializer, ParameterStore, PerAxis, Result, Rng, functions, option_group,
    parametric_function, update_state,
};

option_group! {
    /// Options of the incremental quantization.
    fixing {
        /// Bits for each weight, above 1: one codes the value 0.
        #[opt(default = 4)]
        num_bits: usize,
        /// Forward passes, counted from 0, at which half of the free weights are fixed; all of them at the last.
        #[opt(into)]
        inq_iterations: Vec<usize>,
        /// Which weights are fixed first.
        #[opt(default = SelectionAlgorithm::Random)]
        selection_algorithm: SelectionAlgorithm,
        /// Seed of the random selection; negative for the generator of the current store.
        #[opt(default = -1)]
        seed: i64,
        /// Initializer of `I`: 0 for free, 1 for fixed.
        #[opt(into, default = 0.0)]
        i_init: Initializer,
    }
}

/// Incremental Network Quantization affine: [`affine`](fn@crate::affine) whose weights become powers of two, in steps.
///
/// At each forward pass that `inq_iterations` names, half of the weights that are still free become fixed; at
/// the last one, all of them do. A fixed weight is rounded to `±2^e` with `e` between `n2 = n1 + 1 −
/// 2^(num_bits − 2)` and `n1 = ⌊log2(4/3 · max |W|)⌋`, or to 0 below `2^(n2 − 1)`. Changes that an optimizer
/// makes to it are undone before the next pass. The number of passes is saved and restored with the parameters.
///
/// # Shapes
/// As [`affine`](fn@crate::affine).
///
/// # Errors
/// As [`affine`](fn@crate::affine); [`Error::InvalidArgument`](crate::Error::InvalidArgument) if
/// `num_bits` is not between 2 and 32.
///
/// # Source
/// NNabla `PF.inq_affine`; Zhou et al.,
/// [Incremental Network Quantization](https://arxiv.org/abs/1702.03044).
///
/// # Example
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use layerfn::inq_affine;
///
/// let x = Tensor::ones((4, 6), DType::F32, &Device::Cpu)?;
/// assert_eq!(inq_affine(&x, 3).inq_iterations([1, 2]).call()?.dims(), [4, 3]);
/// # Ok::<(), layerfn::Error>(())
/// ```
#[parametric_function(
    scope = "inq_affine",
    options(fixing, weights, bias),
    family = Affine,
    multiply_adds = [inp.elem_count(), outmaps],
    params(
        /// Weight matrix in float.
        W: [inmaps, ..n_outmaps] =
            w_init.unwrap_or_else(|| Initializer::glorot_uniform(inmaps, outmaps, &[])).with_rng(&rng),
        /// Indicators of the fixed weights.
        #[need_grad(false)]
        I: [inmaps, ..n_outmaps] = i_init,
        /// Bias vector.
        #[when(with_bias)]
        b: [..n_outmaps] = b_init,
        /// Weights after the last forward pass.
        #[need_grad(false)]
        _W: [inmaps, ..n_outmaps] = 0.0,
        /// Forward passes and random draws so far.
        #[need_grad(false)]
        _count: [Inq::STATE] = 0.0,
    )
)]
pub fn inq_affine(
    /// Input.
    inp: &Tensor,
    /// Number of outputs per sample, or their shape.
    #[into]
    n_outmaps: Dims,
) -> Result<Tensor> {
    let [inmaps, outmaps] = affine_sizes(inp, base_axis, &n_outmaps)?;
    let inq = Inq { num_bits, inq_iterations, selection_algorithm, seed }.checked()?;
    let (w, _, b) = (param!(W)?, param!(I)?, param!(b)?);
    (param!(_W)?, param!(_count)?);
    let rounded = stepped(&inq)?.unwrap_or_else(|| w.detach());
    functions::affine(inp, &functions::straight_through(&w, &rounded)?, b.as_ref(), base_axis)
}

/// Incremental Network Quantization convolution: [`convolution`](fn@crate::convolution) whose weights become powers of two, in steps.
///
/// At each forward pass that `inq_iterations` names, half of the weights that are still free become fixed; at
/// the last one, all of them do. A fixed weight is rounded to `±2^e` with `e` between `n2 = n1 + 1 −
/// 2^(num_bits − 2)` and `n1 = ⌊log2(4/3 · max |W|)⌋`, or to 0 below `2^(n2 − 1)`. Changes that an optimizer
/// makes to it are undone before the next pass. The number of passes is saved and restored with the parameters.
///
/// # Shapes
/// As [`convolution`](fn@crate::convolution).
///
/// # Errors
/// As [`convolution`](fn@crate::convolution); [`Error::InvalidArgument`](crate::Error::InvalidArgument) if
/// `num_bits` is not between 2 and 32.
///
/// # Source
/// NNabla `PF.inq_convolution`, there without groups; Zhou et al.,
/// [Incremental Network Quantization](https://arxiv.org/abs/1702.03044).
///
/// # Example
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use layerfn::inq_convolution;
///
/// let x = Tensor::ones((4, 6, 8, 8), DType::F32, &Device::Cpu)?;
/// assert_eq!(inq_convolution(&x, 4, (3, 3)).group(2).inq_iterations([1, 2]).call()?.dims(), [4, 4, 6, 6]);
/// # Ok::<(), layerfn::Error>(())
/// ```
#[parametric_function(
    scope = "inq_conv",
    options(window, grouped, fixing, weights, bias),
    family = Convolution,
    multiply_adds = [..conv.output_dims(outmaps), inmaps / group, ..kernel],
    params(
        /// Filter weights in float.
        W: [outmaps, inmaps / group, ..kernel] =
            w_init.unwrap_or_else(|| Initializer::glorot_uniform(inmaps, outmaps, kernel)).with_rng(&rng),
        /// Indicators of the fixed weights.
        #[need_grad(false)]
        I: [outmaps, inmaps / group, ..kernel] = i_init,
        /// Bias vector.
        #[when(with_bias)]
        b: [outmaps] = b_init,
        /// Weights after the last forward pass.
        #[need_grad(false)]
        _W: [outmaps, inmaps / group, ..kernel] = 0.0,
        /// Forward passes and random draws so far.
        #[need_grad(false)]
        _count: [Inq::STATE] = 0.0,
    )
)]
pub fn inq_convolution(
    /// Input.
    inp: &Tensor,
    /// Number of output maps.
    outmaps: usize,
    /// Size of the filter on each spatial axis.
    #[into]
    kernel: PerAxis,
) -> Result<Tensor> {
    let conv = ConvGeometry::new(inp.dims(), &kernel, &pad, &stride, &dilation, group, base_axis)?;
    conv.check(inp, outmaps)?;
    let (inmaps, kernel) = (conv.inmaps(), conv.kernel());
    let inq = Inq { num_bits, inq_iterations, selection_algorithm, seed }.checked()?;
    let (w, _, b) = (param!(W)?, param!(I)?, param!(b)?);
    (param!(_W)?, param!(_count)?);
    let rounded = stepped(&inq)?.unwrap_or_else(|| w.detach());
    functions::convolution(inp, &functions::straight_through(&w, &rounded)?, b.as_ref(), &conv)
}

/// The weights after one pass of the running layer, or `None` if they are frozen.
fn stepped(inq: &Inq) -> Result<Option<Tensor>> {
    let rng = ParameterStore::current().rng();
    let state = update_state(["W", "I", "_W", "_count"], |[w, i, last, count]| {
        let step = inq.step(&w, &i, &last, &count, &rng)?;
        Ok([step.w.clone(), step.i, step.w, step.count])
    })?;
    Ok(state.map(|[w, ..]| w))
}
