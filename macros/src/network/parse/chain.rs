//! `a -> b -> c`, with or without `< >` around it.

use proc_macro2::{Delimiter, Ident, TokenTree};

use super::Parser;
use crate::network::ast::{Chain, Step};

impl Parser<'_> {
    /// A chain with or without `< >` around it.
    pub(super) fn angled_chain(&mut self) -> Chain {
        if self.cursor.char_at(0) != Some('<') || self.cursor.punct_at(0).starts_with("<-") {
            return self.chain(false);
        }
        let opening = self.cursor.take(1);
        let chain = self.chain(true);
        if self.cursor.char_at(0) == Some('>') {
            self.cursor.next();
        } else if self.cursor.at_end() {
            self.errors.over(&opening, "this `<` is never closed; end the network with `>`, or remove both");
        }
        chain
    }

    /// Steps with arrows between them, up to a `,`, the end, or the `>` of `angled`.
    fn chain(&mut self, angled: bool) -> Chain {
        let mut steps = Vec::new();
        if self.cursor.at_arrow() {
            let arrow = self.cursor.take(2);
            self.errors.over(&arrow, "a network starts with a stage, not with `->`");
        }
        if self.at_chain_end(angled) {
            self.errors.at_span(
                self.cursor.span(),
                "expected a stage, such as `affine(10)`; `_` passes its input on unchanged",
            );
            return Chain { steps };
        }
        loop {
            steps.push(self.step());
            if self.at_chain_end(angled) {
                break;
            }
            let arrow = self.arrow();
            if self.at_chain_end(angled) {
                self.errors.over(&arrow, "nothing follows this arrow; write a stage after it or remove it");
                break;
            }
        }
        Chain { steps }
    }

    fn at_chain_end(&self, angled: bool) -> bool {
        match self.cursor.char_at(0) {
            Some(',') => true,
            // `>>` followed by something is meant as an arrow; the caller reports a `>` that closes nothing.
            Some('>') => {
                let run = self.cursor.punct_at(0);
                match (angled, run.as_str()) {
                    (_, ">") => angled || self.cursor.peek_at(1).is_none(),
                    (_, ">>") => self.cursor.peek_at(2).is_none(),
                    _ => false,
                }
            }
            _ => self.cursor.at_end(),
        }
    }

    /// `->`, or the tokens in its place.
    fn arrow(&mut self) -> Vec<TokenTree> {
        if self.cursor.at_arrow() {
            return self.cursor.take(2);
        }
        let run = self.cursor.punct_at(0);
        if run.is_empty() {
            let text = match self.cursor.peek() {
                Some(TokenTree::Ident(ident)) => format!("expected `->` before `{ident}`"),
                _ => "expected `->` between two stages".to_owned(),
            };
            self.errors.at_span(self.cursor.span(), text);
            return Vec::new();
        }
        let tokens = self.cursor.take(run.chars().count());
        match run.as_str() {
            "." => {
                let method = self.cursor.ident_at(0).map_or_else(|| "pad".to_owned(), Ident::to_string);
                self.errors.over(&tokens, format!("options go inside the parentheses, as `{method} = ..`"));
                // The method and its arguments.
                if self.cursor.ident_at(0).is_some() {
                    self.cursor.next();
                }
                if self.cursor.group_at(0, Delimiter::Parenthesis).is_some() {
                    self.cursor.next();
                }
                return if self.cursor.at_arrow() { self.cursor.take(2) } else { Vec::new() };
            }
            "?" => {
                self.errors.over(&tokens, "a stage needs no `?`: the network returns its error");
                return if self.cursor.at_arrow() { self.cursor.take(2) } else { Vec::new() };
            }
            "!" => {
                self.errors.over(
                    &tokens,
                    "a macro is not a stage; call it in a closure, in parentheses: `(|x: &Tensor| ..)`",
                );
                if let Some(TokenTree::Group(_)) = self.cursor.peek() {
                    self.cursor.next();
                }
                return if self.cursor.at_arrow() { self.cursor.take(2) } else { Vec::new() };
            }
            ":" | "::" => self
                .errors
                .over(&tokens, "a label is one identifier before a stage, as in `c1: conv(32, (5, 5))`"),
            ";" => self.errors.over(&tokens, "stages are separated by `->`, not by `;`"),
            _ => self.errors.over(&tokens, format!("`{run}` is not an arrow; write `->`")),
        }
        tokens
    }

    fn step(&mut self) -> Step {
        let label = self.label();
        let stage = self.stage();
        let mut bind = None;
        if self.cursor.keyword_at(0, "as") {
            let keyword = self.cursor.take(1);
            match self.cursor.ident_at(0) {
                Some(name) => {
                    bind = Some(name.clone());
                    self.cursor.next();
                }
                None => self.errors.over(
                    &keyword,
                    "expected a name for the stage's output after `as`, such as `relu as skip`",
                ),
            }
        }
        Step { label, stage, bind }
    }
}
