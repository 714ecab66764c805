//! `.safetensors`: the header is JSON, the values follow it.
//!
//! The format knows no order and no `need_grad`: both stand in the metadata, as the JSON text
//! `[["path", need_grad], ...]` under the key `layerfn.parameters`; a flag that nobody knows is `null`. Where a variable
//! has several paths, its values stand under each, and `[["path", "path", ...], ...]` under the key `layerfn.tied` says
//! which belong together. Readers that do not know the keys ignore them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::io::Write;

use candle_core::Var;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde::Deserialize;
use serde::de::value::StrDeserializer;
use serde::de::{DeserializeOwned, Deserializer, Error as _, IntoDeserializer as _, MapAccess, Visitor};

use super::entry::{Contents, Entries, Entry, Other, Unusable};
use super::input::Input;
use super::values::{Stored, with_bytes_as};
use super::{Fault, Outcome};

const PARAMETERS: &str = "layerfn.parameters";
const TIED: &str = "layerfn.tied";

/// A path and its `need_grad`.
type Listed = (String, Option<bool>);

/// The limit of the safetensors crate.
const MAX_HEADER: u64 = 100_000_000;

pub(super) fn read(input: &mut Input<'_>) -> Outcome<Contents> {
    let length = u64::from_le_bytes(input.array()?);
    if length > MAX_HEADER {
        return Err(Fault::format(format!(
            "byte 0: a header of {length} bytes is declared, 100 MB are allowed"
        )));
    }
    let header: Header = serde_json::from_slice(&input.bytes(length)?)
        .map_err(|error| Fault::format(format!("the header is damaged: {error}")))?;
    let listed: Option<Vec<Listed>> = header.metadata(PARAMETERS)?;
    let tied: Vec<Vec<String>> = header.metadata(TIED)?.unwrap_or_default();
    let others = header.metadata.into_iter().flatten().filter(|(key, _)| key != PARAMETERS && key != TIED);
    let others = others.map(|(key, value)| Other::Metadata(key, value)).collect();
    let mut tensors = header.tensors;
    // The order of the values in the file, which is also the order of the entries unless the metadata says otherwise.
    tensors.sort_by_key(|(_, info)| info.data_offsets);
    let declared = tensors.last().map_or(0, |(_, info)| info.data_offsets.1 as u64);
    if declared != input.remaining() {
        let remaining = input.remaining();
        return Err(Fault::format(format!("{declared} bytes of values are declared, {remaining} are there")));
    }
    // Its constructor checks that the offsets touch and fit the shapes.
    Metadata::new(None, tensors.iter().map(|(path, info)| (path.clone(), info.checkable())).collect())
        .map_err(|error| Fault::format(format!("the header is damaged: {error}")))?;
    let mut contents = Contents { others, ..Contents::default() };
    for (path, info) in &tensors {
        let read = info.read(input).map(|(var, stored)| Entry::new(path.clone(), var, None).of_type(stored));
        contents.take(path, read)?;
    }
    arranged(contents, listed, &tied)
}

/// Applies what the metadata says of order, `need_grad` and variables with several paths.
fn arranged(mut contents: Contents, listed: Option<Vec<Listed>>, tied: &[Vec<String>]) -> Outcome<Contents> {
    let order = |entry: &Entry| (entry.path().to_owned(), entry.need_grad());
    let mut listed = listed.unwrap_or_else(|| contents.entries.into_iter().map(order).collect());
    let tied =
        tied.iter().zip(0..).flat_map(|(paths, number)| paths.iter().map(move |path| (&path[..], number)));
    let variables: HashMap<&str, i64> = tied.collect();
    let unusable: HashSet<&str> = contents.unusable.iter().map(Unusable::path).collect();
    listed.retain(|(path, _)| !unusable.contains(path.as_str()));
    let entries = std::mem::take(&mut contents.entries).into_vec();
    if listed.len() != entries.len() {
        let reason =
            format!("`{PARAMETERS}` lists {} parameters, the file has {}", listed.len(), entries.len());
        return Err(Fault::format(reason));
    }
    let mut entries: HashMap<String, Entry> =
        entries.into_iter().map(|entry| (entry.path().to_owned(), entry)).collect();
    let absent = |path: &&&str| !entries.contains_key(**path) && !unusable.contains(**path);
    if let Some(path) = variables.keys().find(absent) {
        return Err(Fault::format(format!("`{TIED}` names `{path}`, which the file does not have")));
    }
    for (path, need_grad) in listed {
        let entry = entries.remove(&path);
        let entry = entry
            .ok_or_else(|| Fault::format(format!("`{PARAMETERS}` lists `{path}` twice or without values")))?;
        let variable = variables.get(&path[..]).copied();
        contents.entries.push(entry.with_need_grad(need_grad).of_variable(variable))?;
    }
    Ok(contents)
}

/// The description of a tensor. The crate's own knows no type but those of its version.
#[derive(Deserialize)]
struct Info {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (usize, usize),
}

impl Info {
    fn dtype(&self) -> Option<Dtype> {
        let name: StrDeserializer<'_, serde::de::value::Error> = self.dtype.as_str().into_deserializer();
        Dtype::deserialize(name).ok()
    }

    /// As the crate checks it; a type that nobody knows is as many bytes as it takes.
    fn checkable(&self) -> TensorInfo {
        let data_offsets = self.data_offsets;
        match self.dtype() {
            Some(dtype) => TensorInfo { dtype, shape: self.shape.clone(), data_offsets },
            None => TensorInfo { dtype: Dtype::U8, shape: vec![self.length()], data_offsets },
        }
    }

    fn length(&self) -> usize {
        self.data_offsets.1.saturating_sub(self.data_offsets.0)
    }

