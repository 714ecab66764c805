//! ONNX files that are damaged, contradict themselves or ask for too much; those that are sound are in `export.rs`.

use candle_core::{DType, Device, Tensor};
use layerfn::Rng;
use layerfn::import::Onnx;
use layerfn::prelude::*;

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 128 {
        bytes.push(value as u8 | 128);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn int(number: u64, value: i64) -> Vec<u8> {
    [varint(number << 3), varint(value as u64)].concat()
}

fn bytes(number: u64, content: impl AsRef<[u8]>) -> Vec<u8> {
    let content = content.as_ref();
    [&varint(number << 3 | 2)[..], &varint(content.len() as u64), content].concat()
}

fn node(op: &str, inputs: &[&str], outputs: &[&str]) -> Vec<u8> {
    let inputs: Vec<u8> = inputs.iter().flat_map(|name| bytes(1, name)).collect();
    let outputs: Vec<u8> = outputs.iter().flat_map(|name| bytes(2, name)).collect();
    bytes(1, [inputs, outputs, bytes(3, op), bytes(4, op)].concat())
}

fn constant(name: &str, dims: &[i64], data_type: i64, content: &[u8]) -> Vec<u8> {
    let dims: Vec<u8> = dims.iter().flat_map(|&size| int(1, size)).collect();
    bytes(5, [dims, int(2, data_type), bytes(8, name), bytes(9, content)].concat())
}

fn external(entries: &[(&str, &str)]) -> Vec<u8> {
    let entries: Vec<u8> = entries
        .iter()
        .flat_map(|(key, value)| bytes(13, [bytes(1, key), bytes(2, value)].concat()))
        .collect();
    bytes(5, [int(1, 2), int(2, 1), bytes(8, "w"), entries, int(14, 1)].concat())
}

/// A file with an input `x` and an output `y` of whatever shape.
fn file(parts: &[Vec<u8>]) -> Vec<u8> {
    let graph = [parts.concat(), bytes(11, bytes(1, "x")), bytes(12, bytes(1, "y"))].concat();
    [int(1, 10), bytes(7, graph), bytes(8, int(2, 21))].concat()
}

fn refused(parts: &[Vec<u8>]) -> String {
    Onnx::from_bytes(&file(parts)).unwrap_err().to_string()
}

fn x() -> Tensor {
    Tensor::new(&[-1f32, 2.0], &Device::Cpu).unwrap()
}

#[test]
fn graphs_are_checked_when_they_are_read() -> Result<()> {
    let sound = Onnx::from_bytes(&file(&[node("Relu", &["x"], &["y"])]))?.model()?;
    assert_eq!(sound.forward(&[x()])?[0].to_vec1::<f32>()?, [0.0, 2.0]);
    for (parts, part_of_error) in [
        (
            vec![node("Relu", &["b"], &["a"]), node("Relu", &["a"], &["b"]), node("Relu", &["a"], &["y"])],
            "must be made before",
        ),
        (vec![node("Relu", &["z"], &["y"])], "got \"z\""),
        (vec![node("Reluu", &["x"], &["y"])], "did you mean `Relu`?"),
        (vec![node("Relu", &["x"], &["z"])], "`output` must be made by a node, got \"y\""),
        (vec![node("Relu", &["x"], &["x"]), node("Relu", &["x"], &["y"])], "must belong to one value"),
        (vec![constant("w", &[1 << 40, 1 << 40], 1, &[]), node("Add", &["x", "w"], &["y"])], "`initializer`"),
        (vec![constant("w", &[-2], 1, &[]), node("Add", &["x", "w"], &["y"])], "no size below 0"),
        (vec![constant("w", &[3], 1, &[0; 8]), node("Add", &["x", "w"], &["y"])], "must have 3 elements"),
        (vec![constant("w", &[2], 8, &[0; 8]), node("Add", &["x", "w"], &["y"])], "data type"),
    ] {
        let error = refused(&parts);
        assert!(error.contains(part_of_error), "{error}");
    }
    assert!(Onnx::from_bytes(b"not an ONNX file").unwrap_err().to_string().contains("is not an ONNX file"));
    assert!(Onnx::from_bytes(&[]).unwrap_err().to_string().contains("`graph` must be in the file"));
    Ok(())
}

#[test]
fn what_is_too_large_is_an_error_of_its_node() -> Result<()> {
    let large = i64::to_le_bytes(1 << 40).repeat(2);
    for op in ["Expand", "ConstantOfShape", "Tile", "Reshape"] {
        let inputs = if op == "ConstantOfShape" { vec!["w"] } else { vec!["x", "w"] };
        let parts = [constant("w", &[2], 7, &large), node(op, &inputs, &["y"])];
        let model = Onnx::from_bytes(&file(&parts))?.model()?;
        let error = model.forward(&[x()]).unwrap_err().to_string();
        assert!(error.starts_with(op), "{error}");
    }
    Ok(())
}

#[test]
fn constants_lie_in_the_folder_of_the_file() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("inner");
    std::fs::create_dir(&inner).unwrap();
    let numbers: Vec<u8> = [5f32, 1.0, 2.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    std::fs::write(inner.join("w.bin"), &numbers).unwrap();
    std::fs::write(folder.path().join("secret.bin"), &numbers).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink("../secret.bin", inner.join("link.bin")).unwrap();
    let path = inner.join("a.onnx");
    let open = |entries: &[(&str, &str)]| {
        std::fs::write(&path, file(&[external(entries), node("Add", &["x", "w"], &["y"])])).unwrap();
        Onnx::open(&path)
    };
    let model = open(&[("location", "w.bin"), ("offset", "4"), ("length", "8")])?.model()?;
    assert_eq!(model.forward(&[x()])?[0].to_vec1::<f32>()?, [0.0, 4.0]);
    let secret = folder.path().join("secret.bin").display().to_string();
    for location in ["../secret.bin", &*secret, "link.bin", "", "missing.bin", "."] {
        let error = open(&[("location", location)]).unwrap_err().to_string();
        assert!(error.contains("must be a file"), "{error}");
    }
    for (offset, length) in [("8", "8"), ("0", "18446744073709551615"), ("-1", "8"), ("99", "0")] {
        assert!(open(&[("location", "w.bin"), ("offset", offset), ("length", length)]).is_err());
    }
    let stream = Onnx::from_bytes(&std::fs::read(&path).unwrap()).unwrap_err().to_string();
    assert!(stream.contains("a stream has none"), "{stream}");
    Ok(())
}

/// A hundred thousand nodes are read without recursion.
#[test]
fn long_graphs_are_read() -> Result<()> {
    let n = 100_000;
    let name = |i: usize| match i {
        0 => "x".to_owned(),
        i if i == n => "y".to_owned(),
        i => format!("v{i}"),
    };
    let nodes: Vec<_> = (0..n).map(|i| node("Identity", &[&name(i)], &[&name(i + 1)])).collect();
    let model = Onnx::from_bytes(&file(&nodes))?.model()?;
    assert_eq!(model.forward(&[x()])?[0].to_vec1::<f32>()?, [-1.0, 2.0]);
    Ok(())
}

#[test]
fn damage_is_an_error_or_another_network() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.onnx");
    let net = network! {
        conv(2, (3, 3), pad = 1) -> bn -> relu -> max_pool((2, 2)) -> layer_normalization -> affine(3) -> softmax(1)
    };
    net.init((2, 1, 4, 4))?.export_onnx(&path, [(2, 1, 4, 4)])?;
    let sound = std::fs::read(&path).unwrap();
    let x = Tensor::ones((2, 1, 4, 4), DType::F32, &Device::Cpu)?;
    let rng = Rng::new(3);
    let mut n_run = 0;
    for _ in 0..1500 {
        let mut damaged = sound.clone();
        for _ in 0..1 + rng.next_u32() % 3 {
            let place = rng.next_u32() as usize % damaged.len();
            damaged[place] = rng.next_u32() as u8;
        }
        if rng.next_u32().is_multiple_of(4) {
            damaged.truncate(rng.next_u32() as usize % damaged.len());
        }
        let found = Onnx::from_bytes(&damaged)
            .and_then(|file| file.model())
            .and_then(|model| model.forward_t(std::slice::from_ref(&x), false));
        n_run += usize::from(found.is_ok());
    }
    // Most damage is in names and numbers.
    assert!((100..1500).contains(&n_run), "{n_run}");
    Ok(())
}
