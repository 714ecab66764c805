//! MNIST: handwritten digits, 10,000 of them built in.

use std::path::Path;

use candle_core::{DType, Tensor};
use layerfn::data::{Arrays, Dataset, read_idx, read_idx_from};
use layerfn::{Error, Result};

/// Rows and columns of an image.
pub const SIDE: usize = 28;
/// Of the 10,000 digits built in, so many are there to train on; the others are held back.
const BUILT_IN_TRAIN: usize = 8_000;

static IMAGES: &[u8] = include_bytes!("../data/mnist/t10k-images-idx3-ubyte.gz");
static LABELS: &[u8] = include_bytes!("../data/mnist/t10k-labels-idx1-ubyte.gz");

/// Digits to train on, and others to test with: images of shape (n, 1, 28, 28), ink 1 and paper 0, and labels of type `u32`.
#[derive(Clone, Debug)]
pub struct Mnist {
    /// To train on.
    pub train: Arrays,
    /// Never seen in training.
    pub test: Arrays,
}

impl Mnist {
    /// The digits built into the program: 8,000 to train on, 2,000 to test with.
    ///
    /// # Errors
    /// None, as long as the files in `data/mnist` are those of the repository.
    pub fn built_in() -> Result<Self> {
        let images = read_idx_from("data/mnist/t10k-images-idx3-ubyte.gz", IMAGES)?;
        let labels = read_idx_from("data/mnist/t10k-labels-idx1-ubyte.gz", LABELS)?;
        let (train, test) = digits("the digits built in", &images, &labels)?.split_at(BUILT_IN_TRAIN)?;
        Ok(Self { train, test })
    }

    /// The full set from four IDX files in `dir`, plain or with `.gz`: `train-images-idx3-ubyte`,
    /// `train-labels-idx1-ubyte`, `t10k-images-idx3-ubyte` and `t10k-labels-idx1-ubyte`.
    ///
    /// # Errors
    /// If a file is missing, damaged or something else.
    pub fn from_dir(dir: &Path) -> Result<Self> {
        let part = |name: &str| {
            let images = read_idx(dir.join(format!("{name}-images-idx3-ubyte")))?;
            let labels = read_idx(dir.join(format!("{name}-labels-idx1-ubyte")))?;
            digits(&dir.join(name).display().to_string(), &images, &labels)
        };
        Ok(Self { train: part("train")?, test: part("t10k")? })
    }

    /// A small part of both, for a run that shows that everything works.
    ///
    /// # Errors
    /// If there are fewer digits.
    pub fn smoke(&self) -> Result<Self> {
        Ok(Self { train: self.train.slice(0..640)?, test: self.test.slice(0..200)? })
    }
}

/// Images and labels that belong together.
fn digits(name: &str, images: &Tensor, labels: &Tensor) -> Result<Arrays> {
    let refused = |reason: String| Err(Error::Checkpoint { file: name.to_owned(), reason });
    let n = match *images.dims() {
        [n, SIDE, SIDE] if images.dtype() == DType::U8 => n,
        _ => {
            return refused(format!("has images of shape {:?}, expected (n, {SIDE}, {SIDE})", images.dims()));
        }
    };
    if labels.dims() != [n] || labels.dtype() != DType::U8 {
        return refused(format!(
            "has {n} images and labels of shape {:?}, expected one label an image",
            labels.dims()
        ));
    }
    if let Some(label) = labels.to_vec1::<u8>()?.iter().find(|&&label| label > 9) {
        return refused(format!("has the label {label}, expected 0 to 9"));
    }
    let images = (images.to_dtype(DType::F32)? / 255.0)?.unsqueeze(1)?;
    Arrays::new([images, labels.to_dtype(DType::U32)?])
}

/// The labels of a set of digits.
///
/// # Errors
/// If there are other fields.
pub fn labels(digits: &Arrays) -> Result<Vec<u32>> {
    match digits.fields() {
        [_, labels] => Ok(labels.to_vec1()?),
        fields => Err(Error::invalid("digits", "must be images and labels", fields.len())),
    }
}

/// The pixels of one digit, row after row, 0 (paper) to 255 (ink).
///
/// # Errors
/// If there is no such digit.
pub fn pixels(digits: &Arrays, index: usize) -> Result<Vec<u8>> {
    let image = digits.example(index)?.swap_remove(0).flatten_all()?.to_vec1::<f32>()?;
    Ok(image.into_iter().map(|pixel| (255.0 * pixel).round() as u8).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_digits_are_the_test_part_of_mnist() {
        let mnist = Mnist::built_in().unwrap();
        assert_eq!((mnist.train.len(), mnist.test.len()), (8_000, 2_000));
        assert_eq!(labels(&mnist.train).unwrap()[..10], [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]);
        assert_eq!(labels(&mnist.test).unwrap()[1994..], [1, 2, 3, 4, 5, 6]);
        let ink = |digits: &Arrays| -> u64 {
            (0..digits.len()).flat_map(|n| pixels(digits, n).unwrap()).map(u64::from).sum()
        };
        assert_eq!(ink(&mnist.train) + ink(&mnist.test), 264_923_200);
    }

    #[test]
    fn files_that_do_not_belong_together_are_refused() {
        let tensor = |dims: &[usize]| Tensor::zeros(dims, DType::U8, &candle_core::Device::Cpu).unwrap();
        let error = |images: &[usize], labels: &[usize]| {
            digits("x", &tensor(images), &tensor(labels)).unwrap_err().to_string()
        };
        assert_eq!(error(&[2, 28, 27], &[2]), "`x`: has images of shape [2, 28, 27], expected (n, 28, 28)");
        assert!(
            error(&[2, 28, 28], &[3])
                .contains("has 2 images and labels of shape [3], expected one label an image")
        );
        let labels =
            (tensor(&[2]).to_dtype(DType::F32).unwrap() + 10.0).unwrap().to_dtype(DType::U8).unwrap();
        let wrong = digits("x", &tensor(&[2, 28, 28]), &labels).unwrap_err().to_string();
        assert_eq!(wrong, "`x`: has the label 10, expected 0 to 9");
        let error = Mnist::from_dir(Path::new("no/such/place")).unwrap_err().to_string();
        assert!(error.contains("no/such/place/train-images-idx3-ubyte"), "{error}");
    }
}
