//! Weights as functions of other weights: weight normalization and spectral normalization.

use candle_core::{DType, Tensor};

use super::composed::normalization::InputGradient;
use super::composed::reparameterization as composed;
use super::graph::attach;
use super::node::{
    Element, Value, compute, element_count, for_float, in_type, read, widened, without_kernels,
};
use crate::kernels::{Channels, Float, Mat, MatMut, Start, Threads, combine, gemm};
use crate::number::Formula;
use crate::told::{Form, told};
use crate::{Axis, Error, Result, check};

/// Weight normalization: `y = g w / sqrt(sum of w^2 + eps)`, with a sum and a `g` for each index of the axis `dim`.
///
/// # Shapes
/// - `w`: any; `g`: `(size of dim)`
/// - output: as `w`
///
/// # Errors
/// [`Error::InvalidArgument`] if there is no axis `dim`, `g` has another shape, or `eps` is negative.
///
/// # Source
/// NNabla `F.weight_normalization`, which crashes for a negative `dim`; Salimans & Kingma,
/// [Weight Normalization](https://arxiv.org/abs/1602.07868).
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// let w = Tensor::new(&[[3f64, 4.], [0., 2.]], &Device::Cpu)?;
/// let g = Tensor::new(&[10f64, 1.], &Device::Cpu)?;
/// let y = layerfn::functions::weight_normalization(&w, &g, 0, 0.0)?;
/// assert_eq!(y.to_vec2::<f64>()?, [[6., 8.], [0., 1.]]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn weight_normalization(w: &Tensor, g: &Tensor, dim: impl Into<Axis>, eps: f64) -> Result<Tensor> {
    let (dim, channels) = channels_of(w, dim.into(), eps)?;
    told(
        || Form::new("WeightNormalization", &[w, g]).with("dim", dim).with("eps", eps),
        || {
            if g.dims() != [w.dims()[dim]] {
                let reason = format!("must have the size of axis {dim} of the weight {:?}", w.dims());
                return Err(Error::invalid("g", reason, g.dims()));
            }
            let compose = |t: &[Tensor]| Ok([composed::weight_normalization(&t[0], &t[1], dim, eps)?]);
            if let Some([y]) = without_kernels("weight_normalization", &[w, g], compose)? {
                return Ok(y);
            }
            let [x, scale] = widened("weight_normalization", [w, g])?;
            let y = for_float!(x.dtype(), T => {
                let norms = norms::<T>(channels, &x, eps)?;
                let factors: Vec<[T; 1]> = read([&scale], |[g]: [&[T]; 1]| {
                    g.iter().zip(&norms).map(|(g, norm)| [T::of(g.wide() / norm)]).collect()
                })?;
                let y = compute::<T, 1>(x.dims(), [&x], |[w], y| {
                    channels.map(&factors, w, w, y, |[factor], w, _| *factor * w);
                })?;
                let arg = Tensor::clone(&x);
                attach("weight_normalization", [&x, &scale], y, move |dy| {
                    let moments = read([&arg, dy], |[w, dy]: [&[T]; 2]| channels.sums(w, dy, |_| |w, dy| [w * dy]))?;
                    let coefficients = factors.iter().zip(&norms).zip(&moments).map(|(([factor], norm), [moment])| {
                        [*factor, T::of(moment / (norm * norm))]
                    });
                    let coefficients: Vec<[T; 2]> = coefficients.collect();
                    let dw = compute::<T, 2>(arg.dims(), [&arg, dy], |[w, dy], dw| {
                        channels.map(&coefficients, w, dy, dw, |[factor, slope], w, dy| {
                            InputGradient.of([dy, w], [T::ZERO, *factor, T::ZERO, *slope])
                        });
                    })?;
                    let data = moments.iter().zip(&norms).map(|([moment], norm)| T::of(moment / norm)).collect();
                    let dg = Value::<T> { data, dims: vec![norms.len()] };
                    Ok([Some(dw.into_tensor()?), Some(dg.into_tensor()?)])
                })
            })?;
            in_type(y, w.dtype())
        },
    )
}

