//! Differentiable functions: tensors in, tensors out; no parameters, no scope.
//!
//! What NNabla calls `F.*`, as far as layers need it. Each function has its own gradient, since several of candle's
//! are wrong or missing; inputs may be `f32`, `f64`, `f16` or `bf16` (the half precisions are computed in `f32`) and need
//! not be contiguous. Bad input is an [`Error`](crate::Error), never a panic. Results do not depend on the number of
//! threads.

mod convolution;
mod geometry;
mod node;

pub use convolution::{convolution, deconvolution};
pub use geometry::{ConvGeometry, DeconvGeometry};
