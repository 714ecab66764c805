//! Argument types for sizes: [`Dims`] for a shape, [`PerAxis`] for one number per spatial axis, [`Axis`] and [`Axes`] for
//! axes.

use std::ops::RangeFull;

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
    /// Product of the sizes: the number of elements of a tensor of this shape, or `usize::MAX` on overflow. A
    /// call that tries to make such a tensor returns an error.
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
    /// The numbers for `n_axes` axes; errors call the value `argument`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there are not `n_axes` numbers, or there is no memory for so many.
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

/// An axis of a tensor, counted from 0 at the front or from −1 at the back.
///
/// ```
/// use layerfn::Axis;
/// assert_eq!(Axis::from(1).resolve("channel_axis", &[8, 3, 5])?, 1);
/// assert_eq!(Axis::from(-1).resolve("channel_axis", &[8, 3, 5])?, 2);
/// let error = Axis::from(-4).resolve("channel_axis", &[8, 3, 5]).unwrap_err();
/// assert_eq!(error.to_string(), "`channel_axis` must be an axis of [8, 3, 5], -3 to 2, got -4");
/// # Ok::<(), layerfn::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Axis(i128);

impl Axis {
    /// The axis of a tensor with sizes `dims`, counted from the front; errors call the value `argument`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there is no such axis.
    pub fn resolve(self, argument: &'static str, dims: &[usize]) -> Result<usize> {
        self.position(dims).filter(|&axis| axis < dims.len()).ok_or_else(|| {
            let n = dims.len() as i128;
            let reason = match n {
                0 => "must be an axis, and a number has none".to_owned(),
                _ => format!("must be an axis of {dims:?}, {} to {}", -n, n - 1),
            };
            Error::invalid(argument, reason, self)
        })
    }

    /// The number of axes before this one, as for [`resolve`](Self::resolve); if it equals the rank, that is
    /// all of them.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there is no such axis and it is not the rank.
    ///
    /// # Example
    /// ```
    /// use layerfn::Axis;
    /// assert_eq!(Axis::from(3).split("base_axis", &[8, 3, 5])?, 3);
    /// assert_eq!(Axis::from(-2).split("base_axis", &[8, 3, 5])?, 1);
    /// # Ok::<(), layerfn::Error>(())
    /// ```
    pub fn split(self, argument: &'static str, dims: &[usize]) -> Result<usize> {
        self.position(dims).ok_or_else(|| {
            let reason = match self.0 {
                0.. => format!("must be at most the rank of the input {dims:?}"),
                _ => format!("must be at least -{} for the input {dims:?}", dims.len()),
            };
            Error::invalid(argument, reason, self)
        })
    }

    /// As [`split`](Self::split), but leaves values that are too large to later checks with better messages.
    pub(crate) fn position_from_front(self, argument: &'static str, dims: &[usize]) -> Result<usize> {
        if self.0 < 0 {
            self.split(argument, dims)
        } else {
            Ok(usize::try_from(self.0).unwrap_or(usize::MAX))
        }
    }

    /// A number from 0 to the rank.
    fn position(self, dims: &[usize]) -> Option<usize> {
        let n = dims.len() as i128;
        let position = if self.0 < 0 { self.0 + n } else { self.0 };
        (0..=n).contains(&position).then_some(position as usize)
    }
}

impl std::fmt::Debug for Axis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::fmt::Display for Axis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Different axes of a tensor, each counted as an [`Axis`]: from one number, a tuple, an array, a slice or a vector; or all of
/// them, from `..`.
///
/// ```
/// use layerfn::Axes;
/// assert_eq!(Axes::from(..).resolve("axes", &[8, 3, 5])?, [0, 1, 2]);
/// assert_eq!(Axes::from(1).resolve("axes", &[8, 3, 5])?, [1]);
/// assert_eq!(Axes::from((0, -1)).resolve("axes", &[8, 3, 5])?, [0, 2]);
/// let error = Axes::from([1, -2]).resolve("axes", &[8, 3, 5]).unwrap_err();
/// assert_eq!(error.to_string(), "`axes` must be different axes of the input [8, 3, 5], got [1, -2]");
/// # Ok::<(), layerfn::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Axes(Option<Vec<Axis>>);

impl Axes {
    /// The axes of a tensor with sizes `dims`, counted from the front and in the given order; errors call the
    /// value `argument`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if one of them does not exist or is named twice.
    pub fn resolve(&self, argument: &'static str, dims: &[usize]) -> Result<Vec<usize>> {
        let Some(given) = &self.0 else { return Ok((0..dims.len()).collect()) };
        let mut axes = Vec::with_capacity(given.len());
        for axis in given {
            match axis.position(dims) {
                Some(axis) if axis < dims.len() && !axes.contains(&axis) => axes.push(axis),
                _ => {
                    let reason = format!("must be different axes of the input {dims:?}");
                    return Err(Error::invalid(argument, reason, self));
                }
            }
        }
        Ok(axes)
    }
}

impl std::fmt::Debug for Axes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Some(axes) => f.debug_list().entries(axes).finish(),
            None => f.write_str(".."),
        }
    }
}

impl std::fmt::Display for Axes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?}")
    }
}

macro_rules! from_integers {
    ($($integer:ty)+) => {
        $(impl From<$integer> for Axis {
            fn from(axis: $integer) -> Self {
                Self(axis as i128)
            }
        }
        impl From<$integer> for Axes {
            fn from(axis: $integer) -> Self {
                Axis::from(axis).into()
            }
        })+
    };
}

from_integers!(usize i32 i64 isize);

impl From<Axis> for Axes {
    fn from(axis: Axis) -> Self {
        Self(Some(vec![axis]))
    }
}

impl From<RangeFull> for Axes {
    fn from(_: RangeFull) -> Self {
        Self(None)
    }
}

impl From<&Axes> for Axes {
    fn from(axes: &Axes) -> Self {
        axes.clone()
    }
}

impl<A: Into<Axis>> From<Vec<A>> for Axes {
    fn from(axes: Vec<A>) -> Self {
        Self(Some(axes.into_iter().map(Into::into).collect()))
    }
}

impl<A: Into<Axis> + Copy> From<&[A]> for Axes {
    fn from(axes: &[A]) -> Self {
        axes.to_vec().into()
    }
}

impl<A: Into<Axis>, const N: usize> From<[A; N]> for Axes {
    fn from(axes: [A; N]) -> Self {
        Self(Some(axes.map(Into::into).into()))
    }
}

macro_rules! axes_from_tuples {
    ($(($($axis:ident: $A:ident),*))+) => {
        $(impl<$($A: Into<Axis>),*> From<($($A,)*)> for Axes {
            fn from(($($axis,)*): ($($A,)*)) -> Self {
                Self(Some(vec![$($axis.into()),*]))
            }
        })+
    };
}

axes_from_tuples! { () (a: A) (a: A, b: B) (a: A, b: B, c: C) (a: A, b: B, c: C, d: D) }

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
