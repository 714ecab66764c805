//! Products of batches of matrices, and their diagonals.

use candle_core::Tensor;

use super::arrange::broadcast;
use super::composed;
use super::graph::{Gradients, attach, tracked};
use super::node::{Element, compute, element_count, for_float, in_type, widened, without_kernels};
use super::places::taken;
use crate::kernels::places::{Along, HOLE, Places};
use crate::kernels::{Matrices, products};
use crate::told::{Form, told};
use crate::{Error, Result, check};

/// Multiplies the matrices on the last two axes, which are transposed first if asked for. The axes before them
/// are the batch, which is broadcast as in [`broadcast`].
///
/// # Shapes
/// - `a`: `(N.., m, k)`, with `transpose_a` `(N.., k, m)`
/// - `b`: `(N.., k, n)`, with `transpose_b` `(N.., n, k)`
/// - output: `(N.., m, n)`
///
/// # Errors
/// [`Error::InvalidArgument`] if a tensor has fewer than two axes, or the sizes do not fit together.
///
/// # Source
/// NNabla `F.batch_matmul`.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// let a = Tensor::new(&[[[1f32, 2.]], [[3., 4.]]], &Device::Cpu)?;
/// let b = Tensor::new(&[[1f32, 1.]], &Device::Cpu)?;
/// let y = layerfn::functions::batch_matmul(&a, &b, false, true)?;
/// assert_eq!(y.to_vec3::<f32>()?, [[[3.]], [[7.]]]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn batch_matmul(a: &Tensor, b: &Tensor, transpose_a: bool, transpose_b: bool) -> Result<Tensor> {
    told(
        || {
            Form::new("BatchMatmul", &[a, b])
                .with("transpose_a", transpose_a)
                .with("transpose_b", transpose_b)
        },
        || {
            let (a_batch, [m, k]) = matrices("a", a, transpose_a)?;
            let (b_batch, [k_of_b, n]) = matrices("b", b, transpose_b)?;
            if k != k_of_b {
                return Err(Error::invalid("b", format!("must have {k} rows as `a` has columns"), b.dims()));
            }
            let batch = common(a_batch, b_batch).ok_or_else(|| {
                Error::invalid(
                    "b",
                    format!("must have axes of a batch that fit those of `a`, {a_batch:?}"),
                    b.dims(),
                )
            })?;
            let dims = [&*batch, &[m, n]].concat();
            check::tensor("b", &dims, a.dtype())?;
            // A single matrix on the right multiplies all rows on the left at once.
            if !transpose_a && b_batch.iter().all(|n| *n == 1) && batch == a_batch {
                let sizes = Sizes {
                    n: 1,
                    m: check::count("a", &[&*batch, &[m]].concat())?,
                    k,
                    of_b: n,
                    transpose_a,
                    transpose_b,
                };
                return sizes.product(a, b, &dims);
            }
            let repeated = |x: &Tensor| {
                let dims = [&*batch, &x.dims()[x.rank() - 2..]].concat();
                if x.dims() == dims { Ok(x.clone()) } else { broadcast(x, dims) }
            };
            let sizes = Sizes { n: element_count(&batch)?, m, k, of_b: n, transpose_a, transpose_b };
            sizes.product(&repeated(a)?, &repeated(b)?, &dims)
        },
    )
}

/// The axes of the batch, and rows and columns of the matrices.
fn matrices<'a>(argument: &'static str, x: &'a Tensor, transpose: bool) -> Result<(&'a [usize], [usize; 2])> {
    match x.dims() {
        [batch @ .., rows, cols] => Ok((batch, if transpose { [*cols, *rows] } else { [*rows, *cols] })),
        other => Err(Error::invalid(argument, "must have at least two axes", other)),
    }
}

/// The sizes that both can be broadcast to.
fn common(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let size =
        |sizes: &[usize], axis: usize| (axis + sizes.len()).checked_sub(rank).map_or(1, |axis| sizes[axis]);
    let sizes = (0..rank).map(|axis| match (size(a, axis), size(b, axis)) {
        (a, b) if a == b || b == 1 => Some(a),
        (1, b) => Some(b),
        _ => None,
    });
    sizes.collect()
}

/// `n` products of `(m, k)` and `(k, of_b)`.
#[derive(Clone, Copy)]
struct Sizes {
    n: usize,
    m: usize,
    k: usize,
    of_b: usize,
    transpose_a: bool,
    transpose_b: bool,
}

