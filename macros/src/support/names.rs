//! Names that become parts of a path.

/// The reason why no file format could store `path`.
pub(crate) fn fault(path: &str) -> Option<&'static str> {
    if path.split('/').any(|part| matches!(part, "." | "..")) {
        Some("a name must have no part `.` or `..`, which means a folder in a file")
    } else if path.contains('\0') {
        Some("a name must have no NUL character, which no file can hold")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_that_mean_folders_are_refused() {
        for path in ["..", "a b/../c", "./a", "a/.", "a\0b"] {
            assert!(fault(path).is_some(), "{path}");
        }
        for path in ["a", "a b", "a..b/.c", "...", "a/b"] {
            assert_eq!(fault(path), None, "{path}");
        }
    }
}
