//! `c1: `, `block[i]: `, `shared c1: `

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

use super::Parser;
use crate::network::ast::Label;

impl Parser<'_> {
    /// `name:`, `name[index]:`, `shared name:`
    pub(super) fn label(&mut self) -> Option<Label> {
        let is_label = |at: usize| {
            let indexed = usize::from(self.cursor.group_at(at + 1, Delimiter::Bracket).is_some());
            self.cursor.ident_at(at).is_some_and(|ident| ident != "_")
                && self.cursor.colon_at(at + 1 + indexed)
        };
        let shared = !is_label(0) && self.cursor.keyword_at(0, "shared") && is_label(1);
        if shared {
            self.cursor.next();
        } else if !is_label(0) {
            self.refuse_label();
            return None;
        }
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
        Some(Label { shared, name, index })
    }

    /// Notes and skips something before a `:` that is no identifier.
    fn refuse_label(&mut self) {
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
            format!("`{written}` is no label: a label is an identifier, such as `{}`", as_ident(&written)),
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
