//! Comparison of tensors that says where they differ most.

use candle_core::{DType, Tensor};
use serde::Deserialize;

/// `abs(got - want) <= atol + rtol * abs(want)`.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Tolerance {
    /// Relative part.
    pub rtol: f64,
    /// Absolute part.
    pub atol: f64,
}

/// The elements as `f64`, in row-major order.
///
/// # Panics
/// If candle cannot copy them.
#[must_use]
pub fn values(tensor: &Tensor) -> Vec<f64> {
    let flat = tensor.to_dtype(DType::F64).and_then(|tensor| tensor.flatten_all()?.to_vec1());
    flat.unwrap_or_else(|error| panic!("values of a tensor {:?}: {error}", tensor.dims()))
}

/// How `got` differs from `want`: shape, or the worst element and both values; `None` if it does not.
///
/// Without a tolerance the bits must agree.
#[must_use]
pub fn difference(got: &Tensor, want: &Tensor, tolerance: Option<Tolerance>) -> Option<String> {
    if got.dims() != want.dims() {
        return Some(format!("has shape {:?}, expected {:?}", got.dims(), want.dims()));
    }
    let (got, dims, want) = (values(got), want.dims(), values(want));
    // How far outside an element lies; not a number and bits that differ are infinitely far.
    let excess = |got: f64, want: f64| match tolerance {
        None if got.to_bits() == want.to_bits() => 0.0,
        None => (got - want).abs().max(f64::MIN_POSITIVE),
        Some(Tolerance { rtol, atol }) => {
            let excess = (got - want).abs() - (atol + rtol * want.abs());
            if excess.is_nan() { f64::INFINITY } else { excess }
        }
    };
    let wrong: Vec<(usize, f64)> = got
        .iter()
        .zip(&want)
        .map(|(&got, &want)| excess(got, want))
        .enumerate()
        .filter(|&(_, excess)| excess > 0.0)
        .collect();
    let &(worst, _) = wrong.iter().max_by(|(_, a), (_, b)| a.total_cmp(b))?;
    let allowed = match tolerance {
        None => "no difference allowed".to_owned(),
        Some(Tolerance { rtol, atol }) => format!("{:.1e} allowed", atol + rtol * want[worst].abs()),
    };
    Some(format!(
        "differs in {} of {} elements, worst at {:?}: got {:?}, expected {:?}, off by {:.2e} ({allowed})",
        wrong.len(),
        want.len(),
        position(worst, dims),
        got[worst] as f32,
        want[worst] as f32,
        (got[worst] - want[worst]).abs(),
    ))
}

fn position(mut index: usize, dims: &[usize]) -> Vec<usize> {
    let mut position = vec![0; dims.len()];
    for (at, &size) in position.iter_mut().zip(dims).rev() {
        *at = index % size;
        index /= size;
    }
    position
}
