//! Functions without parameters that take options: pooling, interpolation, padding and dropout as stages of a
//! network.

use candle_core::Tensor;

use crate::functions::{Interpolation, InterpolationMode, PadMode};
use crate::{Axis, Dims, ParameterStore, PerAxis, Result, Rng, functions, is_training, parametric_function};

/// Max pooling: the largest element of each window.
///
/// # Shapes
/// - input: `(N.., L_1, .., L_d)`; the windows run over as many trailing axes as `kernel` has entries
/// - output: `L' = (L + 2·pad − kernel) / stride + 1` on each of them, rounded down with `ignore_border` and up
///   without
///
/// # Errors
/// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if a window is empty or exceeds the padded input.
///
/// # Source
/// NNabla `F.max_pooling`.
///
/// # Example
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use layerfn::max_pooling;
///
/// let x = Tensor::zeros((8, 3, 7, 7), DType::F32, &Device::Cpu)?;
/// assert_eq!(max_pooling(&x, (2, 2)).call()?.dims(), [8, 3, 3, 3]);
/// assert_eq!(max_pooling(&x, (3, 3)).stride((2, 2)).pad((1, 1)).call()?.dims(), [8, 3, 4, 4]);
///
/// let x = Tensor::new(&[[[1f32, 3., 2., 5., 4.]]], &Device::Cpu)?;
/// assert_eq!(max_pooling(&x, 2).call()?.to_vec3::<f32>()?, [[[3., 5.]]]);
/// assert_eq!(max_pooling(&x, 2).ignore_border(false).call()?.to_vec3::<f32>()?, [[[3., 5., 4.]]]);
/// # Ok::<(), layerfn::Error>(())
/// ```
#[parametric_function(family = Pooling, multiply_adds = [0])]
pub fn max_pooling(
    /// Input.
    inp: &Tensor,
    /// Size of the window on each axis.
    #[into]
    kernel: PerAxis,
    /// Step of the window; `kernel` if absent.
    #[opt(into)]
    stride: Option<PerAxis>,
    /// Whether elements that do not fill a window are left out.
    #[opt(default = true)]
    ignore_border: bool,
    /// Padding on both sides of each axis, which never is the maximum.
    #[opt(into, default = 0)]
    pad: PerAxis,
    /// Whether the axis of the channels comes last.
    #[opt(default = false)]
    channel_last: bool,
) -> Result<Tensor> {
    functions::max_pooling(inp, &kernel, stride.as_ref(), ignore_border, &pad, channel_last)
}

/// Average pooling: the mean of each window.
///
/// # Shapes
/// As [`max_pooling`](fn@max_pooling).
///
/// # Errors
/// As [`max_pooling`](fn@max_pooling).
///
/// # Source
/// NNabla `F.average_pooling`.
///
/// # Example
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use layerfn::average_pooling;
///
/// let x = Tensor::ones((1, 1, 4, 4), DType::F32, &Device::Cpu)?;
/// assert_eq!(average_pooling(&x, (2, 2)).call()?.dims(), [1, 1, 2, 2]);
///
/// let x = Tensor::new(&[[[1f32, 3., 2., 5.]]], &Device::Cpu)?;
/// assert_eq!(average_pooling(&x, 2).pad(1).call()?.to_vec3::<f32>()?, [[[0.5, 2.5, 2.5]]]);
/// let y = average_pooling(&x, 2).pad(1).including_pad(false).call()?;
/// assert_eq!(y.to_vec3::<f32>()?, [[[1., 2.5, 5.]]]);
/// # Ok::<(), layerfn::Error>(())
/// ```
#[parametric_function(family = Pooling, multiply_adds = [0])]
pub fn average_pooling(
    /// Input.
    inp: &Tensor,
    /// Size of the window on each axis.
    #[into]
    kernel: PerAxis,
    /// Step of the window; `kernel` if absent.
    #[opt(into)]
    stride: Option<PerAxis>,
    /// Whether elements that do not fill a window are left out.
    #[opt(default = true)]
    ignore_border: bool,
    /// Zeros on both sides of each axis.
    #[opt(into, default = 0)]
    pad: PerAxis,
    /// Whether the axis of the channels comes last.
    #[opt(default = false)]
    channel_last: bool,
    /// Whether the zeros of the border count as elements of the window.
    #[opt(default = true)]
    including_pad: bool,
) -> Result<Tensor> {
    let stride = stride.as_ref();
    functions::average_pooling(inp, &kernel, stride, ignore_border, &pad, channel_last, including_pad)
}

