//! Expansion after an error: the error, and as much of the layer as the rest of the crate needs.

use proc_macro2::TokenStream;
use quote::quote;

use super::body::Body;
use super::expand;
use super::layer::Layer;

pub(super) fn layer(error: &syn::Error, mut layer: Layer, body: &Body) -> TokenStream {
    layer.attributes.function.push(syn::parse_quote!(#[allow(unused)]));
    let errors = error.to_compile_error();
    // The function and its setters can be generated if the signature is valid.
    let sound = layer.storable && layer.output.is_some();
    let items = if sound { expand::layer(&layer, body) } else { bare(&layer, body) };
    quote!(#errors #items)
}

/// The user's function and an empty structure of the layer's name.
fn bare(layer: &Layer, body: &Body) -> TokenStream {
    let (attributes, visibility, structure) =
        (layer.attributes.beside(), &layer.visibility, &layer.structure);
    let (signature, body) = (&layer.signature, &body.tokens);
    let functions = &layer.attributes.function;
    let flags = layer.args.fused.iter().map(|fused| &fused.flag);
    let function = quote! {
        #(#attributes)*
        #(#functions)*
        #visibility #signature {
            #(let #flags = false;)*
            #body
        }
    };
    let info = expand::info_constant(layer);
    if layer.signature.receiver().is_some() {
        return function;
    }
    quote! {
        #function
        #[allow(unused, missing_docs)]
        #(#attributes)*
        #visibility struct #structure;
        // The body refers to it.
        #[allow(unused, missing_docs)]
        #(#attributes)*
        impl #structure { #info }
    }
}
