//! Datatypes: those of tensors and attributes in full, others by name.

use super::super::Outcome;
use super::super::values::Stored;
use super::image::Block;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Datatype {
    /// Bytes of an element.
    pub(super) size: usize,
    pub(super) big_endian: bool,
    pub(super) kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Integer {
        signed: bool,
    },
    Float(Stored),
    /// An enumeration over integers of one byte, all of which are 0 or 1.
    Boolean,
    /// Another enumeration over integers, or bits.
    Flags,
    /// What tensors cannot have.
    Other(&'static str),
}

impl Datatype {
    /// What a tensor of this type is read as; otherwise what the type is called.
    pub(super) fn stored(self) -> Result<Stored, &'static str> {
        Ok(match (self.kind, self.size) {
            (Kind::Boolean, _) => Stored::Bool,
            (Kind::Float(stored), _) => stored,
            (Kind::Integer { signed: false }, 1) => Stored::U8,
            (Kind::Integer { signed: true }, 1) => Stored::I8,
            (Kind::Integer { signed: false }, 2) => Stored::U16,
            (Kind::Integer { signed: true }, 2) => Stored::I16,
            (Kind::Integer { signed: false }, 4) => Stored::U32,
            (Kind::Integer { signed: true }, 4) => Stored::I32,
            (Kind::Integer { signed: false }, 8) => Stored::U64,
            (Kind::Integer { signed: true }, 8) => Stored::I64,
            (Kind::Integer { .. }, _) => return Err("integers of an unusual width"),
            (Kind::Flags, _) => return Err("enumerations"),
            (Kind::Other(name), _) => return Err(name),
        })
    }

    /// Reads the type in `block`, which holds nothing else.
    pub(super) fn read(block: &mut Block, padded: bool) -> Outcome<Self> {
        let datatype = Self::within(block, 0)?;
        block.finish(padded, "a datatype")?;
        Ok(datatype)
    }

    /// Reads the type that begins here, in so many others.
    fn within(block: &mut Block, depth: usize) -> Outcome<Self> {
        let head = Head::read(block)?;
        let plain = |kind| Self { size: head.size, big_endian: head.bits & 1 != 0, kind };
        Ok(match head.class {
            0 => plain(integer(block, &head)?),
            1 => plain(float(block, &head)?),
            4 => {
                block.skip(4)?;
                plain(Kind::Flags)
            }
            8 => {
                let base = Head::read(block)?;
                if base.class != 0 || base.size != head.size {
                    return Err(block.fault("an enumeration is not one of integers of its size"));
                }
                integer(block, &base)?;
                let kind = enumeration(block, &head)?;
                Self { size: head.size, big_endian: base.bits & 1 != 0, kind }
            }
            _ if depth == MAX_DEPTH => return Err(block.fault("datatypes lie too deep in each other")),
            _ => plain(Kind::Other(other(block, &head, depth + 1)?)),
        })
    }
}

/// What every type starts with.
struct Head {
    class: u8,
    version: u8,
    bits: u32,
    size: usize,
}

impl Head {
    fn read(block: &mut Block) -> Outcome<Self> {
        let first = block.u8()?;
        let (class, version) = (first & 15, first >> 4);
        if !(1..=5).contains(&version) {
            return Err(block.fault(&format!("a datatype has the version {version}")));
        }
        let bits = block.uint(3)? as u32;
        let size = block.u32()? as usize;
        if size == 0 {
            return Err(block.fault("a datatype has no size"));
        }
        Ok(Self { class, version, bits, size })
    }
}

/// What a type is called that is not read, if it is one: all of it is looked at, as damage may have made it of another.
fn other(block: &mut Block, head: &Head, depth: usize) -> Outcome<&'static str> {
    let low = (head.bits & 0xffff) as usize;
    let (name, sound) = match (head.class, head.version) {
        (2, _) => {
            block.skip(2)?;
            ("times", head.bits <= 1)
        }
        (3, _) => ("text", head.bits >> 8 == 0),
        (5, _) => {
            block.skip(low)?;
            ("opaque bytes", head.bits <= 0xff)
        }
        (6, _) => ("compounds", compound(block, head, low, depth)?),
        (7, ..4) => ("references", matches!((head.bits, head.size), (0, 8) | (1, 12))),
        (7, _) => ("references", true),
        (9, _) => {
            let base = Datatype::within(block, depth)?;
            match low & 15 {
                0 => ("lists", head.size == LIST),
                kind => ("text", head.size == LIST && kind == 1 && base.size == 1),
            }
        }
        (10, 2..) => ("lists", list(block, head, depth)?),
        (11, 5..) => ("complex numbers", 2 * Datatype::within(block, depth)?.size == head.size),
        _ => ("", false),
    };
    if sound { Ok(name) } else { Err(block.fault("a datatype contradicts itself")) }
}