/// Sum pooling: the sum of each window.
///
/// # Shapes
/// As [`max_pooling`](fn@max_pooling).
///
/// # Errors
/// As [`max_pooling`](fn@max_pooling).
///
/// # Source
/// NNabla `F.sum_pooling`.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// use layerfn::sum_pooling;
///
/// let x = Tensor::new(&[[[1f32, 3., 2., 5.]]], &Device::Cpu)?;
/// assert_eq!(sum_pooling(&x, 2).call()?.to_vec3::<f32>()?, [[[4., 7.]]]);
/// assert_eq!(sum_pooling(&x, 3).stride(1).call()?.to_vec3::<f32>()?, [[[6., 10.]]]);
/// # Ok::<(), layerfn::Error>(())
/// ```
#[parametric_function(family = Pooling, multiply_adds = [0])]
pub fn sum_pooling(
    /// Input.
    inp: &Tensor,
    /// Size of the window on each axis.
    #[into]
    kernel: PerAxis,
    /// Step of the window; `kernel` if absent.
    #[opt(into)]
    stride: Option<PerAxis>,
    /// Whether elements that do not fill a window are left out.
    #[opt(default = true)]
    ignore_border: bool,
    /// Zeros on both sides of each axis.
    #[opt(into, default = 0)]
    pad: PerAxis,
    /// Whether the axis of the channels comes last.
    #[opt(default = false)]
    channel_last: bool,
) -> Result<Tensor> {
    functions::sum_pooling(inp, &kernel, stride.as_ref(), ignore_border, &pad, channel_last)
}

/// Unpooling: each element `kernel` times on each axis.
///
/// # Shapes
/// - input: `(N.., L_1, .., L_d)`; `kernel` applies to as many of the last axes as it has entries, or, if it is
///   one number, to all but the first two; with `channel_last` the channels follow
/// - output: `L' = L · kernel` on each of them
///
/// # Errors
/// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if the input has fewer axes.
///
/// # Source
/// NNabla `F.unpooling`.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// use layerfn::unpooling;
///
/// let x = Tensor::new(&[[[1f32, 3.]]], &Device::Cpu)?;
/// assert_eq!(unpooling(&x, 2).call()?.to_vec3::<f32>()?, [[[1., 1., 3., 3.]]]);
/// # Ok::<(), layerfn::Error>(())
/// ```
#[parametric_function(family = Pooling, multiply_adds = [0])]
pub fn unpooling(
    /// Input.
    inp: &Tensor,
    /// Number of repetitions of each element on each axis.
    #[into]
    kernel: PerAxis,
    /// Whether the axis of the channels comes last.
    #[opt(default = false)]
    channel_last: bool,
) -> Result<Tensor> {
    functions::unpooling(inp, &kernel, channel_last)
}

/// Interpolation to another size, which `scale` or `output_size` says.
///
/// # Shapes
/// - input: `(N.., L_1, .., L_d)`; `scale` or `output_size` applies to as many of the last axes as it has
///   entries, one to three; with `channel_last` the channels follow
/// - output: `L' = scale · L`, rounded down, or `output_size`
///
/// # Errors
/// [`Error::InvalidArgument`](crate::Error::InvalidArgument) as for [`functions::interpolate`], which has the
/// formula.
///
/// # Source
/// NNabla `F.interpolate`.
///
/// # Example
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use layerfn::functions::InterpolationMode;
/// use layerfn::interpolate;
///
/// let x = Tensor::zeros((8, 3, 14, 14), DType::F32, &Device::Cpu)?;
/// assert_eq!(interpolate(&x).output_size((28, 20)).call()?.dims(), [8, 3, 28, 20]);
/// let y = interpolate(&x).scale([2.0, 2.0]).mode(InterpolationMode::Nearest).call()?;
/// assert_eq!(y.dims(), [8, 3, 28, 28]);
/// # Ok::<(), layerfn::Error>(())
/// ```
#[parametric_function(family = Pooling, multiply_adds = [0])]
pub fn interpolate(
    /// Input.
    inp: &Tensor,
    /// Factor of the size on each axis.
    #[opt(into)]
    scale: Option<Vec<f64>>,
    /// Size of the output on each axis.
    #[opt(into)]
    output_size: Option<Dims>,
    /// Interpolation method.
    #[opt(default = InterpolationMode::Linear)]
    mode: InterpolationMode,
    /// Whether the first and the last elements of the input and the output are aligned.
    #[opt(default = false)]
    align_corners: bool,
    /// Whether elements are at the centers of their pixels.
    #[opt(default = false)]
    half_pixel: bool,
    /// `half_pixel` for the nearest element, rounded as in NNabla's GPU kernels.
    #[opt(default = false)]
    half_pixel_for_nn: bool,
    /// Whether the axis of the channels comes last.
    #[opt(default = false)]
    channel_last: bool,
) -> Result<Tensor> {
    let how = Interpolation { mode, align_corners, half_pixel, half_pixel_for_nn, channel_last };
    functions::interpolate(inp, scale.as_deref(), output_size.as_deref(), how)
}

