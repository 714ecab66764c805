//! Vectors of the processor at hand: a loop is written once over [`Simd`] and compiled for each [`Level`].
//!
//! [`Level::detect`] finds out at run time what the processor can do, [`Vectorized::run`] calls the copy of a [`Job`]
//! that was compiled for it.
#![allow(unsafe_code)] // intrinsics; `Level` and `Has` are the proof that the processor has them

use std::marker::PhantomData;
use std::sync::OnceLock;

use super::Float;

/// The instructions that the kernels use on this processor: `avx512`, `avx2` or `baseline`. The environment variable
/// `LAYERFN_LEVEL` chooses a lower one than the best.
pub fn level() -> &'static str {
    Level::detect().name()
}

/// What the processor can do. Values exist only of levels that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Level(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// What every processor of the target has.
    Baseline,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Level {
    /// The best level of this processor, or the one that the environment variable `LAYERFN_LEVEL` names.
    pub(crate) fn detect() -> Self {
        static CHOSEN: OnceLock<Level> = OnceLock::new();
        *CHOSEN.get_or_init(|| {
            let levels = Self::all();
            let Some(name) = std::env::var_os("LAYERFN_LEVEL") else { return levels[0] };
            levels.iter().copied().find(|level| name == *level.name()).unwrap_or_else(|| {
                let names: Vec<_> = levels.iter().map(|level| level.name()).collect();
                eprintln!(
                    "warning: LAYERFN_LEVEL is {name:?}, but this processor has {}; {} is used",
                    names.join(", "),
                    names[0]
                );
                levels[0]
            })
        })
    }

    /// What `LAYERFN_LEVEL` calls it.
    pub(crate) fn name(self) -> &'static str {
        match self.0 {
            Kind::Baseline => "baseline",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => "avx512",
        }
    }

    /// Every level of this processor, the best first.
    pub(crate) fn all() -> Vec<Self> {
        let mut levels = Vec::new();
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl") {
                levels.push(Self(Kind::Avx512));
            }
            levels.push(Self(Kind::Avx2));
        }
        levels.push(Self(Kind::Baseline));
        levels
    }
}

/// A vector of `LANES` elements.
///
/// All methods may only be called where the processor has the vector's instructions, of which [`Has`] is the proof; `load`
/// and `store` need `LANES` valid elements, `transpose` a square of `BLOCK` rows and columns.
///
/// # Safety
/// The methods read and write no more than that.
pub(crate) unsafe trait Simd<T>: Copy {
    const LANES: usize;
    /// Vectors that may be kept in registers besides two operands.
    const REGISTERS: usize;
    const BLOCK: usize;
    /// Whether `f32::mul_add` is an instruction.
    const FUSED: bool;
    unsafe fn splat(value: T) -> Self;
    unsafe fn load(from: *const T) -> Self;
    unsafe fn store(self, to: *mut T);
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    /// `self * factor + addend`.
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self;
    /// The sum of the elements, halves added to halves.
    unsafe fn sum(self) -> T;
    /// `to[j * to_stride + i] = from[i * from_stride + j]` for `i` and `j` below `BLOCK`.
    unsafe fn transpose(from: *const T, from_stride: usize, to: *mut T, to_stride: usize);
}

