//! `network! { < conv(32, (5, 5)) -> bn -> relu > }`; the grammar stands in the documentation of the macro.

mod ast;
mod check;
mod cursor;
mod docs;
mod expand;
mod parse;
#[cfg(test)]
mod tests;

use proc_macro2::TokenStream;

use crate::support::errors::Errors;

/// Mistakes come out as `compile_error!` beside the stages that could be read, which an editor still sees.
pub(crate) fn network(input: TokenStream) -> TokenStream {
    let mut errors = Errors::default();
    let input = parse::parse(input, &mut errors);
    check::check(&input, &mut errors);
    let clear = !errors.unclear();
    expand::expand(&input, clear, errors.finish())
}
