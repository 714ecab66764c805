//! Properties on random sizes.

mod attention;
mod convolution;
mod deformable;
mod recurrent;
mod shapes;
