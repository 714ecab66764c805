//! `#[parametric_function]`: parses the declaration, checks it, and generates the layer.

mod args;
mod body;
mod check;
mod docs;
mod expand;
mod fallback;
mod layer;
mod options;
#[cfg(test)]
mod tests;

use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::parse::{ParseStream, Parser};
use syn::{Attribute, Visibility};

use crate::support::errors::Errors;
pub(crate) use options::option_groups;

pub(crate) fn expand(args: TokenStream, item: TokenStream) -> TokenStream {
    resume(options::Pending::new(args, item))
}

/// Continues with a layer after a group of arguments has responded.
pub(crate) fn with_options(input: TokenStream) -> TokenStream {
    syn::parse2(input).map_or_else(|error| error.to_compile_error(), resume)
}

fn resume(pending: options::Pending) -> TokenStream {
    match pending.next() {
        Ok(question) => question,
        Err((args, item, shared)) => layer(args, &item, shared),
    }
}

fn layer(args: TokenStream, item: &TokenStream, shared: TokenStream) -> TokenStream {
    let mut errors = Errors::default();
    let mut function = match syn::parse2::<layer::Function>(item.clone()) {
        Ok(function) => function,
        Err(error) => return not_a_layer(&error, item),
    };
    options::share(&mut function.signature, shared, &mut errors);
    let args = args::Args::read(args, &mut errors);
    let mut layer = layer::Layer::read(args, function, &mut errors);
    let body = body::Body::read(&layer.args, &layer.structure, &layer.body, &mut errors);
    check::layer(&mut layer, &body, &mut errors);
    match errors.finish() {
        None => expand::layer(&layer, &body),
        Some(error) => fallback::layer(&error, layer, &body),
    }
}

/// The error for an item that is not a function with a body.
fn not_a_layer(error: &syn::Error, item: &TokenStream) -> TokenStream {
    match syn::parse2::<syn::Item>(item.clone()) {
        Ok(other) if !matches!(other, syn::Item::Fn(_) | syn::Item::Verbatim(_)) => {
            let message = "`#[parametric_function]` makes a layer of a function; write it above a `fn`";
            let error = syn::Error::new(keyword(item.clone()), message).to_compile_error();
            quote!(#error #item)
        }
        _ => error.to_compile_error(),
    }
}

/// Position of the keyword of the item, such as `struct`.
fn keyword(item: TokenStream) -> Span {
    let read = |input: ParseStream<'_>| {
        input.call(Attribute::parse_outer)?;
        input.parse::<Visibility>()?;
        let span = input.span();
        input.parse::<TokenStream>()?;
        Ok(span)
    };
    read.parse2(item).unwrap_or_else(|_| Span::call_site())
}
