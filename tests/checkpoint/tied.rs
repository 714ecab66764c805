//! A variable that has several paths is one variable in a file, too.

use candle_core::{Device, Tensor, Var};
use layerfn::checkpoint::{Checkpoint, Difference, Format, Load};
use layerfn::solver::{Sgd, Solver};
use layerfn::training::TrainState;
use layerfn::{Parameter, ParameterStore, Result, backward};

/// The formats that can say that two paths are of one variable.
const TYING: [Format; 4] = [Format::Hdf5, Format::Nnp, Format::Npz, Format::Safetensors];

fn var(values: &[f32]) -> Var {
    Var::new(values, &Device::Cpu).unwrap()
}

/// `encoder/W` and `decoder/W` are one variable, `decoder/b` has equal values and is another.
fn tied() -> ParameterStore {
    let store = ParameterStore::new();
    let w = var(&[1., 2.]);
    store.set("encoder/W", Parameter::new(w.clone(), true)).unwrap();
    store.set("decoder/b", Parameter::new(var(&[1., 2.]), true)).unwrap();
    store.set("decoder/W", Parameter::new(w, false)).unwrap();
    store
}

fn apart() -> ParameterStore {
    let store = ParameterStore::new();
    for (path, need_grad) in [("encoder/W", true), ("decoder/b", true), ("decoder/W", false)] {
        store.set(path, Parameter::new(var(&[0., 0.]), need_grad)).unwrap();
    }
    store
}

fn is_tied(store: &ParameterStore) -> bool {
    let id = |path| store.get(path).unwrap().var().id();
    assert_ne!(id("encoder/W"), id("decoder/b"));
    id("encoder/W") == id("decoder/W")
}

fn bytes(format: Format) -> Vec<u8> {
    Checkpoint::from_parameters(&tied().parameters()).unwrap().to_bytes(format).unwrap()
}

fn load(format: Format) -> Load {
    Load::new(Checkpoint::from_bytes(format, &bytes(format)).unwrap())
}

#[test]
fn files_keep_it() {
    for format in TYING {
        let checkpoint = Checkpoint::from_bytes(format, &bytes(format)).unwrap();
        assert_eq!(checkpoint.tied(), [["encoder/W", "decoder/W"]], "{format:?}");
        let flags: Vec<_> = checkpoint.entries().iter().map(|entry| entry.need_grad()).collect();
        assert_eq!(flags, [Some(true), Some(true), Some(false)]);
        for other in TYING {
            let again = Checkpoint::from_bytes(other, &checkpoint.to_bytes(other).unwrap()).unwrap();
            assert_eq!(again.tied(), checkpoint.tied(), "{format:?} {other:?}");
            assert!(checkpoint.losses(other).iter().all(|loss| !loss.contains("one variable")));
        }
        let losses = checkpoint.losses(Format::Protobuf);
        let line = "`encoder/W`, `decoder/W` are one variable; each becomes a separate variable";
        assert!(losses.iter().any(|loss| loss == line), "{losses:?}");
    }
}

#[test]
fn an_empty_store_gets_one_variable() -> Result<()> {
    for format in TYING {
        let store = ParameterStore::new();
        load(format).create_unknown(true).apply_to(&store, "")?;
        assert!(is_tied(&store), "{format:?}");
        let w = store.get("encoder/W").unwrap();
        let mut solver = Sgd::new(1.0);
        solver.set_parameters(&store.parameters());
        solver.update(&backward(&w.var().sum_all()?)?)?;
        assert_eq!(store.get("decoder/W").unwrap().var().to_vec1::<f32>()?, [0., 1.]);
        assert_eq!(store.get("decoder/b").unwrap().var().to_vec1::<f32>()?, [1., 2.]);
    }
    // From another store, whose variables stay with it.
    let (source, store) = (tied(), ParameterStore::new());
    let copy = Load::new(Checkpoint::from_parameters(&source.parameters())?);
    copy.create_unknown(true).apply_to(&store, "")?;
    assert!(is_tied(&store));
    assert_ne!(store.get("encoder/W").unwrap().var().id(), source.get("encoder/W").unwrap().var().id());
    Ok(())
}

