//! How files come to be.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use layerfn::checkpoint::{Checkpoint, Format};
use layerfn::{ParameterStore, load_parameters, save_parameters};

use crate::{bits_of, put, var, zoo, zoo_of_f32};

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
        // A store takes none of them.
        let parameter = layerfn::Parameter::new(var(vec![1_f32], &[1]), true);
        let error = store.set(path, parameter).unwrap_err().to_string();
        assert!(error.contains("path"), "{error}");
    }
}

#[test]
fn a_deep_path_comes_back_from_every_format() {
    let path = vec!["s"; 300].join("/");
    let store = ParameterStore::new();
    put(&store, &path, var(vec![1_f32], &[1]), true);
    let checkpoint = Checkpoint::from_parameters(&store.parameters()).unwrap();
    for format in
        [Format::Hdf5, Format::Nnp, Format::Protobuf, Format::Text, Format::Npz, Format::Safetensors]
    {
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

/// The file in which a writer in `folder` is writing, if there is one.
fn unfinished(folder: &Path) -> Option<PathBuf> {
    let mut files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    files.find(|file| file.file_name().unwrap().to_str().unwrap().starts_with(".layerfn-"))
}

#[test]
fn a_killed_writer_leaves_a_whole_file() {
    let folder = tempfile::tempdir().unwrap();
    let states = [crate::bits_in(&state(0)), crate::bits_in(&state(1))];
    for format in crate::FORMATS {
        let file = folder.path().join("model").with_extension(format.extension());
        state(0).save_parameters(&file).unwrap();
        #[cfg(unix)]
        fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let (mut killed, mut while_writing) = (0, 0);
        while while_writing < 3 {
            killed += 1;
            assert!(killed < 100, "{format:?}: no writer was caught while it wrote");
            let mut writer = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "save::writer_to_be_killed", "--nocapture"])
                .env("LAYERFN_TEST_WRITE_TO", &file)
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap();
            // It writes from its first file on until it is killed.
            while unfinished(folder.path()).is_none() {
                assert!(writer.try_wait().unwrap().is_none(), "{format:?}: the writer ended");
                std::thread::sleep(std::time::Duration::from_micros(200));
            }
            std::thread::sleep(std::time::Duration::from_micros(500 * killed % 20_000));
            writer.kill().unwrap();
            writer.wait().unwrap();
            if let Some(left) = unfinished(folder.path()) {
                // What replaces a private file is private from the start.
                #[cfg(unix)]
                assert_eq!(mode(&left), 0o600);
                fs::remove_file(left).unwrap();
                while_writing += 1;
            }
            let read = bits_of(&Checkpoint::open(&file).unwrap());
            assert!(states.contains(&read), "{format:?}");
        }
    }
}

#[cfg(unix)]
fn mode(file: &Path) -> u32 {
    std::os::unix::fs::PermissionsExt::mode(&fs::metadata(file).unwrap().permissions()) & 0o777
}

#[cfg(unix)]
#[test]
fn a_link_to_nothing_stays_a_link() {
    use std::os::unix::fs::symlink;
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("inner")).unwrap();
    for extension in Format::extensions() {
        let path = |name: &str| folder.path().join(name).with_extension(extension);
        symlink(Path::new("inner/second").with_extension(extension), path("first")).unwrap();
        symlink(Path::new("../target").with_extension(extension), path("inner/second")).unwrap();
        single(var(vec![1_f32], &[1])).save_parameters(path("first")).unwrap();
        for link in ["first", "inner/second"] {
            assert!(fs::symlink_metadata(path(link)).unwrap().is_symlink());
        }
        assert!(fs::symlink_metadata(path("target")).unwrap().is_file());
        assert_eq!(Checkpoint::open(path("first")).unwrap().entries().len(), 1);
    }
}

