//! Min-max quantization, by itself and in layers that quantize their weights and biases.

use candle_core::Tensor;

use super::affine_sizes;
use super::quantized::through;
use crate::functions::{ConvGeometry, MinMax, channels_first};
use crate::options::{bias, grouped, layout, weights, window};
use crate::{
    Axis, Dims, Initializer, PerAxis, Result, Rng, check, full_precision, functions, get_parameter_or_create,
    option_group, parametric_function, update_state,
};

/// Min-max quantization: as many values as levels, between two ends that are learned or measured.
///
/// The range `[qr_min, qr_max]` is updated first: with `x_min_max` it becomes the least and the largest
/// element, with `ema` as well `end ← decay · end + (1 − decay) · extreme`; it is at least `eps` wide. Then
/// `scale = (qr_max − qr_min) / (ql_max − ql_min)`, `zero = round(ql_min − qr_min / scale)` clipped to
/// `[ql_min, ql_max]`, `m = (ql_min − zero) · scale`, `M = (ql_max − zero) · scale`, and `y = round((clip(x, m,
/// M) − m) / scale) · scale + m`, where halves are rounded away from zero. So 0 is one of the values.
///
/// The gradient of `y` is passed on to `x` where `m ≤ x ≤ M`, and everywhere if `ste_fine_grained` is false. If
/// the range is not measured (neither `x_min_max` nor `ema`), its ends are learned: they receive the gradients
/// of the elements that are clipped there.
///
/// As in NNabla, a measured range is also updated in test mode; pass `x_min_max(is_training())` to prevent
/// that.
///
/// # Shapes
/// - input and output: any
/// - parameters: 1 on every axis of the input
///
/// # Errors
/// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if `ql_max` is not above `ql_min`, or if the range is measured and
/// `x` is empty or not finite.
///
/// # Source
/// NNabla `PF.min_max_quantize`; Jacob et al.,
/// [Quantization and Training of Neural Networks](https://arxiv.org/abs/1712.05877).
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// use layerfn::min_max_quantize;
///
/// let x = Tensor::new(&[-9.0, -0.4, 0.7, 9.0], &Device::Cpu)?;
/// let y = min_max_quantize(&x).ql_max(3.0).qr_min_init(-1.0).qr_max_init(2.0).call()?;
/// assert_eq!(y.to_vec1::<f64>()?, [-1.0, 0.0, 1.0, 2.0]);
/// # Ok::<(), layerfn::Error>(())
/// ```
#[parametric_function(
    scope = "min_max_quantize",
    family = Activation,
    multiply_adds = [0],
    params(
        /// Least level.
        #[need_grad(false)]
        ql_min: [..ones] = ql_min,
        /// Largest level.
        #[need_grad(false)]
        ql_max: [..ones] = ql_max,
        /// Lower end of the range; without gradient if it is a moving average.
        qr_min: [..ones] = qr_min_init,
        /// Upper end of the range; without gradient if it is a moving average.
        qr_max: [..ones] = qr_max_init,
    )
)]
pub fn min_max_quantize(
    /// Input.
    x: &Tensor,
    /// Least level, below `ql_max`.
    #[opt(default = 0.0)]
    ql_min: f64,
    /// Largest level.
    #[opt(default = 255.0)]
    ql_max: f64,
    /// Weight of the previous range in the moving average, in [0, 1].
    #[opt(default = 0.999)]
    decay: f64,
    /// Whether the range is measured.
    #[opt(default = false)]
    x_min_max: bool,
    /// Whether the range is a moving average of measured ones.
    #[opt(default = false)]
    ema: bool,
    /// Whether elements outside the range get no gradient.
    #[opt(default = true)]
    ste_fine_grained: bool,
    /// Least width of the range, above 0.
    #[opt(default = 0.01)]
    eps: f64,
    /// Initializer of `qr_min`.
    #[opt(into, default = -6.0)]
    qr_min_init: Initializer,
    /// Initializer of `qr_max`.
    #[opt(into, default = 6.0)]
    qr_max_init: Initializer,
) -> Result<Tensor> {
    let quantizer = MinMax { decay, x_min_max, ema, ste_fine_grained, eps }.checked()?;
    check::input("x", x)?;
    let ones = vec![1; x.rank()];
    let averaged = x_min_max && ema;
    full_precision(|| {
        let levels = [param!(ql_min)?, param!(ql_max)?];
        for (name, init) in [("qr_min", &qr_min_init), ("qr_max", &qr_max_init)] {
            let end = get_parameter_or_create(name).shape(&*ones).initializer(init.clone());
            end.need_grad(!averaged).call()?;
        }
        let range = [param!(qr_min)?, param!(qr_max)?];
        let quantized = quantizer.apply(x, range.each_ref(), levels.each_ref())?;
        if let Some(range) = quantized.range {
            update_state(["qr_min", "qr_max"], |_| Ok(range.clone()))?;
        }
        Ok(quantized.output)
    })
}

