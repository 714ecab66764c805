//! Patterns of paths: `*` and `?` within a component, `**` for any number of components.
//!
//! Paths may come from untrusted files. So patterns become regular expressions, for an engine that takes linear
//! time in the length of the path.

use regex::{Regex, RegexBuilder};

/// A pattern. Each wildcard matches as much as the rest allows.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    text: String,
    regex: Regex,
}

impl Pattern {
    pub(crate) fn new(pattern: &str) -> Self {
        let regex =
            translated(pattern, &wildcards(pattern)).expect("no pattern ends in a part that may be missing");
        Self { text: pattern.to_owned(), regex: compiled("(?s)", &regex) }
    }

    pub(crate) fn matches(&self, path: &str) -> bool {
        self.regex.is_match(path)
    }

    /// The texts that the wildcards match, in order, if the pattern matches `path`.
    pub(crate) fn captures<'p>(&self, path: &'p str) -> Option<Vec<&'p str>> {
        captures(&self.regex, path)
    }

    /// Fills in the wildcards of the pattern; those without a capture become empty. An empty wildcard that is a
    /// whole component is removed together with a slash: `a/**/b` becomes `a/b`, and `**/b` becomes `b`.
    pub(crate) fn filled(&self, captures: &[&str]) -> String {
        let (mut filled, mut rest, mut captures) = (String::new(), self.text.as_str(), captures.iter());
        while let Some((before, _, after)) = split(rest) {
            filled.push_str(before);
            rest = after;
            let taken = captures.next().copied().unwrap_or_default();
            if taken.is_empty() && ends_part(&filled) && starts_part(rest) {
                match rest.strip_prefix('/') {
                    Some(after) => rest = after,
                    None => drop(filled.pop()),
                }
            }
            filled.push_str(taken);
        }
        filled + rest
    }
}

/// Rules that rename paths. The first one that matches counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Renames(Vec<Rename>);

#[derive(Clone, Debug)]
struct Rename {
    from: Pattern,
    to: Pattern,
    /// Regular expressions for the results of `to`, greedy and lazy; `None` if a regular expression cannot
    /// express them.
    made: Option<[Regex; 2]>,
    /// Whether the captures of `from` can be recovered from the result of `to`.
    is_told: bool,
}

/// The possible origins of a path under a rule.
enum Origin {
    None,
    One(String),
    Several,
}

impl Renames {
    pub(crate) fn push(&mut self, from: &str, to: &str) {
        let runs = wildcards(from);
        let made = translated(to, &runs).map(|regex| ["(?s)", "(?sU)"].map(|flags| compiled(flags, &regex)));
        let is_told = runs.len() <= wildcards(to).len();
        self.0.push(Rename { from: Pattern::new(from), to: Pattern::new(to), made, is_told });
    }

    /// The name of `path` after the first rule that matches it.
    pub(crate) fn target(&self, path: &str) -> String {
        let renamed = self.0.iter().find_map(|rule| Some(rule.to.filled(&rule.from.captures(path)?)));
        renamed.unwrap_or_else(|| path.to_owned())
    }

    /// Whether some path that is `selected` may be renamed to `path`. If there are too many to try, the answer
    /// is yes.
    pub(crate) fn may_make(&self, path: &str, selected: impl Fn(&str) -> bool) -> bool {
        let is_origin = |origin: &str| selected(origin) && self.target(origin) == path;
        is_origin(path)
            || self.0.iter().any(|rule| match rule.origin(path) {
                Origin::None => false,
                Origin::One(origin) => is_origin(&origin),
                Origin::Several => true,
            })
    }
}

impl Rename {
    fn origin(&self, path: &str) -> Origin {
        let Some([longest, shortest]) = &self.made else { return Origin::Several };
        match captures(longest, path) {
            None => Origin::None,
            Some(captured) if self.is_told && Some(&captured) == captures(shortest, path).as_ref() => {
                Origin::One(self.from.filled(&captured))
            }
            Some(_) => Origin::Several,
        }
    }
}

/// The text before the first wildcard of `pattern`, the wildcard, and the text behind it.
fn split(pattern: &str) -> Option<(&str, &str, &str)> {
    let start = pattern.find(['*', '?'])?;
    let length = if pattern[start..].starts_with("**") { 2 } else { 1 };
    Some((&pattern[..start], &pattern[start..start + length], &pattern[start + length..]))
}

/// Whether a component of a path starts after `before`.
fn ends_part(before: &str) -> bool {
    before.is_empty() || before.ends_with('/')
}

/// Whether a component of a path ends before `after`.
fn starts_part(after: &str) -> bool {
    after.is_empty() || after.starts_with('/')
}

/// The texts that a wildcard can match.
#[derive(Clone, Copy)]
struct Run {
    regex: &'static str,
    may_be_empty: bool,
}

impl Run {
    /// For a wildcard without a capture.
    const NOTHING: Self = Self { regex: "", may_be_empty: true };
}

/// The texts that the wildcards of `pattern` can match. Paths have no empty components, so a wildcard that is a
/// whole component matches at least one character, except for `**` with its slash.
fn wildcards(pattern: &str) -> Vec<Run> {
    let (mut runs, mut rest, mut end) = (Vec::new(), pattern, 0);
    while let Some((before, wildcard, after)) = split(rest) {
        end += before.len();
        let whole = ends_part(&pattern[..end]) && starts_part(after);
        runs.push(match wildcard {
            "**" => Run { regex: ".+", may_be_empty: !whole || !after.is_empty() },
            "*" => Run { regex: "[^/]+", may_be_empty: !whole },
            _ => Run { regex: "[^/]", may_be_empty: false },
        });
        end += wildcard.len();
        rest = after;
    }
    runs
}

