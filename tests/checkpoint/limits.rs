//! What is too deep, too long or too large is refused by readers and writers alike, at no price.

use layerfn::ParameterStore;
use layerfn::checkpoint::{Checkpoint, Format, Load};

use crate::damage::{npy, small, survives, zip_of};
use crate::{FORMATS, LOSSLESS, bits_of, put, var};

/// A file of this format with one number at `path`, by hand.
fn file_at(format: Format, path: &str) -> Option<Vec<u8>> {
    let varint = |mut value: usize| {
        let mut bytes = Vec::new();
        while value >= 0x80 {
            bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        bytes.push(value as u8);
        bytes
    };
    match format {
        Format::Safetensors => {
            let header = format!(r#"{{"{path}":{{"dtype":"F32","shape":[],"data_offsets":[0,4]}}}}"#);
            Some([&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 4]].concat())
        }
        Format::Text => Some(format!("parameter {{ variable_name: \"{path}\" data: 1 }}").into_bytes()),
        Format::Protobuf => {
            let body =
                [&[0x0a][..], &varint(path.len()), path.as_bytes(), &[0xa2, 6, 4, 0, 0, 0, 0]].concat();
            Some([&[0xc2, 0x0c][..], &varint(body.len()), &body].concat())
        }
        Format::Npz => {
            let array = npy("{'descr': '<f4', 'fortran_order': False, 'shape': ()}", &[0; 4]);
            Some(zip_of(&[(&format!("{path}.npy"), &array)], false))
        }
        _ => None,
    }
}

#[test]
fn paths_have_a_limit_everywhere() {
    let deep = "a/".repeat(1000) + "a";
    let long = "n".repeat(4097);
    // Longer than any file of NumPy can have it.
    let (deeper, longer) = ("a/".repeat(30_000) + "a", "n".repeat(65_000));
    for (path, expected) in [
        (&deep, "has 1001 parts; at most 1000 are allowed"),
        (&long, "is 4097 bytes long; at most 4096 are allowed"),
        (&deeper, "is 60001 bytes long"),
        (&longer, "is 65000 bytes long"),
    ] {
        for format in FORMATS {
            let Some(bytes) = file_at(format, path) else { continue };
            let error = Checkpoint::from_bytes(format, &bytes).unwrap_err().to_string();
            assert!(error.contains(expected), "{format:?}: {error}");
            assert!(error.len() < 1000, "{format:?}: {} bytes", error.len());
        }
    }
    // They cannot be reached by other names either.
    let read = Checkpoint::from_bytes(Format::Npz, &file_at(Format::Npz, "a").unwrap()).unwrap();
    assert!(read.rename(&[("a", &long)]).unwrap_err().to_string().contains("is 4097 bytes long"));
    let read = || Checkpoint::from_bytes(Format::Npz, &file_at(Format::Npz, "a").unwrap()).unwrap();
    let error =
        ParameterStore::new().enter(|| Load::like_nnabla(read()).rename("a", &deep).apply()).unwrap_err();
    assert!(error.to_string().contains("has 1001 parts"), "{error}");
}

#[test]
fn what_the_limits_allow_passes_through_every_format() {
    let store = ParameterStore::new();
    put(&store, &"n".repeat(4096), var(vec![1_f32], &[1]), true);
    put(&store, &("é".repeat(100) + "/" + &"s/".repeat(200) + "W"), var(vec![1_f32], &[1]), false);
    put(&store, "axes", var(vec![1_f32, 2.0], &[&[1; 31][..], &[2]].concat()), true);
    let checkpoint = Checkpoint::from_parameters(&store.parameters()).unwrap();
    for format in FORMATS {
        let bytes = checkpoint.to_bytes(format).unwrap_or_else(|error| panic!("{format:?}: {error}"));
        let read =
            Checkpoint::from_bytes(format, &bytes).unwrap_or_else(|error| panic!("{format:?}: {error}"));
        assert_eq!(bits_of(&read), bits_of(&checkpoint), "{format:?}");
    }
}

#[test]
fn nothing_is_saved_that_could_not_be_read() {
    for (path, shape) in [(&*"n".repeat(4097), 1), (&"a/".repeat(1000), 1), ("axes", 33)] {
        let store = ParameterStore::new();
        let path = if path.ends_with('/') { format!("{path}W") } else { path.to_owned() };
        if store.set(&path, layerfn::Parameter::new(var(vec![1_f32], &vec![1; shape]), true)).is_ok() {
            let error = Checkpoint::from_parameters(&store.parameters()).unwrap_err().to_string();
            assert!(error.contains("are allowed") && error.len() < 1000, "{error}");
        }
    }
}

#[test]
fn axes_have_a_limit_everywhere() {
    for axes in [33, 30_000] {
        let shape = "1,".repeat(axes);
        let array = npy(&format!("{{'descr': '<f4', 'fortran_order': True, 'shape': ({shape})}}"), &[0; 4]);
        let header = format!(
            r#"{{"a":{{"dtype":"F32","shape":[{}],"data_offsets":[0,4]}}}}"#,
            shape.trim_end_matches(',')
        );
        let dims =
            [&[0x0a, 1, b'a', 0xa2, 1][..], &[axes as u8 + 2, 0x0a, axes as u8], &vec![1; axes]].concat();
        for (format, bytes) in [
            (Format::Npz, zip_of(&[("a.npy", &array)], true)),
            (
                Format::Safetensors,
                [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 4]].concat(),
            ),
            (
                Format::Text,
                format!(
                    "parameter {{ variable_name: \"a\" shape {{ dim: [{}] }} data: 1 }}",
                    &shape[..2 * axes - 1]
                )
                .into_bytes(),
            ),
            (
                Format::Protobuf,
                [&[0xc2, 0x0c, dims.len() as u8 + 7][..], &dims, &[0xa2, 6, 4, 0, 0, 0, 0]].concat(),
            ),
        ] {
            if format == Format::Protobuf && axes > 100 {
                continue;
            }
            let error = Checkpoint::from_bytes(format, &bytes).unwrap_err().to_string();
            assert!(
                error.contains(&format!("has {axes} axes; at most 32 are allowed")),
                "{format:?}: {error}"
            );
            assert!(error.len() < 1000);
        }
    }
}

