//! `#[parametric_function]`: read the declaration, check it, write the layer.

mod args;
mod body;
mod check;
mod docs;
mod expand;
mod fallback;
mod layer;

use proc_macro2::TokenStream;
use quote::quote;

use crate::support::errors::Errors;

pub(crate) fn expand(args: TokenStream, item: &TokenStream) -> TokenStream {
    let mut errors = Errors::default();
    let function = match syn::parse2::<layer::Function>(item.clone()) {
        Ok(function) => function,
        Err(error) => {
            let error = error.to_compile_error();
            return quote!(#error #item);
        }
    };
    let args = args::Args::read(args, &mut errors);
    let layer = layer::Layer::read(args, function, &mut errors);
    let body = body::Body::read(&layer.args, &layer.structure, &layer.body, &mut errors);
    check::layer(&layer, &body, &mut errors);
    match errors.finish() {
        None => expand::layer(&layer, &body),
        Some(error) => fallback::layer(&error, &layer, &body),
    }
}
