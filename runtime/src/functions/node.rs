//! The bridge between candle's tensors and the slices of the kernels.
//!
//! On devices without kernels, [`without_kernels`] delegates to [`composed`](super::composed).

use std::borrow::Cow;

use candle_core::{CpuStorage, DType, Device, Layout, Shape, Storage, StorageRef, Tensor, WithDType};

use super::composed;
use crate::device::has_kernels;
use crate::kernels::{self, Float};
use crate::{Error, Result, check};

/// Element types that both candle and the kernels know: `f32` and `f64`.
pub(crate) trait Element: Float + WithDType {}

impl Element for f32 {}
impl Element for f64 {}

/// Evaluates `$body` with `$T` bound to the type of the elements; the half precisions never get here, see [`widened`].
macro_rules! for_float {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            candle_core::DType::F64 => {
                type $T = f64;
                $body
            }
            candle_core::DType::F32 => {
                type $T = f32;
                $body
            }
            other => Err($crate::functions::node::not_float(other)),
        }
    };
}
pub(crate) use for_float;

/// Whether functions compute with numbers of this type; other types can only be moved.
pub(crate) fn is_float(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::BF16 | DType::F32 | DType::F64)
}

pub(crate) fn not_float(dtype: DType) -> Error {
    Error::invalid("inp", "must hold f32, f64, f16 or bf16 numbers", dtype)
}

/// The tensors, contiguous and in a precision that kernels compute in: `f16` and `bf16` become `f32`.
///
/// # Errors
/// If a tensor is on another device than the first, has another type, or does not hold floating-point numbers.
pub(crate) fn widened<'a, const N: usize>(
    function: &'static str,
    tensors: [&'a Tensor; N],
) -> Result<[Cow<'a, Tensor>; N]> {
    let mut widened = tensors.map(Cow::Borrowed);
    widen(function, &mut widened)?;
    Ok(widened)
}

/// [`widened`] for any number of tensors.
pub(crate) fn widened_list<'a>(
    function: &'static str,
    tensors: &[&'a Tensor],
) -> Result<Vec<Cow<'a, Tensor>>> {
    let mut widened: Vec<_> = tensors.iter().map(|&tensor| Cow::Borrowed(tensor)).collect();
    widen(function, &mut widened)?;
    Ok(widened)
}

fn widen(function: &'static str, tensors: &mut [Cow<'_, Tensor>]) -> Result<()> {
    let (dtype, device) = (tensors[0].dtype(), tensors[0].device().clone());
    let computed_in = match dtype {
        DType::F16 | DType::BF16 | DType::F32 => DType::F32,
        DType::F64 => DType::F64,
        other => return Err(not_float(other)),
    };
    for tensor in tensors {
        if !tensor.device().same_device(&device) {
            let reason =
                format!("must lie on one device for `{function}`, {:?} as the first", device.location());
            return Err(Error::invalid("inp", reason, tensor.device().location()));
        }
        if tensor.dtype() != dtype {
            let reason = format!("must have one element type for all tensors, {dtype:?} as the first has");
            return Err(Error::invalid("inp", reason, tensor.dtype()));
        }
        if dtype != computed_in || !tensor.is_contiguous() {
            check::tensor("inp", tensor.dims(), computed_in)?;
            *tensor = Cow::Owned(cast(tensor, computed_in)?.contiguous()?);
        }
    }
    Ok(())
}

/// The tensor in type `dtype`. candle starts no kernel for CUDA without elements.
fn cast(tensor: &Tensor, dtype: DType) -> candle_core::Result<Tensor> {
    match tensor.elem_count() {
        0 if tensor.dtype() != dtype => Tensor::zeros(tensor.shape(), dtype, tensor.device()),
        _ => tensor.to_dtype(dtype),
    }
}

/// An empty tensor of the type and on the device of another: a placeholder for a missing bias.
pub(crate) fn nothing_like(inp: &Tensor) -> candle_core::Result<Tensor> {
    Tensor::zeros(0, inp.dtype(), inp.device())
}

/// The bias, or else [`nothing_like`] the input, whose cost small layers would notice.
pub(crate) fn bias_or_nothing<'a>(b: Option<&'a Tensor>, inp: &Tensor) -> Result<Cow<'a, Tensor>> {
    Ok(match b {
        Some(b) => Cow::Borrowed(b),
        None => Cow::Owned(nothing_like(inp)?),
    })
}

