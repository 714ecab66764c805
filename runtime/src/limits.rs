//! Limits of paths and shapes, in stores and in files: they are the same everywhere, so that every store and
//! file can hold what another can. They are far above what models need; anything larger is an error or an
//! attack.

use std::borrow::Cow;

/// Maximum length of a path in bytes.
pub(crate) const MAX_PATH: usize = 4096;

/// Maximum number of components of a path.
pub(crate) const MAX_DEPTH: usize = 1000;

/// Maximum number of axes of a parameter, as in HDF5.
pub(crate) const MAX_RANK: usize = 32;

/// Maximum expansion of a deflate stream.
const DEFLATE: u64 = 1032;

/// The maximum number of bytes that a file of `length` bytes can unpack to.
pub(crate) fn unpacked(length: u64) -> u64 {
    length.saturating_mul(DEFLATE)
}

/// Says why a path cannot be saved, as the rest of a sentence.
pub(crate) fn check_path(path: &str) -> Result<(), String> {
    let parts = 1 + path.bytes().filter(|&byte| byte == b'/').count();
    match () {
        () if path.len() > MAX_PATH => {
            Err(format!("is {} bytes long; at most {MAX_PATH} are allowed", path.len()))
        }
        () if parts > MAX_DEPTH => Err(format!("has {parts} parts; at most {MAX_DEPTH} are allowed")),
        () if path.split('/').any(|part| matches!(part, "." | "..")) => {
            Err("has a part that means a folder, `.` or `..`".to_owned())
        }
        () if path.contains('\0') => Err("has a NUL character".to_owned()),
        () => Ok(()),
    }
}

/// Says that there are too many axes, as the rest of a sentence.
pub(crate) fn check_rank(rank: usize) -> Result<(), String> {
    match rank {
        0..=MAX_RANK => Ok(()),
        _ => Err(format!("has {rank} axes; at most {MAX_RANK} are allowed")),
    }
}

/// A path for messages: the middle of a long path is omitted.
pub(crate) fn brief(path: &str) -> Cow<'_, str> {
    brief_within(path, 200)
}

/// Text of at most about `limit` bytes: the middle of longer text is omitted.
pub(crate) fn brief_within(text: &str, limit: usize) -> Cow<'_, str> {
    if text.len() <= limit {
        return Cow::Borrowed(text);
    }
    let head = &text[..text.floor_char_boundary(limit / 4 * 3)];
    let tail = &text[text.ceil_char_boundary(text.len() - limit / 4)..];
    Cow::Owned(format!("{head}[..{} bytes..]{tail}", text.len() - head.len() - tail.len()))
}

#[cfg(test)]
mod tests {
    use super::brief_within;

    #[test]
    fn what_is_long_keeps_its_ends() {
        assert_eq!(brief_within("short", 5), "short");
        assert_eq!(brief_within("0123456789", 8), "012345[..2 bytes..]89");
        let shown = brief_within("ééééé", 5);
        assert_eq!(shown, "é[..8 bytes..]");
    }
}
