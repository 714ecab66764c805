//! Functions that join and split tensors.

use candle_core::Tensor;

use super::composed;
use super::graph::attach_list;
use super::node::{
    Elements, Value, compute, element_count, for_float, in_type, is_float, wide_without_kernels, widened_list,
};
use crate::kernels::{join, part};
use crate::told::{Form, told};
use crate::{Axis, Error, Result, check};

/// Concatenates tensors along an axis; NNabla's default is the last, `-1`.
///
/// # Errors
/// [`Error::InvalidArgument`] if there is no tensor or no such axis, or the sizes of other axes differ.
///
/// # Source
/// NNabla `F.concatenate`.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// let (a, b) = (Tensor::new(&[[1f32], [2.]], &Device::Cpu)?, Tensor::new(&[[3f32, 4.], [5., 6.]], &Device::Cpu)?);
/// let y = layerfn::functions::concatenate(&[&a, &b], -1)?;
/// assert_eq!(y.to_vec2::<f32>()?, [[1., 3., 4.], [2., 5., 6.]]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn concatenate(inputs: &[&Tensor], axis: impl Into<Axis>) -> Result<Tensor> {
    let first = first_of(inputs)?;
    let mut dims = first.dims().to_vec();
    let axis = axis.into().resolve("axis", &dims)?;
    dims[axis] = 0;
    for inp in inputs {
        let same = inp.rank() == dims.len()
            && inp.dims().iter().zip(&dims).enumerate().all(|(i, (n, size))| i == axis || n == size);
        if !same {
            let reason = format!("must have the sizes of the first, {:?}, but on axis {axis}", first.dims());
            return Err(Error::invalid("inputs", reason, inp.dims()));
        }
        dims[axis] = dims[axis].checked_add(inp.dims()[axis]).ok_or_else(|| {
            Error::invalid("inputs", "must not make the result too large to count its elements", inp.dims())
        })?;
    }
    told(
        || Form::new("Concatenate", inputs).with("axis", axis),
        || joined("concatenate", inputs, axis, &dims),
    )
}

/// Stacks tensors of the same shape along a new axis; NNabla's default is the first, `0`.
///
/// # Errors
/// [`Error::InvalidArgument`] if there is no tensor, they have different shapes, or the result has no axis
/// `axis`.
///
/// # Source
/// NNabla `F.stack`.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// let (a, b) = (Tensor::new(&[1f32, 2.], &Device::Cpu)?, Tensor::new(&[3f32, 4.], &Device::Cpu)?);
/// assert_eq!(layerfn::functions::stack(&[&a, &b], 0)?.to_vec2::<f32>()?, [[1., 2.], [3., 4.]]);
/// assert_eq!(layerfn::functions::stack(&[&a, &b], -1)?.to_vec2::<f32>()?, [[1., 3.], [2., 4.]]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn stack(inputs: &[&Tensor], axis: impl Into<Axis>) -> Result<Tensor> {
    let first = first_of(inputs)?;
    let axis = axis.into().resolve("axis", &[first.dims(), &[inputs.len()]].concat())?;
    if let Some(other) = inputs.iter().find(|inp| inp.dims() != first.dims()) {
        let reason = format!("must have the shape of the first, {:?}", first.dims());
        return Err(Error::invalid("inputs", reason, other.dims()));
    }
    let mut dims = first.dims().to_vec();
    dims.insert(axis, inputs.len());
    told(|| Form::new("Stack", inputs).with("axis", axis), || joined("stack", inputs, axis, &dims))
}

fn first_of<'a>(inputs: &[&'a Tensor]) -> Result<&'a Tensor> {
    inputs.first().copied().ok_or_else(|| Error::invalid("inputs", "must be at least one tensor", 0))
}

