//! The innermost loop: a tile of the result in registers.
#![allow(unsafe_code)] // tiles work on raw memory

use std::array;

use super::super::Float;
use super::super::simd::{Has, Job, Level, Simd, prefetch};
use super::pack::{Line, PACKED_ROWS};

/// Rows of the right matrix that a tile asks for before it copies them: each lies on a page of its own where the rows are
/// long, so the processor does not guess them.
const AHEAD: usize = 24;

/// The most columns of a tile.
pub(super) const MAX_PANEL: usize = 48;

/// Registers from which tiles are wide.
const WIDE_FROM: usize = 24;

/// Whether the processor has registers for tiles of 8 rows and 3 vectors instead of 6 and 2.
pub(super) fn is_wide<T: Float>(level: Level) -> bool {
    T::registers(level) >= WIDE_FROM
}

/// [`Start`](super::Start) at a tile.
#[derive(Clone, Copy)]
pub(super) enum First<T> {
    Zero,
    Kept,
    Columns(*const T),
    Rows(*const T),
}

/// `k` steps of the sums of a tile.
#[derive(Clone, Copy)]
pub(super) struct Tile<T> {
    pub(super) k: usize,
    pub(super) a: *const T,
    pub(super) a_row: usize,
    pub(super) a_depth: usize,
    pub(super) b: *const T,
    pub(super) b_stride: usize,
    /// Where `PACK` copies what it reads of `b`.
    pub(super) packed: *mut T,
    pub(super) c: *mut T,
    pub(super) c_stride: usize,
    /// Columns that are written.
    pub(super) width: usize,
    pub(super) start: First<T>,
}

impl<T: Float> Tile<T> {
    /// Computes `n_rows` rows. `pack` copies the panel, which then is as wide as panels are; `is_packed` says that the left
    /// matrix has been packed.
    ///
    /// # Safety
    /// All that the pointers reach with these sizes is valid, and what is written belongs to this tile. `b` is not
    /// `packed` if that is written.
    pub(super) unsafe fn run(self, level: Level, n_rows: usize, pack: bool, is_packed: bool) {
        macro_rules! run {
            ($vectors:literal, $pack:literal: $($rows:literal)+) => {
                match (n_rows, is_packed) {
                    $(($rows, false) => T::run(level, Fixed::<T, $rows, $vectors, $pack, false>(self)),)+
                    $(($rows, true) => T::run(level, Fixed::<T, $rows, $vectors, $pack, true>(self)),)+
                    _ => unreachable!("a tile has no such height"),
                }
            };
        }
        // No more vectors than the columns want: a product of few columns, and the last ones of any.
        match (is_wide::<T>(level), pack, self.width.div_ceil(T::lanes(level))) {
            (true, true, _) => run!(3, true: 1 2 3 4 5 6 7 8),
            (true, false, 1) => run!(1, false: 1 2 3 4 5 6 7 8),
            (true, false, 2) => run!(2, false: 1 2 3 4 5 6 7 8),
            (true, false, _) => run!(3, false: 1 2 3 4 5 6 7 8),
            (false, true, _) => run!(2, true: 1 2 3 4 5 6),
            (false, false, 1) => run!(1, false: 1 2 3 4 5 6),
            (false, false, _) => run!(2, false: 1 2 3 4 5 6),
        }
    }
}

/// A tile of `R` rows and `C` vectors. `PACK` copies the panel, `PACKED` says that the left matrix has been packed.
struct Fixed<T, const R: usize, const C: usize, const PACK: bool, const PACKED: bool>(Tile<T>);

impl<T: Float, const R: usize, const C: usize, const PACK: bool, const PACKED: bool> Job<T>
    for Fixed<T, R, C, PACK, PACKED>
{
    #[inline(always)]
    fn run<V: Simd<T>>(self, _: Has<V>) {
        const { assert!(R <= PACKED_ROWS && C * V::LANES <= MAX_PANEL) };
        let Tile { k, a, a_row, a_depth, b, b_stride, packed, c, c_stride, width, start } = self.0;
        if V::REGISTERS < WIDE_FROM && (C == 3 || R > 6) {
            unreachable!("tiles of this size are for other processors");
        }
        let [a_row, a_depth] = if PACKED { [1, PACKED_ROWS] } else { [a_row, a_depth] };
        let line = size_of::<Line>() / size_of::<T>();
        let b_ahead = b.wrapping_add(AHEAD * b_stride);
        // SAFETY: `Has` shows the instructions; who has called `Tile::run` vouches for what is read and written.
        unsafe {
            let mut sums = [[V::splat(T::ZERO); C]; R];
            for i in 0..R {
                let row = c.wrapping_add(i * c_stride);
                for j in (0..C * V::LANES).step_by(line) {
                    prefetch(row.wrapping_add(j));
                }
                prefetch(row.wrapping_add(C * V::LANES - 1)); // one line more where the row is not aligned
            }
            for d in 0..k {
                let b: [V; C] = array::from_fn(|j| V::load(b.add(d * b_stride + j * V::LANES)));
                if PACK {
                    let row = b_ahead.wrapping_add(d * b_stride);
                    for j in (0..C * V::LANES).step_by(line) {
                        // At the ends of the lines: where the row is not aligned, the panel before has read the first one.
                        prefetch(row.wrapping_add(j + line - 1));
                    }
                    for (j, b) in b.iter().enumerate() {
                        b.store(packed.add((d * C + j) * V::LANES));
                    }
                }
                for (i, sums) in sums.iter_mut().enumerate() {
                    let a = V::splat(*a.add(i * a_row + d * a_depth));
                    for (sum, b) in sums.iter_mut().zip(b) {
                        *sum = a.mul_add(b, *sum);
                    }
                }
            }
            if width == C * V::LANES {
                let one = V::splat(T::ONE);
                for (i, sums) in sums.into_iter().enumerate() {
                    for (j, sum) in sums.into_iter().enumerate() {
                        let to = c.add(i * c_stride + j * V::LANES);
                        let sum = match start {
                            First::Zero => sum,
                            First::Kept => sum.mul_add(one, V::load(to)),
                            First::Columns(values) => sum.mul_add(one, V::load(values.add(j * V::LANES))),
                            First::Rows(values) => sum.mul_add(one, V::splat(*values.add(i))),
                        };
                        sum.store(to);
                    }
                }
                return;
            }
            let mut row = [T::ZERO; MAX_PANEL];
            for (i, sums) in sums.into_iter().enumerate() {
                for (j, sum) in sums.into_iter().enumerate() {
                    sum.store(row[j * V::LANES..].as_mut_ptr());
                }
                for (j, sum) in row[..width].iter().enumerate() {
                    let to = c.add(i * c_stride + j);
                    *to = match start {
                        First::Zero => *sum,
                        First::Kept => *to + *sum,
                        First::Columns(values) => *values.add(j) + *sum,
                        First::Rows(values) => *values.add(i) + *sum,
                    };
                }
            }
        }
    }
}
