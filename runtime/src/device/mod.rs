//! Where a function runs: by the kernels of the CPU, or composed of candle's operations.

mod fused;
#[cfg(test)]
mod in_c;
#[cfg(test)]
mod tests;

use std::cell::Cell;

use candle_core::Device;

pub(crate) use fused::{Arguments, fused, fused_indices, has_fused, len};

thread_local! {
    static COMPOSED: Cell<bool> = const { Cell::new(false) };
}

/// The one decision about devices: whether the kernels of this crate run for tensors on `device`.
///
/// Where they do not, every function is a composition of operations that candle has on all its devices.
pub(crate) fn has_kernels(device: &Device) -> bool {
    device.is_cpu() && !COMPOSED.get()
}

/// Runs `f` as on a device without kernels, on this thread; so the compositions are tested on the CPU.
pub fn composed<R>(f: impl FnOnce() -> R) -> R {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            COMPOSED.set(self.0);
        }
    }
    let _restore = Restore(COMPOSED.replace(true));
    f()
}
