//! Sizes of convolutions, deconvolutions and pooling, validated once.

use candle_core::Tensor;

use crate::kernels::{Convolution, Float, Window};
use crate::{Axis, Error, PerAxis, Result, check};

/// The validated sizes of a convolution.
///
/// The input is `(N.., C, L1, .., Ld)` with `base_axis` leading axes `N..` and one to three spatial axes; the output
/// is `(N.., outmaps, L1', .., Ld')` with `Li' = (Li + 2 pad - dilation (kernel - 1) - 1) / stride + 1`.
///
/// ```
/// use layerfn::functions::ConvGeometry;
/// let geometry = ConvGeometry::new(&[8, 3, 28, 28], &5.into(), &2.into(), &2.into(), &1.into(), 1, 1)?;
/// assert_eq!(geometry.kernel(), [5, 5]);
/// assert_eq!(geometry.inmaps(), 3);
/// assert_eq!(geometry.output_dims(16), [8, 16, 14, 14]);
/// # Ok::<(), layerfn::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvGeometry(Sizes);

/// The validated sizes of a deconvolution (transposed convolution).
///
/// The input is `(N.., C, L1, .., Ld)` with `base_axis` leading axes `N..` and one to three spatial axes; the output is
/// `(N.., outmaps, L1', .., Ld')` with `Li' = (Li - 1) stride - 2 pad + dilation (kernel - 1) + 1`.
///
/// ```
/// use layerfn::functions::DeconvGeometry;
/// let geometry = DeconvGeometry::new(&[8, 16, 14, 14], &4.into(), &1.into(), &2.into(), &1.into(), 1, 1)?;
/// assert_eq!(geometry.output_dims(3), [8, 3, 28, 28]);
/// # Ok::<(), layerfn::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeconvGeometry(Sizes);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Sizes {
    input: Vec<usize>,
    base_axis: usize,
    kernel: Vec<usize>,
    pad: Vec<usize>,
    stride: Vec<usize>,
    dilation: Vec<usize>,
    group: usize,
    output_spatial: Vec<usize>,
    /// Additional outputs on each spatial axis, if any.
    output_padding: Vec<usize>,
    channel_last: bool,
}

macro_rules! accessors {
    ($geometry:ident) => {
        impl $geometry {
            /// The same sizes for tensors whose channels come behind the spatial axes: input `(N.., L1, .., Ld, C)`, output
            /// `(N.., L1', .., Ld', outmaps)`, and weights with their second axis last. The geometry itself is made from the
            /// sizes in the other order, see [`channels_first`].
            #[must_use]
            pub fn with_channel_last(mut self, channel_last: bool) -> Self {
                self.0.channel_last = channel_last;
                self
            }

            /// Whether the channels come after the spatial axes.
            #[must_use]
            pub fn is_channel_last(&self) -> bool {
                self.0.channel_last
            }

            /// Sizes of the weights of one map: `maps` and the kernel, or vice versa with `channel_last`.
            pub(crate) fn filter(&self, maps: usize) -> Vec<usize> {
                let kernel = self.kernel();
                if self.0.channel_last { [kernel, &[maps]].concat() } else { [&[maps], kernel].concat() }
            }

            /// Sizes of the input, with the channels before the spatial axes.
            #[must_use]
            pub fn input_dims(&self) -> &[usize] {
                &self.0.input
            }

            /// Sizes of the axes before the channels.
            #[must_use]
            pub fn batch_dims(&self) -> &[usize] {
                &self.0.input[..self.0.base_axis]
            }

            /// Number of input channels.
            #[must_use]
            pub fn inmaps(&self) -> usize {
                self.0.input[self.0.base_axis]
            }

            /// Number of groups of channels.
            #[must_use]
            pub fn group(&self) -> usize {
                self.0.group
            }

            /// Size of the kernel on each spatial axis.
            #[must_use]
            pub fn kernel(&self) -> &[usize] {
                &self.0.kernel
            }

            /// Zeros added on both sides of each spatial axis.
            #[must_use]
            pub fn pad(&self) -> &[usize] {
                &self.0.pad
            }

            /// Step of the kernel on each spatial axis.
            #[must_use]
            pub fn stride(&self) -> &[usize] {
                &self.0.stride
            }

            /// Distance of the kernel's taps on each spatial axis.
            #[must_use]
            pub fn dilation(&self) -> &[usize] {
                &self.0.dilation
            }

            /// Sizes of the output's spatial axes.
            #[must_use]
            pub fn output_spatial(&self) -> &[usize] {
                &self.0.output_spatial
            }

            /// # Errors
            /// [`Error::InvalidArgument`] if `outmaps` output channels are impossible.
            pub fn check_outmaps(&self, outmaps: usize) -> Result<()> {
                self.0.check_outmaps(outmaps)
            }

            /// Checks everything that a layer can know before it makes a parameter: the type of the input, the
            /// number of output channels, and whether there is memory for the output.
            pub(crate) fn check(&self, inp: &Tensor, outmaps: usize) -> Result<()> {
                check::input("inp", inp)?;
                self.0.check_outmaps(outmaps)?;
                check::tensor("outmaps", &self.output_dims(outmaps), inp.dtype())?;
                self.plan(outmaps).map(drop)
            }

            /// Sizes of the output for `outmaps` output channels, with these before the spatial axes.
            #[must_use]
            pub fn output_dims(&self, outmaps: usize) -> Vec<usize> {
                [self.batch_dims(), &[outmaps], self.output_spatial()].concat()
            }
        }
    };
}

