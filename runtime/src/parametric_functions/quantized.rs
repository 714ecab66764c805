//! Layers whose weights and biases are quantized or pruned in the forward pass.

use candle_core::Tensor;

use super::affine_sizes;
use crate::functions::{ConvGeometry, FixedPoint, Pow2, Prune, Transform, channels_first};
use crate::options::{bias, grouped, layout, weights, window};
use crate::{Axis, Dims, Initializer, PerAxis, Result, Rng, functions, option_group, parametric_function};

option_group! {
    /// Options of fixed-point layers.
    fixed_point {
        /// Whether to quantize weights.
        #[opt(default = true)]
        quantize_w: bool,
        /// Whether quantized values of weights have a sign, which takes one bit.
        #[opt(default = true)]
        sign_w: bool,
        /// Bits for weights.
        #[opt(default = 8)]
        n_w: usize,
        /// Step size for weights, above 0.
        #[opt(default = 0.0625)]
        delta_w: f64,
        /// Whether weights outside the range get no gradient.
        #[opt(default = true)]
        ste_fine_grained_w: bool,
        /// Whether to quantize the bias.
        #[opt(default = true)]
        quantize_b: bool,
        /// Whether quantized values of the bias have a sign, which takes one bit.
        #[opt(default = true)]
        sign_b: bool,
        /// Bits for the bias.
        #[opt(default = 8)]
        n_b: usize,
        /// Step size for the bias, above 0.
        #[opt(default = 0.0625)]
        delta_b: f64,
        /// Whether a bias outside the range gets no gradient.
        #[opt(default = true)]
        ste_fine_grained_b: bool,
    }

    /// Options of layers with powers of two.
    pow2 {
        /// Whether to quantize weights.
        #[opt(default = true)]
        quantize_w: bool,
        /// Whether quantized values of weights have a sign, which takes one bit.
        #[opt(default = true)]
        sign_w: bool,
        /// Whether zero is a quantized value of weights, which takes one bit.
        #[opt(default = false)]
        with_zero_w: bool,
        /// Bits for weights.
        #[opt(default = 8)]
        n_w: usize,
        /// Exponent of the largest value of weights, `2^m`.
        #[opt(default = 2)]
        m_w: i32,
        /// Whether weights outside the range get no gradient.
        #[opt(default = true)]
        ste_fine_grained_w: bool,
        /// Whether to quantize the bias.
        #[opt(default = true)]
        quantize_b: bool,
        /// Whether quantized values of the bias have a sign, which takes one bit.
        #[opt(default = true)]
        sign_b: bool,
        /// Whether zero is a quantized value of the bias, which takes one bit.
        #[opt(default = false)]
        with_zero_b: bool,
        /// Bits for the bias.
        #[opt(default = 8)]
        n_b: usize,
        /// Exponent of the largest value of the bias, `2^m`.
        #[opt(default = 2)]
        m_b: i32,
        /// Whether a bias outside the range gets no gradient.
        #[opt(default = true)]
        ste_fine_grained_b: bool,
    }

    /// Options of pruned layers.
    pruning {
        /// Whether to prune weights.
        #[opt(default = true)]
        prune_w: bool,
        /// Fraction of the weights that is set to zero, in [0, 1].
        #[opt(default = 0.9)]
        rate_w: f64,
        /// Whether to prune the bias.
        #[opt(default = true)]
        prune_b: bool,
        /// Fraction of the bias that is set to zero, in [0, 1].
        #[opt(default = 0.9)]
        rate_b: f64,
    }
}

