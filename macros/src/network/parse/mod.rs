//! Parses tokens to a syntax tree. Mistakes are recorded and parsing continues, so that all of them are shown
//! at once and an editor still sees the stages around a half-typed one.
//!
//! The grammar is recursive: a stage may contain a chain. So the files below share one [`Parser`], to which
//! each adds its rules.

mod arguments;
mod chain;
mod control;
mod item;
mod join;
mod label;
mod stage;

use proc_macro2::{Delimiter, Group, Ident, Span, TokenStream, TokenTree};

use super::ast::{Body, Chain, Input, Network};
use super::cursor::Cursor;
use crate::support::errors::Errors;

pub(super) fn parse(input: TokenStream, errors: &mut Errors) -> Input {
    Parser { cursor: Cursor::new(input, Span::call_site()), errors }.input()
}

/// A position in the tokens, and the mistakes found so far.
struct Parser<'e> {
    cursor: Cursor,
    errors: &'e mut Errors,
}

impl Parser<'_> {
    /// A parser of the content of `group`.
    fn within(&mut self, group: &Group) -> Parser<'_> {
        Parser { cursor: Cursor::of_group(group), errors: self.errors }
    }

    fn input(&mut self) -> Input {
        const ITEM: [&str; 6] = ["pub", "fn", "async", "const", "unsafe", "extern"];
        if self.cursor.char_at(0) == Some('#') || ITEM.iter().any(|word| self.cursor.keyword_at(0, word)) {
            return Input::Items(self.items());
        }
        let moved = self.cursor.ident_at(0).filter(|ident| *ident == "move").cloned();
        if moved.is_some() {
            self.cursor.next();
        }
        let start = self.cursor.span();
        // `network! { move { a -> b } }` reads naturally; `network! { { a -> b } }` is a block.
        let braces = self.cursor.group_at(0, Delimiter::Brace).cloned();
        let body = match braces.filter(|_| moved.is_some() && self.cursor.peek_at(1).is_none()) {
            Some(group) => self.within(&group).body(),
            None => self.body(),
        };
        Input::Expression(Network { moved, start, body })
    }

    /// Everything up to the end.
    fn body(&mut self) -> Body {
        let inputs = self.inputs();
        if self.errors.unclear() {
            return Body { inputs, chain: Chain { steps: Vec::new() } };
        }
        let chain = self.angled_chain();
        if !self.cursor.at_end() {
            let span = self.cursor.span();
            let what = match self.cursor.char_at(0) {
                Some('>') => "this `>` has no `<` to close; a network is written `a -> b` or `< a -> b >`",
                Some(',') => {
                    "branches need a join: `add { a, b }`, `mul { a, b }`, `concat(axis) { a, b }` or `tuple { a, b }`"
                }
                _ => "nothing may follow the `>` that closes the network; an arrow is written `->`",
            };
            self.errors.at_span(span, what);
            self.cursor.rest();
        }
        Body { inputs, chain }
    }

    /// `|x, y|`
    fn inputs(&mut self) -> Vec<Ident> {
        let mut inputs = Vec::new();
        if self.cursor.char_at(0) != Some('|') {
            return inputs;
        }
        let opening = self.cursor.take(1);
        loop {
            match self.cursor.next() {
                Some(TokenTree::Ident(ident)) => inputs.push(ident),
                Some(TokenTree::Punct(punct)) if punct.as_char() == '|' => break,
                Some(TokenTree::Punct(punct)) if punct.as_char() == ',' => {}
                Some(_) => {
                    let text = "the inputs of a network are plain names, as in `|x, y|`; to use a closure as a stage, put \
                                it in parentheses: `(|x: &Tensor| x * 2.0)`";
                    self.errors.unclear_at(opening[0].span(), text);
                    self.cursor.rest();
                    return inputs;
                }
                None => {
                    self.errors.over(&opening, "this `|` is never closed; inputs are written `|x, y|`");
                    return inputs;
                }
            }
        }
        if inputs.is_empty() {
            self.errors.over(&opening, "name at least one input, as in `|x|`, or remove the bars");
        }
        inputs
    }
}
