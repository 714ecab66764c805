//! Losses.

use candle_core::shape::Dim;
use candle_core::{DType, Result, Tensor};

use super::activation::{ln_1p, log_softmax, positive_part};

/// `labels` have been checked and have size 1 on `axis`.
pub(crate) fn softmax_cross_entropy(x: &Tensor, labels: &Tensor, axis: impl Dim + Copy) -> Result<Tensor> {
    let labels = labels.to_device(x.device())?.to_dtype(DType::U32)?.contiguous()?;
    log_softmax(x, axis)?.gather(&labels, axis)?.neg()
}

pub(crate) fn squared_error(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    (a - b)?.sqr()
}

pub(crate) fn sigmoid_cross_entropy(x: &Tensor, target: &Tensor) -> Result<Tensor> {
    (positive_part(x)? - (x * target)?)? + ln_1p(&x.abs()?.neg()?.exp()?)?
}

pub(crate) fn mean(x: &Tensor) -> Result<Tensor> {
    x.sum_all()? / x.elem_count() as f64
}
