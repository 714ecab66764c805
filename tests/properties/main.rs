//! Properties on random sizes.

mod convolution;
mod recurrent;
mod shapes;
