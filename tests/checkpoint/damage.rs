//! Damaged and hostile files: a clean error, nothing else.

use layerfn::checkpoint::{Checkpoint, Format};

use crate::{FORMATS, bits_of, fixtures, put, var};

/// A file small enough to damage everywhere.
pub(crate) fn small(format: Format) -> Vec<u8> {
    let store = layerfn::ParameterStore::new();
    put(&store, "conv/W", var(vec![1_f32, 2.0, 3.0, 4.0], &[2, 2]), true);
    put(&store, "conv/b", var(vec![0.5_f32], &[]), false);
    put(&store, "n", var(Vec::<f32>::new(), &[0, 2]), false);
    Checkpoint::from_parameters(&store.parameters()).unwrap().to_bytes(format).unwrap()
}

/// A damaged file gives an error or parameters, within its means.
pub(crate) fn survives(format: Format, bytes: &[u8]) -> bool {
    match Checkpoint::from_bytes(format, bytes) {
        Ok(checkpoint) => {
            let total: usize = bits_of(&checkpoint).iter().map(|bits| bits.4.len()).sum();
            assert!(total <= bytes.len() * 1032, "{format:?}: {total} bytes out of {}", bytes.len());
            true
        }
        Err(error) => {
            let text = error.to_string();
            assert!(!text.is_empty() && text.len() < 2000, "{format:?}: {} bytes", text.len());
            false
        }
    }
}

#[test]
fn truncated_at_every_offset() {
    for format in FORMATS {
        let bytes = small(format);
        let whole = (0..bytes.len()).filter(|&length| survives(format, &bytes[..length])).collect::<Vec<_>>();
        match format {
            // A message may end after any parameter, and text before its last blank.
            Format::Protobuf | Format::Text => assert!(whole.len() <= 6, "{whole:?}"),
            _ => assert!(whole.is_empty(), "{format:?}: {whole:?}"),
        }
        assert!(survives(format, &bytes));
    }
}

#[test]
fn nnabla_files_truncated() {
    for (format, file) in
        [(Format::Hdf5, "scalar.h5"), (Format::Hdf5, "order.h5"), (Format::Protobuf, "order.protobuf")]
    {
        let bytes = std::fs::read(fixtures().join(file)).unwrap();
        let step = bytes.len() / 700 + 1;
        for length in (0..bytes.len()).step_by(step) {
            survives(format, &bytes[..length]);
        }
    }
}

#[test]
fn every_byte_flipped() {
    for format in FORMATS {
        let bytes = small(format);
        for position in 0..bytes.len() {
            for flip in if bytes.len() > 4000 { &[0xff][..] } else { &[0x01, 0x80, 0xff] } {
                let mut damaged = bytes.clone();
                damaged[position] ^= flip;
                survives(format, &damaged);
            }
        }
    }
}

#[test]
fn several_bytes_overwritten() {
    // So many seconds for each format, when somebody has the time.
    let longer = std::env::var("LAYERFN_FUZZ_SECONDS").map_or(0, |seconds| seconds.parse().unwrap());
    let longer = std::time::Duration::from_secs(longer);
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for format in FORMATS {
        let bytes = small(format);
        let started = std::time::Instant::now();
        for round in 0.. {
            if round >= 1000 && started.elapsed() >= longer {
                println!("{format:?}: {round} damaged files");
                break;
            }
            let mut damaged = bytes.clone();
            for _ in 0..1 + random() % 4 {
                let position = random() as usize % damaged.len();
                let value = [random() as u8, 0, 0xff, 0x7f, 1][random() as usize % 5];
                // Runs of one value make huge sizes out of length fields.
                let end = (position + 1 + random() as usize % 8).min(damaged.len());
                damaged[position..end].fill(value);
            }
            survives(format, &damaged);
        }
    }
}

fn refused(format: Format, bytes: &[u8], expected: &str) {
    let error = Checkpoint::from_bytes(format, bytes).unwrap_err().to_string();
    assert!(error.contains(expected), "{error}");
}

