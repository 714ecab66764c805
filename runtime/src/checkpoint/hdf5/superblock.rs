//! The start of a file: how wide its addresses are and where the root group is.

use super::super::input::{Source, length};
use super::super::{Fault, Outcome};
use super::image::{Block, Image, Widths};

const SIGNATURE: &[u8] = b"\x89HDF\r\n\x1a\n";

/// What the superblock says of groups.
pub(super) struct Root {
    pub(super) address: u64,
    /// Entries of a symbol node.
    pub(super) symbols: u64,
    /// Children of a node of a group's tree.
    pub(super) children: usize,
    /// What the root's entry says of its tree and heap, if it does.
    pub(super) cached: Option<(u64, u64)>,
}

/// Finds the superblock, which may stand behind other content.
pub(super) fn open(source: &mut dyn Source) -> Outcome<(Image<'_>, Root)> {
    let length = length(source)?;
    let mut bytes = [0; 8];
    let mut base = 0;
    loop {
        if base + 8 > length {
            return Err(Fault::format("is not an HDF5 file: it has no superblock"));
        }
        source.seek(std::io::SeekFrom::Start(base))?;
        source.read_exact(&mut bytes)?;
        if bytes == SIGNATURE {
            break;
        }
        base = (base * 2).max(512);
    }
    let mut image = Image::new(source, base, length);
    let root = match image.peek(0, 9, "a superblock")?.all()[8] {
        version @ (0 | 1) => old(&mut image, version, base)?,
        2 | 3 => new(&mut image, base)?,
        version => {
            return Err(Fault::format(format!("has a superblock of version {version}, which is not read")));
        }
    };
    Ok((image, root))
}

fn widths(image: &mut Image<'_>, at: u64) -> Outcome<Widths> {
    let mut block = image.peek(at, 2, "a superblock")?;
    let widths = Widths { address: block.u8()?.into(), length: block.u8()?.into() };
    for width in [widths.address, widths.length] {
        if !matches!(width, 2 | 4 | 8) {
            return Err(block.fault(&format!("addresses or lengths of {width} bytes are not read")));
        }
    }
    image.widths = widths;
    Ok(widths)
}

/// The addresses that a superblock starts with; the root's follows.
fn addresses(block: &mut Block, image: &mut Image<'_>, base: u64) -> Outcome<Option<u64>> {
    if block.address()? != Some(base) {
        return Err(block.fault("the base address is not where the file starts"));
    }
    let extra = block.address()?;
    let end = block.somewhere("the end of the file")?;
    image.limit(end.checked_sub(base).ok_or_else(|| block.fault("the file ends before it starts"))?)?;
    Ok(extra)
}

fn old(image: &mut Image<'_>, version: u8, base: u64) -> Outcome<Root> {
    let widths = widths(image, 13)?;
    let more = if version == 1 { 4 } else { 0 };
    let size = 24 + more + 6 * widths.address + 24;
    let mut block = image.take(0, size as u64, "a superblock")?;
    block.skip(9)?;
    for _ in 0..2 {
        block.version(0, "a table of the superblock")?;
    }
    block.skip(1)?;
    block.version(0, "a table of the superblock")?;
    block.skip(3)?;
    let (leaf, inner) = (u64::from(block.u16()?), usize::from(block.u16()?));
    block.skip(4 + more)?;
    addresses(&mut block, image, base)?;
    if block.address()?.is_some() {
        return Err(block.fault("the file is spread over others, which is not read"));
    }
    block.skip(widths.address)?;
    let address = block.somewhere("the root group")?;
    let cached = match block.u32()? {
        1 => {
            block.skip(4)?;
            Some((block.somewhere("the root's tree")?, block.somewhere("the root's heap")?))
        }
        0 => None,
        kind => return Err(block.fault(&format!("the root group has the type {kind}"))),
    };
    if leaf == 0 || inner == 0 {
        return Err(block.fault("groups have no room for links"));
    }
    Ok(Root { address, symbols: 2 * leaf, children: 2 * inner, cached })
}

fn new(image: &mut Image<'_>, base: u64) -> Outcome<Root> {
    let widths = widths(image, 9)?;
    let size = 12 + 4 * widths.address + 4;
    let mut block = image.take(0, size as u64, "a superblock")?;
    block.end_with_checksum("the superblock")?;
    block.skip(11)?;
    if block.u8()? & 5 != 0 {
        return Err(block.fault("the file was not closed by the program that wrote it"));
    }
    // The extension says how space is managed, which nobody needs who reads.
    addresses(&mut block, image, base)?;
    let address = block.somewhere("the root group")?;
    Ok(Root { address, symbols: 8, children: 32, cached: None })
}
