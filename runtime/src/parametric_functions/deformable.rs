//! Convolution that learns where it takes its samples.

use candle_core::Tensor;

use crate::functions::{ConvGeometry, Deformable, channels_first};
use crate::options::{bias, grouped, layout, weights, window};
use crate::{Axis, Error, Initializer, PerAxis, Result, Rng, check, functions, parametric_function};

/// Two-dimensional deformable convolution with an optional mask and bias.
///
/// `y[n, o, p] = b[o] + Σ_c Σ_k W[o, c, k] · mask[n, k, s·p] · x[n, c, s·p + k · dilation − pad + offset[n, k, s·p]]`, `s` being the
/// `stride`: a [`convolution`](fn@crate::convolution) whose samples are moved by offsets, in pixels, and weighted by the mask if
/// there is one. The image is interpolated linearly between its pixels, with zeros around it. Offsets and mask are usually
/// convolutions of the same image.
///
/// # Shapes
/// - input: `(N.., inmaps, H, W)`; `N..` are the `base_axis` leading axes
/// - `offset`: `(N.., 2 · deformable_group · kh · kw, H, W)`; for each group and place in the kernel the vertical and the
///   horizontal offset
/// - `mask`: `(N.., deformable_group · kh · kw, H, W)`
/// - output: `(N.., outmaps, H', W')` as of a convolution
/// - with `channel_last` the second of these axes is the last one everywhere, `W` included
///
/// # Errors
/// [`Error::InvalidArgument`](crate::Error::InvalidArgument) as for a convolution; also if there are not two spatial axes, if
/// `deformable_group` does not divide the input maps, if `offset` or `mask` has another shape, or if `pad` makes outputs
/// for which there are no offsets.
///
/// # Source
/// NNabla `PF.deformable_convolution`, whose CPU knows no `channel_last`; Dai et al.,
/// [Deformable Convolutional Networks](https://arxiv.org/abs/1703.06211); for the mask Zhu et al.,
/// [Deformable ConvNets v2](https://arxiv.org/abs/1811.11168).
///
/// # Example
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use layerfn::{convolution, deformable_convolution};
///
/// let x = Tensor::zeros((8, 3, 32, 32), DType::F32, &Device::Cpu)?;
/// let offset = convolution(&x, 2 * 9, (3, 3)).pad(1).w_init(0.0).name("offset").call()?;
/// let y = deformable_convolution(&x, 16, (3, 3), &offset).pad(1).call()?;
/// assert_eq!(y.dims(), [8, 16, 32, 32]);
/// # Ok::<(), layerfn::Error>(())
/// ```
#[parametric_function(
    scope = "deformable_conv",
    options(window, grouped, layout, weights, bias),
    family = Convolution,
    multiply_adds = [..conv.output_dims(outmaps), inmaps / group, ..conv.kernel()],
    params(
        /// Filter weights.
        W: [outmaps, ..filter] =
            w_init.unwrap_or_else(|| Initializer::glorot_uniform(inmaps, outmaps, conv.kernel())).with_rng(&rng),
        /// Bias vector.
        #[when(with_bias)]
        b: [outmaps] = b_init,
    )
)]
pub fn deformable_convolution(
    /// Input.
    inp: &Tensor,
    /// Number of output maps.
    outmaps: usize,
    /// Size of the filter on both spatial axes.
    #[into]
    kernel: PerAxis,
    /// Offsets of the samples, in pixels, from the positions of a plain convolution.
    offset: &Tensor,
    /// Weights of the samples.
    #[opt]
    mask: Option<&Tensor>,
    /// Groups of input maps that have separate offsets and masks.
    #[opt(default = 1)]
    deformable_group: usize,
) -> Result<Tensor> {
    for (argument, tensor) in [("offset", Some(offset)), ("mask", mask)] {
        let Some(tensor) = tensor else { continue };
        check::input(argument, tensor)?;
        if tensor.dtype() != inp.dtype() {
            let reason = format!("must have the element type of the input, {:?}", inp.dtype());
            return Err(Error::invalid(argument, reason, tensor.dtype()));
        }
    }
    let dims = channels_first(inp.dims(), channel_last, base_axis);
    let conv = ConvGeometry::new(&dims, &kernel, &pad, &stride, &dilation, group, base_axis)?
        .with_channel_last(channel_last);
    conv.check(inp, outmaps)?;
    Deformable::new(&conv, outmaps, deformable_group)?.check_offsets(inp, offset, mask)?;
    let inmaps = conv.inmaps();
    let filter = conv.filter(inmaps / group);
    let (w, b) = (param!(W)?, param!(b)?);
    functions::deformable_convolution(inp, &w, b.as_ref(), offset, mask, &conv, deformable_group)
}
