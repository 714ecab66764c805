//! Atomic replacement of files.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::{Fault, Outcome};

/// Lets `write` fill a file beside `target`, and then replaces the target by it.
///
/// The old file stays until the rename; on an error, the new one is removed. The permissions are those of the
/// replaced file, or else those of a newly created one, and nobody else may read the file earlier.
pub(super) fn replace(target: &Path, write: impl FnOnce(&mut NamedTempFile) -> Outcome<()>) -> Outcome<()> {
    let target = resolve(target)?;
    let folder = match target.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let old = fs::metadata(&target).ok().map(|old| old.permissions());
    let mut builder = tempfile::Builder::new();
    builder.prefix(".layerfn-").suffix(".tmp");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // The umask applies, as to any new file. The writer needs access.
        let mode = old.as_ref().map_or(0o666, |old| old.mode() & 0o777 | 0o600);
        builder.permissions(fs::Permissions::from_mode(mode));
    }
    let mut temporary = builder.tempfile_in(folder)?;
    write(&mut temporary)?;
    if let Some(old) = old {
        temporary.as_file().set_permissions(old)?;
    }
    temporary.as_file().sync_all()?;
    temporary.persist(&target).map_err(|error| error.error)?;
    // The rename is only durable once the folder is synced; where folders cannot be opened, nothing can be
    // done.
    if let Ok(folder) = File::open(folder) {
        let _ = folder.sync_all();
    }
    Ok(())
}

/// Opens an ordinary file. Opening a pipe would block until another process writes to it.
pub(super) fn open(path: &Path) -> Outcome<File> {
    match fs::metadata(path)? {
        metadata if metadata.is_file() => Ok(File::open(path)?),
        metadata => Err(not_a_file(&metadata)),
    }
}

fn not_a_file(metadata: &fs::Metadata) -> Fault {
    let kind = if metadata.is_dir() { io::ErrorKind::IsADirectory } else { io::ErrorKind::InvalidInput };
    Fault::Io(io::Error::new(kind, "it is not an ordinary file"))
}

/// The target of a symbolic link, whether it exists or not: the link stays, as when a file is opened for
/// writing.
fn resolve(target: &Path) -> Outcome<PathBuf> {
    match fs::metadata(target) {
        Ok(metadata) if metadata.is_file() => Ok(fs::canonicalize(target)?),
        Ok(metadata) => Err(not_a_file(&metadata)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut target = target.to_owned();
            // Circular links are another error.
            while let Ok(next) = fs::read_link(&target) {
                target = target.parent().map(|folder| folder.join(&next)).unwrap_or(next);
            }
            Ok(target)
        }
        Err(error) => Err(error.into()),
    }
}
