//! Convolution with learned places of its samples.

use candle_core::Tensor;

use crate::functions::{ConvGeometry, Deformable, moved_axis};
use crate::options::{bias, grouped, weights, window};
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
    options(window, grouped, weights, bias),
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
    /// Where the samples are taken, in pixels from where a convolution takes them.
    offset: &Tensor,
    /// Weights of the samples.
    #[opt]
    mask: Option<&Tensor>,
    /// Groups of input maps with offsets and masks of their own.
    #[opt(default = 1)]
    deformable_group: usize,
    /// Whether the channels are the last axis.
    #[opt(default = false)]
    channel_last: bool,
) -> Result<Tensor> {
    let base_axis = base_axis.position_from_front("base_axis", inp.dims())?;
    let last = base_axis.saturating_add(2);
    if inp.rank().checked_sub(1) != Some(last) {
        let reason = "must have two spatial axes and one of channels after `base_axis` leading ones";
        return Err(Error::invalid("inp", reason, inp.dims()));
    }
    let channels_first =
        |x: &Tensor| if channel_last { moved_axis(x, last, base_axis) } else { Ok(x.clone()) };
    for (argument, tensor) in [("offset", Some(offset)), ("mask", mask)] {
        let Some(tensor) = tensor else { continue };
        check::input(argument, tensor)?;
        if (tensor.rank(), tensor.dtype()) != (inp.rank(), inp.dtype()) {
            let reason = format!(
                "must have the rank and the element type of the input, {} and {:?}",
                inp.rank(),
                inp.dtype()
            );
            return Err(Error::invalid(argument, reason, (tensor.rank(), tensor.dtype())));
        }
    }
    let (x, offset) = (channels_first(inp)?, channels_first(offset)?);
    let mask = mask.map(channels_first).transpose()?;
    let conv = ConvGeometry::new(x.dims(), &kernel, &pad, &stride, &dilation, group, base_axis)?;
    conv.check(&x, outmaps)?;
    Deformable::new(&conv, outmaps, deformable_group)?.check_offsets(&x, &offset, mask.as_ref())?;
    let inmaps = conv.inmaps();
    let mut filter = [&[inmaps / group], conv.kernel()].concat();
    if channel_last {
        filter.rotate_left(1);
    }
    let (w, b) = (param!(W)?, param!(b)?);
    let w = if channel_last { moved_axis(&w, 3, 1)? } else { w };
    let y = functions::deformable_convolution(
        &x,
        &w,
        b.as_ref(),
        &offset,
        mask.as_ref(),
        &conv,
        deformable_group,
    )?;
    if channel_last { moved_axis(&y, base_axis, last) } else { Ok(y) }
}
