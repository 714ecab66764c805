//! NNabla's `.h5`: a dataset for each parameter at its path, order and flag as the attributes `index` and `need_grad`.
//!
//! The only file that names the HDF5 crate. That crate trusts what it reads in a few places; what
//! [`guard`] refuses are those, found by feeding it thousands of damaged files.

use std::collections::HashSet;
use std::path::Path;

use candle_core::{Var, WithDType};
use half::f16;
use hdf5::format::messages::datatype::{ByteOrder, DatatypeMessage, EnumMember};
use hdf5::format::messages::filter::{FILTER_DEFLATE, FILTER_FLETCHER32, FILTER_SHUFFLE};
use hdf5::types::H5Type;
use hdf5::{ChunkIndex, H5File, H5Group, StorageLayout};

use super::entry::{Entries, Entry, check_path};
use super::values::{Stored, narrow_bf16, signed, variable, widened, with_bytes_as};
use super::{Fault, Outcome};

/// No stream of deflate expands more than this.
pub(super) const DEFLATE_LIMIT: u64 = 1032;

/// gzip, and what goes with it.
const FILTERS: [u16; 3] = [FILTER_DEFLATE, FILTER_SHUFFLE, FILTER_FLETCHER32];

/// The crate lists datasets to a depth of 256 groups.
const MAX_DEPTH: usize = 250;

/// Attribute of our own on f32 datasets that were bf16; other readers see f32 with the same numbers.
const BFLOAT16: &str = "bfloat16";

type Dataset = hdf5::dataset::H5Dataset;

impl From<hdf5::Hdf5Error> for Fault {
    fn from(error: hdf5::Hdf5Error) -> Self {
        match error {
            hdf5::Hdf5Error::Io(error) => error.into(),
            other => Self::format(other.to_string()),
        }
    }
}

pub(super) fn read(file: &Path) -> Outcome<Entries> {
    let length = std::fs::metadata(file)?.len();
    let file = H5File::options().best_effort_locking().open(file)?;
    // Only names of this list are ever opened: any other lookup follows links into other files.
    let mut names = file.dataset_names();
    names.sort_unstable();
    // What the datasets may take together.
    let mut budget = length.saturating_mul(DEFLATE_LIMIT);
    let mut found = Vec::with_capacity(names.len());
    for name in names {
        let path = name.strip_prefix('/').unwrap_or(&name).to_owned();
        check_path(&path)?;
        let (index, entry) = dataset(&file, &name, &path, length, &mut budget)
            .map_err(|fault| fault.within(&format!("`{path}`")))?;
        found.push((index, entry));
    }
    // NNabla's order: by index, then by name.
    found.sort_by_key(|(index, _)| *index);
    let mut entries = Entries::new();
    found.into_iter().try_for_each(|(_, entry)| entries.push(entry))?;
    Ok(entries)
}

fn dataset(
    file: &H5File,
    name: &str,
    path: &str,
    length: u64,
    budget: &mut u64,
) -> Outcome<(Option<i64>, Entry)> {
    let dataset = file.dataset(name)?;
    let stored = stored(&dataset.datatype()?)?;
    let shape = dataset.shape();
    guard(&dataset, stored, &shape, length, budget)?;
    let attributes = dataset.attr_names()?;
    let has = |name: &str| attributes.iter().any(|attribute| attribute == name);
    let index = if has("index") { integer(&dataset, "index")? } else { None };
    let need_grad = if has("need_grad") { flag(&dataset)? } else { None };
    let mut var = values(&dataset, stored, &shape)?;
    if stored == Stored::F32 && has(BFLOAT16) {
        var = narrow_bf16(var)?;
    }
    Ok((index, Entry::new(path.to_owned(), var, need_grad).of_type(stored)))
}

/// Refuses what would make the crate open another file or allocate more than the file can hold.
fn guard(dataset: &Dataset, stored: Stored, shape: &[usize], length: u64, budget: &mut u64) -> Outcome<()> {
    if dataset.is_null() {
        return Err(Fault::format("has no value"));
    }
    if !dataset.external_files()?.is_empty() || dataset.storage_layout()? == StorageLayout::Virtual {
        return Err(Fault::format("has its values in another file"));
    }
    // The others take the size of what they unpack from their own parameters.
    let filter = dataset.filters()?.into_iter().map(|filter| filter.id).find(|id| !FILTERS.contains(id));
    if let Some(id) = filter {
        return Err(Fault::format(format!("is packed by filter {id} of HDF5, which is not read")));
    }
    let bytes = stored.count(shape)? as u64 * stored.size();
    let limit = length.saturating_mul(DEFLATE_LIMIT);
    let mut largest = bytes;
    if dataset.storage_layout()? == StorageLayout::Chunked {
        match dataset.chunk_index()? {
            Some(ChunkIndex::BtreeV1 | ChunkIndex::SingleChunk | ChunkIndex::FixedArray) => {}
            other => {
                return Err(Fault::format(format!(
                    "is stored in chunks indexed by {other:?}, which is not read"
                )));
            }
        }
        // A chunk may reach over the edge of its dataset.
        let chunk = stored.count(&dataset.chunk_dims().unwrap_or_default())? as u64 * stored.size();
        largest = largest.max(chunk);
    } else if bytes > length {
        return Err(Fault::format(format!("{bytes} bytes of values are declared, the file has {length}")));
    }
    if largest > limit || *budget < bytes {
        return Err(Fault::format(format!(
            "{largest} bytes of values are more than {length} of a file can unpack to"
        )));
    }
    *budget -= bytes;
    Ok(())
}