/// Fixed-Point Quantized affine: [`affine`](fn@crate::affine) with quantized weights and bias.
///
/// `q(w) = sign(w) · ⌊|w| / delta + 1/2⌋ · delta`, clipped to `±(2^n' − 1) · delta` with `n' = n − 1`, or,
/// without sign, to 0 and `(2^n − 1) · delta`. The gradient of `q(w)` is passed on to `w` unchanged
/// (straight-through estimator), except, if fine-grained, where `w` is clipped.
///
/// The float weights `W` are trained; `W_q` and `b_q` agree with their floats after each forward pass, until an optimizer changes `W`.
/// To share weights between layers, share `W`. The transformed values are stored as floating point numbers: the layer
/// simulates, it does not pack bits.
///
/// # Shapes
/// As [`affine`](fn@crate::affine).
///
/// # Errors
/// As [`affine`](fn@crate::affine); [`Error::InvalidArgument`](crate::Error::InvalidArgument) if no bit is
/// left after the sign or a step size is not positive.
///
/// # Source
/// NNabla `PF.fixed_point_quantized_affine`.
///
/// # Example
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use layerfn::fixed_point_quantized_affine;
///
/// let x = Tensor::ones((4, 6), DType::F32, &Device::Cpu)?;
/// assert_eq!(fixed_point_quantized_affine(&x, 3).call()?.dims(), [4, 3]);
/// # Ok::<(), layerfn::Error>(())
/// ```
#[parametric_function(
    scope = "fp_quantized_affine",
    options(weights, bias, fixed_point),
    family = Affine,
    multiply_adds = [inp.elem_count(), outmaps],
    params(
        /// Weight matrix in float.
        W: [inmaps, ..n_outmaps] =
            w_init.clone().unwrap_or_else(|| Initializer::glorot_uniform(inmaps, outmaps, &[])).with_rng(&rng),
        /// Quantized weights.
        #[need_grad(false)]
        #[when(quantize_w)]
        W_q: [inmaps, ..n_outmaps] =
            w_init.unwrap_or_else(|| Initializer::glorot_uniform(inmaps, outmaps, &[])).with_rng(&rng),
        /// Bias vector in float.
        #[when(with_bias)]
        b: [..n_outmaps] = b_init.clone(),
        /// Quantized bias.
        #[need_grad(false)]
        #[when(with_bias && quantize_b)]
        b_q: [..n_outmaps] = b_init,
    )
)]
pub fn fixed_point_quantized_affine(
    /// Input.
    inp: &Tensor,
    /// Number of outputs per sample, or their shape.
    #[into]
    n_outmaps: Dims,
) -> Result<Tensor> {
    let [inmaps, outmaps] = affine_sizes(inp, base_axis, &n_outmaps)?;
    let w_transform =
        FixedPoint { sign: sign_w, n: n_w, delta: delta_w, ste_fine_grained: ste_fine_grained_w }
            .checked()?;
    let b_transform =
        FixedPoint { sign: sign_b, n: n_b, delta: delta_b, ste_fine_grained: ste_fine_grained_b }
            .checked()?;
    let w = through(|w| w_transform.apply(w), param!(W)?, param!(W_q)?.is_some(), |q| param!(W_q = q))?;
    let b = match param!(b)? {
        Some(b) => Some(through(|b| b_transform.apply(b), b, param!(b_q)?.is_some(), |q| param!(b_q = q))?),
        None => None,
    };
    functions::affine(inp, &w, b.as_ref(), base_axis)
}

