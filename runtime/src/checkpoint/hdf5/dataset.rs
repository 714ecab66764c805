//! Datasets: their type and shape, and where their values are.

use std::collections::HashMap;

use super::super::values::Stored;
use super::super::{Fault, Outcome};
use super::attribute::{self, Attribute};
use super::chunks::{self, Chunk};
use super::dataspace::Space;
use super::datatype::Datatype;
use super::filters::Filter;
use super::header::{self, DATASPACE, DATATYPE, EXTERNAL, FILL, FILTERS, Header, LAYOUT, Message, OLD_FILL};
use super::image::{Block, Image};
use super::{dataspace, filters};
use crate::limits;

/// A dataset that a tensor can be made of.
#[derive(Debug)]
pub(in super::super) struct Dataset {
    pub(in super::super) stored: Stored,
    pub(in super::super) shape: Vec<usize>,
    pub(in super::super) attributes: Vec<Attribute>,
    pub(super) big_endian: bool,
    pub(super) place: Place,
}

#[derive(Debug)]
pub(super) enum Place {
    /// Nothing was ever written: each element has these bytes.
    Unwritten(Vec<u8>),
    Inside(Vec<u8>),
    Contiguous(u64),
    Chunked {
        chunk: Vec<usize>,
        filters: Vec<Filter>,
        chunks: Vec<Chunk>,
        /// What elements behind the edge of the dataset must be if they are not zero, where that is to be checked.
        edge: Option<Vec<u8>>,
    },
}

impl Dataset {
    /// Bytes of all values.
    pub(in super::super) fn bytes(&self) -> u64 {
        self.shape.iter().map(|&size| size as u64).product::<u64>() * self.stored.size()
    }
}

/// Types that have a name, by their address.
pub(super) type Types = HashMap<u64, Datatype>;

/// Where a layout message puts the values.
enum Layout {
    Compact(Vec<u8>),
    Contiguous(Option<u64>, u64),
    Chunked(Vec<u64>, chunks::Index),
    Virtual,
}

/// The dataset with the given header; the inner error says why no tensor can be made of it.
pub(super) fn read(
    image: &mut Image<'_>,
    header: &Header,
    names: &[&str],
    types: &mut Types,
) -> Outcome<Result<Dataset, String>> {
    let attributes = attribute::read(image, header, names)?;
    let layout = layout(&message(header, LAYOUT)?.block()?)?;
    let space = message(header, DATASPACE)?;
    // Where no checksum tells it, a size that is damaged shows by what stands behind the edge.
    let has_checksums = !space.padded;
    let Some(Space { shape, is_short }) = dataspace::read(&mut space.block()?, space.padded)? else {
        return Ok(Err("has no value".to_owned()));
    };
    let datatype = datatype(image, header, types)?;
    let stored = match datatype.stored() {
        Ok(stored) => stored,
        Err(kind) => return Ok(Err(format!("holds {kind}, which tensors here cannot have"))),
    };
    if let Some(message) = header.get(EXTERNAL) {
        check_external(message, &layout)?;
    }
    if header.has(EXTERNAL) || matches!(layout, Layout::Virtual) {
        return Ok(Err("has its values in another file".to_owned()));
    }
    let filters = match header.get(FILTERS) {
        Some(message) => filters::read(message.block()?, message.padded)?,
        None => Vec::new(),
    };
    if let Some(id) = filters.iter().find(|filter| !filter.is_known()).map(|filter| filter.id) {
        return Ok(Err(format!("is packed by filter {id} of HDF5, which is not read")));
    }
    let bytes = stored.count(&shape)? as u64 * stored.size();
    let length = image.length();
    let place = match layout {
        Layout::Compact(values) if values.len() as u64 == bytes => Place::Inside(values),
        Layout::Compact(_) | Layout::Contiguous(..) if !filters.is_empty() => {
            return Err(Fault::format("values are packed, but not in chunks"));
        }
        Layout::Compact(values) => return Err(other_size(bytes, values.len() as u64)),
        Layout::Contiguous(address, size) => {
            if bytes > length {
                return Err(Fault::format(format!(
                    "{bytes} bytes of values are declared, the file has {length}"
                )));
            }
            match address {
                None => Place::Unwritten(fill(header, stored)?),
                Some(_) if size != bytes => return Err(other_size(bytes, size)),
                Some(address) => {
                    image.claim(address, size, "the values of a dataset")?;
                    Place::Contiguous(address)
                }
            }
        }
        Layout::Chunked(chunk, index) => {
            let Some((&element, chunk)) = chunk.split_last() else {
                return Err(Fault::format("chunks have no size"));
            };
            if element != stored.size() || chunk.len() != shape.len() || chunk.contains(&0) {
                return Err(Fault::format(format!(
                    "chunks of {chunk:?} elements of {element} bytes do not fit it"
                )));
            }
            let chunk =
                chunk.iter().map(|&size| usize::try_from(size).unwrap_or(usize::MAX)).collect::<Vec<_>>();
            // A chunk may reach over the edge of its dataset.
            let largest = bytes.max(stored.count(&chunk)? as u64 * stored.size());
            if largest > limits::unpacked(length) {
                return Err(Fault::format(format!(
                    "{largest} bytes of values are more than {length} of a file can unpack to"
                )));
            }
            filters.iter().try_for_each(|filter| filter.check(stored))?;
            match chunks::read(image, &shape, &chunk, stored, &filters, index)? {
                Ok(Some(chunks)) => {
                    let edge = if is_short && !has_checksums { Some(fill(header, stored)?) } else { None };
                    Place::Chunked { chunk, filters, chunks, edge }
                }
                Ok(None) => Place::Unwritten(fill(header, stored)?),
                Err(index) => {
                    return Ok(Err(format!("is stored in chunks indexed by {index}, which is not read")));
                }
            }
        }
        Layout::Virtual => return Ok(Err("has its values in another file".to_owned())),
    };
    Ok(Ok(Dataset { stored, shape, attributes, big_endian: datatype.big_endian, place }))
}

