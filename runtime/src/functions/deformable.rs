//! Convolution of an image that is sampled at offsets.

use candle_core::Tensor;

use super::arrange::moved;
use super::composed;
use super::convolution::with_channels_first;
use super::geometry::ConvGeometry;
use super::graph::{Gradients, attach, tracked};
use super::node::{
    Element, Value, compute, for_float, in_type, nothing_like, read, unfilled, widened, without_kernels,
};
use crate::kernels::{Float, Mat, MatMut, Sampling, Start, Threads, channel_sums, gemm};
use crate::number::Number;
use crate::told::{Form, told};
use crate::{Error, Result, check};

/// Two-dimensional convolution whose samples are moved by offsets and, if there is a mask, weighted by it.
///
/// `y[n, o, p] = b[o] + sum over c, k of w[o, c, k] mask[n, k, s p] inp[n, c, s p − pad + k dilation + offset[n, k, s p]]` with
/// `s` the stride, within each group. `inp` is interpolated linearly in both directions, with zeros around it;
/// a sample that is at least one pixel outside is 0. `deformable_group` groups of channels have separate
/// offsets and masks.
///
/// # Shapes
/// - `inp`: `(N.., C, H, W)`, the sizes that `geometry` was made for
/// - `w`: `(outmaps, C / group, kh, kw)`; `b`: `(outmaps)`
/// - `offset`: `(N.., 2 deformable_group kh kw, H, W)`: the vertical and the horizontal offset for each group
///   and each position in the kernel. The output at `p` reads them at `s p`.
/// - `mask`: `(N.., deformable_group kh kw, H, W)`
/// - output: `(N.., outmaps, H', W')`, see [`ConvGeometry`]
///
/// With a geometry [`with_channel_last`](ConvGeometry::with_channel_last), the second of these axes (after
/// `N..`) is the last one in all of them.
///
/// # Errors
/// [`Error::InvalidArgument`] if there are not two spatial axes, `deformable_group` does not divide the channels, a tensor has
/// other sizes than these, or the padding makes outputs for which there are no offsets.
///
/// # Source
/// NNabla `F.deformable_convolution`; Dai et al., [Deformable Convolutional Networks](https://arxiv.org/abs/1703.06211); for the
/// mask Zhu et al., [Deformable ConvNets v2](https://arxiv.org/abs/1811.11168).
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// use layerfn::functions::{ConvGeometry, deformable_convolution};
/// let x = Tensor::new(&[[[[1f32, 3., 7.]]]], &Device::Cpu)?;
/// let w = Tensor::new(&[[[[1f32]]]], &Device::Cpu)?;
/// // Nothing down; half a pixel, nothing, and half a pixel to the right, where the image ends.
/// let offset = Tensor::new(&[[[[0f32, 0., 0.]], [[0.5, 0., 0.5]]]], &Device::Cpu)?;
/// let geometry = ConvGeometry::new(x.dims(), &1.into(), &0.into(), &1.into(), &1.into(), 1, 1)?;
/// let y = deformable_convolution(&x, &w, None, &offset, None, &geometry, 1)?;
/// assert_eq!(y.flatten_all()?.to_vec1::<f32>()?, [2., 3., 3.5]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn deformable_convolution(
    inp: &Tensor,
    w: &Tensor,
    b: Option<&Tensor>,
    offset: &Tensor,
    mask: Option<&Tensor>,
    geometry: &ConvGeometry,
    deformable_group: usize,
) -> Result<Tensor> {
    const NAME: &str = "deformable_convolution";
    let outmaps = w.dims().first().copied().unwrap_or_default();
    let plan = Deformable::new(geometry, outmaps, deformable_group)?;
    plan.check_offsets(inp, offset, mask)?;
    if geometry.is_channel_last() {
        let (first, base_axis) = (geometry.clone().with_channel_last(false), geometry.batch_dims().len());
        let front = |x: &Tensor| moved(x, base_axis + 2, base_axis);
        let (offset, mask) = (front(offset)?, mask.map(front).transpose()?);
        return with_channels_first(inp, w, base_axis, |inp, w| {
            deformable_convolution(inp, w, b, &offset, mask.as_ref(), &first, deformable_group)
        });
    }
    told(
        || {
            let form = Form::new("DeformableConvolution", &[inp, w, offset]).and(mask).and(b);
            let form = form.with("base_axis", geometry.batch_dims().len()).with("pad", geometry.pad());
            let form = form.with("stride", geometry.stride()).with("dilation", geometry.dilation());
            form.with("group", geometry.group()).with("deformable_group", deformable_group)
        },
        || {
            check_dims("W", w, &geometry.weight_dims(outmaps)?)?;
            b.map_or(Ok(()), |b| check_dims("b", b, &[outmaps]))?;
            let dims = geometry.output_dims(outmaps);
            let tensors: Vec<_> = [inp, offset, w].into_iter().chain(mask).chain(b).collect();
            let compose = |t: &[Tensor]| {
                let mask = mask.map(|_| &t[3]);
                let b = b.map(|_| &t[t.len() - 1]);
                Ok([composed::deformable::convolution(&plan, [&t[0], &t[1], &t[2]], mask, b)?
                    .reshape(&dims[..])?])
            };
            if let Some([y]) = without_kernels(NAME, &tensors, compose)? {
                return Ok(y);
            }
            let none = nothing_like(inp)?;
            let [x, offset, mask, w, b] =
                widened(NAME, [inp, offset, mask.unwrap_or(&none), w, b.unwrap_or(&none)])?;
            let inputs = [&*x, &*offset, &*mask, &*w, &*b];
            let y = for_float!(x.dtype(), T => {
                let mut columns = unfilled::<T>(plan.n_columns())?;
                let y = compute::<T, 5>(dims, inputs, |inputs, y| plan.forward(inputs, &mut columns, y))?;
                let (needed, given) = (tracked(inputs), inputs.map(Tensor::clone));
                attach(NAME, inputs, y, move |dy| plan.gradients::<T>(given.each_ref(), dy, needed))
            })?;
            in_type(y, inp.dtype())
        },
    )
}

