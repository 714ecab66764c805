//! The content of a checkpoint, between files and stores.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::num::NonZeroUsize;

use candle_core::{Tensor, TensorId, Var};

use super::values::{Stored, with_bytes_as};
use super::{Fault, Format, Outcome};
use crate::limits::{self, brief};
use crate::pattern::Renames;

/// One parameter of a checkpoint.
#[derive(Clone, Debug)]
pub struct Entry {
    path: String,
    var: Var,
    need_grad: Option<bool>,
    /// The type in the file, if candle does not have it; it is used again for writing.
    foreign: Option<Stored>,
    /// The number of a variable with several paths in a file, until [`Entries::push`] has found the others.
    variable: Option<i64>,
    note: Option<Note>,
}

/// Information from a rule that the shape of a parameter does not give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Note {
    /// Its rows take flattened images whose channels come first, or last.
    Flattened { is_first: bool },
    /// It consists of this number of attention heads.
    Heads(NonZeroUsize),
    /// A depthwise convolution makes this number of output maps of each input map.
    Multiplier(NonZeroUsize),
}

impl Entry {
    pub(super) fn new(path: String, var: Var, need_grad: Option<bool>) -> Self {
        Self { path, var, need_grad, foreign: None, variable: None, note: None }
    }

    /// With the type that the file has.
    pub(super) fn of_type(self, stored: Stored) -> Self {
        Self { foreign: Some(stored).filter(|stored| stored.is_foreign()), ..self }
    }

    pub(super) fn with_need_grad(self, need_grad: Option<bool>) -> Self {
        Self { need_grad, ..self }
    }

    /// With the number that the file gives to its variable.
    pub(super) fn of_variable(self, variable: Option<i64>) -> Self {
        Self { variable, ..self }
    }

    pub(super) fn called(self, path: String) -> Self {
        Self { path, ..self }
    }

    /// The same under another path and with other values of its type.
    pub(super) fn holding(&self, path: String, values: &Tensor) -> candle_core::Result<Self> {
        Ok(Self { path, var: Var::from_tensor(&values.contiguous()?)?, ..self.clone() })
    }

    pub(super) fn noted(self, note: Note) -> Self {
        Self { note: Some(note), ..self }
    }

    pub(super) fn note(&self) -> Option<Note> {
        self.note
    }

    /// Path, from the scope that was saved.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Values. Booleans, i8, u16 and u64 are in the next wider type that candle has.
    #[must_use]
    pub fn tensor(&self) -> &Tensor {
        self.var.as_tensor()
    }

    /// Whether the parameter is trained; `None` if the file does not say.
    #[must_use]
    pub fn need_grad(&self) -> Option<bool> {
        self.need_grad
    }

    /// The type to write, with the error of a writer.
    pub(super) fn stored(&self) -> Outcome<Stored> {
        match (self.foreign, self.tensor().dtype()) {
            (Some(stored), _) => Ok(stored),
            (None, dtype) => Stored::of(dtype).ok_or_else(|| {
                Fault::format(format!("`{}` has the type {dtype:?}, which no file format has", self.path))
            }),
        }
    }

    /// For formats that require a value: a parameter is trained unless the file says otherwise.
    pub(super) fn need_grad_or_default(&self) -> bool {
        self.need_grad.unwrap_or(true)
    }

    pub(super) fn renamed(self, rules: &Renames) -> Self {
        Self { path: rules.target(&self.path), ..self }
    }

    pub(super) fn var(&self) -> &Var {
        &self.var
    }

    /// The variable, if `other` has the same values; the file says that both paths share it.
    fn shared_with(&self, other: &Self) -> Outcome<Var> {
        let (first, second) = (self.stored()?, other.stored()?);
        let same = first == second
            && self.tensor().dims() == other.tensor().dims()
            && with_bytes_as(self.tensor(), first, |first| {
                with_bytes_as(other.tensor(), second, |second| Ok(first == second))
            })?;
        if !same {
            let (path, other) = (brief(&self.path), brief(&other.path));
            return Err(Fault::format(format!(
                "`{path}` and `{other}` are one variable in the file, but hold different values"
            )));
        }
        Ok(self.var.clone())
    }
}

/// Entries in order, with distinct paths that every format can contain.
#[derive(Clone, Debug, Default)]
pub(super) struct Entries {
    list: Vec<Entry>,
    places: HashMap<String, usize>,
    /// The first entry of each variable that has a number in the file.
    variables: HashMap<i64, usize>,
}