/// The tensor in type `dtype`, that of a function's inputs.
pub(crate) fn in_type(tensor: Tensor, dtype: DType) -> Result<Tensor> {
    Ok(if tensor.dtype() == dtype { tensor } else { cast(&tensor, dtype)? })
}

/// The results of a function on devices without kernels, in the type of the inputs: `compose` computes them
/// from the widened inputs. `None` on devices with kernels.
pub(crate) fn without_kernels<const M: usize>(
    function: &'static str,
    inputs: &[&Tensor],
    compose: impl FnMut(&[Tensor]) -> candle_core::Result<[Tensor; M]>,
) -> Result<Option<[Tensor; M]>> {
    let Some(mut results) = wide_without_kernels(function, inputs, compose)? else { return Ok(None) };
    for result in &mut results {
        *result = cast(result, inputs[0].dtype())?;
    }
    Ok(Some(results))
}

/// [`without_kernels`] with results in the type of the computation, however many.
pub(crate) fn wide_without_kernels<R: Results>(
    function: &'static str,
    inputs: &[&Tensor],
    mut compose: impl FnMut(&[Tensor]) -> candle_core::Result<R>,
) -> Result<Option<R>> {
    if has_kernels(inputs[0].device()) {
        return Ok(None);
    }
    let inputs = widened_list(function, inputs)?;
    let inputs: Vec<_> = inputs.into_iter().map(Cow::into_owned).collect();
    if (inputs[0].elem_count() == 0 || inputs.iter().any(is_empty))
        && let Some(results) = of_nothing(function, &inputs, &mut compose)?
    {
        return Ok(Some(results));
    }
    Ok(Some(compose(&inputs)?))
}

/// Whether a tensor is empty, and not a placeholder for a missing one.
fn is_empty(tensor: &Tensor) -> bool {
    tensor.elem_count() == 0 && tensor.dims() != [0]
}

/// The results if some inputs are empty: candle fails or panics on these on a GPU, so they are computed on the
/// CPU. `None` if there are inputs with elements through which gradients flow.
fn of_nothing<R: Results>(
    function: &'static str,
    inputs: &[Tensor],
    compose: impl FnOnce(&[Tensor]) -> candle_core::Result<R>,
) -> candle_core::Result<Option<R>> {
    let there = inputs.iter().map(|input| moved(&input.detach(), &Device::Cpu));
    let mut results = compose(&there.collect::<candle_core::Result<Vec<_>>>()?)?;
    // A node has at most three inputs. The gradients of the others are 0 as well.
    let tracked: Vec<&Tensor> = inputs.iter().filter(|input| input.track_op()).take(3).collect();
    let is_empty = results.all().iter().all(|result| result.elem_count() == 0);
    if !is_empty && !tracked.is_empty() {
        return Ok(None);
    }
    for result in results.all() {
        *result = moved(result, inputs[0].device())?;
        if !tracked.is_empty() {
            let likes: Vec<Tensor> = tracked.iter().map(|input| input.detach()).collect();
            *result = composed::attach(function, &tracked, result, move |_, _| {
                likes.iter().map(|like| like.zeros_like().map(Some)).collect()
            })?;
        }
    }
    Ok(Some(results))
}

/// The tensor on another device. candle does not copy tensors without elements.
fn moved(tensor: &Tensor, device: &Device) -> candle_core::Result<Tensor> {
    match tensor.elem_count() {
        0 => Tensor::zeros(tensor.shape(), tensor.dtype(), device),
        _ => tensor.to_device(device),
    }
}

/// The results of a composition: some tensors.
pub(crate) trait Results {
    fn all(&mut self) -> &mut [Tensor];
}

impl Results for Tensor {
    fn all(&mut self) -> &mut [Tensor] {
        std::slice::from_mut(self)
    }
}

impl<const M: usize> Results for [Tensor; M] {
    fn all(&mut self) -> &mut [Tensor] {
        self
    }
}

/// With a number of elements.
impl<const M: usize> Results for ([Tensor; M], f64) {
    fn all(&mut self) -> &mut [Tensor] {
        &mut self.0
    }
}

impl Results for Vec<Tensor> {
    fn all(&mut self) -> &mut [Tensor] {
        self
    }
}

/// Read access to the elements of a contiguous tensor on the CPU.
pub(crate) struct Elements<'a> {
    storage: StorageRef<'a>,
    layout: &'a Layout,
}

impl<'a> Elements<'a> {
    pub(crate) fn of(tensor: &'a Tensor) -> Self {
        let (storage, layout) = tensor.storage_and_layout();
        Self { storage, layout }
    }

