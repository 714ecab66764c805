//! Between candle's tensors and the slices of the kernels; the one decision about devices is here, too.

use candle_core::{DType, Device, Layout, Storage, StorageRef, Tensor, WithDType};

use crate::kernels::Float;
use crate::{Error, Result};

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

pub(crate) fn not_float(dtype: DType) -> Error {
    Error::invalid("inp", "must hold f32, f64, f16 or bf16 numbers", dtype)
}

/// The tensors in a precision that the kernels compute in, contiguous: `f16` and `bf16` become `f32`.
///
/// # Errors
/// If a tensor lies on another device than the CPU, is of another type than the first, or of no floating-point type.
pub(crate) fn widened<const N: usize>(function: &'static str, tensors: [&Tensor; N]) -> Result<[Tensor; N]> {
    let dtype = tensors[0].dtype();
    let computed_in = match dtype {
        DType::F16 | DType::BF16 | DType::F32 => DType::F32,
        DType::F64 => DType::F64,
        other => return Err(not_float(other)),
    };
    let mut widened = Vec::with_capacity(N);
    for tensor in tensors {
        require_cpu(function, tensor)?;
        if tensor.dtype() != dtype {
            let reason = format!("must have one element type for all tensors, {dtype:?} as the first has");
            return Err(Error::invalid("inp", reason, tensor.dtype()));
        }
        widened.push(tensor.to_dtype(computed_in)?.contiguous()?);
    }
    widened.try_into().map_err(|_| Error::invalid("inp", "must be as many tensors as asked for", N))
}

/// The one place that decides where a function runs.
///
/// On the CPU each function has kernels of its own. A composition of candle operations for other devices would be
/// chosen here; until a function has one, this is its error.
fn require_cpu(function: &'static str, tensor: &Tensor) -> Result<()> {
    match tensor.device() {
        Device::Cpu => Ok(()),
        other => Err(Error::invalid(
            "inp",
            format!("must be on the CPU, `{function}` runs nowhere else yet"),
            other,
        )),
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
    /// Zeros to be filled by a kernel.
    ///
    /// # Errors
    /// If so many elements cannot be allocated.
    pub(crate) fn zeros(dims: impl Into<Vec<usize>>) -> Result<Self> {
        let dims = dims.into();
        let data = zeros(element_count(&dims)?)?;
        Ok(Self { data, dims })
    }

    /// A tensor without a place in any graph.
    pub(crate) fn into_tensor(self) -> candle_core::Result<Tensor> {
        Tensor::from_vec(self.data, self.dims, &Device::Cpu)
    }
}

/// Runs a kernel over the elements of contiguous tensors; `kernel` fills a result of size `dims`, which starts as zeros.
pub(crate) fn compute<T: Element, const N: usize>(
    dims: impl Into<Vec<usize>>,
    inputs: [&Tensor; N],
    kernel: impl FnOnce([&[T]; N], &mut [T]),
) -> Result<Value<T>> {
    let mut value = Value::zeros(dims)?;
    let elements = inputs.map(Elements::of);
    let mut slices = [&[][..]; N];
    for (slice, elements) in slices.iter_mut().zip(&elements) {
        *slice = elements.slice()?;
    }
    kernel(slices, &mut value.data);
    Ok(value)
}

/// Number of elements of a tensor with these sizes.
pub(crate) fn element_count(dims: &[usize]) -> Result<usize> {
    dims.iter().try_fold(1usize, |count, &size| count.checked_mul(size)).ok_or_else(|| {
        Error::invalid("inp", "must not give a result with more elements than can be counted", dims)
    })
}

/// `len` zeros, or an error where an allocation that large is refused.
pub(crate) fn zeros<T: Float>(len: usize) -> Result<Vec<T>> {
    const PROBE_FROM: usize = 1 << 28;
    if len >= PROBE_FROM {
        let mut probe = Vec::<T>::new();
        if probe.try_reserve_exact(len).is_err() {
            return Err(Error::invalid("inp", "must not give a result larger than the memory", len));
        }
    }
    Ok(vec![T::ZERO; len])
}
