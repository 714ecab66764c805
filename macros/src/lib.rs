//! The macros of [`layerfn`](https://docs.rs/layerfn), which re-exports and documents them.
