//! The macros of [`layerfn`](https://docs.rs/layerfn), which re-exports and documents them.

mod network;
mod parametric_function;
mod support;

/// Makes a function a layer; `layerfn`, which re-exports it, documents it.
#[proc_macro_attribute]
pub fn parametric_function(
    args: proc_macro::TokenStream,
    item: proc_macro::TokenStream,
) -> proc_macro::TokenStream {
    parametric_function::expand(args.into(), &item.into()).into()
}

/// Declares a network; `layerfn`, which re-exports it, documents it.
#[proc_macro]
pub fn network(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    network::network(input.into()).into()
}
