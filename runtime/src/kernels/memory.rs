//! Memory for results.
#![allow(unsafe_code)] // zeros that are overwritten at once cost up to a seventh of a training step

use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Float;

/// Whether memory that nobody has written can be handed out: only where the assembly below can.
const HAS_ASSEMBLY: bool = cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) && !cfg!(miri);

/// What memory holds before it is written, where debug assertions are on; 0 for NaN.
static PATTERN: AtomicU64 = AtomicU64::new(0);

/// Runs `f`, for which results start as bits that follow from `seed`, where debug assertions are on: whatever they are, what
/// is computed must not depend on them. Other threads may see them too.
pub fn with_memory_of<R>(seed: u64, f: impl FnOnce() -> R) -> R {
    struct Restore(u64);
    impl Drop for Restore {
        fn drop(&mut self) {
            PATTERN.store(self.0, Ordering::Relaxed);
        }
    }
    let _restore = Restore(PATTERN.swap(seed, Ordering::Relaxed));
    f()
}

/// `len` elements of no particular value, for a kernel that writes each of them; NaN where debug assertions are on, so
/// that tests find one that is left out, or what [`with_memory_of`] asks for.
pub(crate) fn unfilled<T: Float>(len: usize) -> Vec<T> {
    let pattern = if cfg!(debug_assertions) { PATTERN.load(Ordering::Relaxed) } else { 0 };
    if !HAS_ASSEMBLY || (cfg!(debug_assertions) && pattern == 0) {
        return vec![T::of(f64::NAN); len];
    }
    let mut elements = Vec::<T>::with_capacity(len);
    if pattern != 0 {
        scribble(elements.spare_capacity_mut(), pattern);
    }
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

/// Numbers of every size, and some that are none.
fn scribble<T: Float>(memory: &mut [MaybeUninit<T>], seed: u64) {
    let mut state = seed;
    for element in memory {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let bits = state.rotate_right((state >> 58) as u32);
        element.write(T::of(f64::from(f32::from_bits((bits >> 32) as u32))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_starts_as_asked_for() {
        if cfg!(debug_assertions) && HAS_ASSEMBLY {
            let memory = |seed| {
                with_memory_of(seed, || unfilled::<f64>(1000).iter().map(|x| x.to_bits()).collect::<Vec<_>>())
            };
            assert_ne!(memory(1), memory(2));
        }
    }
}