/// More elements before and behind on the last axes.
///
/// # Shapes
/// - input: `(N.., L_1, .., L_d)`
/// - output: `L' = before + L + behind` on each of the last axes; `pad_width` has two numbers for each of them
///
/// # Errors
/// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if `pad_width` has an odd number of entries or
/// more than two per axis, or if there is nothing to reflect or repeat.
///
/// # Source
/// NNabla `F.pad`.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// use layerfn::functions::PadMode;
/// use layerfn::pad;
///
/// let x = Tensor::new(&[[1f32, 2., 3.]], &Device::Cpu)?;
/// assert_eq!(pad(&x, (1, 2)).call()?.to_vec2::<f32>()?, [[0., 1., 2., 3., 0., 0.]]);
/// let y = pad(&x, (1, 1)).mode(PadMode::Reflect).call()?;
/// assert_eq!(y.to_vec2::<f32>()?, [[2., 1., 2., 3., 2.]]);
/// # Ok::<(), layerfn::Error>(())
/// ```
#[parametric_function(multiply_adds = [0])]
pub fn pad(
    /// Input.
    inp: &Tensor,
    /// Number of elements before and behind, for each of the last axes.
    #[into]
    pad_width: Dims,
    /// How the values of the padding are chosen.
    #[opt(default = PadMode::Constant)]
    mode: PadMode,
    /// Value of constant padding.
    #[opt(default = 0.0)]
    constant_value: f64,
) -> Result<Tensor> {
    functions::pad(inp, &pad_width, mode, constant_value)
}

/// The axes from `base_axis` on as one.
///
/// # Shapes
/// - input: `(N.., D..)`; `N..` are the `base_axis` leading axes
/// - output: `(N.., product of D..)`
///
/// # Errors
/// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if the input has fewer axes than `base_axis`.
///
/// # Source
/// PyTorch's `Flatten`; NNabla's layers flatten their inputs themselves.
///
/// # Example
/// ```
/// use layerfn::prelude::*;
///
/// let net = network! { conv(4, (3, 3)) -> relu -> flatten };
/// let x = Tensor::zeros((8, 3, 10, 10), DType::F32, &Device::Cpu)?;
/// assert_eq!(net.forward(&x)?.dims(), [8, 256]);
/// # Ok::<(), layerfn::Error>(())
/// ```
#[parametric_function(multiply_adds = [0])]
pub fn flatten(
    /// Input.
    inp: &Tensor,
    /// Number of leading axes that are samples.
    #[opt(into, default = 1)]
    base_axis: Axis,
) -> Result<Tensor> {
    functions::flatten(inp, base_axis)
}

/// Dropout: in training, sets each element to zero with probability `p` and scales the others by `1 / (1 − p)`;
/// in [`test_mode`](crate::test_mode) the identity.
///
/// # Shapes
/// - input and output: any
///
/// # Errors
/// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if `p` is not in [0, 1).
///
/// # Source
/// NNabla `F.dropout`; Srivastava et al., Dropout, JMLR 2014.
///
/// # Example
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use layerfn::{dropout, test_mode};
///
/// let x = Tensor::ones((2, 3), DType::F32, &Device::Cpu)?;
/// let y = dropout(&x).p(0.5).call()?;
/// assert!(y.flatten_all()?.to_vec1::<f32>()?.iter().all(|&y| y == 0.0 || y == 2.0));
/// assert_eq!(test_mode(|| dropout(&x).call())?.to_vec2::<f32>()?, [[1.0; 3]; 2]);
/// # Ok::<(), layerfn::Error>(())
/// ```
#[parametric_function(family = Dropout, multiply_adds = [0])]
pub fn dropout(
    /// Input.
    inp: &Tensor,
    /// Probability of a zero, in [0, 1).
    #[opt(default = 0.5)]
    p: f64,
    /// Generator of the zeros; the one of the current store if absent.
    #[opt(into, default = ParameterStore::current().rng())]
    rng: Rng,
) -> Result<Tensor> {
    if is_training() {
        functions::activation::dropout(inp, p, &mut || rng.next_u32())
    } else {
        Ok(inp.clone())
    }
}