/// The weights of the four pixels around a position, which is `y` below and `x` to the right of the first one,
/// and their derivatives with respect to `y` and `x`.
#[inline(always)]
pub(super) fn corners<V: Number>([y, x]: [V; 2]) -> [[V; 4]; 3] {
    let (up, left) = (y.clone().complement(), x.clone().complement());
    let product = |a: &V, b: &V| a.clone() * b.clone();
    [
        [product(&up, &left), product(&up, &x), product(&y, &left), product(&y, &x)],
        [left.clone().negative(), x.clone().negative(), left, x],
        [up.clone().negative(), up, y.clone().negative(), y],
    ]
}

/// Sizes that have been validated.
#[derive(Clone, Debug)]
pub(crate) struct Deformable {
    pub(super) sampling: Sampling,
    pub(super) n_images: usize,
    pub(super) outmaps: usize,
    pub(super) group: usize,
    batch_dims: Vec<usize>,
    channel_last: bool,
}

impl Deformable {
    pub(crate) fn new(geometry: &ConvGeometry, outmaps: usize, deformable_group: usize) -> Result<Self> {
        let (inp_dims, channels) = (geometry.input_dims(), geometry.inmaps());
        let &[height, width] = &inp_dims[geometry.batch_dims().len() + 1..] else {
            return Err(Error::invalid("inp", "must have two spatial axes after the channels", inp_dims));
        };
        if deformable_group == 0 || !channels.is_multiple_of(deformable_group) {
            let reason = format!("must divide the {channels} input channels");
            return Err(Error::invalid("deformable_group", reason, deformable_group));
        }
        geometry.check_outmaps(outmaps)?;
        let two = |sizes: &[usize]| [sizes[0], sizes[1]];
        let sampling = Sampling {
            channels,
            groups: deformable_group,
            input: [height, width],
            output: two(geometry.output_spatial()),
            kernel: two(geometry.kernel()),
            pad: two(geometry.pad()),
            stride: two(geometry.stride()),
            dilation: two(geometry.dilation()),
        };
        let missing = |&axis: &usize| {
            let last = (sampling.output[axis] - 1).saturating_mul(sampling.stride[axis]);
            last >= sampling.input[axis]
        };
        if let Some(axis) = (0..2).find(missing) {
            let reason = format!(
                "must leave outputs that have offsets: those of spatial axis {axis} are {} in steps of {}, the offsets {}",
                sampling.output[axis], sampling.stride[axis], sampling.input[axis]
            );
            return Err(Error::invalid("pad", reason, geometry.pad()));
        }
        let plan = Self {
            sampling,
            n_images: check::count("inp", geometry.batch_dims())?,
            outmaps,
            group: geometry.group(),
            batch_dims: geometry.batch_dims().to_vec(),
            channel_last: geometry.is_channel_last(),
        };
        plan.check_memory()?;
        Ok(plan)
    }