/// Fixed-Point Quantized convolution: [`convolution`](fn@crate::convolution) with quantized weights and bias.
///
/// `q(w) = sign(w) · ⌊|w| / delta + 1/2⌋ · delta`, clipped to `±(2^n' − 1) · delta` with `n' = n − 1`, or,
/// without sign, to 0 and `(2^n − 1) · delta`. The gradient of `q(w)` is passed on to `w` unchanged
/// (straight-through estimator), except, if fine-grained, where `w` is clipped.
///
/// The float weights `W` are trained; `W_q` and `b_q` agree with their floats after each forward pass, until an optimizer changes `W`.
/// To share weights between layers, share `W`. The transformed values are stored as floating point numbers: the layer
/// simulates, it does not pack bits.
///
/// # Shapes
/// As [`convolution`](fn@crate::convolution).
///
/// # Errors
/// As [`convolution`](fn@crate::convolution); [`Error::InvalidArgument`](crate::Error::InvalidArgument) if no bit is
/// left after the sign or a step size is not positive.
///
/// # Source
/// NNabla `PF.fixed_point_quantized_convolution`.
///
/// # Example
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use layerfn::fixed_point_quantized_convolution;
///
/// let x = Tensor::ones((4, 6, 8, 8), DType::F32, &Device::Cpu)?;
/// assert_eq!(fixed_point_quantized_convolution(&x, 4, (3, 3)).group(2).call()?.dims(), [4, 4, 6, 6]);
/// # Ok::<(), layerfn::Error>(())
/// ```
#[parametric_function(
    scope = "fp_quantized_conv",
    options(window, grouped, layout, weights, bias, fixed_point),
    family = Convolution,
    multiply_adds = [..conv.output_dims(outmaps), inmaps / group, ..kernel],
    params(
        /// Filter weights in float.
        W: [outmaps, ..filter] =
            w_init.clone().unwrap_or_else(|| Initializer::glorot_uniform(inmaps, outmaps, kernel)).with_rng(&rng),
        /// Quantized weights.
        #[need_grad(false)]
        #[when(quantize_w)]
        W_q: [outmaps, ..filter] =
            w_init.unwrap_or_else(|| Initializer::glorot_uniform(inmaps, outmaps, kernel)).with_rng(&rng),
        /// Bias vector in float.
        #[when(with_bias)]
        b: [outmaps] = b_init.clone(),
        /// Quantized bias.
        #[need_grad(false)]
        #[when(with_bias && quantize_b)]
        b_q: [outmaps] = b_init,
    )
)]
pub fn fixed_point_quantized_convolution(
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
    let w_transform =
        FixedPoint { sign: sign_w, n: n_w, delta: delta_w, ste_fine_grained: ste_fine_grained_w }
            .checked()?;
    let b_transform =
        FixedPoint { sign: sign_b, n: n_b, delta: delta_b, ste_fine_grained: ste_fine_grained_b }
            .checked()?;
    let w = through(|w| w_transform.apply(w), param!(W)?, param!(W_q)?.is_some(), |q| param!(W_q = q))?;
    let b = match param!(b)? {
        Some(b) => Some(through(|b| b_transform.apply(b), b, param!(b_q)?.is_some(), |q| param!(b_q = q))?),
        None => None,
    };
    functions::convolution(inp, &w, b.as_ref(), &conv)
}