#[cfg(unix)]
#[test]
fn only_ordinary_files_are_opened() {
    let folder = tempfile::tempdir().unwrap();
    for extension in Format::extensions() {
        let path = |name: &str| folder.path().join(name).with_extension(extension);
        let made = std::process::Command::new("mkfifo").arg(path("pipe")).status().unwrap();
        assert!(made.success());
        fs::create_dir(path("folder")).unwrap();
        for (file, kind) in
            [(path("pipe"), ErrorKind::InvalidInput), (path("folder"), ErrorKind::IsADirectory)]
        {
            // Nobody writes to the pipe: whoever waits for that waits for ever.
            let (send, receive) = std::sync::mpsc::channel();
            let opened = file.clone();
            let store = single(var(vec![1_f32], &[1]));
            std::thread::spawn(move || {
                let _ = send.send((Checkpoint::open(&opened), store.save_parameters(&opened)));
            });
            let (opened, saved) = receive.recv_timeout(std::time::Duration::from_secs(60)).unwrap();
            for error in [opened.unwrap_err(), saved.unwrap_err()] {
                assert!(error.to_string().ends_with("it is not an ordinary file"), "{error}");
                assert_eq!(class(&error), Some(kind));
            }
        }
    }
}

/// The class of the system's error behind `error`.
fn class(error: &(dyn std::error::Error + 'static)) -> Option<ErrorKind> {
    let chain = std::iter::successors(Some(error), |error| error.source());
    chain.filter_map(|error| error.downcast_ref::<std::io::Error>()).map(std::io::Error::kind).next()
}

#[test]
fn errors_of_streams_keep_their_class() {
    struct Broken(ErrorKind);
    impl std::io::Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(self.0.into())
        }
    }
    impl std::io::Write for Broken {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Err(self.0.into())
        }
    }
    let checkpoint = Checkpoint::from_parameters(&zoo_of_f32().parameters()).unwrap();
    for format in crate::FORMATS {
        for kind in [
            ErrorKind::StorageFull,
            ErrorKind::ConnectionReset,
            ErrorKind::InvalidData,
            ErrorKind::UnexpectedEof,
            ErrorKind::Other,
        ] {
            assert_eq!(class(&Checkpoint::from_reader(format, Broken(kind)).unwrap_err()), Some(kind));
            assert_eq!(
                class(&checkpoint.to_writer(format, Broken(kind)).unwrap_err()),
                Some(kind),
                "{format:?}"
            );
        }
        let missing = Path::new("/no/such/model").with_extension(format.extension());
        assert_eq!(class(&Checkpoint::open(&missing).unwrap_err()), Some(ErrorKind::NotFound));
        assert_eq!(class(&checkpoint.save(&missing).unwrap_err()), Some(ErrorKind::NotFound));
    }
}

