//! Joins of parallel branches.

use candle_core::Tensor;

use super::Stage;
use crate::fusion::{Fuses, is_same_function};
use crate::told::{Form, told};
use crate::{Error, Result, check, functions};

/// `add { a, b }`: the sum of branches of equal shape, with `relu` if that follows.
pub struct Add<const N: usize> {
    branches: [Tensor; N],
    relu_fused: bool,
}

/// `add { a, b }`
pub fn add<const N: usize>(branches: [Tensor; N]) -> Add<N> {
    Add { branches, relu_fused: false }
}

impl<const N: usize> Fuses for Add<N> {
    fn fuse<F>(&mut self, next: &F) -> bool {
        // With a single branch there is no addition.
        self.relu_fused = N > 1 && is_same_function(next, &functions::relu);
        self.relu_fused
    }
}

/// Different shapes are an [`Error::InvalidArgument`]: a branch that is broadcast by mistake would train, but
/// badly.
impl<const N: usize> Stage for Add<N> {
    type Output = Tensor;

    fn run(self) -> Result<Tensor> {
        let Self { branches, relu_fused } = self;
        if branches.iter().any(|branch| branch.dims() != branches[0].dims()) {
            return Err(shapes_differ("must have one shape to be added", &branches));
        }
        let mut n_left = N;
        reduce(branches, |a, b| {
            n_left -= 1;
            functions::add(&a, &b, relu_fused && n_left == 1)
        })
    }
}

/// `mul { a, b }`: the product; axes of size one are broadcast, as gates need it.
///
/// # Errors
/// [`Error::InvalidArgument`] if the shapes do not broadcast.
pub fn mul<const N: usize>(branches: [Tensor; N]) -> Result<Tensor> {
    reduce(branches, |a, b| {
        let Ok(shape) = a.shape().broadcast_shape_binary_op(b.shape(), "mul") else {
            return Err(shapes_differ("must have shapes that broadcast to be multiplied", &[a, b]));
        };
        check::tensor("branches", shape.dims(), a.dtype())?;
        told(|| Form::new("Mul2", &[&a, &b]), || Ok(a.broadcast_mul(&b)?))
    })
}

/// `concat(axis) { a, b }`
///
/// # Errors
/// [`Error::InvalidArgument`] if the shapes differ in another axis.
#[expect(clippy::needless_pass_by_value, reason = "called as the other joins are")]
pub fn concat<const N: usize>(axis: usize, branches: [Tensor; N]) -> Result<Tensor> {
    let rest = |branch: &Tensor| {
        let mut dims = branch.dims().to_vec();
        if axis < dims.len() {
            dims[axis] = 0;
        }
        dims
    };
    if axis >= branches[0].rank() {
        let reason = format!("must be below the rank {} of the branches", branches[0].rank());
        return Err(Error::invalid("axis", reason, axis));
    }
    if branches.iter().any(|branch| rest(branch) != rest(&branches[0])) {
        return Err(shapes_differ("may differ in the joined axis only", &branches));
    }
    let mut joined = branches[0].dims().to_vec();
    joined[axis] = branches.iter().map(|branch| branch.dims()[axis]).fold(0, usize::saturating_add);
    check::tensor("branches", &joined, branches[0].dtype())?;
    let all = branches.each_ref();
    told(|| Form::new("Concatenate", &all).with("axis", axis), || Ok(Tensor::cat(&all, axis)?))
}

/// `tuple { a, b }`
///
/// # Errors
/// None.
pub fn tuple<T>(branches: T) -> Result<T> {
    Ok(branches)
}

fn reduce<const N: usize>(
    branches: [Tensor; N],
    f: impl FnMut(Tensor, Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    let mut branches = branches.into_iter();
    let first = branches.next().ok_or_else(|| Error::invalid("branches", "must be at least one", 0))?;
    branches.try_fold(first, f)
}

fn shapes_differ(reason: &str, branches: &[Tensor]) -> Error {
    Error::invalid("branches", reason, branches.iter().map(Tensor::dims).collect::<Vec<_>>())
}