#[test]
fn protobuf_that_lies() {
    let format = Format::Protobuf;
    let wrap = |body: &[u8]| [&[0xc2, 0x0c, body.len() as u8], body].concat();
    let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
    refused(format, &[&[0xc2, 0x0c], &huge[..]].concat(), "more bytes are declared");
    refused(format, &wrap(&[&[0xa2, 0x06], &huge[..]].concat()), "do not fit");
    refused(format, &wrap(&[&[0x0a], &huge[..]].concat()), "too long");
    // Dimensions whose product overflows, and a negative one.
    let shape = |dims: &[u8]| {
        wrap(&[&[0x0a, 1, b'a', 0xa2, 1, dims.len() as u8 + 2, 0x0a, dims.len() as u8], dims].concat())
    };
    refused(format, &shape(&[&huge[..], &huge[..]].concat()), "more elements than memory can hold");
    refused(format, &shape(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]), "has the size -1");
    refused(format, &shape(&[2]), "has the shape [2] and 0 values");
    // Paths.
    let named =
        |name: &str| wrap(&[&[0x0a, name.len() as u8], name.as_bytes(), &[0xa2, 6, 4, 0, 0, 0, 0]].concat());
    for name in ["", "/etc/passwd", "../up", "a/../../b", "a//b", "a/", "."] {
        refused(format, &named(name), "the path");
    }
    refused(format, &[named("a"), named("a")].concat(), "`a` occurs twice");
    refused(format, &wrap(&[0x0a, 1, 0xff, 0xa2, 6, 4, 0, 0, 0, 0]), "parameter 0 at byte 2");
    refused(format, &[0x0b], "a group where a field is expected");
    refused(format, &[0xff; 11], "more than 64 bits");
}

#[test]
fn protobuf_accepts_what_the_wire_allows() {
    // Unpacked values and sizes, unknown fields, a value in two runs.
    let body = [
        &[0x0a, 1, b'a', 0xa2, 1, 2, 0x08, 3][..],
        &[0xa5, 0x06, 0, 0, 0x80, 0x3f],
        &[0xf8, 0x07, 1],
        &[0xa2, 0x06, 4, 0, 0, 0, 0x40],
        &[0xa2, 0x06, 4, 0, 0, 0x40, 0x40],
    ]
    .concat();
    let bytes = [&[0x0a, 1, b'1', 0xc2, 0x0c, body.len() as u8], &body[..]].concat();
    let read = Checkpoint::from_bytes(Format::Protobuf, &bytes).unwrap();
    assert_eq!(read.entries()[0].tensor().to_vec1::<f32>().unwrap(), [1.0, 2.0, 3.0]);
    assert_eq!(read.entries()[0].need_grad(), Some(false));
}

