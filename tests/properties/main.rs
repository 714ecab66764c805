//! Properties on random sizes.

mod convolution;
mod shapes;