/// Pow2 Quantized affine: [`affine`](fn@crate::affine) with quantized weights and bias.
///
/// `q(w) = sign(w) · 2^round(log2 |w|)`, cut off at `p_max = 2^m` and `p_min = 2^(m − 2^n' + 1)`, where `n'` is `n` less
/// one bit each for the sign and for zero. With zero, `q(w) = 0` where `|w| < p_min / √2`; without sign, a negative `w`
/// becomes 0 or `p_min`. The gradient of `q(w)` is handed to `w` unchanged (straight-through estimator), except, if
/// fine-grained, where `2^round(log2 |w|) > p_max` and, without sign, where `w < 0`.
///
/// The float weights `W` are trained; `W_q` and `b_q` agree with their floats after each forward pass, until an optimizer changes `W`.
/// To share weights between layers, share `W`. The transformed values are stored as floating point numbers: the layer
/// simulates, it does not pack bits.
///
/// # Shapes
/// As [`affine`](fn@crate::affine).
///
/// # Errors
/// As [`affine`](fn@crate::affine); [`Error::InvalidArgument`](crate::Error::InvalidArgument) if no bit is
/// left after those for sign and zero.
///
/// # Source
/// NNabla `PF.pow2_quantized_affine`.
///
/// # Example
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use layerfn::pow2_quantized_affine;
///
/// let x = Tensor::ones((4, 6), DType::F32, &Device::Cpu)?;
/// assert_eq!(pow2_quantized_affine(&x, 3).call()?.dims(), [4, 3]);
/// # Ok::<(), layerfn::Error>(())
/// ```
#[parametric_function(
    scope = "pow2_quantized_affine",
    options(weights, bias, pow2),
    family = Affine,
    multiply_adds = [inp.elem_count(), outmaps],
    params(
        /// Weight matrix in float.
        W: [inmaps, ..n_outmaps] =
            w_init.clone().unwrap_or_else(|| Initializer::glorot_uniform(inmaps, outmaps, &[])).with_rng(&rng),
        /// Quantized weights.
        #[need_grad(false)]
        #[when(quantize_w)]
        W_q: [inmaps, ..n_outmaps] =
            w_init.unwrap_or_else(|| Initializer::glorot_uniform(inmaps, outmaps, &[])).with_rng(&rng),
        /// Bias vector in float.
        #[when(with_bias)]
        b: [..n_outmaps] = b_init.clone(),
        /// Quantized bias.
        #[need_grad(false)]
        #[when(with_bias && quantize_b)]
        b_q: [..n_outmaps] = b_init,
    )
)]
pub fn pow2_quantized_affine(
    /// Input.
    inp: &Tensor,
    /// Number of outputs per sample, or their shape.
    #[into]
    n_outmaps: Dims,
) -> Result<Tensor> {
    let [inmaps, outmaps] = affine_sizes(inp, base_axis, &n_outmaps)?;
    let w_transform =
        Pow2 { sign: sign_w, with_zero: with_zero_w, n: n_w, m: m_w, ste_fine_grained: ste_fine_grained_w }
            .checked()?;
    let b_transform =
        Pow2 { sign: sign_b, with_zero: with_zero_b, n: n_b, m: m_b, ste_fine_grained: ste_fine_grained_b }
            .checked()?;
    let w = through(|w| w_transform.apply(w), param!(W)?, param!(W_q)?.is_some(), |q| param!(W_q = q))?;
    let b = match param!(b)? {
        Some(b) => Some(through(|b| b_transform.apply(b), b, param!(b_q)?.is_some(), |q| param!(b_q = q))?),
        None => None,
    };
    functions::affine(inp, &w, b.as_ref(), base_axis)
}

/// Pow2 Quantized convolution: [`convolution`](fn@crate::convolution) with quantized weights and bias.
///
/// `q(w) = sign(w) · 2^round(log2 |w|)`, cut off at `p_max = 2^m` and `p_min = 2^(m − 2^n' + 1)`, where `n'` is `n` less
/// one bit each for the sign and for zero. With zero, `q(w) = 0` where `|w| < p_min / √2`; without sign, a negative `w`
/// becomes 0 or `p_min`. The gradient of `q(w)` is handed to `w` unchanged (straight-through estimator), except, if
/// fine-grained, where `2^round(log2 |w|) > p_max` and, without sign, where `w < 0`.
///
/// The float weights `W` are trained; `W_q` and `b_q` agree with their floats after each forward pass, until an optimizer changes `W`.
/// To share weights between layers, share `W`. The transformed values are stored as floating point numbers: the layer
/// simulates, it does not pack bits.
///
/// # Shapes
/// As [`convolution`](fn@crate::convolution).
///
/// # Errors
/// As [`convolution`](fn@crate::convolution); [`Error::InvalidArgument`](crate::Error::InvalidArgument) if no bit is
/// left after those for sign and zero.
///
/// # Source
/// NNabla `PF.pow2_quantized_convolution`.
///
/// # Example
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use layerfn::pow2_quantized_convolution;
///
/// let x = Tensor::ones((4, 6, 8, 8), DType::F32, &Device::Cpu)?;
/// assert_eq!(pow2_quantized_convolution(&x, 4, (3, 3)).group(2).call()?.dims(), [4, 4, 6, 6]);
/// # Ok::<(), layerfn::Error>(())
/// ```
#[parametric_function(
    scope = "pow2_quantized_conv",
    options(window, grouped, weights, bias, pow2),
    family = Convolution,
    multiply_adds = [..conv.output_dims(outmaps), inmaps / group, ..kernel],
    params(
        /// Filter weights in float.
        W: [outmaps, inmaps / group, ..kernel] =
            w_init.clone().unwrap_or_else(|| Initializer::glorot_uniform(inmaps, outmaps, kernel)).with_rng(&rng),
        /// Quantized weights.
        #[need_grad(false)]
        #[when(quantize_w)]
        W_q: [outmaps, inmaps / group, ..kernel] =
            w_init.unwrap_or_else(|| Initializer::glorot_uniform(inmaps, outmaps, kernel)).with_rng(&rng),
        /// Bias vector in float.
        #[when(with_bias)]
        b: [outmaps] = b_init.clone(),
        /// Quantized bias.
        #[need_grad(false)]
        #[when(with_bias && quantize_b)]
        b_q: [outmaps] = b_init,
    )
)]
pub fn pow2_quantized_convolution(
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
    let w_transform =
        Pow2 { sign: sign_w, with_zero: with_zero_w, n: n_w, m: m_w, ste_fine_grained: ste_fine_grained_w }
            .checked()?;
    let b_transform =
        Pow2 { sign: sign_b, with_zero: with_zero_b, n: n_b, m: m_b, ste_fine_grained: ste_fine_grained_b }
            .checked()?;
    let w = through(|w| w_transform.apply(w), param!(W)?, param!(W_q)?.is_some(), |q| param!(W_q = q))?;
    let b = match param!(b)? {
        Some(b) => Some(through(|b| b_transform.apply(b), b, param!(b_q)?.is_some(), |q| param!(b_q = q))?),
        None => None,
    };
    functions::convolution(inp, &w, b.as_ref(), &conv)
}

