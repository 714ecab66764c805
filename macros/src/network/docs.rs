//! The table of stages in the documentation of a network function.

use proc_macro2::TokenStream;
use quote::quote;

use super::ast::Item;

pub(super) fn table(_item: &Item) -> TokenStream {
    quote!()
}