/// Joins the inputs at each index of the axes before `axis`; the result has the sizes `dims`.
fn joined(name: &'static str, inputs: &[&Tensor], axis: usize, dims: &[usize]) -> Result<Tensor> {
    check::tensor("inputs", dims, inputs[0].dtype())?;
    let widths = inputs.iter().map(|inp| element_count(&inp.dims()[axis..]));
    let widths: Vec<usize> = widths.collect::<Result<_>>()?;
    if !is_float(inputs[0].dtype()) {
        return Ok(composed::join::joined(inputs, &widths, dims)?);
    }
    let compose = |t: &[Tensor]| {
        let inputs: Vec<_> = t.iter().collect();
        composed::join::joined(&inputs, &widths, dims)
    };
    if let Some(y) = wide_without_kernels(name, inputs, compose)? {
        return in_type(y, inputs[0].dtype());
    }
    let wide = widened_list(name, inputs)?;
    let wide: Vec<&Tensor> = wide.iter().map(|inp| &**inp).collect();
    let y = for_float!(wide[0].dtype(), T => {
        let mut y = Value::<T>::unfilled(dims)?;
        let elements: Vec<_> = wide.iter().map(|inp| Elements::of(inp)).collect();
        let parts = elements.iter().map(Elements::slice).collect::<candle_core::Result<Vec<&[T]>>>()?;
        join(&parts, &widths, &mut y.data);
        drop(elements);
        let kept: Vec<_> = wide.iter().map(|inp| (inp.dims().to_vec(), inp.track_op())).collect();
        let mut results = attach_list(name, &wide, vec![y], move |gradients| {
            let Some(dy) = &gradients[0] else { return Ok(kept.iter().map(|_| None).collect()) };
            let total: usize = widths.iter().sum();
            let mut next = 0;
            let gradient = |((dims, needed), width): (&(Vec<usize>, bool), &usize)| {
                let from = next;
                next += width;
                if !needed {
                    return Ok(None);
                }
                let dx = compute::<T, 1>(&**dims, [dy], |[dy], dx| part(dy, total, from, dx, *width))?;
                Ok(Some(dx.into_tensor()?.into()))
            };
            kept.iter().zip(&widths).map(gradient).collect()
        })?;
        Ok::<_, Error>(results.remove(0))
    })?;
    in_type(y, inputs[0].dtype())
}

/// Splits along an axis, which is removed, into as many tensors as its size.
///
/// # Errors
/// [`Error::InvalidArgument`] if there is no such axis.
///
/// # Source
/// NNabla `F.split`.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// let x = Tensor::new(&[[1f32, 2.], [3., 4.]], &Device::Cpu)?;
/// let parts = layerfn::functions::split(&x, 1)?;
/// assert_eq!(parts[0].to_vec1::<f32>()?, [1., 3.]);
/// assert_eq!(parts[1].to_vec1::<f32>()?, [2., 4.]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn split(inp: &Tensor, axis: impl Into<Axis>) -> Result<Vec<Tensor>> {
    let axis = axis.into().resolve("axis", inp.dims())?;
    told(
        || Form::new("Split", &[inp]).with("axis", axis),
        || {
            let n = inp.dims()[axis];
            check::memory::<Tensor>("inp", n)?;
            let mut dims = inp.dims().to_vec();
            dims.remove(axis);
            if !is_float(inp.dtype()) {
                check::tensor("inp", inp.dims(), inp.dtype())?;
                return Ok((0..n)
                    .map(|i| inp.narrow(axis, i, 1)?.reshape(&*dims))
                    .collect::<candle_core::Result<_>>()?);
            }
            let compose = |t: &[Tensor]| (0..n).map(|i| t[0].narrow(axis, i, 1)?.reshape(&*dims)).collect();
            if let Some(parts) = wide_without_kernels("split", &[inp], compose)? {
                return parts_in_type(parts, inp);
            }
            let wide = widened_list("split", &[inp])?;
            let x: &Tensor = &wide[0];
            let inner = element_count(&inp.dims()[axis + 1..])?;
            let parts = for_float!(x.dtype(), T => {
                let parts = (0..n).map(|i| {
                    compute::<T, 1>(&*dims, [x], |[x], y| part(x, n * inner, i * inner, y, inner))
                });
                let parts = parts.collect::<Result<Vec<_>>>()?;
                let input_dims = x.dims().to_vec();
                attach_list("split", &[x], parts, move |gradients| {
                    let mut dx = Value::<T>::unfilled(&*input_dims)?;
                    let nothing = vec![<T as Default>::default(); dx.data.len() / n];
                    let elements: Vec<_> = gradients.iter().map(|dy| dy.as_ref().map(Elements::of)).collect();
                    let slices = elements.iter().map(|dy| match dy {
                        Some(dy) => dy.slice::<T>(),
                        None => Ok(&*nothing),
                    });
                    join(&slices.collect::<candle_core::Result<Vec<_>>>()?, &vec![inner; n], &mut dx.data);
                    drop(elements);
                    Ok(vec![Some(dx.into_tensor()?.into())])
                })
            })?;
            parts_in_type(parts, inp)
        },
    )
}

fn parts_in_type(parts: Vec<Tensor>, inp: &Tensor) -> Result<Vec<Tensor>> {
    parts.into_iter().map(|part| in_type(part, inp.dtype())).collect()
}
