//! `(32, (5, 5), pad = (2, 2))`: values are raw tokens, so that half-typed ones still reach the editor.

use proc_macro2::{Span, TokenStream, TokenTree};
use syn::ext::IdentExt;

use super::Parser;
use crate::network::ast::{Arguments, Opt};
use crate::network::cursor::Cursor;

impl Parser<'_> {
    /// Everything up to the end; `span` is that of the parentheses.
    pub(super) fn arguments(&mut self, span: Span) -> Arguments {
        let mut arguments = Arguments { span: Some(span), ..Arguments::default() };
        while !self.cursor.at_end() {
            let start = self.cursor.span();
            if is_option(&self.cursor) {
                let Some(TokenTree::Ident(key)) = self.cursor.next() else { break };
                self.cursor.next();
                let value = take_value(&mut self.cursor);
                if value.is_empty() {
                    self.errors.at_span(key.span(), format!("`{key}` has no value; write `{key} = ..`"));
                    continue;
                }
                match arguments.options.iter().find(|other| other.key.unraw() == key.unraw()) {
                    Some(first) => {
                        self.errors.at_span(key.span(), format!("option `{key}` is given twice"));
                        self.errors.at_span(first.key.span(), format!("`{key}` is given here first"));
                    }
                    None => arguments.options.push(Opt { key, value }),
                }
            } else {
                let value = take_value(&mut self.cursor);
                if let (Some(last), false) = (arguments.options.last(), value.is_empty()) {
                    let text = format!(
                        "positional arguments come before options; move this before `{} = ..` or make it an option",
                        last.key
                    );
                    self.errors.over(&value.clone().into_iter().collect::<Vec<_>>(), text);
                    arguments.positional.push(value);
                } else if value.is_empty() {
                    self.errors.at_span(start, "expected an argument before this comma");
                } else {
                    arguments.positional.push(value);
                }
            }
            self.cursor.next();
        }
        arguments
    }
}

/// `key =`, and not `a == b`, `a => b`.
fn is_option(cursor: &Cursor) -> bool {
    cursor.ident_at(0).is_some()
        && matches!(cursor.punct_at(1).as_str(), "=" | "=-" | "=&" | "=!" | "=*" | "=|" | "=||")
}

/// Everything up to the comma that ends this value. Commas between the bars of a closure or in `::<A, B>` do
/// not end it.
fn take_value(cursor: &mut Cursor) -> TokenStream {
    let mut value = Vec::new();
    let mut in_bars = false;
    let mut generics = 0usize;
    while let Some(token) = cursor.peek() {
        if let TokenTree::Punct(punct) = token {
            match punct.as_char() {
                ',' if !in_bars && generics == 0 => break,
                '|' if in_bars => in_bars = false,
                '|' if starts_closure(&value) && !cursor.punct_at(0).starts_with("||") => in_bars = true,
                '<' if generics > 0 || ends_with_path_sep(&value) => generics += 1,
                '>' if generics > 0 && !ends_with(&value, '-') => generics -= 1,
                _ => {}
            }
        }
        value.extend(cursor.take(1));
    }
    value.into_iter().collect()
}

/// Whether a `|` after these tokens opens a closure's parameters.
fn starts_closure(before: &[TokenTree]) -> bool {
    match before.last() {
        None => true,
        Some(TokenTree::Ident(ident)) => ident == "move" || ident == "return",
        Some(TokenTree::Punct(punct)) => "=,".contains(punct.as_char()),
        Some(_) => false,
    }
}

fn ends_with(tokens: &[TokenTree], char: char) -> bool {
    matches!(tokens.last(), Some(TokenTree::Punct(punct)) if punct.as_char() == char)
}

fn ends_with_path_sep(tokens: &[TokenTree]) -> bool {
    ends_with(tokens, ':') && tokens.len() > 1 && ends_with(&tokens[..tokens.len() - 1], ':')
}
