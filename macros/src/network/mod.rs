//! `network! { < conv(32, (5, 5)) -> bn -> relu > }`; the documentation of the macro has the grammar.

mod ast;
mod check;
mod cursor;
mod docs;
mod expand;
mod parse;
#[cfg(test)]
mod tests;

use proc_macro2::{TokenStream, TokenTree};

use crate::support::errors::Errors;

/// Mistakes become `compile_error!` beside the stages that could be parsed, so that an editor still sees these.
///
/// The input is `path::to::layerfn; network`.
pub(crate) fn network(input: TokenStream) -> TokenStream {
    let mut errors = Errors::default();
    let (layerfn, input) = split(input);
    let input = parse::parse(input, &mut errors);
    check::check(&input, &mut errors);
    let clear = !errors.unclear();
    expand::expand(&layerfn, &input, clear, errors.finish())
}

/// The tokens before and after the first `;`.
fn split(input: TokenStream) -> (TokenStream, TokenStream) {
    let mut tokens = input.into_iter();
    let is_end = |token: &TokenTree| matches!(token, TokenTree::Punct(punct) if punct.as_char() == ';');
    let path = tokens.by_ref().take_while(|token| !is_end(token)).collect();
    (path, tokens.collect())
}
