//! `pub fn name(arguments) -> Result<..> |x, y| < a -> b >`

use proc_macro2::{Delimiter, Ident, TokenStream, TokenTree};
use syn::parse::{ParseStream, Parser as _};
use syn::punctuated::Punctuated;
use syn::{Error, Type};

use super::Parser;
use crate::network::ast::{Body, Item};
use crate::support::types;

const NETWORK_FUNCTION: &str = "a network function is written `pub fn name(arguments) < a -> b >`";

impl Parser<'_> {
    pub(super) fn items(&mut self) -> Vec<Item> {
        let mut items = Vec::new();
        while !self.cursor.at_end() {
            match self.item() {
                Ok(item) => items.push(item),
                Err(error) => {
                    self.errors.push(error);
                    break;
                }
            }
        }
        items
    }

    fn item(&mut self) -> syn::Result<Item> {
        // Everything up to the arguments is Rust; what follows them is not.
        let mut front = Vec::new();
        while !self.cursor.at_end()
            && self.cursor.group_at(0, Delimiter::Parenthesis).is_none_or(|_| !is_fn_name(&front))
        {
            front.extend(self.cursor.take(1));
            if self.cursor.char_at(0) == Some('<') && is_fn_name(&front) {
                let message =
                    "a network function takes no type parameters; give its arguments concrete types";
                return Err(Error::new(self.cursor.span(), message));
            }
        }
        let Some(group) = self.cursor.group_at(0, Delimiter::Parenthesis).cloned() else {
            parse_front.parse2(front.into_iter().collect())?;
            return Err(Error::new(self.cursor.span(), NETWORK_FUNCTION));
        };
        self.cursor.next();
        let front: TokenStream = front.into_iter().collect();
        let (attrs, vis, name) = parse_front.parse2(front)?;
        let arguments = Punctuated::<syn::FnArg, syn::Token![,]>::parse_terminated.parse2(group.stream())?;
        let output = self.output()?;
        let body = match self.cursor.group_at(0, Delimiter::Brace).cloned() {
            Some(group) => {
                self.cursor.next();
                self.within(&group).body()
            }
            None => {
                let inputs = self.inputs();
                if self.cursor.char_at(0) != Some('<') {
                    let message = "expected the network of the function: `< a -> b >` or `{ a -> b }`";
                    return Err(Error::new(self.cursor.span(), message));
                }
                Body { inputs, chain: self.angled_chain() }
            }
        };
        Ok(Item { attrs, vis, name, arguments: arguments.into_iter().collect(), output, body })
    }

    /// `-> Result<(Tensor, Tensor)>`; the tokens after it remain.
    fn output(&mut self) -> syn::Result<Option<Type>> {
        if !self.cursor.at_arrow() {
            return Ok(None);
        }
        self.cursor.take(2);
        let mut tokens = TokenStream::new();
        let mut depth = 0i32;
        while !self.cursor.at_end() {
            let ends = depth == 0
                && !tokens.is_empty()
                && (self.cursor.char_at(0) == Some('|')
                    || self.cursor.group_at(0, Delimiter::Brace).is_some()
                    || (self.cursor.char_at(0) == Some('<') && is_complete(&tokens)));
            if ends {
                break;
            }
            match self.cursor.char_at(0) {
                Some('<') => depth += 1,
                Some('>') => depth -= 1,
                _ => {}
            }
            tokens.extend(self.cursor.take(1));
        }
        syn::parse2(tokens).map(Some)
    }
}

fn is_fn_name(front: &[TokenTree]) -> bool {
    matches!(front, [.., TokenTree::Ident(keyword), TokenTree::Ident(_)] if keyword == "fn")
}

fn parse_front(input: ParseStream<'_>) -> syn::Result<(Vec<syn::Attribute>, syn::Visibility, Ident)> {
    let attrs = input.call(syn::Attribute::parse_outer)?;
    let vis = input.parse()?;
    if !input.peek(syn::Token![fn]) {
        return Err(input.error(NETWORK_FUNCTION));
    }
    input.parse::<syn::Token![fn]>()?;
    let name = input.parse()?;
    if input.is_empty() { Ok((attrs, vis, name)) } else { Err(input.error(NETWORK_FUNCTION)) }
}

/// Whether a `<` after the type starts the network: the type already has generics, or cannot have any.
fn is_complete(tokens: &TokenStream) -> bool {
    let is_angle = |token: &TokenTree| matches!(token, TokenTree::Punct(punct) if punct.as_char() == '<');
    match syn::parse2::<Type>(tokens.clone()) {
        Ok(ty) => tokens.clone().into_iter().any(|token| is_angle(&token)) || types::result(&ty).is_none(),
        Err(_) => false,
    }
}