/// `sqrt(sum of w^2 + eps)` for each index of the axis `dim`, as a constant: with this `g`,
/// [`weight_normalization`] is the identity.
pub(crate) fn weight_norms(w: &Tensor, dim: Axis, eps: f64) -> Result<Tensor> {
    let (dim, channels) = channels_of(w, dim, eps)?;
    let w = &w.detach();
    let compose = |t: &[Tensor]| Ok([composed::norms(&t[0], dim, eps)?.flatten_all()?]);
    if let Some([norms]) = without_kernels("weight_norms", &[w], compose)? {
        return Ok(norms);
    }
    let [x] = widened("weight_norms", [w])?;
    let norms = for_float!(x.dtype(), T => {
        let data: Vec<T> = norms::<T>(channels, &x, eps)?.into_iter().map(T::of).collect();
        Ok(Value { dims: vec![data.len()], data }.into_tensor()?)
    })?;
    in_type(norms, w.dtype())
}

/// The axis counted from the front, and the layout of its indices in `w`.
fn channels_of(w: &Tensor, dim: Axis, eps: f64) -> Result<(usize, Channels)> {
    check::within("eps", eps, 0.0..)?;
    check::input("w", w)?;
    let dims = w.dims();
    let dim = dim.resolve("dim", dims)?;
    check::tensor("w", &dims[dim..=dim], DType::F64)?;
    let (outer, inner) = (element_count(&dims[..dim])?, element_count(&dims[dim + 1..])?);
    Ok((dim, Channels { outer, channels: dims[dim], inner }))
}

fn norms<T: Element>(channels: Channels, w: &Tensor, eps: f64) -> Result<Vec<f64>> {
    let sums = read([w], |[w]: [&[T]; 1]| channels.sums(w, w, |_| |w, _| [w * w]))?;
    Ok(sums.into_iter().map(|[sum]| (sum + eps).sqrt()).collect())
}

/// Spectral normalization: the weight divided by its largest singular value, which `itr` steps of the power method estimate.
/// Returns the output and the next `u`.
///
/// With `W` as a matrix that has a row for each index of the axis `dim`: `v = Wᵀ u / sqrt(|Wᵀ u|² + eps)` and
/// `u = W v / sqrt(|W v|² + eps)`, repeated `itr` times, then `y = w / (uᵀ W v)`. No gradient flows through `u`
/// and `v`. A weight of zeros does not change.
///
/// # Shapes
/// - `w`: any; `u` and its next value: `(size of dim)`
/// - output: as `w`
///
/// # Errors
/// [`Error::InvalidArgument`] if there is no axis `dim`, `u` has another shape, `itr` is not between 1 and 10,000, or `eps` is negative.
///
/// # Source
/// NNabla `F.spectral_norm`; Miyato et al., [Spectral Normalization](https://arxiv.org/abs/1802.05957).
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// let w = Tensor::new(&[[4f64, 0.], [0., 2.]], &Device::Cpu)?;
/// let u = Tensor::new(&[1f64, 0.], &Device::Cpu)?;
/// let (y, u) = layerfn::functions::spectral_norm(&w, &u, 0, 1, 0.0)?;
/// assert_eq!(y.to_vec2::<f64>()?, [[1., 0.], [0., 0.5]]);
/// assert_eq!(u.to_vec1::<f64>()?, [1., 0.]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn spectral_norm(
    w: &Tensor,
    u: &Tensor,
    dim: impl Into<Axis>,
    itr: usize,
    eps: f64,
) -> Result<(Tensor, Tensor)> {
    let (dim, channels) = channels_of(w, dim.into(), eps)?;
    check_itr(itr)?;
    told(
        || {
            let form = Form::new("SpectralNorm", &[w, u]).with("dim", dim).with("itr", itr).with("eps", eps);
            form.with("test", true).with("output_u", true)
        },
        || {
            if u.dims() != [w.dims()[dim]] {
                let reason = format!("must have the size of axis {dim} of the weight {:?}", w.dims());
                return Err(Error::invalid("u", reason, u.dims()));
            }
            if w.elem_count() == 0 {
                return Ok((w.clone(), u.clone()));
            }
            let order: Vec<usize> =
                std::iter::once(dim).chain((0..w.rank()).filter(|&axis| axis != dim)).collect();
            let mut back = order.clone();
            order.iter().enumerate().for_each(|(to, &from)| back[from] = to);
            let rows = w.permute(order)?;
            let (outmaps, inmaps) = (channels.channels, channels.per_channel());
            check::tensor("w", &[outmaps, inmaps], w.dtype())?;
            let matrix = rows.contiguous()?.reshape((outmaps, inmaps))?;
            let u = &u.detach();
            let compose = |t: &[Tensor]| composed::spectral_norm(&t[0], &t[1], itr, eps);
            let [y, u] = match without_kernels("spectral_norm", &[&matrix, u], compose)? {
                Some(results) => results,
                None => {
                    let [x, u] = widened("spectral_norm", [&matrix, u])?;
                    let [y, u] = for_float!(x.dtype(), T => spectral_norm_by_kernels::<T>(&x, &u, itr, eps))?;
                    [in_type(y, w.dtype())?, in_type(u, w.dtype())?]
                }
            };
            Ok((y.reshape(rows.dims())?.permute(back)?, u))
        },
    )
}

