//! Layers whose weights are −1 or 1, with or without a scale.

use candle_core::Tensor;

use super::affine_sizes;
use crate::functions::ConvGeometry;
use crate::options::{bias, grouped, weights, window};
use crate::{
    Axis, Dims, Initializer, PerAxis, Result, Rng, check, functions, option_group, parametric_function,
};

option_group! {
    /// Options of layers with binary weights.
    binary_weights {
        /// Binary value of a weight of 0, usually −1 or 1.
        #[opt(default = 1.0)]
        quantize_zero_to: f64,
        /// Initializer of `Wb`; Glorot uniform if absent.
        #[opt(into)]
        wb_init: Option<Initializer>,
    }
}

/// Binary Connect affine: [`affine`](fn@crate::affine) with the signs of the weights, which needs no multiplication.
///
/// `Wb = 1` where `W > 0`, `quantize_zero_to` where it is 0, and `−1` elsewhere; the layer computes with `Wb`. The gradient of `Wb` is handed to `W`
/// unchanged (straight-through estimator). Meant to be used together with
/// [`batch_normalization`](fn@crate::batch_normalization).
///
/// The float weights `W` are trained; `Wb` agree with them after each forward pass, until an optimizer changes `W`.
/// To share weights between layers, share `W`. The transformed values are stored as floating point numbers: the layer
/// simulates, it does not pack bits.
///
/// # Shapes
/// As [`affine`](fn@crate::affine).
///
/// # Errors
/// As [`affine`](fn@crate::affine).
///
/// # Source
/// NNabla `PF.binary_connect_affine`; Courbariaux, Bengio & David,
/// [BinaryConnect](https://arxiv.org/abs/1511.00363).
///
/// # Example
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use layerfn::binary_connect_affine;
///
/// let x = Tensor::ones((4, 6), DType::F32, &Device::Cpu)?;
/// assert_eq!(binary_connect_affine(&x, 3).call()?.dims(), [4, 3]);
/// # Ok::<(), layerfn::Error>(())
/// ```
#[parametric_function(
    scope = "bicon_affine",
    options(weights, binary_weights, bias),
    family = Affine,
    multiply_adds = [inp.elem_count(), outmaps],
    params(
        /// Weight matrix in float.
        W: [inmaps, ..n_outmaps] =
            w_init.unwrap_or_else(|| Initializer::glorot_uniform(inmaps, outmaps, &[])).with_rng(&rng),
        /// Binarized weights.
        #[need_grad(false)]
        Wb: [inmaps, ..n_outmaps] =
            wb_init.unwrap_or_else(|| Initializer::glorot_uniform(inmaps, outmaps, &[])).with_rng(&rng),
        /// Bias vector.
        #[when(with_bias)]
        b: [..n_outmaps] = b_init,
    )
)]
pub fn binary_connect_affine(
    /// Input.
    inp: &Tensor,
    /// Number of outputs per sample, or their shape.
    #[into]
    n_outmaps: Dims,
) -> Result<Tensor> {
    let [inmaps, outmaps] = affine_sizes(inp, base_axis, &n_outmaps)?;
    check::within("quantize_zero_to", quantize_zero_to, ..)?;
    let (w, _) = (param!(W)?, param!(Wb)?);
    let wb = functions::binary_connect(&w, quantize_zero_to)?;
    param!(Wb = &wb)?;
    functions::affine(inp, &wb, param!(b)?.as_ref(), base_axis)
}

