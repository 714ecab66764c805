//! The forms that a file can have.

use layerfn::Result;
use layerfn::checkpoint::{Checkpoint, Format};
use layerfn::nnp::Nnp;

use super::{AFFINE, EXECUTOR, WEIGHTS, affine, archive, ones, opened, output, parameter};

/// Ones times the weights.
const WANTED: [f32; 2] = [6.0, 9.0];

fn weights() -> String {
    parameter("w", &[3, 2], &WEIGHTS)
}

#[test]
fn text_may_be_written_in_many_ways() -> Result<()> {
    let text = r#"
        # a comment
        network: < name: 'n', batch_size: 0x4;
          variable: [ { name: "x" type: "Buf" 'fer' shape { dim: [-1, 3] } },
                      { name: "y" type: "Buffer" }, { name: "w" type: "Parameter" shape { dim: 3 dim: 2 } } ]
          function { name: "f\x21\041" type: "\101ffine" input: ["x", "w"] output: "y" affine_param: { base_axis: 01 } }
        >"#;
    let file = opened(&[text, &weights()].concat())?;
    assert_eq!(output(&file, ones(&[1, 3])), WANTED);
    Ok(())
}

#[test]
fn an_archive_is_merged_whatever_its_members_are_called() -> Result<()> {
    let doubled = parameter("w", &[3, 2], &WEIGHTS.map(|w| 2.0 * w));
    let doubled = Checkpoint::from_bytes(Format::Text, doubled.as_bytes())?.to_bytes(Format::Hdf5)?;
    let with_weights = [AFFINE, &weights()].concat();
    let (_folder, path) = archive(&[
        ("run/executor.nntxt", EXECUTOR.as_bytes()),
        ("README", b"not read"),
        ("net.prototxt", with_weights.as_bytes()),
        ("later.h5", &doubled),
        ("notes.md", b"neither"),
    ]);
    let file = Nnp::open(path)?;
    assert_eq!(file.networks().collect::<Vec<_>>(), ["n"]);
    assert_eq!(file.executors().collect::<Vec<_>>(), ["e"]);
    // Of two members with one parameter, the later counts.
    assert_eq!(output(&file, ones(&[1, 3])), WANTED.map(|y| 2.0 * y));
    Ok(())
}

#[test]
fn an_archive_in_an_archive_is_refused() {
    let (_folder, inner) = archive(&[("n.nntxt", AFFINE.as_bytes())]);
    let (_folder, path) = archive(&[("a.nnp", &std::fs::read(inner).unwrap())]);
    assert!(Nnp::open(path).unwrap_err().to_string().contains("an archive in an archive"));
}

#[test]
fn several_files_are_one() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let (net, weights_file) = (folder.path().join("net.nntxt"), folder.path().join("w.h5"));
    std::fs::write(&net, [AFFINE, EXECUTOR].concat()).unwrap();
    Checkpoint::from_bytes(Format::Text, weights().as_bytes())?.save(&weights_file)?;
    let file = Nnp::open_all([&net, &weights_file])?;
    assert_eq!(output(&file, ones(&[1, 3])), WANTED);
    assert_eq!(file.executors().collect::<Vec<_>>(), ["e"]);
    let none: [&std::path::Path; 0] = [];
    assert!(Nnp::open_all(none).is_err());
    Ok(())
}

#[test]
fn definitions_are_merged_and_later_scalars_win() -> Result<()> {
    let (_folder, path) = archive(&[
        ("a.nntxt", b"training_config { max_epoch: 3 save_best: true }"),
        ("b.nntxt", b"training_config { max_epoch: 5 }"),
    ]);
    let folder = tempfile::tempdir().unwrap();
    let saved = folder.path().join("saved.nntxt");
    Nnp::open(path)?.save(&saved)?;
    let text = std::fs::read_to_string(saved).unwrap();
    assert_eq!(text, "training_config {\n  max_epoch: 5\n  save_best: true\n}\n");
    Ok(())
}

