//! Rows of a table by index.

use candle_core::{DType, Tensor};

use super::composed;
use super::graph::attach;
use super::node::{accumulate, compute, element_count, for_float, widened, without_kernels};
use super::places::taken;
use crate::kernels::places::{Along, HOLE, Places};
use crate::kernels::{gather_rows, scatter_add_rows};
use crate::told::{Form, told};
use crate::{Error, Result, check};

/// `y[i.., :] = w[inp[i..], :]`.
///
/// The indices get no gradient.
///
/// # Shapes
/// - `inp`: any shape, of an integer type
/// - `w`: `(n_inputs, features..)`
/// - output: the shape of `inp`, then `features..`
///
/// # Errors
/// [`Error::InvalidArgument`] if `inp` does not hold integers or one of them is outside the table.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// use layerfn::functions::embed;
/// let w = Tensor::new(&[[0f32, 1.], [2., 3.], [4., 5.]], &Device::Cpu)?;
/// let y = embed(&Tensor::new(&[2u32, 0], &Device::Cpu)?, &w)?;
/// assert_eq!(y.to_vec2::<f32>()?, [[4., 5.], [0., 1.]]);
/// let error = embed(&Tensor::new(&[3u32], &Device::Cpu)?, &w).unwrap_err();
/// assert_eq!(error.to_string(), "`inp` must hold indices from 0 to 2 (`n_inputs` is 3), got 3");
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn embed(inp: &Tensor, w: &Tensor) -> Result<Tensor> {
    told(
        || Form::new("Embed", &[inp, w]),
        || {
            let Some((&n_inputs, features)) = w.dims().split_first() else {
                return Err(Error::invalid("W", "must have shape (n_inputs, n_features)", w.dims()));
            };
            check::float("W", w)?;
            let indices = indices("inp", inp, n_inputs, "n_inputs")?;
            let dims = [inp.dims(), features].concat();
            rows("embed", w, n_inputs, indices, &dims)
        },
    )
}

/// The rows of a table at `indices`, as a tensor of `dims`: the table's elements are taken as `n_rows` rows.
pub(super) fn rows(
    name: &'static str,
    table: &Tensor,
    n_rows: usize,
    indices: Vec<usize>,
    dims: &[usize],
) -> Result<Tensor> {
    let len = table.elem_count().checked_div(n_rows).unwrap_or(0);
    let compose = |t: &[Tensor]| Ok([composed::rows(&t[0], n_rows, &indices, dims)?]);
    if let Some([y]) = without_kernels(name, &[table], compose)? {
        return Ok(y);
    }
    let [wide] = widened(name, [table])?;
    let y = for_float!(wide.dtype(), T => {
        let y = compute::<T, 1>(dims, [&wide], |[table], y| gather_rows(table, &indices, len, y))?;
        let table_dims = table.dims().to_vec();
        attach(name, [&wide], y, move |dy| {
            let dw = accumulate::<T, 1>(&*table_dims, [dy], |[dy], dw| scatter_add_rows(dy, &indices, len, dw))?;
            Ok([Some(dw.into_tensor()?)])
        })
    })?;
    Ok(y.to_dtype(table.dtype())?)
}

/// Zeros, seen as `n_rows` rows, with those of `inp` put at `indices`, as a tensor of `dims`. Of several at one place the sum
/// is taken if `add`, and the last one if not.
pub(super) fn placed(
    name: &'static str,
    inp: &Tensor,
    n_rows: usize,
    indices: Vec<usize>,
    add: bool,
    dims: &[usize],
) -> Result<Tensor> {
    let len = element_count(dims)?.checked_div(n_rows).unwrap_or(0);
    if !add {
        // Each place takes the last row that comes to it.
        let mut last = vec![HOLE; n_rows];
        indices.iter().enumerate().for_each(|(row, place)| last[*place] = row);
        let places = Along::Table { n: indices.len(), places: last };
        return taken(name, inp, Places::in_order(vec![places, Along::all(len)]), 0.0, dims);
    }
    let compose = |t: &[Tensor]| Ok([composed::placed(&t[0], n_rows, &indices, dims)?]);
    if let Some([y]) = without_kernels(name, &[inp], compose)? {
        return Ok(y);
    }
    let [wide] = widened(name, [inp])?;
    let y = for_float!(wide.dtype(), T => {
        let y = accumulate::<T, 1>(dims, [&wide], |[x], y| scatter_add_rows(x, &indices, len, y))?;
        let input_dims = inp.dims().to_vec();
        attach(name, [&wide], y, move |dy| {
            let dx = compute::<T, 1>(&*input_dims, [dy], |[dy], dx| gather_rows(dy, &indices, len, dx))?;
            Ok([Some(dx.into_tensor()?)])
        })
    })?;
    Ok(y.to_dtype(inp.dtype())?)
}

/// Whether each element is an index into a table of `n_inputs` rows.
pub(crate) fn check_indices(inp: &Tensor, n_inputs: usize) -> Result<()> {
    indices("inp", inp, n_inputs, "n_inputs").map(drop)
}

/// The elements of an integer tensor, all smaller than `n`, which the error calls `limit`.
fn indices(argument: &'static str, tensor: &Tensor, n: usize, limit: &str) -> Result<Vec<usize>> {
    let checked = integers(argument, tensor)?.into_iter().map(|value| index(argument, value, n, limit));
    checked.collect()
}

/// The elements of an integer tensor.
pub(crate) fn integers(argument: &'static str, tensor: &Tensor) -> Result<Vec<i64>> {
    match tensor.dtype() {
        DType::U8 | DType::U32 | DType::I16 | DType::I32 | DType::I64 => {}
        other => return Err(Error::invalid(argument, "must hold integers", other)),
    }
    check::tensor(argument, tensor.dims(), DType::I64)?;
    if tensor.elem_count() == 0 {
        return Ok(Vec::new()); // candle fails on these on a GPU
    }
    Ok(tensor.flatten_all()?.to_dtype(DType::I64)?.to_vec1()?)
}

/// `value` as an index, which is smaller than `n`; the error calls `n` `limit`.
pub(crate) fn index(argument: &'static str, value: i64, n: usize, limit: &str) -> Result<usize> {
    usize::try_from(value).ok().filter(|&index| index < n).ok_or_else(|| {
        let reason = match n.checked_sub(1) {
            Some(last) => format!("must hold indices from 0 to {last} (`{limit}` is {n})"),
            None => format!("must hold no index (`{limit}` is 0)"),
        };
        Error::invalid(argument, reason, value)
    })
}
