//! The functions as compositions of candle's operations: what runs where this crate has no kernels.
//!
//! They get checked inputs of one type, `f32` or `f64`, on one device, contiguous. Only operations whose gradients are
//! right are left to candle's backward pass; the others, and those that would keep much memory, bring a
//! [rule](rule::attach) of their own. The tests run them on the CPU beside the kernels, so what runs on another device
//! has been tested.

pub(super) mod activation;
pub(super) mod attention;
pub(super) mod blend;
mod convolution;
pub(super) mod deformable;
pub(super) mod join;
pub(super) mod loss;
pub(super) mod normalization;
pub(super) mod places;
pub(super) mod pooling;
pub(super) mod position;
pub(super) mod quantization;
pub(super) mod recurrent;
pub(super) mod reduce;
pub(super) mod reparameterization;
mod rule;
mod window;

use candle_core::{Result, Shape, Tensor};

pub(super) use convolution::convolution;
pub(super) use recurrent::lstm_cell;
pub(super) use rule::attach;

pub(super) fn affine(x: &Tensor, w: &Tensor, b: Option<&Tensor>, base_axis: usize) -> Result<Tensor> {
    let (samples, outputs) = (&x.dims()[..base_axis], &w.dims()[1..]);
    let rows: usize = samples.iter().product();
    let (inmaps, outmaps) = (w.dim(0)?, outputs.iter().product::<usize>());
    let (arg, weights) = (x.detach().reshape((rows, inmaps))?, w.detach().reshape((inmaps, outmaps))?);
    let y = arg.matmul(&weights)?;
    let y = match b {
        Some(b) => y.broadcast_add(&b.detach().reshape((1, outmaps))?)?,
        None => y,
    };
    let inputs: Vec<&Tensor> = [x, w].into_iter().chain(b).collect();
    let shapes: Vec<Shape> = inputs.iter().map(|input| input.shape().clone()).collect();
    attach("affine", &inputs, &y.reshape([samples, outputs].concat())?, move |dy, needed| {
        let dy = dy.reshape((rows, outmaps))?;
        let gradient = |index: usize, of: &dyn Fn() -> Result<Tensor>| {
            needed.get(index).filter(|needed| **needed).map(|_| of()?.reshape(&shapes[index])).transpose()
        };
        Ok(vec![
            gradient(0, &|| dy.matmul(&weights.t()?))?,
            gradient(1, &|| arg.t()?.matmul(&dy))?,
            gradient(2, &|| dy.sum(0))?,
        ])
    })
}

/// The products of matrices, transposed before if asked for.
pub(super) fn products(a: &Tensor, b: &Tensor, transpose_a: bool, transpose_b: bool) -> Result<Tensor> {
    let ready = |x: &Tensor, transpose: bool| if transpose { x.t()?.contiguous() } else { x.contiguous() };
    ready(a, transpose_a)?.matmul(&ready(b, transpose_b)?)
}

/// The rows of `table`, which has `n_rows`, at `indices`, as a tensor of `dims`.
pub(super) fn rows(table: &Tensor, n_rows: usize, indices: &[usize], dims: &[usize]) -> Result<Tensor> {
    if indices.is_empty() {
        return Tensor::zeros(dims, table.dtype(), table.device()); // candle fails on these on a GPU
    }
    let len = table.elem_count().checked_div(n_rows).unwrap_or(0);
    table.reshape((n_rows, len))?.index_select(&row_numbers(table, indices)?, 0)?.reshape(dims)
}

/// Zeros in `n_rows` rows with those of `x` added at `indices`, as a tensor of `dims`.
pub(super) fn placed(x: &Tensor, n_rows: usize, indices: &[usize], dims: &[usize]) -> Result<Tensor> {
    let len = dims.iter().product::<usize>().checked_div(n_rows).unwrap_or(0);
    let zeros = Tensor::zeros((n_rows, len), x.dtype(), x.device())?;
    if indices.is_empty() {
        return zeros.reshape(dims);
    }
    zeros.index_add(&row_numbers(x, indices)?, &x.reshape((indices.len(), len))?, 0)?.reshape(dims)
}

fn row_numbers(like: &Tensor, indices: &[usize]) -> Result<Tensor> {
    Tensor::from_iter(indices.iter().map(|&index| index as u32), like.device())
}

/// The sum over the axes on which `like` has size 1.
fn sum_like(x: &Tensor, like: &Tensor) -> Result<Tensor> {
    sum_to(x, like.dims())
}

/// The sum over the axes on which `dims` has size 1.
pub(super) fn sum_to(x: &Tensor, dims: &[usize]) -> Result<Tensor> {
    let axes: Vec<usize> = (0..x.rank()).filter(|&axis| dims[axis] != x.dims()[axis]).collect();
    match () {
        () if axes.is_empty() => Ok(x.clone()),
        () if x.elem_count() == 0 => Tensor::zeros(dims, x.dtype(), x.device()),
        () => x.sum_keepdim(axes),
    }
}