#[test]
fn what_the_format_does_not_know_is_refused() {
    for (text, expected) in [
        ("networks { }", "`NNablaProtoBuf` has no field `networks`"),
        (&AFFINE.replace("base_axis", "base_axes"), "`AffineParameter` has no field `base_axes`"),
        (&AFFINE.replace("batch_size: 4", "batch_size: four"), "an integer is expected"),
        (&AFFINE.replace("batch_size: 4", "batch_size: 9223372036854775808"), "an integer is expected"),
        (&AFFINE.replace("\"Affine\"", "Affine"), "a string is expected"),
        ("network { name: \"n\"", "a name of a field"),
    ] {
        let error = opened(text).unwrap_err().to_string();
        let line =
            error.contains(expected) || (expected.starts_with("a name") && error.contains("is expected"));
        assert!(line, "{error}");
    }
}

#[test]
fn formats_of_parameters_alone_are_refused() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.h5");
    affine()?.parameters().save(&path)?;
    let error = Nnp::open(path).unwrap_err().to_string();
    assert!(error.contains("holds parameters only"), "{error}");
    Ok(())
}

/// A field of a message in binary form.
fn field(number: u64, content: &[u8]) -> Vec<u8> {
    let mut bytes = varint(number << 3 | 2);
    bytes.extend(varint(content.len() as u64));
    bytes.extend(content);
    bytes
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        bytes.push(value as u8 & 0x7f | if value > 0x7f { 0x80 } else { 0 });
        value >>= 7;
        if value == 0 {
            return bytes;
        }
    }
}

/// [`AFFINE`] in binary form, by a version that numbers the arguments of functions in its own way.
fn binary(affine_number: u64) -> Vec<u8> {
    let variable = |name: &str, of: &str, dims: &[i64]| {
        // -1 takes ten bytes.
        let dims: Vec<u8> = dims.iter().flat_map(|&size| varint(size as u64)).collect();
        let shape = field(1, &dims);
        field(100, &[field(1, name.as_bytes()), field(2, of.as_bytes()), field(20, &shape)].concat())
    };
    let arguments = [varint(1 << 3), varint(1)].concat();
    let function = [
        // Before the type that says what it means.
        field(affine_number, &arguments),
        field(1, b"f"),
        field(2, b"Affine"),
        field(20, b"x"),
        field(20, b"w"),
        field(30, b"y"),
    ];
    let network = [
        field(1, b"n"),
        variable("x", "Buffer", &[-1, 3]),
        variable("y", "Buffer", &[]),
        variable("w", "Parameter", &[3, 2]),
        field(200, &function.concat()),
    ];
    let values: Vec<u8> = WEIGHTS.iter().flat_map(|w| w.to_le_bytes()).collect();
    let parameter = [field(1, b"w"), field(20, &field(1, &[3, 2])), field(100, &values)];
    [field(100, &network.concat()), field(200, &parameter.concat())].concat()
}

#[test]
fn the_type_of_a_function_says_what_its_arguments_are() -> Result<()> {
    for number in [1001, 1146, 2000] {
        let file = Nnp::from_bytes(Format::Protobuf, &binary(number))?;
        assert_eq!(output(&file, ones(&[1, 3])), WANTED, "{number}");
    }
    Ok(())
}

#[test]
fn a_damaged_binary_file_is_an_error() {
    let bytes = binary(1001);
    for length in 1..bytes.len() {
        // A whole number of fields is a file.
        let _ = Nnp::from_bytes(Format::Protobuf, &bytes[..length]);
    }
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bit;
            if let Ok(file) = Nnp::from_bytes(Format::Protobuf, &damaged) {
                let names: Vec<_> = file.networks().map(str::to_owned).collect();
                names.iter().for_each(|name| drop(file.network(name).and_then(|network| network.model())));
            }
        }
    }
}
