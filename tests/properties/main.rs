//! Properties on random sizes.

mod convolution;
mod deformable;
mod recurrent;
mod shapes;