    /// Whether there is memory for the columns and the samples of an image.
    fn check_memory(&self) -> Result<()> {
        let Sampling { channels, groups, kernel: [kh, kw], output: [h, w], .. } = self.sampling;
        let columns = check::count("kernel", &[channels, kh, kw, h, w])?;
        check::memory::<f64>("kernel", columns)?;
        // A sample is some twenty numbers.
        check::memory::<[f64; 20]>("kernel", check::count("kernel", &[groups, kh, kw, h, w])?)
    }

    /// Checks `inp` and what has its height and width.
    pub(crate) fn check_offsets(&self, inp: &Tensor, offset: &Tensor, mask: Option<&Tensor>) -> Result<()> {
        let Sampling { channels, groups, kernel: [kh, kw], .. } = self.sampling;
        let planes = |n: usize| check::count("kernel", &[n, groups, kh, kw]).map(|planes| self.dims(planes));
        check_dims("inp", inp, &self.dims(channels))?;
        check_dims("offset", offset, &planes(2)?)?;
        mask.map_or(Ok(()), |mask| check_dims("mask", mask, &planes(1)?))
    }

    /// The sizes of images with so many planes of the input's height and width.
    fn dims(&self, planes: usize) -> Vec<usize> {
        let mut dims = [&self.batch_dims[..], &[planes], &self.sampling.input].concat();
        if self.channel_last {
            dims[self.batch_dims.len()..].rotate_left(1);
        }
        dims
    }

    /// Inputs and outputs of a group, and what a tap of an image sees.
    fn matrix(&self) -> [usize; 3] {
        let Sampling { channels, .. } = self.sampling;
        let inmaps = channels / self.group * self.sampling.n_taps();
        [inmaps, self.outmaps / self.group, self.sampling.n_outputs()]
    }

    fn n_columns(&self) -> usize {
        self.sampling.channels * self.sampling.n_taps() * self.sampling.n_outputs()
    }

