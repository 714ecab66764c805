//! Deformable convolution: gathered pixels, and a product.

use candle_core::{DType, Result, Tensor};

use super::rule::attach;
use crate::functions::deformable::{Deformable, corners};
use crate::kernels::Sampling;
use crate::number::Composed;

/// The convolution `(N, outmaps, pixels)` of `x (N.., C, H, W)` sampled where `offset` says.
pub(crate) fn convolution(
    plan: &Deformable,
    [x, offset, w]: [&Tensor; 3],
    mask: Option<&Tensor>,
    b: Option<&Tensor>,
) -> Result<Tensor> {
    let Deformable { sampling, n_images, outmaps, group, .. } = plan;
    let pixels = sampling.n_outputs();
    if *n_images == 0 {
        return Tensor::zeros((0, *outmaps, pixels), x.dtype(), x.device());
    }
    let samples = Samples::new(sampling, *n_images, [x, offset], mask)?;
    let columns = samples.columns()?;
    let inputs: Vec<_> = [x, offset].into_iter().chain(mask).collect();
    let columns =
        attach("deformable_convolution", &inputs, &columns, move |d, needed| samples.back(d, needed))?;
    let columns = columns.reshape((*n_images, *group, (), pixels))?;
    let w = w.reshape((1, *group, outmaps / group, ()))?;
    let y = w.broadcast_matmul(&columns)?.reshape((*n_images, *outmaps, pixels))?;
    match b {
        Some(b) => y.broadcast_add(&b.reshape((1, *outmaps, 1))?),
        None => Ok(y),
    }
}

/// What the samples are made of; `N` images, `G` groups of `C` channels, `K` samples of a channel.
struct Samples {
    sampling: Sampling,
    /// `(N, G, C, H W + 1)`: the last pixel is the zero outside.
    x: Tensor,
    offset_dims: Vec<usize>,
    mask: Option<Tensor>,
    mask_dims: Vec<usize>,
    x_dims: Vec<usize>,
    /// The places of the four pixels around each sample, `(N, G, C, K)`.
    at: Vec<Tensor>,
    /// Their weights, and how these change with the row and the column: `(N, G, 1, K)`.
    weights: Vec<Vec<Tensor>>,
}

impl Samples {
    fn new(
        sampling: &Sampling,
        n_images: usize,
        [x, offset]: [&Tensor; 2],
        mask: Option<&Tensor>,
    ) -> Result<Self> {
        let ([height, width], groups, channels) = (sampling.input, sampling.groups, sampling.channels);
        let n_samples = sampling.n_taps() * sampling.n_outputs();
        let planes = x.detach().reshape((n_images, groups, channels / groups, height * width))?;
        let moved = read(sampling, offset, 2 * groups * sampling.n_taps())?;
        let moved = moved.reshape((n_images, groups, sampling.n_taps(), 2, sampling.n_outputs()))?;
        let position = |axis: usize| -> Result<Tensor> {
            let start = (0..n_samples)
                .map(|i| sampling.position(i / sampling.n_outputs(), i % sampling.n_outputs()).0[axis]);
            let start = Tensor::from_iter(start, x.device())?.to_dtype(x.dtype())?;
            let moved = moved.narrow(3, axis, 1)?.reshape((n_images, groups, 1, n_samples))?;
            moved.broadcast_add(&start.reshape((1, 1, 1, n_samples))?)
        };
        let (row, column) = (position(0)?, position(1)?);
        let near = |at: &Tensor, size: usize| at.gt(-1.0)? * at.lt(size as f64)?;
        let near = (near(&row, height)? * near(&column, width)?)?;
        let (top, left) = (row.floor()?, column.floor()?);
        let fractions = [(&row - &top)?, (&column - &left)?];
        let all = corners(fractions.map(|fraction| Composed(Ok(fraction))));
        let nothing = row.zeros_like()?;
        let (mut at, mut inside) = (Vec::with_capacity(4), Vec::with_capacity(4));
        for corner in 0..4 {
            let (row, column) = ((&top + (corner / 2) as f64)?, (&left + (corner % 2) as f64)?);
            let within = |at: &Tensor, size: usize| at.ge(0.0)? * at.lt(size as f64)?;
            let is_inside = ((within(&row, height)? * within(&column, width)?)? * &near)?;
            let [row, column] =
                [row, column].map(|at| is_inside.where_cond(&at, &nothing)?.to_dtype(DType::U32));
            let place = ((row? * width as f64)? + column?)?;
            let outside = place.zeros_like()?.affine(0.0, (height * width) as f64)?;
            let place = is_inside.where_cond(&place, &outside)?;
            at.push(place.broadcast_as((n_images, groups, channels / groups, n_samples))?.contiguous()?);
            inside.push(is_inside);
        }
        let weights = all.into_iter().map(|weights| {
            weights
                .into_iter()
                .zip(&inside)
                .map(|(weight, inside)| inside.where_cond(&weight.0?, &nothing))
                .collect()
        });
        let weights = weights.collect::<Result<_>>()?;
        let taps = groups * sampling.n_taps();
        let read = |mask: &Tensor| read(sampling, mask, taps)?.reshape((n_images, groups, 1, n_samples));
        Ok(Self {
            sampling: sampling.clone(),
            x: planes.pad_with_zeros(3, 0, 1)?.contiguous()?,
            offset_dims: offset.dims().to_vec(),
            mask: mask.map(read).transpose()?,
            mask_dims: mask.map_or_else(Vec::new, |mask| mask.dims().to_vec()),
            x_dims: x.dims().to_vec(),
            at,
            weights,
        })
    }