impl Sizes {
    fn product(self, a: &Tensor, b: &Tensor, dims: &[usize]) -> Result<Tensor> {
        let compose = |t: &[Tensor]| {
            let [rows, cols] = if self.transpose_a { [self.k, self.m] } else { [self.m, self.k] };
            let a = t[0].reshape((self.n, rows, cols))?;
            let [rows, cols] = if self.transpose_b { [self.of_b, self.k] } else { [self.k, self.of_b] };
            let b = t[1].reshape((self.n, rows, cols))?;
            Ok([composed::products(&a, &b, self.transpose_a, self.transpose_b)?.reshape(dims)?])
        };
        if let Some([y]) = without_kernels("batch_matmul", &[a, b], compose)? {
            return Ok(y);
        }
        let dtype = a.dtype();
        let [a, b] = widened("batch_matmul", [a, b])?;
        let y = for_float!(a.dtype(), T => {
            let y = compute::<T, 2>(dims, [&a, &b], |[a, b], y| products(self.a(a), self.b(b), y))?;
            let (kept, needed) = ([Tensor::clone(&a), Tensor::clone(&b)], tracked([&a, &b]));
            attach("batch_matmul", [&a, &b], y, move |dy| self.gradients::<T>(kept.each_ref(), dy, needed))
        })?;
        in_type(y, dtype)
    }

    fn a<T>(self, data: &[T]) -> Matrices<'_, T> {
        let [rows, cols] = if self.transpose_a { [self.k, self.m] } else { [self.m, self.k] };
        Matrices::new(data, rows, cols).t_if(self.transpose_a)
    }

    fn b<T>(self, data: &[T]) -> Matrices<'_, T> {
        let [rows, cols] = if self.transpose_b { [self.of_b, self.k] } else { [self.k, self.of_b] };
        Matrices::new(data, rows, cols).t_if(self.transpose_b)
    }

    /// The products, or their gradients.
    fn y<T>(self, data: &[T]) -> Matrices<'_, T> {
        Matrices::new(data, self.m, self.of_b)
    }

    fn gradients<T: Element>(self, [a, b]: [&Tensor; 2], dy: &Tensor, needed: [bool; 2]) -> Gradients<2> {
        let mut gradients = [None, None];
        if needed[0] {
            let da = compute::<T, 2>(a.dims(), [b, dy], |[b, dy], da| match self.transpose_a {
                false => products(self.y(dy), self.b(b).t(), da),
                true => products(self.b(b), self.y(dy).t(), da),
            })?;
            gradients[0] = Some(da.into_tensor()?);
        }
        if needed[1] {
            let db = compute::<T, 2>(b.dims(), [a, dy], |[a, dy], db| match self.transpose_b {
                false => products(self.a(a).t(), self.y(dy), db),
                true => products(self.y(dy).t(), self.a(a), db),
            })?;
            gradients[1] = Some(db.into_tensor()?);
        }
        Ok(gradients)
    }
}

/// Matrices with the elements of the last axis on their diagonals and zeros elsewhere.
///
/// # Errors
/// [`Error::InvalidArgument`] if the input has no axis, or the result needs more memory than there is.
///
/// # Source
/// NNabla `F.matrix_diag`.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// let x = Tensor::new(&[1f32, 2.], &Device::Cpu)?;
/// assert_eq!(layerfn::functions::matrix_diag(&x)?.to_vec2::<f32>()?, [[1., 0.], [0., 2.]]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn matrix_diag(inp: &Tensor) -> Result<Tensor> {
    told(
        || Form::new("MatrixDiag", &[inp]),
        || {
            let Some((&n, before)) = inp.dims().split_last() else {
                return Err(Error::invalid("inp", "must have at least one axis", inp.dims()));
            };
            let dims = [inp.dims(), &[n]].concat();
            check::tensor("inp", &dims, inp.dtype())?;
            let len = check::count("inp", &[n, n])?;
            check::memory::<usize>("inp", len)?;
            let places = (0..len).map(|i| if i % (n + 1) == 0 { i / (n + 1) } else { HOLE }).collect();
            let places =
                Places::in_order(vec![Along::all(element_count(before)?), Along::Table { n, places }]);
            taken("matrix_diag", inp, places, 0.0, &dims)
        },
    )
}

/// The diagonals of the matrices on the last two axes.
///
/// # Errors
/// [`Error::InvalidArgument`] if the input has fewer than two axes.
///
/// # Source
/// NNabla `F.matrix_diag_part`, which only supports square matrices.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// let x = Tensor::new(&[[1f32, 2.], [3., 4.]], &Device::Cpu)?;
/// assert_eq!(layerfn::functions::matrix_diag_part(&x)?.to_vec1::<f32>()?, [1., 4.]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn matrix_diag_part(inp: &Tensor) -> Result<Tensor> {
    told(
        || Form::new("MatrixDiagPart", &[inp]),
        || {
            let (batch, [rows, cols]) = matrices("inp", inp, false)?;
            let len = rows.min(cols);
            let n = check::count("inp", &[rows, cols])?;
            let step = if len > 1 { cols as isize + 1 } else { 1 };
            let diagonal = Along::Steps { n, start: 0, step, len };
            let places = Places::in_order(vec![Along::all(element_count(batch)?), diagonal]);
            taken("matrix_diag_part", inp, places, 0.0, &[batch, &[len]].concat())
        },
    )
}
