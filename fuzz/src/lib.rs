//! What every reader of checkpoints must do with any bytes; `README.md` says how to run it.

pub use layerfn::checkpoint::Format;

use layerfn::checkpoint::Checkpoint;

/// Reads `bytes`: they are refused, or hold parameters in proportion to their length that stay what they are when
/// they are written and read again.
///
/// # Panics
/// If not.
pub fn read(format: Format, bytes: &[u8]) {
    let Ok(first) = Checkpoint::from_bytes(format, bytes) else { return };
    let size = |tensor: &layerfn::prelude::Tensor| tensor.elem_count() * tensor.dtype().size_in_bytes();
    let total: usize = first.entries().iter().map(|entry| size(entry.tensor())).sum();
    // What deflate can unpack, and the integers that tensors hold in the next wider type.
    assert!(total <= bytes.len() * 2 * 1032, "{total} bytes of values out of {}", bytes.len());
    // A format may have no room for a path that another allows.
    let Ok(written) = first.to_bytes(format) else { return };
    let second = Checkpoint::from_bytes(format, &written).expect("what was written is read");
    if let (Ok(first), Ok(second)) =
        (first.to_bytes(Format::Safetensors), second.to_bytes(Format::Safetensors))
    {
        assert!(first == second, "writing and reading changed the parameters");
    }
}