#[test]
fn safetensors_that_lie() {
    let format = Format::Safetensors;
    let with_header = |header: &str, data: &[u8]| {
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
    };
    refused(format, &u64::MAX.to_le_bytes(), "100 MB are allowed");
    refused(format, &(99_000_000_u64).to_le_bytes(), "more bytes are declared");
    refused(format, &with_header("[]", b""), "the header is damaged");
    refused(format, &with_header(&"[".repeat(100_000), b""), "the header is damaged");
    refused(
        format,
        &with_header(
            r#"{"a":{"dtype":"F32","shape":[9223372036854775807,4],"data_offsets":[0,4]}}"#,
            &[0; 4],
        ),
        "damaged",
    );
    refused(
        format,
        &with_header(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}"#, &[0; 4]),
        "damaged",
    );
    refused(
        format,
        &with_header(r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#, &[0; 8]),
        "damaged",
    );
    refused(
        format,
        &with_header(r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#, &[0; 8]),
        "4 bytes of values are declared, 8 are there",
    );
    refused(
        format,
        &with_header(r#"{"../a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#, &[0; 4]),
        "means a folder",
    );
    refused(
        format,
        &with_header(r#"{"a":{"dtype":"C64","shape":[1],"data_offsets":[0,4]}}"#, &[0; 4]),
        "damaged",
    );
    let twice = r#"{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#;
    refused(format, &with_header(twice, b""), "`a` occurs twice");
    let listed = r#"{"__metadata__":{"layerfn.parameters":"[[\"b\",true]]"},"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#;
    refused(format, &with_header(listed, b""), "lists `b` twice or without values");
}

#[test]
fn safetensors_of_others_have_the_order_of_their_values() {
    let header = r#"{"b":{"dtype":"U16","shape":[1],"data_offsets":[4,6]},"__metadata__":{"format":"pt"},"c":{"dtype":"BOOL","shape":[2],"data_offsets":[6,8]},"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}"#;
    let bytes =
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0, 0, 128, 63, 255, 255, 0, 1]]
            .concat();
    let read = Checkpoint::from_bytes(Format::Safetensors, &bytes).unwrap();
    let paths: Vec<_> = read.entries().iter().map(|entry| (entry.path(), entry.need_grad())).collect();
    assert_eq!(paths, [("a", None), ("b", None), ("c", None)]);
    assert_eq!(read.get("b").unwrap().tensor().to_vec1::<i32>().unwrap(), [65535]);
    assert_eq!(read.get("c").unwrap().tensor().to_vec1::<u8>().unwrap(), [0, 1]);
}

#[test]
fn text_that_lies() {
    let format = Format::Text;
    let parameter = |body: &str| format!("parameter {{ variable_name: \"a\" {body} }}").into_bytes();
    refused(format, &parameter("shape { dim: 2 } data: 1"), "has the shape [2] and 1 values");
    refused(format, &parameter("shape { dim: -2 } data: 1"), "line 1: a size is expected, `-` found");
    refused(format, &parameter("data: 1 data: x"), "line 1: a number is expected, `x` found");
    refused(
        format,
        &parameter("shape { dim: 9223372036854775807 dim: 4 }"),
        "more elements than memory can hold",
    );
    refused(format, b"parameter {\n variable_name: \"a\n", "line 2: the end of a string is expected");
    refused(format, b"parameter { variable_name: \"\\777\" data: 1 }", "an escape");
    refused(format, b"parameter { variable_name: \"../a\" data: 1 }", "means a folder");
    refused(format, b"parameter {", "the name of a field is expected, the end found");
    refused(format, &"network {".repeat(200_000).into_bytes(), "is expected");
    refused(format, &[b"network ", &b"<".repeat(200_000)[..]].concat(), "the end of a message");
    refused(format, b"a: }", "a value is expected");
    refused(format, &[b'a', 0xff], "byte 1: the text is not UTF-8");
}

#[test]
fn text_accepts_what_the_format_allows() {
    let text = r#"
        # a comment
        version: "1" 'x'; network { name: "n # {" repeat_info: [{ id: "a" }, { id: 'b}' }] n: <x: 1> }
        [some.extension]: 3
        parameter: < variable_name: "s\x63ope/" 'W\303\251\u00e9' shape: { dim: [2, 1] } data: [1e0, -inf] need_grad: True >
        parameter { variable_name: 'nan' data: nan, unknown: -3 }
    "#;
    let read = Checkpoint::from_bytes(Format::Text, text.as_bytes()).unwrap();
    let paths: Vec<_> = read.entries().iter().map(|entry| (entry.path(), entry.need_grad())).collect();
    assert_eq!(paths, [("scope/Wéé", Some(true)), ("nan", Some(false))]);
    assert_eq!(read.entries()[0].tensor().to_vec2::<f32>().unwrap(), [[1.0], [f32::NEG_INFINITY]]);
    assert!(read.entries()[1].tensor().to_scalar::<f32>().unwrap().is_nan());
}

/// A zip file with one member.
fn zipped(name: &str, content: &[u8], deflated: bool) -> Vec<u8> {
    zip_of(&[(name, content)], deflated)
}

/// A zip file.
pub(crate) fn zip_of(members: &[(&str, &[u8])], deflated: bool) -> Vec<u8> {
    use std::io::Write;
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let method = if deflated { zip::CompressionMethod::Deflated } else { zip::CompressionMethod::Stored };
    let options = zip::write::SimpleFileOptions::default().compression_method(method);
    for (name, content) in members {
        archive.start_file(*name, options).unwrap();
        archive.write_all(content).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

pub(crate) fn npy(header: &str, data: &[u8]) -> Vec<u8> {
    [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), data].concat()
}

#[test]
fn archives_that_lie() {
    let format = Format::Npz;
    refused(format, b"PK\x05\x06", "a stream");
    refused(
        format,
        &zipped(
            "../../etc/passwd.npy",
            &npy("{'descr': '<f4', 'fortran_order': False, 'shape': ()}", &[0; 4]),
            false,
        ),
        "means a folder",
    );
    refused(
        format,
        &zipped("/a.npy", &npy("{'descr': '<f4', 'fortran_order': False, 'shape': ()}", &[0; 4]), false),
        "the path",
    );
    refused(format, &zipped("a.npy", b"\x93NUMPY\x01", false), "more bytes are declared");
    refused(
        format,
        &zipped(
            "a.npy",
            &npy("{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775807, 9)}", &[0; 4]),
            false,
        ),
        "more elements",
    );
    refused(
        format,
        &zipped(
            "a.npy",
            &npy("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999,)}", &[0; 4]),
            true,
        ),
        "more bytes are declared",
    );
    refused(
        format,
        &zipped("a.npy", &npy("{'descr': '<f4', 'fortran_order': False, 'shape': ()}", &[0; 8]), true),
        "4 bytes too many",
    );
    // Which member counts would depend on the reader.
    let store = layerfn::ParameterStore::new();
    put(&store, "a", var(vec![1_f32], &[1]), true);
    put(&store, "b", var(vec![2_f32], &[1]), true);
    let mut twice = Checkpoint::from_parameters(&store.parameters()).unwrap().to_bytes(format).unwrap();
    for at in 0..twice.len() - 5 {
        if twice[at..].starts_with(b"b.npy") {
            twice[at] = b'a';
        }
    }
    refused(format, &twice, "two members have the same name");
    // A bomb may unpack to what deflate can make of it, and only if the shape says so.
    let bomb = zipped(
        "a.npy",
        &npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}", &vec![0; 50_000_000]),
        true,
    );
    refused(format, &bomb, "bytes too many");
    refused(Format::Nnp, &zipped("parameter.h5", &[0; 100], true), "parameter.h5");
    refused(Format::Nnp, &zipped("parameter.protobuf", &[0xff; 100], true), "parameter.protobuf");
    assert!(
        Checkpoint::from_bytes(Format::Nnp, &zipped("../../escape.bin", &[0; 100], true))
            .unwrap()
            .entries()
            .is_empty()
    );
}

#[test]
fn arrays_of_numpy_in_either_order() {
    let rows = npy(
        "{'descr': '>i2', 'fortran_order': False, 'shape': (2, 3), }",
        &[0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0xff, 0xfe],
    );
    let columns = npy(
        "{'shape': (2, 3), 'fortran_order': True, 'descr': '<i2'}\n",
        &[1, 0, 4, 0, 2, 0, 5, 0, 3, 0, 0xfe, 0xff],
    );
    for array in [rows, columns] {
        for deflated in [false, true] {
            let read = Checkpoint::from_bytes(Format::Npz, &zipped("a/b.npy", &array, deflated)).unwrap();
            let values: Vec<Vec<i16>> = read.get("a/b").unwrap().tensor().to_vec2().unwrap();
            assert_eq!(values, [[1, 2, 3], [4, 5, -2]]);
            assert_eq!(read.get("a/b").unwrap().need_grad(), None);
        }
    }
}

/// Files that point outside or declare what they do not hold, and inputs that once broke a reader.
#[test]
fn the_corpus_is_read_or_refused() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/checkpoint/corpus");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    for file in files {
        let bytes = std::fs::read(&file).unwrap();
        let read = survives(Format::from_path(&file).unwrap(), &bytes);
        let harmless = [
            "attributes",
            "deep",
            "dots",
            "external_link",
            "group_loop",
            "objects",
            "resizable",
            "soft_loop",
            "shared",
            "zeros",
        ];
        let name = file.file_stem().unwrap().to_str().unwrap();
        println!("{name}: {}", if read { "read" } else { "refused" });
        // The others may be found to hold nothing that can be used.
        let entries = Checkpoint::from_bytes(Format::from_path(&file).unwrap(), &bytes)
            .map_or(0, |checkpoint| checkpoint.entries().len());
        assert!(entries == 0 || harmless.contains(&name), "{name} was read");
        assert!(!read || name != "deep" || entries == 1, "{name} was read as if it were empty");
    }
}

