//! Reading and writing of elements by index.

use candle_core::{DType, Tensor};

use super::embed::{index, integers, rows};
use super::node::element_count;
use crate::told::{Form, told};
use crate::{Axis, Dims, Error, Result, check};

/// The slices of an axis at `indices`; with `batch_dims`, the indices of that many leading axes are separate
/// batches.
///
/// # Shapes
/// - `inp`: `(B.., A.., n, D..)`, `n` on `axis`
/// - `indices`: `(B.., I..)`, of an integer type
/// - output: `(B.., A.., I.., D..)`
///
/// # Errors
/// [`Error::InvalidArgument`] if there is no such axis, it is one of the first `batch_dims`, the sizes of these
/// differ between both, or an index is not below `n`.
///
/// # Source
/// NNabla `F.gather`.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// use layerfn::functions::gather;
/// let x = Tensor::new(&[[1f32, 2., 3.], [4., 5., 6.]], &Device::Cpu)?;
/// let y = gather(&x, &Tensor::new(&[2u32, 0], &Device::Cpu)?, 1, 0)?;
/// assert_eq!(y.to_vec2::<f32>()?, [[3., 1.], [6., 4.]]);
/// let y = gather(&x, &Tensor::new(&[[2u32], [0]], &Device::Cpu)?, 1, 1)?;
/// assert_eq!(y.to_vec2::<f32>()?, [[3.], [4.]]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn gather(inp: &Tensor, indices: &Tensor, axis: impl Into<Axis>, batch_dims: usize) -> Result<Tensor> {
    check::float("inp", inp)?;
    let dims = inp.dims();
    let axis = axis.into().resolve("axis", dims)?;
    told(
        || Form::new("Gather", &[inp, indices]).with("axis", axis).with("batch_dims", batch_dims),
        || {
            if batch_dims > axis {
                return Err(Error::invalid(
                    "batch_dims",
                    format!("must be at most {axis}, the axis"),
                    batch_dims,
                ));
            }
            let (batch, between) = dims[..axis].split_at(batch_dims);
            if indices.dims().get(..batch_dims) != Some(batch) {
                let reason =
                    format!("must have the sizes {batch:?} on the first axes (`batch_dims` is {batch_dims})");
                return Err(Error::invalid("indices", reason, indices.dims()));
            }
            let (n, inner, new) = (dims[axis], &dims[axis + 1..], &indices.dims()[batch_dims..]);
            let output = [&dims[..axis], new, inner].concat();
            check::tensor("indices", &output, inp.dtype())?;
            let per_batch = element_count(new)?;
            let between = element_count(between)?;
            let places = integers("indices", indices)?;
            check::memory::<usize>("indices", element_count(&output[..axis + new.len()])?)?;
            let mut table = Vec::new();
            if per_batch > 0 {
                for (batch, places) in places.chunks_exact(per_batch).enumerate() {
                    for plane in 0..between {
                        for &place in places {
                            table.push((batch * between + plane) * n + index("indices", place, n, "n")?);
                        }
                    }
                }
            }
            rows("gather", inp, element_count(&dims[..=axis])?, table, &output)
        },
    )
}

/// The elements or slices at tuples of indices.
///
/// # Shapes
/// - `inp`: `(n_1, .., n_m, D..)`
/// - `indices`: `(m, I..)`, of an integer type; the first axis has one index for each of the first `m` axes of
///   `inp`
/// - output: `(I.., D..)`
///
/// # Errors
/// [`Error::InvalidArgument`] if `inp` has fewer than `m` axes, or an index is not below the size of its axis.
///
/// # Source
/// NNabla `F.gather_nd`.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// let x = Tensor::new(&[[1f32, 2., 3.], [4., 5., 6.]], &Device::Cpu)?;
/// let y = layerfn::functions::gather_nd(&x, &Tensor::new(&[[1u32, 0], [0, 2]], &Device::Cpu)?)?;
/// assert_eq!(y.to_vec1::<f32>()?, [4., 3.]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn gather_nd(inp: &Tensor, indices: &Tensor) -> Result<Tensor> {
    told(
        || Form::new("GatherNd", &[inp, indices]),
        || {
            check::float("inp", inp)?;
            let tuples = Tuples::new(inp.dims(), indices)?;
            let output = [&indices.dims()[1..], &inp.dims()[tuples.n_axes..]].concat();
            check::tensor("indices", &output, inp.dtype())?;
            rows("gather_nd", inp, tuples.n_rows, tuples.rows()?, &output)
        },
    )
}

