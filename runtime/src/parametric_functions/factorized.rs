//! Low-rank layers: the weight is a product of factors.

use candle_core::Tensor;

use super::affine_sizes;
use crate::functions::{ConvGeometry, Cpd3Options};
use crate::options::{bias, window};
use crate::{
    Axis, Dims, Initializer, PerAxis, Result, Rng, check, functions, get_parameter, initial_value,
    parametric_function,
};

/// Low-rank affine layer: two consecutive affine layers with a bottleneck of size `r`.
///
/// `y = x U V + b`. New factors are those of the truncated singular value decomposition of `uv_init`; factors that
/// are registered take precedence and nothing is drawn. For a compression by the share `CR`, take
/// `r = ⌊(1 − CR) · inmaps · outmaps / (inmaps + outmaps)⌋`.
///
/// # Shapes
/// As [`affine`](fn@crate::affine); `uv_init` has the shape `(inmaps, ..n_outmaps)`.
///
/// # Errors
/// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if `r` is 0 or above `min(inmaps, outmaps)`, or if a
/// given `uv_init` has another shape.
///
/// # Source
/// NNabla `PF.svd_affine`.
///
/// # Example
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use layerfn::{get_parameters, svd_affine};
///
/// let x = Tensor::zeros((4, 20), DType::F32, &Device::Cpu)?;
/// assert_eq!(svd_affine(&x, 10, 2).call()?.dims(), [4, 10]);
/// assert_eq!(get_parameters().get("svd_affine/U").map(|u| u.var().elem_count()), Some(20 * 2));
/// # Ok::<(), layerfn::Error>(())
/// ```
#[parametric_function(
    scope = "svd_affine",
    options(bias),
    family = Affine,
    multiply_adds = [..inp.dims()[..base_axis], r, inmaps + outmaps],
    params(
        /// Left singular vectors times singular values.
        U: [inmaps, r] = u_init,
        /// Right singular vectors.
        V: [r, ..n_outmaps] = v_init,
        /// Bias vector.
        #[when(with_bias)]
        b: [..n_outmaps] = b_init,
    )
)]
pub fn svd_affine(
    /// Input.
    inp: &Tensor,
    /// Number of outputs per sample, or their shape.
    #[into]
    n_outmaps: Dims,
    /// Rank: size of the bottleneck.
    r: usize,
    /// The weight to factorize, or its initializer; Glorot uniform if absent.
    #[opt(into)]
    uv_init: Option<Initializer>,
) -> Result<Tensor> {
    let [inmaps, outmaps] = affine_sizes(inp, base_axis, &n_outmaps)?;
    let base_axis = base_axis.split("base_axis", inp.dims())?;
    functions::check_rank(r, inmaps.min(outmaps))?;
    let [u_init, v_init] = factors(["U", "V"], || {
        let init =
            uv_init.unwrap_or_else(|| Initializer::glorot_uniform(inmaps, outmaps, &[])).with_rng(&rng);
        let w = initial_value("UV", &[&[inmaps], &n_outmaps[..]].concat(), &init)?;
        let (u, v) = functions::svd_factors(&w.reshape((inmaps, outmaps))?, r)?;
        Ok([u, v.reshape([&[r], &n_outmaps[..]].concat())?])
    })?;
    let h = functions::affine(inp, &param!(U)?, None, base_axis)?;
    functions::affine(&h, &param!(V)?, param!(b)?.as_ref(), base_axis)
}