option_group! {
    /// Options of layers with a quantized weight and bias.
    min_max {
        /// Whether to quantize weights.
        #[opt(default = true)]
        quantize_w: bool,
        /// Least level of weights.
        #[opt(default = 0.0)]
        ql_min_w: f64,
        /// Largest level of weights.
        #[opt(default = 255.0)]
        ql_max_w: f64,
        /// Whether the range of weights is measured.
        #[opt(default = false)]
        w_min_max: bool,
        /// Initializer of `qr_min` of the weights.
        #[opt(into, default = -2.0)]
        qr_min_w_init: Initializer,
        /// Initializer of `qr_max` of the weights.
        #[opt(into, default = 2.0)]
        qr_max_w_init: Initializer,
        /// Whether weights outside the range get no gradient.
        #[opt(default = true)]
        ste_fine_grained_w: bool,
        /// Whether to quantize the bias.
        #[opt(default = true)]
        quantize_b: bool,
        /// Least level of the bias.
        #[opt(default = 0.0)]
        ql_min_b: f64,
        /// Largest level of the bias.
        #[opt(default = 255.0)]
        ql_max_b: f64,
        /// Whether the range of the bias is measured.
        #[opt(default = false)]
        b_min_max: bool,
        /// Initializer of `qr_min` of the bias.
        #[opt(into, default = -6.0)]
        qr_min_b_init: Initializer,
        /// Initializer of `qr_max` of the bias.
        #[opt(into, default = 6.0)]
        qr_max_b_init: Initializer,
        /// Whether a bias outside the range gets no gradient.
        #[opt(default = true)]
        ste_fine_grained_b: bool,
        /// Least width of the ranges, above 0.
        #[opt(default = 0.01)]
        eps: f64,
    }
}

/// Min-Max Quantized affine: [`affine`](fn@crate::affine) with weights and bias through
/// [`min_max_quantize`](fn@min_max_quantize).
///
/// The ranges and levels are parameters in the scopes `min_max_quantize_w` and `min_max_quantize_b` below the layer's.
///
/// The float weights `W` are trained; `W_q` and `b_q` agree with their floats after each forward pass, until an optimizer changes `W`.
/// To share weights between layers, share `W`. The transformed values are stored as floating point numbers: the layer
/// simulates, it does not pack bits.
///
/// # Shapes
/// As [`affine`](fn@crate::affine).
///
/// # Errors
/// As [`affine`](fn@crate::affine) and [`min_max_quantize`](fn@min_max_quantize).
///
/// # Source
/// NNabla `PF.min_max_quantized_affine`.
///
/// # Example
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use layerfn::min_max_quantized_affine;
///
/// let x = Tensor::ones((4, 6), DType::F32, &Device::Cpu)?;
/// assert_eq!(min_max_quantized_affine(&x, 3).w_min_max(true).call()?.dims(), [4, 3]);
/// # Ok::<(), layerfn::Error>(())
/// ```
#[parametric_function(
    scope = "min_max_quantized_affine",
    options(weights, bias, min_max),
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
pub fn min_max_quantized_affine(
    /// Input.
    inp: &Tensor,
    /// Number of outputs per sample, or their shape.
    #[into]
    n_outmaps: Dims,
) -> Result<Tensor> {
    let [inmaps, outmaps] = affine_sizes(inp, base_axis, &n_outmaps)?;
    let w_levels = [ql_min_w, ql_max_w];
    let w_range =
        Range { init: [qr_min_w_init, qr_max_w_init], measured: w_min_max, fine: ste_fine_grained_w, eps };
    let b_levels = [ql_min_b, ql_max_b];
    let b_range =
        Range { init: [qr_min_b_init, qr_max_b_init], measured: b_min_max, fine: ste_fine_grained_b, eps };
    let quantize = |w: &Tensor| w_range.quantize(w, w_levels, "min_max_quantize_w");
    let w = through(quantize, param!(W)?, param!(W_q)?.is_some(), |q| param!(W_q = q))?;
    let quantize = |b: &Tensor| b_range.quantize(b, b_levels, "min_max_quantize_b");
    let b = match param!(b)? {
        Some(b) => Some(through(quantize, b, param!(b_q)?.is_some(), |q| param!(b_q = q))?),
        None => None,
    };
    functions::affine(inp, &w, b.as_ref(), base_axis)
}