/// Damage of many kinds: bytes overwritten, taken out, doubled and moved.
fn damaged(bytes: &[u8], random: &mut impl FnMut() -> usize) -> Vec<u8> {
    let mut damaged = bytes.to_vec();
    for _ in 0..1 + random() % 4 {
        let length = damaged.len().max(1);
        let start = random() % length;
        let end = (start + 1 + random() % 16).min(damaged.len());
        if start >= end {
            continue;
        }
        match random() % 5 {
            0 => damaged[start..end].fill([0, 0xff, 0x7f, 1][random() % 4]),
            1 => drop(damaged.drain(start..end)),
            2 => {
                let run = damaged[start..end].repeat(1 + random() % 64);
                damaged.splice(start..start, run);
            }
            3 => damaged[start] ^= 1 << (random() % 8),
            _ => {
                let run: Vec<u8> = damaged.drain(start..end).collect();
                let place = random() % (damaged.len() + 1);
                damaged.splice(place..place, run);
            }
        }
    }
    damaged
}

/// Not a test of its own: what `damaged_files_stay_within_their_means` starts.
#[test]
fn reader_of_damaged_files() {
    let Ok(rounds) = std::env::var("LAYERFN_TEST_DAMAGED_FILES") else { return };
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    for format in FORMATS {
        let sound = small(format);
        for round in 0..rounds.parse().unwrap() {
            let bytes = match format {
                // Inside the checksum.
                Format::Npz if round % 2 == 0 => {
                    let header = "{'descr': '<f4', 'fortran_order': True, 'shape': (2, 1, 3), }";
                    zip_of(&[("a/b.npy", &damaged(&npy(header, &[0; 24]), &mut random))], true)
                }
                _ => damaged(&sound, &mut random),
            };
            if survives(format, &bytes) {
                let read = Checkpoint::from_bytes(format, &bytes).unwrap();
                let store = ParameterStore::new();
                let _ = Load::like_nnabla(read).apply_to(&store, "");
                assert!(Checkpoint::from_parameters(&store.parameters()).is_ok());
            }
        }
    }
    println!("all were read or refused");
}

#[cfg(target_os = "linux")]
#[test]
fn damaged_files_stay_within_their_means() {
    // More rounds, when somebody has the time.
    let rounds = std::env::var("LAYERFN_FUZZ_ROUNDS").unwrap_or_else(|_| "300".to_owned());
    let output = std::process::Command::new("sh")
        .args([
            "-c",
            "ulimit -v 700000; exec timeout 600 \"$0\" --exact limits::reader_of_damaged_files --nocapture",
        ])
        .arg(std::env::current_exe().unwrap())
        .env("LAYERFN_TEST_DAMAGED_FILES", rounds)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("all were read or refused"),
        "{} {said} {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn the_other_types_have_the_same_limits() {
    let store = ParameterStore::new();
    put(&store, &"n".repeat(4096), var(vec![1_i64], &[1; 32]), true);
    let checkpoint = Checkpoint::from_parameters(&store.parameters()).unwrap();
    for format in LOSSLESS {
        let read = Checkpoint::from_bytes(format, &checkpoint.to_bytes(format).unwrap()).unwrap();
        assert_eq!(bits_of(&read), bits_of(&checkpoint), "{format:?}");
    }
}
