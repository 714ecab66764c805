//! Parameters in files.
//!
//! [`save_parameters`] and [`load_parameters`] act on the current scope and choose the format by the extension
//! of the file. They are based on [`Checkpoint`], the parameters of a file or scope, and [`Load`], which first
//! plans what a checkpoint would change in a store.
//!
//! | extension | format | types |
//! |---|---|---|
//! | `.h5` | HDF5 as NNabla writes it | all |
//! | `.protobuf` | NNabla's protobuf message | f32 |
//! | `.nntxt`, `.prototxt` | the same message as text | f32 |
//! | `.nnp` | NNabla's archive: a network, which is kept, and parameters | all |
//! | `.npz` | NumPy's archive, `need_grad` in comments that NumPy ignores | all |
//! | `.safetensors` | safetensors, order and `need_grad` in its metadata | all |
//! | `.pt`, `.pth` | PyTorch's archive of tensors, read only | all |
//! | `.keras` | Keras's archive of a model, of which the weights are read | all |
//!
//! Paths have at most 4096 bytes and 1000 components, and parameters at most 32 axes; stores and files reject
//! anything beyond that. A variable with several paths, such as tied weights, is written under each of them, so
//! that other readers find it, and becomes a single variable again when `.h5`, `.nnp`, `.npz` or `.safetensors`
//! is read; NNabla's messages cannot express that. If a file does not say whether a parameter is trained, as
//! NumPy's do not, `.npz` and `.safetensors` leave that open; NNabla's formats require a value, and get
//! `need_grad` true.
//!
//! A member that cannot be a parameter, such as text, does not prevent the others from being read;
//! [`Checkpoint::unusable`] lists it. Files are not trusted: a damaged one is an [`Error::Checkpoint`] and
//! changes nothing. Reading needs memory of at most 40 times the length of the file: that much for parameters
//! without values, which take a few bytes in a file and some 400 in memory, and one to three times the length
//! for values. Compressed data counts with its unpacked length, which deflate limits to 1032 times that of the
//! file. If several links of an HDF5 file lead to the same values, each gets its own copy; all copies together
//! have at most 8 times the length of the file.
//!
//! Values are read directly into the vector that the parameter keeps, by ordinary reads. Files are not mapped
//! into memory: candle's tensors own their values, so they would be copied anyway, both copies would count as
//! memory of the process, and another program that truncates the file would crash it. Python's safetensors maps
//! and copies; `tests/interop/speed.py` measures that this is no faster, and needs twice the memory.

mod archive;
pub(crate) mod definition;
mod entry;
mod file;
mod generated;
mod h5;
mod hdf5;
mod input;
mod keras;
mod libraries;
mod load;
mod nnp;
mod npz;
mod optimizer;
mod pickle;
mod protobuf;
mod pth;
mod rule;
mod safetensors;
mod text;
mod values;

use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use candle_core::{DType, Tensor};

pub use entry::{Entry, Unusable};
pub use load::{Difference, Load, LoadReport, NeedGrad, Plan};
pub(crate) use optimizer::{load_states, read_parameters, save_states};
pub use rule::Rule;

use crate::limits;
use crate::pattern::Renames;
use crate::{Error, ParameterStore, Parameters, Result};
use entry::{Contents, Entries, Other};
use input::{Input, Source};

/// An error of a reader or writer, which does not know the name of its file.
#[derive(Debug)]
enum Fault {
    Io(io::Error),
    Format(String),
    /// A valid member that cannot be a parameter; [`Contents::take`] records it.
    Unusable(String),
}

type Outcome<T> = std::result::Result<T, Fault>;

impl Fault {
    fn format(reason: impl Into<String>) -> Self {
        Self::Format(reason.into())
    }

    fn unusable(reason: impl Into<String>) -> Self {
        Self::Unusable(reason.into())
    }

