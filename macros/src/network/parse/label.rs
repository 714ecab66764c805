//! `c1:`, `block[i]:`, `shared c1:`, `frozen c1:`

use proc_macro2::{Delimiter, Group, Span, TokenStream, TokenTree};

use super::Parser;
use crate::network::ast::Label;

/// Keywords before a label.
const MARKS: [&str; 2] = ["shared", "frozen"];

impl Parser<'_> {
    /// `name:`, `name[index]:`, `shared name:`, `frozen name:`
    pub(super) fn label(&mut self) -> Option<Label> {
        let n_marks = (0..).take_while(|&at| !self.at_label(at) && self.at_mark(at)).count();
        if !self.at_label(n_marks) {
            self.refuse_label(n_marks);
            return None;
        }
        let marks = self.cursor.take(n_marks);
        let [shared, frozen] = MARKS.map(|word| self.mark(&marks, word));
        let Some(TokenTree::Ident(name)) = self.cursor.next() else { return None };
        let mut index = self.cursor.group_at(0, Delimiter::Bracket).map(Group::stream);
        if index.is_some() {
            let brackets = self.cursor.take(1);
            index = index.filter(|index| !index.is_empty());
            if index.is_none() {
                self.errors.over(&brackets, format!("the index is missing: `{name}[i]: ..`"));
            }
        }
        self.cursor.next();
        Some(Label { shared, frozen, name, index })
    }

    /// Whether `name:` or `name[index]:` stands `ahead`.
    fn at_label(&self, ahead: usize) -> bool {
        let indexed = usize::from(self.cursor.group_at(ahead + 1, Delimiter::Bracket).is_some());
        self.cursor.ident_at(ahead).is_some_and(|ident| ident != "_")
            && self.cursor.colon_at(ahead + 1 + indexed)
    }

    fn at_mark(&self, ahead: usize) -> bool {
        MARKS.iter().any(|word| self.cursor.keyword_at(ahead, word))
    }

    /// Whether `word` is one of the marks.
    fn mark(&mut self, marks: &[TokenTree], word: &str) -> bool {
        let found: Vec<Span> =
            marks.iter().filter(|mark| mark.to_string() == word).map(TokenTree::span).collect();
        if let [_, again, ..] = found[..] {
            self.errors.at_span(again, format!("`{word}` is given twice"));
        }
        !found.is_empty()
    }

    /// Reports and skips tokens that look like a label or one of its keywords, but are not.
    fn refuse_label(&mut self, n_marks: usize) {
        let lacks_label = match self.cursor.peek_at(n_marks) {
            Some(TokenTree::Ident(ident)) => ident != "as",
            Some(TokenTree::Group(group)) => group.delimiter() == Delimiter::Brace,
            Some(TokenTree::Literal(_)) => true,
            _ => false,
        };
        if n_marks > 0 && lacks_label {
            let marks = self.cursor.take(n_marks);
            let word = &marks[0];
            self.errors.over(&marks, format!("expected a label after `{word}`, as in `{word} name: ..`"));
        }
        let mut length = 0;
        loop {
            match self.cursor.peek_at(length) {
                Some(_) if length > 0 && self.cursor.colon_at(length) => break,
                Some(TokenTree::Punct(punct)) if "-.'+".contains(punct.as_char()) => {
                    if self.cursor.char_at(length + 1) == Some('>') {
                        return;
                    }
                    length += 1;
                }
                Some(TokenTree::Ident(_) | TokenTree::Literal(_)) if length < 6 => length += 1,
                _ => return,
            }
        }
        let tokens = self.cursor.take(length);
        self.cursor.next();
        let written = tokens.iter().cloned().collect::<TokenStream>().to_string().replace(' ', "");
        self.errors.over(
            &tokens,
            format!("`{written}` is not a label; a label is an identifier, such as `{}`", as_ident(&written)),
        );
    }
}

/// The identifier that looks most like `text`.
fn as_ident(text: &str) -> String {
    let words: Vec<&str> =
        text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty()).collect();
    let ident = words.join("_");
    if ident.is_empty() || ident.starts_with(|c: char| c.is_numeric()) || ident == "_" {
        format!("stage{}", ident.trim_start_matches('_'))
    } else {
        ident
    }
}
