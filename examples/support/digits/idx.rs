//! The IDX format: a magic number, the length of each axis, then bytes.

use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::GzDecoder;

/// What an IDX file of unsigned bytes starts with when it has one axis.
const LABELS_MAGIC: u32 = 0x0801;
/// What it starts with when it has three.
const IMAGES_MAGIC: u32 = 0x0803;
/// Rows and columns of an image.
pub const SIDE: usize = 28;
/// More than any set of digits holds; a damaged header cannot make the reader swallow more.
const MOST_ITEMS: u32 = 1_000_000;

/// Why digits could not be read; every text names the file, what was found and what is expected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// Neither the plain nor the compressed file exists.
    #[error("`{}` holds neither `{stem}` nor `{stem}.gz`", dir.display())]
    Missing {
        /// Where it was looked for.
        dir: PathBuf,
        /// Name of the plain file.
        stem: &'static str,
    },
    /// The directory does not exist.
    #[error("`{}` is not a directory; it should hold the four files of MNIST, such as `train-images-idx3-ubyte.gz`", .0.display())]
    NotADirectory(PathBuf),
    /// The system could not read the file.
    #[error("`{}`: {source}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The compressed data is damaged.
    #[error("`{}`: damaged gzip data ({source}); get the file again", file.display())]
    Gzip {
        /// The file.
        file: PathBuf,
        /// What the decoder says.
        source: io::Error,
    },
    /// Another kind of file.
    #[error("`{}`: starts with {found:#010x}, a file of {kind} starts with {expected:#010x}{hint}", file.display())]
    Magic {
        /// The file.
        file: PathBuf,
        /// What it should hold.
        kind: &'static str,
        /// Its first four bytes.
        found: u32,
        /// What they should be.
        expected: u32,
        /// What it may be instead.
        hint: &'static str,
    },
    /// The file is shorter than its header says.
    #[error("`{}`: ends after {found} bytes, expected {expected}{what}", file.display())]
    Truncated {
        /// The file.
        file: PathBuf,
        /// Its length, without compression.
        found: u64,
        /// The length it should have.
        expected: u64,
        /// Where that length comes from.
        what: String,
    },
    /// The file is longer than its header says.
    #[error("`{}`: goes on after the expected {expected} bytes{what}", file.display())]
    TooLong {
        /// The file.
        file: PathBuf,
        /// The length it should have, without compression.
        expected: u64,
        /// Where that length comes from.
        what: String,
    },
    /// The header announces none, or more than can be true.
    #[error("`{}`: its header announces {found} {kind}, expected 1 to {MOST_ITEMS}", file.display())]
    Count {
        /// The file.
        file: PathBuf,
        /// What it should hold.
        kind: &'static str,
        /// How many it says it holds.
        found: u32,
    },
    /// Images of another size.
    #[error("`{}`: images of {rows} × {columns} pixels, expected {SIDE} × {SIDE}", file.display())]
    Size {
        /// The file.
        file: PathBuf,
        /// Rows announced.
        rows: u32,
        /// Columns announced.
        columns: u32,
    },
    /// A label that is no digit.
    #[error("`{}`: label number {index} is {found}, expected 0 to 9", file.display())]
    Label {
        /// The file.
        file: PathBuf,
        /// Which label, from 0.
        index: usize,
        /// The label.
        found: u8,
    },
    /// Images and labels that do not belong together.
    #[error("`{}` holds {images} images, but `{}` holds {labels} labels; expected one label an image",
        images_file.display(), labels_file.display())]
    CountMismatch {
        /// File of the images.
        images_file: PathBuf,
        /// How many it holds.
        images: usize,
        /// File of the labels.
        labels_file: PathBuf,
        /// How many it holds.
        labels: usize,
    },
}

/// An IDX file that is being read, decompressed on the way.
pub(super) struct IdxFile<'a> {
    path: PathBuf,
    content: Box<dyn Read + 'a>,
    compressed: bool,
    position: u64,
}

impl<'a> IdxFile<'a> {
    /// Opens `dir/stem`, or `dir/stem.gz`.
    pub(super) fn open(dir: &Path, stem: &'static str) -> Result<Self, DataError> {
        for path in [dir.join(stem), dir.join(format!("{stem}.gz"))] {
            match File::open(&path) {
                Ok(file) => return Self::new(path, BufReader::new(file)),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(source) => return Err(DataError::Unreadable { file: path, source }),
            }
        }
        Err(DataError::Missing { dir: dir.to_owned(), stem })
    }

