//! Convolutions and their transposes.

use candle_core::Tensor;

use crate::functions::{ConvGeometry, DeconvGeometry, channels_first};
use crate::options::{bias, grouped, layout, reparameterized, transposed_window, weights, window};
use crate::{Axis, Initializer, PerAxis, Result, Rng, WeightFn, check, functions, parametric_function};

/// N-D convolution with an optional bias, in one, two or three dimensions.
///
/// `y[n, o, p] = b[o] + Σ_c Σ_k W[o, c, k] · x[n, c, p · stride + k · dilation − pad]`, cross-correlation as in
/// NNabla; with `group = G`, each G-th of the output maps sees its G-th of the input maps only.
///
/// # Shapes
/// - input: `(N.., inmaps, L_1, .., L_d)`; `N..` are the `base_axis` leading axes
/// - output: `(N.., outmaps, L'_1, .., L'_d)` with `L' = (L + 2·pad − dilation·(kernel − 1) − 1) / stride + 1`,
///   rounded down
/// - `W`: `filter` is `(inmaps / group, kernel..)`
/// - with `channel_last`: input `(N.., L_1, .., L_d, inmaps)`, output `(N.., L'_1, .., L'_d, outmaps)`, `filter`
///   `(kernel.., inmaps / group)`
///
/// # Errors
/// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if the input has no spatial axis or more than three,
/// if `kernel`, `stride` or `dilation` has a zero, if the kernel exceeds the padded input, or if `group` does not
/// divide both channel counts; [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) if a parameter is registered
/// with another shape.
///
/// # Source
/// NNabla `PF.convolution`; for `dilation`: Chen et al., [DeepLab](https://arxiv.org/abs/1606.00915), and Yu &
/// Koltun, [Multi-Scale Context Aggregation by Dilated Convolutions](https://arxiv.org/abs/1511.07122).
///
/// # Example
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use layerfn::convolution;
///
/// let x = Tensor::zeros((8, 3, 32, 32), DType::F32, &Device::Cpu)?;
/// let y = convolution(&x, 16, (5, 5)).pad((2, 2)).stride((2, 1)).call()?;
/// assert_eq!(y.dims(), [8, 16, 16, 32]);
/// # Ok::<(), layerfn::Error>(())
/// ```
#[parametric_function(
    scope = "conv",
    options(window, grouped, layout, weights, bias, reparameterized),
    fuses(functions::relu),
    family = Convolution,
    multiply_adds = [..conv.output_dims(outmaps), inmaps / group, ..kernel],
    params(
        /// Filter weights.
        W: [outmaps, ..filter] =
            w_init.unwrap_or_else(|| Initializer::glorot_uniform(inmaps, outmaps, kernel)).with_rng(&rng),
        /// Bias vector.
        #[when(with_bias)]
        b: [outmaps] = b_init,
    )
)]
pub fn convolution(
    /// Input.
    inp: &Tensor,
    /// Number of output maps.
    outmaps: usize,
    /// Size of the filter on each spatial axis.
    #[into]
    kernel: PerAxis,
) -> Result<Tensor> {
    let dims = channels_first(inp.dims(), channel_last, base_axis);
    let conv = ConvGeometry::new(&dims, &kernel, &pad, &stride, &dilation, group, base_axis)?
        .with_channel_last(channel_last);
    conv.check(inp, outmaps)?;
    let (inmaps, kernel) = (conv.inmaps(), conv.kernel());
    let filter = conv.filter(inmaps / group);
    let (w, b) = super::reparameterized(param!(W), || param!(b), &[apply_w, apply_b])?;
    functions::convolution_then(inp, &w, b.as_ref(), &conv, relu_fused)
}

