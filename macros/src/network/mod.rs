//! `network! { < conv(32, (5, 5)) -> bn -> relu > }`; the grammar stands in the documentation of the macro.

mod arguments;
mod ast;
mod check;
mod cursor;
mod docs;
mod expand;
mod parse;
#[cfg(test)]
mod tests;

use proc_macro2::TokenStream;

/// Mistakes come out as `compile_error!` beside the stages that could be read, which an editor still sees.
pub(crate) fn network(input: TokenStream) -> TokenStream {
    let mut errors = parse::Errors::default();
    let input = parse::parse(input, &mut errors);
    check::check(&input, &mut errors);
    let clear = !errors.unclear();
    expand::expand(&input, clear, errors.into_error())
}
