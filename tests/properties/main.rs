//! Properties on random sizes.

mod convolution;
