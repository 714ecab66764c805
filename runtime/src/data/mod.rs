//! Data for training: examples, batches of them, and random changes of images.
//!
//! A [`Dataset`] has examples, each of which consists of some tensors. A [`Loader`] makes batches of them: in
//! an order that a seed determines, for a number of epochs, prepared by threads ahead of the step. All random
//! numbers follow from the seed, the epoch and the index of the example. So the batches are the same for any
//! number of threads, and a training that resumes at a [`Position`] gets the same batches as one that was not
//! interrupted.
//!
//! ```
//! use layerfn::data::{Arrays, Augment, Loader};
//! use layerfn::prelude::*;
//!
//! let images = Tensor::zeros((100, 1, 28, 28), DType::F32, &Device::Cpu)?;
//! let labels = Tensor::zeros(100, DType::U32, &Device::Cpu)?;
//! let digits = Arrays::new([images, labels])?;
//!
//! let loader = Loader::new(digits, 32).shuffle(1).augment(0, Augment::new().shift(2).rotate(10.0)).epochs(3);
//! let mut seen = 0;
//! for batch in loader.batches()? {
//!     let batch = batch?;
//!     let [images, labels] = batch.fields()?;
//!     assert_eq!(images.dim(0)?, labels.dim(0)?);
//!     seen += batch.len();
//! }
//! assert_eq!(seen, 300);
//! # Ok::<(), layerfn::Error>(())
//! ```
//!
//! | source | |
//! | --- | --- |
//! | tensors, slices | [`Arrays`] |
//! | IDX files, as of MNIST | [`read_idx`] |
//! | `.npy` and `.npz` of NumPy | [`read_npy`], [`read_npz`] |
//! | CSV | [`read_csv`] |
//! | folders of images (feature `images`) | `ImageFolder` |
//! | anything else | your own [`Dataset`] |

mod arrays;
mod augment;
mod batches;
mod csv;
mod idx;
#[cfg(feature = "images")]
mod images;
mod loader;
mod numpy;
mod warp;

use std::sync::Arc;

use candle_core::Tensor;

pub use arrays::{Arrays, Subset};
pub use augment::{Augment, mixup};
pub use batches::{Batch, Batches, Position};
pub use csv::{Table, read_csv};
pub use idx::{read_idx, read_idx_from};
#[cfg(feature = "images")]
pub use images::ImageFolder;
pub use loader::Loader;
pub use numpy::{read_npy, read_npz};

use crate::Result;

/// Examples with indices. An example has one tensor for each field, such as an image and its label.
///
/// ```
/// use layerfn::data::Dataset;
/// use layerfn::prelude::*;
///
/// /// Numbers and their squares.
/// struct Squares;
///
/// impl Dataset for Squares {
///     fn len(&self) -> usize {
///         10
///     }
///
///     fn example(&self, index: usize) -> Result<Vec<Tensor>> {
///         let x = index as f32;
///         Ok(vec![Tensor::new(&[x], &Device::Cpu)?, Tensor::new(&[x * x], &Device::Cpu)?])
///     }
/// }
///
/// assert_eq!(Squares.batch(&[2, 3])?[1].to_vec2::<f32>()?, [[4.0], [9.0]]);
/// # Ok::<(), Error>(())
/// ```
pub trait Dataset: Send + Sync {
    /// The number of examples.
    fn len(&self) -> usize;

    /// Whether there are no examples.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The example `index`, below [`len`](Self::len). The same index must give the same example.
    ///
    /// # Errors
    /// If it can't be read.
    fn example(&self, index: usize) -> Result<Vec<Tensor>>;

    /// Several examples at once: for each field, a tensor with an additional first axis.
    ///
    /// # Errors
    /// If an example can't be read, or shapes or types differ between examples.
    fn batch(&self, indices: &[usize]) -> Result<Vec<Tensor>> {
        if indices.is_empty() && !self.is_empty() {
            return self.example(0)?.iter().map(none_like).collect();
        }
        let examples = indices.iter().map(|&index| self.example(index)).collect::<Result<Vec<_>>>()?;
        let n_fields = examples.first().map_or(0, Vec::len);
        (0..n_fields)
            .map(|field| {
                let column: Vec<&Tensor> = examples.iter().filter_map(|example| example.get(field)).collect();
                Ok(Tensor::stack(&column, 0)?)
            })
            .collect()
    }
}

impl<D: Dataset + ?Sized> Dataset for Arc<D> {
    fn len(&self) -> usize {
        (**self).len()
    }

    fn example(&self, index: usize) -> Result<Vec<Tensor>> {
        (**self).example(index)
    }

    fn batch(&self, indices: &[usize]) -> Result<Vec<Tensor>> {
        (**self).batch(indices)
    }
}

/// An empty batch of examples like this one.
fn none_like(field: &Tensor) -> Result<Tensor> {
    let shape: Vec<usize> = [0].into_iter().chain(field.dims().iter().copied()).collect();
    Ok(Tensor::zeros(shape, field.dtype(), field.device())?)
}