    /// An error of a source during a read: the device fails, or the decompressor finds the bytes damaged.
    fn while_reading(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::format("ends early"),
            // Of all file operations, the system rejects only invalid positions.
            io::ErrorKind::InvalidInput if error.raw_os_error().is_some() => {
                Self::format("an address in it is outside of any file")
            }
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => Self::format(error.to_string()),
            io::ErrorKind::Other if error.raw_os_error().is_none() => Self::format(error.to_string()),
            _ => Self::Io(error),
        }
    }

    fn within(self, what: &str) -> Self {
        match self {
            Self::Format(reason) => Self::Format(format!("{what}: {reason}")),
            Self::Unusable(reason) => Self::Unusable(format!("{what}: {reason}")),
            io => io,
        }
    }

    fn into_error(self, action: &'static str, file: &str) -> Error {
        match self {
            // The file changed while it was read, or an archive claims more than it has.
            Self::Io(error) if action == "read" && error.kind() == io::ErrorKind::UnexpectedEof => {
                Error::Checkpoint { file: file.to_owned(), reason: "ends early".to_owned() }
            }
            Self::Io(source) => Error::Io { action, file: file.to_owned(), source },
            Self::Format(reason) | Self::Unusable(reason) => Error::Checkpoint {
                file: file.to_owned(),
                reason: limits::brief_within(&reason, 600).into_owned(),
            },
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<candle_core::Error> for Fault {
    fn from(error: candle_core::Error) -> Self {
        Self::Format(error.to_string())
    }
}

/// A file format of checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// `.h5`: HDF5 in NNabla's layout.
    Hdf5,
    /// `.protobuf`: NNabla's protobuf message.
    Protobuf,
    /// `.nntxt`, `.prototxt`: the same message as text.
    Text,
    /// `.nnp`: NNabla's archive.
    Nnp,
    /// `.npz`: NumPy's archive.
    Npz,
    /// `.safetensors`.
    Safetensors,
}

impl Format {
    /// Every format with its extensions, the usual one first.
    const EXTENSIONS: &[(Self, &[&str])] = &[
        (Self::Hdf5, &["h5"]),
        (Self::Protobuf, &["protobuf"]),
        (Self::Text, &["nntxt", "prototxt"]),
        (Self::Nnp, &["nnp"]),
        (Self::Npz, &["npz"]),
        (Self::Safetensors, &["safetensors"]),
    ];

    /// The format of the extension of `path`, in upper or lower case.
    ///
    /// # Errors
    /// [`Error::UnknownExtension`], which lists the known ones.
    pub fn from_path(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase());
        Self::EXTENSIONS
            .iter()
            .find(|(_, extensions)| {
                extension.as_deref().is_some_and(|extension| extensions.contains(&extension))
            })
            .map(|(format, _)| *format)
            .ok_or_else(|| Error::UnknownExtension {
                file: path.display().to_string(),
                known: Self::extensions()
                    .map(|extension| format!(".{extension}"))
                    .collect::<Vec<_>>()
                    .join(", "),
            })
    }

    /// The usual extension of the format, without the dot.
    #[must_use]
    pub fn extension(self) -> &'static str {
        Self::EXTENSIONS
            .iter()
            .find(|(format, _)| *format == self)
            .and_then(|(_, extensions)| extensions.first())
            .copied()
            .unwrap_or_default()
    }

    /// The extensions that [`from_path`](Self::from_path) knows.
    pub fn extensions() -> impl Iterator<Item = &'static str> {
        Self::EXTENSIONS.iter().flat_map(|(_, extensions)| extensions.iter().copied())
    }
}

/// Reads a whole file.
type Reader = fn(&mut dyn Source) -> Outcome<Contents>;

/// Extensions of files that are only read.
const READ_ONLY: [(&str, Reader); 3] = [("pt", pth::read), ("pth", pth::read), ("keras", keras::read)];

/// Permitted changes of values that the format cannot represent.
#[derive(Clone, Copy, Debug, Default)]
struct SaveOptions {
    allow_rounding: bool,
}

/// Parameters outside of a store: read from a file, or taken from a store to be written to one.
///
/// A checkpoint taken from a store shares its variables; one read from a file has its own.
#[derive(Debug)]
pub struct Checkpoint {
    origin: String,
    entries: Entries,
    /// Whether nothing else uses the variables.
    owned: bool,
    options: SaveOptions,
    unusable: Vec<Unusable>,
    others: Vec<Other>,
    /// That archive, if it is a file.
    archive: Option<PathBuf>,
    /// Whether a parameter has another path than in the file.
    is_renamed: bool,
    changes: Vec<String>,
}