/// Min-Max Quantized convolution: [`convolution`](fn@crate::convolution) with weights and bias through
/// [`min_max_quantize`](fn@min_max_quantize).
///
/// The ranges and levels are parameters in the scopes `min_max_quantize_w` and `min_max_quantize_b` below the layer's.
///
/// The float weights `W` are trained; `W_q` and `b_q` agree with their floats after each forward pass, until an optimizer changes `W`.
/// To share weights between layers, share `W`. The transformed values are stored as floating point numbers: the layer
/// simulates, it does not pack bits.
///
/// # Shapes
/// As [`convolution`](fn@crate::convolution).
///
/// # Errors
/// As [`convolution`](fn@crate::convolution) and [`min_max_quantize`](fn@min_max_quantize).
///
/// # Source
/// NNabla `PF.min_max_quantized_convolution`.
///
/// # Example
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use layerfn::min_max_quantized_convolution;
///
/// let x = Tensor::ones((4, 6, 8, 8), DType::F32, &Device::Cpu)?;
/// assert_eq!(min_max_quantized_convolution(&x, 4, (3, 3)).group(2).call()?.dims(), [4, 4, 6, 6]);
/// # Ok::<(), layerfn::Error>(())
/// ```
#[parametric_function(
    scope = "min_max_quantized_conv",
    options(window, grouped, layout, weights, bias, min_max),
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
pub fn min_max_quantized_convolution(
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
    let w_levels = [ql_min_w, ql_max_w];
    let w_range =
        Range { init: [qr_min_w_init, qr_max_w_init], measured: w_min_max, fine: ste_fine_grained_w, eps };
    let b_levels = [ql_min_b, ql_max_b];
    let b_range =
        Range { init: [qr_min_b_init, qr_max_b_init], measured: b_min_max, fine: ste_fine_grained_b, eps };
    let quantize = |w: &Tensor| w_range.quantize(w, w_levels, "min_max_quantize_w");
    let w = through(quantize, param!(W)?, param!(W_q)?.is_some(), |q| param!(W_q = q))?;
    let quantize = |b: &Tensor| b_range.quantize(b, b_levels, "min_max_quantize_b");
    let b = match param!(b)? {
        Some(b) => Some(through(quantize, b, param!(b_q)?.is_some(), |q| param!(b_q = q))?),
        None => None,
    };
    functions::convolution(inp, &w, b.as_ref(), &conv)
}

/// How a weight or a bias is quantized.
struct Range {
    init: [Initializer; 2],
    measured: bool,
    fine: bool,
    eps: f64,
}

impl Range {
    fn quantize(self, float: &Tensor, [ql_min, ql_max]: [f64; 2], name: &str) -> Result<Tensor> {
        let [qr_min_init, qr_max_init] = self.init;
        let quantize = min_max_quantize(float).ql_min(ql_min).ql_max(ql_max).x_min_max(self.measured);
        let quantize = quantize.ste_fine_grained(self.fine).eps(self.eps);
        quantize.qr_min_init(qr_min_init).qr_max_init(qr_max_init).name(name).call()
    }
}
