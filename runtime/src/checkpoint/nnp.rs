//! NNabla's `.nnp`: a zip file with a network definition and the parameters beside it.
//!
//! Members are known by their extensions: `.h5` and `.protobuf` hold parameters, `.nntxt` and `.prototxt` may. No
//! name of a member ever becomes the name of a file.

use std::io::{self, Seek, Write};
use std::path::Path;

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use super::archive::for_each;
use super::entry::{Contents, Entries, Other};
use super::input::Source;
use super::{Format, Outcome, h5, protobuf, text};

const PARAMETERS: &str = "parameter.h5";
const VERSION: &str = "nnp_version.txt";

pub(super) fn read(source: &mut dyn Source) -> Outcome<Contents> {
    let mut contents = Contents::default();
    for_each(source, |member| {
        if member.size > 0 && member.name != VERSION && !is_parameters(&member.name) {
            contents.others.push(Other::Member(member.name.clone()));
        }
        let found: Contents = match Format::from_path(&member.name) {
            Ok(Format::Hdf5) => member.read(|input| {
                let mut spool = tempfile::NamedTempFile::new()?;
                io::copy(input, spool.as_file_mut())?;
                h5::read(spool.path()).map(Contents::from)
            })?,
            Ok(Format::Protobuf) => member.read(protobuf::read)?,
            // What it holds besides parameters is kept with the member.
            Ok(Format::Text) => Contents { others: Vec::new(), ..member.read(text::read)? },
            _ => return Ok(()),
        };
        contents.unusable.extend(found.unusable);
        contents.others.extend(found.others);
        // As in NNabla, a later member has the last word.
        found.entries.into_vec().into_iter().try_for_each(|entry| contents.entries.put(entry))
    })?;
    Ok(contents)
}

/// Whether a member of this name holds parameters and nothing else.
fn is_parameters(name: &str) -> bool {
    matches!(Format::from_path(name), Ok(Format::Hdf5 | Format::Protobuf))
}

/// Writes the parameters, with the other members of `old`: a network that was trained further keeps its definition.
pub(super) fn write(output: impl Write + Seek, entries: &Entries, old: Option<&Path>) -> Outcome<()> {
    let mut archive = ZipWriter::new(output);
    let options = || SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    // What is no archive has nothing to keep.
    let kept = old.and_then(|old| ZipArchive::new(io::BufReader::new(std::fs::File::open(old).ok()?)).ok());
    if let Some(mut kept) = kept {
        for index in 0..kept.len() {
            let member = kept.by_index_raw(index)?;
            let name = member.name()?.into_owned();
            if !is_parameters(&name) {
                archive.raw_copy_file(member)?;
            }
        }
    } else {
        archive.start_file(VERSION, options())?;
        archive.write_all(b"0.1\n")?;
        archive.start_file("network.nntxt", options())?;
    }
    let mut spool = tempfile::NamedTempFile::new()?;
    h5::write(spool.path(), entries)?;
    let large = spool.as_file().metadata()?.len() > 0xf000_0000;
    archive.start_file(PARAMETERS, options().large_file(large))?;
    io::copy(spool.as_file_mut(), &mut archive)?;
    archive.finish()?.flush()?;
    Ok(())
}
