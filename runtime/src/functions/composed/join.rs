//! Tensors side by side.

use candle_core::{Result, Tensor};

/// Rows of the inputs, `widths` elements long, behind each other; the result has the sizes `dims`.
pub(crate) fn joined(inputs: &[&Tensor], widths: &[usize], dims: &[usize]) -> Result<Tensor> {
    let rows = inputs.iter().zip(widths).map(|(inp, width)| match width {
        0 => Ok(None),
        _ => inp.reshape((inp.elem_count() / width, *width)).map(Some),
    });
    let rows: Vec<_> = rows.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
    match &*rows {
        [] => Tensor::zeros(dims, inputs[0].dtype(), inputs[0].device()),
        [one] => one.reshape(dims),
        several => Tensor::cat(several, 1)?.reshape(dims),
    }
}
