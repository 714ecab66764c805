//! Object headers: the messages that describe a group or a dataset.

use std::collections::VecDeque;

use super::super::Outcome;
use super::image::{Block, Image};

pub(super) const DATASPACE: u16 = 0x01;
pub(super) const LINK_INFO: u16 = 0x02;
pub(super) const DATATYPE: u16 = 0x03;
pub(super) const OLD_FILL: u16 = 0x04;
pub(super) const FILL: u16 = 0x05;
pub(super) const LINK: u16 = 0x06;
pub(super) const EXTERNAL: u16 = 0x07;
pub(super) const LAYOUT: u16 = 0x08;
pub(super) const FILTERS: u16 = 0x0b;
pub(super) const ATTRIBUTE: u16 = 0x0c;
pub(super) const SYMBOL_TABLE: u16 = 0x11;
pub(super) const ATTRIBUTE_INFO: u16 = 0x15;
pub(super) const UNUSED: u16 = 0x00;
const COMMENT: u16 = 0x0d;
const CONTINUATION: u16 = 0x10;
const REFERENCES: u16 = 0x16;
const LAST_KNOWN: u16 = 0x18;

/// The messages of which an object may have many.
const REPEATED: [u16; 3] = [LINK, ATTRIBUTE, UNUSED];

/// Flag of a message that lies elsewhere.
const SHARED: u8 = 0x02;

#[derive(Debug)]
pub(super) struct Message {
    pub(super) kind: u16,
    pub(super) shared: bool,
    /// Whether the length is rounded up to a multiple of eight.
    pub(super) padded: bool,
    pub(super) body: Block,
}

#[derive(Debug)]
pub(super) struct Header {
    /// How many links lead to the object.
    pub(super) links: u32,
    pub(super) messages: Vec<Message>,
}

impl Header {
    pub(super) fn read(image: &mut Image<'_>, address: u64) -> Outcome<Self> {
        let start = image.peek(address, 4, "an object header")?;
        let header = match start.rest() {
            b"OHDR" => new(image, address)?,
            [1, ..] => old(image, address)?,
            _ => return Err(start.fault("an object header is expected here")),
        };
        header.check(&start)?;
        Ok(header)
    }

    fn check(&self, start: &Block) -> Outcome<()> {
        let mut seen = [false; LAST_KNOWN as usize + 1];
        for message in &self.messages {
            let place = seen.get_mut(usize::from(message.kind));
            let Some(seen) = place else {
                return Err(message.body.fault(&format!("a message of the unknown type {}", message.kind)));
            };
            if std::mem::replace(seen, true) && !REPEATED.contains(&message.kind) {
                return Err(start.fault(&format!("an object has two messages of the type {}", message.kind)));
            }
            message.check()?;
        }
        Ok(())
    }

    pub(super) fn has(&self, kind: u16) -> bool {
        self.messages.iter().any(|message| message.kind == kind)
    }

    pub(super) fn get(&self, kind: u16) -> Option<&Message> {
        self.messages.iter().find(|message| message.kind == kind)
    }

    pub(super) fn all(&self, kind: u16) -> impl Iterator<Item = &Message> {
        self.messages.iter().filter(move |message| message.kind == kind)
    }
}

impl Message {
    /// A comment is text; one that is not was another message.
    fn check(&self) -> Outcome<()> {
        let content = self.body.rest();
        let end = content.iter().position(|&byte| byte == 0).unwrap_or(content.len());
        if self.kind == COMMENT && !content[end..].iter().all(|&byte| byte == 0) {
            return Err(self.body.fault("a comment is not text"));
        }
        Ok(())
    }

    /// A reader of the message; fails if it lies elsewhere.
    pub(super) fn block(&self) -> Outcome<Block> {
        if self.shared {
            return Err(self.body.fault("a message is shared between objects, which is not read"));
        }
        Ok(self.body.clone())
    }
}

