//! Results whose elements are copied from the input.

use candle_core::Tensor;

use super::composed;
use super::graph::attach;
use super::node::{compute, for_float, in_type, is_float, widened, without_kernels};
use crate::kernels::Float;
use crate::kernels::places::Places;
use crate::{Result, check};

/// The elements of `inp` at `places`, and `fill` in the holes. `inp` is seen as having the axes that `places` reads; the
/// result gets the sizes `dims`, which give as many elements as `places` has. Tensors of integers work too.
pub(super) fn taken(
    name: &'static str,
    inp: &Tensor,
    places: Places,
    fill: f64,
    dims: &[usize],
) -> Result<Tensor> {
    check::tensor("inp", dims, inp.dtype())?;
    if !is_float(inp.dtype()) {
        check::tensor("inp", inp.dims(), inp.dtype())?;
        if dims.contains(&0) {
            return Ok(Tensor::zeros(dims, inp.dtype(), inp.device())?); // the other sizes may be huge
        }
        return Ok(composed::places::gather(inp, &places, fill)?.reshape(dims)?);
    }
    let compose = |t: &[Tensor]| Ok([composed::places::taken(name, &t[0], &places, fill, dims)?]);
    if let Some([y]) = without_kernels(name, &[inp], compose)? {
        return Ok(y);
    }
    let [x] = widened(name, [inp])?;
    let y = for_float!(x.dtype(), T => {
        let y = compute::<T, 1>(dims, [&x], |[x], y| places.gather(T::of(fill), x, y))?;
        let input_dims = x.dims().to_vec();
        attach(name, [&x], y, move |dy| {
            let dx = compute::<T, 1>(&*input_dims, [dy], |[dy], dx| places.scatter(dy, dx))?;
            Ok([Some(dx.into_tensor()?)])
        })
    })?;
    in_type(y, inp.dtype())
}
