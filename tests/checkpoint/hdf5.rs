//! HDF5 as other programs write it, sound and damaged: read right or refused.
//!
//! `tests/interop/h5_files.py` and `h5_histories.py` made the files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use layerfn::checkpoint::{Checkpoint, Format};

use crate::{Bits, bits_of};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("checkpoint/h5").join(name)
}

fn open(name: &str) -> Checkpoint {
    Checkpoint::open(folder(name)).unwrap()
}

/// Values as f32 by path.
fn values(checkpoint: &Checkpoint) -> BTreeMap<String, Vec<f32>> {
    let values = |entry: &layerfn::checkpoint::Entry| {
        let flat = entry.tensor().flatten_all().unwrap().to_dtype(candle_core::DType::F32).unwrap();
        (entry.path().to_owned(), flat.to_vec1().unwrap())
    };
    checkpoint.entries().iter().map(values).collect()
}

fn unusable(checkpoint: &Checkpoint) -> Vec<(&str, &str)> {
    checkpoint.unusable().iter().map(|member| (member.path(), member.reason())).collect()
}

/// Values of a file by path, as the text beside it says.
fn expected(file: &Path) -> BTreeMap<String, Vec<f32>> {
    let text = std::fs::read_to_string(file.with_extension("txt")).unwrap();
    let line = |line: &str| {
        let (path, values) = line.split_once('\t').unwrap();
        (path.to_owned(), values.split(' ').map(|value| value.parse().unwrap()).collect())
    };
    text.lines().map(line).collect()
}

/// Files that h5py edited: links removed, renamed, added, soft, hard, in every format of groups. The script writes more
/// of them; `LAYERFN_H5_HISTORIES` names their folder.
#[test]
fn edited_files_are_read_right() {
    let folder = std::env::var_os("LAYERFN_H5_HISTORIES").map_or_else(|| folder("histories"), PathBuf::from);
    let files = std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path());
    let (mut right, mut refused) = (0, Vec::new());
    for file in files.filter(|file| file.extension().is_some_and(|end| end == "h5")) {
        match Checkpoint::open(&file) {
            Ok(read) => {
                assert_eq!(values(&read), expected(&file), "{}", file.display());
                right += 1;
            }
            Err(error) => refused.push(error.to_string()),
        }
    }
    println!("{right} read right, {} refused", refused.len());
    assert!(right > 0 && refused.is_empty(), "{}", refused.join("\n"));
}

#[test]
fn links_are_followed_inside_the_file() {
    let read = open("links.h5");
    let (w, ones) = (vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0], vec![1.0, 1.0]);
    let found = values(&read);
    let paths: Vec<_> = found.keys().map(String::as_str).collect();
    assert_eq!(paths, ["chain", "dec/near", "dec/w", "enc/near", "enc/w", "hard", "tied", "w"]);
    for (path, values) in &found {
        assert_eq!(values, if matches!(path.as_str(), "hard" | "tied" | "w") { &w } else { &ones }, "{path}");
    }
    assert_eq!(
        unusable(&read),
        [
            ("dec/up", "is a link back to a group that it lies in"),
            ("enc/up", "is a link back to a group that it lies in"),
            ("gone", "is a link to nothing"),
            ("loop", "is a link that leads through more than 16 others"),
            ("other", "is a link into another file"),
        ]
    );
}

#[test]
fn what_is_no_parameter_stands_aside() {
    let read = open("mixed.h5");
    let found = values(&read);
    assert_eq!(found.keys().collect::<Vec<_>>(), ["grows", "named", "w"]);
    assert_eq!(
        (&found["grows"], &found["named"], &found["w"]),
        (&vec![1.0; 10], &vec![3.0], &vec![0.0, 1.0])
    );
    let kinds = |kind: &str| format!("holds {kind}, which tensors here cannot have");
    let (text, lists, compounds) = (kinds("text"), kinds("lists"), kinds("compounds"));
    let (opaque, references) = (kinds("opaque bytes"), kinds("references"));
    assert_eq!(
        unusable(&read),
        [
            ("kind", "is a datatype"),
            ("label", &*text),
            ("lists", &*lists),
            ("none", "has no value"),
            ("note", &*text),
            ("packed", "is packed by filter 32000 of HDF5, which is not read"),
            ("pair", &*compounds),
            ("raw", &*opaque),
            ("wave", &*compounds),
            ("where", &*references),
        ]
    );
}

#[test]
fn attributes_in_a_heap_are_found() {
    let read = open("many_attributes.h5");
    let entries: Vec<_> = read.entries().iter().map(|entry| (entry.path(), entry.need_grad())).collect();
    assert_eq!(entries, [("b", Some(false)), ("a", Some(true))]);
}