impl Checkpoint {
    /// Reads the file `path` in the format of its extension. PyTorch's `.pt` and `.pth` can be read as well,
    /// without executing any of their code: tensors in a dict, such as a state dict, or in nested dicts, as
    /// `state_dict/fc.weight`. Of Keras's `.keras`, the weights are read, with the names of a `.weights.h5`.
    ///
    /// # Errors
    /// [`Error::UnknownExtension`], [`Error::Io`], or [`Error::Checkpoint`] if the file is damaged.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let is_called =
            |known: &str| path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case(known));
        if let Some((_, read)) = READ_ONLY.iter().find(|(known, _)| is_called(known)) {
            let read = file::open(path).and_then(|mut file| read(&mut file));
            return Self::from_read(path.display().to_string(), read);
        }
        let (format, origin) = (Format::from_path(path)?, path.display().to_string());
        let read = file::open(path).and_then(|mut file| read(format, &mut file));
        let archive = (format == Format::Nnp).then(|| path.to_owned());
        Ok(Self { archive, ..Self::from_read(origin, read)? })
    }

    fn from_read(origin: String, read: Outcome<Contents>) -> Result<Self> {
        let contents = read.map_err(|fault| fault.into_error("read", &origin))?;
        Ok(Self::new(origin, contents, true))
    }

    fn new(origin: String, contents: Contents, owned: bool) -> Self {
        let Contents { entries, unusable, others } = contents;
        let options = SaveOptions::default();
        Self {
            origin,
            entries,
            owned,
            options,
            unusable,
            others,
            archive: None,
            is_renamed: false,
            changes: Vec::new(),
        }
    }

    /// Reads a file from memory.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_bytes(format: Format, bytes: &[u8]) -> Result<Self> {
        Self::from_source(format, io::Cursor::new(bytes))
    }

    /// Reads a stream to its end. It is spooled to a temporary file, since allocations are only safe once the
    /// length is known.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_reader(format: Format, mut reader: impl Read) -> Result<Self> {
        let spooled =
            tempfile::tempfile().and_then(|mut file| io::copy(&mut reader, &mut file).map(|_| file));
        match spooled {
            Ok(file) => Self::from_source(format, file),
            Err(source) => Err(Error::Io { action: "read", file: "a stream".to_owned(), source }),
        }
    }

    fn from_source(format: Format, mut source: impl Read + Seek) -> Result<Self> {
        Self::from_read("a stream".to_owned(), read(format, &mut source))
    }

    /// Takes the given parameters, as listed by [`get_all_parameters`](crate::get_all_parameters) or a store.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if a path has a component `.` or `..`, which files cannot contain.
    pub fn from_parameters(parameters: &Parameters) -> Result<Self> {
        let origin = "the parameters".to_owned();
        let mut entries = Entries::new();
        for (path, parameter) in parameters.iter() {
            let entry = Entry::new(path.to_owned(), parameter.var().clone(), Some(parameter.need_grad()));
            entries.push(entry).map_err(|fault| fault.into_error("save", &origin))?;
        }
        Ok(Self::new(origin, entries.into(), false))
    }

    /// The parameters, in the order of the file.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        self.entries.as_slice()
    }

    /// The parameter at `path`. This is a linear search; for many parameters, iterate over
    /// [`entries`](Self::entries).
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.path() == path)
    }

    /// Members of the file that cannot be parameters, such as text, with the reason. Everything else ignores
    /// them: only a [`Load`] that asks for one fails, and [`losses`](Self::losses) names them.
    #[must_use]
    pub fn unusable(&self) -> &[Unusable] {
        &self.unusable
    }

    /// The origin, for messages.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The variables that have several paths: the paths of each, in the order of the file.
    #[must_use]
    pub fn tied(&self) -> Vec<Vec<&str>> {
        self.entries.tied_paths()
    }

    /// Describes everything that saving in `format` would lose, a line each: types that the format does not
    /// have; that a variable has several paths; members that could not be read; other content of the file, or
    /// that it no longer matches the parameters: a network in an `.nnp` uses the names before a
    /// [renaming](Self::rename). [`save`](Self::save) still keeps all numbers, or fails.
    #[must_use]
    pub fn losses(&self, format: Format) -> Vec<String> {
        let kept = |other: &Other| match other {
            Other::Member(_) => format == Format::Nnp && self.archive.is_some(),
            Other::Field(_) => false,
            Other::Metadata(..) => format == Format::Safetensors,
        };
        let mut losses: Vec<_> = self.unusable.iter().map(Unusable::to_string).collect();
        losses.extend(self.others.iter().filter(|other| !kept(other)).map(Other::to_string));
        if self.is_renamed {
            let networks = self.others.iter().filter(|other| kept(other) && other.is_network());
            losses.extend(networks.map(|other| format!("{other} still uses the old parameter names")));
        }
        if matches!(format, Format::Protobuf | Format::Text) {
            let others = self.entries().iter().filter(|entry| entry.tensor().dtype() != DType::F32);
            losses.extend(others.filter_map(|entry| {
                let stored = entry.stored().ok()?;
                Some(format!("the type of `{}`: {stored:?} becomes F32", entry.path()))
            }));
            losses.extend(self.tied().iter().map(|paths| {
                format!("`{}` are one variable; each becomes a separate variable", paths.join("`, `"))
            }));
        }
        losses
    }

    /// Paths of the parameters that become trained by saving in `format`, since nothing says whether they are:
    /// NNabla's formats require a value. A [load](LoadReport::guessed) does the same.
    #[must_use]
    pub fn guessed(&self, format: Format) -> Vec<&str> {
        let keeps_open = matches!(format, Format::Npz | Format::Safetensors);
        let unknown = self.entries().iter().filter(|entry| !keeps_open && entry.need_grad().is_none());
        unknown.map(Entry::path).collect()
    }

    /// Moves the parameters to other paths; the rules are those of [`Load::rename`]. A network in an `.nnp`
    /// keeps using the old ones, which [`losses`](Self::losses) reports.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if two parameters get the same path, or one gets a path that files cannot contain.
    pub fn rename<P: AsRef<str>>(mut self, rules: &[(P, P)]) -> Result<Self> {
        let mut renames = Renames::default();
        rules.iter().for_each(|(from, to)| renames.push(from.as_ref(), to.as_ref()));
        let mut renamed = Entries::new();
        for entry in self.entries.into_vec() {
            let before = entry.path().to_owned();
            let entry = entry.renamed(&renames);
            self.is_renamed |= entry.path() != before;
            renamed.push(entry).map_err(|fault| fault.into_error("rename", &self.origin))?;
        }
        self.entries = renamed;
        Ok(self)
    }

    /// Describes the changes by [`change`](Self::change) and by conversions such as
    /// [`from_pytorch`](Self::from_pytorch), a line each.
    #[must_use]
    pub fn changes(&self) -> &[String] {
        &self.changes
    }

    fn is_owned(&self) -> bool {
        self.owned
    }

    /// Sets whether saving may round values that the format cannot represent: `.protobuf` and its text form
    /// only have f32. Default: false, which makes such a value an error.
    #[must_use]
    pub fn allow_rounding(mut self, allow: bool) -> Self {
        self.options.allow_rounding = allow;
        self
    }

    /// Writes the file `path` in the format of its extension.
    ///
    /// The data is written to a file beside it, which is synced and renamed, so the target always is complete:
    /// either the old or the new file. The permissions are kept, but it is a new file: it is owned by the
    /// writing user, and other hard links keep referring to the old one. Symbolic links are followed and kept.
    /// A program that is killed while it writes leaves a file `.layerfn-*.tmp` beside the target, which is
    /// never read.
    ///
    /// Other content of an `.nnp` is kept: that of the archive that this was read from, or else that of the
    /// replaced one.
    ///
    /// # Errors
    /// [`Error::UnknownExtension`], [`Error::Io`], or [`Error::Checkpoint`] if the format cannot represent a
    /// parameter or an archive with content to keep is damaged.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let format = Format::from_path(path)?;
        file::replace(path, |temporary| {
            let mut output = io::BufWriter::with_capacity(1 << 16, temporary.as_file_mut());
            match format {
                Format::Nnp => {
                    let old = self.old_archive().unwrap_or(nnp::Old::Replaced(path));
                    nnp::write(&mut output, &self.entries, Some(old))?;
                }
                Format::Npz => npz::write(&mut output, &self.entries)?,
                _ => self.write(format, &mut output)?,
            }
            Ok(output.flush()?)
        })
        .map_err(|fault| fault.into_error("write", &path.display().to_string()))
    }

    /// The bytes that [`save`](Self::save) would write.
    ///
    /// # Errors
    /// As [`save`](Self::save).
    pub fn to_bytes(&self, format: Format) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.to_writer(format, &mut bytes)?;
        Ok(bytes)
    }

    /// Writes the bytes of [`save`](Self::save) to a stream.
    ///
    /// # Errors
    /// As [`save`](Self::save).
    pub fn to_writer(&self, format: Format, mut writer: impl Write) -> Result<()> {
        self.write(format, &mut writer)
            .and_then(|()| Ok(writer.flush()?))
            .map_err(|fault| fault.into_error("write", "a stream"))
    }

    /// Adds the parameters of another file, which replace those of the same path.
    pub(crate) fn and(mut self, more: Self) -> Result<Self> {
        for entry in more.entries.into_vec() {
            self.entries.put(entry).map_err(|fault| fault.into_error("read", &more.origin))?;
        }
        self.unusable.extend(more.unusable);
        self.others.extend(more.others);
        self.origin = format!("{}, {}", self.origin, more.origin);
        Ok(self)
    }

    /// Adds the values of `parameters`, or replaces those of the same path.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if one has another shape here, or a path that files cannot contain. Nothing is
    /// changed then.
    pub(crate) fn replace(&mut self, parameters: &Parameters) -> Result<()> {
        let mut entries = self.entries.clone();
        for (path, parameter) in parameters.iter() {
            let fault = |reason: String| Error::Checkpoint { file: self.origin.clone(), reason };
            if let Some(before) =
                self.get(path).filter(|before| before.tensor().dims() != parameter.var().dims())
            {
                let (has, got) = (before.tensor().dims(), parameter.var().dims());
                return Err(fault(format!("holds `{path}` with the shape {has:?}, not {got:?}")));
            }
            let var = candle_core::Var::from_tensor(&parameter.var().copy()?)?;
            let entry = Entry::new(path.to_owned(), var, Some(parameter.need_grad()));
            entries.put(entry).map_err(|fault| fault.into_error("save", &self.origin))?;
        }
        self.entries = entries;
        Ok(())
    }

    /// Saves the parameters together with the text of a definition, as an archive or as one text; other content
    /// of the archive that was read is kept.
    pub(crate) fn save_with_definition(&self, path: &Path, definition: &str) -> Result<()> {
        let format = Format::from_path(path)?;
        file::replace(path, |temporary| {
            let mut output = io::BufWriter::with_capacity(1 << 16, temporary.as_file_mut());
            match format {
                Format::Nnp => nnp::write_with(&mut output, &self.entries, self.old_archive(), definition)?,
                Format::Text => {
                    output.write_all(definition.as_bytes())?;
                    text::write(&mut output, &self.entries, self.options)?;
                }
                _ => return Err(Fault::format("a network can be saved as .nnp, .nntxt or .prototxt")),
            }
            Ok(output.flush()?)
        })
        .map_err(|fault| fault.into_error("write", &path.display().to_string()))
    }

    fn old_archive(&self) -> Option<nnp::Old<'_>> {
        self.archive.as_deref().map(nnp::Old::Read)
    }

    fn write(&self, format: Format, output: &mut dyn Write) -> Outcome<()> {
        match format {
            Format::Protobuf => protobuf::write(output, &self.entries, self.options),
            Format::Text => text::write(output, &self.entries, self.options),
            Format::Safetensors => safetensors::write(output, &self.entries, &self.others),
            Format::Hdf5 => h5::write(output, &self.entries),
            // Formats that are not written sequentially need a file.
            Format::Nnp | Format::Npz => {
                let mut spool = tempfile::tempfile()?;
                match format {
                    Format::Nnp => nnp::write(&mut spool, &self.entries, self.old_archive())?,
                    _ => npz::write(&mut spool, &self.entries)?,
                }
                spool.rewind()?;
                io::copy(&mut spool, output)?;
                Ok(())
            }
        }
    }
}

