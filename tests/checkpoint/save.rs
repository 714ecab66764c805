//! How files come to be.

use std::fs;

use layerfn::checkpoint::{Checkpoint, Format};
use layerfn::{ParameterStore, load_parameters, save_parameters};

use crate::{bits_of, put, var, zoo};

#[test]
fn protobuf_refuses_what_f32_would_change() {
    let cases: [(&str, ParameterStore); 3] = [
        ("0.1 as F64", single(var(vec![0.5_f64, 0.1], &[2]))),
        ("16777217 as I32", single(var(vec![16_777_217], &[1]))),
        ("9223372036854775807 as I64", single(var(vec![i64::MAX], &[1]))),
    ];
    for (shown, store) in cases {
        let checkpoint = Checkpoint::from_parameters(&store.parameters()).unwrap();
        let error = checkpoint.to_bytes(Format::Protobuf).unwrap_err().to_string();
        assert_eq!(
            error,
            format!(
                "`a stream`: `p` holds {shown}, which the format's f32 would change; \
                 save as .h5 or .safetensors, or allow rounding"
            )
        );
        checkpoint.allow_rounding(true).to_bytes(Format::Protobuf).unwrap();
    }
    for exact in [single(var(vec![0.5_f64], &[1])), single(var(vec![i64::MIN, 1 << 40], &[2]))] {
        Checkpoint::from_parameters(&exact.parameters()).unwrap().to_bytes(Format::Protobuf).unwrap();
    }
}

#[test]
fn text_keeps_the_bits_of_a_nan_in_a_comment() {
    let store = single(var(vec![f32::from_bits(0xffc0_1234), f32::NAN], &[2]));
    let bytes = Checkpoint::from_parameters(&store.parameters()).unwrap().to_bytes(Format::Text).unwrap();
    let text = std::str::from_utf8(&bytes).unwrap();
    assert!(text.contains("  data: nan # 0xffc01234\n  data: nan\n"), "{text}");
}

#[test]
fn an_nnp_keeps_the_network_it_held() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.nnp");
    fs::copy(crate::fixtures().join("model.nnp"), &file).unwrap();
    let store = single(var(vec![1_f32], &[1]));
    store.save_parameters(&file).unwrap();
    let read = Checkpoint::open(&file).unwrap();
    assert_eq!(read.entries().iter().map(|entry| entry.path()).collect::<Vec<_>>(), ["p"]);
    let old = fs::read(crate::fixtures().join("model.nnp")).unwrap();
    let new = fs::read(&file).unwrap();
    let network = |bytes: &[u8]| bytes.windows(8).filter(|window| *window == b"network ").count();
    assert!(network(&old) > 0 && network(&old) == network(&new));
    // Into another archive, it goes along.
    let other = folder.path().join("other.nnp");
    Checkpoint::open(&file).unwrap().save(&other).unwrap();
    assert_eq!(network(&fs::read(&other).unwrap()), network(&old));
}

#[test]
fn what_an_nnp_holds_besides_parameters_is_named_as_a_loss() {
    let archive = crate::fixtures().join("model.nnp");
    let read = Checkpoint::open(&archive).unwrap();
    assert!(read.losses(Format::Nnp).is_empty());
    assert_eq!(read.losses(Format::Hdf5), ["`network.nntxt` of the archive"]);
    // A stream leaves no archive to copy it from.
    let read = Checkpoint::from_bytes(Format::Nnp, &fs::read(&archive).unwrap()).unwrap();
    assert_eq!(read.losses(Format::Nnp), ["`network.nntxt` of the archive"]);
    let written = read.to_bytes(Format::Nnp).unwrap();
    assert!(Checkpoint::from_bytes(Format::Nnp, &written).unwrap().losses(Format::Hdf5).is_empty());
}

#[test]
fn what_a_message_holds_besides_parameters_is_named_as_a_loss() {
    for file in ["model_net.protobuf", "model_net.nntxt"] {
        let read = Checkpoint::open(crate::fixtures().join(file)).unwrap();
        for format in crate::FORMATS {
            let expected = ["`executor` of the message", "`network` of the message"];
            let mut losses = read.losses(format);
            losses.sort();
            assert_eq!(losses, expected, "{file} {format:?}");
        }
    }
}

#[test]
fn metadata_of_safetensors_stays_or_is_named_as_a_loss() {
    let header = r#"{"__metadata__":{"format":"pt","by":"\"me\""},"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}"#;
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 4]].concat();
    let read = Checkpoint::from_bytes(Format::Safetensors, &bytes).unwrap();
    assert!(read.losses(Format::Safetensors).is_empty());
    assert_eq!(read.losses(Format::Npz), ["`by` of the metadata", "`format` of the metadata"]);
    let written = read.to_bytes(Format::Safetensors).unwrap();
    let (_, metadata) = safetensors::SafeTensors::read_metadata(&written).unwrap();
    let metadata = metadata.metadata().as_ref().unwrap();
    assert_eq!((metadata["format"].as_str(), metadata["by"].as_str()), ("pt", "\"me\""));
    assert!(
        Checkpoint::from_bytes(Format::Safetensors, &written).unwrap().losses(Format::Safetensors).is_empty()
    );
}