/// Binary Connect convolution: [`convolution`](fn@crate::convolution) with the signs of the weights, which needs no multiplication.
///
/// `Wb = 1` where `W > 0`, `quantize_zero_to` where it is 0, and `−1` elsewhere; the layer computes with `Wb`. The gradient of `Wb` is handed to `W`
/// unchanged (straight-through estimator). Meant to be used together with
/// [`batch_normalization`](fn@crate::batch_normalization).
///
/// The float weights `W` are trained; `Wb` agree with them after each forward pass, until an optimizer changes `W`.
/// To share weights between layers, share `W`. The transformed values are stored as floating point numbers: the layer
/// simulates, it does not pack bits.
///
/// # Shapes
/// As [`convolution`](fn@crate::convolution).
///
/// # Errors
/// As [`convolution`](fn@crate::convolution).
///
/// # Source
/// NNabla `PF.binary_connect_convolution`, there without groups; Courbariaux, Bengio & David,
/// [BinaryConnect](https://arxiv.org/abs/1511.00363).
///
/// # Example
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use layerfn::binary_connect_convolution;
///
/// let x = Tensor::ones((4, 6, 8, 8), DType::F32, &Device::Cpu)?;
/// assert_eq!(binary_connect_convolution(&x, 4, (3, 3)).group(2).call()?.dims(), [4, 4, 6, 6]);
/// # Ok::<(), layerfn::Error>(())
/// ```
#[parametric_function(
    scope = "bicon_conv",
    options(window, grouped, weights, binary_weights, bias),
    family = Convolution,
    multiply_adds = [..conv.output_dims(outmaps), inmaps / group, ..kernel],
    params(
        /// Filter weights in float.
        W: [outmaps, inmaps / group, ..kernel] =
            w_init.unwrap_or_else(|| Initializer::glorot_uniform(inmaps, outmaps, kernel)).with_rng(&rng),
        /// Binarized weights.
        #[need_grad(false)]
        Wb: [outmaps, inmaps / group, ..kernel] =
            wb_init.unwrap_or_else(|| Initializer::glorot_uniform(inmaps, outmaps, kernel)).with_rng(&rng),
        /// Bias vector.
        #[when(with_bias)]
        b: [outmaps] = b_init,
    )
)]
pub fn binary_connect_convolution(
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
    check::within("quantize_zero_to", quantize_zero_to, ..)?;
    let (w, _) = (param!(W)?, param!(Wb)?);
    let wb = functions::binary_connect(&w, quantize_zero_to)?;
    param!(Wb = &wb)?;
    functions::convolution(inp, &wb, param!(b)?.as_ref(), &conv)
}

/// Binary Weight affine: [`affine`](fn@crate::affine) with the signs of the weights and one scale for each output.
///
/// `Wb = 1` where `W > 0`, `quantize_zero_to` where it is 0, and `−1` elsewhere, `alpha = mean |W|` over the weights of an output; the layer computes
/// with `alpha · Wb`. The gradient of `alpha · Wb` is handed to `W` unchanged (straight-through estimator).
///
/// The float weights `W` are trained; `Wb` and `alpha` agree with them after each forward pass, until an optimizer changes `W`.
/// To share weights between layers, share `W`. The transformed values are stored as floating point numbers: the layer
/// simulates, it does not pack bits.
///
/// # Shapes
/// As [`affine`](fn@crate::affine).
///
/// # Errors
/// As [`affine`](fn@crate::affine).
///
/// # Source
/// NNabla `PF.binary_weight_affine`; Rastegari et al.,
/// [XNOR-Net](https://arxiv.org/abs/1603.05279).
///
/// # Example
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use layerfn::binary_weight_affine;
///
/// let x = Tensor::ones((4, 6), DType::F32, &Device::Cpu)?;
/// assert_eq!(binary_weight_affine(&x, 3).call()?.dims(), [4, 3]);
/// # Ok::<(), layerfn::Error>(())
/// ```
#[parametric_function(
    scope = "bwn_affine",
    options(weights, binary_weights, bias),
    family = Affine,
    multiply_adds = [inp.elem_count(), outmaps],
    params(
        /// Weight matrix in float.
        W: [inmaps, ..n_outmaps] =
            w_init.unwrap_or_else(|| Initializer::glorot_uniform(inmaps, outmaps, &[])).with_rng(&rng),
        /// Binarized weights.
        #[need_grad(false)]
        Wb: [inmaps, ..n_outmaps] =
            wb_init.unwrap_or_else(|| Initializer::glorot_uniform(inmaps, outmaps, &[])).with_rng(&rng),
        /// Scaling factors.
        #[need_grad(false)]
        alpha: [..n_outmaps] = 0.0,
        /// Bias vector.
        #[when(with_bias)]
        b: [..n_outmaps] = b_init,
    )
)]
pub fn binary_weight_affine(
    /// Input.
    inp: &Tensor,
    /// Number of outputs per sample, or their shape.
    #[into]
    n_outmaps: Dims,
) -> Result<Tensor> {
    let [inmaps, outmaps] = affine_sizes(inp, base_axis, &n_outmaps)?;
    check::within("quantize_zero_to", quantize_zero_to, ..)?;
    let (w, _, _) = (param!(W)?, param!(Wb)?, param!(alpha)?);
    let binary = functions::binary_weight(&w, 0..1, quantize_zero_to)?;
    param!(Wb = &binary.wb)?;
    param!(alpha = &binary.alpha)?;
    functions::affine(inp, &binary.output, param!(b)?.as_ref(), base_axis)
}

