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

#[cfg(any(test, feature = "cuda"))]
impl Kernel<'_> {
    /// Whether the source declares it with so many sizes (besides the number of items), numbers and inputs, and results that
    /// are indices or not. What a launch hands over is not checked by anybody else.
    pub(crate) fn takes(&self, n_sizes: usize, n_numbers: usize, n_inputs: usize, indices: bool) -> bool {
        let Some((_, rest)) = self.source.split_once(&format!("KERNEL void {}(", self.name)) else {
            return false;
        };
        let parameters = rest.split(')').next().unwrap_or_default().split(',');
        let kinds = parameters.map(|parameter| {
            let words: Vec<&str> = parameter.split_whitespace().collect();
            match words[..] {
                ["size", _] | ["unsigned", "long", "long", _] => 's',
                ["const", "T", name] if name.starts_with('*') => 'i',
                ["T", name] if name.starts_with('*') => 'o',
                ["unsigned", name] if name.starts_with('*') => 'p',
                ["T", _] => 'n',
                _ => '?',
            }
        });
        let repeat = |kind: &str, n| kind.repeat(n);
        let result = if indices { "p" } else { "o" };
        kinds.collect::<String>()
            == repeat("s", 1 + n_sizes) + &repeat("n", n_numbers) + &repeat("i", n_inputs) + result
    }
}

impl Kernel<'static> {
    /// A kernel of `kernels.cu`.
    pub(crate) const fn named(name: &'static str) -> Self {
        Self { name, source: include_str!("kernels.cu") }
    }
}

/// Threads of a block. The compiler is told, so that a kernel gets no more registers than so many threads have.
#[cfg(feature = "cuda")]
const BLOCK: u32 = 256;

/// What stands before a source: the type of its numbers and the words that C does not have. Every thread takes every
/// so-many-th item, so any number of threads does all of them.
#[cfg(feature = "cuda")]
fn prelude(number: &str) -> String {
    format!(
        "typedef {number} T;\n\
         #define KERNEL extern \"C\" __global__ __launch_bounds__({BLOCK})\n\
         #define INLINE static __device__\n\
         #define FOR_EACH(i, n) for (unsigned long long i = blockIdx.x * (unsigned long long)blockDim.x + threadIdx.x; \
         i < n; i += (unsigned long long)gridDim.x * blockDim.x)\n"
    )
}

#[cfg(test)]
mod tests {
    use super::Kernel;

    #[test]
    fn a_signature_is_read_from_the_source() {
        assert!(Kernel::named("pow2").takes(2, 3, 1, false));
        assert!(Kernel::named("max_pool_places").takes(15, 0, 1, true));
        for (name, (sizes, numbers, inputs), indices) in [
            ("pow2", (1, 3, 1), false),
            ("pow2", (2, 3, 2), false),
            ("pow2", (2, 2, 1), false),
            ("max_pool_places", (15, 0, 1), false),
            ("no_such_kernel", (0, 0, 0), false),
        ] {
            assert!(!Kernel::named(name).takes(sizes, numbers, inputs, indices), "{name}");
        }
        let kernel = Kernel {
            name: "own",
            source: "KERNEL void own(unsigned long long n, T a, const T *w,\n T *out) {",
        };
        assert!(kernel.takes(0, 1, 1, false));
    }
}