fn single(var: candle_core::Var) -> ParameterStore {
    let store = ParameterStore::new();
    put(&store, "p", var, true);
    store
}

#[test]
fn an_error_leaves_the_old_file_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.protobuf");
    fs::write(&file, b"old").unwrap();
    single(var(vec![0.1_f64], &[1])).save_parameters(&file).unwrap_err();
    assert_eq!(fs::read(&file).unwrap(), b"old");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn paths_that_files_cannot_carry_are_refused() {
    for path in ["a/../b", "./a", "a/.", "a\0b"] {
        let store = ParameterStore::new();
        put(&store, path, var(vec![1_f32], &[1]), true);
        let error = Checkpoint::from_parameters(&store.parameters()).unwrap_err().to_string();
        assert!(error.contains("the path"), "{error}");
    }
}

#[test]
fn a_deep_path_is_refused_where_it_could_not_be_read_again() {
    let path = vec!["s"; 300].join("/");
    let store = ParameterStore::new();
    put(&store, &path, var(vec![1_f32], &[1]), true);
    let checkpoint = Checkpoint::from_parameters(&store.parameters()).unwrap();
    assert!(checkpoint.to_bytes(Format::Hdf5).unwrap_err().to_string().contains("deeper"));
    for format in [Format::Protobuf, Format::Text, Format::Npz, Format::Safetensors] {
        let read = Checkpoint::from_bytes(format, &checkpoint.to_bytes(format).unwrap()).unwrap();
        assert_eq!(bits_of(&read), bits_of(&checkpoint));
    }
}

#[test]
fn safetensors_are_candles_and_aligned() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.safetensors");
    let store = zoo();
    store.save_parameters(&file).unwrap();
    let read = candle_core::safetensors::load(&file, &candle_core::Device::Cpu).unwrap();
    for (path, parameter) in store.parameters().iter() {
        assert_eq!(crate::bytes(&read[path]), crate::bytes(parameter.var().as_tensor()), "{path}");
    }
}

#[test]
fn saving_into_a_missing_folder_or_onto_one_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("no/model.h5");
    let error = save_parameters(&missing).unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot write `{}`: ", missing.display())), "{error}");
    let directory = folder.path().join("d.h5");
    fs::create_dir(&directory).unwrap();
    let error = save_parameters(&directory).unwrap_err().to_string();
    assert!(error.ends_with("it is not an ordinary file"), "{error}");
    load_parameters(&directory).unwrap_err();
}

#[cfg(unix)]
#[test]
fn permissions_and_links_are_those_of_an_ordinary_write() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let folder = tempfile::tempdir().unwrap();
    let mode = |file: &std::path::Path| fs::metadata(file).unwrap().permissions().mode() & 0o777;
    for extension in Format::extensions() {
        let file = folder.path().join("model").with_extension(extension);
        let usual = folder.path().join("usual");
        fs::write(&usual, b"").unwrap();
        save_parameters(&file).unwrap();
        assert_eq!(mode(&file), mode(&usual));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        save_parameters(&file).unwrap();
        assert_eq!(mode(&file), 0o640);
        let link = folder.path().join("link").with_extension(extension);
        symlink(&file, &link).unwrap();
        save_parameters(&link).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }
}

/// Not a test of its own: what `a_killed_writer_leaves_a_whole_file` starts and kills.
#[test]
fn writer_to_be_killed() {
    let Some(file) = std::env::var_os("LAYERFN_TEST_WRITE_TO") else { return };
    for round in 0.. {
        state(round).save_parameters(&file).unwrap();
    }
}

/// One of two states, large enough that writing takes its time.
fn state(round: usize) -> ParameterStore {
    let store = ParameterStore::new();
    for i in 0..8 {
        put(
            &store,
            &format!("p{i}"),
            var(vec![(round % 2) as f32; 50_000], &[50_000]),
            round.is_multiple_of(2),
        );
    }
    store
}

#[test]
fn a_killed_writer_leaves_a_whole_file() {
    let folder = tempfile::tempdir().unwrap();
    let states = [crate::bits_in(&state(0)), crate::bits_in(&state(1))];
    for format in crate::FORMATS {
        let file = folder.path().join("model").with_extension(format.extension());
        state(0).save_parameters(&file).unwrap();
        for pause in [1, 5, 17, 30, 55, 90] {
            let mut writer = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "save::writer_to_be_killed", "--nocapture"])
                .env("LAYERFN_TEST_WRITE_TO", &file)
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap();
            std::thread::sleep(std::time::Duration::from_millis(pause));
            writer.kill().unwrap();
            writer.wait().unwrap();
            let read = bits_of(&Checkpoint::open(&file).unwrap());
            assert!(states.contains(&read), "{format:?} after {pause} ms");
        }
    }
}
