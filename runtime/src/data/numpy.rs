//! NumPy's files.

use std::path::Path;

use candle_core::Tensor;

use crate::checkpoint::{self, Checkpoint, Format};
use crate::{Error, Result, nearest};

/// Reads an array of NumPy from a `.npy` file.
///
/// # Errors
/// [`Error::Io`] or [`Error::Checkpoint`] if the file can't be read, or its type is not supported.
///
/// # Example
/// ```no_run
/// let x = layerfn::data::read_npy("features.npy")?;
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn read_npy(path: impl AsRef<Path>) -> Result<Tensor> {
    checkpoint::read_npy(path.as_ref())
}

/// Reads arrays of a `.npz` file by their names, in the order of `names`.
///
/// # Errors
/// [`Error::Io`] or [`Error::Checkpoint`] if the file can't be read or has no such array.
///
/// # Example
/// ```no_run
/// use layerfn::data::{Arrays, read_npz};
///
/// let data = Arrays::new(read_npz("digits.npz", &["images", "labels"])?)?;
/// # Ok::<(), layerfn::Error>(())
/// ```
pub fn read_npz(path: impl AsRef<Path>, names: &[&str]) -> Result<Vec<Tensor>> {
    let path = path.as_ref();
    if Format::from_path(path)? != Format::Npz {
        let file = path.display().to_string();
        return Err(Error::Checkpoint { file, reason: "does not have the extension .npz".to_owned() });
    }
    let file = Checkpoint::open(path)?;
    names.iter().map(|name| array(&file, name)).collect()
}

fn array(file: &Checkpoint, name: &str) -> Result<Tensor> {
    if let Some(entry) = file.get(name) {
        return Ok(entry.tensor().detach());
    }
    let reason = match file.unusable().iter().find(|member| member.path() == name) {
        Some(member) => format!("`{name}` {}", member.reason()),
        None => {
            let names: Vec<&str> = file.entries().iter().map(checkpoint::Entry::path).collect();
            let hint = nearest::nearest(name, names.iter().copied());
            let hint = hint.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
            format!("has no array `{name}`, only {}{hint}", names.join(", "))
        }
    };
    Err(Error::Checkpoint { file: file.origin().to_owned(), reason })
}
