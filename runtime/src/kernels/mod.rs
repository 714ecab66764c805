//! CPU loops over slices: they know neither tensors nor parameters.
//!
//! Results never depend on the number of threads: work is cut into chunks whose number and order follow from the
//! sizes alone, and every sum is taken in a fixed order. Long sums of `f32` go into `f64` by and by, so that their last
//! digits do not drown.

mod attention;
pub(crate) mod blend;
pub(crate) mod cell;
mod channels;
mod convolution;
pub(crate) mod cuda;
mod deformable;
mod elementwise;
mod float;
mod gemm;
mod join;
mod lookup;
mod math;
mod memory;
mod parallel;
pub(crate) mod places;
mod pool;
mod pooling;
mod position;
mod products;
pub(crate) mod reduce;
mod rows;
mod simd;
mod softmax;
mod spread;
mod sum;
mod update;
mod window;

pub(crate) use attention::{Attention, Mask, Masks, Order};
pub(crate) use channels::{Channels, channel_sums, sum};
pub(crate) use convolution::Convolution;
pub(crate) use deformable::Sampling;
pub(crate) use elementwise::{
    combine, combine_piece, combine_piece_with, for_each_piece, map_in_place, zip, zip_in_place,
};
pub(crate) use float::Float;
pub(crate) use gemm::{Mat, MatMut, Start, Threads, gemm};
pub(crate) use join::{join, part};
pub(crate) use lookup::{gather_rows, scatter_add_rows};
pub(crate) use memory::unfilled;
pub use memory::with_memory_of;
pub use pool::with_threads;
pub(crate) use pooling::{Divisor, max_pool, max_pool_gradient, sum_pool, sum_pool_gradient};
pub(crate) use position::{Positions, add_positions, angle, rotate, sum_positions};
pub(crate) use products::{Matrices, products};
pub(crate) use rows::{Moments, Rows};
pub use simd::level;
pub(crate) use simd::transpose;
pub(crate) use softmax::{
    Lanes, cross_entropy, cross_entropy_gradient, log_softmax, log_softmax_gradient, pick, put_back, softmax,
    softmax_gradient,
};
pub(crate) use spread::Spread;
pub(crate) use update::{largest, norm, norms, update};
pub(crate) use window::Window;