impl Entries {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Adds an entry. If an earlier entry has the same variable, they share it.
    pub(super) fn push(&mut self, mut entry: Entry) -> Outcome<()> {
        check_path(&entry.path)?;
        limits::check_rank(entry.tensor().rank())
            .map_err(|reason| Fault::format(format!("`{}` {reason}", entry.path)))?;
        if self.places.insert(entry.path.clone(), self.list.len()).is_some() {
            return Err(Fault::format(format!("`{}` occurs twice", entry.path)));
        }
        if let Some(variable) = entry.variable.take() {
            let first = *self.variables.entry(variable).or_insert(self.list.len());
            if let Some(first) = self.list.get(first) {
                entry.var = first.shared_with(&entry)?;
            }
        }
        self.list.push(entry);
        Ok(())
    }

    /// The indices of the entries whose variable has several paths, with the index of the first entry that has
    /// it.
    pub(super) fn tied(&self) -> BTreeMap<usize, usize> {
        let mut paths: HashMap<TensorId, Vec<usize>> = HashMap::new();
        for (place, entry) in self.list.iter().enumerate() {
            paths.entry(entry.var.id()).or_default().push(place);
        }
        let several = paths.into_values().filter(|places| places.len() > 1);
        several.flat_map(|places| places.clone().into_iter().map(move |place| (place, places[0]))).collect()
    }

    /// The paths of each variable that has several, in order.
    pub(super) fn tied_paths(&self) -> Vec<Vec<&str>> {
        let mut paths: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
        for (place, first) in self.tied() {
            paths.entry(first).or_default().push(self.list[place].path());
        }
        paths.into_values().collect()
    }

    /// Like [`push`](Self::push), but takes the place of an entry of the same path.
    pub(super) fn put(&mut self, entry: Entry) -> Outcome<()> {
        match self.places.get(&entry.path) {
            Some(&place) => self.list[place] = entry,
            None => self.push(entry)?,
        }
        Ok(())
    }

    pub(super) fn into_vec(self) -> Vec<Entry> {
        self.list
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn as_slice(&self) -> &[Entry] {
        &self.list
    }
}

impl<'a> IntoIterator for &'a Entries {
    type Item = &'a Entry;
    type IntoIter = std::slice::Iter<'a, Entry>;

    fn into_iter(self) -> Self::IntoIter {
        self.list.iter()
    }
}

/// A valid member of a file that cannot be a parameter: text, or numbers of an unsupported type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unusable {
    path: String,
    reason: String,
}

impl Unusable {
    /// Its path, as that of a parameter.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Why it cannot be used, as the rest of a sentence that starts with the path.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {}", brief(&self.path), brief(&self.reason))
    }
}

/// Other content of a file; only a file of the same kind can keep it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Other {
    /// Of an `.nnp`.
    Member(String),
    /// Of a message, such as a network.
    Field(String),
    /// Of `.safetensors`: key and value.
    Metadata(String, String),
}

impl Other {
    /// Whether it may be a network, which names parameters.
    pub(super) fn is_network(&self) -> bool {
        match self {
            Self::Member(name) => matches!(Format::from_path(name), Ok(Format::Text)),
            Self::Field(_) | Self::Metadata(..) => false,
        }
    }
}

impl fmt::Display for Other {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Member(name) => write!(f, "`{name}` of the archive"),
            Self::Field(name) => write!(f, "`{name}` of the message"),
            Self::Metadata(key, _) => write!(f, "`{key}` of the metadata"),
        }
    }
}

/// The result of a reader.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) entries: Entries,
    /// Members that a reader has recognized and skipped.
    pub(super) unusable: Vec<Unusable>,
    pub(super) others: Vec<Other>,
}

impl Contents {
    /// Adds the result of reading the member at `path`. A [`Fault::Unusable`] only concerns that member and is
    /// recorded; any other fault concerns the whole file.
    pub(super) fn take(&mut self, path: &str, read: Outcome<Entry>) -> Outcome<()> {
        match read {
            Ok(entry) => self.entries.push(entry),
            Err(Fault::Unusable(reason)) => {
                self.unusable.push(Unusable { path: path.to_owned(), reason });
                Ok(())
            }
            Err(fault) => Err(fault.within(&format!("`{path}`"))),
        }
    }
}

impl From<Entries> for Contents {
    fn from(entries: Entries) -> Self {
        Self { entries, ..Self::default() }
    }
}

/// Checks that a path means the same as a file name, as an HDF5 group and as a scope.
pub(super) fn check_path(path: &str) -> Outcome<()> {
    let fault = |reason: &str| Fault::format(format!("the path {:?} {reason}", brief(path)));
    limits::check_path(path).map_err(|reason| fault(&reason))?;
    match path.split('/').any(str::is_empty) {
        false => Ok(()),
        true if path.is_empty() => Err(fault("is empty")),
        true if path.starts_with('/') => Err(fault("starts with `/`")),
        true => Err(fault("has an empty part")),
    }
}