    pub(crate) fn slice<T: WithDType>(&self) -> candle_core::Result<&[T]> {
        let Storage::Cpu(storage) = &*self.storage else {
            candle_core::bail!("a kernel for the CPU was given a tensor on another device");
        };
        let Some((start, end)) = self.layout.contiguous_offsets() else {
            candle_core::bail!("a kernel was given a tensor that is not contiguous");
        };
        T::cpu_storage_as_slice(storage)?
            .get(start..end)
            .ok_or_else(|| candle_core::Error::msg("a tensor's layout points outside its storage"))
    }
}

/// A result of the kernels, not yet a node.
pub(crate) struct Value<T> {
    pub(crate) data: Vec<T>,
    pub(crate) dims: Vec<usize>,
}

impl<T: Element> Value<T> {
    /// Zeros that a kernel adds to.
    ///
    /// # Errors
    /// If so many elements cannot be allocated.
    pub(crate) fn zeros(dims: impl Into<Vec<usize>>) -> Result<Self> {
        let dims = dims.into();
        let data = zeros(element_count(&dims)?)?;
        Ok(Self { data, dims })
    }

    /// Uninitialized elements, all of which a kernel must write.
    ///
    /// # Errors
    /// As for [`zeros`](Self::zeros).
    pub(crate) fn unfilled(dims: impl Into<Vec<usize>>) -> Result<Self> {
        let dims = dims.into();
        let data = unfilled(element_count(&dims)?)?;
        Ok(Self { data, dims })
    }

    /// What candle makes a tensor of.
    pub(crate) fn into_storage(self) -> (CpuStorage, Shape) {
        (T::to_cpu_storage_owned(self.data), Shape::from(self.dims))
    }

    /// A tensor without a place in any graph.
    pub(crate) fn into_tensor(self) -> candle_core::Result<Tensor> {
        Tensor::from_vec(self.data, self.dims, &Device::Cpu)
    }
}

/// Runs a kernel over the elements of contiguous tensors; `kernel` writes every element of a result of size `dims`.
pub(crate) fn compute<T: Element, const N: usize>(
    dims: impl Into<Vec<usize>>,
    inputs: [&Tensor; N],
    kernel: impl FnOnce([&[T]; N], &mut [T]),
) -> Result<Value<T>> {
    run(Value::unfilled(dims)?, inputs, kernel)
}

/// [`compute`] for a kernel that adds to a result, which starts as zeros.
pub(crate) fn accumulate<T: Element, const N: usize>(
    dims: impl Into<Vec<usize>>,
    inputs: [&Tensor; N],
    kernel: impl FnOnce([&[T]; N], &mut [T]),
) -> Result<Value<T>> {
    run(Value::zeros(dims)?, inputs, kernel)
}

fn run<T: Element, const N: usize>(
    mut value: Value<T>,
    inputs: [&Tensor; N],
    kernel: impl FnOnce([&[T]; N], &mut [T]),
) -> Result<Value<T>> {
    kernel(slices(&inputs.map(Elements::of))?, &mut value.data);
    Ok(value)
}

/// What `f` makes of the elements of contiguous tensors.
pub(crate) fn read<T: Element, R, const N: usize>(
    inputs: [&Tensor; N],
    f: impl FnOnce([&[T]; N]) -> R,
) -> Result<R> {
    Ok(f(slices(&inputs.map(Elements::of))?))
}

fn slices<'a, T: Element, const N: usize>(elements: &'a [Elements<'_>; N]) -> Result<[&'a [T]; N]> {
    let mut slices = [&[][..]; N];
    for (slice, elements) in slices.iter_mut().zip(elements) {
        *slice = elements.slice()?;
    }
    Ok(slices)
}

/// Number of elements of a tensor with these sizes.
pub(crate) fn element_count(dims: &[usize]) -> Result<usize> {
    check::count("inp", dims)
}

/// `len` zeros, or an error where an allocation that large is refused.
pub(crate) fn zeros<T: Float>(len: usize) -> Result<Vec<T>> {
    check::memory::<T>("inp", len)?;
    Ok(vec![T::ZERO; len])
}

/// `len` uninitialized elements, all of which a kernel must write.
pub(crate) fn unfilled<T: Float>(len: usize) -> Result<Vec<T>> {
    check::memory::<T>("inp", len)?;
    Ok(kernels::unfilled(len))
}