    /// The sum of the four pixels around each sample with the weights `by`, `(N, G, C, K)`.
    fn sum(&self, by: usize) -> Result<Tensor> {
        let mut terms =
            self.at.iter().zip(&self.weights[by]).map(|(at, w)| self.x.gather(at, 3)?.broadcast_mul(w));
        let first = terms.next().unwrap_or_else(|| self.x.zeros_like())?;
        terms.try_fold(first, |sum, term| sum + term?)
    }

    fn masked(&self, x: &Tensor) -> Result<Tensor> {
        self.mask.as_ref().map_or_else(|| Ok(x.clone()), |mask| x.broadcast_mul(mask))
    }

    fn columns(&self) -> Result<Tensor> {
        self.masked(&self.sum(0)?)
    }

    /// The gradients of the images, the offsets and the mask.
    fn back(&self, d: &Tensor, needed: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let masked = self.masked(d)?;
        let dx = || {
            let mut dx = self.x.zeros_like()?;
            for (at, weights) in self.at.iter().zip(&self.weights[0]) {
                dx = dx.scatter_add(at, &masked.broadcast_mul(weights)?, 3)?;
            }
            dx.narrow(3, 0, dx.dim(3)? - 1)?.reshape(&self.x_dims[..])
        };
        let doffset = || {
            let [drow, dcolumn] = [1, 2].map(|by| self.by_sample(&(&masked * self.sum(by)?)?));
            self.written(&Tensor::stack(&[drow?, dcolumn?], 3)?, &self.offset_dims)
        };
        let dmask = || self.written(&self.by_sample(&(d * self.sum(0)?)?)?, &self.mask_dims);
        Ok(vec![
            needed[0].then(dx).transpose()?,
            needed[1].then(doffset).transpose()?,
            needed.get(2).filter(|needed| **needed).map(|_| dmask()).transpose()?,
        ])
    }

    /// The sum over the channels, `(N, G, taps, pixels)`.
    fn by_sample(&self, x: &Tensor) -> Result<Tensor> {
        let (n, groups, _, _) = x.dims4()?;
        x.sum(2)?.reshape((n, groups, self.sampling.n_taps(), self.sampling.n_outputs()))
    }

    /// The transpose of [`read`]: zeros where no output reads.
    fn written(&self, x: &Tensor, dims: &[usize]) -> Result<Tensor> {
        let [height, width] = self.sampling.input;
        let [rows, columns] = places(&self.sampling, x)?;
        let planes = x.elem_count() / self.sampling.n_outputs();
        let x = x.reshape((planes, self.sampling.output[0], self.sampling.output[1]))?;
        let wide = Tensor::zeros((planes, self.sampling.output[0], width), x.dtype(), x.device())?;
        let wide = wide.index_add(&columns, &x, 2)?;
        let all = Tensor::zeros((planes, height, width), x.dtype(), x.device())?;
        all.index_add(&rows, &wide, 1)?.reshape(dims)
    }
}

/// What the outputs read of planes `(N.., planes, H, W)`.
fn read(sampling: &Sampling, x: &Tensor, planes: usize) -> Result<Tensor> {
    let [height, width] = sampling.input;
    let [rows, columns] = places(sampling, x)?;
    let x = x.detach().reshape(((), planes, height, width))?;
    x.index_select(&rows, 2)?.index_select(&columns, 3)
}

/// The rows and the columns of offsets that outputs read.
fn places(sampling: &Sampling, like: &Tensor) -> Result<[Tensor; 2]> {
    let places = |axis: usize| {
        let steps = (0..sampling.output[axis]).map(|i| (i * sampling.stride[axis]) as u32);
        Tensor::from_iter(steps, like.device())
    };
    Ok([places(0)?, places(1)?])
}