    /// Reads `content`; whether it is compressed, its first bytes say: browsers unpack without asking and keep the name.
    pub(super) fn new(path: impl Into<PathBuf>, mut content: impl BufRead + 'a) -> Result<Self, DataError> {
        let path = path.into();
        let compressed = match content.fill_buf() {
            Ok(start) => start.starts_with(&[0x1f, 0x8b]),
            Err(source) => return Err(DataError::Unreadable { file: path, source }),
        };
        let content: Box<dyn Read + 'a> =
            if compressed { Box::new(GzDecoder::new(content)) } else { Box::new(content) };
        Ok(Self { path, content, compressed, position: 0 })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The pixels of all images, one image after the other.
    pub(super) fn images(&mut self) -> Result<Vec<u8>, DataError> {
        let count = self.header("images", IMAGES_MAGIC, 16)?;
        let (rows, columns) = (self.number(16)?, self.number(16)?);
        if [rows, columns] != [SIDE as u32; 2] {
            return Err(DataError::Size { file: self.path.clone(), rows, columns });
        }
        self.body(count as usize * SIDE * SIDE, format!(" for the {count} images its header announces"))
    }

    /// The labels, each 0 to 9.
    pub(super) fn labels(&mut self) -> Result<Vec<u8>, DataError> {
        let count = self.header("labels", LABELS_MAGIC, 8)?;
        let labels = self.body(count as usize, format!(" for the {count} labels its header announces"))?;
        match labels.iter().position(|&label| label > 9) {
            Some(index) => Err(DataError::Label { file: self.path.clone(), index, found: labels[index] }),
            None => Ok(labels),
        }
    }

    /// Checks the magic number of a header of `length` bytes; returns the number of items.
    fn header(&mut self, kind: &'static str, expected: u32, length: u64) -> Result<u32, DataError> {
        let file = self.path.clone();
        let found = self.number(length)?;
        if found != expected {
            let hint = match found {
                IMAGES_MAGIC => "; it holds images",
                LABELS_MAGIC => "; it holds labels",
                _ => "",
            };
            return Err(DataError::Magic { file, kind, found, expected, hint });
        }
        match self.number(length)? {
            count @ 1..=MOST_ITEMS => Ok(count),
            found => Err(DataError::Count { file, kind, found }),
        }
    }

    /// The next number of a header of `header_length` bytes.
    fn number(&mut self, header_length: u64) -> Result<u32, DataError> {
        let mut bytes = Vec::with_capacity(4);
        self.fill(&mut bytes, 4)?;
        match bytes.try_into() {
            Ok(bytes) => Ok(u32::from_be_bytes(bytes)),
            Err(_) => Err(self.truncated(header_length, " for its header at least".to_owned())),
        }
    }

    /// The remaining `length` bytes, which must be all.
    fn body(&mut self, length: usize, what: String) -> Result<Vec<u8>, DataError> {
        let expected = self.position + length as u64;
        let mut bytes = Vec::new();
        // One more than expected: the end must come, and with it gzip's check sum.
        self.fill(&mut bytes, length as u64 + 1)?;
        match bytes.len().cmp(&length) {
            std::cmp::Ordering::Less => Err(self.truncated(expected, what)),
            std::cmp::Ordering::Equal => Ok(bytes),
            std::cmp::Ordering::Greater => {
                Err(DataError::TooLong { file: self.path.clone(), expected, what })
            }
        }
    }

    /// Reads up to `length` bytes; fewer only at the end of the file. Memory grows with what is there, not with what
    /// a header announces.
    fn fill(&mut self, bytes: &mut Vec<u8>, length: u64) -> Result<(), DataError> {
        match (&mut self.content).take(length).read_to_end(bytes) {
            Ok(n) => self.position += n as u64,
            Err(source) if self.compressed => {
                return Err(DataError::Gzip { file: self.path.clone(), source });
            }
            Err(source) => return Err(DataError::Unreadable { file: self.path.clone(), source }),
        }
        Ok(())
    }

    fn truncated(&self, expected: u64, what: String) -> DataError {
        DataError::Truncated { file: self.path.clone(), found: self.position, expected, what }
    }
}