/// Version 1: no checksums, but the number of messages is known.
fn old(image: &mut Image<'_>, address: u64) -> Outcome<Header> {
    let mut prefix = image.take(address, 16, "an object header")?;
    prefix.skip(2)?;
    let (count, links, size) = (prefix.u16()?, prefix.u32()?, prefix.u32()?);
    let mut blocks = VecDeque::from([(address.saturating_add(16), u64::from(size))]);
    let (mut messages, mut found) = (Vec::new(), 0_usize);
    while let Some((address, size)) = blocks.pop_front() {
        let mut block = image.take(address, size, "a part of an object header")?;
        while block.remaining() > 0 {
            let (kind, size, flags) = (block.u16()?, block.u16()?, block.u8()?);
            block.skip(3)?;
            if size % 8 != 0 {
                return Err(block.fault("the length of a message is not a multiple of eight"));
            }
            found += 1;
            add(&mut messages, &mut blocks, kind, flags, true, block.split(size.into())?)?;
        }
    }
    if found != usize::from(count) {
        return Err(prefix.fault(&format!("{count} messages are declared for an object, {found} are there")));
    }
    Ok(Header { links, messages })
}

/// Version 2: each block has a checksum.
fn new(image: &mut Image<'_>, address: u64) -> Outcome<Header> {
    let what = "an object header";
    let flags = image.peek(address, 6, what)?.all()[5];
    let (times, phases) = (if flags & 0x20 == 0 { 0 } else { 16 }, if flags & 0x10 == 0 { 0 } else { 4 });
    let width = 1_usize << (flags & 3);
    let prefix = 6 + times + phases + width as u64;
    let mut start = image.peek(address, prefix, what)?;
    start.skip(prefix as usize - width)?;
    let size = start.uint(width)?;
    let whole = size.checked_add(prefix + 4).ok_or_else(|| start.fault("an object header is too long"))?;
    let mut block = image.take_signed(address, whole, b"OHDR", what)?;
    block.version(2, what)?;
    block.skip(prefix as usize - 5)?;

    let ordered = flags & 4 != 0;
    let (mut messages, mut blocks) = (Vec::new(), VecDeque::new());
    loop {
        // What is shorter than the start of a message is a gap.
        while block.remaining() >= if ordered { 6 } else { 4 } {
            let (kind, size, flags) = (block.u8()?, block.u16()?, block.u8()?);
            block.skip(if ordered { 2 } else { 0 })?;
            let body = block.split(size.into())?;
            add(&mut messages, &mut blocks, kind.into(), flags, false, body)?;
        }
        let Some((address, size)) = blocks.pop_front() else { break };
        block = image.take_signed(address, size, b"OCHK", "a part of an object header")?;
    }
    let mut links = 1;
    if let Some(message) = messages.iter().find(|message| message.kind == REFERENCES) {
        let mut count = message.block()?;
        count.version(0, "a number of links")?;
        links = count.u32()?;
    }
    Ok(Header { links, messages })
}

fn add(
    messages: &mut Vec<Message>,
    blocks: &mut VecDeque<(u64, u64)>,
    kind: u16,
    flags: u8,
    padded: bool,
    mut body: Block,
) -> Outcome<()> {
    if kind == CONTINUATION {
        blocks.push_back((body.somewhere("the rest of an object header")?, body.length()?));
        return body.finish(padded, "a continuation of an object header");
    }
    messages.push(Message { kind, shared: flags & SHARED != 0, padded, body });
    Ok(())
}

/// The address of the object that a shared message stands in.
pub(super) fn committed(message: &Message) -> Outcome<u64> {
    let mut block = message.body.clone();
    match (block.u8()?, block.u8()?) {
        (1, 0) => block.skip(6)?,
        (2, _) | (3, 2) => {}
        _ => return Err(block.fault("a message is shared in a way that is not read")),
    }
    block.somewhere("a shared message")
}
