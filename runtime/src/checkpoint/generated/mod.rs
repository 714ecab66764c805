//! Made from `proto/nnabla.proto` by `cargo run -p layerfn-proto`.

#[allow(unreachable_pub, reason = "prost-build writes `pub`")]
#[allow(dead_code, reason = "the message of a whole file is walked field by field")]
#[rustfmt::skip]
mod nnabla;

pub(super) use nnabla::{Parameter, Shape};
