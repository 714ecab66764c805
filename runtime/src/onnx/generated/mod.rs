//! Made from `proto/onnx.proto` by `cargo run -p layerfn-proto`.

#[allow(unreachable_pub, reason = "prost-build writes `pub`")]
#[allow(clippy::derive_partial_eq_without_eq, reason = "prost-build derives what it can")]
#[rustfmt::skip]
mod onnx;

pub(crate) use onnx::*;
