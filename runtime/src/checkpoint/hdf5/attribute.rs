//! Attributes: what a dataset says of itself.

use super::super::Outcome;
use super::checksum::lookup3;
use super::datatype::{Datatype, Kind};
use super::fractal::Heap;
use super::header::{ATTRIBUTE, ATTRIBUTE_INFO, Header, Message};
use super::image::{Block, Image};
use super::{dataspace, tree2};

/// An attribute with one of the names that were asked for.
#[derive(Clone, Debug)]
pub(in super::super) struct Attribute {
    pub(in super::super) name: String,
    datatype: Option<Datatype>,
    data: Vec<u8>,
}

impl Attribute {
    /// Its value, if it is one integer.
    pub(in super::super) fn integer(&self) -> Option<i64> {
        let Some(Datatype { size, big_endian, kind: Kind::Integer { signed } }) = self.datatype else {
            return None;
        };
        if self.data.len() != size || size > 8 {
            return None;
        }
        let mut bytes = self.data.clone();
        if big_endian {
            bytes.reverse();
        }
        let negative = signed && bytes.last().is_some_and(|&byte| byte >= 0x80);
        let mut wide = [if negative { 0xff } else { 0 }; 8];
        wide[..size].copy_from_slice(&bytes);
        let value = i64::from_le_bytes(wide);
        (signed || value >= 0).then_some(value)
    }

    /// Its value, if it is one boolean or number without a fraction.
    pub(in super::super) fn flag(&self) -> Option<bool> {
        let datatype = self.datatype?;
        match datatype.kind {
            _ if self.data.len() != datatype.size => None,
            Kind::Boolean => match self.data[..] {
                [value @ (0 | 1)] => Some(value == 1),
                _ => None,
            },
            Kind::Integer { .. } | Kind::Flags => Some(self.data.iter().any(|&byte| byte != 0)),
            _ => None,
        }
    }
}

/// The attributes of an object that have one of `names`.
pub(super) fn read(image: &mut Image<'_>, header: &Header, names: &[&str]) -> Outcome<Vec<Attribute>> {
    let mut found = Vec::new();
    for message in header.all(ATTRIBUTE) {
        push(&mut found, attribute(message.block()?, message.padded)?, names, &message.body)?;
    }
    if let Some(message) = header.get(ATTRIBUTE_INFO) {
        dense(image, message, names, &mut found)?;
    }
    Ok(found)
}

fn push(found: &mut Vec<Attribute>, attribute: Attribute, names: &[&str], at: &Block) -> Outcome<()> {
    if !names.contains(&&*attribute.name) {
        return Ok(());
    }
    if found.iter().any(|other| other.name == attribute.name) {
        return Err(at.fault(&format!("two attributes have the name `{}`", attribute.name)));
    }
    found.push(attribute);
    Ok(())
}

fn dense(
    image: &mut Image<'_>,
    message: &Message,
    names: &[&str],
    found: &mut Vec<Attribute>,
) -> Outcome<()> {
    let mut info = message.block()?;
    info.version(0, "what an object says of its attributes")?;
    let flags = info.u8()?;
    info.skip(if flags & 1 == 0 { 0 } else { 2 })?;
    let (heap, index) = (info.address()?, info.address()?);
    if flags & 2 != 0 {
        info.address()?;
    }
    info.finish(message.padded, "what an object says of its attributes")?;
    let (heap, index) = match (heap, index) {
        (None, None) => return Ok(()),
        (Some(heap), Some(index)) => (heap, index),
        _ => return Err(info.fault("an object keeps its attributes in two ways")),
    };
    let mut heap = Heap::read(image, heap)?;
    let records = tree2::records(image, index, 8)?;
    heap.expect(records.len())?;
    for mut record in records {
        let identity = record.bytes(8)?.to_vec();
        let flags = record.u8()?;
        record.skip(4)?;
        let hash = record.u32()?;
        let wanted = names.iter().any(|name| lookup3(name.as_bytes()) == hash);
        match heap.object(&identity)? {
            Some(object) if flags == 0 => {
                let attribute = attribute(object, false)?;
                if lookup3(attribute.name.as_bytes()) != hash {
                    return Err(
                        record.fault(&format!("an index leads to the wrong attribute `{}`", attribute.name))
                    );
                }
                push(found, attribute, names, &record)?;
            }
            _ if wanted => return Err(record.fault("an attribute is shared or too long, which is not read")),
            _ => {}
        }
    }
    Ok(())
}

/// The attribute in `block`, which holds nothing else.
pub(super) fn attribute(mut block: Block, padded: bool) -> Outcome<Attribute> {
    let version = block.u8()?;
    if !(1..=3).contains(&version) {
        return Err(block.fault(&format!("an attribute has the version {version}")));
    }
    let flags = block.u8()?;
    let sizes = [block.u16()?, block.u16()?, block.u16()?].map(usize::from);
    block.skip(usize::from(version == 3))?;
    let mut part = |size: usize| {
        let part = block.split(size)?;
        block.skip(if version == 1 { size.next_multiple_of(8) - size } else { 0 })?;
        Ok::<_, super::super::Fault>(part)
    };
    let (name, mut datatype, mut shape) = (part(sizes[0])?, part(sizes[1])?, part(sizes[2])?);
    let name = match name.rest().split_last() {
        Some((0, text)) if !text.contains(&0) => super::links::text(&name, text)?,
        _ => return Err(name.fault("the name of an attribute does not end where it should")),
    };
    // Of a type or shape that lies elsewhere nothing is known here.
    if version > 1 && flags & 3 != 0 {
        return Ok(Attribute { name, datatype: None, data: Vec::new() });
    }
    let datatype = Datatype::read(&mut datatype, version == 1)?;
    let Some(space) = dataspace::read(&mut shape, version == 1)? else {
        return Ok(Attribute { name, datatype: None, data: Vec::new() });
    };
    let size = space.shape.iter().try_fold(datatype.size, |size, &axis| size.checked_mul(axis));
    let size = size.ok_or_else(|| block.fault("an attribute is too long"))?;
    let data = block.bytes(size)?.to_vec();
    block.finish(padded, "an attribute")?;
    Ok(Attribute { name, datatype: Some(datatype), data })
}