/// N-D depthwise convolution: every input map is convolved with `multiplier` filters of its own.
///
/// `y[n, c · multiplier + m] = b + W[c · multiplier + m] ⋆ x[n, c]`, where ⋆ is the one-map
/// [`convolution`](fn@convolution).
///
/// # Shapes
/// - input: `(N.., inmaps, L_1, .., L_d)`; `N..` are the `base_axis` leading axes
/// - output: `(N.., inmaps · multiplier, L'_1, .., L'_d)`, `L'` as in [`convolution`](fn@convolution)
///
/// # Errors
/// As [`convolution`](fn@convolution).
///
/// # Source
/// NNabla `PF.depthwise_convolution`; Chollet, [Xception](https://arxiv.org/abs/1610.02357).
///
/// # Example
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use layerfn::depthwise_convolution;
///
/// let x = Tensor::zeros((8, 6, 10, 10), DType::F32, &Device::Cpu)?;
/// let y = depthwise_convolution(&x, (3, 3)).multiplier(2).call()?;
/// assert_eq!(y.dims(), [8, 12, 8, 8]);
/// # Ok::<(), layerfn::Error>(())
/// ```
#[parametric_function(
    scope = "depthwise_conv",
    options(window, weights, bias, reparameterized),
    fuses(functions::relu),
    family = Convolution,
    multiply_adds = [..conv.output_dims(outmaps), ..kernel],
    params(
        /// Filter weights.
        W: [outmaps, ..kernel] =
            w_init.unwrap_or_else(|| Initializer::glorot_uniform(outmaps, inmaps, kernel)).with_rng(&rng),
        /// Bias vector.
        #[when(with_bias)]
        b: [outmaps] = b_init,
    )
)]
pub fn depthwise_convolution(
    /// Input.
    inp: &Tensor,
    /// Size of the filter on each spatial axis.
    #[into]
    kernel: PerAxis,
    /// Output maps for each input map; `outmaps = inmaps * multiplier`.
    #[opt(default = 1)]
    multiplier: usize,
) -> Result<Tensor> {
    let conv = ConvGeometry::depthwise(inp.dims(), &kernel, &pad, &stride, &dilation, base_axis)?;
    let (inmaps, kernel) = (conv.inmaps(), conv.kernel());
    let outmaps = check::count("multiplier", &[inmaps, multiplier])?;
    conv.check(inp, outmaps)?;
    let (w, b) = super::reparameterized(param!(W), || param!(b), &[apply_w, apply_b])?;
    functions::convolution_then(inp, &w.unsqueeze(1)?, b.as_ref(), &conv, relu_fused)
}

/// N-D deconvolution, also known as transposed convolution: the gradient of [`convolution`](fn@convolution) with
/// respect to its input, as a layer.
///
/// `y[n, o, q] = b[o] + Σ_c Σ_{p, k: p · stride + k · dilation − pad = q} W[c, o, k] · x[n, c, p]`.
///
/// # Shapes
/// - input: `(N.., inmaps, L_1, .., L_d)`; `N..` are the `base_axis` leading axes
/// - output: `(N.., outmaps, L'_1, .., L'_d)` with
///   `L' = stride·(L − 1) + dilation·(kernel − 1) + 1 − 2·pad + output_padding`
/// - `W`: `filter` is `(outmaps / group, kernel..)`
/// - with `channel_last`: input `(N.., L_1, .., L_d, inmaps)`, output `(N.., L'_1, .., L'_d, outmaps)`, `filter`
///   `(kernel.., outmaps / group)`
///
/// # Errors
/// As [`convolution`](fn@convolution); the output must not be empty, and `output_padding` must be below the stride or the
/// dilation.
///
/// # Source
/// NNabla `PF.deconvolution`.
///
/// # Example
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use layerfn::deconvolution;
///
/// let x = Tensor::zeros((8, 6, 10, 10), DType::F32, &Device::Cpu)?;
/// let y = deconvolution(&x, 3, (2, 2)).stride((2, 2)).call()?;
/// assert_eq!(y.dims(), [8, 3, 20, 20]);
/// # Ok::<(), layerfn::Error>(())
/// ```
#[parametric_function(
    scope = "deconv",
    options(transposed_window, grouped, layout, weights, bias, reparameterized),
    fuses(functions::relu),
    family = Convolution,
    multiply_adds = [inp.elem_count(), outmaps / group, ..kernel],
    params(
        /// Filter weights.
        W: [inmaps, ..filter] =
            w_init.unwrap_or_else(|| Initializer::glorot_uniform(outmaps, inmaps, kernel)).with_rng(&rng),
        /// Bias vector.
        #[when(with_bias)]
        b: [outmaps] = b_init,
    )
)]
pub fn deconvolution(
    /// Input.
    inp: &Tensor,
    /// Number of output maps.
    outmaps: usize,
    /// Size of the filter on each spatial axis.
    #[into]
    kernel: PerAxis,
    /// Additional outputs at the end of each spatial axis.
    #[opt(into, default = 0)]
    output_padding: PerAxis,
) -> Result<Tensor> {
    let dims = channels_first(inp.dims(), channel_last, base_axis);
    let deconv = DeconvGeometry::new(&dims, &kernel, &pad, &stride, &dilation, group, base_axis)?
        .with_channel_last(channel_last)
        .with_output_padding(&output_padding)?;
    deconv.check(inp, outmaps)?;
    let (inmaps, kernel) = (deconv.inmaps(), deconv.kernel());
    let filter = deconv.filter(outmaps / group);
    let (w, b) = super::reparameterized(param!(W), || param!(b), &[apply_w, apply_b])?;
    functions::deconvolution_then(inp, &w, b.as_ref(), &deconv, relu_fused)
}