#[test]
fn values_in_other_files_are_never_read() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/checkpoint/corpus");
    for (file, expected) in [
        ("external_data.h5", "has its values in another file"),
        ("virtual.h5", "has its values in another file"),
        ("huge_chunks.h5", "can unpack to"),
        ("huge_compressed.h5", "can unpack to"),
        ("null.h5", "has no value"),
        ("huge_float.h5", "a table of the superblock"),
        ("lzf.h5", "filter 32000"),
        ("scale_offset.h5", "filter 6"),
        ("compound.h5", "which tensors here cannot have"),
        // The target exists in another folder only, and is not looked for.
        ("external_link.h5", "is a link into another file"),
    ] {
        match Checkpoint::open(format!("{folder}/{file}")) {
            Ok(read) => {
                let [unusable] = read.unusable() else { panic!("{file}: {:?}", read.unusable()) };
                assert!(read.entries().is_empty() && unusable.reason().contains(expected), "{unusable}");
            }
            Err(error) => assert!(error.to_string().contains(expected), "{error}"),
        }
    }
}

#[test]
fn an_archive_that_points_behind_every_file_is_refused_in_words() {
    let bytes =
        zip_of(&[("w.npy", &npy("{'descr': '<f4', 'fortran_order': False, 'shape': (), }", &[0; 4]))], false);
    let directory = bytes.windows(4).position(|window| window == b"PK\x01\x02").unwrap();
    let (members, mut listed, mut end) = (
        &bytes[..directory],
        bytes[directory..bytes.len() - 22].to_vec(),
        bytes[bytes.len() - 22..].to_vec(),
    );
    // The long form of where the member begins: behind the last byte that a file can have.
    let name = usize::from(listed[28]);
    let extra = [&[1, 0, 8, 0][..], &(1_u64 << 63).to_le_bytes()].concat();
    (listed[30], listed[31]) = (extra.len() as u8, 0);
    listed[42..46].fill(0xff);
    listed.splice(46 + name.., extra);
    end[12..16].copy_from_slice(&(listed.len() as u32).to_le_bytes());
    let folder = tempfile::tempdir().unwrap();
    for name in ["model.npz", "model.nnp"] {
        let file = folder.path().join(name);
        std::fs::write(&file, [members, &listed, &end].concat()).unwrap();
        let error = Checkpoint::open(&file).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("an address in it is outside of any file"), "{error}");
    }
}