/// Pruned affine: [`affine`](fn@crate::affine) with pruned weights and bias.
///
/// `q(w) = 0` where `|w|` is below the threshold and `w` elsewhere; the threshold is the `⌊(size − 1) ·
/// rate⌋`-th smallest `|w|` of the whole tensor, and a rate of 1 removes everything. The gradient of `q(w)` is
/// passed on to `w` unchanged, also where `w` is pruned.
///
/// The float weights `W` are trained; `W_q` and `b_q` agree with their floats after each forward pass, until an optimizer changes `W`.
/// To share weights between layers, share `W`. The transformed values are stored as floating point numbers: the layer
/// simulates, it does not pack bits.
///
/// # Shapes
/// As [`affine`](fn@crate::affine).
///
/// # Errors
/// As [`affine`](fn@crate::affine); [`Error::InvalidArgument`](crate::Error::InvalidArgument) if a rate is
/// not in [0, 1].
///
/// # Source
/// NNabla `PF.pruned_affine`.
///
/// # Example
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use layerfn::pruned_affine;
///
/// let x = Tensor::ones((4, 6), DType::F32, &Device::Cpu)?;
/// assert_eq!(pruned_affine(&x, 3).call()?.dims(), [4, 3]);
/// # Ok::<(), layerfn::Error>(())
/// ```
#[parametric_function(
    scope = "pruned_affine",
    options(weights, bias, pruning),
    family = Affine,
    multiply_adds = [inp.elem_count(), outmaps],
    params(
        /// Weight matrix in float.
        W: [inmaps, ..n_outmaps] =
            w_init.clone().unwrap_or_else(|| Initializer::glorot_uniform(inmaps, outmaps, &[])).with_rng(&rng),
        /// Pruned weights.
        #[need_grad(false)]
        #[when(prune_w)]
        W_q: [inmaps, ..n_outmaps] =
            w_init.unwrap_or_else(|| Initializer::glorot_uniform(inmaps, outmaps, &[])).with_rng(&rng),
        /// Bias vector in float.
        #[when(with_bias)]
        b: [..n_outmaps] = b_init.clone(),
        /// Pruned bias.
        #[need_grad(false)]
        #[when(with_bias && prune_b)]
        b_q: [..n_outmaps] = b_init,
    )
)]
pub fn pruned_affine(
    /// Input.
    inp: &Tensor,
    /// Number of outputs per sample, or their shape.
    #[into]
    n_outmaps: Dims,
) -> Result<Tensor> {
    let [inmaps, outmaps] = affine_sizes(inp, base_axis, &n_outmaps)?;
    let w_transform = Prune { rate: rate_w }.checked()?;
    let b_transform = Prune { rate: rate_b }.checked()?;
    let w = through(|w| w_transform.apply(w), param!(W)?, param!(W_q)?.is_some(), |q| param!(W_q = q))?;
    let b = match param!(b)? {
        Some(b) => Some(through(|b| b_transform.apply(b), b, param!(b_q)?.is_some(), |q| param!(b_q = q))?),
        None => None,
    };
    functions::affine(inp, &w, b.as_ref(), base_axis)
}