#[test]
fn chunks_of_every_kind() {
    let found = values(&open("chunks.h5"));
    let count = |count: usize| (0..count).map(|value| value as f32).collect::<Vec<_>>();
    for path in ["edges", "packed", "big"] {
        assert_eq!(found[path], count(7 * 9 * 5), "{path}");
    }
    assert_eq!(found["pages"], count(1100));
    assert_eq!(found["random"], count(64));
    assert_eq!(found["unwritten"], [2.5; 3]);
}

#[test]
fn a_file_may_start_later() {
    // Where HDF5 looks for it; addresses count from there, as the base address says.
    let bytes = std::fs::read(folder("latest.h5")).unwrap();
    let shifted = [&[0; 512][..], &bytes].concat();
    let error = Checkpoint::from_bytes(Format::Hdf5, &shifted).unwrap_err().to_string();
    assert!(error.contains("the base address is not where the file starts"), "{error}");
    let error = Checkpoint::from_bytes(Format::Hdf5, &shifted[..600]).unwrap_err().to_string();
    assert!(error.contains("byte"), "{error}");
}

/// What one damaged byte did.
#[derive(Default, Debug)]
struct Tally {
    refused: usize,
    same: usize,
    name: usize,
    attribute: usize,
    value: usize,
    order: usize,
}

/// Sorts out what reading `damaged`, which differs in one byte, has changed. Nothing may be lost, and no value changed
/// that the format could tell: of values that no checksum covers, of names, and of addresses and byte orders in headers
/// without a checksum it cannot.
fn compare(whole: &[Bits], damaged: &[u8], is_packed: bool, tally: &mut Tally) -> Result<(), String> {
    let Ok(read) = Checkpoint::from_bytes(Format::Hdf5, damaged) else {
        tally.refused += 1;
        return Ok(());
    };
    let (mut found, mut whole) = (bits_of(&read), whole.to_vec());
    if found.len() != whole.len() || !read.unusable().is_empty() {
        return Err(format!("{} of {} entries, {:?}", found.len(), whole.len(), read.unusable()));
    }
    if found == whole {
        tally.same += 1;
        return Ok(());
    }
    let paths =
        |bits: &[Bits]| bits.iter().map(|bits| bits.0.clone()).collect::<std::collections::BTreeSet<_>>();
    if paths(&found) != paths(&whole) {
        tally.name += 1;
        // A name is what nothing else says; all else is as it was.
        for bits in [&mut found, &mut whole] {
            bits.iter_mut().for_each(|bits| bits.0.clear());
            bits.sort_by(|a, b| (&a.4, &a.2).cmp(&(&b.4, &b.2)));
        }
        return if found == whole { Ok(()) } else { Err("a name and something else".to_owned()) };
    }
    let by_path = |bits: &mut Vec<Bits>| bits.sort_by(|a, b| a.0.cmp(&b.0));
    by_path(&mut found);
    by_path(&mut whole);
    let changed: Vec<_> = found.iter().zip(&whole).filter(|(found, whole)| found != whole).collect();
    match changed[..] {
        [] => tally.order += 1,
        [(found, whole)] if (&found.1, &found.2, &found.4) == (&whole.1, &whole.2, &whole.4) => {
            tally.attribute += 1
        }
        [(found, whole)] if (&found.1, &found.2, &found.3) == (&whole.1, &whole.2, &whole.3) => {
            tally.value += 1;
            let swapped: Vec<u8> = found.4.chunks(4).flat_map(|value| value.iter().rev().copied()).collect();
            let elsewhere = (!is_packed || found.2.is_empty())
                && found.4.iter().any(|&byte| byte != 0)
                && damaged.windows(found.4.len()).any(|window| window == found.4 || window == swapped);
            if swapped != whole.4 && !elsewhere {
                return Err(format!("values of `{}`", found.0));
            }
        }
        _ => return Err(format!("{} entries", changed.len())),
    }
    Ok(())
}

/// Which bytes are read. Where nothing lies, the others are filled, so that what is read there by mistake shows.
fn find_read(bytes: &mut [u8], whole: &[Bits]) -> Vec<bool> {
    /// As many bytes that are not read are more than a gap in a structure.
    const SPACE: usize = 64;
    let is_whole = |bytes: &[u8]| {
        let read = Checkpoint::from_bytes(Format::Hdf5, bytes);
        read.is_ok_and(|read| bits_of(&read) == whole && read.unusable().is_empty())
    };
    let mut found = Vec::with_capacity(bytes.len());
    for at in 0..bytes.len() {
        let byte = bytes[at];
        found.push([byte ^ 1, !byte].into_iter().any(|other| {
            bytes[at] = other;
            !is_whole(bytes)
        }));
        bytes[at] = byte;
    }
    let mut start = 0;
    for run in found.chunk_by(|a, b| a == b) {
        let space = start..start + run.len();
        start = space.end;
        if !run[0] && run.len() >= SPACE {
            let before = bytes[space.clone()].to_vec();
            bytes[space.clone()].fill(0xa5);
            // What each of them may be, all of them may not.
            if !is_whole(bytes) {
                bytes[space].copy_from_slice(&before);
            }
        }
    }
    found
}

