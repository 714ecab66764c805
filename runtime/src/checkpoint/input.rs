//! A file, slice or spooled stream of known length, read front to back.

use std::io::{self, BufReader, Read, Seek, SeekFrom};

use super::{Fault, Outcome};

/// What holds a whole file.
pub(super) trait Source: Read + Seek {}

impl<T: Read + Seek> Source for T {}

/// Length of `source`, which stands at its start afterwards.
pub(super) fn length(source: &mut dyn Source) -> Outcome<u64> {
    let length = source.seek(SeekFrom::End(0))?;
    source.rewind()?;
    Ok(length)
}

/// A source that knows where it stands and how much is left, so that nothing is allocated on a file's word alone.
pub(super) struct Input<'a> {
    source: BufReader<Box<dyn Read + 'a>>,
    position: u64,
    length: u64,
}

impl<'a> Input<'a> {
    /// Over a source that stands at its start and of which `length` bytes are to be read.
    pub(super) fn new(source: impl Read + 'a, length: u64) -> Self {
        Self { source: BufReader::with_capacity(1 << 16, Box::new(source)), position: 0, length }
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }

    pub(super) fn remaining(&self) -> u64 {
        self.length - self.position
    }

    /// Fails unless `count` more bytes are there.
    pub(super) fn expect(&self, count: u64) -> Outcome<()> {
        if count <= self.remaining() {
            return Ok(());
        }
        let (position, remaining) = (self.position, self.remaining());
        Err(Fault::format(format!("byte {position}: {count} more bytes are declared, {remaining} are left")))
    }

    pub(super) fn read_exact(&mut self, bytes: &mut [u8]) -> Outcome<()> {
        self.expect(bytes.len() as u64)?;
        self.source.read_exact(bytes).map_err(Fault::while_reading)?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    /// The next `count` bytes.
    pub(super) fn bytes(&mut self, count: u64) -> Outcome<Vec<u8>> {
        self.expect(count)?;
        let mut bytes = vec![0; usize::try_from(count).map_err(|_| Fault::format("a field is too long"))?];
        self.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Outcome<[u8; N]> {
        let mut bytes = [0; N];
        self.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Fails unless everything was read; lets the source check what it checks at its end.
    pub(super) fn finish(&mut self) -> Outcome<()> {
        if self.remaining() > 0 {
            return Err(Fault::format(format!(
                "byte {}: {} bytes too many",
                self.position,
                self.remaining()
            )));
        }
        match self.source.read(&mut [0]).map_err(Fault::while_reading)? {
            0 => Ok(()),
            _ => Err(Fault::format("is longer than it declares")),
        }
    }

    /// What is left, as text.
    pub(super) fn text(&mut self) -> Outcome<String> {
        String::from_utf8(self.bytes(self.remaining())?).map_err(|error| {
            Fault::format(format!("byte {}: the text is not UTF-8", error.utf8_error().valid_up_to()))
        })
    }

    pub(super) fn skip(&mut self, count: u64) -> Outcome<()> {
        self.expect(count)?;
        // Buffered: most of what is skipped is short.
        let skipped =
            io::copy(&mut self.source.by_ref().take(count), &mut io::sink()).map_err(Fault::while_reading)?;
        if skipped < count {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        self.position += count;
        Ok(())
    }
}

impl Read for Input<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let limit = usize::try_from(self.remaining()).unwrap_or(usize::MAX).min(bytes.len());
        let count = self.source.read(&mut bytes[..limit])?;
        self.position += count as u64;
        Ok(count)
    }
}