accessors!(ConvGeometry);
accessors!(DeconvGeometry);

impl ConvGeometry {
    /// Resolves the sizes of a convolution.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the input does not have `base_axis + 1` axes and one to three spatial ones, an
    /// argument does not have one number for each of these, `kernel`, `stride`, `dilation` or `group` contains 0, the
    /// kernel is larger than the padded input, or `group` does not divide the input channels.
    pub fn new(
        input_dims: &[usize],
        kernel: &PerAxis,
        pad: &PerAxis,
        stride: &PerAxis,
        dilation: &PerAxis,
        group: usize,
        base_axis: impl Into<Axis>,
    ) -> Result<Self> {
        let mut sizes = Sizes::new(input_dims, kernel, pad, stride, dilation, group, base_axis.into())?;
        let base_axis = sizes.base_axis;
        for axis in 0..sizes.kernel.len() {
            let size = input_dims[base_axis + 1 + axis];
            let reach = sizes.reach(axis)?;
            let padded = sizes.padded(axis, size)?;
            let Some(slack) = padded.checked_sub(reach) else {
                let dilated = if sizes.dilation[axis] == 1 { "" } else { " (dilated)" };
                let reason = format!(
                    "must be at most {padded}{dilated} on spatial axis {axis} (input {size} plus padding)"
                );
                return Err(Error::invalid("kernel", reason, reach));
            };
            sizes.output_spatial.push(slack / sizes.stride[axis] + 1);
        }
        Ok(Self(sizes))
    }

    /// The sizes of a depthwise convolution, in which every channel is a separate group.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn depthwise(
        input_dims: &[usize],
        kernel: &PerAxis,
        pad: &PerAxis,
        stride: &PerAxis,
        dilation: &PerAxis,
        base_axis: impl Into<Axis>,
    ) -> Result<Self> {
        let base_axis = base_axis.into();
        let group = channels(input_dims, base_axis);
        Self::new(input_dims, kernel, pad, stride, dilation, group, base_axis)
    }

    /// The sizes of a convolution with a kernel of 1 on every axis.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn pointwise(input_dims: &[usize], base_axis: impl Into<Axis>) -> Result<Self> {
        let one = PerAxis::Every(1);
        Self::new(input_dims, &one, &PerAxis::Every(0), &one, &one, 1, base_axis)
    }

    /// The sizes for the kernels; the axes before the channels are flattened to one.
    pub(crate) fn plan(&self, outmaps: usize) -> Result<Convolution> {
        let sizes = &self.0;
        let spatial = &sizes.input[sizes.base_axis + 1..];
        sizes.plan(self.inmaps(), outmaps, spatial, &sizes.output_spatial)
    }

    /// Checks `outmaps` against the group and gives the sizes of the weights.
    pub(crate) fn weight_dims(&self, outmaps: usize) -> Result<Vec<usize>> {
        self.0.check_outmaps(outmaps)?;
        Ok([&[outmaps, self.inmaps() / self.group()], self.kernel()].concat())
    }
}