fn read(format: Format, source: &mut dyn Source) -> Outcome<Contents> {
    let length = input::length(source)?;
    match format {
        Format::Hdf5 => h5::read(source),
        Format::Nnp => nnp::read(source),
        Format::Npz => npz::read(source),
        Format::Protobuf => protobuf::read(&mut Input::new(source, length)),
        Format::Text => text::read(&mut Input::new(source, length)),
        Format::Safetensors => safetensors::read(&mut Input::new(source, length)),
    }
}

/// Saves the parameters of the current scope, including those with `need_grad` false; the extension of `path`
/// selects the format.
///
/// Order and flags are kept, and paths are relative to the current scope. The target always is complete: either
/// the old or the new file. Nothing is rounded: a value that the format cannot represent is an error.
///
/// ```
/// use layerfn::{get_parameter_or_create, load_parameters, save_parameters};
///
/// let folder = tempfile::tempdir()?;
/// get_parameter_or_create("affine/W").shape((3, 2)).call()?;
/// save_parameters(folder.path().join("model.h5"))?;
/// let report = load_parameters(folder.path().join("model.h5"))?;
/// assert_eq!(report.updated(), ["affine/W"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// As [`Checkpoint::save`].
pub fn save_parameters(path: impl AsRef<Path>) -> Result<()> {
    // An unknown extension is reported before anything else.
    Format::from_path(&path)?;
    Checkpoint::from_parameters(&crate::parameter::access::parameters_with_state())?.save(path)
}