/// Asks for the cache line of an address, which need not be valid.
#[inline(always)]
pub(crate) fn prefetch<T>(address: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every processor of the target has the instruction, and it reads nothing.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// The proof that the processor has the instructions of `V`.
#[derive(Clone, Copy)]
pub(crate) struct Has<V>(PhantomData<V>);

impl<V> Has<V> {
    /// # Safety
    /// The processor has the instructions.
    unsafe fn new() -> Self {
        Self(PhantomData)
    }
}

/// A loop to be compiled for each level.
pub(crate) trait Job<T> {
    /// To be marked `#[inline(always)]`, as everything it calls: only so it is compiled with the level's instructions.
    fn run<V: Simd<T>>(self, has: Has<V>);
}

/// Element types that have vectors.
pub(crate) trait Vectorized: Sized {
    /// Elements in a vector of this level.
    fn lanes(level: Level) -> usize;
    /// [`Simd::REGISTERS`] of this level.
    fn registers(level: Level) -> usize;
    /// Runs the copy of the job for this level. `f64` has none for AVX-512: it is there to be exact, not to be fast, and each
    /// copy takes time to build.
    fn run<J: Job<Self>>(level: Level, job: J);
    /// [`run`](Self::run) for a job that gains nothing from vectors of more than 32 bytes.
    fn run_narrow<J: Job<Self>>(level: Level, job: J);
    /// [`run`](Self::run) for a job without intrinsics: `f64` has one copy, in which the compiler uses what every processor of
    /// the target has. A program has hundreds of such jobs.
    fn run_plain<J: Job<Self>>(level: Level, job: J);
}

/// The vectors of the baseline, which the compiler maps to what the target has.
#[derive(Clone, Copy)]
pub(crate) struct Plain<T, const LANES: usize>([T; LANES]);

// SAFETY: its methods are loops over arrays of `N` elements.
unsafe impl<T: Float, const N: usize> Simd<T> for Plain<T, N> {
    const LANES: usize = N;
    const REGISTERS: usize = 12;
    const BLOCK: usize = 4;
    const FUSED: bool = cfg!(any(target_feature = "fma", target_arch = "aarch64"));
    #[inline(always)]
    unsafe fn splat(value: T) -> Self {
        Self([value; N])
    }
    #[inline(always)]
    unsafe fn load(from: *const T) -> Self {
        // SAFETY: the caller vouches for `LANES` elements.
        Self(unsafe { from.cast::<[T; N]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut T) {
        // SAFETY: as in `load`.
        unsafe { to.cast::<[T; N]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] + other.0[i]))
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] - other.0[i]))
    }
    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i].mul_add_if_fast(factor.0[i], addend.0[i])))
    }
    #[inline(always)]
    unsafe fn sum(mut self) -> T {
        let mut width = N;
        while width > 1 {
            width /= 2;
            for i in 0..width {
                self.0[i] += self.0[i + width];
            }
        }
        self.0[0]
    }
    #[inline(always)]
    unsafe fn transpose(from: *const T, from_stride: usize, to: *mut T, to_stride: usize) {
        for i in 0..Self::BLOCK {
            for j in 0..Self::BLOCK {
                // SAFETY: the caller vouches for the square.
                unsafe { *to.add(j * to_stride + i) = *from.add(i * from_stride + j) }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Has, Job, Kind, Level, Plain, Simd, Vectorized};

    macro_rules! vector {
        ($V:ty: [$T:ty; $lanes:literal], $registers:literal, $splat:ident, $load:ident, $store:ident, $add:ident, $sub:ident, $mul_add:ident,
         $sum:ident, $transpose:ident, $block:literal) => {
            // SAFETY: the intrinsics read and write a vector.
            unsafe impl Simd<$T> for $V {
                const LANES: usize = $lanes;
                const REGISTERS: usize = $registers;
                const BLOCK: usize = $block;
                const FUSED: bool = true;
                #[inline(always)]
                unsafe fn splat(value: $T) -> Self {
                    // SAFETY: the caller vouches for the instructions; so in all of these.
                    unsafe { $splat(value) }
                }
                #[inline(always)]
                unsafe fn load(from: *const $T) -> Self {
                    // SAFETY: the caller vouches for the elements.
                    unsafe { $load(from) }
                }
                #[inline(always)]
                unsafe fn store(self, to: *mut $T) {
                    // SAFETY: the caller vouches for the elements.
                    unsafe { $store(to, self) }
                }
                #[inline(always)]
                unsafe fn add(self, other: Self) -> Self {
                    // SAFETY: as above.
                    unsafe { $add(self, other) }
                }
                #[inline(always)]
                unsafe fn sub(self, other: Self) -> Self {
                    // SAFETY: as above.
                    unsafe { $sub(self, other) }
                }
                #[inline(always)]
                unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
                    // SAFETY: as above.
                    unsafe { $mul_add(self, factor, addend) }
                }
                #[inline(always)]
                unsafe fn sum(self) -> $T {
                    // SAFETY: as above.
                    unsafe { $sum(self) }
                }
                #[inline(always)]
                unsafe fn transpose(from: *const $T, from_stride: usize, to: *mut $T, to_stride: usize) {
                    // SAFETY: the caller vouches for the square.
                    unsafe { $transpose(from, from_stride, to, to_stride) }
                }
            }
        };
    }

    vector!(__m512: [f32; 16], 28, _mm512_set1_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_add_ps, _mm512_sub_ps, _mm512_fmadd_ps, _mm512_reduce_add_ps, transpose_ps, 8);
    vector!(__m256: [f32; 8], 12, _mm256_set1_ps, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_add_ps, _mm256_sub_ps, _mm256_fmadd_ps, sum_ps, transpose_ps, 8);
    vector!(__m256d: [f64; 4], 12, _mm256_set1_pd, _mm256_loadu_pd, _mm256_storeu_pd, _mm256_add_pd, _mm256_sub_pd, _mm256_fmadd_pd, sum_pd, transpose_pd, 4);

    #[target_feature(enable = "avx2,fma")]
    fn avx2<T, V: Simd<T>, J: Job<T>>(job: J) {
        // SAFETY: only called where the processor has these features.
        job.run::<V>(unsafe { Has::new() });
    }

    #[target_feature(enable = "avx2,fma,avx512f,avx512vl")]
    fn avx512<J: Job<f32>>(job: J) {
        // SAFETY: as above.
        job.run::<__m512>(unsafe { Has::new() });
    }

    type PlainF32 = Plain<f32, 4>;
    type PlainF64 = Plain<f64, 2>;

    impl Vectorized for f32 {
        fn lanes(level: Level) -> usize {
            match level.0 {
                Kind::Baseline => PlainF32::LANES,
                Kind::Avx2 => __m256::LANES,
                Kind::Avx512 => __m512::LANES,
            }
        }
        fn registers(level: Level) -> usize {
            match level.0 {
                Kind::Baseline => PlainF32::REGISTERS,
                Kind::Avx2 => <__m256 as Simd<f32>>::REGISTERS,
                Kind::Avx512 => <__m512 as Simd<f32>>::REGISTERS,
            }
        }
        #[inline]
        fn run<J: Job<f32>>(level: Level, job: J) {
            match level.0 {
                // SAFETY: a `Level` of this kind is only made where the processor has these features.
                Kind::Avx512 => unsafe { avx512(job) },
                _ => Self::run_narrow(level, job),
            }
        }
        #[inline]
        fn run_narrow<J: Job<f32>>(level: Level, job: J) {
            match level.0 {
                // SAFETY: the baseline is what every processor of the target has.
                Kind::Baseline => job.run::<PlainF32>(unsafe { Has::new() }),
                // SAFETY: a `Level` of these kinds is only made where the processor has these features.
                Kind::Avx2 | Kind::Avx512 => unsafe { avx2::<f32, __m256, J>(job) },
            }
        }
        #[inline]
        fn run_plain<J: Job<f32>>(level: Level, job: J) {
            Self::run(level, job);
        }
    }

    /// No copies for AVX-512.
    impl Vectorized for f64 {
        fn lanes(level: Level) -> usize {
            match level.0 {
                Kind::Baseline => PlainF64::LANES,
                Kind::Avx2 | Kind::Avx512 => __m256d::LANES,
            }
        }
        fn registers(level: Level) -> usize {
            match level.0 {
                Kind::Baseline => PlainF64::REGISTERS,
                Kind::Avx2 | Kind::Avx512 => <__m256d as Simd<f64>>::REGISTERS,
            }
        }
        #[inline]
        fn run<J: Job<f64>>(level: Level, job: J) {
            match level.0 {
                // SAFETY: the baseline is what every processor of the target has.
                Kind::Baseline => job.run::<PlainF64>(unsafe { Has::new() }),
                // SAFETY: a `Level` of these kinds is only made where the processor has these features.
                Kind::Avx2 | Kind::Avx512 => unsafe { avx2::<f64, __m256d, J>(job) },
            }
        }
        #[inline]
        fn run_narrow<J: Job<f64>>(level: Level, job: J) {
            Self::run(level, job);
        }
        #[inline]
        fn run_plain<J: Job<f64>>(_: Level, job: J) {
            // SAFETY: the baseline is what every processor of the target has.
            job.run::<PlainF64>(unsafe { Has::new() });
        }
    }

    #[inline(always)]
    unsafe fn sum_ps(vector: __m256) -> f32 {
        // SAFETY: the caller vouches for AVX2.
        unsafe {
            let fours = _mm_add_ps(_mm256_castps256_ps128(vector), _mm256_extractf128_ps::<1>(vector));
            let twos = _mm_add_ps(fours, _mm_movehl_ps(fours, fours));
            _mm_cvtss_f32(_mm_add_ss(twos, _mm_movehdup_ps(twos)))
        }
    }

    #[inline(always)]
    unsafe fn sum_pd(vector: __m256d) -> f64 {
        // SAFETY: the caller vouches for AVX2.
        unsafe {
            let twos = _mm_add_pd(_mm256_castpd256_pd128(vector), _mm256_extractf128_pd::<1>(vector));
            _mm_cvtsd_f64(_mm_add_sd(twos, _mm_unpackhi_pd(twos, twos)))
        }
    }

    /// 8 x 8 elements. Halves of rows are joined while they are loaded, which spares a third of the shuffles.
    #[inline(always)]
    unsafe fn transpose_ps(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
        // SAFETY: the caller vouches for AVX2 and for eight rows of eight elements on both sides.
        unsafe {
            let half = |row: usize, column: usize| _mm_loadu_ps(from.add(row * from_stride + column));
            for column in [0, 4] {
                let rows: [__m256; 4] = std::array::from_fn(|i| {
                    _mm256_insertf128_ps::<1>(_mm256_castps128_ps256(half(i, column)), half(i + 4, column))
                });
                let low = [_mm256_unpacklo_ps(rows[0], rows[1]), _mm256_unpacklo_ps(rows[2], rows[3])];
                let high = [_mm256_unpackhi_ps(rows[0], rows[1]), _mm256_unpackhi_ps(rows[2], rows[3])];
                let columns = [
                    _mm256_shuffle_ps::<0x44>(low[0], low[1]),
                    _mm256_shuffle_ps::<0xee>(low[0], low[1]),
                    _mm256_shuffle_ps::<0x44>(high[0], high[1]),
                    _mm256_shuffle_ps::<0xee>(high[0], high[1]),
                ];
                for (j, values) in columns.into_iter().enumerate() {
                    _mm256_storeu_ps(to.add((column + j) * to_stride), values);
                }
            }
        }
    }

    /// 4 x 4 elements, in the same way.
    #[inline(always)]
    unsafe fn transpose_pd(from: *const f64, from_stride: usize, to: *mut f64, to_stride: usize) {
        // SAFETY: the caller vouches for AVX2 and for four rows of four elements on both sides.
        unsafe {
            let half = |row: usize, column: usize| _mm_loadu_pd(from.add(row * from_stride + column));
            for column in [0, 2] {
                let rows: [__m256d; 2] = std::array::from_fn(|i| {
                    _mm256_insertf128_pd::<1>(_mm256_castpd128_pd256(half(i, column)), half(i + 2, column))
                });
                _mm256_storeu_pd(to.add(column * to_stride), _mm256_unpacklo_pd(rows[0], rows[1]));
                _mm256_storeu_pd(to.add((column + 1) * to_stride), _mm256_unpackhi_pd(rows[0], rows[1]));
            }
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod other {
    use super::{Has, Job, Level, Plain, Simd, Vectorized};

    macro_rules! vectorized {
        ($T:ty, $lanes:literal) => {
            impl Vectorized for $T {
                fn lanes(_: Level) -> usize {
                    $lanes
                }
                fn registers(_: Level) -> usize {
                    <Plain<$T, $lanes> as Simd<$T>>::REGISTERS
                }
                fn run<J: Job<$T>>(_: Level, job: J) {
                    // SAFETY: the baseline is what every processor of the target has.
                    job.run::<Plain<$T, $lanes>>(unsafe { Has::new() });
                }
                fn run_narrow<J: Job<$T>>(level: Level, job: J) {
                    Self::run(level, job);
                }
                fn run_plain<J: Job<$T>>(level: Level, job: J) {
                    Self::run(level, job);
                }
            }
        };
    }

    vectorized!(f32, 4);
    vectorized!(f64, 2);
}

/// What [`transpose`] does.
pub(crate) struct Transpose<'a, T> {
    pub(crate) from: &'a [T],
    pub(crate) from_stride: usize,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) to: &'a mut [T],
    pub(crate) to_stride: usize,
}

impl<T: Float> Job<T> for Transpose<'_, T> {
    #[inline(always)]
    fn run<V: Simd<T>>(self, _: Has<V>) {
        let Self { from, from_stride, rows, columns, to, to_stride } = self;
        if rows == 0 || columns == 0 {
            return;
        }
        assert!((rows - 1) * from_stride + columns <= from.len(), "a transposed matrix is cut short");
        assert!((columns - 1) * to_stride + rows <= to.len(), "no room for a transposed matrix");
        let (whole_rows, whole_columns) = (rows - rows % V::BLOCK, columns - columns % V::BLOCK);
        // SAFETY: `Has` shows the instructions; the square at (i, j) lies inside the matrices, which the assertions found inside the slices.
        let mut square = |i: usize, j: usize| unsafe {
            let (from, to) = (from.as_ptr().add(i * from_stride + j), to.as_mut_ptr().add(j * to_stride + i));
            V::transpose(from, from_stride, to, to_stride);
        };
        // Along the rows that are further apart, so that their cache lines are used whole at once.
        if from_stride > to_stride {
            for i in (0..whole_rows).step_by(V::BLOCK) {
                for j in (0..whole_columns).step_by(V::BLOCK) {
                    square(i, j);
                }
            }
        } else {
            for j in (0..whole_columns).step_by(V::BLOCK) {
                for i in (0..whole_rows).step_by(V::BLOCK) {
                    square(i, j);
                }
            }
        }
        for i in 0..rows {
            for j in if i < whole_rows { whole_columns } else { 0 }..columns {
                to[j * to_stride + i] = from[i * from_stride + j];
            }
        }
    }
}

