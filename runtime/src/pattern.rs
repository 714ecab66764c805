//! Patterns of paths: `*` and `?` within a part, `**` for any number of parts.

#[derive(Clone, Debug)]
pub(crate) struct Pattern(String);

impl Pattern {
    pub(crate) fn new(pattern: &str) -> Self {
        Self(pattern.to_owned())
    }

    pub(crate) fn matches(&self, path: &str) -> bool {
        self.captures(path).is_some()
    }

    /// What the wildcards stand for, in order, if the pattern matches `path`.
    pub(crate) fn captures<'p>(&self, path: &'p str) -> Option<Vec<&'p str>> {
        let mut captures = Vec::new();
        matched(&self.0, path, &mut captures).then_some(captures)
    }

    /// The pattern with its wildcards filled; those for which nothing is left become empty.
    pub(crate) fn filled(&self, captures: &[&str]) -> String {
        let (mut filled, mut rest, mut captures) = (String::new(), self.0.as_str(), captures.iter());
        while let Some(start) = rest.find(['*', '?']) {
            filled.push_str(&rest[..start]);
            filled.push_str(captures.next().copied().unwrap_or_default());
            let wildcard = if rest[start..].starts_with("**") { 2 } else { 1 };
            rest = &rest[start + wildcard..];
            // `a/**` of nothing is `a`, not `a/`.
            if filled.ends_with('/') && rest.starts_with('/') {
                filled.pop();
            }
        }
        filled.push_str(rest);
        filled
    }
}

/// Wildcards take the longest run that lets the rest match, so that `**/W` finds `W` too.
fn matched<'p>(pattern: &str, path: &'p str, captures: &mut Vec<&'p str>) -> bool {
    if let Some(rest) = pattern.strip_prefix("**") {
        // With its slash, `**` may stand for no part at all.
        let rest = rest.strip_prefix('/').map_or((rest, false), |rest| (rest, true));
        return run(path, rest.0, captures, |end| !rest.1 || end == 0 || path[..end].ends_with('/'), rest.1);
    }
    match pattern.chars().next() {
        None => path.is_empty(),
        Some('*') => {
            let limit = path.find('/').unwrap_or(path.len());
            run(path, &pattern[1..], captures, |end| end <= limit, false)
        }
        Some(expected) => {
            let Some(found) = path.chars().next() else { return false };
            if expected == '?' && found != '/' {
                captures.push(&path[..found.len_utf8()]);
            } else if expected != found {
                return false;
            }
            let before = captures.len();
            let rest = matched(&pattern[expected.len_utf8()..], &path[found.len_utf8()..], captures);
            if !rest {
                captures.truncate(before - usize::from(expected == '?'));
            }
            rest
        }
    }
}

/// Tries each length of a wildcard, from the longest.
fn run<'p>(
    path: &'p str,
    rest: &str,
    captures: &mut Vec<&'p str>,
    allowed: impl Fn(usize) -> bool,
    with_slash: bool,
) -> bool {
    let before = captures.len();
    for end in (0..=path.len()).rev().filter(|&end| path.is_char_boundary(end) && allowed(end)) {
        let taken = &path[..end];
        captures.push(if with_slash { taken.strip_suffix('/').unwrap_or(taken) } else { taken });
        if matched(rest, &path[end..], captures) {
            return true;
        }
        captures.truncate(before);
    }
    false
}

#[cfg(test)]
mod tests {
    use super::Pattern;

    #[test]
    fn patterns_match_parts_of_paths() {
        for (pattern, path, expected) in [
            ("a/b", "a/b", true),
            ("a/b", "a/bc", false),
            ("a/*", "a/b", true),
            ("a/*", "a/b/c", false),
            ("a/**", "a/b/c", true),
            ("**", "a/b/c", true),
            ("**/W", "W", true),
            ("**/W", "a/b/W", true),
            ("**/W", "a/bW", false),
            ("a/**/W", "a/W", true),
            ("conv?/*", "conv1/W", true),
            ("conv?/*", "conv/W", false),
            ("*é*", "caféz", true),
        ] {
            assert_eq!(Pattern::new(pattern).matches(path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn wildcards_are_carried_over() {
        for (from, to, path, expected) in [
            ("old/**", "new/**", "old/a/W", "new/a/W"),
            ("**/gamma", "**/scale", "a/bn/gamma", "a/bn/scale"),
            ("**/gamma", "**/scale", "gamma", "scale"),
            ("conv?/*", "c?/conv/*", "conv1/W", "c1/conv/W"),
            ("a", "b", "a", "b"),
        ] {
            let filled = Pattern::new(to).filled(&Pattern::new(from).captures(path).unwrap());
            assert_eq!(filled.trim_start_matches('/'), expected, "{from} {to} {path}");
        }
    }
}
