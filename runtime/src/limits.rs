//! What a path and a shape may be, in stores and in files: one set of limits, so that what one of them takes the others
//! carry. They lie far above what models have; what goes beyond them is an error or an attack.

use std::borrow::Cow;

/// Bytes of a path.
pub(crate) const MAX_PATH: usize = 4096;

/// Parts of a path.
pub(crate) const MAX_DEPTH: usize = 1000;

/// Axes of a parameter. HDF5 has no more.
pub(crate) const MAX_RANK: usize = 32;

/// No stream of deflate expands more than this.
const DEFLATE: u64 = 1032;

/// The bytes that a file of `length` bytes can unpack to.
pub(crate) fn unpacked(length: u64) -> u64 {
    length.saturating_mul(DEFLATE)
}

/// Says what keeps a path from being saved, as the rest of a sentence.
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

/// A path for messages: the middle of what is long is left out.
pub(crate) fn brief(path: &str) -> Cow<'_, str> {
    brief_within(path, 200)
}

/// Text of about `limit` bytes at most: the middle of what is longer is left out.
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
