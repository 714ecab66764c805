//! Writes the Rust code of the wire messages.
fn main() {}
