//! Recorded fixtures, calls of layers described in JSON, and comparison of tensors.

pub mod collectives;
pub mod compare;
pub mod elementwise;
pub mod fixtures;
pub mod functions;
pub mod layers;
pub mod parallel;
