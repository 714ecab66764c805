//! Pieces of Rust code, in which values and paths stand as marks until it is known what they are called.

/// What flows through the chain.
pub(super) const FLOW: char = '\u{1}';
const VALUE: [char; 2] = ['\u{2}', '\u{3}'];
const PATH: [char; 2] = ['\u{4}', '\u{5}'];
/// The number of the round, in paths.
pub(super) const ROUND: char = '\u{6}';

/// A value by its place.
pub(super) fn value(place: usize) -> String {
    format!("{}{place}{}", VALUE[0], VALUE[1])
}

/// The path of a parameter.
pub(super) fn path(path: &str) -> String {
    format!("{}{path}{}", PATH[0], PATH[1])
}

/// Whether a name could be taken for a mark.
pub(super) fn has_marks(name: &str) -> bool {
    name.contains(|c: char| ('\u{1}'..='\u{6}').contains(&c))
}

/// The code, with names in place of the marks.
pub(super) fn rendered(text: &str, flow: &str, name: &dyn Fn(usize) -> String) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find([FLOW, VALUE[0], PATH[0]]) {
        let (before, marked) = rest.split_at(at);
        code.push_str(before);
        let close = match marked.chars().next() {
            Some(FLOW) => {
                code.push_str(flow);
                rest = &marked[1..];
                continue;
            }
            Some(open) if open == VALUE[0] => VALUE[1],
            _ => PATH[1],
        };
        let end = marked.find(close).unwrap_or(marked.len() - 1);
        let inner = &marked[1..end];
        match close == VALUE[1] {
            true => code.push_str(&inner.parse().map_or_else(|_| String::new(), name)),
            false => code.push_str(&literal(inner)),
        }
        rest = &marked[end + 1..];
    }
    code + rest
}

/// The paths that stand in the code.
pub(super) fn paths(text: &str) -> impl Iterator<Item = &str> {
    text.split(PATH[0]).skip(1).filter_map(|piece| piece.split(PATH[1]).next())
}

/// The code with other paths.
pub(super) fn with_paths(text: &str, mut other: impl FnMut(&str) -> String) -> String {
    let mut pieces = text.split(PATH[0]);
    let mut code = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (inner, rest) = piece.split_once(PATH[1]).unwrap_or((piece, ""));
        code.push_str(&path(&other(inner)));
        code.push_str(rest);
    }
    code
}

/// A string that may have the number of a round in it.
pub(super) fn literal(path: &str) -> String {
    if !path.contains(ROUND) {
        return format!("{path:?}");
    }
    let escaped = path.replace('{', "{{").replace('}', "}}");
    format!("&format!({:?})", escaped.replace(ROUND, "{i}"))
}

/// A number as short as the file has it, which knows `f32` only.
pub(super) fn number(number: f64) -> String {
    let single = number as f32;
    match number {
        _ if number.is_nan() => "f64::NAN".to_owned(),
        _ if number == f64::INFINITY => "f64::INFINITY".to_owned(),
        _ if number == f64::NEG_INFINITY => "f64::NEG_INFINITY".to_owned(),
        _ if f64::from(single).to_bits() == number.to_bits() => format!("{single:?}"),
        _ => format!("{number:?}"),
    }
}

fn joined<T: ToString>(values: &[T]) -> String {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// `[1, 2]`
pub(super) fn list<T: ToString>(values: &[T]) -> String {
    format!("[{}]", joined(values))
}

/// `(1, 2)`, or `1`: what `Dims` and `PerAxis` are made of.
pub(super) fn sizes<T: ToString>(values: &[T]) -> String {
    match values {
        [] => "[0; 0]".to_owned(),
        [one] => one.to_string(),
        values if values.len() <= 4 => format!("({})", joined(values)),
        values => list(values),
    }
}

/// What `Axes` are made of.
pub(super) fn axes(axes: &[i64]) -> String {
    match axes {
        [] => "Vec::<i64>::new()".to_owned(),
        [one] => one.to_string(),
        axes => list(axes),
    }
}

/// `text` as an identifier of lower case.
pub(super) fn identifier(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut found = String::new();
    for (n, &c) in chars.iter().enumerate() {
        let is_lower =
            |place: Option<usize>| place.and_then(|n| chars.get(n)).is_some_and(char::is_ascii_lowercase);
        match c {
            'A'..='Z' => {
                if is_lower(n.checked_sub(1)) && is_lower(Some(n + 1)) {
                    found.push('_');
                }
                found.push(c.to_ascii_lowercase());
            }
            'a'..='z' | '0'..='9' => found.push(c),
            _ if found.is_empty() || found.ends_with('_') => {}
            _ => found.push('_'),
        }
    }
    let found = found.trim_end_matches('_');
    match found.chars().next() {
        None => "value".to_owned(),
        Some('0'..='9') => format!("v{found}"),
        Some(_) => found.to_owned(),
    }
}

/// Words that no variable and no function can have for a name.
const WORDS: [&str; 48] = [
    "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "crate", "do", "dyn",
    "else", "enum", "extern", "false", "final", "fn", "for", "gen", "if", "impl", "in", "let", "loop",
    "macro", "match", "mod", "move", "mut", "override", "priv", "pub", "ref", "return", "self", "static",
    "struct", "super", "trait", "true", "try", "type", "typeof", "unsafe", "use", "where", "while",
];

pub(super) fn is_word(name: &str) -> bool {
    WORDS.contains(&name) || name == "yield" || name == "_"
}

/// Whether `label:` may stand before a stage.
pub(super) fn is_label(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !is_word(text)
}
