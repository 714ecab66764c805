//! Where the chunks of a dataset are.

use super::super::values::Stored;
use super::super::{Fault, Outcome};
use super::filters::Filter;
use super::image::{Block, Image};
use super::tree1;

/// A chunk, in the order of the grid.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunk {
    pub(super) address: u64,
    pub(super) size: u64,
    /// Filters that were left out.
    pub(super) mask: u32,
}

#[derive(Clone, Copy)]
pub(super) enum Index {
    Tree(Option<u64>),
    /// One chunk; with its packed size and mask if there are filters.
    Single(Option<u64>, Option<(u64, u32)>),
    Array(Option<u64>),
    Unread(&'static str),
}

/// The sizes of a chunk, that of an element last, and its index.
pub(super) fn index(block: &mut Block, version: u8) -> Outcome<(Vec<u64>, Index)> {
    if version == 3 {
        let rank = block.u8()?;
        let tree = block.address()?;
        return Ok((sizes(block, rank, 4)?, Index::Tree(tree)));
    }
    let (flags, rank, width) = (block.u8()?, block.u8()?, usize::from(block.u8()?));
    if !(1..=8).contains(&width) {
        return Err(block.fault(&format!("the size of a chunk takes {width} bytes")));
    }
    let chunk = sizes(block, rank, width)?;
    let kind = block.u8()?;
    if flags & 1 != 0 {
        return Ok((chunk, Index::Unread("an index whose last chunks are not packed")));
    }
    let index = match kind {
        1 => {
            let packed = if flags & 2 == 0 { None } else { Some((block.length()?, block.u32()?)) };
            Index::Single(block.address()?, packed)
        }
        2 => Index::Unread("Implicit"),
        3 => {
            block.skip(1)?;
            Index::Array(block.address()?)
        }
        4 => Index::Unread("ExtensibleArray"),
        5 => Index::Unread("BtreeV2"),
        _ => return Err(block.fault(&format!("chunks have an index of the type {kind}"))),
    };
    Ok((chunk, index))
}

fn sizes(block: &mut Block, rank: u8, width: usize) -> Outcome<Vec<u64>> {
    (0..rank).map(|_| block.uint(width)).collect()
}

/// The chunks that `index` leads to, all of them; none if nothing was ever written. The inner error names an index that is not read.
pub(super) fn read(
    image: &mut Image<'_>,
    shape: &[usize],
    chunk: &[usize],
    stored: Stored,
    filters: &[Filter],
    index: Index,
) -> Outcome<Result<Option<Vec<Chunk>>, &'static str>> {
    let size = stored.count(chunk)? as u64 * stored.size();
    let grid: Vec<_> = shape.iter().zip(chunk).map(|(shape, chunk)| shape.div_ceil(*chunk)).collect();
    let count = grid.iter().try_fold(1_u64, |count, &size| count.checked_mul(size as u64));
    let count = count.ok_or_else(|| Fault::format("there are too many chunks"))?;
    let chunks = match index {
        Index::Unread(name) => return Ok(Err(name)),
        Index::Tree(None) | Index::Single(None, _) | Index::Array(None) => return Ok(Ok(None)),
        Index::Tree(Some(root)) => tree(image, root, chunk, &grid)?,
        Index::Single(Some(address), packed) => {
            let (size, mask) = packed.unwrap_or((size, 0));
            vec![Chunk { address, size, mask }]
        }
        Index::Array(Some(address)) => match array(image, address, count, size, !filters.is_empty())? {
            Some(chunks) => chunks,
            None => return Ok(Ok(None)),
        },
    };
    if chunks.len() as u64 != count {
        let found = chunks.len();
        return Err(Fault::format(format!("has {found} chunks where its shape wants {count}")));
    }
    for found in &chunks {
        if filters.is_empty() && (found.size != size || found.mask != 0) {
            return Err(Fault::format(format!(
                "a chunk takes {} bytes where {size} are expected",
                found.size
            )));
        }
        image.claim(found.address, found.size, "a chunk")?;
    }
    Ok(Ok(Some(chunks)))
}

