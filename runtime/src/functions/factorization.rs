//! Low-rank factors of a weight: truncated SVD and the three-way CP decomposition.

use candle_core::{DType, Device, Tensor};
use nalgebra::{DMatrix, Dyn, SVD};

use crate::{Error, Result, Rng, check};

/// Splits a matrix `(n, m)` into `U (n, r)` and `V (r, m)`, with `U V` its best approximation of rank `r`.
///
/// The singular values are multiplied into `U`.
///
/// # Errors
/// [`Error::InvalidArgument`] if `r` is 0 or above `min(n, m)`, or if the matrix holds a NaN or an infinity.
pub fn svd_factors(w: &Tensor, r: usize) -> Result<(Tensor, Tensor)> {
    let w = matrix(w)?;
    let (n, m) = w.shape();
    check_rank(r, n.min(m))?;
    let svd = decomposed("uv_init", w)?;
    let (Some(u), Some(v)) = (svd.u, svd.v_t) else { return Err(undecomposed("uv_init")) };
    let u = u.columns(0, r) * DMatrix::from_diagonal(&svd.singular_values.rows(0, r).into_owned());
    Ok((tensor(&u)?, tensor(&v.rows(0, r).into_owned())?))
}

/// Splits a tensor `(o, i, k)` into the weights of `r` filters for each `i`: `U (i·r, k)` and `V (o, i·r)`, such that
/// `w[a, b, c] ≈ Σ_j V[a, b·r + j] · U[b·r + j, c]`.
///
/// # Errors
/// As [`svd_factors`], `r` being at most `min(o, k)`.
pub fn svd_factors_by_map(w: &Tensor, r: usize) -> Result<(Tensor, Tensor)> {
    let (outmaps, inmaps, size) = w.dims3()?;
    check::input("w", w)?;
    check_rank(r, outmaps.min(size))?;
    let (mut us, mut vs) = (Vec::with_capacity(inmaps), Vec::with_capacity(inmaps));
    for map in 0..inmaps {
        let (u, v) = svd_factors(&w.narrow(1, map, 1)?.squeeze(1)?.t()?, r)?;
        us.push(u.t()?);
        vs.push(v.t()?);
    }
    Ok((Tensor::cat(&us, 0)?, Tensor::cat(&vs, 1)?))
}

/// Checks that a weight can have factors of rank `r`.
///
/// # Errors
/// [`Error::InvalidArgument`] if `r` is 0 or above `limit`.
pub fn check_rank(r: usize, limit: usize) -> Result<()> {
    if (1..=limit).contains(&r) {
        return Ok(());
    }
    Err(Error::invalid("r", format!("must be between 1 and the rank {limit} of the weight"), r))
}

/// The singular value decomposition of a matrix of finite numbers.
fn decomposed(argument: &'static str, matrix: DMatrix<f64>) -> Result<SVD<f64, Dyn, Dyn>> {
    /// Maximum number of iterations for each singular value; a few are usual.
    const STEPS: usize = 1000;
    let steps = STEPS.saturating_mul(1 + matrix.nrows().min(matrix.ncols()));
    if !matrix.iter().all(|value| value.is_finite()) {
        return Err(undecomposed(argument));
    }
    SVD::try_new(matrix, true, true, 5.0 * f64::EPSILON, steps).ok_or_else(|| undecomposed(argument))
}

fn undecomposed(argument: &'static str) -> Error {
    Error::invalid(argument, "must have a singular value decomposition of finite numbers", "none")
}

/// Options of the alternating least squares of [`cpd3_factors`].
#[derive(Clone, Debug)]
pub struct Cpd3Options {
    /// Number of rank-one terms.
    pub r: usize,
    /// Largest number of iterations.
    pub max_iter: usize,
    /// Change of the explained fraction below which the iteration stops; if negative, it never does.
    pub stopping_criterion: f64,
    /// Weight of the factors' squared norm, at least 0.
    pub lambda_reg: f64,
}

impl Cpd3Options {
    /// Upper bound of `max_iter`; an iteration that has not converged by then never does.
    const MAX_ITER: usize = 100_000;

    /// Checks the options for a tensor of these sizes.
    pub(crate) fn check(&self, sizes: [usize; 3]) -> Result<()> {
        check_rank(self.r, usize::MAX)?;
        if !(1..=Self::MAX_ITER).contains(&self.max_iter) {
            let reason = format!("must be between 1 and {}", Self::MAX_ITER);
            return Err(Error::invalid("max_iter", reason, self.max_iter));
        }
        check::within("stopping_criterion", self.stopping_criterion, ..)?;
        check::within("lambda_reg", self.lambda_reg, 0.0..)?;
        if sizes.contains(&0) {
            return Err(Error::invalid("weight", "must have elements to be factorized", sizes));
        }
        let [o, i, k] = sizes;
        // The largest of the intermediate matrices.
        for (a, b) in [(o, i), (o, k), (i, k), (self.r, 1)] {
            let len = check::count("r", &[a, b, self.r])?;
            check::memory::<f64>("r", len)?;
        }
        Ok(())
    }
}

