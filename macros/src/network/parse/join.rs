//! `add { a, b }`

use proc_macro2::{Group, Ident};

use super::Parser;
use crate::network::ast::{Chain, Join, JoinKind, Stage};
use crate::support::errors::nearest;

impl Parser<'_> {
    pub(super) fn join(
        &mut self,
        name: &Ident,
        is_plain: bool,
        arguments: Option<&Group>,
        block: &Group,
    ) -> Stage {
        let Some(kind) = JoinKind::from_name(&name.to_string()).filter(|_| is_plain) else {
            let near = nearest(&name.to_string(), JoinKind::NAMES);
            let hint = match near {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("if `{name}` is a stage of its own, write `{name} -> {{ .. }}`"),
            };
            self.errors.at_span(
            name.span(),
            format!("`{name}` cannot join branches; the joins are `residual`, `add`, `mul`, `concat(axis)` and `tuple`; {hint}"),
        );
            let _ = self.within(block).branches();
            return Stage::Missing;
        };
        let tokens = arguments.map(Group::stream).unwrap_or_default();
        match kind {
            JoinKind::Concat if tokens.is_empty() => self.errors.at_span(
                arguments.map_or(name.span(), Group::span),
                "`concat` needs the axis to join along: `concat(1) { a, b }`",
            ),
            JoinKind::Concat => {}
            _ if !tokens.is_empty() => self.errors.at_span(
                arguments.map_or(name.span(), Group::span),
                format!("`{name}` takes no arguments: `{name} {{ .. }}`"),
            ),
            _ => {}
        }
        let branches = self.within(block).branches();
        match (kind, branches.len()) {
        (JoinKind::Residual, 2..) => self.errors.at_span(
            name.span(),
            "`residual` adds one branch to its input; for several branches write `add { _, a, b }`, where `_` is the \
             input",
        ),
        (JoinKind::Residual, _) | (_, 2..) => {}
        (_, 1) => self.errors.at_span(
            name.span(),
            format!("`{name}` needs at least two branches, separated by commas; `_` stands for the unchanged input"),
        ),
        _ => {}
    }
        Stage::Join(Join { kind, keyword: name.clone(), arguments: tokens, branches })
    }

    /// Chains separated by commas.
    fn branches(&mut self) -> Vec<Chain> {
        let mut branches = Vec::new();
        loop {
            branches.push(self.angled_chain());
            if !self.finish_branch() {
                return branches;
            }
        }
    }

    /// Skips a comma; returns whether another branch follows.
    pub(super) fn finish_branch(&mut self) -> bool {
        while !self.cursor.at_end() {
            if self.cursor.char_at(0) == Some(',') {
                self.cursor.next();
                return !self.cursor.at_end();
            }
            self.errors.at_span(self.cursor.span(), "expected `->`, `,` or the end of the branches");
            while !self.cursor.at_end() && self.cursor.char_at(0) != Some(',') {
                self.cursor.next();
            }
        }
        false
    }
}