fn tree(image: &mut Image<'_>, root: u64, chunk: &[usize], grid: &[usize]) -> Outcome<Vec<Chunk>> {
    let key = 8 + 8 * (chunk.len() + 1);
    let children = tree1::children(image, root, 1, key, |_, _, _| Ok(()))?;
    let mut chunks = Vec::with_capacity(children.len());
    for mut child in children {
        let (size, mask) = (u64::from(child.key.u32()?), child.key.u32()?);
        // The place in the grid, row by row.
        let mut place = 0_u64;
        for (&chunk, &count) in chunk.iter().zip(grid) {
            let offset = child.key.uint(8)?;
            if offset % chunk as u64 != 0 || offset / chunk as u64 >= count as u64 {
                return Err(child.key.fault(&format!("a chunk starts at {offset}, where none can")));
            }
            place = place * count as u64 + offset / chunk as u64;
        }
        if child.key.uint(8)? != 0 || place != chunks.len() as u64 {
            return Err(child.key.fault(&format!(
                "chunk {place} stands where chunk {} is expected: one was not written or is lost",
                chunks.len()
            )));
        }
        chunks.push(Chunk { address: child.address, size, mask });
    }
    Ok(chunks)
}

/// A fixed array: a header, and one block that may have pages.
fn array(
    image: &mut Image<'_>,
    address: u64,
    count: u64,
    size: u64,
    packed: bool,
) -> Outcome<Option<Vec<Chunk>>> {
    let what = "the index of chunks";
    let widths = image.widths;
    let mut head = image.take_signed(address, (12 + widths.length + widths.address) as u64, b"FAHD", what)?;
    head.version(0, what)?;
    head.version(u8::from(packed), what)?;
    let (entry, bits) = (usize::from(head.u8()?), head.u8()?);
    let (entries, data) = (head.length()?, head.address()?);
    let wide = entry.checked_sub(widths.address + if packed { 4 } else { 0 });
    let Some(width) = wide.filter(|&width| if packed { (1..=8).contains(&width) } else { width == 0 }) else {
        return Err(head.fault(&format!("an entry of the index of chunks has {entry} bytes")));
    };
    if entries != count {
        return Err(head.fault(&format!("{entries} chunks are indexed, the shape wants {count}")));
    }
    let Some(data) = data else { return Ok(None) };
    let page = 1_u64.checked_shl(bits.into()).unwrap_or(u64::MAX);
    let pages = if count > page { count.div_ceil(page) } else { 0 };
    let start = (6 + widths.address) as u64 + pages.div_ceil(8) + 4;
    let (first, mut at) = match pages {
        0 => (start.saturating_add(count.saturating_mul(entry as u64)), 0),
        _ => (start, data.saturating_add(start)),
    };
    let mut block = image.take_signed(data, first, b"FADB", what)?;
    block.version(0, what)?;
    block.version(u8::from(packed), what)?;
    if block.somewhere(what)? != address {
        return Err(block.fault("a part of the index of chunks belongs elsewhere"));
    }
    let mut chunks = Vec::new();
    if pages == 0 {
        entries_of(&mut block, count, width, size, packed, &mut chunks)?;
    }
    for number in 0..pages {
        let here = page.min(count - number * page);
        let length = here * entry as u64 + 4;
        let mut block = image.take_signed(at, length, b"", what)?;
        entries_of(&mut block, here, width, size, packed, &mut chunks)?;
        at += length;
    }
    Ok(Some(chunks))
}

fn entries_of(
    block: &mut Block,
    count: u64,
    width: usize,
    size: u64,
    packed: bool,
    chunks: &mut Vec<Chunk>,
) -> Outcome<()> {
    for _ in 0..count {
        let address = block.somewhere("a chunk")?;
        let (size, mask) = if packed { (block.uint(width)?, block.u32()?) } else { (size, 0) };
        chunks.push(Chunk { address, size, mask });
    }
    Ok(())
}
