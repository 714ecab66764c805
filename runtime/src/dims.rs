//! Argument types for sizes: [`Dims`] for a shape, [`PerAxis`] for one number per spatial axis.

use crate::{Error, Result, check};

/// A list of sizes, from an integer, a tuple, an array, a slice or a vector.
///
/// ```
/// use layerfn::Dims;
/// assert_eq!(Dims::from(5).as_ref(), [5]);
/// assert_eq!(Dims::from((2, 3)).as_ref(), [2, 3]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Dims(Vec<usize>);

impl Dims {
    /// Product of the sizes: the number of elements of a tensor of this shape, `usize::MAX` where that is too small to
    /// hold it. No such tensor can be made; the call that tries is an error.
    ///
    /// ```
    /// use layerfn::Dims;
    /// assert_eq!(Dims::from((2, 3)).elem_count(), 6);
    /// assert_eq!(Dims::from((usize::MAX, 2)).elem_count(), usize::MAX);
    /// ```
    #[must_use]
    pub fn elem_count(&self) -> usize {
        if self.0.contains(&0) { 0 } else { self.0.iter().fold(1, |n, &size| n.saturating_mul(size)) }
    }
}

impl std::ops::Deref for Dims {
    type Target = [usize];

    fn deref(&self) -> &[usize] {
        &self.0
    }
}

impl AsRef<[usize]> for Dims {
    fn as_ref(&self) -> &[usize] {
        &self.0
    }
}

impl From<usize> for Dims {
    fn from(size: usize) -> Self {
        Self(vec![size])
    }
}

/// One number for each spatial axis; a single integer stands for every axis.
///
/// ```
/// use layerfn::PerAxis;
/// assert_eq!(PerAxis::from(1).resolve("pad", 2)?, [1, 1]);
/// assert_eq!(PerAxis::from((2, 1)).resolve("stride", 2)?, [2, 1]);
/// let error = PerAxis::from([1]).resolve("pad", 2).unwrap_err();
/// assert_eq!(error.to_string(), "`pad` must be one integer or have one entry for each of the 2 spatial axes, got [1]");
/// # Ok::<(), layerfn::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PerAxis {
    /// The same number on every axis.
    Every(usize),
    /// A number for each axis, in order.
    Each(Vec<usize>),
}

impl PerAxis {
    /// The numbers for `n_axes` axes; `argument` is what the error calls the value.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the numbers given are not `n_axes` many, or there is no memory for so many.
    pub fn resolve(&self, argument: &'static str, n_axes: usize) -> Result<Vec<usize>> {
        match self {
            Self::Every(value) => {
                check::memory::<usize>(argument, n_axes)?;
                Ok(vec![*value; n_axes])
            }
            Self::Each(values) if values.len() == n_axes => Ok(values.clone()),
            Self::Each(values) => {
                let reason =
                    format!("must be one integer or have one entry for each of the {n_axes} spatial axes");
                Err(Error::invalid(argument, reason, values))
            }
        }
    }
}

impl From<usize> for PerAxis {
    fn from(value: usize) -> Self {
        Self::Every(value)
    }
}

macro_rules! from_lists {
    ($target:ty, $make:path) => {
        impl From<Vec<usize>> for $target {
            fn from(sizes: Vec<usize>) -> Self {
                $make(sizes)
            }
        }
        impl From<&[usize]> for $target {
            fn from(sizes: &[usize]) -> Self {
                $make(sizes.to_vec())
            }
        }
        impl From<&$target> for $target {
            fn from(sizes: &$target) -> Self {
                sizes.clone()
            }
        }
        impl<const N: usize> From<[usize; N]> for $target {
            fn from(sizes: [usize; N]) -> Self {
                $make(sizes.to_vec())
            }
        }
        impl From<()> for $target {
            fn from((): ()) -> Self {
                $make(Vec::new())
            }
        }
        impl From<(usize,)> for $target {
            fn from(sizes: (usize,)) -> Self {
                $make(vec![sizes.0])
            }
        }
        impl From<(usize, usize)> for $target {
            fn from(sizes: (usize, usize)) -> Self {
                $make(vec![sizes.0, sizes.1])
            }
        }
        impl From<(usize, usize, usize)> for $target {
            fn from(sizes: (usize, usize, usize)) -> Self {
                $make(vec![sizes.0, sizes.1, sizes.2])
            }
        }
        impl From<(usize, usize, usize, usize)> for $target {
            fn from(sizes: (usize, usize, usize, usize)) -> Self {
                $make(vec![sizes.0, sizes.1, sizes.2, sizes.3])
            }
        }
    };
}

from_lists!(Dims, Self);
from_lists!(PerAxis, Self::Each);