impl DeconvGeometry {
    /// Resolves the sizes of a deconvolution.
    ///
    /// # Errors
    /// As [`ConvGeometry::new`], and if `pad` leaves nothing of the output.
    pub fn new(
        input_dims: &[usize],
        kernel: &PerAxis,
        pad: &PerAxis,
        stride: &PerAxis,
        dilation: &PerAxis,
        group: usize,
        base_axis: impl Into<Axis>,
    ) -> Result<Self> {
        let mut sizes = Sizes::new(input_dims, kernel, pad, stride, dilation, group, base_axis.into())?;
        let base_axis = sizes.base_axis;
        for axis in 0..sizes.kernel.len() {
            let size = input_dims[base_axis + 1 + axis];
            let Some(last) = size.checked_sub(1) else {
                return Err(Error::invalid("inp", "must have no spatial axis of size 0", input_dims));
            };
            let reach = sizes.reach(axis)?;
            let full = last
                .checked_mul(sizes.stride[axis])
                .and_then(|start| start.checked_add(reach))
                .filter(|&full| full <= isize::MAX as usize)
                .ok_or_else(|| {
                    Error::invalid(
                        "stride",
                        "must not make the output too large to count its elements",
                        &sizes.stride,
                    )
                })?;
            let cut = sizes.padded(axis, 0)?;
            let Some(output) = full.checked_sub(cut).filter(|&output| output > 0) else {
                let reason =
                    format!("must be smaller: it removes all of the {full} outputs on spatial axis {axis}");
                return Err(Error::invalid("pad", reason, &sizes.pad));
            };
            sizes.output_spatial.push(output);
        }
        Ok(Self(sizes))
    }

    /// Adds `output_padding` outputs at the end of each spatial axis.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there is not one number for each spatial axis, or if one is not below the
    /// stride or the dilation: no input would reach the outputs beyond.
    pub fn with_output_padding(mut self, output_padding: &PerAxis) -> Result<Self> {
        let sizes = &mut self.0;
        let more = output_padding.resolve("output_padding", sizes.kernel.len())?;
        for (axis, &more) in more.iter().enumerate() {
            let limit = sizes.stride[axis].max(sizes.dilation[axis]);
            if more >= limit {
                let reason =
                    format!("must be below {limit} on spatial axis {axis}, the stride or the dilation");
                return Err(Error::invalid("output_padding", reason, more));
            }
            let output =
                sizes.output_spatial[axis].checked_add(more).filter(|&output| output <= isize::MAX as usize);
            sizes.output_spatial[axis] = output.ok_or_else(|| {
                Error::invalid(
                    "output_padding",
                    "must not make the output too large to count its elements",
                    more,
                )
            })?;
        }
        sizes.output_padding = more;
        Ok(self)
    }

    /// The additional outputs at the end of each spatial axis.
    pub(crate) fn output_padding(&self) -> Vec<usize> {
        match &self.0.output_padding[..] {
            [] => vec![0; self.0.kernel.len()],
            more => more.to_vec(),
        }
    }

