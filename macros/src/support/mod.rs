//! What both macros need: gathering errors, reading attributes, printing code.

pub(crate) mod attrs;
pub(crate) mod errors;
pub(crate) mod print;