#[test]
fn a_store_with_one_of_the_paths_ties_the_other_to_it() -> Result<()> {
    for (present, made) in [("encoder/W", "decoder/W"), ("decoder/W", "encoder/W")] {
        let store = ParameterStore::new();
        store.set(present, Parameter::new(var(&[0., 0.]), true))?;
        let before = store.get(present).unwrap().var().id();
        let report = Load::like_nnabla(Checkpoint::from_bytes(Format::Hdf5, &bytes(Format::Hdf5))?)
            .apply_to(&store, "")?;
        assert!(report.created().iter().any(|path| path == made) && is_tied(&store));
        let w = store.get(made).unwrap();
        assert_eq!((w.var().id(), w.var().to_vec1::<f32>()?), (before, vec![1., 2.]));
    }
    Ok(())
}

#[test]
fn a_store_that_has_two_variables_is_told() -> Result<()> {
    let store = apart();
    let error = load(Format::Safetensors).apply_to(&store, "").unwrap_err().to_string();
    assert!(error.contains("`decoder/W` is one variable with `encoder/W` in the file"), "{error}");
    assert!(error.contains("ParameterStore::set"), "{error}");
    assert_eq!(store.get("encoder/W").unwrap().var().to_vec1::<f32>()?, [0., 0.]);
    let problems = store.enter(|| load(Format::Npz).plan())?.problems().to_vec();
    let (path, other) = ("decoder/W".to_owned(), "encoder/W".to_owned());
    assert_eq!(problems, [Difference::Untied { path: path.clone(), other: other.clone() }]);

    // The rules of NNabla load the values and say so.
    let checkpoint = Checkpoint::from_bytes(Format::Npz, &bytes(Format::Npz))?;
    let report = Load::like_nnabla(checkpoint).apply_to(&store, "")?;
    assert_eq!(report.untied(), [(path, other)]);
    let shown = report.to_string();
    assert!(shown.contains("`decoder/W` and `encoder/W` are one variable in the file, not here"), "{shown}");
    assert!(!is_tied(&store));

    // The way out that the error names.
    store.set("decoder/W", Parameter::new(store.get("encoder/W").unwrap().var().clone(), false))?;
    load(Format::Safetensors).apply_to(&store, "")?;
    assert!(is_tied(&store));
    Ok(())
}

#[test]
fn a_training_resumes_with_it() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    for extension in ["h5", "safetensors"] {
        let file = folder.path().join("state").with_extension(extension);
        TrainState::new().with("model", &tied()).save(&file)?;
        let store = ParameterStore::new();
        TrainState::new().with("model", &store).load(&file)?;
        assert!(is_tied(&store), "{extension}");
        assert!(TrainState::new().with("model", &apart()).load(&file).is_err());
        TrainState::new().with("model", &tied()).load(&file)?;
    }
    Ok(())
}

/// A file whose tie was damaged or edited by a program that does not know of it.
#[test]
fn different_values_of_one_variable_are_an_error() {
    let error = |format, bytes: &[u8]| Checkpoint::from_bytes(format, bytes).unwrap_err().to_string();
    let mut bytes = bytes(Format::Safetensors);
    let end = bytes.len();
    bytes[end - 1] ^= 1;
    let told = error(Format::Safetensors, &bytes);
    assert!(told.contains("`encoder/W` and `decoder/W` are one variable in the file"), "{told}");

    let values = [("a", Tensor::new(&[1f32], &Device::Cpu)), ("b", Tensor::new(&[1f64], &Device::Cpu))];
    let values = values.map(|(path, tensor)| (path, tensor.unwrap()));
    let file = |tied: &str| {
        let metadata = [("layerfn.tied".to_owned(), tied.to_owned())].into_iter().collect();
        safetensors::tensor::serialize(values.iter().map(|(path, tensor)| (*path, tensor)), Some(metadata))
            .unwrap()
    };
    for (tied, expected) in [
        (r#"[["a","b"]]"#, "`b` and `a` are one variable in the file"),
        (r#"[["a","c"]]"#, "`layerfn.tied` names `c`, which the file does not have"),
        (r#"{"a":"b"}"#, "the metadata `layerfn.tied` is damaged"),
    ] {
        let told = error(Format::Safetensors, &file(tied));
        assert!(told.contains(expected), "{told}");
    }
    assert!(Checkpoint::from_bytes(Format::Safetensors, &file("[]")).unwrap().tied().is_empty());
}
