//! CPU loops over slices: they know neither tensors nor parameters.
//!
//! Results never depend on the number of threads: work is cut into chunks whose number and order follow from the
//! sizes alone, and every sum is taken in a fixed order.

mod channels;
mod convolution;
mod depthwise;
mod float;
mod gemm;
mod parallel;
mod window;

pub(crate) use channels::channel_sums;
pub(crate) use convolution::Convolution;
pub(crate) use float::Float;
pub(crate) use window::Window;
