//! The IDX format: a magic number, the length of each axis, then numbers.

use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::path::Path;

use candle_core::{Device, Tensor};
use flate2::bufread::GzDecoder;

use crate::{Error, Result, check, limits};

/// Reads an IDX file, the format of MNIST, uncompressed or compressed by gzip.
///
/// If `path` does not exist, the same path with `.gz` appended is tried. Unsigned bytes become `u8`; signed
/// bytes, 16-bit and 32-bit numbers become `i64`; floats become `f32` and `f64`.
///
/// # Errors
/// [`Error::Io`] if the file can't be read, [`Error::Checkpoint`] if it is damaged or not an IDX file.
///
/// # Example
/// ```no_run
/// let images = layerfn::data::read_idx("train-images-idx3-ubyte.gz")?; // (60000, 28, 28), u8
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn read_idx(path: impl AsRef<Path>) -> Result<Tensor> {
    let path = path.as_ref();
    let mut packed = path.as_os_str().to_owned();
    packed.push(".gz");
    for path in [path, Path::new(&packed)] {
        match File::open(path) {
            Ok(file) => return read_idx_from(&path.display().to_string(), BufReader::new(file)),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(source) => {
                return Err(Error::io("read", path, source));
            }
        }
    }
    let source = io::Error::new(ErrorKind::NotFound, "neither it nor a file with `.gz` at its end exists");
    Err(Error::io("read", path, source))
}

/// [`read_idx`] from memory or another source; error messages call it `name`.
///
/// # Errors
/// As [`read_idx`].
///
/// ```
/// let bytes = [0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1]; // one axis of three unsigned bytes
/// let labels = layerfn::data::read_idx_from("labels", &bytes[..])?;
/// assert_eq!(labels.to_vec1::<u8>()?, [7, 2, 1]);
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn read_idx_from(name: &str, mut content: impl BufRead) -> Result<Tensor> {
    // The first bytes say whether it is compressed: browsers may decompress a file and keep its name.
    let start =
        content.fill_buf().map_err(|source| Error::Io { action: "read", file: name.to_owned(), source })?;
    let compressed = start.starts_with(&[0x1f, 0x8b]);
    let content: Box<dyn Read + '_> =
        if compressed { Box::new(GzDecoder::new(content)) } else { Box::new(content) };
    Idx { name, content, compressed, position: 0 }.read()
}

struct Idx<'a> {
    name: &'a str,
    content: Box<dyn Read + 'a>,
    compressed: bool,
    position: u64,
}

impl Idx<'_> {
    fn read(mut self) -> Result<Tensor> {
        let magic = self.word()?;
        let [0, 0, kind, rank] = magic.to_be_bytes() else {
            return Err(
                self.damaged(format!("starts with {magic:#010x}, which is not the start of an IDX file"))
            );
        };
        limits::check_rank(rank.into()).map_err(|reason| self.damaged(reason))?;
        let shape = (0..rank).map(|_| Ok(self.word()? as usize)).collect::<Result<Vec<_>>>()?;
        let size = match kind {
            0x08 | 0x09 => 1,
            0x0b => 2,
            0x0c | 0x0d => 4,
            0x0e => 8,
            _ => return Err(self.damaged(format!("has numbers of the unknown type {kind:#04x}"))),
        };
        let count = check::count("shape", &shape)?;
        let bytes = self.body(count.saturating_mul(size), &shape)?;
        let tensor = match kind {
            0x08 => Tensor::from_vec(bytes, shape, &Device::Cpu),
            0x09 => integers(&bytes, |[x]: [u8; 1]| i64::from(x.cast_signed()), shape),
            0x0b => integers(&bytes, |x| i64::from(i16::from_be_bytes(x)), shape),
            0x0c => integers(&bytes, |x| i64::from(i32::from_be_bytes(x)), shape),
            0x0d => Tensor::from_vec(numbers(&bytes, f32::from_be_bytes), shape, &Device::Cpu),
            _ => Tensor::from_vec(numbers(&bytes, f64::from_be_bytes), shape, &Device::Cpu),
        };
        Ok(tensor?)
    }

    fn word(&mut self) -> Result<u32> {
        let bytes = self.take(4)?;
        match bytes.try_into() {
            Ok(bytes) => Ok(u32::from_be_bytes(bytes)),
            Err(_) => Err(self.damaged(format!("ends after {} bytes, within its header", self.position))),
        }
    }

    /// The remaining `length` bytes, which must end the file.
    fn body(&mut self, length: usize, shape: &[usize]) -> Result<Vec<u8>> {
        let expected = self.position.saturating_add(length as u64);
        // Read one more byte than expected, to check that the file ends, and with it gzip's checksum.
        let bytes = self.take(length as u64 + 1)?;
        match bytes.len().cmp(&length) {
            std::cmp::Ordering::Equal => Ok(bytes),
            std::cmp::Ordering::Less => Err(self.damaged(format!(
                "ends after {} bytes, but its shape {shape:?} needs {expected}",
                self.position
            ))),
            std::cmp::Ordering::Greater => {
                Err(self
                    .damaged(format!("goes on after the {expected} bytes that its shape {shape:?} needs")))
            }
        }
    }

    /// Reads up to `length` bytes; fewer only at the end of the file. The memory grows with the bytes that
    /// exist, not with the length that the header claims.
    fn take(&mut self, length: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        match (&mut self.content).take(length).read_to_end(&mut bytes) {
            Ok(n) => self.position += n as u64,
            Err(error) if self.compressed => {
                return Err(self.damaged(format!("has damaged gzip data ({error}); get the file again")));
            }
            Err(source) => return Err(Error::Io { action: "read", file: self.name.to_owned(), source }),
        }
        Ok(bytes)
    }

    fn damaged(&self, reason: impl Into<String>) -> Error {
        Error::Checkpoint { file: self.name.to_owned(), reason: reason.into() }
    }
}

fn numbers<T, const N: usize>(bytes: &[u8], number: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks().0.iter().map(|&bytes| number(bytes)).collect()
}

fn integers<const N: usize>(
    bytes: &[u8],
    number: impl Fn([u8; N]) -> i64,
    shape: Vec<usize>,
) -> candle_core::Result<Tensor> {
    Tensor::from_vec(numbers(bytes, number), shape, &Device::Cpu)
}
