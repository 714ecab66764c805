//! NNabla's `.nnp`: a zip file with a network definition and the parameters beside it.
//!
//! Members are identified by their extensions: `.h5` and `.protobuf` contain parameters, `.nntxt` and
//! `.prototxt` may contain them. Names of members are never used as names of files.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::path::Path;

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::archive::{FailsOnce, for_each};
use super::entry::{Contents, Entries, Other};
use super::input::Source;
use super::{Fault, Format, Outcome, file, h5, protobuf, text};

const PARAMETERS: &str = "parameter.h5";
const VERSION: &str = "nnp_version.txt";
const NETWORK: &str = "network.nntxt";

pub(super) fn read(source: &mut dyn Source) -> Outcome<Contents> {
    let mut contents = Contents::default();
    for_each(source, |member| {
        if member.size > 0 && member.name != VERSION && !is_parameters(&member.name) {
            contents.others.push(Other::Member(member.name.clone()));
        }
        let found: Contents = match Format::from_path(&member.name) {
            Ok(Format::Hdf5) => member.read(|input| h5::read_stream(input))?,
            Ok(Format::Protobuf) => member.read(protobuf::read)?,
            // Other content is kept with the member.
            Ok(Format::Text) => Contents { others: Vec::new(), ..member.read(text::read)? },
            _ => return Ok(()),
        };
        contents.unusable.extend(found.unusable);
        contents.others.extend(found.others);
        // As in NNabla, later members take precedence.
        found.entries.into_vec().into_iter().try_for_each(|entry| contents.entries.put(entry))
    })?;
    Ok(contents)
}

/// Whether a member of this name only contains parameters.
fn is_parameters(name: &str) -> bool {
    matches!(Format::from_path(name), Ok(Format::Hdf5 | Format::Protobuf))
}

/// An archive whose other members are kept.
#[derive(Clone, Copy)]
pub(super) enum Old<'a> {
    /// The one that was read: it must exist.
    Read(&'a Path),
    /// The one that is replaced, if it exists.
    Replaced(&'a Path),
}

impl Old<'_> {
    fn open(self) -> Outcome<Option<File>> {
        let (path, must_exist) = match self {
            Self::Read(path) => (path, true),
            Self::Replaced(path) => (path, false),
        };
        match file::open(path) {
            Ok(file) if file.metadata()?.len() > 0 => Ok(Some(file)),
            Ok(_) if !must_exist => Ok(None),
            Err(Fault::Io(error)) if error.kind() == io::ErrorKind::NotFound && !must_exist => Ok(None),
            Ok(_) => Err(Fault::format("is empty")),
            Err(fault) => Err(fault),
        }
    }

    /// An error that says what is at stake.
    fn explained(self, fault: Fault) -> Fault {
        let (path, way_out) = match self {
            Self::Read(path) => (path, "was read from it; save in another format to do without"),
            Self::Replaced(path) => (path, "is in the way; remove it to do without"),
        };
        let reason = match fault {
            Fault::Io(error) => {
                let kind = error.kind();
                let text =
                    format!("what `{}` holds besides parameters cannot be kept ({error})", path.display());
                return Fault::Io(io::Error::new(kind, text));
            }
            Fault::Format(reason) | Fault::Unusable(reason) => reason,
        };
        Fault::format(format!(
            "what `{}` holds besides parameters cannot be kept ({reason}): it {way_out}",
            path.display()
        ))
    }
}

/// Writes the parameters, with the other members of `old`: a network that was trained further keeps its definition.
pub(super) fn write(output: impl Write + Seek, entries: &Entries, old: Option<Old<'_>>) -> Outcome<()> {
    let mut archive = ZipWriter::new(FailsOnce::new(output));
    let kept = match old {
        Some(old) => old.open().map_err(|fault| old.explained(fault))?.map(|file| (old, file)),
        None => None,
    };
    match kept {
        Some((old, file)) => copy(file, &mut archive).map_err(|fault| old.explained(fault))?,
        None => {
            archive.start_file(VERSION, options())?;
            archive.write_all(b"0.1\n")?;
            archive.start_file(NETWORK, options())?;
        }
    }
    write_parameters(archive, entries)
}

/// Writes an archive of a definition and parameters, with those members of `old` that hold neither.
pub(super) fn write_with(
    output: impl Write + Seek,
    entries: &Entries,
    old: Option<Old<'_>>,
    definition: &str,
) -> Outcome<()> {
    let mut archive = ZipWriter::new(FailsOnce::new(output));
    archive.start_file(VERSION, options())?;
    archive.write_all(b"0.1\n")?;
    archive.start_file(NETWORK, options().large_file(definition.len() > 0xf000_0000))?;
    archive.write_all(definition.as_bytes())?;
    if let Some(old) = old
        && let Some(mut file) = old.open().map_err(|fault| old.explained(fault))?
    {
        let copied = for_each(&mut file, |member| {
            let is_ours = matches!(&*member.name, VERSION | NETWORK | PARAMETERS);
            if is_ours || Format::from_path(&member.name).is_ok() {
                return Ok(());
            }
            Ok(archive.raw_copy_file(member.raw()?)?)
        });
        copied.map_err(|fault| old.explained(fault))?;
    }
    write_parameters(archive, entries)
}

fn options() -> SimpleFileOptions {
    SimpleFileOptions::default().compression_method(CompressionMethod::Stored)
}

/// Appends the parameters and ends the archive.
fn write_parameters<W: Write + Seek>(mut archive: ZipWriter<FailsOnce<W>>, entries: &Entries) -> Outcome<()> {
    let mut spool = tempfile::tempfile()?;
    let mut buffered = io::BufWriter::with_capacity(1 << 16, &mut spool);
    h5::write(&mut buffered, entries)?;
    buffered.flush()?;
    drop(buffered);
    spool.rewind()?;
    let large = spool.metadata()?.len() > 0xf000_0000;
    archive.start_file(PARAMETERS, options().large_file(large))?;
    io::copy(&mut spool, &mut archive)?;
    archive.finish()?.flush()?;
    Ok(())
}

/// Copies the members that hold no parameters, and of those that hold a network too, the network.
fn copy(mut old: File, archive: &mut ZipWriter<impl Write + Seek>) -> Outcome<()> {
    for_each(&mut old, |member| {
        if is_parameters(&member.name) {
            return Ok(());
        }
        if matches!(Format::from_path(&member.name), Ok(Format::Text))
            && let Some(text) = member.read(text::without_parameters)?
        {
            archive.start_file(&member.name, SimpleFileOptions::default())?;
            return Ok(archive.write_all(text.as_bytes())?);
        }
        Ok(archive.raw_copy_file(member.raw()?)?)
    })
}
