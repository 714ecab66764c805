//! Losses.

use candle_core::shape::Dim;
use candle_core::{Result, Tensor};

use super::activation::log_softmax;

/// `labels` have been checked; none where a sample is not counted. `dims` are those of the result.
pub(crate) fn softmax_cross_entropy(
    x: &Tensor,
    labels: &[Option<usize>],
    dims: &[usize],
    axis: impl Dim + Copy,
) -> Result<Tensor> {
    let [classes, counted] = tables(x, labels, dims)?;
    if labels.iter().all(Option::is_some) {
        return log_softmax(x, axis)?.gather(&classes, axis)?.neg();
    }
    // What is not counted must not reach the gradient, not even as 0 times infinity.
    let x = counted.broadcast_as(x.shape())?.where_cond(x, &x.zeros_like()?)?;
    let loss = log_softmax(&x, axis)?.gather(&classes, axis)?.neg()?;
    counted.where_cond(&loss, &loss.zeros_like()?)
}

/// The element at each label, 1 where a lane has no label.
pub(crate) fn picked(x: &Tensor, labels: &[Option<usize>], dims: &[usize], axis: usize) -> Result<Tensor> {
    let [classes, counted] = tables(x, labels, dims)?;
    let picked = x.gather(&classes, axis)?;
    counted.where_cond(&picked, &picked.ones_like()?)
}

/// The label of each lane, and whether there is one.
fn tables(x: &Tensor, labels: &[Option<usize>], dims: &[usize]) -> Result<[Tensor; 2]> {
    let classes = labels.iter().map(|label| label.map_or(0, |label| label as u32)).collect();
    let counted = labels.iter().map(|label| u8::from(label.is_some())).collect();
    Ok([
        Tensor::from_vec::<_, u32>(classes, dims, x.device())?,
        Tensor::from_vec::<_, u8>(counted, dims, x.device())?,
    ])
}

pub(crate) fn mean(x: &Tensor) -> Result<Tensor> {
    x.sum_all()? / x.elem_count() as f64
}