/// Every third byte with four values; with `LAYERFN_FLIPS` every byte that is read with every value.
#[test]
fn a_damaged_byte_is_noticed_where_the_format_can() {
    let all = std::env::var_os("LAYERFN_FLIPS").is_some();
    for (name, is_packed) in [
        ("plain.h5", false),
        ("ordered.h5", false),
        ("gzip.h5", true),
        ("latest.h5", false),
        ("latest_gzip.h5", true),
    ] {
        let mut bytes = std::fs::read(folder(name)).unwrap();
        let whole = bits_of(&Checkpoint::from_bytes(Format::Hdf5, &bytes).unwrap());
        assert_eq!(whole.len(), 5);
        let is_read = if all { find_read(&mut bytes, &whole) } else { vec![true; bytes.len()] };
        let (mut tally, mut faults) = (Tally::default(), Vec::new());
        for at in (0..bytes.len()).step_by(if all { 1 } else { 3 }).filter(|&at| is_read[at]) {
            let four = [0, 0xff, bytes[at] ^ 1, bytes[at] ^ 0x80];
            let every: Vec<u8> = (0..=255).collect();
            for &value in if all { &every[..] } else { &four } {
                let mut damaged = bytes.clone();
                damaged[at] = value;
                if let Err(what) = compare(&whole, &damaged, is_packed, &mut tally) {
                    faults.push(format!("byte {at} from {} to {value}: {what}", bytes[at]));
                }
            }
        }
        assert!(
            faults.is_empty(),
            "{name}: {} faults\n{}",
            faults.len(),
            faults[..faults.len().min(50)].join("\n")
        );
        println!("{name}: {tally:?}");
        if name.starts_with("latest") {
            // Checksums cover all but values that are not in chunks.
            assert_eq!((tally.name, tally.attribute, tally.order), (0, 0, 0));
        }
        assert!(tally.refused > 0);
    }
}

/// Damage of kinds that a single byte need not show: each is refused, and says where.
#[test]
fn structures_are_reached_once_and_lie_inside() {
    let bytes = std::fs::read(folder("plain.h5")).unwrap();
    let find = |needle: &[u8]| bytes.windows(needle.len()).position(|window| window == needle).unwrap();
    let refused = |change: &dyn Fn(&mut Vec<u8>), expected: &str| {
        let mut damaged = bytes.clone();
        change(&mut damaged);
        let error = Checkpoint::from_bytes(Format::Hdf5, &damaged).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    let heap = find(b"HEAP");
    // The names of a group are said to be its heap, to lie behind the end, to be shorter than they are.
    refused(
        &|file| file[heap + 24..heap + 32].copy_from_slice(&(heap as u64).to_le_bytes()),
        "another structure",
    );
    refused(
        &|file| file[heap + 24..heap + 32].copy_from_slice(&(1_u64 << 40).to_le_bytes()),
        "inside the file",
    );
    refused(&|file| file[heap + 8] = 16, "outside");
    // A node of symbols has one symbol fewer.
    let node = find(b"SNOD");
    refused(&|file| file[node + 6] -= 1, "more or fewer symbols");
    // Its tree has none.
    let tree = find(b"TREE");
    refused(&|file| file[tree + 6] = 0, "no longer reached");
    // A link leads where another does.
    let (first, second) = (node + 16, node + 56);
    refused(
        &|file| {
            let address = file[first..first + 8].to_vec();
            file[second..second + 8].copy_from_slice(&address);
        },
        "describes another group",
    );
    refused(&|file| file.truncate(file.len() - 1), "ends early");
}

/// What is written is what is read, however many members a group has: its tree gets levels.
#[test]
fn groups_of_any_size_are_written() {
    for count in [0, 1, 8, 9, 256, 257, 3000] {
        let store = layerfn::ParameterStore::new();
        for number in 0..count {
            // Names of every length, not in the order of bytes.
            let name = format!("g/{}{}", number * 7 % 1000, "x".repeat(number % 19)) + &format!("_{number}");
            crate::put(&store, &name, crate::var(vec![number as f32], &[1]), number % 2 == 0);
        }
        let checkpoint = Checkpoint::from_parameters(&store.parameters()).unwrap();
        let bytes = checkpoint.to_bytes(Format::Hdf5).unwrap();
        assert_eq!(bits_of(&Checkpoint::from_bytes(Format::Hdf5, &bytes).unwrap()), bits_of(&checkpoint));
    }
}
