//! What `.nnp` and `.npz` have in common: a zip file of which no member is believed to be small.

use std::io::{self, Read, Seek, SeekFrom, Write};

use zip::read::ZipFile;
use zip::result::ZipError;
use zip::{CompressionMethod, ZipArchive};

use super::input::{Input, Source};
use super::{Fault, Outcome};
use crate::limits;

impl From<ZipError> for Fault {
    fn from(error: ZipError) -> Self {
        match error {
            ZipError::Io(error) => error.into(),
            other => Self::format(other.to_string()),
        }
    }
}

/// A member of an archive that is a file.
pub(super) struct Member<'a, 'b> {
    archive: &'a mut ZipArchive<&'b mut dyn Source>,
    index: usize,
    /// What this member and those after it may still unpack to.
    budget: &'a mut u64,
    pub(super) name: String,
    pub(super) comment: String,
    pub(super) size: u64,
}

impl Member<'_, '_> {
    /// Shows `f` the content, then reads what `f` has left of it: only its end tells whether it is damaged.
    pub(super) fn read<R>(&mut self, f: impl FnOnce(&mut Input<'_>) -> Outcome<R>) -> Outcome<R> {
        self.check_packing()?;
        let size = self.size;
        *self.budget = self.budget.checked_sub(size).ok_or_else(|| {
            Fault::format(format!("{size} bytes are more than a file of this length can unpack to"))
        })?;
        let mut input = Input::new(self.archive.by_index(self.index).map_err(while_reading)?, size);
        let found = f(&mut input);
        match found {
            Ok(_) => input.finish()?,
            // A sound one.
            Err(Fault::Unusable(_)) => input.skip(input.remaining()).and_then(|()| input.finish())?,
            Err(_) => {}
        }
        found
    }

    fn check_packing(&mut self) -> Outcome<()> {
        let packed = self.raw()?;
        let reason = match packed.compression() {
            _ if packed.encrypted() => "is encrypted".to_owned(),
            CompressionMethod::Stored | CompressionMethod::Deflated => return Ok(()),
            method => format!("is packed by the method {method} of zip, which is not read"),
        };
        Err(Fault::unusable(reason))
    }

    /// The member as it is packed.
    pub(super) fn raw(&mut self) -> Outcome<ZipFile<'_, impl Read>> {
        self.archive.by_index_raw(self.index).map_err(while_reading)
    }
}

fn while_reading(error: ZipError) -> Fault {
    match error {
        ZipError::Io(error) => Fault::while_reading(error),
        other => other.into(),
    }
}

/// Shows `f` each member that is a file.
pub(super) fn for_each(
    source: &mut dyn Source,
    mut f: impl FnMut(&mut Member<'_, '_>) -> Outcome<()>,
) -> Outcome<()> {
    let length = super::input::length(source)?;
    // What all members may take together: members may share their bytes.
    let mut budget = limits::unpacked(length);
    let mut archive = ZipArchive::new(source).map_err(while_reading)?;
    if archive.has_duplicate_names() {
        // Which of them counts would depend on the reader.
        return Err(Fault::format("two members have the same name"));
    }
    for index in 0..archive.len() {
        let member = archive.by_index_raw(index).map_err(while_reading)?;
        if member.is_dir() {
            continue;
        }
        let (name, comment, size) = (member.name()?.into_owned(), member.comment().to_owned(), member.size());
        drop(member);
        let mut member = Member { archive: &mut archive, index, budget: &mut budget, name, comment, size };
        f(&mut member).map_err(|fault| fault.within(&format!("`{}`", member.name)))?;
    }
    Ok(())
}

/// What a zip writer writes to. When one is dropped after an error, it ends its archive and prints the error if that
/// fails too. So what has failed once, and was told, takes everything after that.
pub(super) struct FailsOnce<W> {
    output: W,
    position: u64,
    has_failed: bool,
}

impl<W: Write + Seek> FailsOnce<W> {
    /// Over an output that stands at its start.
    pub(super) fn new(output: W) -> Self {
        Self { output, position: 0, has_failed: false }
    }

    fn told<R>(&mut self, result: io::Result<R>) -> io::Result<R> {
        self.has_failed |= matches!(&result, Err(error) if error.kind() != io::ErrorKind::Interrupted);
        result
    }
}

impl<W: Write + Seek> Write for FailsOnce<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match self.has_failed {
            true => bytes.len(),
            false => {
                let result = self.output.write(bytes);
                self.told(result)?
            }
        };
        self.position += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.has_failed {
            return Ok(());
        }
        let result = self.output.flush();
        self.told(result)
    }
}

impl<W: Write + Seek> Seek for FailsOnce<W> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.position = match (self.has_failed, to) {
            (false, to) => {
                let result = self.output.seek(to);
                self.told(result)?
            }
            (true, SeekFrom::Start(position)) => position,
            (true, SeekFrom::Current(offset)) => self.position.saturating_add_signed(offset),
            (true, SeekFrom::End(_)) => self.position,
        };
        Ok(self.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Has room for so many bytes.
    struct Full(io::Cursor<Vec<u8>>, usize);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.0.position() as usize + bytes.len() > self.1 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.0.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Seek for Full {
        fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
            self.0.seek(to)
        }
    }

    #[test]
    fn an_error_is_told_once() {
        let mut output = FailsOnce::new(Full(io::Cursor::default(), 4));
        output.write_all(b"abc").unwrap();
        assert_eq!(output.write_all(b"de").unwrap_err().kind(), io::ErrorKind::StorageFull);
        output.write_all(b"defg").unwrap();
        assert_eq!(output.stream_position().unwrap(), 7);
        assert_eq!(output.seek(SeekFrom::Start(1)).unwrap(), 1);
        output.write_all(b"x").unwrap();
        output.flush().unwrap();
        assert_eq!(output.output.0.into_inner(), b"abc");
    }
}