fn stored(datatype: &DatatypeMessage) -> Outcome<Stored> {
    let refused = || Fault::format(format!("holds {}, which tensors here cannot have", kind(datatype)));
    match datatype {
        DatatypeMessage::FixedPoint { size, signed, bit_offset: 0, bit_precision, .. } => {
            Ok(match (size, bit_precision, signed) {
                (1, 8, false) => Stored::U8,
                (1, 8, true) => Stored::I8,
                (2, 16, false) => Stored::U16,
                (2, 16, true) => Stored::I16,
                (4, 32, false) => Stored::U32,
                (4, 32, true) => Stored::I32,
                (8, 64, false) => Stored::U64,
                (8, 64, true) => Stored::I64,
                _ => return Err(refused()),
            })
        }
        DatatypeMessage::FloatingPoint { .. } => [Stored::F16, Stored::F32, Stored::F64]
            .into_iter()
            .find(|&stored| little_endian(datatype) == self::datatype(stored))
            .ok_or_else(refused),
        // h5py's booleans.
        DatatypeMessage::Enum { base, members }
            if matches!(**base, DatatypeMessage::FixedPoint { size: 1, .. })
                && members.iter().all(|member| matches!(member.value[..], [0 | 1])) =>
        {
            Ok(Stored::Bool)
        }
        _ => Err(refused()),
    }
}

/// What a type is called; the crate's own words for it multiply sizes that the file gives, which may overflow.
fn kind(datatype: &DatatypeMessage) -> &'static str {
    match datatype {
        DatatypeMessage::FixedPoint { .. } => "integers of an unusual width",
        DatatypeMessage::FloatingPoint { .. } => "floats of an unusual layout",
        DatatypeMessage::BitField { .. } => "bit fields",
        DatatypeMessage::FixedString { .. } | DatatypeMessage::VarLenString { .. } => "text",
        DatatypeMessage::Enum { .. } => "enumerations",
        DatatypeMessage::Compound { .. } => "compounds",
        DatatypeMessage::Reference { .. } => "references",
        DatatypeMessage::Array { .. } | DatatypeMessage::VarLenSequence { .. } => "lists",
        DatatypeMessage::Opaque { .. } => "opaque bytes",
    }
}

/// The same floating-point type in the host's byte order; reading converts.
fn little_endian(datatype: &DatatypeMessage) -> DatatypeMessage {
    let mut datatype = datatype.clone();
    if let DatatypeMessage::FloatingPoint { byte_order, .. } = &mut datatype
        && *byte_order == ByteOrder::BigEndian
    {
        *byte_order = ByteOrder::LittleEndian;
    }
    datatype
}

fn datatype(stored: Stored) -> DatatypeMessage {
    match stored {
        Stored::Bool => boolean(),
        Stored::U8 => DatatypeMessage::u8_type(),
        Stored::I8 => DatatypeMessage::i8_type(),
        Stored::U16 => DatatypeMessage::u16_type(),
        Stored::I16 => DatatypeMessage::i16_type(),
        Stored::U32 => DatatypeMessage::u32_type(),
        Stored::I32 => DatatypeMessage::i32_type(),
        Stored::U64 => DatatypeMessage::u64_type(),
        Stored::I64 => DatatypeMessage::i64_type(),
        Stored::F16 => DatatypeMessage::f16_type(),
        // NumPy has no such type, and the crate reads no float but IEEE's: its numbers are kept in f32.
        Stored::BF16 | Stored::F32 => DatatypeMessage::f32_type(),
        Stored::F64 => DatatypeMessage::f64_type(),
    }
}

/// h5py's boolean, bit for bit.
fn boolean() -> DatatypeMessage {
    let member = |name: &str, value| EnumMember { name: name.to_owned(), value: vec![value] };
    DatatypeMessage::Enum {
        base: Box::new(DatatypeMessage::i8_type()),
        members: vec![member("FALSE", 0), member("TRUE", 1)],
    }
}