/// N-D depthwise deconvolution: the transpose of [`depthwise_convolution`](fn@depthwise_convolution); each output
/// map is the sum over `divisor` input maps of their own deconvolutions.
///
/// # Shapes
/// - input: `(N.., inmaps, L_1, .., L_d)`; `N..` are the `base_axis` leading axes
/// - output: `(N.., inmaps / divisor, L'_1, .., L'_d)`, `L'` as in [`deconvolution`](fn@deconvolution)
///
/// # Errors
/// As [`deconvolution`](fn@deconvolution); `divisor` must divide `inmaps`.
///
/// # Source
/// NNabla `PF.depthwise_deconvolution`.
///
/// # Example
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use layerfn::depthwise_deconvolution;
///
/// let x = Tensor::zeros((8, 6, 10, 10), DType::F32, &Device::Cpu)?;
/// let y = depthwise_deconvolution(&x, (3, 3)).divisor(2).call()?;
/// assert_eq!(y.dims(), [8, 3, 12, 12]);
/// # Ok::<(), layerfn::Error>(())
/// ```
#[parametric_function(
    scope = "depthwise_deconv",
    options(transposed_window, weights, bias, reparameterized),
    fuses(functions::relu),
    family = Convolution,
    multiply_adds = [inp.elem_count(), ..kernel],
    params(
        /// Filter weights.
        W: [inmaps, ..kernel] =
            w_init.unwrap_or_else(|| Initializer::glorot_uniform(inmaps, inmaps, kernel)).with_rng(&rng),
        /// Bias vector.
        #[when(with_bias)]
        b: [inmaps / divisor] = b_init,
    )
)]
pub fn depthwise_deconvolution(
    /// Input.
    inp: &Tensor,
    /// Size of the filter on each spatial axis.
    #[into]
    kernel: PerAxis,
    /// Input maps for each output map.
    #[opt(default = 1)]
    divisor: usize,
) -> Result<Tensor> {
    let deconv =
        DeconvGeometry::depthwise(inp.dims(), divisor, &kernel, &pad, &stride, &dilation, base_axis)?;
    deconv.check(inp, deconv.group())?;
    let (inmaps, kernel) = (deconv.inmaps(), deconv.kernel());
    let (w, b) = super::reparameterized(param!(W), || param!(b), &[apply_w, apply_b])?;
    functions::deconvolution_then(inp, &w.unsqueeze(1)?, b.as_ref(), &deconv, relu_fused)
}