/// `to[j * to_stride + i] = from[i * from_stride + j]` for the `rows` values of `i` and the `columns` of `j`.
pub(crate) fn transpose<T: Float>(
    from: &[T],
    from_stride: usize,
    rows: usize,
    columns: usize,
    to: &mut [T],
    to_stride: usize,
) {
    T::run(Level::detect(), Transpose { from, from_stride, rows, columns, to, to_stride });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_transposes_ragged_matrices() {
        fn check<T: Float>(level: Level) {
            for (rows, columns) in [(0, 3), (1, 1), (8, 8), (19, 13), (5, 16), (16, 5)] {
                let (from_stride, to_stride) = (columns + 3, rows + 1);
                let from: Vec<T> = (0..rows * from_stride).map(|i| T::of(i as f64)).collect();
                let mut to = vec![T::ZERO; columns * to_stride];
                T::run(level, Transpose { from: &from, from_stride, rows, columns, to: &mut to, to_stride });
                for i in 0..rows {
                    for j in 0..columns {
                        assert_eq!(
                            to[j * to_stride + i],
                            from[i * from_stride + j],
                            "{level:?} {rows} {columns}"
                        );
                    }
                }
            }
        }
        for level in Level::all() {
            check::<f32>(level);
            check::<f64>(level);
        }
    }
}