/// Not a test of its own: what `a_full_disk_is_told_once` starts.
#[test]
fn writer_without_room() {
    let Some(file) = std::env::var_os("LAYERFN_TEST_NO_ROOM") else { return };
    println!("told: {}", state(0).save_parameters(&file).unwrap_err());
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_told_once() {
    let folder = tempfile::tempdir().unwrap();
    for format in [Format::Npz, Format::Safetensors, Format::Protobuf, Format::Text] {
        let file = folder.path().join("model").with_extension(format.extension());
        // Without the signal, a file that grows too large is an error of its writer.
        let output = std::process::Command::new("sh")
            .args([
                "-c",
                "trap '' XFSZ; ulimit -f 64; exec \"$0\" --exact save::writer_without_room --nocapture",
            ])
            .arg(std::env::current_exe().unwrap())
            .env("LAYERFN_TEST_NO_ROOM", &file)
            .output()
            .unwrap();
        let (told, noise) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{format:?}: {told} {noise}");
        let expected = format!("told: cannot write `{}`: ", file.display());
        assert!(told.contains(&expected), "{format:?}: {told}");
        assert_eq!(noise, "", "{format:?}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "{format:?}");
    }
}

/// An archive with a network, parameters in its text and a member of somebody else.
fn archive() -> Vec<u8> {
    let text = "# by hand\nnetwork {\n  name: \"parameter { }\"\n}\n\
        parameter {\n  variable_name: \"old/w\"\n  shape { dim: 1 }\n  data: 2\n}\n\
        executor { name: 'run' parameter_variable { variable_name: \"old/w\" } }\n\
        parameter: < variable_name: \"old/b\" shape { dim: 1 } data: 3 need_grad: true >\n";
    crate::damage::zip_of(
        &[("nnp_version.txt", b"0.1\n"), ("network.nntxt", text.as_bytes()), ("notes.bin", &[7; 5])],
        true,
    )
}

#[test]
fn parameters_in_the_text_of_an_nnp_are_written_once() {
    let folder = tempfile::tempdir().unwrap();
    let [file, renamed] = ["a.nnp", "b.nnp"].map(|name| folder.path().join(name));
    fs::write(&file, archive()).unwrap();
    Checkpoint::open(&file).unwrap().rename(&[("old/**", "new/**")]).unwrap().save(&renamed).unwrap();
    let read = Checkpoint::open(&renamed).unwrap();
    let paths: Vec<_> = read.entries().iter().map(|entry| (entry.path(), entry.need_grad())).collect();
    assert_eq!(paths, [("new/w", Some(false)), ("new/b", Some(true))]);
    let mut archive = zip::ZipArchive::new(fs::File::open(&renamed).unwrap()).unwrap();
    let mut member = |name: &str| {
        let mut content = Vec::new();
        std::io::copy(&mut archive.by_name(name).unwrap(), &mut content).unwrap();
        content
    };
    let kept = "# by hand\nnetwork {\n  name: \"parameter { }\"\n}\n\n\
        executor { name: 'run' parameter_variable { variable_name: \"old/w\" } }\n\n";
    assert_eq!(String::from_utf8(member("network.nntxt")).unwrap(), kept);
    assert_eq!(member("notes.bin"), [7; 5]);
}

#[test]
fn a_network_is_never_lost_unsaid() {
    let folder = tempfile::tempdir().unwrap();
    let [file, other] = ["a.nnp", "b.nnp"].map(|name| folder.path().join(name));
    let cut = |bytes: &[u8]| bytes[..bytes.len() - 30].to_vec();
    // The archive that is replaced is damaged.
    fs::write(&file, cut(&archive())).unwrap();
    let error = single(var(vec![1_f32], &[1])).save_parameters(&file).unwrap_err().to_string();
    assert!(
        error.contains("holds besides parameters cannot be kept") && error.contains("remove it"),
        "{error}"
    );
    assert_eq!(fs::read(&file).unwrap(), cut(&archive()));
    // One in which nothing is, as a temporary file has it, holds nothing to keep.
    fs::write(&file, b"").unwrap();
    single(var(vec![1_f32], &[1])).save_parameters(&file).unwrap();
    // The archive that was read is damaged by now, or gone.
    fs::write(&file, archive()).unwrap();
    let read = Checkpoint::open(&file).unwrap();
    fs::write(&file, cut(&archive())).unwrap();
    let error = read.save(&other).unwrap_err().to_string();
    assert!(error.contains("a.nnp` holds besides parameters cannot be kept"), "{error}");
    fs::remove_file(&file).unwrap();
    let error = read.save(&other).unwrap_err();
    assert!(error.to_string().contains("a.nnp` holds besides parameters cannot be kept"), "{error}");
    assert_eq!(class(&error), Some(ErrorKind::NotFound));
    read.to_bytes(Format::Nnp).unwrap_err();
    assert!(!other.exists());
    read.save(folder.path().join("b.npz")).unwrap();
}

#[test]
fn flags_that_nobody_knows_stay_unknown() {
    let header = r#"{"bn/mean":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 4]].concat();
    let read = Checkpoint::from_bytes(Format::Safetensors, &bytes).unwrap();
    let read = read.rename(&[("bn/**", "norm/**")]).unwrap();
    for format in [Format::Npz, Format::Safetensors] {
        let written = Checkpoint::from_bytes(format, &read.to_bytes(format).unwrap()).unwrap();
        assert_eq!(written.entries()[0].path(), "norm/mean");
        assert_eq!(written.entries()[0].need_grad(), None, "{format:?}");
    }
}
