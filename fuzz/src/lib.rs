//! What every reader of checkpoints must do with any bytes; `README.md` says how to run it.

pub use layerfn::checkpoint::Format;

use layerfn::checkpoint::Checkpoint;
use layerfn::import::Onnx;
use layerfn::nnp::Nnp;
use layerfn::prelude::{DType, Device, Tensor};

/// Opens `bytes` as a file of networks and makes a model of each: refused or done, within the limits of the run. What is opened
/// is the same after it is written and read again.
///
/// # Panics
/// If not.
pub fn networks(format: Format, bytes: &[u8]) {
    let Ok(first) = Nnp::from_bytes(format, bytes) else { return };
    for name in first.networks() {
        let _ = first.network(name).and_then(|network| network.model());
    }
    for name in first.executors() {
        let _ = first.executor(name);
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (once, twice) = (folder.path().join("once.nntxt"), folder.path().join("twice.nntxt"));
    // What the text form cannot hold is refused.
    if first.save(&once).is_ok() {
        Nnp::open(&once).and_then(|second| second.save(&twice)).expect("what was written is read");
        assert!(std::fs::read(once).unwrap() == std::fs::read(twice).unwrap(), "writing and reading changed the file");
    }
}

/// Reads `bytes` as an ONNX file, makes a model of it, and runs that on ones: refused or done.
pub fn onnx(bytes: &[u8]) {
    let Ok(model) = Onnx::from_bytes(bytes).and_then(|file| file.model()) else { return };
    let sizes = model.inputs().iter().map(|input| input.dims().iter().try_fold(1_usize, |n, &size| n.checked_mul(size)));
    if sizes.sum::<Option<usize>>().is_none_or(|n| n > 1 << 20) {
        return;
    }
    let inputs = model.inputs().iter().map(|input| Tensor::ones(input.dims(), DType::F32, &Device::Cpu));
    let inputs = inputs.collect::<Result<Vec<_>, _>>().expect("small tensors");
    let _ = model.forward_t(&inputs, false);
}

/// Opens `bytes` as a file of PyTorch: refused, or parameters in proportion to their length.
///
/// # Panics
/// If not.
pub fn pt(bytes: &[u8]) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("state.pt");
    std::fs::write(&path, bytes).expect("a file");
    let Ok(read) = Checkpoint::open(&path) else { return };
    let total: usize = read.entries().iter().map(|entry| size(entry.tensor())).sum();
    assert!(total <= bytes.len() * 2 * 8 * 1032, "{total} bytes of values out of {}", bytes.len());
    let _ = read.to_bytes(Format::Safetensors);
}

fn size(tensor: &Tensor) -> usize {
    tensor.elem_count() * tensor.dtype().size_in_bytes()
}

/// Reads `bytes`: they are refused, or hold parameters in proportion to their length that stay what they are when
/// they are written and read again.
///
/// # Panics
/// If not.
pub fn read(format: Format, bytes: &[u8]) {
    let Ok(first) = Checkpoint::from_bytes(format, bytes) else { return };
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
