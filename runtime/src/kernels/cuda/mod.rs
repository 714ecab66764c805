//! Kernels for CUDA: their source, which NVRTC compiles when a program runs, and their launch.

#[cfg(feature = "cuda")]
mod launch;

#[cfg(feature = "cuda")]
pub(crate) use launch::launch;

/// A kernel in a text of CUDA C.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kernel<'a> {
    pub(crate) name: &'static str,
    pub(crate) source: &'a str,
}

impl Kernel<'static> {
    /// A kernel of `kernels.cu`.
    pub(crate) const fn named(name: &'static str) -> Self {
        Self { name, source: include_str!("kernels.cu") }
    }
}

/// What stands before a source: the type of its numbers and the words that C does not have. Every thread takes every
/// so-many-th item, so any number of threads does all of them.
#[cfg(feature = "cuda")]
fn prelude(number: &str) -> String {
    format!(
        "typedef {number} T;\n\
         #define KERNEL extern \"C\" __global__\n\
         #define INLINE static __device__\n\
         #define FOR_EACH(i, n) for (unsigned long long i = blockIdx.x * (unsigned long long)blockDim.x + threadIdx.x; \
         i < n; i += (unsigned long long)gridDim.x * blockDim.x)\n"
    )
}
