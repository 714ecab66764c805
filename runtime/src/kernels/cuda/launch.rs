//! Compilation, once for each source, and launch.
#![allow(unsafe_code)] // kernels work on raw memory; each use says why it is sound

use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use candle_core::Result;
use candle_core::cuda_backend::cudarc::driver::{
    CudaSlice, CudaView, DeviceRepr, LaunchConfig, PushKernelArg,
};
use candle_core::cuda_backend::cudarc::nvrtc::compile_ptx;
use candle_core::cuda_backend::{CudaDevice, WrapErr};
use foldhash::HashMap;

use super::{BLOCK, Kernel, prelude};

/// Runs a kernel of `n` items: it gets `n`, the sizes, the numbers, the inputs and memory for `out_len` results, all of
/// which it must write; they are `indices` or of type `T`. `None` if NVRTC cannot compile it here; `number` is the C name of `T`.
pub(crate) fn launch<T: DeviceRepr, O: DeviceRepr>(
    device: &CudaDevice,
    kernel: Kernel<'_>,
    number: &'static str,
    n: usize,
    (sizes, numbers, inputs): (&[usize], &[T], &[CudaView<'_, T>]),
    out_len: usize,
    indices: bool,
) -> Result<Option<CudaSlice<O>>> {
    let fits = kernel.takes(sizes.len(), numbers.len(), inputs.len(), indices)
        && size_of::<O>() == if indices { size_of::<u32>() } else { size_of::<T>() };
    if !fits {
        candle_core::bail!("`{}` does not take what it is launched with", kernel.name);
    }
    let Some(compiled) = compiled(kernel.source, number) else { return Ok(None) };
    let function = device.get_or_load_custom_func(kernel.name, &compiled.module, &compiled.ptx)?;
    // SAFETY: the kernel writes all of it before anybody reads it.
    let mut out = unsafe { device.alloc::<O>(out_len)? };
    let sizes: Vec<u64> = [n].iter().chain(sizes).map(|&size| size as u64).collect();
    let mut arguments = function.builder();
    for size in &sizes {
        arguments.arg(size);
    }
    for number in numbers {
        arguments.arg(number);
    }
    for input in inputs {
        arguments.arg(input);
    }
    arguments.arg(&mut out);
    let blocks = u32::try_from(n.div_ceil(BLOCK as usize)).unwrap_or(u32::MAX).min(1 << 22); // each takes several items, if need be
    let config = LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (BLOCK, 1, 1), shared_mem_bytes: 0 };
    // SAFETY: by the check above, the arguments are those that the kernel declares, in its order and types; it reads and writes only items
    // below n and what the caller's sizes say of its inputs and output.
    unsafe { arguments.launch(config) }.w()?;
    Ok(Some(out))
}

struct Compiled {
    module: String,
    ptx: String,
}

/// The source as PTX; `None` if it could not be compiled, which is tried and said once.
fn compiled(source: &str, number: &'static str) -> Option<Arc<Compiled>> {
    type OfNumber = HashMap<String, Option<Arc<Compiled>>>;
    static CACHE: LazyLock<Mutex<HashMap<&'static str, OfNumber>>> = LazyLock::new(Mutex::default);
    let mut cache = CACHE.lock().unwrap_or_else(PoisonError::into_inner);
    let of_number = cache.entry(number).or_default();
    if let Some(known) = of_number.get(source) {
        return known.clone();
    }
    let module = format!("layerfn {number} {}", of_number.len());
    let compiled = match compile_ptx(prelude(number) + source) {
        Ok(ptx) => Some(Arc::new(Compiled { module, ptx: ptx.to_src() })),
        Err(error) => {
            eprintln!(
                "layerfn: NVRTC cannot compile a kernel, its function is composed of slower ones: {error:?}"
            );
            None
        }
    };
    of_number.insert(source.to_owned(), compiled.clone());
    compiled
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use candle_core::cuda_backend::cudarc::nvrtc::{CompileError, compile_ptx};

    use super::super::{Kernel, prelude};

    /// Where there is no NVRTC, there is nothing to check, which is said past libtest, unless the environment says that it is
    /// there.
    #[test]
    fn nvrtc_compiles_the_kernels() {
        for number in ["float", "double"] {
            match compile_ptx(prelude(number) + Kernel::named("").source) {
                Ok(_) => println!("compiled for {number}"),
                Err(CompileError::CompileError { log, .. }) => panic!("{}", log.to_string_lossy()),
                Err(error) if std::env::var_os("LAYERFN_NVRTC").is_some() => panic!("no NVRTC: {error}"),
                Err(error) => {
                    writeln!(std::io::stderr(), "nvrtc_compiles_the_kernels: skipped, no NVRTC: {error:?}")
                        .unwrap();
                    return;
                }
            }
        }
    }
}