    /// Reads the values from where `input` stands, or passes over them.
    fn read(&self, input: &mut Input<'_>) -> Outcome<(Var, Stored)> {
        let Some(stored) = self.dtype().and_then(stored) else {
            input.skip(self.length() as u64)?;
            let dtype = &self.dtype;
            return Err(Fault::unusable(format!("has the type {dtype}, which tensors here cannot have")));
        };
        Ok((stored.read(input, &self.shape, false)?, stored))
    }
}

/// The header with its members in a list: a map would hide that a name occurs twice.
struct Header {
    metadata: Option<BTreeMap<String, String>>,
    tensors: Vec<(String, Info)>,
}

impl Header {
    /// The value that stands as JSON under `key` of the metadata.
    fn metadata<T: DeserializeOwned>(&self, key: &str) -> Outcome<Option<T>> {
        let text = self.metadata.as_ref().and_then(|metadata| metadata.get(key));
        text.map(|text| serde_json::from_str(text))
            .transpose()
            .map_err(|error| Fault::format(format!("the metadata `{key}` is damaged: {error}")))
    }
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let (mut metadata, mut tensors) = (None, Vec::new());
                while let Some(name) = map.next_key::<String>()? {
                    if name != "__metadata__" {
                        tensors.push((name, map.next_value()?));
                    // Some writers put `null` there.
                    } else if metadata.replace(map.next_value::<Option<_>>()?).is_some() {
                        return Err(A::Error::custom("`__metadata__` occurs twice"));
                    }
                }
                Ok(Header { metadata: metadata.flatten(), tensors })
            }
        }
        deserializer.deserialize_map(Members)
    }
}

fn stored(dtype: Dtype) -> Option<Stored> {
    Some(match dtype {
        Dtype::BOOL => Stored::Bool,
        Dtype::U8 => Stored::U8,
        Dtype::I8 => Stored::I8,
        Dtype::I16 => Stored::I16,
        Dtype::U16 => Stored::U16,
        Dtype::F16 => Stored::F16,
        Dtype::BF16 => Stored::BF16,
        Dtype::I32 => Stored::I32,
        Dtype::U32 => Stored::U32,
        Dtype::F32 => Stored::F32,
        Dtype::F64 => Stored::F64,
        Dtype::I64 => Stored::I64,
        Dtype::U64 => Stored::U64,
        _ => return None,
    })
}

fn dtype(stored: Stored) -> Dtype {
    match stored {
        Stored::Bool => Dtype::BOOL,
        Stored::U8 => Dtype::U8,
        Stored::I8 => Dtype::I8,
        Stored::I16 => Dtype::I16,
        Stored::U16 => Dtype::U16,
        Stored::F16 => Dtype::F16,
        Stored::BF16 => Dtype::BF16,
        Stored::I32 => Dtype::I32,
        Stored::U32 => Dtype::U32,
        Stored::F32 => Dtype::F32,
        Stored::F64 => Dtype::F64,
        Stored::I64 => Dtype::I64,
        Stored::U64 => Dtype::U64,
    }
}

pub(super) fn write(output: &mut dyn Write, entries: &Entries, others: &[Other]) -> Outcome<()> {
    let mut typed = Vec::with_capacity(entries.len());
    for entry in entries {
        if entry.path() == "__metadata__" {
            return Err(Fault::format("the format keeps the path `__metadata__` for itself"));
        }
        typed.push((entry, entry.stored()?));
    }
    // Wide types first, so that every tensor is aligned; the sort keeps the order of those of one type.
    typed.sort_by_key(|(_, stored)| std::cmp::Reverse(stored.size()));
    let mut header = header(entries, &typed, others).map_err(|error| Fault::format(error.to_string()))?;
    header.resize(header.len().next_multiple_of(8), b' ');
    if header.len() as u64 > MAX_HEADER {
        return Err(Fault::format("the paths and shapes take more than the 100 MB that the format allows"));
    }
    output.write_all(&(header.len() as u64).to_le_bytes())?;
    output.write_all(&header)?;
    for (entry, stored) in typed {
        with_bytes_as(entry.tensor(), stored, |bytes| Ok(output.write_all(bytes)?))?;
    }
    Ok(())
}

/// The metadata before the tensors, both in order: equal checkpoints are equal files.
fn header(
    entries: &Entries,
    typed: &[(&Entry, Stored)],
    others: &[Other],
) -> Result<Vec<u8>, serde_json::Error> {
    let listed: Vec<_> = entries.into_iter().map(|entry| (entry.path(), entry.need_grad())).collect();
    let listed = serde_json::to_string(&listed)?;
    let tied = entries.tied_paths();
    let tied = (!tied.is_empty()).then(|| serde_json::to_string(&tied)).transpose()?;
    let mut metadata = BTreeMap::from([(PARAMETERS, listed.as_str())]);
    metadata.extend(tied.as_deref().map(|tied| (TIED, tied)));
    metadata.extend(others.iter().filter_map(|other| match other {
        Other::Metadata(key, value) => Some((key.as_str(), value.as_str())),
        _ => None,
    }));
    let mut header = b"{\"__metadata__\":".to_vec();
    serde_json::to_writer(&mut header, &metadata)?;
    let mut offset = 0;
    for (entry, stored) in typed {
        let end = offset + entry.tensor().elem_count() * stored.size() as usize;
        let shape = entry.tensor().dims().to_vec();
        header.push(b',');
        serde_json::to_writer(&mut header, entry.path())?;
        header.push(b':');
        let info = TensorInfo { dtype: dtype(*stored), shape, data_offsets: (offset, end) };
        serde_json::to_writer(&mut header, &info)?;
        offset = end;
    }
    header.push(b'}');
    Ok(header)
}
