//! Random changes of images.

use candle_core::{DType, Device, Tensor};

use super::loader::{below, shuffled};
use super::warp::{Affine, Image, moved, warped};
use crate::{Error, Result, Rng, check};

/// Random changes of images, drawn separately for every example in every epoch.
///
/// Images are of shape (batch, channels, height, width) or (batch, height, width), of type `f32` or `u8`; the
/// latter become `f32` from 0 to 1. Changes are applied in the order of the methods below, whatever the order
/// of the calls. Pixels outside an image count as 0.
///
/// ```
/// use layerfn::data::{Arrays, Augment, Loader};
/// use layerfn::prelude::*;
///
/// let images = Tensor::zeros((6, 3, 32, 32), DType::U8, &Device::Cpu)?;
/// let loader = Loader::new(Arrays::new([images])?, 6).augment(0, Augment::new().flip_horizontal().crop(28, 28));
/// let batch = loader.batches()?.next().unwrap()?;
/// let [images] = batch.fields()?;
/// assert_eq!((images.dims(), images.dtype()), (&[6, 3, 28, 28][..], DType::F32));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Augment {
    rotate: f64,
    scale: f64,
    shift: usize,
    flip_horizontal: bool,
    flip_vertical: bool,
    crop: Option<(usize, usize)>,
    brightness: f64,
    contrast: f64,
    noise: f64,
    cutout: usize,
}

impl Augment {
    /// Makes no changes, except that `u8` becomes `f32`.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Rotates about the center by up to `degrees` either way, from 0 to 180.
    #[must_use]
    pub fn rotate(mut self, degrees: f64) -> Self {
        self.rotate = degrees;
        self
    }

    /// Enlarges or reduces by a factor between `1 / (1 + most)` and `1 + most`.
    #[must_use]
    pub fn scale(mut self, most: f64) -> Self {
        self.scale = most;
        self
    }

    /// Moves by up to `pixels`, up or down, left or right.
    #[must_use]
    pub fn shift(mut self, pixels: usize) -> Self {
        self.shift = pixels;
        self
    }

    /// Exchanges left and right with probability 1/2.
    #[must_use]
    pub fn flip_horizontal(mut self) -> Self {
        self.flip_horizontal = true;
        self
    }

    /// Exchanges top and bottom with probability 1/2.
    #[must_use]
    pub fn flip_vertical(mut self) -> Self {
        self.flip_vertical = true;
        self
    }

    /// Crops to a window of this size at a random position.
    #[must_use]
    pub fn crop(mut self, height: usize, width: usize) -> Self {
        self.crop = Some((height, width));
        self
    }

    /// Adds a random number from `[−most, most]` to all elements.
    #[must_use]
    pub fn brightness(mut self, most: f64) -> Self {
        self.brightness = most;
        self
    }

    /// Multiplies the difference of all elements from the image's mean by a random number from `[1 − most, 1 +
    /// most]`.
    #[must_use]
    pub fn contrast(mut self, most: f64) -> Self {
        self.contrast = most;
        self
    }

    /// Adds normally distributed noise with this standard deviation to each element.
    #[must_use]
    pub fn noise(mut self, sigma: f64) -> Self {
        self.noise = sigma;
        self
    }

    /// Sets a square of `pixels` × `pixels` at a random position, clipped at the border, to 0.
    #[must_use]
    pub fn cutout(mut self, pixels: usize) -> Self {
        self.cutout = pixels;
        self
    }

    pub(super) fn check(&self) -> Result<()> {
        check::within("degrees", self.rotate, 0.0..=180.0)?;
        for (argument, value) in [
            ("scale", self.scale),
            ("brightness", self.brightness),
            ("contrast", self.contrast),
            ("noise", self.noise),
        ] {
            check::within(argument, value, 0.0..)?;
        }
        match self.crop {
            Some((0, _) | (_, 0)) => Err(Error::invalid("crop", "must be at least 1 × 1", self.crop)),
            _ => Ok(()),
        }
    }