/// Zeros of the sizes `shape`, into which the elements or slices of `inp` are written at tuples of indices: the
/// transpose of [`gather_nd`]. If several have the same indices, `add` says whether they are added up;
/// otherwise the last one remains.
///
/// # Shapes
/// - `inp`: `(I.., D..)`
/// - `indices`: `(m, I..)`, of an integer type
/// - output: `(n_1, .., n_m, D..)`, which is `shape`
///
/// # Errors
/// [`Error::InvalidArgument`] if the shapes do not fit together, or an index is not below the size of its axis.
///
/// # Source
/// NNabla `F.scatter_nd`. Here, an overwritten element gets no gradient; there, it gets the gradient of the
/// element that replaces it. To write into an existing tensor, add the two.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// use layerfn::functions::scatter_nd;
/// let x = Tensor::new(&[9f32, 10., 11.], &Device::Cpu)?;
/// let indices = Tensor::new(&[[3u32, 1, 3]], &Device::Cpu)?;
/// assert_eq!(scatter_nd(&x, &indices, 5, true)?.to_vec1::<f32>()?, [0., 10., 0., 20., 0.]);
/// assert_eq!(scatter_nd(&x, &indices, 5, false)?.to_vec1::<f32>()?, [0., 10., 0., 11., 0.]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn scatter_nd(inp: &Tensor, indices: &Tensor, shape: impl Into<Dims>, add: bool) -> Result<Tensor> {
    check::float("inp", inp)?;
    let shape = shape.into();
    let tuples = Tuples::new(&shape, indices)?;
    let expected = [&indices.dims()[1..], &shape[tuples.n_axes..]].concat();
    if inp.dims() != expected {
        let reason = format!("must have shape {expected:?} for these `indices` and this `shape`");
        return Err(Error::invalid("inp", reason, inp.dims()));
    }
    check::tensor("shape", &shape, inp.dtype())?;
    let rows = tuples.rows()?;
    check::memory::<usize>("shape", tuples.n_rows)?;
    super::embed::placed("scatter_nd", inp, tuples.n_rows, rows, add, &shape)
}

/// Tuples of indices into the first axes of a tensor.
struct Tuples<'a> {
    indices: &'a Tensor,
    /// Sizes of the tensor.
    dims: &'a [usize],
    n_axes: usize,
    /// How many slices there are.
    n_rows: usize,
}

impl<'a> Tuples<'a> {
    fn new(dims: &'a [usize], indices: &'a Tensor) -> Result<Self> {
        let n_axes =
            indices.dims().first().copied().filter(|n_axes| *n_axes <= dims.len()).ok_or_else(|| {
                let reason =
                    format!("must have a first axis of at most {}, an entry an axis of {dims:?}", dims.len());
                Error::invalid("indices", reason, indices.dims())
            })?;
        Ok(Self { indices, dims, n_axes, n_rows: element_count(&dims[..n_axes])? })
    }

    /// The index of the slice that each tuple refers to.
    fn rows(&self) -> Result<Vec<usize>> {
        let n = element_count(&self.indices.dims()[1..])?;
        check::memory::<usize>("indices", n)?;
        let mut rows = vec![0; n];
        let entries = integers("indices", self.indices)?;
        for (axis, &size) in self.dims[..self.n_axes].iter().enumerate() {
            for (row, entry) in rows.iter_mut().zip(&entries[axis * n..]) {
                *row = *row * size + index("indices", *entry, size, "n")?;
            }
        }
        Ok(rows)
    }
}

/// Zeros of type `f32` with a one at the position given by the last axis of `inp`, which has an index for each
/// size in `shape`.
///
/// # Shapes
/// - `inp`: `(N.., d)`, of an integer type; `d` is the number of sizes in `shape`
/// - output: `(N.., shape..)`
///
/// # Errors
/// [`Error::InvalidArgument`] if the last axis does not have `d` entries, or an index is not below its size.
///
/// # Source
/// NNabla `F.one_hot`, which accesses memory out of bounds if an index is out of range.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// let labels = Tensor::new(&[[2u32], [0]], &Device::Cpu)?;
/// let y = layerfn::functions::one_hot(&labels, 3)?;
/// assert_eq!(y.to_vec2::<f32>()?, [[0., 0., 1.], [1., 0., 0.]]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn one_hot(inp: &Tensor, shape: impl Into<Dims>) -> Result<Tensor> {
    let shape = shape.into();
    told(
        || Form::new("OneHot", &[inp]).with("shape", &shape[..]),
        || {
            let samples = match inp.dims().split_last() {
                Some((n, samples)) if *n == shape.len() => samples,
                _ => {
                    let reason = format!(
                        "must have a last axis of {}, an index for each size in `shape`",
                        shape.len()
                    );
                    return Err(Error::invalid("inp", reason, inp.dims()));
                }
            };
            let dims = [samples, &shape].concat();
            let n = check::tensor("shape", &dims, DType::F32)?;
            let width = element_count(&shape)?;
            let entries = integers("inp", inp)?;
            let mut elements = vec![0f32; n];
            if !shape.is_empty() && n > 0 {
                for (row, tuple) in elements.chunks_exact_mut(width).zip(entries.chunks_exact(shape.len())) {
                    let mut place = 0;
                    for (entry, size) in tuple.iter().zip(shape.iter()) {
                        place = place * size + index("inp", *entry, *size, "shape")?;
                    }
                    row[place] = 1.0;
                }
            } else {
                elements.fill(1.0); // there is one place for each sample
            }
            Ok(Tensor::from_vec(elements, dims, inp.device())?)
        },
    )
}
