//! Memory for results.
#![allow(unsafe_code)] // zeros that are overwritten at once cost up to a seventh of a training step

use super::Float;

/// `len` elements of no particular value, for a kernel that writes each of them; NaN where debug assertions are on, so
/// that tests find one that is left out.
pub(crate) fn unfilled<T: Float>(len: usize) -> Vec<T> {
    if cfg!(debug_assertions) || !cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) {
        return vec![T::of(f64::NAN); len];
    }
    let mut elements = Vec::<T>::with_capacity(len);
    // SAFETY: the vector has room for `len` elements, and they are initialized: the assembly may write through the pointer
    // whatever it likes, so for the compiler the numbers that the memory happens to hold are the ones written here. Any
    // bits are an f32 or f64, the only implementors of Float.
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    unsafe {
        std::arch::asm!("/* {} */", in(reg) elements.as_mut_ptr(), options(nostack, preserves_flags));
        elements.set_len(len);
    }
    elements
}
