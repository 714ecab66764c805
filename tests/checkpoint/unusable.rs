//! Files in which something sound stands beside the parameters.

use layerfn::checkpoint::{Checkpoint, Difference, Format, Load};
use layerfn::{Error, ParameterStore};

use crate::damage::{npy, zip_of};
use crate::{put, var};

/// `w` between members that NumPy reads and no tensor can hold.
fn numpy() -> Vec<u8> {
    let typed = |descr: &str, data: &[u8]| {
        npy(&format!("{{'descr': {descr}, 'fortran_order': False, 'shape': (), }}"), data)
    };
    let members: [(&str, Vec<u8>); 9] = [
        ("version.npy", typed("'<U3'", &[0; 12])),
        ("bytes.npy", typed("'|S2'", b"ab")),
        ("object.npy", typed("'|O'", b"\x80\x04N.")),
        ("complex.npy", typed("'<c8'", &[0; 8])),
        ("date.npy", typed("'<M8[ns]'", &[0; 8])),
        (
            "w.npy",
            npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", &[0, 0, 128, 63, 0, 0, 0, 64]),
        ),
        ("record.npy", typed("[('x', '<f4'), (\"]'\", '<i8', (2, 3))]", &[0; 52])),
        ("large.npy", typed("'<u8'", &[0xff; 8])),
        ("notes/readme.txt", b"trained on Monday".to_vec()),
    ];
    zip_of(&members.each_ref().map(|(name, content)| (*name, content.as_slice())), true)
}

fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

/// `w` between types that the library lacks, one of which no version of the format has yet.
fn typed() -> Vec<u8> {
    let header = r#"{"a":{"dtype":"F8_E4M3","shape":[3],"data_offsets":[0,3]},
        "w":{"dtype":"F32","shape":[2],"data_offsets":[4,12]},"b":{"dtype":"F0","shape":[7],"data_offsets":[3,4]},
        "c":{"dtype":"C64","shape":[1],"data_offsets":[12,20]}}"#;
    safetensors(header, &[9, 9, 9, 9, 0, 0, 128, 63, 0, 0, 0, 64, 9, 9, 9, 9, 9, 9, 9, 9])
}

fn holds_w(checkpoint: &Checkpoint, unusable: &[(&str, &str)]) {
    let entries = checkpoint.entries();
    assert_eq!(entries.iter().map(|entry| entry.path()).collect::<Vec<_>>(), ["w"]);
    assert_eq!(entries[0].tensor().to_vec1::<f32>().unwrap(), [1.0, 2.0]);
    let found: Vec<_> =
        checkpoint.unusable().iter().map(|unusable| (unusable.path(), unusable.reason())).collect();
    assert_eq!(found, unusable);
}

#[test]
fn members_that_are_no_parameters_leave_the_others_readable() {
    let kinds = ["'<U3'", "'|S2'", "'|O'", "'<c8'", "'<M8[ns]'", "[('x', '<f4'), (\"]'\", '<i8', (2, 3))]"];
    let reasons = kinds.map(|kind| format!("has the type {kind} of NumPy, which tensors here cannot have"));
    let names = ["version", "bytes", "object", "complex", "date", "record"];
    let mut expected: Vec<_> = names.into_iter().zip(reasons.iter().map(String::as_str)).collect();
    expected.push(("large", "holds 18446744073709551615, which does not fit 64 bits with a sign"));
    expected.push(("notes/readme.txt", "is not an array: its name does not end in .npy"));
    holds_w(&Checkpoint::from_bytes(Format::Npz, &numpy()).unwrap(), &expected);

    let reason = |dtype: &str| format!("has the type {dtype}, which tensors here cannot have");
    let reasons = ["F8_E4M3", "F0", "C64"].map(reason);
    let expected: Vec<_> = ["a", "b", "c"].into_iter().zip(reasons.iter().map(String::as_str)).collect();
    holds_w(&Checkpoint::from_bytes(Format::Safetensors, &typed()).unwrap(), &expected);
}

