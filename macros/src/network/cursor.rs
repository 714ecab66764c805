//! A position in a list of tokens, which all parts of the parser advance.

use proc_macro2::{Delimiter, Group, Ident, Spacing, Span, TokenStream, TokenTree};

#[derive(Clone)]
pub(super) struct Cursor {
    tokens: Vec<TokenTree>,
    position: usize,
    end: Span,
}

impl Cursor {
    /// `end` is the position of errors about a premature end if there is no token at all.
    pub(super) fn new(tokens: TokenStream, end: Span) -> Self {
        Self { tokens: tokens.into_iter().collect(), position: 0, end }
    }

    pub(super) fn of_group(group: &Group) -> Self {
        Self::new(group.stream(), group.span_close())
    }

    pub(super) fn peek(&self) -> Option<&TokenTree> {
        self.peek_at(0)
    }

    pub(super) fn peek_at(&self, ahead: usize) -> Option<&TokenTree> {
        self.tokens.get(self.position + ahead)
    }

    pub(super) fn next(&mut self) -> Option<TokenTree> {
        let token = self.tokens.get(self.position).cloned();
        self.position += usize::from(token.is_some());
        token
    }

    pub(super) fn take(&mut self, n: usize) -> Vec<TokenTree> {
        (0..n).map_while(|_| self.next()).collect()
    }

    pub(super) fn rest(&mut self) -> TokenStream {
        let rest = self.tokens[self.position..].iter().cloned().collect();
        self.position = self.tokens.len();
        rest
    }

    pub(super) fn at_end(&self) -> bool {
        self.position >= self.tokens.len()
    }

    /// The next token, or the last one at the end.
    pub(super) fn span(&self) -> Span {
        self.peek().or_else(|| self.tokens.last()).map_or(self.end, TokenTree::span)
    }

    pub(super) fn ident_at(&self, ahead: usize) -> Option<&Ident> {
        match self.peek_at(ahead) {
            Some(TokenTree::Ident(ident)) => Some(ident),
            _ => None,
        }
    }

    pub(super) fn group_at(&self, ahead: usize, delimiter: Delimiter) -> Option<&Group> {
        match self.peek_at(ahead) {
            Some(TokenTree::Group(group)) if group.delimiter() == delimiter => Some(group),
            _ => None,
        }
    }

    pub(super) fn keyword_at(&self, ahead: usize, keyword: &str) -> bool {
        self.ident_at(ahead).is_some_and(|ident| ident == keyword)
    }

    /// The sequence of punctuation that starts `ahead`, without spaces.
    pub(super) fn punct_at(&self, ahead: usize) -> String {
        let mut run = String::new();
        while let Some(TokenTree::Punct(punct)) = self.peek_at(ahead + run.chars().count()) {
            run.push(punct.as_char());
            if punct.spacing() == Spacing::Alone {
                break;
            }
        }
        run
    }

    pub(super) fn char_at(&self, ahead: usize) -> Option<char> {
        match self.peek_at(ahead) {
            Some(TokenTree::Punct(punct)) => Some(punct.as_char()),
            _ => None,
        }
    }

    pub(super) fn at_arrow(&self) -> bool {
        self.char_at(0) == Some('-') && self.char_at(1) == Some('>') && self.punct_at(0).starts_with("->")
    }

    /// `:` that is not part of `::`.
    pub(super) fn colon_at(&self, ahead: usize) -> bool {
        self.char_at(ahead) == Some(':') && !self.path_sep_at(ahead)
    }

    pub(super) fn path_sep_at(&self, ahead: usize) -> bool {
        self.punct_at(ahead).starts_with("::")
    }
}
