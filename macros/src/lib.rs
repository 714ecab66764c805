//! The macros of [`layerfn`](https://docs.rs/layerfn), which re-exports and documents them.

mod network;

/// Declares a network; documented where `layerfn` re-exports it.
#[proc_macro]
pub fn network(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    network::network(input.into()).into()
}
