//! Stages: everything between two arrows.

use proc_macro2::{Delimiter, Ident, TokenTree};

use super::Parser;
use crate::network::ast::{Call, Stage};

impl Parser<'_> {
    pub(super) fn stage(&mut self) -> Stage {
        match self.cursor.peek().cloned() {
            Some(TokenTree::Ident(ident)) => self.named(&ident),
            Some(TokenTree::Group(group)) => {
                self.cursor.next();
                match group.delimiter() {
                    Delimiter::Brace => Stage::Block(self.block(&group)),
                    Delimiter::Parenthesis if group.stream().is_empty() => {
                        self.errors
                            .at_span(group.span(), "expected a function or a closure in the parentheses");
                        Stage::Missing
                    }
                    Delimiter::Parenthesis => Stage::Value { tokens: group.stream(), span: group.span() },
                    // The expansion of `$stage` in a `macro_rules!`.
                    Delimiter::None => Stage::Value { tokens: group.stream(), span: group.span() },
                    Delimiter::Bracket => {
                        self.errors.at_span(
                            group.span(),
                            "expected a stage; branches are written `concat(1) { a, b }`",
                        );
                        Stage::Missing
                    }
                }
            }
            Some(TokenTree::Punct(punct)) if punct.as_char() == '|' => self.refuse_bare_closure(),
            Some(TokenTree::Punct(punct)) if punct.as_char() == ':' && self.cursor.path_sep_at(0) => {
                self.call()
            }
            Some(TokenTree::Punct(punct)) if punct.as_char() == '<' => {
                let text = "`< >` may only enclose the whole network; group stages with braces, `{ a -> b }`";
                self.errors.at_span(punct.span(), text);
                Stage::Block(self.angled_chain())
            }
            Some(token) => {
                self.refuse_token(&token);
                Stage::Missing
            }
            None => {
                self.errors.at_span(self.cursor.span(), "expected a stage after this");
                Stage::Missing
            }
        }
    }

    fn refuse_token(&mut self, token: &TokenTree) {
        match token {
            TokenTree::Literal(literal) => {
                self.cursor.next();
                let text = "expected a stage: a function such as `relu`, or a closure in parentheses, \
                            `(|x: &Tensor| x * 2.0)`";
                self.errors.at_span(literal.span(), text);
            }
            // The chain continues at the arrow.
            _ if self.cursor.at_arrow() => {
                let arrow = self.cursor.clone().take(2);
                self.errors.over(&arrow, "a stage is missing before this arrow");
            }
            _ => {
                let run = self.cursor.punct_at(0);
                let tokens = self.cursor.take(run.chars().count());
                self.errors.over(&tokens, format!("expected a stage, found `{run}`"));
                self.skip_stage();
            }
        }
    }

    /// Skips to the next arrow or to the end of the chain.
    pub(super) fn skip_stage(&mut self) {
        while !self.cursor.at_end()
            && !self.cursor.at_arrow()
            && !matches!(self.cursor.char_at(0), Some('>' | ','))
        {
            self.cursor.next();
        }
    }

    fn refuse_bare_closure(&mut self) -> Stage {
        self.errors.unclear_at(self.cursor.span(), "put a closure in parentheses: `(|x: &Tensor| x * 2.0)`");
        self.cursor.next();
        self.skip_stage();
        Stage::Missing
    }

    /// A stage that starts with an identifier.
    fn named(&mut self, ident: &Ident) -> Stage {
        match ident.to_string().as_str() {
            "_" => {
                self.cursor.next();
                Stage::Identity
            }
            "for" => self.parse_for(),
            "if" => self.parse_if().map_or(Stage::Missing, Stage::If),
            "match" => self.parse_match(),
            "use" => match self.cursor.group_at(1, Delimiter::Parenthesis).cloned() {
                Some(group) => {
                    self.cursor.take(2);
                    Stage::Use { tokens: group.stream(), span: group.span() }
                }
                None => {
                    self.errors.at_span(ident.span(), "`use` needs a tensor in parentheses: `use(skip)`");
                    self.skip_stage();
                    Stage::Missing
                }
            },
            keyword @ ("while" | "loop" | "let" | "move" | "return" | "fn" | "in" | "else" | "as") => {
                self.cursor.next();
                let instead = match keyword {
                    "while" | "loop" => "repeat stages with `for i in 0..3 { .. }`",
                    "let" => "name a stage's output with `as`: `relu as skip`",
                    "move" => "write `move` first: `network! { move < .. > }`",
                    "else" => "it belongs behind the block of an `if`",
                    _ => "expected a stage",
                };
                self.errors.unclear_at(ident.span(), format!("`{keyword}` is not a stage; {instead}"));
                self.skip_stage();
                Stage::Missing
            }
            _ => self.call(),
        }
    }

    /// `conv(32, (5, 5))`, `nn::relu`, `self.block`, `f::<T>(3)`, or a join.
    fn call(&mut self) -> Stage {
        let mut callee = Vec::new();
        let mut name = None;
        let mut is_member = false;
        if self.cursor.path_sep_at(0) {
            callee.extend(self.cursor.take(2));
        }
        while let Some(TokenTree::Ident(ident)) = self.cursor.peek().cloned() {
            callee.extend(self.cursor.take(1));
            name = Some(ident);
            if self.cursor.path_sep_at(0) {
                callee.extend(self.cursor.take(2));
                if self.cursor.char_at(0) == Some('<') {
                    callee.extend(self.generics());
                    if self.cursor.path_sep_at(0) {
                        callee.extend(self.cursor.take(2));
                        continue;
                    }
                    break;
                }
            } else if self.cursor.punct_at(0) == "." && self.cursor.ident_at(1).is_some() {
                callee.extend(self.cursor.take(1));
                is_member = true;
            } else {
                break;
            }
        }
        let Some(name) = name else {
            self.errors.at_span(self.cursor.span(), "expected the name of a function");
            return Stage::Missing;
        };
        let arguments = self.cursor.group_at(0, Delimiter::Parenthesis).cloned();
        if arguments.is_some() {
            self.cursor.next();
        }
        if let Some(group) = self.cursor.group_at(0, Delimiter::Brace).cloned() {
            self.cursor.next();
            return self.join(&name, callee.len() == 1, arguments.as_ref(), &group);
        }
        let arguments = arguments.map(|group| self.within(&group).arguments(group.span()));
        Stage::Call(Call { callee, name, is_member, arguments })
    }

    /// `<A, B>` after `::`; the `>` of an arrow closes nothing.
    fn generics(&mut self) -> Vec<TokenTree> {
        let mut tokens = Vec::new();
        let mut depth = 0usize;
        while !self.cursor.at_end() {
            if self.cursor.at_arrow() {
                tokens.extend(self.cursor.take(2));
                continue;
            }
            match self.cursor.char_at(0) {
                Some('<') => depth += 1,
                Some('>') => depth -= 1,
                _ => {}
            }
            tokens.extend(self.cursor.take(1));
            if depth == 0 {
                return tokens;
            }
        }
        self.errors.at_span(tokens[0].span(), "these type arguments are never closed by `>`");
        tokens
    }
}
