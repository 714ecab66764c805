//! What a sliding window sees, axis by axis: `(N, C, D, H, W)` becomes columns and columns become images again.

use candle_core::{Result, Tensor};

use crate::device::{Arguments, fused};
use crate::kernels::Window;
use crate::kernels::cuda::Kernel;

/// For each tap and output on an axis, `(taps, outputs)`, the input that `seen` says.
pub(super) fn table(window: &Window, axis: usize, seen: impl Fn(usize, usize) -> usize) -> Vec<u32> {
    let (taps, outputs) = (window.kernel[axis], window.output[axis]);
    (0..taps)
        .flat_map(|tap| (0..outputs).map(move |o| (tap, o)))
        .map(|(tap, o)| seen(tap, o) as u32)
        .collect()
}

/// How one axis is gathered: from which places, and whether from a zero behind its end for the padding.
struct Axis {
    places: Vec<u32>,
    size: usize,
    padded: bool,
}

impl Axis {
    fn new(window: &Window, axis: usize) -> Self {
        let size = window.input[axis];
        let places = table(window, axis, |tap, o| window.source(axis, o, tap).unwrap_or(size));
        let padded = places.contains(&(size as u32));
        Self { places, size, padded }
    }

    fn is_identity(&self) -> bool {
        self.places.len() == self.size
            && self.places.iter().enumerate().all(|(i, &place)| i == place as usize)
    }

    fn places(&self, like: &Tensor) -> Result<Tensor> {
        Tensor::new(&*self.places, like.device())
    }
}

/// The sizes that the kernels take, after two of their own.
pub(super) fn sizes(window: &Window, n: usize, c: usize) -> Vec<usize> {
    let Window { input, output, kernel, pad, stride, dilation } = window;
    [&[n, c][..], input, output, kernel, stride, pad, dilation].concat()
}

/// What each tap sees at each output of images `(N, C, D, H, W)`, as `(C, taps, N, outputs)`.
pub(super) fn unfold(images: &Tensor, window: &Window) -> Result<Tensor> {
    let (n, c, ..) = images.dims5()?;
    let dims = (c, window.n_taps(), n, window.n_outputs());
    let len = c * window.n_taps() * n * window.n_outputs();
    let arguments = Arguments { sizes: &sizes(window, n, c), numbers: &[], inputs: &[images] };
    if let Some(columns) = fused(Kernel::named("unfold"), len, arguments, len)? {
        return columns.reshape(dims);
    }
    let mut x = images.clone();
    for axis in 0..3 {
        let plan = Axis::new(window, axis);
        if !plan.is_identity() {
            let padded = x.pad_with_zeros(2 + axis, 0, usize::from(plan.padded))?;
            x = padded.contiguous()?.index_select(&plan.places(&x)?, 2 + axis)?;
        }
    }
    let ([kd, kh, kw], [d, h, w]) = (window.kernel, window.output);
    x.reshape(&[n, c, kd, d, kh, h, kw, w][..])?.permute(vec![1, 2, 4, 6, 0, 3, 5, 7])?.reshape(dims)
}

/// The transpose of [`unfold`]: adds each value to the input it was taken from.
pub(super) fn fold(columns: &Tensor, window: &Window) -> Result<Tensor> {
    let (c, _, n, _) = columns.dims4()?;
    let len = n * c * window.n_inputs();
    let arguments = Arguments { sizes: &sizes(window, n, c), numbers: &[], inputs: &[columns] };
    if let Some(images) = fused(Kernel::named("fold"), len, arguments, len)? {
        let [d, h, w] = window.input;
        return images.reshape((n, c, d, h, w));
    }
    let ([kd, kh, kw], [d, h, w]) = (window.kernel, window.output);
    let mut x = columns
        .reshape(&[c, kd, kh, kw, n, d, h, w][..])?
        .permute(vec![4, 0, 1, 5, 2, 6, 3, 7])?
        .reshape((n, c, kd * d, kh * h, kw * w))?;
    for axis in (0..3).rev() {
        let plan = Axis::new(window, axis);
        if plan.is_identity() {
            continue;
        }
        let mut dims = x.dims().to_vec();
        dims[2 + axis] = plan.size + usize::from(plan.padded);
        let zeros = Tensor::zeros(dims, x.dtype(), x.device())?;
        x = zeros.index_add(&plan.places(&x)?, &x, 2 + axis)?.narrow(2 + axis, 0, plan.size)?.contiguous()?;
    }
    Ok(x)
}