/// Low-rank convolution: a depthwise convolution with `r` filters for each input map, followed by a 1×1
/// convolution.
///
/// For each input map `i`, the filters `W[:, i, :]` of [`convolution`](fn@crate::convolution) are approximated by
/// `U_i V_i` of rank `r`, by singular value decomposition of `uv_init`; factors that are registered take precedence
/// and nothing is drawn. For a compression by the share `CR`, take
/// `r = ⌊(1 − CR) · outmaps · inmaps · K / (inmaps · (outmaps + K))⌋` with `K` the product of `kernel`.
///
/// # Shapes
/// As [`convolution`](fn@crate::convolution); `uv_init` has the shape `(outmaps, inmaps, ..kernel)`.
///
/// # Errors
/// As [`convolution`](fn@crate::convolution); [`Error::InvalidArgument`](crate::Error::InvalidArgument) if `r` is 0
/// or above `min(K, outmaps)`, or if a given `uv_init` has another shape.
///
/// # Source
/// NNabla `PF.svd_convolution`, there for one and two spatial axes.
///
/// # Example
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use layerfn::svd_convolution;
///
/// let x = Tensor::zeros((4, 3, 9, 9), DType::F32, &Device::Cpu)?;
/// assert_eq!(svd_convolution(&x, 8, (3, 3), 2).pad((1, 1)).call()?.dims(), [4, 8, 9, 9]);
/// # Ok::<(), layerfn::Error>(())
/// ```
#[parametric_function(
    scope = "svd_conv",
    options(window, bias),
    family = Convolution,
    multiply_adds = [..conv.output_dims(inmaps), r, taps + outmaps],
    params(
        /// Filters of the depthwise convolution.
        U: [inmaps * r, ..kernel] = u_init,
        /// Weights of the 1×1 convolution.
        V: [outmaps, inmaps * r, ..ones] = v_init,
        /// Bias vector.
        #[when(with_bias)]
        b: [outmaps] = b_init,
    )
)]
pub fn svd_convolution(
    /// Input.
    inp: &Tensor,
    /// Number of output maps.
    outmaps: usize,
    /// Size of the filter on each spatial axis.
    #[into]
    kernel: PerAxis,
    /// Rank: filters for each input map.
    r: usize,
    /// The weight to factorize, or its initializer; Glorot uniform if absent.
    #[opt(into)]
    uv_init: Option<Initializer>,
) -> Result<Tensor> {
    let conv = ConvGeometry::depthwise(inp.dims(), &kernel, &pad, &stride, &dilation, base_axis)?;
    let (inmaps, kernel, ones) = (conv.inmaps(), conv.kernel(), vec![1; conv.kernel().len()]);
    let taps = check::count("kernel", kernel)?;
    functions::check_rank(r, taps.min(outmaps))?;
    conv.check(inp, check::count("r", &[inmaps, r])?)?;
    let [u_init, v_init] = factors(["U", "V"], || {
        let init =
            uv_init.unwrap_or_else(|| Initializer::glorot_uniform(inmaps, outmaps, kernel)).with_rng(&rng);
        let w = initial_value("UV", &[&[outmaps, inmaps], kernel].concat(), &init)?;
        let (u, v) = functions::svd_factors_by_map(&w.reshape((outmaps, inmaps, taps))?, r)?;
        Ok([
            u.reshape([&[inmaps * r], kernel].concat())?,
            v.reshape([&[outmaps, inmaps * r], &ones[..]].concat())?,
        ])
    })?;
    let h = functions::convolution(inp, &param!(U)?.unsqueeze(1)?, None, &conv)?;
    let pointwise = ConvGeometry::pointwise(h.dims(), base_axis)?;
    functions::convolution(&h, &param!(V)?, param!(b)?.as_ref(), &pointwise)
}

