//! Files that NNabla wrote.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device};
use layerfn::ParameterStore;
use layerfn::checkpoint::{Checkpoint, Load};
use serde::Deserialize;

use crate::{bits_of, bytes, fixtures};

#[derive(Deserialize)]
struct Manifest {
    sets: HashMap<String, Set>,
}

#[derive(Deserialize)]
struct Set {
    files: Vec<String>,
    expected: String,
    parameters: Vec<Described>,
}

#[derive(Deserialize)]
struct Described {
    path: String,
    shape: Vec<usize>,
    need_grad: bool,
    dtype: String,
}

fn manifest() -> Manifest {
    serde_json::from_slice(&std::fs::read(fixtures().join("checkpoints.json")).unwrap()).unwrap()
}

/// Fails unless the flags are those of the manifest. In a file that holds the network too, what was fixed may be trained:
/// building the network registered it once more. All such files of a set have the same flags.
fn check_flags(file: &str, checkpoint: &Checkpoint, set: &Set, with_network: &mut Option<Vec<bool>>) {
    let flags: Vec<_> = checkpoint.entries().iter().map(|entry| entry.need_grad().unwrap()).collect();
    let described: Vec<_> = set.parameters.iter().map(|parameter| parameter.need_grad).collect();
    if !checkpoint.losses(layerfn::checkpoint::Format::Npz).iter().any(|loss| loss.contains("network")) {
        return assert_eq!(flags, described, "{file}");
    }
    assert_eq!(with_network.get_or_insert_with(|| flags.clone()), &flags, "{file}");
    assert!(flags.iter().zip(described).all(|(flag, described)| *flag >= described), "{file}: {flags:?}");
}

fn known(file: &Path) -> bool {
    layerfn::checkpoint::Format::from_path(file).is_ok()
}

#[test]
fn nnabla_files_load_with_equal_values_order_and_flags() {
    let (folder, mut passed, mut skipped) = (fixtures(), 0, 0);
    for (name, set) in manifest().sets {
        let mut with_network = None;
        let expected = candle_core::safetensors::load(folder.join(&set.expected), &Device::Cpu).unwrap();
        for file in &set.files {
            if !known(&folder.join(file)) {
                println!("skipped: {file}");
                skipped += 1;
                continue;
            }
            let checkpoint =
                Checkpoint::open(folder.join(file)).unwrap_or_else(|error| panic!("{name}: {error}"));
            let paths: Vec<_> = checkpoint.entries().iter().map(|entry| entry.path()).collect();
            let described: Vec<_> = set.parameters.iter().map(|parameter| parameter.path.as_str()).collect();
            assert_eq!(paths, described, "{file}");
            check_flags(file, &checkpoint, &set, &mut with_network);
            for (entry, described) in checkpoint.entries().iter().zip(&set.parameters) {
                let (path, tensor) = (entry.path(), entry.tensor());
                assert_eq!(tensor.dims(), described.shape, "{file} {path}");
                let dtype = match described.dtype.as_str() {
                    _ if !file.ends_with(".h5") && !file.ends_with(".nnp") => DType::F32,
                    "float32" => DType::F32,
                    "float64" => DType::F64,
                    "int32" => DType::I32,
                    other => panic!("{other}"),
                };
                assert_eq!(tensor.dtype(), dtype, "{file} {path}");
                let values = expected[path].to_dtype(dtype).unwrap();
                assert_eq!(bytes(tensor), bytes(&values), "{file} {path}");
            }
            passed += 1;
        }
    }
    println!("checkpoints: {passed} passed, 0 failed, {skipped} skipped");
    assert!(passed >= 16);
}

#[test]
fn nnabla_files_fill_an_empty_store_and_one_that_has_them() {
    for (_, set) in manifest().sets {
        for name in set.files.iter().filter(|name| known(Path::new(name))) {
            let file = fixtures().join(name);
            let store = ParameterStore::new();
            let report = store.load_parameters(&file).unwrap();
            assert_eq!(report.created().len(), set.parameters.len());
            let again = store.load_parameters(&file).unwrap();
            assert_eq!((again.created().len(), again.updated().len()), (0, set.parameters.len()));
            assert!(again.missing().is_empty() && again.converted().is_empty());
            let checkpoint = Checkpoint::open(&file).unwrap();
            for (described, entry) in set.parameters.iter().zip(checkpoint.entries()) {
                let parameter = store.get(&described.path).unwrap();
                assert_eq!(parameter.var().dims(), described.shape);
                assert_eq!(Some(parameter.need_grad()), entry.need_grad());
            }
            // The strict rules have nothing to say either.
            let strict = Load::new(Checkpoint::open(&file).unwrap());
            assert_eq!(store.enter(|| strict.apply()).unwrap().updated().len(), set.parameters.len());
        }
    }
}

#[test]
fn protobuf_is_written_byte_for_byte_as_nnabla_does() {
    for (name, set) in manifest().sets {
        for file in
            set.files.iter().filter(|file| file.ends_with(".protobuf") && !file.starts_with("model_net"))
        {
            let checkpoint = Checkpoint::open(fixtures().join(file)).unwrap();
            let written = checkpoint.to_bytes(layerfn::checkpoint::Format::Protobuf).unwrap();
            assert!(written == std::fs::read(fixtures().join(file)).unwrap(), "{name}");
        }
    }
}

#[test]
fn files_of_other_writers_keep_their_types() {
    let folder = fixtures().join("others");
    let mut names: Vec<_> = match std::fs::read_dir(&folder) {
        Ok(files) => files.map(|file| file.unwrap().path()).filter(|file| known(file)).collect(),
        Err(_) => return println!("skipped: {}", folder.display()),
    };
    names.sort();
    let expected = bits_of(&Checkpoint::open(folder.join("expected.safetensors")).unwrap());
    for file in names {
        let read = bits_of(&Checkpoint::open(&file).unwrap_or_else(|error| panic!("{error}")));
        for (path, dtype, dims, _, values) in &read {
            let wanted = expected.iter().find(|wanted| wanted.0 == *path);
            let wanted = wanted.unwrap_or_else(|| panic!("{}: {path}", file.display()));
            assert_eq!(
                (dtype, dims, values),
                (&wanted.1, &wanted.2, &wanted.4),
                "{}: {path}",
                file.display()
            );
        }
        assert!(!read.is_empty());
    }
}
