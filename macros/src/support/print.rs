//! Code as one line of text, as rustfmt would space it.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::visit::Visit;
use syn::{Expr, Type};

/// A type, such as `Option<Initializer>`.
pub(crate) fn ty(ty: &Type) -> String {
    printed(quote!(type T = #ty;)).and_then(|text| between(&text, "type T = ")).unwrap_or_else(|| raw(ty))
}

/// An expression, such as `Dims::from(0)`.
pub(crate) fn expr(expr: &Expr) -> String {
    printed(quote!(const C: T = #expr;))
        .and_then(|text| between(&text, "const C: T = "))
        .unwrap_or_else(|| raw(expr))
}

/// A path, such as `layerfn::Dims`, without generic arguments.
pub(crate) fn path(path: &syn::Path) -> String {
    path.segments.iter().map(|segment| segment.ident.to_string()).collect::<Vec<_>>().join("::")
}

/// `text`, truncated before the `limit`-th character.
pub(crate) fn cut(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        Some((end, _)) => format!("{}…", text[..end].trim_end()),
        None => text.to_owned(),
    }
}

/// `None` for code that prettyplease cannot print: it is shown unchanged.
fn printed(item: TokenStream) -> Option<String> {
    let file = syn::parse2(item).ok()?;
    let mut bare = BareTokens::default();
    bare.visit_file(&file);
    (!bare.found).then(|| join_lines(&prettyplease::unparse(&file)))
}

/// Looks for code that syn keeps as raw tokens, on which prettyplease panics.
#[derive(Default)]
struct BareTokens {
    found: bool,
}

impl<'ast> Visit<'ast> for BareTokens {
    fn visit_token_stream(&mut self, _: &'ast TokenStream) {
        self.found = true;
    }

    // Macros contain raw tokens, which prettyplease can print.
    fn visit_macro(&mut self, _: &'ast syn::Macro) {}
    fn visit_meta_list(&mut self, _: &'ast syn::MetaList) {}
}

fn between(text: &str, before: &str) -> Option<String> {
    Some(text.strip_prefix(before)?.strip_suffix(';')?.trim().to_owned())
}

fn raw(code: &impl ToTokens) -> String {
    code.to_token_stream().to_string().replace('\n', " ")
}

/// Removes the line breaks, and the commas that only a line break needs.
fn join_lines(text: &str) -> String {
    let mut joined = String::new();
    for line in text.lines().map(str::trim) {
        let angle = line.strip_prefix('>').is_some_and(|rest| !rest.starts_with([' ', '=', '>']));
        let closes = angle || line.starts_with([')', ']']);
        if closes && joined.ends_with(',') {
            joined.pop();
        }
        let tight =
            joined.is_empty() || joined.ends_with(['(', '[', '<']) || closes || line.starts_with(['.', '?']);
        if !tight {
            joined.push(' ');
        }
        joined.push_str(line);
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(code: &str) -> String {
        syn::parse_str(code).map(|code| expr(&code)).unwrap_or_else(|error| error.to_string())
    }

    #[test]
    fn expressions_are_spaced_as_by_rustfmt() {
        assert_eq!(print("Dims :: zeros (kernel . len ())"), "Dims::zeros(kernel.len())");
        assert_eq!(print("|x|x"), "|x| x");
        assert_eq!(print("-1.0"), "-1.0");
        let long = "w_init.unwrap_or_else(|| Initializer::glorot_uniform(the_input_channels, the_output_channels, kernel))";
        assert_eq!(print(long), long);
        let chain =
            "first_thing_of_all(argument).second_thing_after_it(argument).third_thing_of_the_chain(argument)";
        assert_eq!(print(chain), chain);
    }

    #[test]
    fn what_cannot_be_printed_is_shown_as_it_is() {
        assert_eq!(print("vec![a , b]"), "vec![a, b]");
        assert_eq!(print("f(become g(x))"), "f (become g (x))");
    }

    #[test]
    fn types_are_spaced_as_by_rustfmt() -> syn::Result<()> {
        assert_eq!(ty(&syn::parse_str("& 'static [ Option < Tensor > ]")?), "&'static [Option<Tensor>]");
        Ok(())
    }

    #[test]
    fn a_cut_is_marked() {
        assert_eq!(cut("abc def", 4), "abc…");
        assert_eq!(cut("abc", 3), "abc");
    }
}