/// The regular expression for the results of [`Pattern::filled`] for `pattern` and these texts, with a group
/// for each. `None` if a slash would be removed by two components that may both be empty.
fn translated(pattern: &str, runs: &[Run]) -> Option<String> {
    let (mut regex, mut rest, mut end, mut runs) = (String::new(), pattern, 0, runs.iter());
    while let Some((before, wildcard, after)) = split(rest) {
        end += before.len();
        regex.push_str(&regex::escape(before));
        rest = after;
        let whole = ends_part(&pattern[..end]) && starts_part(rest);
        end += wildcard.len();
        let Run { regex: run, may_be_empty } = *runs.next().unwrap_or(&Run::NOTHING);
        match rest.strip_prefix('/') {
            _ if !may_be_empty => regex.push_str(&format!("({run})")),
            _ if !whole => regex.push_str(&format!("({run})?")),
            Some(after) => {
                regex.push_str(&format!("(?:({run})/)?"));
                (rest, end) = (after, end + 1);
            }
            None if regex.is_empty() => regex.push_str(&format!("({run})?")),
            None if regex.ends_with('/') => {
                regex.pop();
                regex.push_str(&format!("(?:/({run}))?"));
            }
            None => return None,
        }
    }
    Some(regex + &regex::escape(rest))
}

fn compiled(flags: &str, regex: &str) -> Regex {
    let whole = format!("{flags}\\A(?:{regex})\\z");
    let regex = RegexBuilder::new(&whole).size_limit(usize::MAX).build();
    regex.expect("escaped text and groups are a regular expression")
}

fn captures<'p>(regex: &Regex, path: &'p str) -> Option<Vec<&'p str>> {
    let groups = regex.captures(path)?;
    Some(groups.iter().skip(1).map(|group| group.map_or("", |group| group.as_str())).collect())
}

#[cfg(test)]
mod tests {
    use super::{Pattern, Renames};

    #[test]
    fn patterns_match_parts_of_paths() {
        for (pattern, path, expected) in [
            ("a/b", "a/b", true),
            ("a/b", "a/bc", false),
            ("a/*", "a/b", true),
            ("a/*", "a/b/c", false),
            ("a/**", "a/b/c", true),
            ("a/**", "a", false),
            ("**", "a/b/c", true),
            ("**/W", "W", true),
            ("**/W", "a/b/W", true),
            ("**/W", "a/bW", false),
            ("a/**/W", "a/W", true),
            ("a/**/W", "aW", false),
            ("x**/W", "xa/b/W", true),
            ("x**/W", "xW", false),
            ("**/**", "a", true),
            ("conv?/*", "conv1/W", true),
            ("conv?/*", "conv/W", false),
            ("conv*/W", "conv/W", true),
            ("*é*", "caféz", true),
            ("a.b+(c)[d]\\", "a.b+(c)[d]\\", true),
            ("a.b", "axb", false),
            ("*", "line\nline", true),
            ("**", "line\nline/W", true),
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
            ("**/gamma", "x/**", "gamma", "x"),
            ("**/gamma", "x/**/y", "gamma", "x/y"),
            ("**/gamma", "x**/y", "gamma", "x/y"),
            ("**/a/**", "**/b/**", "a/W", "b/W"),
            ("**/a/**", "**/b/**", "a/a/a/W", "a/a/b/W"),
            ("*/*", "*/x/*/*", "a/b", "a/x/b"),
            ("*b*", "*-*", "abba", "ab-a"),
            ("conv?/*", "c?/conv/*", "conv1/W", "c1/conv/W"),
            ("a", "b", "a", "b"),
        ] {
            let filled = Pattern::new(to).filled(&Pattern::new(from).captures(path).unwrap());
            assert_eq!(filled, expected, "{from} {to} {path}");
        }
    }

    #[test]
    fn no_path_takes_a_pattern_long() {
        // With backtracking, either would practically never end.
        let many = format!("{}b", "*a".repeat(40));
        assert!(!Pattern::new(&many).matches(&"a".repeat(4000)));
        let deep = format!("{}b", "**/".repeat(40));
        assert!(!Pattern::new(&deep).matches(&"a/".repeat(2000)));
    }

    #[test]
    fn a_rule_knows_what_it_makes() {
        for (from, to, selected, path, expected) in [
            ("body/**", "features/**", "body/**", "features/c2/W", true),
            ("body/**", "features/**", "body/c1/**", "features/c2/W", false),
            ("body/**", "features/**", "body/**", "body/c2/W", false),
            ("body/**", "features/**", "head/**", "head/W", true),
            ("**/gamma", "**/scale", "**", "scale", true),
            ("**/gamma", "x/**", "gamma", "x", true),
            ("**/gamma", "x/**", "a/gamma", "x", false),
            ("*/*", "*/**/*", "a/b", "a/b", true),
            // The rest of the origin cannot be recovered.
            ("a/*/W", "W", "a/b/W", "W", true),
            ("a/*/W", "W", "a/b/W", "b", false),
            // Either part may be missing.
            ("**/a/**/b", "**/**", "a/**", "c", true),
        ] {
            let mut renames = Renames::default();
            renames.push(from, to);
            let selected = Pattern::new(selected);
            let may = renames.may_make(path, |path| selected.matches(path));
            assert_eq!(may, expected, "{from} {to} {path}");
        }
    }
}
