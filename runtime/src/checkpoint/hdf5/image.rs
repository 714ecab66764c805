//! The bytes of an HDF5 file and who owns them.

use std::collections::BTreeMap;
use std::io::SeekFrom;

use super::super::input::Source;
use super::super::{Fault, Outcome};
use super::checksum::lookup3;

/// Bytes that an address and a length take in this file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Widths {
    pub(super) address: usize,
    pub(super) length: usize,
}

/// A file of which every byte belongs to one structure at most.
///
/// No two structures of a sound file overlap. So what is read here is read once, a structure cannot contain itself, and
/// all of them together take no more memory and time than the file is long.
pub(super) struct Image<'a> {
    source: &'a mut dyn Source,
    /// Where address 0 lies.
    base: u64,
    /// The end of the file as an address.
    end: u64,
    pub(super) widths: Widths,
    /// The end of each range that is taken, by its start.
    taken: BTreeMap<u64, u64>,
}

impl<'a> Image<'a> {
    pub(super) fn new(source: &'a mut dyn Source, base: u64, length: u64) -> Self {
        let widths = Widths { address: 8, length: 8 };
        Self { source, base, end: length - base, widths, taken: BTreeMap::new() }
    }

    /// Ends the file at the address `end`.
    pub(super) fn limit(&mut self, end: u64) -> Outcome<()> {
        if end > self.end {
            return Err(Fault::format(format!(
                "ends early: {} bytes are declared, {} are there",
                self.base.saturating_add(end),
                self.base + self.end
            )));
        }
        self.end = end;
        Ok(())
    }

    /// Length of the file in bytes.
    pub(super) fn length(&self) -> u64 {
        self.base + self.end
    }

    pub(super) fn fault(&self, address: u64, reason: &str) -> Fault {
        Fault::format(format!("byte {}: {reason}", self.base.saturating_add(address)))
    }

    fn inside(&self, address: u64, length: u64, what: &str) -> Outcome<()> {
        match address.checked_add(length) {
            Some(end) if end <= self.end => Ok(()),
            _ => Err(self.fault(address, &format!("{what} of {length} bytes does not lie inside the file"))),
        }
    }

    /// Takes a range for `what`.
    pub(super) fn claim(&mut self, address: u64, length: u64, what: &str) -> Outcome<()> {
        self.inside(address, length, what)?;
        if length == 0 {
            return Ok(());
        }
        let end = address + length;
        // Ranges do not overlap, so only the last one that starts before the end can reach into this one.
        if self.taken.range(..end).next_back().is_some_and(|(_, &other)| other > address) {
            return Err(self.fault(address, &format!("{what} lies where another structure of the file is")));
        }
        self.taken.insert(address, end);
        Ok(())
    }

    /// Whether a structure that was read starts at `address`.
    pub(super) fn is_taken(&self, address: u64) -> bool {
        self.taken.contains_key(&address)
    }

    pub(super) fn read(&mut self, address: u64, bytes: &mut [u8]) -> Outcome<()> {
        self.inside(address, bytes.len() as u64, "a value")?;
        self.source.seek(SeekFrom::Start(self.base + address))?;
        self.source.read_exact(bytes).map_err(Fault::while_reading)
    }

    /// The bytes at `address`, which stay free.
    pub(super) fn peek(&mut self, address: u64, length: u64, what: &str) -> Outcome<Block> {
        self.inside(address, length, what)?;
        let mut bytes = vec![0; length as usize];
        self.read(address, &mut bytes)?;
        Ok(Block { bytes, start: self.base + address, position: 0, widths: self.widths })
    }

    /// Takes the bytes at `address` for `what`.
    pub(super) fn take(&mut self, address: u64, length: u64, what: &str) -> Outcome<Block> {
        self.claim(address, length, what)?;
        self.peek(address, length, what)
    }

    /// A block that ends with its checksum, after its signature.
    pub(super) fn take_signed(
        &mut self,
        address: u64,
        length: u64,
        signature: &[u8],
        what: &str,
    ) -> Outcome<Block> {
        let mut block = self.take(address, length, what)?;
        block.end_with_checksum(what)?;
        block.signature(signature, what)?;
        Ok(block)
    }
}

/// Bytes of the file, read front to back.
#[derive(Clone, Debug)]
pub(super) struct Block {
    bytes: Vec<u8>,
    /// Where they lie in the file.
    start: u64,
    position: usize,
    widths: Widths,
}

impl Block {
    pub(super) fn fault(&self, reason: &str) -> Fault {
        Fault::format(format!("byte {}: {reason}", self.start + self.position as u64))
    }

