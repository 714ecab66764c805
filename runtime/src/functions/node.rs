//! Values computed by our kernels as nodes of candle's graph.
//!
//! A function computes its result over slices and then attaches it to its inputs together with a backward rule, so
//! that forward, backward and what they share stand in one place. Where the kernels do not run, [`without_kernels`] hands
//! over to [`composed`](super::composed).

use std::sync::Mutex;

use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, CustomOp3, DType, Device, Layout, Shape, Storage, StorageRef, Tensor,
    WithDType,
};

use crate::device::has_kernels;
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

/// The tensors in a precision that is computed in, contiguous: `f16` and `bf16` become `f32`.
///
/// # Errors
/// If a tensor lies on another device than the first, is of another type, or of no floating-point type.
pub(crate) fn widened<const N: usize>(function: &'static str, tensors: [&Tensor; N]) -> Result<[Tensor; N]> {
    all_widened(function, &tensors)?
        .try_into()
        .map_err(|_| Error::invalid("inp", "must be as many tensors as asked for", N))
}

fn all_widened(function: &'static str, tensors: &[&Tensor]) -> Result<Vec<Tensor>> {
    let (dtype, device) = (tensors[0].dtype(), tensors[0].device());
    let computed_in = match dtype {
        DType::F16 | DType::BF16 | DType::F32 => DType::F32,
        DType::F64 => DType::F64,
        other => return Err(not_float(other)),
    };
    let widen = |tensor: &&Tensor| {
        if !tensor.device().same_device(device) {
            let reason =
                format!("must lie on one device for `{function}`, {:?} as the first", device.location());
            return Err(Error::invalid("inp", reason, tensor.device().location()));
        }
        if tensor.dtype() != dtype {
            let reason = format!("must have one element type for all tensors, {dtype:?} as the first has");
            return Err(Error::invalid("inp", reason, tensor.dtype()));
        }
        Ok(tensor.to_dtype(computed_in)?.contiguous()?)
    };
    tensors.iter().map(widen).collect()
}

/// The results of a function where the kernels do not run: what `compose` makes of the widened inputs. `None` where
/// they do.
pub(crate) fn without_kernels<const M: usize>(
    function: &'static str,
    inputs: &[&Tensor],
    compose: impl FnOnce(&[Tensor]) -> candle_core::Result<[Tensor; M]>,
) -> Result<Option<[Tensor; M]>> {
    if has_kernels(inputs[0].device()) {
        return Ok(None);
    }
    let mut results = compose(&all_widened(function, inputs)?)?;
    for result in &mut results {
        *result = result.to_dtype(inputs[0].dtype())?;
    }
    Ok(Some(results))
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

/// What a backward rule returns: a gradient for each input, or none where the input needs none.
pub(crate) type Gradients<const N: usize> = candle_core::Result<[Option<Tensor>; N]>;

/// Which of the inputs a gradient is asked for.
pub(crate) fn tracked<const N: usize>(inputs: [&Tensor; N]) -> [bool; N] {
    inputs.map(Tensor::track_op)
}

/// Makes `value` the result of an operation on `inputs`, which must be one, two or three.
///
/// `backward` gets the result and its gradient, contiguous. It may hold on to the inputs and to what the forward pass
/// has computed. If no input is tracked it is dropped at once.
pub(crate) fn attach<T, const N: usize, B>(
    name: &'static str,
    inputs: [&Tensor; N],
    value: Value<T>,
    backward: B,
) -> Result<Tensor>
where
    T: Element,
    B: Fn(&Tensor, &Tensor) -> Gradients<N> + Send + Sync + 'static,
{
    if !inputs.iter().any(|input| input.track_op()) {
        return Ok(value.into_tensor()?);
    }
    let Value { data, dims } = value;
    let forward =
        Forward { name, value: Mutex::new(Some((T::to_cpu_storage_owned(data), Shape::from(dims)))) };
    let backward = move |result: &Tensor, gradient: &Tensor| backward(result, &gradient.contiguous()?);
    let tensor = match inputs.as_slice() {
        [a] => a.apply_op1(Node1(forward, move |r: &Tensor, g: &Tensor| first(backward(r, g)?.into())))?,
        [a, b] => {
            a.apply_op2(b, Node2(forward, move |r: &Tensor, g: &Tensor| first2(backward(r, g)?.into())))?
        }
        [a, b, c] => {
            a.apply_op3(b, c, Node3(forward, move |r: &Tensor, g: &Tensor| first3(backward(r, g)?.into())))?
        }
        _ => return Err(Error::invalid("inputs", "must be one, two or three", N)),
    };
    Ok(tensor)
}

fn first(gradients: Vec<Option<Tensor>>) -> candle_core::Result<Option<Tensor>> {
    Ok(gradients.into_iter().next().flatten())
}

fn first2(gradients: Vec<Option<Tensor>>) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
    let mut gradients = gradients.into_iter();
    Ok((gradients.next().flatten(), gradients.next().flatten()))
}

type Three = (Option<Tensor>, Option<Tensor>, Option<Tensor>);

fn first3(gradients: Vec<Option<Tensor>>) -> candle_core::Result<Three> {
    let mut gradients = gradients.into_iter();
    Ok((gradients.next().flatten(), gradients.next().flatten(), gradients.next().flatten()))
}

/// The already computed result, handed to candle when it asks for the forward pass.
struct Forward {
    name: &'static str,
    value: Mutex<Option<(CpuStorage, Shape)>>,
}

impl Forward {
    fn take(&self) -> candle_core::Result<(CpuStorage, Shape)> {
        let mut value = self.value.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        value.take().ok_or_else(|| candle_core::Error::msg("the result of an operation was asked for twice"))
    }
}

struct Node1<B>(Forward, B);
struct Node2<B>(Forward, B);
struct Node3<B>(Forward, B);

impl<B: Fn(&Tensor, &Tensor) -> candle_core::Result<Option<Tensor>>> CustomOp1 for Node1<B> {
    fn name(&self) -> &'static str {
        self.0.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        self.0.take()
    }

    fn bwd(&self, _: &Tensor, result: &Tensor, gradient: &Tensor) -> candle_core::Result<Option<Tensor>> {
        (self.1)(result, gradient)
    }
}

impl<B: Fn(&Tensor, &Tensor) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)>> CustomOp2
    for Node2<B>
{
    fn name(&self) -> &'static str {
        self.0.name
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        self.0.take()
    }

    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        result: &Tensor,
        gradient: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        (self.1)(result, gradient)
    }
}

impl<B: Fn(&Tensor, &Tensor) -> candle_core::Result<Three>> CustomOp3 for Node3<B> {
    fn name(&self) -> &'static str {
        self.0.name
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        self.0.take()
    }

    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        result: &Tensor,
        gradient: &Tensor,
    ) -> candle_core::Result<Three> {
        (self.1)(result, gradient)
    }
}