    /// Changes the images; example `n` of the batch draws from the generator `rng(n)`.
    pub(super) fn batch(&self, images: &Tensor, rng: impl Fn(usize) -> Rng) -> Result<Tensor> {
        let dims = images.dims();
        let (n, planes, height, width) = match *dims {
            [n, height, width] => (n, 1, height, width),
            [n, channels, height, width] => (n, channels, height, width),
            _ => return Err(Error::invalid("images", "must be (batch, [channels,] height, width)", dims)),
        };
        let values = values(images)?;
        let (new_height, new_width) = self.crop.unwrap_or((height, width));
        if new_height > height || new_width > width {
            let reason = format!("must fit into images of {height} × {width}");
            return Err(Error::invalid("crop", reason, (new_height, new_width)));
        }
        let size = planes * height * width;
        let mut changed = Vec::with_capacity(n * planes * new_height * new_width);
        for index in 0..n {
            let values = values[index * size..][..size].to_vec();
            let image = Image { values, planes, height, width };
            changed.extend(self.one(image, &rng(index)).values);
        }
        let mut shape = dims.to_vec();
        let rank = shape.len();
        shape[rank - 2..].copy_from_slice(&[new_height, new_width]);
        Ok(Tensor::from_vec(changed, shape, &Device::Cpu)?)
    }

    fn one(&self, mut image: Image, rng: &Rng) -> Image {
        let symmetric = |most| symmetric(most, rng);
        let pixels = |most: usize| below(rng, 2 * most + 1) as isize - most as isize;
        let degrees = if self.rotate > 0.0 { symmetric(self.rotate) } else { 0.0 };
        let factor = if self.scale > 0.0 { (symmetric(1.0) * self.scale.ln_1p()).exp() } else { 1.0 };
        let (down, right) = if self.shift > 0 { (pixels(self.shift), pixels(self.shift)) } else { (0, 0) };
        if self.rotate > 0.0 || self.scale > 0.0 {
            image = warped(&image, &Affine::new(degrees, factor, down as f64, right as f64));
        } else if self.shift > 0 {
            image = moved(&image, down, right);
        }
        if self.flip_horizontal && rng.uniform() < 0.5 {
            image.rows_mut().for_each(<[f32]>::reverse);
        }
        if self.flip_vertical && rng.uniform() < 0.5 {
            image.flip_vertically();
        }
        if let Some((height, width)) = self.crop {
            let top = below(rng, image.height - height + 1);
            let left = below(rng, image.width - width + 1);
            image = image.window(top, left, height, width);
        }
        self.change_values(&mut image, rng);
        image
    }

    fn change_values(&self, image: &mut Image, rng: &Rng) {
        let symmetric = |most| symmetric(most, rng);
        if self.brightness > 0.0 {
            let added = symmetric(self.brightness) as f32;
            image.values.iter_mut().for_each(|x| *x += added);
        }
        if self.contrast > 0.0 {
            let factor = (1.0 + symmetric(self.contrast)) as f32;
            let sum: f64 = image.values.iter().map(|&x| f64::from(x)).sum();
            let mean = (sum / image.values.len().max(1) as f64) as f32;
            image.values.iter_mut().for_each(|x| *x = mean + factor * (*x - mean));
        }
        if self.noise > 0.0 {
            image.values.iter_mut().for_each(|x| *x += (self.noise * rng.normal()) as f32);
        }
        if self.cutout > 0 && image.height > 0 && image.width > 0 {
            let (row, column) = (below(rng, image.height), below(rng, image.width));
            image.clear_square(row, column, self.cutout);
        }
    }
}

/// A number drawn uniformly from `[−most, most)`.
fn symmetric(most: f64, rng: &Rng) -> f64 {
    most * (2.0 * rng.uniform() - 1.0)
}

/// All elements, from 0 to 1 if they were bytes.
fn values(images: &Tensor) -> Result<Vec<f32>> {
    let flat = images.flatten_all()?;
    match images.dtype() {
        DType::F32 => Ok(flat.to_vec1()?),
        DType::U8 => Ok(flat.to_vec1::<u8>()?.into_iter().map(|x| f32::from(x) / 255.0).collect()),
        other => Err(Error::invalid("images", "must be f32 or u8 to be augmented", other)),
    }
}