/// Checks the number of steps of the power method: an iteration that has not converged by then never does.
pub(crate) fn check_itr(itr: usize) -> Result<()> {
    const MAX_ITR: usize = 10_000;
    if (1..=MAX_ITR).contains(&itr) {
        return Ok(());
    }
    Err(Error::invalid("itr", format!("must be between 1 and {MAX_ITR}"), itr))
}

fn spectral_norm_by_kernels<T: Element>(w: &Tensor, u: &Tensor, itr: usize, eps: f64) -> Result<[Tensor; 2]> {
    let (outmaps, inmaps) = w.dims2()?;
    let (mut u, mut v) = (read([u], |[u]: [&[T]; 1]| u.to_vec())?, vec![T::ZERO; inmaps]);
    let sigma = read([w], |[w]: [&[T]; 1]| {
        let w = Mat::new(w, outmaps, inmaps, inmaps);
        let mut wv = vec![T::ZERO; outmaps];
        for _ in 0..itr {
            gemm(
                MatMut::new(&mut v, inmaps, 1, 1),
                w.t(),
                Mat::new(&u, outmaps, 1, 1),
                Start::Zero,
                Threads::All,
            );
            normalize(&mut v, eps);
            gemm(
                MatMut::new(&mut wv, outmaps, 1, 1),
                w,
                Mat::new(&v, inmaps, 1, 1),
                Start::Zero,
                Threads::All,
            );
            u.copy_from_slice(&wv);
            normalize(&mut u, eps);
        }
        dot(&u, &wv)
    })?;
    let scale = if sigma == 0.0 { 1.0 } else { 1.0 / sigma };
    let times = T::of(scale);
    let y = compute::<T, 1>(w.dims(), [w], |[w], y| combine([w], y, |[w]| w * times))?;
    let next = Value { data: u.clone(), dims: vec![outmaps] }.into_tensor()?;
    let arg = w.clone();
    let y = attach("spectral_norm", [w], y, move |dy| {
        let moment = read([&arg, dy], |[w, dy]: [&[T]; 2]| dot(w, dy))?;
        let loss = T::of(-moment * scale * scale);
        let of_sigma: Vec<T> = u.iter().map(|u| *u * loss).collect();
        let mut dw = compute::<T, 1>(arg.dims(), [dy], |[dy], dw| combine([dy], dw, |[dy]| dy * times))?;
        let (column, row) = (Mat::new(&of_sigma, outmaps, 1, 1), Mat::new(&v, 1, inmaps, inmaps));
        gemm(MatMut::new(&mut dw.data, outmaps, inmaps, inmaps), column, row, Start::Kept, Threads::All);
        Ok([Some(dw.into_tensor()?)])
    })?;
    Ok([y, next])
}

fn dot<T: Element>(a: &[T], b: &[T]) -> f64 {
    let all = Channels { outer: 1, channels: 1, inner: a.len() };
    all.sums(a, b, |_| |a, b| [a * b])[0][0]
}

/// Divides by the length.
fn normalize<T: Element>(x: &mut [T], eps: f64) {
    let length = (dot(x, x) + eps).sqrt();
    if length > 0.0 {
        x.iter_mut().for_each(|x| *x = T::of(x.wide() / length));
    }
}