    /// Takes the checksum off the end, if it is that of what stands before it.
    pub(super) fn end_with_checksum(&mut self, what: &str) -> Outcome<()> {
        let split = self.bytes.len().checked_sub(4);
        let split = split.ok_or_else(|| self.fault(&format!("{what} ends early")))?;
        let sum = lookup3(&self.bytes[..split]).to_le_bytes();
        if self.bytes[split..] != sum {
            return Err(self.fault(&format!("{what} is damaged: its checksum differs")));
        }
        self.bytes.truncate(split);
        Ok(())
    }

    pub(super) fn signature(&mut self, expected: &[u8], what: &str) -> Outcome<()> {
        if self.bytes.get(self.position..self.position + expected.len()) != Some(expected) {
            return Err(self.fault(&format!("{what} is expected here")));
        }
        self.position += expected.len();
        Ok(())
    }

    /// Fails unless the next byte is `expected`.
    pub(super) fn version(&mut self, expected: u8, what: &str) -> Outcome<()> {
        match self.u8()? {
            found if found == expected => Ok(()),
            found => Err(self.fault(&format!("{what} has the version {found}, which is not read"))),
        }
    }

    pub(super) fn remaining(&self) -> usize {
        self.bytes.len() - self.position
    }

    /// What is left.
    pub(super) fn rest(&self) -> &[u8] {
        &self.bytes[self.position..]
    }

    /// All bytes, those that were read as well.
    pub(super) fn all(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn bytes(&mut self, count: usize) -> Outcome<&[u8]> {
        if count > self.remaining() {
            let remaining = self.remaining();
            return Err(self.fault(&format!("{count} more bytes are declared, {remaining} are left")));
        }
        self.position += count;
        Ok(&self.bytes[self.position - count..self.position])
    }

    /// The next `count` bytes as a block of their own.
    pub(super) fn split(&mut self, count: usize) -> Outcome<Self> {
        let start = self.start + self.position as u64;
        let bytes = self.bytes(count)?.to_vec();
        Ok(Self { bytes, start, position: 0, widths: self.widths })
    }

    /// The bytes of `range`, which lie inside.
    pub(super) fn part(&self, from: usize, count: usize) -> Outcome<Self> {
        let mut whole = Self { position: 0, ..self.clone_head() };
        let part = from.checked_add(count).and_then(|end| self.bytes.get(from..end));
        whole.bytes = part.ok_or_else(|| self.fault("a part lies outside its block"))?.to_vec();
        whole.start = self.start + from as u64;
        Ok(whole)
    }

    fn clone_head(&self) -> Self {
        Self { bytes: Vec::new(), start: self.start, position: self.position, widths: self.widths }
    }

    pub(super) fn skip(&mut self, count: usize) -> Outcome<()> {
        self.bytes(count).map(|_| ())
    }

    /// A number of `width` bytes, at most 8.
    pub(super) fn uint(&mut self, width: usize) -> Outcome<u64> {
        let mut wide = [0; 8];
        wide[..width].copy_from_slice(self.bytes(width)?);
        Ok(u64::from_le_bytes(wide))
    }

    pub(super) fn u8(&mut self) -> Outcome<u8> {
        Ok(self.bytes(1)?[0])
    }

    pub(super) fn u16(&mut self) -> Outcome<u16> {
        Ok(self.uint(2)? as u16)
    }

    pub(super) fn u32(&mut self) -> Outcome<u32> {
        Ok(self.uint(4)? as u32)
    }

    pub(super) fn length(&mut self) -> Outcome<u64> {
        self.uint(self.widths.length)
    }

    /// An address; `None` is the one that means nowhere.
    pub(super) fn address(&mut self) -> Outcome<Option<u64>> {
        let width = self.widths.address;
        let address = self.uint(width)?;
        Ok(if address == u64::MAX >> (64 - 8 * width) { None } else { Some(address) })
    }

    /// An address of something that is there.
    pub(super) fn somewhere(&mut self, what: &str) -> Outcome<u64> {
        self.address()?.ok_or_else(|| self.fault(&format!("{what} has no address")))
    }

    pub(super) fn widths(&self) -> Widths {
        self.widths
    }

    /// Fails if more is left than what fills the last eight bytes up.
    pub(super) fn finish(&self, padded: bool, what: &str) -> Outcome<()> {
        if self.remaining() > if padded { 7 } else { 0 } {
            return Err(self.fault(&format!("{what} is longer than what it holds")));
        }
        Ok(())
    }
}