#[test]
fn a_member_that_is_packed_in_an_unknown_way_leaves_the_others_readable() {
    let mut bytes = numpy();
    // The method of the member, in its own header and in the directory.
    let mut found = 0;
    for at in 46..bytes.len() {
        if bytes[at..].starts_with(b"date.npy") {
            let method = if bytes[at - 46..].starts_with(b"PK\x01\x02") { at - 36 } else { at - 22 };
            bytes[method] = 97;
            found += 1;
        }
    }
    assert_eq!(found, 2);
    let read = Checkpoint::from_bytes(Format::Npz, &bytes).unwrap();
    assert_eq!(read.entries().len(), 1);
    let date = read.unusable().iter().find(|unusable| unusable.path().starts_with("date")).unwrap();
    assert!(date.reason().starts_with("is packed by the method "), "{date}");
}

#[test]
fn a_damaged_member_is_not_taken_for_an_unusable_one() {
    let mut bytes = numpy();
    for at in 0..bytes.len() {
        if bytes[at..].starts_with(b"version.npy") {
            // Within the packed content.
            bytes[at + 14] ^= 0x10;
            break;
        }
    }
    Checkpoint::from_bytes(Format::Npz, &bytes).unwrap_err();
}

#[test]
fn metadata_may_be_null() {
    for metadata in ["null", "{}", r#"{"format":"pt"}"#] {
        let header = format!(
            r#"{{"__metadata__": {metadata}, "w":{{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}}}"#
        );
        let bytes = safetensors(&header, &[0, 0, 128, 63, 0, 0, 0, 64]);
        holds_w(&Checkpoint::from_bytes(Format::Safetensors, &bytes).unwrap(), &[]);
    }
    let header = r#"{"__metadata__": null, "__metadata__": {}}"#;
    Checkpoint::from_bytes(Format::Safetensors, &safetensors(header, &[])).unwrap_err();
}

#[test]
fn what_is_wanted_is_loaded_and_what_cannot_be_is_told() {
    for (format, bytes, text, count) in
        [(Format::Npz, numpy(), "version", 8), (Format::Safetensors, typed(), "a", 3)]
    {
        let open = || Checkpoint::from_bytes(format, &bytes).unwrap();
        let store = ParameterStore::new();
        put(&store, "w", var(vec![0_f32; 2], &[2]), true);
        let report = store.enter(|| Load::new(open()).partial(["w"]).apply()).unwrap();
        assert_eq!((report.updated().len(), report.skipped().len(), report.unusable().len()), (1, count, 0));
        assert_eq!(store.get("w").unwrap().var().to_vec1::<f32>().unwrap(), [1.0, 2.0]);

        // NNabla's rules make what they can; the report has the rest.
        let report = ParameterStore::new().enter(|| Load::like_nnabla(open()).apply()).unwrap();
        assert_eq!((report.created(), report.unusable().len()), (&["w".to_owned()][..], count));
        assert!(report.to_string().contains(&format!("; `{text}` has the type ")), "{report}");

        // The strict ones want all of the file, and nobody gets what the scope wants but the file has in vain.
        let strict = store.enter(|| Load::new(open()).plan()).unwrap();
        assert_eq!(strict.problems().len(), count);
        assert!(strict.problems().iter().all(|problem| matches!(problem, Difference::Unusable { .. })));
        put(&store, "here", var(vec![0_f32], &[1]), true);
        for load in [
            Load::new(open()).partial(["w", text]).rename(text, "here"),
            Load::like_nnabla(open()).rename(text, "here"),
        ] {
            let error = store.enter(|| load.apply()).unwrap_err();
            let Error::Mismatch { differences, .. } = &error else { panic!("{error}") };
            assert_eq!(differences.len(), 1, "{error}");
            assert!(differences[0].starts_with("`here` cannot be loaded: in the file it has the type "));
        }
    }
}

#[test]
fn what_cannot_be_used_is_named_as_a_loss() {
    let read = Checkpoint::from_bytes(Format::Npz, &numpy()).unwrap();
    for format in crate::FORMATS {
        let losses = read.losses(format);
        assert_eq!(losses.len(), 8);
        assert!(losses[0].starts_with("`version` has the type '<U3' of NumPy"), "{losses:?}");
        assert!(
            Checkpoint::from_bytes(format, &read.to_bytes(format).unwrap()).unwrap().unusable().is_empty()
        );
    }
}
