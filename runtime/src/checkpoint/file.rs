//! Replacing a file as a whole.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::{Fault, Outcome};

/// Lets `write` fill a file beside `target`, then puts it in the target's place.
///
/// Until the rename the old file stands; on an error the new one is removed. The file's permissions are those of the
/// file that it replaces, or those that creating it would have given.
pub(super) fn replace(target: &Path, write: impl FnOnce(&mut NamedTempFile) -> Outcome<()>) -> Outcome<()> {
    let target = resolve(target)?;
    let folder = match target.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(".layerfn-").suffix(".tmp");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // What the umask leaves of it is what creating a file gives; temporary files are private by default.
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    let mut temporary = builder.tempfile_in(folder)?;
    write(&mut temporary)?;
    if let Ok(old) = fs::metadata(&target) {
        temporary.as_file().set_permissions(old.permissions())?;
    }
    temporary.as_file().sync_all()?;
    temporary.persist(&target).map_err(|error| error.error)?;
    // The rename itself is safe on disk once the folder is; where folders cannot be opened, nothing can be done.
    if let Ok(folder) = File::open(folder) {
        let _ = folder.sync_all();
    }
    Ok(())
}

/// The file that a symbolic link stands for: the link stays, as when a file is opened for writing.
fn resolve(target: &Path) -> Outcome<PathBuf> {
    match fs::metadata(target) {
        Ok(metadata) if metadata.is_file() => Ok(fs::canonicalize(target)?),
        Ok(_) => Err(Fault::Io(io::Error::new(io::ErrorKind::AlreadyExists, "it is not an ordinary file"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(target.to_owned()),
        Err(error) => Err(error.into()),
    }
}