fn integer(dataset: &Dataset, name: &str) -> Outcome<Option<i64>> {
    let values = dataset.attr(name)?.read_numeric_as::<i64>()?;
    match values[..] {
        [value] => Ok(Some(value)),
        _ => Err(Fault::format(format!("the attribute `{name}` is not one integer"))),
    }
}

/// An enumeration as h5py and NNabla write it, or any integer.
fn flag(dataset: &Dataset) -> Outcome<Option<bool>> {
    let attribute = dataset.attr("need_grad")?;
    match attribute.datatype()? {
        DatatypeMessage::Enum { .. }
        | DatatypeMessage::FixedPoint { .. }
        | DatatypeMessage::BitField { .. } => Ok(Some(attribute.read_raw()?.iter().any(|&byte| byte != 0))),
        _ => Err(Fault::format("the attribute `need_grad` is not a boolean")),
    }
}

fn values(dataset: &Dataset, stored: Stored, shape: &[usize]) -> Outcome<Var> {
    fn raw<T: H5Type>(dataset: &Dataset, shape: &[usize]) -> Outcome<Vec<T>> {
        if shape.contains(&0) {
            return Ok(Vec::new());
        }
        Ok(dataset.read_raw::<T>()?)
    }
    macro_rules! read {
        ($t:ty) => {
            checked(raw::<$t>(dataset, shape)?, shape)
        };
        ($t:ty => $into:expr) => {
            checked(raw::<$t>(dataset, shape)?.into_iter().map($into).collect::<Vec<_>>(), shape)
        };
    }
    match stored {
        Stored::U8 => read!(u8),
        Stored::Bool => read!(u8 => |byte| u8::from(byte != 0)),
        Stored::I8 => read!(i8 => i16::from),
        Stored::U16 => read!(u16 => i32::from),
        Stored::I16 => read!(i16),
        Stored::U32 => read!(u32),
        Stored::I32 => read!(i32),
        Stored::U64 => checked(signed(raw(dataset, shape)?)?, shape),
        Stored::I64 => read!(i64),
        // The crate has no such type; a vector of the same width becomes one of these in place.
        Stored::F16 => read!(u16 => f16::from_bits),
        Stored::F32 | Stored::BF16 => read!(f32),
        Stored::F64 => read!(f64),
    }
}

fn checked<T: WithDType>(values: Vec<T>, shape: &[usize]) -> Outcome<Var> {
    if values.len() != shape.iter().product::<usize>() {
        return Err(Fault::format(format!("{} values are there for the shape {shape:?}", values.len())));
    }
    variable(values, shape)
}

pub(super) fn write(file: &Path, entries: &Entries) -> Outcome<()> {
    let file = H5File::create(file)?;
    let mut groups = Groups { file: &file, made: HashSet::new() };
    for (index, entry) in entries.into_iter().enumerate() {
        write_entry(&mut groups, index, entry)
            .map_err(|fault| fault.within(&format!("`{}`", entry.path())))?;
    }
    // Dropping it would keep errors to itself.
    Ok(file.close()?)
}

/// The groups made so far: the crate makes no parents.
struct Groups<'a> {
    file: &'a H5File,
    made: HashSet<String>,
}

impl Groups<'_> {
    fn get(&mut self, path: &str) -> Outcome<H5Group> {
        let root = self.file.root_group();
        if path.is_empty() {
            return Ok(root);
        }
        if self.made.contains(path) {
            return Ok(root.group(path)?);
        }
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let group = self.get(parent)?.create_group(name)?;
        self.made.insert(path.to_owned());
        Ok(group)
    }
}

fn write_entry(groups: &mut Groups<'_>, index: usize, entry: &Entry) -> Outcome<()> {
    let stored = entry.stored()?;
    if entry.path().split('/').count() > MAX_DEPTH {
        return Err(Fault::format(format!("lies deeper than the {MAX_DEPTH} groups that readers follow")));
    }
    let (parent, name) = entry.path().rsplit_once('/').unwrap_or(("", entry.path()));
    let builder = groups.get(parent)?.new_dataset::<u8>().datatype(datatype(stored));
    let dims = entry.tensor().dims();
    let builder = if dims.is_empty() { builder.scalar() } else { builder.shape(dims) };
    let dataset = builder.create(name)?;
    if entry.tensor().elem_count() > 0 {
        let kept = if stored == Stored::BF16 { Stored::F32 } else { stored };
        with_bytes_as(&widened(entry.tensor())?, kept, |bytes| Ok(dataset.write_raw_bytes(bytes)?))?;
    }
    if stored == Stored::BF16 {
        dataset.set_attr_typed(BFLOAT16, boolean(), vec![1])?;
    }
    dataset.set_attr_typed("need_grad", boolean(), vec![u8::from(entry.need_grad_or_default())])?;
    dataset.set_attr_typed("index", DatatypeMessage::i64_type(), (index as i64).to_le_bytes().to_vec())?;
    Ok(())
}
