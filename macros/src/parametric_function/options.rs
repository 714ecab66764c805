//! Arguments that layers share: `option_group!` declares them once, `options(..)` includes them.
//!
//! A macro cannot look into another's input, so a group is a macro itself: a layer that names it calls it with
//! its own tokens, and the group passes them on together with its arguments.

use proc_macro2::{Group, Span, TokenStream, TokenTree};
use quote::{ToTokens, format_ident, quote};
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream, Parser};
use syn::punctuated::Punctuated;
use syn::{Attribute, FnArg, Ident, Pat, Path, Signature, Token, Visibility, braced};

use super::args::read_options;
use super::docs;
use super::layer::Argument;
use crate::support::attrs;
use crate::support::errors::Errors;

/// A layer while the groups that it names are asked for their arguments.
pub(super) struct Pending {
    /// The arguments of the groups asked so far, each in braces.
    answers: TokenStream,
    n_answers: usize,
    args: TokenStream,
    item: TokenStream,
}

impl Pending {
    pub(super) fn new(args: TokenStream, item: TokenStream) -> Self {
        Self { answers: TokenStream::new(), n_answers: 0, args, item }
    }

    /// The call of the next group; if there is none, the declaration, the item and the shared arguments.
    pub(super) fn next(self) -> Result<TokenStream, (TokenStream, TokenStream, TokenStream)> {
        let (layerfn, groups) = scan(self.args.clone());
        let Self { answers, n_answers, args, item } = self;
        match groups.into_iter().nth(n_answers) {
            Some(group) => Ok(quote!(#group! { (#layerfn) { #answers } { #args } { #item } })),
            None => Err((args, item, answers)),
        }
    }
}

/// Parses the response of a group's macro to the call from [`Pending::next`].
impl Parse for Pending {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let stream = |input: ParseStream<'_>| Ok::<_, syn::Error>(input.parse::<Group>()?.stream());
        let (answers, args, item) = (stream(input)?, stream(input)?, stream(input)?);
        let n_answers = answers.clone().into_iter().count();
        Ok(Self { answers, n_answers, args, item })
    }
}

/// The path of this library and the groups that a declaration names. `Args` reports anything that cannot be
/// parsed here.
fn scan(args: TokenStream) -> (TokenStream, Vec<Path>) {
    let (mut layerfn, mut groups) = (quote!(::layerfn), Vec::new());
    let args = args.into_iter().collect::<Vec<_>>();
    for part in args.split(|token| matches!(token, TokenTree::Punct(comma) if comma.as_char() == ',')) {
        match part {
            [TokenTree::Ident(key), TokenTree::Punct(_), path @ ..] if key == "crate" => {
                layerfn = path.iter().cloned().collect();
            }
            [TokenTree::Ident(key), list] if key == "options" => {
                groups.extend(read_options.parse2(list.to_token_stream()).unwrap_or_default());
            }
            _ => {}
        }
    }
    (layerfn, groups)
}

/// Appends the arguments in `answers` to those of the function.
pub(super) fn share(signature: &mut Signature, answers: TokenStream, errors: &mut Errors) {
    for answer in answers {
        let TokenTree::Group(group) = answer else { continue };
        let tokens = resolved_at(group.stream(), signature.ident.span());
        let list = Punctuated::<FnArg, Token![,]>::parse_terminated;
        for shared in errors.keep(list.parse2(tokens)).unwrap_or_default() {
            match signature.inputs.iter().find_map(|own| name(own).filter(|own| Some(*own) == name(&shared)))
            {
                Some(own) => errors.at(
                    own,
                    format!("a group in `options(..)` has an argument `{own}`, too; rename this one"),
                ),
                None => signature.inputs.push(shared),
            }
        }
    }
}

fn name(argument: &FnArg) -> Option<&Ident> {
    match argument {
        FnArg::Typed(typed) => match &*typed.pat {
            Pat::Ident(pattern) => Some(&pattern.ident),
            _ => None,
        },
        FnArg::Receiver(_) => None,
    }
}

/// The tokens with the hygiene of `site`, so that the body of the function can use them.
fn resolved_at(tokens: TokenStream, site: Span) -> TokenStream {
    let resolve = |mut token: TokenTree| {
        if let TokenTree::Group(group) = &token {
            let inner = Group::new(group.delimiter(), resolved_at(group.stream(), site));
            let span = group.span();
            token = TokenTree::Group(inner);
            token.set_span(span);
        }
        token.set_span(token.span().resolved_at(site));
        token
    };
    tokens.into_iter().map(resolve).collect()
}

/// A declaration in `option_group!`.
struct OptionGroup {
    docs: Vec<Attribute>,
    visibility: Visibility,
    name: Ident,
    /// As written.
    tokens: TokenStream,
    arguments: Punctuated<FnArg, Token![,]>,
}

impl Parse for OptionGroup {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let docs = input.call(Attribute::parse_outer)?;
        let visibility = input.parse()?;
        let name = input.parse::<Ident>().map_err(|error| {
            syn::Error::new(error.span(), "expected the name of a group: `pub window { .. }`")
        })?;
        if !input.peek(syn::token::Brace) {
            let message = format!("write the arguments of `{name}` in braces: `{name} {{ .. }}`");
            return Err(syn::Error::new(name.span(), message));
        }
        let content;
        braced!(content in input);
        let tokens = content.fork().parse()?;
        let arguments = Punctuated::parse_terminated(&content)?;
        Ok(Self { docs, visibility, name, tokens, arguments })
    }
}

