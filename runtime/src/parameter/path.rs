//! Paths: the names of scopes and of a parameter, joined by `/`.

use std::iter;

/// The components of a path; empty ones are ignored, so `/a//b/` is `a/b`.
pub(super) fn segments(path: &str) -> impl Iterator<Item = &str> {
    // Every layer calls this with short names, for which `split` is slower.
    let mut rest = path;
    iter::from_fn(move || {
        let start = rest.bytes().position(|byte| byte != b'/')?;
        let behind = &rest[start..];
        let end = behind.bytes().position(|byte| byte == b'/').unwrap_or(behind.len());
        rest = &behind[end..];
        Some(&behind[..end])
    })
}

/// The parent scope and the last component.
pub(super) fn split(path: &str) -> (&str, &str) {
    path.trim_end_matches('/').rsplit_once('/').unwrap_or(("", path.trim_end_matches('/')))
}

pub(crate) fn append(path: &mut String, name: &str) {
    for segment in segments(name) {
        if !path.is_empty() {
            path.push('/');
        }
        path.push_str(segment);
    }
}

pub(crate) fn join(scope: &str, path: &str) -> String {
    let mut joined = String::with_capacity(scope.len() + 1 + path.len());
    append(&mut joined, scope);
    append(&mut joined, path);
    joined
}

/// Whether `path` is the scope or is in it; neither must have empty components.
pub(super) fn is_in(path: &str, scope: &str) -> bool {
    scope.is_empty() || path.strip_prefix(scope).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
