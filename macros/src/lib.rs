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
    parametric_function::expand(args.into(), item.into()).into()
}

/// Declares arguments that layers share; `layerfn`, which re-exports it, documents it.
#[proc_macro]
pub fn option_group(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    parametric_function::option_groups(input.into()).into()
}

/// Not public: what a group of arguments calls for the layer that names it.
#[doc(hidden)]
#[proc_macro]
pub fn layer_with_options(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    parametric_function::with_options(input.into()).into()
}

/// Declares a network; `network!` of `layerfn`, which documents it, writes the path to that crate and `;` in front.
#[proc_macro]
pub fn network(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    network::network(input.into()).into()
}
