//! Weight normalization and spectral normalization.

use candle_core::{DType, Result, Tensor};

use super::normalization::InputGradient;
use super::rule::attach;
use super::sum_like;
use crate::number::evaluate;

/// For each index of the axis `dim`; the other axes have size 1.
pub(crate) fn norms(w: &Tensor, dim: usize, eps: f64) -> Result<Tensor> {
    let others: Vec<usize> = (0..w.rank()).filter(|&axis| axis != dim).collect();
    let squares = w.sqr()?;
    let sums = if others.is_empty() { squares } else { squares.sum_keepdim(others)? };
    (sums + eps)?.sqrt()
}

pub(crate) fn weight_normalization(w: &Tensor, g: &Tensor, dim: usize, eps: f64) -> Result<Tensor> {
    let arg = w.detach();
    let norms = norms(&arg, dim, eps)?;
    let factor = (g.detach().reshape(norms.dims())? / &norms)?;
    let y = arg.broadcast_mul(&factor)?;
    let g_dims = g.dims().to_vec();
    attach("weight_normalization", &[w, g], &y, move |dy, needed| {
        let moment = sum_like(&(dy * &arg)?, &norms)?;
        let none = moment.zeros_like()?;
        let dw = || evaluate(&InputGradient, [dy, &arg], [&none, &factor, &none, &(&moment / norms.sqr()?)?]);
        let dw = needed[0].then(dw).transpose()?;
        Ok(vec![dw, Some((&moment / &norms)?.reshape(g_dims.as_slice())?)])
    })
}

/// The output for a matrix, and the next `u`.
pub(crate) fn spectral_norm(w: &Tensor, u: &Tensor, itr: usize, eps: f64) -> Result<[Tensor; 2]> {
    let arg = w.detach();
    let mut u = u.unsqueeze(1)?;
    let mut v = Tensor::zeros((arg.dim(1)?, 1), arg.dtype(), arg.device())?;
    let mut wv = u.clone();
    let normalized = |x: &Tensor| {
        let length = (x.sqr()?.sum_all()? + eps)?.sqrt()?.to_dtype(DType::F64)?.to_scalar::<f64>()?;
        if length > 0.0 { x / length } else { Ok(x.clone()) }
    };
    for _ in 0..itr {
        v = normalized(&arg.t()?.matmul(&u)?)?;
        wv = arg.matmul(&v)?;
        u = normalized(&wv)?;
    }
    let sigma = (&u * wv)?.sum_all()?.to_dtype(DType::F64)?.to_scalar::<f64>()?;
    let scale = if sigma == 0.0 { 1.0 } else { 1.0 / sigma };
    let (next, y) = (u.squeeze(1)?, (&arg * scale)?);
    let y = attach("spectral_norm", &[w], &y, move |dy, _| {
        let moment = (dy * &arg)?.sum_all()?.to_dtype(DType::F64)?.to_scalar::<f64>()?;
        let of_sigma = (u.matmul(&v.t()?)? * (moment * scale * scale))?;
        Ok(vec![Some(((dy * scale)? - of_sigma)?)])
    })?;
    Ok([y, next])
}