/// Mixup: mixes each input with another one of the batch, and their class probabilities alike.
///
/// `x' = λ·x + (1 − λ)·x[p]` with a random permutation `p` and λ drawn from Beta(`alpha`, `alpha`), one for the batch. The loss
/// for such labels is `−Σ labels · log_softmax(logits)`.
///
/// # Shapes
/// - `x`: (batch, ..), of a float type; `labels`: (batch,), whole numbers below `n_classes`
/// - output: `x'` as `x`, and labels of shape (batch, `n_classes`) of the type of `x`
///
/// # Errors
/// [`Error::InvalidArgument`] if a label is not below `n_classes`, or `alpha` is not above 0.
///
/// # Source
/// Zhang et al., [mixup: Beyond Empirical Risk Minimization](https://arxiv.org/abs/1710.09412).
///
/// # Example
/// ```
/// use layerfn::data::mixup;
/// use layerfn::prelude::*;
///
/// let (x, labels) = (Tensor::ones((2, 3), DType::F32, &Device::Cpu)?, Tensor::new(&[1u32, 1], &Device::Cpu)?);
/// let (x, labels) = mixup(&x, &labels, 2, 0.2, &Rng::new(1))?;
/// assert_eq!(x.to_vec2::<f32>()?, [[1.0; 3]; 2]);
/// assert_eq!(labels.to_vec2::<f32>()?, [[0.0, 1.0]; 2]);
/// # Ok::<(), Error>(())
/// ```
pub fn mixup(
    x: &Tensor,
    labels: &Tensor,
    n_classes: usize,
    alpha: f64,
    rng: &Rng,
) -> Result<(Tensor, Tensor)> {
    check::positive("alpha", alpha)?;
    check::float("x", x)?;
    let labels = labels.to_dtype(DType::I64)?.to_vec1::<i64>()?;
    if let Some(label) = labels.iter().find(|&&label| label < 0 || label as u64 >= n_classes as u64) {
        return Err(Error::invalid(
            "labels",
            format!("must be from 0 to {}", n_classes.saturating_sub(1)),
            label,
        ));
    }
    let (a, b) = (gamma(alpha, rng), gamma(alpha, rng));
    let lambda = if a + b > 0.0 { a / (a + b) } else { 0.5 };
    let order: Vec<i64> = shuffled(labels.len(), rng).into_iter().map(|row| row as i64).collect();
    let mut one_hot = vec![0f32; check::count("labels", &[labels.len(), n_classes])?];
    for (row, &label) in labels.iter().enumerate() {
        one_hot[row * n_classes + label as usize] = 1.0;
    }
    let one_hot = Tensor::from_vec(one_hot, (labels.len(), n_classes), x.device())?.to_dtype(x.dtype())?;
    let order = Tensor::from_vec(order, labels.len(), x.device())?;
    let mixed = |t: &Tensor| (t * lambda)? + (t.index_select(&order, 0)? * (1.0 - lambda))?;
    Ok((mixed(&x.contiguous()?)?, mixed(&one_hot)?))
}

/// Draws from the gamma distribution with shape `alpha` and scale 1 (Marsaglia and Tsang).
fn gamma(alpha: f64, rng: &Rng) -> f64 {
    if alpha < 1.0 {
        return gamma(alpha + 1.0, rng) * (1.0 - rng.uniform()).powf(1.0 / alpha);
    }
    let d = alpha - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let x = rng.normal();
        let v = (1.0 + c * x).powi(3);
        if v > 0.0 && (1.0 - rng.uniform()).ln() < 0.5 * x * x + d - d * v + d * v.ln() {
            return d * v;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gamma_has_its_mean_and_variance() {
        for alpha in [0.3, 1.0, 4.5] {
            let rng = Rng::new(5);
            let draws: Vec<f64> = (0..20_000).map(|_| gamma(alpha, &rng)).collect();
            let mean = draws.iter().sum::<f64>() / draws.len() as f64;
            let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / draws.len() as f64;
            assert!((mean / alpha - 1.0).abs() < 0.05, "{alpha}: mean {mean}");
            assert!((variance / alpha - 1.0).abs() < 0.12, "{alpha}: variance {variance}");
        }
    }
}
