//! Links of groups in the new format: in the header, or in a heap with an index of names.

use super::super::Outcome;
use super::checksum::lookup3;
use super::fractal::Heap;
use super::header::{Header, LINK, LINK_INFO};
use super::image::{Block, Image};
use super::tree2;

#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) name: String,
    pub(super) target: Target,
}

#[derive(Clone, Debug)]
pub(super) enum Target {
    /// An object; of a group in the old format also its tree and heap.
    Hard(u64, Option<(u64, u64)>),
    /// A path in the same file.
    Soft(String),
    /// Something in another file.
    External,
    /// What a program of its own follows.
    Custom(u8),
}

/// A name as text.
pub(super) fn text(block: &Block, bytes: &[u8]) -> Outcome<String> {
    match String::from_utf8(bytes.to_vec()) {
        Ok(text) => Ok(text),
        Err(_) => Err(block.fault(&format!("the name {:?} is not UTF-8", String::from_utf8_lossy(bytes)))),
    }
}

/// The links of a group with the given header.
pub(super) fn read(image: &mut Image<'_>, header: &Header) -> Outcome<Vec<Link>> {
    let mut links = header
        .all(LINK)
        .map(|message| link(message.block()?, message.padded))
        .collect::<Outcome<Vec<_>>>()?;
    if let Some(message) = header.get(LINK_INFO) {
        let mut info = message.block()?;
        info.version(0, "what a group says of its links")?;
        let flags = info.u8()?;
        info.skip(if flags & 1 == 0 { 0 } else { 8 })?;
        let (heap, index) = (info.address()?, info.address()?);
        if flags & 2 != 0 {
            // The same links in the order of their creation.
            info.address()?;
        }
        info.finish(message.padded, "what a group says of its links")?;
        match (heap, index) {
            (None, None) => {}
            (Some(heap), Some(index)) if links.is_empty() => links = dense(image, heap, index)?,
            _ => return Err(info.fault("a group keeps its links in two ways")),
        }
    }
    links.sort_by(|a, b| a.name.cmp(&b.name));
    if let Some(pair) = links.windows(2).find(|pair| pair[0].name == pair[1].name) {
        let start = header
            .messages
            .first()
            .map(|message| message.body.fault(&format!("two links have the name `{}`", pair[0].name)));
        return Err(start.unwrap_or_else(|| super::super::Fault::format("two links have the same name")));
    }
    Ok(links)
}

fn dense(image: &mut Image<'_>, heap: u64, index: u64) -> Outcome<Vec<Link>> {
    let mut heap = Heap::read(image, heap)?;
    let records = tree2::records(image, index, 5)?;
    heap.expect(records.len())?;
    let mut links = Vec::new();
    for mut record in records {
        let hash = record.u32()?;
        let Some(object) = heap.object(record.rest())? else {
            return Err(record.fault("a link is too long to be read"));
        };
        let link = link(object, false)?;
        if lookup3(link.name.as_bytes()) != hash {
            return Err(
                record.fault(&format!("the index of a group leads to the wrong link `{}`", link.name))
            );
        }
        links.push(link);
    }
    Ok(links)
}

/// The link in `block`, which holds nothing else.
pub(super) fn link(mut block: Block, padded: bool) -> Outcome<Link> {
    block.version(1, "a link")?;
    let flags = block.u8()?;
    let kind = if flags & 8 == 0 { 0 } else { block.u8()? };
    block.skip(if flags & 4 == 0 { 0 } else { 8 })?;
    block.skip(if flags & 16 == 0 { 0 } else { 1 })?;
    let length = usize::try_from(block.uint(1 << (flags & 3))?).unwrap_or(usize::MAX);
    let name = block.split(length)?;
    let name = text(&name, name.rest())?;
    let target = match kind {
        0 => Target::Hard(block.somewhere("a link")?, None),
        1 => {
            let length = usize::from(block.u16()?);
            let value = block.split(length)?;
            Target::Soft(text(&value, value.rest())?)
        }
        _ => {
            let length = usize::from(block.u16()?);
            block.skip(length)?;
            if kind == 64 { Target::External } else { Target::Custom(kind) }
        }
    };
    block.finish(padded, "a link")?;
    Ok(Link { name, target })
}