/// Loads a file into the current scope as NNabla does, either all or nothing; the extension of `path` selects
/// the format.
///
/// Missing parameters are created, with the file's type. Existing ones must have the file's shape; they keep
/// their variable, type and device, and take the file's values and `need_grad`. Parameters that the file does
/// not have are left unchanged; the report names them. Use [`Load`] for other rules.
///
/// If the scope had no parameters, it becomes sealed: a layer that then asks for a parameter that the file did
/// not have, for example under another label, gets [`Error::Sealed`]. [`ParameterStore::unseal`] lets layers
/// create parameters again.
///
/// # Errors
/// [`Error::UnknownExtension`], [`Error::Io`], [`Error::Checkpoint`] if the file is damaged, or
/// [`Error::Mismatch`] if it does not match the scope. The store is unchanged then.
#[track_caller]
pub fn load_parameters(path: impl AsRef<Path>) -> Result<LoadReport> {
    Load::like_nnabla(Checkpoint::open(path)?).apply()
}

/// The array of NumPy in an `.npy` file.
/// The bytes of an ordinary file.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>> {
    let read = || {
        let mut bytes = Vec::new();
        file::open(path)?.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|fault: Fault| fault.into_error("read", &path.display().to_string()))
}

/// Writes a file of these parts, or leaves the previous one unchanged.
pub(crate) fn write_file(path: &Path, parts: &[&[u8]]) -> Result<()> {
    let write = |file: &mut std::fs::File| parts.iter().try_for_each(|part| file.write_all(part));
    file::replace(path, |temporary| Ok(write(temporary.as_file_mut())?))
        .map_err(|fault| fault.into_error("write", &path.display().to_string()))
}

pub(crate) fn read_npy(path: &Path) -> Result<Tensor> {
    let read = file::open(path).and_then(|mut file| npz::read_npy(&mut file));
    read.map_err(|fault| fault.into_error("read", &path.display().to_string()))
}

impl ParameterStore {
    /// [`save_parameters`] of the whole store.
    ///
    /// # Errors
    /// As [`Checkpoint::save`].
    pub fn save_parameters(&self, path: impl AsRef<Path>) -> Result<()> {
        Format::from_path(&path)?;
        Checkpoint::from_parameters(&self.parameters())?.save(path)
    }

    /// [`load_parameters`] into the root of this store.
    ///
    /// # Errors
    /// As [`load_parameters`].
    #[track_caller]
    pub fn load_parameters(&self, path: impl AsRef<Path>) -> Result<LoadReport> {
        Load::like_nnabla(Checkpoint::open(path)?).apply_to(self, "")
    }
}