/// Pruned convolution: [`convolution`](fn@crate::convolution) with pruned weights and bias.
///
/// `q(w) = 0` where `|w|` is below the threshold and `w` elsewhere; the threshold is the `⌊(size − 1) ·
/// rate⌋`-th smallest `|w|` of the whole tensor, and a rate of 1 removes everything. The gradient of `q(w)` is
/// passed on to `w` unchanged, also where `w` is pruned.
///
/// The float weights `W` are trained; `W_q` and `b_q` agree with their floats after each forward pass, until an optimizer changes `W`.
/// To share weights between layers, share `W`. The transformed values are stored as floating point numbers: the layer
/// simulates, it does not pack bits.
///
/// # Shapes
/// As [`convolution`](fn@crate::convolution).
///
/// # Errors
/// As [`convolution`](fn@crate::convolution); [`Error::InvalidArgument`](crate::Error::InvalidArgument) if a rate is
/// not in [0, 1].
///
/// # Source
/// NNabla `PF.pruned_convolution`.
///
/// # Example
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use layerfn::pruned_convolution;
///
/// let x = Tensor::ones((4, 6, 8, 8), DType::F32, &Device::Cpu)?;
/// assert_eq!(pruned_convolution(&x, 4, (3, 3)).group(2).call()?.dims(), [4, 4, 6, 6]);
/// # Ok::<(), layerfn::Error>(())
/// ```
#[parametric_function(
    scope = "pruned_conv",
    options(window, grouped, layout, weights, bias, pruning),
    family = Convolution,
    multiply_adds = [..conv.output_dims(outmaps), inmaps / group, ..kernel],
    params(
        /// Filter weights in float.
        W: [outmaps, ..filter] =
            w_init.clone().unwrap_or_else(|| Initializer::glorot_uniform(inmaps, outmaps, kernel)).with_rng(&rng),
        /// Pruned weights.
        #[need_grad(false)]
        #[when(prune_w)]
        W_q: [outmaps, ..filter] =
            w_init.unwrap_or_else(|| Initializer::glorot_uniform(inmaps, outmaps, kernel)).with_rng(&rng),
        /// Bias vector in float.
        #[when(with_bias)]
        b: [outmaps] = b_init.clone(),
        /// Pruned bias.
        #[need_grad(false)]
        #[when(with_bias && prune_b)]
        b_q: [outmaps] = b_init,
    )
)]
pub fn pruned_convolution(
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
    let w_transform = Prune { rate: rate_w }.checked()?;
    let b_transform = Prune { rate: rate_b }.checked()?;
    let w = through(|w| w_transform.apply(w), param!(W)?, param!(W_q)?.is_some(), |q| param!(W_q = q))?;
    let b = match param!(b)? {
        Some(b) => Some(through(|b| b_transform.apply(b), b, param!(b_q)?.is_some(), |q| param!(b_q = q))?),
        None => None,
    };
    functions::convolution(inp, &w, b.as_ref(), &conv)
}

/// The values that the layer computes with: `float` after the transform, registered by `keep`, or `float`
/// itself if the transformed values are not parameters of this call.
pub(super) fn through(
    transform: impl FnOnce(&Tensor) -> Result<Tensor>,
    float: Tensor,
    registered: bool,
    keep: impl FnOnce(&Tensor) -> Result<()>,
) -> Result<Tensor> {
    if !registered {
        return Ok(float);
    }
    let quantized = transform(&float)?;
    keep(&quantized)?;
    Ok(quantized)
}