    /// The sizes of a depthwise deconvolution: `divisor` channels are summed to one.
    ///
    /// # Errors
    /// As [`new`](Self::new), and if `divisor` does not divide the channels.
    pub fn depthwise(
        input_dims: &[usize],
        divisor: usize,
        kernel: &PerAxis,
        pad: &PerAxis,
        stride: &PerAxis,
        dilation: &PerAxis,
        base_axis: impl Into<Axis>,
    ) -> Result<Self> {
        let base_axis = base_axis.into();
        let inmaps = channels(input_dims, base_axis);
        if divisor == 0 || !inmaps.is_multiple_of(divisor) {
            return Err(Error::invalid(
                "divisor",
                format!("must divide the {inmaps} input channels"),
                divisor,
            ));
        }
        Self::new(input_dims, kernel, pad, stride, dilation, inmaps / divisor, base_axis)
    }

    /// The convolution that this is the transpose of.
    pub(crate) fn plan(&self, outmaps: usize) -> Result<Convolution> {
        let sizes = &self.0;
        let spatial = &sizes.input[sizes.base_axis + 1..];
        sizes.plan(outmaps, self.inmaps(), &sizes.output_spatial, spatial)
    }

    /// Checks `outmaps` against the group and gives the sizes of the weights.
    pub(crate) fn weight_dims(&self, outmaps: usize) -> Result<Vec<usize>> {
        self.0.check_outmaps(outmaps)?;
        Ok([&[self.inmaps(), outmaps / self.group()], self.kernel()].concat())
    }
}

impl Sizes {
    fn new(
        input_dims: &[usize],
        kernel: &PerAxis,
        pad: &PerAxis,
        stride: &PerAxis,
        dilation: &PerAxis,
        group: usize,
        base_axis: Axis,
    ) -> Result<Self> {
        let base_axis = base_axis.position_from_front("base_axis", input_dims)?;
        let n_axes = input_dims.len().saturating_sub(base_axis).saturating_sub(1);
        if !(1..=3).contains(&n_axes) {
            let reason = format!(
                "must have one to three spatial axes after the channels, which are axis {base_axis} (`base_axis`)"
            );
            return Err(Error::invalid("inp", reason, input_dims));
        }
        let inmaps = input_dims[base_axis];
        if inmaps == 0 {
            return Err(Error::invalid("inp", "must have at least one channel", input_dims));
        }
        if group == 0 || !inmaps.is_multiple_of(group) {
            return Err(Error::invalid("group", format!("must divide the {inmaps} input channels"), group));
        }
        Ok(Self {
            input: input_dims.to_vec(),
            base_axis,
            kernel: positive("kernel", kernel, n_axes)?,
            pad: pad.resolve("pad", n_axes)?,
            stride: positive("stride", stride, n_axes)?,
            dilation: positive("dilation", dilation, n_axes)?,
            group,
            output_spatial: Vec::with_capacity(n_axes),
            output_padding: Vec::new(),
            channel_last: false,
        })
    }

    /// The extent of the dilated kernel on an axis.
    fn reach(&self, axis: usize) -> Result<usize> {
        (self.kernel[axis] - 1)
            .checked_mul(self.dilation[axis])
            .and_then(|reach| reach.checked_add(1))
            .filter(|&reach| reach <= isize::MAX as usize)
            .ok_or_else(|| {
                Error::invalid(
                    "dilation",
                    "must not make the dilated kernel too large to count its elements",
                    &self.dilation,
                )
            })
    }

    /// An axis of `size` with its padding.
    fn padded(&self, axis: usize, size: usize) -> Result<usize> {
        padded("pad", size, self.pad[axis])
    }

    fn check_outmaps(&self, outmaps: usize) -> Result<()> {
        if outmaps == 0 || !outmaps.is_multiple_of(self.group) {
            let reason = match self.group {
                1 => "must be at least 1".to_owned(),
                group => format!("must be a multiple of `group`, which is {group}"),
            };
            return Err(Error::invalid("outmaps", reason, outmaps));
        }
        Ok(())
    }

