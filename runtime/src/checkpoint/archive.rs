//! What `.nnp` and `.npz` have in common: a zip file of which no member is believed to be small.

use zip::ZipArchive;
use zip::result::ZipError;

use super::h5::DEFLATE_LIMIT;
use super::input::{Input, Source};
use super::{Fault, Outcome};

impl From<ZipError> for Fault {
    fn from(error: ZipError) -> Self {
        match error {
            ZipError::Io(error) => error.into(),
            other => Self::format(other.to_string()),
        }
    }
}

/// Shows `f` each member that is a file: its name, its comment and its content.
pub(super) fn for_each(
    source: &mut dyn Source,
    mut f: impl FnMut(&str, &str, &mut Input<'_>) -> Outcome<()>,
) -> Outcome<()> {
    let length = super::input::length(source)?;
    // What all members may take together: members may share their bytes.
    let mut budget = length.saturating_mul(DEFLATE_LIMIT);
    let mut archive = ZipArchive::new(source)?;
    if archive.has_duplicate_names() {
        // Which of them counts would depend on the reader.
        return Err(Fault::format("two members have the same name"));
    }
    for index in 0..archive.len() {
        let member = archive.by_index(index)?;
        if member.is_dir() {
            continue;
        }
        let (name, comment, size) = (member.name()?.into_owned(), member.comment().to_owned(), member.size());
        budget = budget.checked_sub(size).ok_or_else(|| {
            Fault::format(format!("`{name}`: {size} bytes are more than {length} of a file can unpack to"))
        })?;
        let mut input = Input::new(member, size);
        f(&name, &comment, &mut input).map_err(|fault| fault.within(&format!("`{name}`")))?;
    }
    Ok(())
}
