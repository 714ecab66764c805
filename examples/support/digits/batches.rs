//! Digits as tensors, a batch at a time.

use candle_core::{Device, Result, Tensor};
use layerfn::Rng;

use super::{Digits, SIDE};

/// Some digits as tensors.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Images, shape (batch, 1, 28, 28), ink 1, paper 0.
    pub images: Tensor,
    /// Labels, shape (batch,), type `u32`.
    pub labels: Tensor,
}

/// Batches of digits; the last one may be smaller.
pub struct Batches<'a> {
    digits: &'a Digits,
    size: usize,
    order: Vec<usize>,
    next: usize,
    /// How far images are moved at random, and the generator that says where to.
    shift: Option<(usize, &'a Rng)>,
}

impl<'a> Batches<'a> {
    /// The digits in their order.
    #[must_use]
    pub fn in_order(digits: &'a Digits, size: usize) -> Self {
        Self { digits, size, order: (0..digits.len()).collect(), next: 0, shift: None }
    }

    /// The digits in random order, each moved by up to `shift` pixels along both axes: nobody writes in the very
    /// same place twice, so a network should not learn the place.
    #[must_use]
    pub fn shuffled(digits: &'a Digits, size: usize, shift: usize, rng: &'a Rng) -> Self {
        let mut order: Vec<usize> = (0..digits.len()).collect();
        for i in (1..order.len()).rev() {
            order.swap(i, below(rng, i + 1));
        }
        Self { digits, size, order, next: 0, shift: Some((shift, rng)) }
    }
}

impl Iterator for Batches<'_> {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        let indices = &self.order[self.next..self.order.len().min(self.next + self.size)];
        if indices.is_empty() {
            return None;
        }
        let mut pixels = Vec::with_capacity(indices.len() * SIDE * SIDE);
        for &index in indices {
            let image = self.digits.image(index);
            match self.shift {
                Some((most, rng)) => {
                    let draw = || below(rng, 2 * most + 1) as isize - most as isize;
                    let (down, right) = (draw(), draw());
                    pixels.extend(shifted(image, down, right).iter().map(|&pixel| f32::from(pixel) / 255.0));
                }
                None => pixels.extend(image.iter().map(|&pixel| f32::from(pixel) / 255.0)),
            }
        }
        let labels: Vec<u32> = indices.iter().map(|&index| u32::from(self.digits.label(index))).collect();
        self.next += indices.len();
        Some(tensors(pixels, labels))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let n = (self.order.len() - self.next).div_ceil(self.size);
        (n, Some(n))
    }
}

impl ExactSizeIterator for Batches<'_> {}

fn tensors(pixels: Vec<f32>, labels: Vec<u32>) -> Result<Batch> {
    let n = labels.len();
    Ok(Batch {
        images: Tensor::from_vec(pixels, (n, 1, SIDE, SIDE), &Device::Cpu)?,
        labels: Tensor::from_vec(labels, n, &Device::Cpu)?,
    })
}

/// An image moved down and to the right; paper comes in on the other sides.
///
/// # Panics
/// If `image` is not one of 28 × 28 pixels.
#[must_use]
pub fn shifted(image: &[u8], down: isize, right: isize) -> Vec<u8> {
    assert_eq!(image.len(), SIDE * SIDE, "an image has 28 × 28 pixels");
    let source = |to: usize, by: isize| to.checked_add_signed(-by).filter(|&from| from < SIDE);
    let mut moved = vec![0; SIDE * SIDE];
    for row in 0..SIDE {
        let Some(from_row) = source(row, down) else { continue };
        for column in 0..SIDE {
            if let Some(from_column) = source(column, right) {
                moved[row * SIDE + column] = image[from_row * SIDE + from_column];
            }
        }
    }
    moved
}

/// A whole number drawn uniformly from 0 to `n` - 1.
fn below(rng: &Rng, n: usize) -> usize {
    // `uniform` is below 1, but the product may still be rounded up to `n`.
    ((rng.uniform() * n as f64) as usize).min(n - 1)
}