/// Expands `option_group!`.
pub(crate) fn option_groups(input: TokenStream) -> TokenStream {
    let parse = |input: ParseStream<'_>| {
        let mut groups = Vec::new();
        while !input.is_empty() {
            groups.push(input.parse::<OptionGroup>()?);
        }
        Ok(groups)
    };
    match parse.parse2(input) {
        Ok(groups) => groups.iter().map(option_group).collect(),
        Err(error) => error.to_compile_error(),
    }
}

fn option_group(group: &OptionGroup) -> TokenStream {
    let mut errors = Errors::default();
    let arguments = group.read_arguments(&mut errors);
    let errors = errors.finish().map(|error| error.to_compile_error());
    let OptionGroup { docs, visibility, name, tokens, .. } = group;
    let hidden = format_ident!("__layerfn_options_{}", name.unraw(), span = name.span());
    let exported = matches!(visibility, Visibility::Public(_)).then(|| quote!(#[macro_export]));
    let table = docs::group(&arguments);
    quote! {
        #errors
        #[doc(hidden)]
        #exported
        macro_rules! #hidden {
            (($($layerfn:tt)*) { $($answers:tt)* } $($layer:tt)*) => {
                $($layerfn)*::__private::layer_with_options! { { $($answers)* { #tokens } } $($layer)* }
            };
        }
        #(#docs)*
        #[doc = #table]
        #[doc(inline)]
        #visibility use #hidden as #name;
    }
}

impl OptionGroup {
    fn read_arguments(&self, errors: &mut Errors) -> Vec<Argument> {
        let mut arguments = Vec::<Argument>::new();
        for argument in self.arguments.clone() {
            let FnArg::Typed(mut typed) = argument else {
                errors.at(argument, "a group has no `self`");
                continue;
            };
            let Some(argument) = Argument::read(&mut typed, errors) else { continue };
            let name = &argument.name;
            if argument.option.is_none() {
                let message = format!("a group holds optional arguments; write `#[opt]` above `{name}`");
                errors.at(name, message);
            }
            if arguments.iter().any(|other| other.name == *name) {
                errors.at(name, format!("`{name}` stands in this group twice"));
            }
            if attrs::one_line(&argument.doc_lines()).is_empty() {
                errors.at(
                    name,
                    format!("argument `{name}` needs a description: `/// ..` on the line above it"),
                );
            }
            arguments.push(argument);
        }
        arguments
    }
}