/// Low-rank convolution by CP decomposition: a 1×1 convolution to `r` maps, a depthwise convolution and a 1×1
/// convolution to the output maps.
///
/// `W[o, i, k] ≈ Σ_r O[o, r] · I[r, i] · K[r, k]`; the normalization λ of the terms sits in `O`. New factors are
/// those of the alternating least squares on `oik_init`, which start from `rng` or a fixed seed; factors that are
/// registered take precedence and nothing is drawn. For a compression by the share `CR`, take
/// `r = ⌊(1 − CR) · outmaps · inmaps · K / (outmaps + inmaps + K)⌋` with `K` the product of `kernel`.
///
/// # Shapes
/// As [`convolution`](fn@crate::convolution); `oik_init` has the shape `(outmaps, inmaps, ..kernel)`.
///
/// # Errors
/// As [`convolution`](fn@crate::convolution); [`Error::InvalidArgument`](crate::Error::InvalidArgument) if `r` is 0,
/// or if a given `oik_init` has another shape.
///
/// # Source
/// NNabla `PF.cpd3_convolution`; Lebedev et al., [Speeding-up Convolutional Neural Networks Using Fine-tuned
/// CP-Decomposition](https://arxiv.org/abs/1412.6553); Astrid & Lee, CP-decomposition with Tensor Power Method for
/// Convolutional Neural Networks Compression, BigComp 2017.
///
/// # Example
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use layerfn::cpd3_convolution;
///
/// let x = Tensor::zeros((4, 3, 9, 9), DType::F32, &Device::Cpu)?;
/// assert_eq!(cpd3_convolution(&x, 8, (3, 3), 2).pad((1, 1)).call()?.dims(), [4, 8, 9, 9]);
/// # Ok::<(), layerfn::Error>(())
/// ```
#[parametric_function(
    scope = "cpd3_conv",
    options(window),
    family = Convolution,
    multiply_adds = [r, inp.elem_count() + conv.output_dims(1).iter().product::<usize>() * (conv.kernel().iter().product::<usize>() + outmaps)],
    params(
        /// Weights of the first 1×1 convolution.
        I: [r, inmaps, ..ones] = i_init,
        /// Weights of the last 1×1 convolution.
        O: [outmaps, r, ..ones] = o_init,
        /// Filters of the depthwise convolution.
        K: [r, ..kernel] = k_init,
        /// Bias vector.
        #[when(with_bias)]
        b: [outmaps] = b_init,
    )
)]
pub fn cpd3_convolution(
    /// Input.
    inp: &Tensor,
    /// Number of output maps.
    outmaps: usize,
    /// Size of the filter on each spatial axis.
    #[into]
    kernel: PerAxis,
    /// Rank: number of terms.
    r: usize,
    /// The weight to factorize, or its initializer; Glorot uniform if absent.
    #[opt(into)]
    oik_init: Option<Initializer>,
    /// Initializer of `b`.
    #[opt(into, default = 0.0)]
    b_init: Initializer,
    /// Number of leading axes that are samples; if negative, the first axis after them, counted from the back.
    #[opt(into, default = 1)]
    base_axis: Axis,
    /// Generator of the random default and of the factors that the least squares start from.
    #[opt(into)]
    rng: Option<Rng>,
    /// Whether to add `b`.
    #[opt(default = true)]
    with_bias: bool,
    /// Largest number of iterations.
    #[opt(default = 500)]
    max_iter: usize,
    /// Change of the explained share of the weight below which the iteration stops; negative for never.
    #[opt(default = 1e-5)]
    stopping_criterion: f64,
    /// Weight of the factors' squared norm in the least squares, at least 0.
    #[opt(default = 0.0)]
    lambda_reg: f64,
) -> Result<Tensor> {
    let conv = ConvGeometry::new(inp.dims(), &kernel, &pad, &stride, &dilation, 1, base_axis)?;
    let (inmaps, kernel, ones) = (conv.inmaps(), conv.kernel(), vec![1; conv.kernel().len()]);
    let options = Cpd3Options { r, max_iter, stopping_criterion, lambda_reg };
    conv.check(inp, outmaps)?;
    options.check([outmaps, inmaps, check::count("kernel", kernel)?])?;
    ConvGeometry::pointwise(inp.dims(), base_axis)?.check(inp, r)?;
    let [i_init, o_init, k_init] = factors(["I", "O", "K"], || {
        let init =
            oik_init.unwrap_or_else(|| Initializer::glorot_uniform(inmaps, outmaps, kernel)).with_rng(&rng);
        let w = initial_value("OIK", &[&[outmaps, inmaps], kernel].concat(), &init)?;
        let start = rng.unwrap_or_else(|| Rng::new(313));
        let [o, i, k] = functions::cpd3_factors(&w.flatten_from(2)?, &options, &start)?;
        Ok([
            i.t()?.reshape([&[r, inmaps], &ones[..]].concat())?,
            o.reshape([&[outmaps, r], &ones[..]].concat())?,
            k.t()?.reshape([&[r], kernel].concat())?,
        ])
    })?;
    let (i, o, k) = (param!(I)?, param!(O)?, param!(K)?.unsqueeze(1)?);
    let h = functions::convolution(inp, &i, None, &ConvGeometry::pointwise(inp.dims(), base_axis)?)?;
    let depthwise = ConvGeometry::depthwise(h.dims(), &kernel.into(), &pad, &stride, &dilation, base_axis)?;
    let h = functions::convolution(&h, &k, None, &depthwise)?;
    let pointwise = ConvGeometry::pointwise(h.dims(), base_axis)?;
    functions::convolution(&h, &o, param!(b)?.as_ref(), &pointwise)
}

/// Initializers of the factors; they are computed only if one of them is not registered yet.
fn factors<const N: usize>(
    names: [&str; N],
    factorize: impl FnOnce() -> Result<[Tensor; N]>,
) -> Result<[Initializer; N]> {
    if names.iter().all(|name| get_parameter(name).is_some()) {
        return Ok([const { None::<Tensor> }; N].map(|_| Initializer::constant(0.0)));
    }
    Ok(factorize()?.map(Initializer::from))
}
