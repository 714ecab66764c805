//! Examples in memory, and subsets of a dataset.

use std::ops::Range;

use candle_core::{Device, Tensor};

use super::Dataset;
use crate::{Error, Result};

/// Examples in memory: one tensor for each field, whose first axis is that of the examples.
///
/// ```
/// use layerfn::data::{Arrays, Dataset};
/// use layerfn::prelude::*;
///
/// let x = Tensor::new(&[[1f32, 2.], [3., 4.], [5., 6.]], &Device::Cpu)?;
/// let y = Tensor::new(&[0u32, 1, 1], &Device::Cpu)?;
/// let (train, test) = Arrays::new([x, y])?.split_at(2)?;
/// assert_eq!((train.len(), test.len()), (2, 1));
/// assert_eq!(test.example(0)?[0].to_vec1::<f32>()?, [5., 6.]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Arrays {
    fields: Vec<Tensor>,
    len: usize,
}

impl Arrays {
    /// # Errors
    /// [`Error::InvalidArgument`] if there is no field, a field has no axis, or the sizes of their first axes
    /// differ.
    pub fn new(fields: impl Into<Vec<Tensor>>) -> Result<Self> {
        let fields: Vec<Tensor> = fields.into();
        let sizes: Vec<Option<usize>> = fields.iter().map(|field| field.dims().first().copied()).collect();
        match sizes.first() {
            Some(&Some(len)) if sizes.iter().all(|&size| size == Some(len)) => {
                let fields = fields.iter().map(|field| field.detach().contiguous());
                Ok(Self { fields: fields.collect::<candle_core::Result<_>>()?, len })
            }
            _ => {
                let shapes: Vec<&[usize]> = fields.iter().map(Tensor::dims).collect();
                Err(Error::invalid("fields", "must be tensors whose first axes have one size", shapes))
            }
        }
    }

    /// The tensors, one for each field.
    #[must_use]
    pub fn fields(&self) -> &[Tensor] {
        &self.fields
    }

    /// Splits into the first `n` examples and the others; they share memory.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there are fewer than `n`.
    pub fn split_at(&self, n: usize) -> Result<(Self, Self)> {
        Ok((self.slice(0..n)?, self.slice(n..self.len)?))
    }

    /// The examples of a range; they share memory.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there are not so many.
    pub fn slice(&self, range: Range<usize>) -> Result<Self> {
        if range.start > range.end || range.end > self.len {
            let reason = format!("must be a range of the {} examples", self.len);
            return Err(Error::invalid("range", reason, range));
        }
        let fields = self.fields.iter().map(|field| field.narrow(0, range.start, range.len()));
        Ok(Self { fields: fields.collect::<candle_core::Result<_>>()?, len: range.len() })
    }
}

impl Dataset for Arrays {
    fn len(&self) -> usize {
        self.len
    }

    fn example(&self, index: usize) -> Result<Vec<Tensor>> {
        let fields = self.fields.iter().map(|field| field.get(index));
        Ok(fields.collect::<candle_core::Result<_>>()?)
    }

    fn batch(&self, indices: &[usize]) -> Result<Vec<Tensor>> {
        let numbers = indices.iter().map(|&index| index as i64).collect::<Vec<_>>();
        let numbers = Tensor::from_vec(numbers, indices.len(), &Device::Cpu)?;
        let rows = |field: &Tensor| field.index_select(&numbers.to_device(field.device())?, 0);
        Ok(self.fields.iter().map(rows).collect::<candle_core::Result<_>>()?)
    }
}

/// A subset of the examples of a dataset, given by their indices.
#[derive(Clone, Debug)]
pub struct Subset<D> {
    dataset: D,
    indices: Vec<usize>,
}

impl<D: Dataset> Subset<D> {
    /// # Errors
    /// [`Error::InvalidArgument`] if an index is out of range.
    pub fn new(dataset: D, indices: impl IntoIterator<Item = usize>) -> Result<Self> {
        let indices: Vec<usize> = indices.into_iter().collect();
        match indices.iter().find(|&&index| index >= dataset.len()) {
            None => Ok(Self { dataset, indices }),
            Some(index) => {
                let reason = format!("must be below {}, the number of examples", dataset.len());
                Err(Error::invalid("indices", reason, index))
            }
        }
    }
}

impl<D: Dataset> Dataset for Subset<D> {
    fn len(&self) -> usize {
        self.indices.len()
    }

    fn example(&self, index: usize) -> Result<Vec<Tensor>> {
        self.dataset.example(self.indices[index])
    }

    fn batch(&self, indices: &[usize]) -> Result<Vec<Tensor>> {
        let indices: Vec<usize> = indices.iter().map(|&index| self.indices[index]).collect();
        self.dataset.batch(&indices)
    }
}
