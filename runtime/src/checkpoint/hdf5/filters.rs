//! What packs the values of a chunk.

use std::io::Read;

use super::super::values::Stored;
use super::super::{Fault, Outcome};
use super::checksum::fletcher32;
use super::image::Block;
use crate::limits;

const DEFLATE: u16 = 1;
const SHUFFLE: u16 = 2;
const FLETCHER32: u16 = 3;

const NAMES: [(u16, &[u8]); 6] = [
    (DEFLATE, b"deflate"),
    (SHUFFLE, b"shuffle"),
    (FLETCHER32, b"fletcher32"),
    (4, b"szip"),
    (5, b"nbit"),
    (6, b"scaleoffset"),
];

#[derive(Clone, Debug)]
pub(super) struct Filter {
    pub(super) id: u16,
    parameters: Vec<u32>,
}

impl Filter {
    pub(super) fn is_known(&self) -> bool {
        matches!(self.id, DEFLATE | SHUFFLE | FLETCHER32)
    }

    /// Fails if the filter does not suit the elements.
    pub(super) fn check(&self, stored: Stored) -> Outcome<()> {
        match self.parameters.first() {
            Some(&size) if self.id == SHUFFLE && u64::from(size) != stored.size() => Err(Fault::format(
                format!("its bytes are shuffled for elements of {size} bytes, they have {}", stored.size()),
            )),
            _ => Ok(()),
        }
    }
}

pub(super) fn read(mut block: Block, padded: bool) -> Outcome<Vec<Filter>> {
    let version = block.u8()?;
    let count = block.u8()?;
    match version {
        1 => block.skip(6)?,
        2 => {}
        _ => return Err(block.fault(&format!("a list of filters has the version {version}"))),
    }
    let mut filters = Vec::new();
    for _ in 0..count {
        let id = block.u16()?;
        let name = if version == 1 || id >= 256 { usize::from(block.u16()?) } else { 0 };
        block.skip(2)?;
        let parameters = usize::from(block.u16()?);
        let name = block.bytes(if version == 1 { name.next_multiple_of(8) } else { name })?;
        let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
        // Of the library's own filters the names are known.
        let known = NAMES.iter().find(|(_, known)| *known == name);
        if id == 0 || (7..256).contains(&id) || known.is_some_and(|(known, _)| *known != id) {
            return Err(block.fault(&format!("a filter has the number {id} of another one")));
        }
        let parameters = (0..parameters).map(|_| block.u32()).collect::<Outcome<Vec<_>>>()?;
        block.skip(if version == 1 && parameters.len() % 2 == 1 { 4 } else { 0 })?;
        if filters.iter().any(|other: &Filter| other.id == id) {
            return Err(block.fault(&format!("the filter {id} is used twice")));
        }
        filters.push(Filter { id, parameters });
    }
    block.finish(padded, "a list of filters")?;
    Ok(filters)
}

/// Unpacks a chunk that holds `size` bytes; `mask` has a bit for each filter that was left out.
pub(super) fn unpack(
    filters: &[Filter],
    mask: u32,
    mut packed: Vec<u8>,
    size: usize,
    element: usize,
) -> Outcome<Vec<u8>> {
    if mask.checked_shr(filters.len() as u32).unwrap_or(0) != 0 {
        return Err(Fault::format("a chunk leaves out filters that there are not"));
    }
    for (place, filter) in filters.iter().enumerate().rev() {
        let left_out = mask.checked_shr(place as u32).unwrap_or(0) & 1 != 0;
        match filter.id {
            // Only deflate is left out, where it would make a chunk longer.
            DEFLATE if left_out => {}
            _ if left_out => {
                return Err(Fault::format(format!("a chunk leaves out the filter {}", filter.id)));
            }
            // A checksum may stand before it.
            DEFLATE => packed = inflated(&packed, size + 4)?,
            SHUFFLE => packed = unshuffled(&packed, element),
            _ => checked(&mut packed)?,
        }
    }
    if packed.len() != size {
        return Err(Fault::format(format!(
            "a chunk has {} bytes after unpacking, {size} are expected",
            packed.len()
        )));
    }
    Ok(packed)
}

fn inflated(packed: &[u8], limit: usize) -> Outcome<Vec<u8>> {
    let mut decoder = flate2::read::ZlibDecoder::new(packed);
    let mut bytes = Vec::with_capacity(limit.min(limits::unpacked(packed.len() as u64) as usize));
    // One more byte than there may be, so that what is too long shows and the checksum at the end is read.
    let read = decoder.by_ref().take(limit as u64 + 1).read_to_end(&mut bytes);
    if let Err(error) = read {
        return Err(Fault::format(format!("a chunk is damaged: {error}")));
    }
    if bytes.len() > limit || decoder.total_in() != packed.len() as u64 {
        return Err(Fault::format("a chunk is longer than what it packs"));
    }
    Ok(bytes)
}

/// The first bytes of all elements stand before the second ones; what does not fill an element stays at the end.
fn unshuffled(bytes: &[u8], element: usize) -> Vec<u8> {
    let count = bytes.len() / element;
    let mut elements = bytes.to_vec();
    for (place, column) in bytes[..count * element].chunks_exact(count.max(1)).enumerate() {
        for (to, from) in elements[place..].iter_mut().step_by(element).zip(column) {
            *to = *from;
        }
    }
    elements
}

fn checked(bytes: &mut Vec<u8>) -> Outcome<()> {
    let split = bytes.len().checked_sub(4).ok_or_else(|| Fault::format("a chunk has no checksum"))?;
    let sum = bytes[split..].iter().rev().fold(0, |sum, &byte| sum << 8 | u32::from(byte));
    bytes.truncate(split);
    if fletcher32(bytes) != sum {
        return Err(Fault::format("a chunk is damaged: its checksum differs"));
    }
    Ok(())
}
