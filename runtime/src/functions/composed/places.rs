//! Elements taken from places, one axis after another.

use candle_core::{Result, Tensor};

use super::rule::attach;
use crate::kernels::places::{Along, HOLE, Places};

/// The elements at `places`, as a tensor of `dims`, and the transpose of this as the gradient.
pub(crate) fn taken(
    name: &'static str,
    x: &Tensor,
    places: &Places,
    fill: f64,
    dims: &[usize],
) -> Result<Tensor> {
    let y = gather(&x.detach(), places, fill)?.reshape(dims)?;
    let (places, input_dims) = (places.clone(), x.dims().to_vec());
    attach(name, &[x], &y, move |dy, _| Ok(vec![Some(scatter(dy, &places)?.reshape(&*input_dims)?)]))
}

/// The elements at `places`; `fill` in the holes.
pub(crate) fn gather(x: &Tensor, places: &Places, fill: f64) -> Result<Tensor> {
    let mut x = x.reshape(places.input_dims())?.permute(places.order.clone())?;
    for (axis, along) in places.axes.iter().enumerate() {
        x = match along {
            along if along.is_all() => x,
            Along::Steps { n: 1, step: 0, len, .. } => {
                let mut dims = x.dims().to_vec();
                dims[axis] = *len;
                x.broadcast_as(dims)?
            }
            Along::Steps { start, step: 1, len, .. } => x.narrow(axis, *start, *len)?,
            _ => {
                let places = along.places();
                let padded = if places.contains(&HOLE) { with_hole(&x, axis, fill)? } else { x };
                padded.contiguous()?.index_select(&indices(&padded, &places, along.n())?, axis)?
            }
        };
    }
    x.contiguous()
}

/// The transpose of [`gather`].
fn scatter(dy: &Tensor, places: &Places) -> Result<Tensor> {
    let mut dx = dy.reshape(places.dims())?;
    for (axis, along) in places.axes.iter().enumerate() {
        dx = match along {
            along if along.is_all() => dx,
            Along::Steps { n: 1, step: 0, .. } => dx.sum_keepdim(axis)?,
            Along::Steps { n, start, step: 1, len } => dx.pad_with_zeros(axis, *start, n - start - len)?,
            _ => {
                let mut dims = dx.dims().to_vec();
                dims[axis] = along.n() + 1;
                let zeros = Tensor::zeros(dims, dx.dtype(), dx.device())?;
                let indices = indices(&dx, &along.places(), along.n())?;
                zeros.index_add(&indices, &dx.contiguous()?, axis)?.narrow(axis, 0, along.n())?
            }
        };
    }
    let mut inverse = vec![0; places.order.len()];
    for (axis, from) in places.order.iter().enumerate() {
        inverse[*from] = axis;
    }
    dx.permute(inverse)?.contiguous()
}

/// `x` with one place more at the end of an axis, which holds `fill`.
fn with_hole(x: &Tensor, axis: usize, fill: f64) -> Result<Tensor> {
    let mut dims = x.dims().to_vec();
    dims[axis] = 1;
    let hole = Tensor::full(fill, dims, x.device())?.to_dtype(x.dtype())?;
    Tensor::cat(&[x, &hole], axis)
}

/// The places as a tensor, `n` for holes.
fn indices(like: &Tensor, places: &[usize], n: usize) -> Result<Tensor> {
    Tensor::from_iter(places.iter().map(|&place| place.min(n) as u32), like.device())
}