/// Splits a tensor `(o, i, k)` into `O (o, r)`, `I (i, r)` and `K (k, r)` with
/// `w[a, b, c] ≈ Σ_r O[a, r] · I[b, r] · K[c, r]`, by alternating least squares from factors that `rng` draws.
///
/// In each iteration, the columns of a factor are divided by their norm, and from the second iteration on by
/// their largest element if that is above 1. The last divisors are multiplied into `O`.
///
/// # Errors
/// [`Error::InvalidArgument`] if the tensor has another rank, is empty or holds a NaN or an infinity, if `r` is 0 or larger
/// than the memory, `max_iter` is not between 1 and 100,000, `lambda_reg` is negative or one of the two others is not finite,
/// or if the factors do not stay finite.
pub fn cpd3_factors(w: &Tensor, options: &Cpd3Options, rng: &Rng) -> Result<[Tensor; 3]> {
    let r = options.r;
    let dims = w.dims3()?;
    let sizes = [dims.0, dims.1, dims.2];
    options.check(sizes)?;
    let unfolded = [
        matrix(&w.flatten(1, 2)?)?,
        matrix(&w.transpose(0, 1)?.flatten(1, 2)?)?,
        matrix(&w.permute((2, 0, 1))?.flatten(1, 2)?)?,
    ];
    let norm2 = unfolded[0].norm_squared();
    let mut factors = sizes.map(|size| DMatrix::zeros(size, r));
    for mode in [1, 2] {
        factors[mode] =
            DMatrix::from_row_iterator(sizes[mode], r, (0..sizes[mode] * r).map(|_| rng.uniform()));
    }
    let mut lambda = vec![1.0; r];
    let mut explained = f64::NEG_INFINITY;
    for iteration in 0..options.max_iter {
        for mode in 0..3 {
            let (first, second) = [(1, 2), (0, 2), (0, 1)][mode];
            let gram = (factors[first].tr_mul(&factors[first]))
                .component_mul(&factors[second].tr_mul(&factors[second]))
                + DMatrix::identity(r, r) * options.lambda_reg;
            let solved =
                &unfolded[mode] * khatri_rao(&factors[first], &factors[second]) * pseudo_inverse(gram)?;
            lambda = solved
                .column_iter()
                .map(|column| if iteration == 0 { column.norm() } else { column.max().max(1.0) })
                .collect();
            let scaled =
                solved.column_iter().zip(&lambda).map(|(column, &by)| divide(column.into_owned(), by));
            factors[mode] = DMatrix::from_columns(&scaled.collect::<Vec<_>>());
        }
        if options.stopping_criterion < 0.0 {
            continue;
        }
        let approximation =
            scale_columns(&factors[0], &lambda) * khatri_rao(&factors[1], &factors[2]).transpose();
        let now = 1.0 - (&unfolded[0] - approximation).norm_squared() / norm2;
        if iteration > 0 && (now - explained).abs() < options.stopping_criterion {
            break;
        }
        explained = now;
    }
    let outputs = scale_columns(&factors[0], &lambda);
    Ok([tensor(&outputs)?, tensor(&factors[1])?, tensor(&factors[2])?])
}

/// A column that is zero stays zero.
fn divide(column: nalgebra::DVector<f64>, by: f64) -> nalgebra::DVector<f64> {
    if by == 0.0 { column } else { column / by }
}

fn scale_columns(factor: &DMatrix<f64>, by: &[f64]) -> DMatrix<f64> {
    DMatrix::from_fn(factor.nrows(), factor.ncols(), |row, column| factor[(row, column)] * by[column])
}

/// Row `i · n + j` holds the products of row `i` of `a` and row `j` of `b`.
fn khatri_rao(a: &DMatrix<f64>, b: &DMatrix<f64>) -> DMatrix<f64> {
    let n = b.nrows();
    DMatrix::from_fn(a.nrows() * n, a.ncols(), |row, column| a[(row / n, column)] * b[(row % n, column)])
}

/// Singular values below 1e-15 of the largest count as zero, as in NumPy.
fn pseudo_inverse(gram: DMatrix<f64>) -> Result<DMatrix<f64>> {
    let svd = decomposed("oik_init", gram)?;
    let smallest = svd.singular_values.max() * 1e-15;
    svd.pseudo_inverse(smallest).map_err(|reason| Error::invalid("oik_init", reason, "a singular system"))
}

fn matrix(tensor: &Tensor) -> Result<DMatrix<f64>> {
    check::float("weight", tensor)?;
    let (rows, columns) = tensor.dims2()?;
    check::tensor("weight", tensor.dims(), DType::F64)?;
    let values = tensor.to_dtype(DType::F64)?.flatten_all()?.to_device(&Device::Cpu)?.to_vec1::<f64>()?;
    if !values.iter().all(|value| value.is_finite()) {
        return Err(Error::invalid("weight", "must be finite to be factorized", "a NaN or an infinity"));
    }
    Ok(DMatrix::from_row_iterator(rows, columns, values))
}

fn tensor(matrix: &DMatrix<f64>) -> Result<Tensor> {
    let values: Vec<f64> = matrix.transpose().iter().copied().collect();
    Ok(Tensor::from_vec(values, matrix.shape(), &Device::Cpu)?)
}