/// A number of elements, an address and a place in a heap.
const LIST: usize = 16;

/// Types lie in each other, at most so deep.
const MAX_DEPTH: usize = 16;

/// Members with a name, an offset and a type; whether all lie inside.
fn compound(block: &mut Block, head: &Head, members: usize, depth: usize) -> Outcome<bool> {
    let mut sound = members > 0 && head.bits <= 0xffff;
    for _ in 0..members {
        skip_name(block, head)?;
        let offset = match (head.version, head.size) {
            (3.., ..0x100) => block.uint(1)?,
            (3.., ..0x1_0000) => block.uint(2)?,
            (3.., ..0x100_0000) => block.uint(3)?,
            _ => block.uint(4)?,
        };
        // The first version has axes here.
        block.skip(if head.version == 1 { 28 } else { 0 })?;
        let member = Datatype::within(block, depth)?;
        sound &= offset.saturating_add(member.size as u64) <= head.size as u64;
    }
    Ok(sound)
}

/// Axes and a type; whether the sizes fit together.
fn list(block: &mut Block, head: &Head, depth: usize) -> Outcome<bool> {
    let axes = usize::from(block.u8()?);
    block.skip(if head.version == 2 { 3 } else { 0 })?;
    let mut size = 1_usize;
    for _ in 0..axes {
        size = size.saturating_mul(block.u32()? as usize);
    }
    block.skip(if head.version == 2 { 4 * axes } else { 0 })?;
    let base = Datatype::within(block, depth)?;
    Ok(axes > 0 && head.bits == 0 && size.saturating_mul(base.size) == head.size)
}

fn integer(block: &mut Block, head: &Head) -> Outcome<Kind> {
    let (offset, precision) = (usize::from(block.u16()?), usize::from(block.u16()?));
    if (offset, precision) != (0, head.size.saturating_mul(8)) || head.bits & !9 != 0 {
        return Err(block.fault(&format!(
            "integers of {precision} bits in {} bytes are damaged or unusual, which is not read",
            head.size
        )));
    }
    Ok(Kind::Integer { signed: head.bits & 8 != 0 })
}

fn float(block: &mut Block, head: &Head) -> Outcome<Kind> {
    let (offset, precision) = (block.u16()?, u32::from(block.u16()?));
    let exponent = (u32::from(block.u8()?), u32::from(block.u8()?));
    let fraction = (u32::from(block.u8()?), u32::from(block.u8()?));
    let bias = u64::from(block.u32()?);
    let sign = head.bits >> 8 & 0xff;
    // From the lowest bit up: fraction, exponent, sign; half of the exponents stand for numbers below 1.
    let sound = offset == 0
        && (precision as usize == head.size.saturating_mul(8)
            || (precision == 80 && matches!(head.size, 12 | 16)))
        && fraction.0 == 0
        && exponent.0 == fraction.1
        && sign == exponent.0 + exponent.1
        && precision == sign + 1
        && (1..=32).contains(&exponent.1)
        && bias == (1 << (exponent.1 - 1)) - 1;
    if !sound {
        return Err(block.fault("floats of an unusual layout, which are damaged or not read"));
    }
    // The leading bit of a fraction is implied, nothing is filled up.
    let known = [(Stored::F16, 5), (Stored::F32, 8), (Stored::F64, 11)];
    let found = known.into_iter().find(|(stored, width)| {
        stored.size() == head.size as u64 && precision as usize == 8 * head.size && exponent.1 == *width
    });
    match found {
        Some((stored, _)) if head.bits & !(0xff01) == 0x20 => Ok(Kind::Float(stored)),
        Some(_) => Err(block.fault("floats of an unusual layout, which are damaged or not read")),
        None => Ok(Kind::Other("floats of an unusual layout")),
    }
}

/// The name of a member, up to a NUL.
fn skip_name(block: &mut Block, head: &Head) -> Outcome<()> {
    let Some(length) = block.rest().iter().position(|&byte| byte == 0) else {
        return Err(block.fault("a name in a datatype has no end"));
    };
    let length = length + 1;
    block.skip(if head.version < 3 { length.next_multiple_of(8) } else { length })
}

/// Names, then values.
fn enumeration(block: &mut Block, head: &Head) -> Outcome<Kind> {
    let (members, size) = ((head.bits & 0xffff) as usize, head.size);
    for _ in 0..members {
        skip_name(block, head)?;
    }
    let count = members.checked_mul(size).ok_or_else(|| block.fault("an enumeration is too long"))?;
    let values = block.bytes(count)?;
    Ok(if size == 1 && values.iter().all(|&value| value < 2) { Kind::Boolean } else { Kind::Flags })
}
