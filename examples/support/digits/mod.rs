//! MNIST: handwritten digits, 10,000 of them built in.

mod batches;
mod idx;
#[cfg(test)]
mod tests;

use std::path::Path;

pub use batches::{Batch, Batches, shifted};
use idx::IdxFile;
pub use idx::{DataError, SIDE};

/// Of the 10,000 digits built in, so many are there to train on; the others are held back.
const BUILT_IN_TRAIN: usize = 8_000;

/// Images of digits with their labels.
#[derive(Clone, Debug)]
pub struct Digits {
    pixels: Vec<u8>,
    labels: Vec<u8>,
}

/// Digits to train on, and others to test with.
#[derive(Clone, Debug)]
pub struct Mnist {
    /// To train on.
    pub train: Digits,
    /// Never seen in training.
    pub test: Digits,
}

impl Mnist {
    /// The digits built into the program: 8,000 to train on, 2,000 to test with.
    ///
    /// # Errors
    /// None, as long as the files in `data/mnist` are those of the repository.
    pub fn built_in() -> Result<Self, DataError> {
        let digits = Digits::read(
            IdxFile::new("data/mnist/t10k-images-idx3-ubyte.gz", IMAGES)?,
            IdxFile::new("data/mnist/t10k-labels-idx1-ubyte.gz", LABELS)?,
        )?;
        Ok(Self { train: digits.slice(0, BUILT_IN_TRAIN), test: digits.slice(BUILT_IN_TRAIN, digits.len()) })
    }

    /// The full set from four IDX files in `dir`, plain or with `.gz`: `train-images-idx3-ubyte`,
    /// `train-labels-idx1-ubyte`, `t10k-images-idx3-ubyte` and `t10k-labels-idx1-ubyte`.
    ///
    /// # Errors
    /// [`DataError`] if a file is missing, damaged or something else.
    pub fn from_dir(dir: &Path) -> Result<Self, DataError> {
        if !dir.is_dir() {
            return Err(DataError::NotADirectory(dir.to_owned()));
        }
        let read = |images, labels| Digits::read(IdxFile::open(dir, images)?, IdxFile::open(dir, labels)?);
        Ok(Self {
            train: read("train-images-idx3-ubyte", "train-labels-idx1-ubyte")?,
            test: read("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")?,
        })
    }
}

static IMAGES: &[u8] = include_bytes!("../../data/mnist/t10k-images-idx3-ubyte.gz");
static LABELS: &[u8] = include_bytes!("../../data/mnist/t10k-labels-idx1-ubyte.gz");

impl Digits {
    fn read(mut images: IdxFile<'_>, mut labels: IdxFile<'_>) -> Result<Self, DataError> {
        let digits = Self { pixels: images.images()?, labels: labels.labels()? };
        if digits.pixels.len() != digits.labels.len() * SIDE * SIDE {
            return Err(DataError::CountMismatch {
                images_file: images.path().to_owned(),
                images: digits.pixels.len() / (SIDE * SIDE),
                labels_file: labels.path().to_owned(),
                labels: digits.labels.len(),
            });
        }
        Ok(digits)
    }

    /// How many there are.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "the reader refuses empty files")]
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Pixels of the digit `index`, row after row, 0 (paper) to 255 (ink).
    ///
    /// # Panics
    /// If there is no such digit.
    #[must_use]
    pub fn image(&self, index: usize) -> &[u8] {
        &self.pixels[index * SIDE * SIDE..][..SIDE * SIDE]
    }

    /// Label of the digit `index`, 0 to 9.
    ///
    /// # Panics
    /// If there is no such digit.
    #[must_use]
    pub fn label(&self, index: usize) -> u8 {
        self.labels[index]
    }

    /// The first `n` digits, or all if there are fewer.
    #[must_use]
    pub fn first(&self, n: usize) -> Self {
        self.slice(0, n.min(self.len()))
    }

    fn slice(&self, start: usize, end: usize) -> Self {
        Self {
            pixels: self.pixels[start * SIDE * SIDE..end * SIDE * SIDE].to_vec(),
            labels: self.labels[start..end].to_vec(),
        }
    }
}