fn other_size(bytes: u64, found: u64) -> Fault {
    Fault::format(format!("its type and shape take {bytes} bytes, {found} are there"))
}

fn message(header: &Header, kind: u16) -> Outcome<&header::Message> {
    header.get(kind).ok_or_else(|| Fault::format(format!("the object has no message of the type {kind}")))
}

fn datatype(image: &mut Image<'_>, header: &Header, types: &mut Types) -> Outcome<Datatype> {
    let message = message(header, DATATYPE)?;
    if !message.shared {
        return Datatype::read(&mut message.block()?, message.padded);
    }
    // It has a name of its own somewhere in the file.
    let address = header::committed(message)?;
    if let Some(&datatype) = types.get(&address) {
        return Ok(datatype);
    }
    let named = Header::read(image, address)?;
    let message = self::message(&named, DATATYPE)?;
    let datatype = Datatype::read(&mut message.block()?, message.padded)?;
    types.insert(address, datatype);
    Ok(datatype)
}

fn layout(block: &Block) -> Outcome<Layout> {
    let mut block = block.clone();
    let version = block.u8()?;
    if !(3..=5).contains(&version) {
        return Err(block.fault(&format!("a layout has the version {version}, which is not read")));
    }
    match block.u8()? {
        0 => {
            let size = usize::from(block.u16()?);
            Ok(Layout::Compact(block.bytes(size)?.to_vec()))
        }
        1 => Ok(Layout::Contiguous(block.address()?, block.length()?)),
        2 => {
            let (chunk, index) = chunks::index(&mut block, version)?;
            Ok(Layout::Chunked(chunk, index))
        }
        3 if version > 3 => Ok(Layout::Virtual),
        class => Err(block.fault(&format!("a layout has the class {class}"))),
    }
}

/// The bytes of an element that was never written.
fn fill(header: &Header, stored: Stored) -> Outcome<Vec<u8>> {
    let zero = vec![0; stored.size() as usize];
    let value = match (header.get(FILL), header.get(OLD_FILL)) {
        (Some(message), _) => {
            let mut block = message.block()?;
            let has_value = match block.u8()? {
                1 | 2 => {
                    block.skip(2)?;
                    block.u8()? != 0
                }
                3 => block.u8()? & 0x20 != 0,
                version => return Err(block.fault(&format!("a fill value has the version {version}"))),
            };
            if has_value { sized(&mut block)? } else { Vec::new() }
        }
        (None, Some(message)) => sized(&mut message.block()?)?,
        (None, None) => Vec::new(),
    };
    match value.len() {
        0 => Ok(zero),
        length if length == zero.len() => Ok(value),
        length => Err(Fault::format(format!("the fill value has {length} bytes, an element {}", zero.len()))),
    }
}

fn sized(block: &mut Block) -> Outcome<Vec<u8>> {
    let size = block.u32()? as usize;
    Ok(block.bytes(size)?.to_vec())
}

/// The list of the files that hold a dataset's values is not followed, but looked at: damage may have made it of another
/// message.
fn check_external(message: &Message, layout: &Layout) -> Outcome<()> {
    let mut list = message.block()?;
    list.version(1, "a list of other files")?;
    let (reserved, n_places, n_files) = (list.uint(3)?, list.u16()?, list.u16()?);
    list.somewhere("the names of other files")?;
    // A name, an offset and a size each.
    list.skip(24 * usize::from(n_files))?;
    list.finish(message.padded, "a list of other files")?;
    let is_elsewhere = matches!(layout, Layout::Contiguous(None, _));
    match reserved == 0 && (1..=n_places).contains(&n_files) && is_elsewhere {
        true => Ok(()),
        false => Err(list.fault("a list of other files contradicts the dataset")),
    }
}
