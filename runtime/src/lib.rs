//! Declarative neural-network layers.

extern crate self as layerfn;

mod dims;
mod error;
mod mode;

pub use dims::{Dims, PerAxis};
pub use error::{Error, Result};
pub use mode::{is_training, test_mode, train_mode};