/// Binary Weight convolution: [`convolution`](fn@crate::convolution) with the signs of the weights and one scale for each output.
///
/// `Wb = 1` where `W > 0`, `quantize_zero_to` where it is 0, and `−1` elsewhere, `alpha = mean |W|` over the weights of an output; the layer computes
/// with `alpha · Wb`. The gradient of `alpha · Wb` is handed to `W` unchanged (straight-through estimator).
///
/// The float weights `W` are trained; `Wb` and `alpha` agree with them after each forward pass, until an optimizer changes `W`.
/// To share weights between layers, share `W`. The transformed values are stored as floating point numbers: the layer
/// simulates, it does not pack bits.
///
/// # Shapes
/// As [`convolution`](fn@crate::convolution).
///
/// # Errors
/// As [`convolution`](fn@crate::convolution).
///
/// # Source
/// NNabla `PF.binary_weight_convolution`, there without groups; Rastegari et al.,
/// [XNOR-Net](https://arxiv.org/abs/1603.05279).
///
/// # Example
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use layerfn::binary_weight_convolution;
///
/// let x = Tensor::ones((4, 6, 8, 8), DType::F32, &Device::Cpu)?;
/// assert_eq!(binary_weight_convolution(&x, 4, (3, 3)).group(2).call()?.dims(), [4, 4, 6, 6]);
/// # Ok::<(), layerfn::Error>(())
/// ```
#[parametric_function(
    scope = "bwn_conv",
    options(window, grouped, weights, binary_weights, bias),
    family = Convolution,
    multiply_adds = [..conv.output_dims(outmaps), inmaps / group, ..kernel],
    params(
        /// Filter weights in float.
        W: [outmaps, inmaps / group, ..kernel] =
            w_init.unwrap_or_else(|| Initializer::glorot_uniform(inmaps, outmaps, kernel)).with_rng(&rng),
        /// Binarized weights.
        #[need_grad(false)]
        Wb: [outmaps, inmaps / group, ..kernel] =
            wb_init.unwrap_or_else(|| Initializer::glorot_uniform(inmaps, outmaps, kernel)).with_rng(&rng),
        /// Scaling factors.
        #[need_grad(false)]
        alpha: [outmaps] = 0.0,
        /// Bias vector.
        #[when(with_bias)]
        b: [outmaps] = b_init,
    )
)]
pub fn binary_weight_convolution(
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
    check::within("quantize_zero_to", quantize_zero_to, ..)?;
    let (w, _, _) = (param!(W)?, param!(Wb)?, param!(alpha)?);
    let binary = functions::binary_weight(&w, 1..w.rank(), quantize_zero_to)?;
    param!(Wb = &binary.wb)?;
    param!(alpha = &binary.alpha)?;
    functions::convolution(inp, &binary.output, param!(b)?.as_ref(), &conv)
}
