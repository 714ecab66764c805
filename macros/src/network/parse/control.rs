//! Braces, alone or after `for`, `if` and `match`.

use proc_macro2::{Delimiter, Group, Ident, TokenStream, TokenTree};

use super::Parser;
use crate::network::ast::{Arm, Chain, If, Otherwise, Stage};

impl Parser<'_> {
    /// One chain in braces.
    pub(super) fn block(&mut self, block: &Group) -> Chain {
        let chain = self.within(block).body();
        if let Some(input) = chain.inputs.first() {
            self.errors.at_span(
                input.span(),
                "only the whole network can name its inputs; name a stage's output with `as`",
            );
        }
        chain.chain
    }

    /// Raw tokens up to the next braces, which are the body: as in Rust, a struct literal needs parentheses here.
    fn head(&mut self, keyword: &Ident) -> Option<(TokenStream, Group)> {
        let mut head = Vec::new();
        while let Some(token) = self.cursor.next() {
            match token {
                TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
                    return Some((head.into_iter().collect(), group));
                }
                token => head.push(token),
            }
        }
        let form = match keyword.to_string().as_str() {
            "for" => "`for i in 0..3 { .. }`",
            "match" => "`match value { pattern => .., }`",
            _ => "`if condition { .. } else { .. }`",
        };
        self.errors.unclear_at(keyword.span(), format!("the braces of this `{keyword}` are missing: {form}"));
        None
    }

    pub(super) fn parse_for(&mut self) -> Stage {
        let Some(TokenTree::Ident(keyword)) = self.cursor.next() else { return Stage::Missing };
        let Some((head, group)) = self.head(&keyword) else { return Stage::Missing };
        if !head.clone().into_iter().any(|token| matches!(&token, TokenTree::Ident(ident) if ident == "in")) {
            self.errors.unclear_at(keyword.span(), "a loop is written `for i in 0..3 { .. }`");
        }
        Stage::For { head, keyword, body: self.block(&group) }
    }

    pub(super) fn parse_if(&mut self) -> Option<If> {
        let Some(TokenTree::Ident(keyword)) = self.cursor.next() else { return None };
        let (condition, group) = self.head(&keyword)?;
        if condition.is_empty() {
            self.errors
                .unclear_at(keyword.span(), "the condition is missing: `if condition { .. } else { .. }`");
        }
        let then = self.block(&group);
        let mut otherwise = None;
        if self.cursor.keyword_at(0, "else") {
            let span = self.cursor.span();
            self.cursor.next();
            if self.cursor.keyword_at(0, "if") {
                otherwise = self.parse_if().map(|inner| Otherwise::If(Box::new(inner)));
            } else if let Some(group) = self.cursor.group_at(0, Delimiter::Brace).cloned() {
                self.cursor.next();
                otherwise = Some(Otherwise::Block(self.block(&group)));
            } else {
                self.errors.at_span(span, "expected a block after `else`: `else { .. }`");
                self.skip_stage();
            }
        }
        Some(If { keyword, condition, then, otherwise })
    }

    pub(super) fn parse_match(&mut self) -> Stage {
        let Some(TokenTree::Ident(keyword)) = self.cursor.next() else { return Stage::Missing };
        let Some((head, group)) = self.head(&keyword) else { return Stage::Missing };
        let arms = self.within(&group).arms();
        Stage::Match { head, keyword, arms }
    }

    /// `pattern => stage -> stage, ..`
    fn arms(&mut self) -> Vec<Arm> {
        let mut arms = Vec::new();
        while !self.cursor.at_end() {
            let start = self.cursor.span();
            let mut pattern = TokenStream::new();
            while !self.cursor.at_end() && self.cursor.punct_at(0) != "=>" {
                pattern.extend(self.cursor.take(1));
            }
            if self.cursor.at_end() {
                self.errors.unclear_at(start, "an arm is written `pattern => stage -> stage,`");
                break;
            }
            let arrow = self.cursor.take(2).into_iter().collect();
            let chain = self.angled_chain();
            arms.push(Arm { pattern, arrow, chain });
            self.finish_branch();
        }
        arms
    }
}
