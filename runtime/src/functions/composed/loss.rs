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
    let classes: Vec<u32> = labels.iter().map(|label| label.map_or(0, |label| label as u32)).collect();
    let classes = Tensor::from_vec(classes, dims, x.device())?;
    let counted = labels.iter().map(|label| u8::from(label.is_some())).collect();
    let counted = Tensor::from_vec(counted, dims, x.device())?;
    if labels.iter().all(Option::is_some) {
        return log_softmax(x, axis)?.gather(&classes, axis)?.neg();
    }
    // What is not counted must not reach the gradient, not even as 0 times infinity.
    let x = counted.broadcast_as(x.shape())?.where_cond(x, &x.zeros_like()?)?;
    let loss = log_softmax(&x, axis)?.gather(&classes, axis)?.neg()?;
    counted.where_cond(&loss, &loss.zeros_like()?)
}

pub(crate) fn mean(x: &Tensor) -> Result<Tensor> {
    x.sum_all()? / x.elem_count() as f64
}
