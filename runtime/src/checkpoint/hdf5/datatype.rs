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
        let head = Head::read(block)?;
        let plain = |kind| Self { size: head.size, big_endian: head.bits & 1 != 0, kind };
        let datatype = match head.class {
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
            _ => plain(Kind::Other(other(block, &head)?)),
        };
        // Of the other types not everything is read.
        if !matches!(head.class, 5 | 6 | 9..) {
            block.finish(padded, "a datatype")?;
        }
        Ok(datatype)
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

/// What a type is called that is not read, if it can be one.
fn other(block: &mut Block, head: &Head) -> Outcome<&'static str> {
    let low = (head.bits & 0xffff) as usize;
    let (name, sound) = match (head.class, head.version) {
        (2, _) => {
            block.skip(2)?;
            ("times", true)
        }
        (3, _) => ("text", head.bits >> 8 == 0),
        (5, _) => ("opaque bytes", low & 0xff <= block.remaining()),
        // A member has a name, an offset and a type.
        (6, _) => ("compounds", low > 0 && low.saturating_mul(10) <= block.remaining()),
        (7, _) => ("references", true),
        (9, _) => {
            let mut base = block.clone();
            let name = if low & 15 == 1 { "text" } else { "lists" };
            (name, low & 15 <= 1 && Head::read(&mut base).is_ok())
        }
        (10, 2..) => ("lists", true),
        (11, 5..) => ("complex numbers", true),
        _ => ("", false),
    };
    if sound { Ok(name) } else { Err(block.fault("a datatype contradicts itself")) }
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

/// Names, then values.
fn enumeration(block: &mut Block, head: &Head) -> Outcome<Kind> {
    let (members, size) = ((head.bits & 0xffff) as usize, head.size);
    for _ in 0..members {
        let Some(length) = block.rest().iter().position(|&byte| byte == 0) else {
            return Err(block.fault("a name of an enumeration has no end"));
        };
        let length = length + 1;
        block.skip(if head.version < 3 { length.next_multiple_of(8) } else { length })?;
    }
    let count = members.checked_mul(size).ok_or_else(|| block.fault("an enumeration is too long"))?;
    let values = block.bytes(count)?;
    Ok(if size == 1 && values.iter().all(|&value| value < 2) { Kind::Boolean } else { Kind::Flags })
}
