//! The functions as compositions of candle's operations: what runs where this crate has no kernels.
//!
//! They get checked inputs of one type, `f32` or `f64`, on one device, contiguous. Only operations whose gradients are
//! right are left to candle's backward pass; the others, and those that would keep much memory, bring a
//! [rule](rule::attach) of their own. The tests run them on the CPU beside the kernels, so what runs on another device
//! has been tested.

pub(super) mod activation;
mod convolution;
pub(super) mod loss;
mod lstm;
pub(super) mod normalization;
pub(super) mod pooling;
pub(super) mod quantization;
mod rule;
mod window;

use candle_core::{DType, Result, Tensor};

pub(super) use convolution::convolution;
pub(super) use lstm::lstm_cell;
pub(super) use rule::attach;

pub(super) fn affine(x: &Tensor, w: &Tensor, b: Option<&Tensor>, base_axis: usize) -> Result<Tensor> {
    let (samples, outputs) = (&x.dims()[..base_axis], &w.dims()[1..]);
    let rows: usize = samples.iter().product();
    let (inmaps, outmaps) = (w.dim(0)?, outputs.iter().product::<usize>());
    let y = x.reshape((rows, inmaps))?.matmul(&w.reshape((inmaps, outmaps))?)?;
    let y = match b {
        Some(b) => y.broadcast_add(&b.reshape((1, outmaps))?)?,
        None => y,
    };
    y.reshape([samples, outputs].concat())
}

/// The indices have been checked.
pub(super) fn embed(indices: &Tensor, w: &Tensor) -> Result<Tensor> {
    let features = &w.dims()[1..];
    let table = w.reshape((w.dim(0)?, features.iter().product::<usize>()))?;
    let rows = indices.to_device(w.device())?.to_dtype(DType::U32)?.flatten_all()?.contiguous()?;
    table.index_select(&rows, 0)?.reshape([indices.dims(), features].concat())
}

/// The sum over the axes on which `like` has size 1.
fn sum_like(x: &Tensor, like: &Tensor) -> Result<Tensor> {
    let axes: Vec<usize> = (0..x.rank()).filter(|&axis| like.dims()[axis] != x.dims()[axis]).collect();
    if axes.is_empty() { Ok(x.clone()) } else { x.sum_keepdim(axes) }
}
