//! Kernels for CUDA on tensors.

use candle_core::{CudaStorage, Device, Result, Tensor};

use crate::kernels::cuda::Kernel;

/// Whether kernels for CUDA run for tensors on `device`, unless NVRTC does not compile them.
pub(crate) fn has_fused(device: &Device) -> bool {
    #[cfg(test)]
    if super::in_c::is_on() {
        return true;
    }
    cfg!(feature = "cuda") && device.is_cuda()
}

/// What a kernel gets besides its number of items.
#[derive(Clone, Copy, Default)]
pub(crate) struct Arguments<'a> {
    pub(crate) sizes: &'a [usize],
    pub(crate) numbers: &'a [f64],
    /// Of one type, `f32` or `f64`.
    pub(crate) inputs: &'a [&'a Tensor],
}

/// The result of a kernel with `n` items in the type of its inputs, flat. `None` where it cannot run: on other devices,
/// without the feature `cuda`, and where NVRTC is missing. The caller composes it of candle's operations then.
pub(crate) fn fused(
    kernel: Kernel<'_>,
    n: usize,
    arguments: Arguments<'_>,
    out_len: usize,
) -> Result<Option<Tensor>> {
    #[cfg(test)]
    if super::in_c::is_on() {
        return super::in_c::fused(kernel, n, arguments, out_len).map(Some);
    }
    #[cfg(feature = "cuda")]
    return on_cuda::fused(kernel, n, arguments, out_len, false);
    #[cfg(not(feature = "cuda"))]
    {
        let Arguments { sizes, numbers, inputs } = arguments;
        let _ = (kernel.name, kernel.source, n, sizes, numbers, inputs, out_len);
        Ok(None)
    }
}

/// [`fused`] for a kernel whose results are of type `u32`.
pub(crate) fn fused_indices(
    kernel: Kernel<'_>,
    n: usize,
    arguments: Arguments<'_>,
    out_len: usize,
) -> Result<Option<Tensor>> {
    #[cfg(feature = "cuda")]
    return on_cuda::fused(kernel, n, arguments, out_len, true);
    #[cfg(not(feature = "cuda"))]
    fused(kernel, n, arguments, out_len)?.map(|places| places.to_dtype(candle_core::DType::U32)).transpose()
}

/// The number of elements of a storage of `f32` or `f64`, 0 of other types.
pub(crate) fn len(storage: &CudaStorage) -> usize {
    #[cfg(feature = "cuda")]
    return on_cuda::len(storage);
    #[cfg(not(feature = "cuda"))]
    {
        let _ = storage;
        0
    }
}

#[cfg(feature = "cuda")]
mod on_cuda {
    use candle_core::cuda_backend::cudarc::driver::{DeviceRepr, DeviceSlice};
    use candle_core::cuda_backend::{CudaDType, CudaDevice, CudaStorage};
    use candle_core::op::BackpropOp;
    use candle_core::{DType, Device, Result, Storage, Tensor};

    use super::Arguments;
    use crate::kernels::Float;
    use crate::kernels::cuda::{Kernel, launch};

    pub(super) fn len(storage: &CudaStorage) -> usize {
        let narrow = storage.as_cuda_slice::<f32>().map(DeviceSlice::len);
        narrow.or_else(|_| storage.as_cuda_slice::<f64>().map(DeviceSlice::len)).unwrap_or(0)
    }

    pub(super) fn fused(
        kernel: Kernel<'_>,
        n: usize,
        arguments: Arguments<'_>,
        out_len: usize,
        indices: bool,
    ) -> Result<Option<Tensor>> {
        let (Some(first), true) = (arguments.inputs.first(), n > 0) else { return Ok(None) };
        let Device::Cuda(device) = first.device() else { return Ok(None) };
        match (first.dtype(), indices) {
            (DType::F32, false) => run::<f32, f32>(device, kernel, "float", n, arguments, out_len, false),
            (DType::F32, true) => run::<f32, u32>(device, kernel, "float", n, arguments, out_len, true),
            (DType::F64, false) => run::<f64, f64>(device, kernel, "double", n, arguments, out_len, false),
            (DType::F64, true) => run::<f64, u32>(device, kernel, "double", n, arguments, out_len, true),
            _ => Ok(None),
        }
    }

    fn run<T: CudaDType + DeviceRepr + Float, O: CudaDType + DeviceRepr>(
        device: &CudaDevice,
        kernel: Kernel<'_>,
        number: &'static str,
        n: usize,
        arguments: Arguments<'_>,
        out_len: usize,
        indices: bool,
    ) -> Result<Option<Tensor>> {
        let inputs = arguments.inputs.iter().map(|input| input.detach().contiguous());
        let inputs = inputs.collect::<Result<Vec<_>>>()?;
        let locked: Vec<_> = inputs.iter().map(Tensor::storage_and_layout).collect();
        let mut views = Vec::with_capacity(locked.len());
        for (storage, layout) in &locked {
            let Storage::Cuda(storage) = &**storage else {
                candle_core::bail!("the inputs of `{}` are not on one GPU", kernel.name)
            };
            let start = layout.start_offset();
            views.push(storage.as_cuda_slice::<T>()?.slice(start..start + layout.shape().elem_count()));
        }
        let numbers: Vec<T> = arguments.numbers.iter().map(|&number| T::of(number)).collect();
        let out =
            launch::<T, O>(device, kernel, number, n, (arguments.sizes, &numbers, &views), out_len, indices)?;
        Ok(out.map(|out| {
            let storage = Storage::Cuda(CudaStorage::wrap_cuda_slice(out, device.clone()));
            Tensor::from_storage(storage, out_len, BackpropOp::none(), false)
        }))
    }
}
