//! Shared by both macros: collecting errors, reading attributes and types, checking names, printing code.

pub(crate) mod attrs;
pub(crate) mod errors;
pub(crate) mod names;
pub(crate) mod print;
pub(crate) mod types;
