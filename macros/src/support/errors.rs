//! Collects errors, so that one build shows all of them.

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::ToTokens;

/// The errors met so far.
#[derive(Default)]
pub(crate) struct Errors {
    found: Option<syn::Error>,
    unclear: bool,
}

impl Errors {
    /// Adds `message` under `tokens`.
    pub(crate) fn at(&mut self, tokens: impl ToTokens, message: impl std::fmt::Display) {
        self.push(syn::Error::new_spanned(tokens, message));
    }

    /// Adds `message` at `span`.
    pub(crate) fn at_span(&mut self, span: Span, message: impl std::fmt::Display) {
        self.push(syn::Error::new(span, message));
    }

    /// Adds `message` under several tokens.
    pub(crate) fn over(&mut self, tokens: &[TokenTree], message: impl std::fmt::Display) {
        self.at(tokens.iter().cloned().collect::<TokenStream>(), message);
    }

    /// As [`at_span`](Self::at_span), but the code around the mistake is unclear as well.
    pub(crate) fn unclear_at(&mut self, span: Span, message: impl std::fmt::Display) {
        self.unclear = true;
        self.at_span(span, message);
    }

    /// Whether expanding the code around a mistake would only add misleading errors.
    pub(crate) fn unclear(&self) -> bool {
        self.unclear
    }

    pub(crate) fn push(&mut self, error: syn::Error) {
        match &mut self.found {
            Some(all) => all.combine(error),
            none => *none = Some(error),
        }
    }

    /// The value of `result`; an error is recorded.
    pub(crate) fn keep<T>(&mut self, result: syn::Result<T>) -> Option<T> {
        result.map_err(|error| self.push(error)).ok()
    }

    /// All errors as one, or `None` if there was none.
    pub(crate) fn finish(self) -> Option<syn::Error> {
        self.found
    }
}

/// ``"expected one of `a`, `b`"``, preceded by the name that is most similar to `wrong`, if there is one.
pub(crate) fn expected<'a>(wrong: &str, names: impl IntoIterator<Item = &'a str> + Clone) -> String {
    let list = names.clone().into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>();
    let list = match list.as_slice() {
        [only] => format!("expected {only}"),
        several => format!("expected one of {}", several.join(", ")),
    };
    match nearest(wrong, names) {
        Some(near) => format!("did you mean `{near}`? {list}"),
        None => list,
    }
}

/// The name that was most likely meant by `wrong`.
pub(crate) fn nearest<'a>(wrong: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let longest_distance = (wrong.chars().count() / 3).max(1);
    names
        .into_iter()
        .map(|name| (distance(&wrong.to_lowercase(), &name.to_lowercase()), name))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, _)| *distance <= longest_distance)
        .map(|(_, name)| name)
}

/// Edits between two words; swapping two neighbours is one edit.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.chars().collect::<Vec<_>>(), b.chars().collect::<Vec<_>>());
    let mut before_last = Vec::new();
    let mut last = (0..=b.len()).collect::<Vec<_>>();
    for (i, from) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, to) in b.iter().enumerate() {
            let mut edits = (last[j] + usize::from(from != to)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *from == b[j - 1] && a[i - 1] == *to {
                edits = edits.min(before_last[j - 1] + 1);
            }
            row.push(edits);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found() {
        assert_eq!(nearest("defualt", ["default", "into", "maybe"]), Some("default"));
        assert_eq!(nearest("conact", ["concat", "add"]), Some("concat"));
        assert_eq!(nearest("stem", ["concat", "add"]), None);
        assert_eq!(nearest("w", ["W", "b"]), Some("W"));
        assert_eq!(nearest("weights", ["W", "b"]), None);
        assert_eq!(nearest("", [""; 0]), None);
    }

    #[test]
    fn expected_names_are_listed() {
        assert_eq!(expected("x", ["into"]), "expected `into`");
        assert_eq!(
            expected("scop", ["scope", "params"]),
            "did you mean `scope`? expected one of `scope`, `params`"
        );
    }
}