    fn plan(&self, inmaps: usize, outmaps: usize, input: &[usize], output: &[usize]) -> Result<Convolution> {
        let n_images = check::count("inp", &self.input[..self.base_axis])?;
        // A stride or a dilation that leads out of the padded input can be reduced to the smallest one that
        // does.
        let inside = |sizes: &[usize]| {
            let padded = input.iter().zip(&self.pad).map(|(size, pad)| size + 2 * pad);
            sizes.iter().zip(padded).map(|(&size, padded)| size.min(padded.max(1))).collect::<Vec<_>>()
        };
        let window = Window {
            input: three_axes(input, 1),
            output: three_axes(output, 1),
            kernel: three_axes(&self.kernel, 1),
            pad: three_axes(&self.pad, 0),
            stride: three_axes(&inside(&self.stride), 1),
            dilation: three_axes(&inside(&self.dilation), 1),
        };
        check::count("kernel", &[&[inmaps / self.group, outmaps], &self.kernel[..]].concat())?;
        check::count("inp", &[&[n_images, inmaps], input].concat())?;
        check::count("inp", &[&[n_images, outmaps], output].concat())?;
        if n_images > 0 {
            check::memory::<f64>("pad", self.padded_copy(inmaps.max(outmaps), &window))?;
        }
        Ok(Convolution { n_images, inmaps, outmaps, group: self.group, window })
    }

    /// An upper bound of the elements of a padded copy of an image in which neighbouring outputs read
    /// neighbouring elements, for the convolution or its transpose.
    fn padded_copy(&self, maps: usize, window: &Window) -> usize {
        let axis = |axis: usize| {
            let Window { input, output, kernel, stride, dilation, .. } = window;
            let span = (kernel[axis] - 1).saturating_mul(dilation[axis]);
            let long = |out: usize, source: usize, span: usize| {
                out.saturating_add(span.min(source.saturating_add(out)))
            };
            let (steps, phases) = (input[axis] / stride[axis] + 1, stride[axis].min(kernel[axis]));
            let forward = long(output[axis], steps, span / stride[axis] + 1).saturating_mul(phases);
            forward.max(long(steps, output[axis], span / stride[axis] + 2))
        };
        (0..3).fold(maps / self.group, |n, i| n.saturating_mul(axis(i)))
    }
}

/// The sizes of an input with the channels moved before the spatial axes, if they come last; `base_axis` axes
/// come before both.
///
/// ```
/// use layerfn::functions::channels_first;
/// assert_eq!(channels_first(&[8, 28, 20, 3], true, 1), [8, 3, 28, 20]);
/// assert_eq!(channels_first(&[8, 3, 28, 20], false, 1), [8, 3, 28, 20]);
/// ```
#[must_use]
pub fn channels_first(input_dims: &[usize], channel_last: bool, base_axis: impl Into<Axis>) -> Vec<usize> {
    let mut dims = input_dims.to_vec();
    // An invalid axis is rejected when the geometry is made.
    let base_axis = base_axis.into().position_from_front("base_axis", input_dims).unwrap_or(usize::MAX);
    if channel_last && base_axis < dims.len() {
        dims[base_axis..].rotate_right(1);
    }
    dims
}

/// Channels of the input; if it has none, the check of the rank reports it.
fn channels(input_dims: &[usize], base_axis: Axis) -> usize {
    base_axis.resolve("base_axis", input_dims).map_or(1, |axis| input_dims[axis].max(1))
}

/// An axis of `size` with `pad` on both sides.
pub(crate) fn padded(argument: &'static str, size: usize, pad: usize) -> Result<usize> {
    pad.checked_mul(2)
        .and_then(|pad| pad.checked_add(size))
        .filter(|&padded| padded <= isize::MAX as usize)
        .ok_or_else(|| {
            Error::invalid(argument, "must not make the padded input too large to count its elements", pad)
        })
}

/// Numbers for each spatial axis, none of them 0.
pub(crate) fn positive(argument: &'static str, values: &PerAxis, n_axes: usize) -> Result<Vec<usize>> {
    let values = values.resolve(argument, n_axes)?;
    if values.contains(&0) { Err(Error::invalid(argument, "must not contain 0", values)) } else { Ok(values) }
}