    /// The parts of the input, the offsets and the mask that belong to an image.
    fn image<'a, T>(&self, [x, offset, mask]: [&'a [T]; 3], n: usize) -> (&'a [T], &'a [T], Option<&'a [T]>) {
        let part = |values: &'a [T]| {
            let len = values.len() / self.n_images;
            &values[n * len..][..len]
        };
        (part(x), part(offset), (!mask.is_empty()).then(|| part(mask)))
    }

    fn forward<T: Float>(&self, [x, offset, mask, w, b]: [&[T]; 5], columns: &mut [T], y: &mut [T]) {
        let [inmaps, outmaps, pixels] = self.matrix();
        for (n, y) in y.chunks_exact_mut(self.outmaps * pixels).enumerate() {
            let (x, offset, mask) = self.image([x, offset, mask], n);
            let samples = self.sampling.samples(offset, mask, corners);
            self.sampling.columns(&samples, x, columns);
            for group in 0..self.group {
                let start = match b {
                    [] => Start::Zero,
                    b => Start::Rows(&b[group * outmaps..][..outmaps]),
                };
                let w = Mat::new(&w[group * outmaps * inmaps..], outmaps, inmaps, inmaps);
                let columns = Mat::new(&columns[group * inmaps * pixels..], inmaps, pixels, pixels);
                let y = MatMut::new(&mut y[group * outmaps * pixels..], outmaps, pixels, pixels);
                gemm(y, w, columns, start, Threads::All);
            }
        }
    }

    /// The gradients of the input, the offsets, the mask, the weights and the bias.
    fn gradients<T: Element>(&self, inputs: [&Tensor; 5], dy: &Tensor, needed: [bool; 5]) -> Gradients<5> {
        let [x, offset, mask, w, b] = inputs;
        let value = |like: &Tensor, needed: bool| {
            Value::<T>::unfilled(if needed { like.dims().to_vec() } else { vec![0] })
        };
        // The gradients of the offsets and of the mask are computed together; without a mask, its gradient is
        // dropped.
        let sampled = needed[1] || needed[2];
        let (mut dx, mut doffset, mut dmask) =
            (value(x, needed[0])?, value(offset, sampled)?, value(mask, sampled)?);
        let planes = offset.elem_count() / 2;
        let unwanted = if sampled && mask.elem_count() == 0 { planes / self.n_images.max(1) } else { 0 };
        let mut unwanted = unfilled::<T>(unwanted)?;
        let mut dw = vec![0.0; if needed[3] { w.elem_count() } else { 0 }];
        let mut columns = unfilled::<T>(self.n_columns())?;
        let mut dcolumns = unfilled::<T>(if needed[..3].contains(&true) { columns.len() } else { 0 })?;
        read([x, offset, mask, w, dy], |[x, offset, mask, w, dy]| {
            let pixels = self.outmaps * self.sampling.n_outputs();
            for (n, dy) in dy.chunks_exact(pixels).enumerate() {
                let (x, offset, mask) = self.image([x, offset, mask], n);
                let samples = self.sampling.samples(offset, mask, corners);
                if needed[3] {
                    self.sampling.columns(&samples, x, &mut columns);
                    self.add_weight_gradient(&columns, dy, &mut dw);
                }
                if dcolumns.is_empty() {
                    continue;
                }
                self.column_gradient(w, dy, &mut dcolumns);
                if needed[0] {
                    let dx = &mut dx.data[n * x.len()..][..x.len()];
                    self.sampling.image_gradient(&samples, &dcolumns, dx);
                }
                if sampled {
                    let doffset = &mut doffset.data[n * offset.len()..][..offset.len()];
                    let half = offset.len() / 2;
                    let dmask = match &mut dmask.data[..] {
                        [] => &mut unwanted[..],
                        dmask => &mut dmask[n * half..][..half],
                    };
                    self.sampling.offset_gradients(&samples, x, &dcolumns, doffset, dmask);
                }
            }
        })?;
        let dw = Value { data: dw.into_iter().map(T::of).collect(), dims: w.dims().to_vec() };
        let db = |dy: &Tensor| {
            let pixels = self.sampling.n_outputs();
            compute::<T, 1>(b.dims(), [dy], |[dy], db| channel_sums(dy, pixels, db))?.into_tensor()
        };
        let given = |value: Value<T>, needed: bool| needed.then(|| value.into_tensor()).transpose();
        Ok([
            given(dx, needed[0])?,
            given(doffset, needed[1])?,
            given(dmask, needed[2])?,
            given(dw, needed[3])?,
            needed[4].then(|| db(dy)).transpose()?,
        ])
    }

    /// `dcolumns = transpose of w * dy` in each group.
    fn column_gradient<T: Float>(&self, w: &[T], dy: &[T], dcolumns: &mut [T]) {
        let [inmaps, outmaps, pixels] = self.matrix();
        for group in 0..self.group {
            let w = Mat::new(&w[group * outmaps * inmaps..], outmaps, inmaps, inmaps);
            let dy = Mat::new(&dy[group * outmaps * pixels..], outmaps, pixels, pixels);
            let out = MatMut::new(&mut dcolumns[group * inmaps * pixels..], inmaps, pixels, pixels);
            gemm(out, w.t(), dy, Start::Zero, Threads::All);
        }
    }

    /// `dw += dy * transpose of columns` in each group.
    fn add_weight_gradient<T: Float>(&self, columns: &[T], dy: &[T], dw: &mut [f64]) {
        let [inmaps, outmaps, pixels] = self.matrix();
        let mut part = crate::kernels::unfilled::<T>(outmaps * inmaps);
        for (group, dw) in dw.chunks_exact_mut(outmaps * inmaps).enumerate() {
            let dy = Mat::new(&dy[group * outmaps * pixels..], outmaps, pixels, pixels);
            let columns = Mat::new(&columns[group * inmaps * pixels..], inmaps, pixels, pixels);
            gemm(MatMut::new(&mut part, outmaps, inmaps, inmaps), dy, columns.t(), Start::Zero, Threads::All);
            dw.iter_mut().zip(&part).for_each(|(sum, x)| *sum += x.wide());
        }
    }
}

fn check_dims(argument: &'static str, tensor: &Tensor, wanted: &[usize]) -> Result<()> {
    if tensor.dims() == wanted {
        return Ok(());
    }
    Err(Error::invalid(argument, format!("must have shape {wanted:?} here"), tensor.dims()))
}
