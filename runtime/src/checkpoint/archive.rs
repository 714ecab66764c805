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
            // Packed in a way that is not unpacked here, or encrypted.
            ZipError::UnsupportedArchive(reason) => Self::unusable(format!("cannot be unpacked: {reason}")),
            other => Self::format(other.to_string()),
        }
    }
}

/// A member of an archive that is a file.
pub(super) struct Member<'a, 'b> {
    archive: &'a mut ZipArchive<&'b mut dyn Source>,
    index: usize,
    /// What this member and those after it may still unpack to.
    budget: &'a mut u64,
    pub(super) name: String,
    pub(super) comment: String,
    pub(super) size: u64,
}

impl Member<'_, '_> {
    /// Shows `f` the content, then reads what `f` has left of it: only its end tells whether it is damaged.
    pub(super) fn read<R>(&mut self, f: impl FnOnce(&mut Input<'_>) -> Outcome<R>) -> Outcome<R> {
        let size = self.size;
        *self.budget = self.budget.checked_sub(size).ok_or_else(|| {
            Fault::format(format!("{size} bytes are more than a file of this length can unpack to"))
        })?;
        let mut input = Input::new(self.archive.by_index(self.index)?, size);
        let found = f(&mut input);
        match found {
            Ok(_) => input.finish()?,
            // A sound one.
            Err(Fault::Unusable(_)) => input.skip(input.remaining()).and_then(|()| input.finish())?,
            Err(_) => {}
        }
        found
    }
}

/// Shows `f` each member that is a file.
pub(super) fn for_each(
    source: &mut dyn Source,
    mut f: impl FnMut(&mut Member<'_, '_>) -> Outcome<()>,
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
        let member = archive.by_index_raw(index)?;
        if member.is_dir() {
            continue;
        }
        let (name, comment, size) = (member.name()?.into_owned(), member.comment().to_owned(), member.size());
        drop(member);
        let mut member = Member { archive: &mut archive, index, budget: &mut budget, name, comment, size };
        f(&mut member).map_err(|fault| fault.within(&format!("`{}`", member.name)))?;
    }
    Ok(())
}