/// Up to three sizes with `fill` for the leading axes that are missing.
pub(crate) fn three_axes(sizes: &[usize], fill: usize) -> [usize; 3] {
    let mut axes = [fill; 3];
    for (axis, size) in axes.iter_mut().rev().zip(sizes.iter().rev()) {
        *axis = *size;
    }
    axes
}

/// Which way a convolution is run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Forward,
    Transposed,
}

impl Direction {
    pub(super) fn run<T: Float>(self, plan: &Convolution, inp: &[T], w: &[T], b: Option<&[T]>, y: &mut [T]) {
        if y.is_empty() {
            return; // of images that there aren't, no workspace is taken
        }
        match self {
            Self::Forward => plan.forward(inp, w, b, y),
            Self::Transposed => plan.data_gradient(inp, w, b, y),
        }
    }

    pub(super) fn reversed(self) -> Self {
        match self {
            Self::Forward => Self::Transposed,
            Self::Transposed => Self::Forward,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conv(
        dims: &[usize],
        kernel: usize,
        pad: usize,
        stride: usize,
        dilation: usize,
        group: usize,
    ) -> Result<ConvGeometry> {
        ConvGeometry::new(dims, &kernel.into(), &pad.into(), &stride.into(), &dilation.into(), group, 1)
    }

    fn text<T: std::fmt::Debug>(result: Result<T>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn output_sizes_follow_the_formula() {
        let per_axis = |a: [usize; 2]| PerAxis::from(a);
        let geometry = ConvGeometry::new(
            &[2, 5, 6, 10, 7],
            &per_axis([3, 2]),
            &per_axis([1, 0]),
            &per_axis([2, 1]),
            &per_axis([2, 3]),
            3,
            2,
        );
        let geometry = geometry.unwrap();
        assert_eq!(geometry.batch_dims(), [2, 5]);
        assert_eq!(geometry.inmaps(), 6);
        assert_eq!(geometry.output_spatial(), [4, 4]);
        assert_eq!(geometry.output_dims(9), [2, 5, 9, 4, 4]);
    }

    #[test]
    fn errors_say_what_is_wrong() {
        assert_eq!(
            text(conv(&[1, 4, 3, 3], 5, 0, 1, 1, 1)),
            "`kernel` must be at most 3 on spatial axis 0 (input 3 plus padding), got 5"
        );
        assert_eq!(text(conv(&[1, 4, 9], 3, 0, 1, 1, 3)), "`group` must divide the 4 input channels, got 3");
        assert_eq!(text(conv(&[1, 4, 9], 3, 0, 0, 1, 1)), "`stride` must not contain 0, got [0]");
        assert!(text(conv(&[1, 4], 3, 0, 1, 1, 1)).contains("one to three spatial axes"));
        assert!(text(conv(&[1, 4, 1, 1, 1, 1], 1, 0, 1, 1, 1)).contains("one to three spatial axes"));
        assert!(text(conv(&[], 1, 0, 1, 1, 1)).contains("`inp`"));
        assert!(text(conv(&[2, 0, 5], 1, 0, 1, 1, 1)).contains("at least one channel"));
        assert!(text(conv(&[2, 1, 5], 1, usize::MAX / 2 + 1, 1, 1, 1)).contains("too large to count"));
        assert!(text(conv(&[2, 1, 5], 3, 0, 1, usize::MAX, 1)).contains("too large to count"));
        let deconv = DeconvGeometry::new(&[1, 1, 3], &1.into(), &2.into(), &1.into(), &1.into(), 1, 1);
        assert!(text(deconv).contains("it removes all of the 3 outputs"));
        let deconv = DeconvGeometry::new(&[1, 1, 0], &3.into(), &0.into(), &1.into(), &1.into(), 1, 1);
        assert!(text(deconv).contains("no spatial axis of size 0"));
    }
}
