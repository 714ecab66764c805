//! What the example programs share.

pub mod architectures;
pub mod digits;
pub mod pictures;
