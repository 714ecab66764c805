//! Replaces `param!(W)` anywhere in the tokens of a body.
//!
//! The body is not parsed, so this also works inside other macros and in half-typed code.

use proc_macro2::{Delimiter, Group, Ident, Span, TokenStream, TokenTree};
use quote::{ToTokens, quote, quote_spanned};
use syn::ext::IdentExt;

use super::args::{Args, Index, Parameter, Size};
use super::layer::generated_at;
use crate::support::errors::{Errors, expected};

/// A body with its parameters in place.
pub(super) struct Body {
    pub(super) tokens: TokenStream,
    /// For each declared parameter, whether the body asks for it.
    pub(super) used: Vec<bool>,
}

impl Body {
    pub(super) fn read(args: &Args, structure: &Ident, body: &Group, errors: &mut Errors) -> Self {
        let used = vec![false; args.parameters.len()];
        let work = args.multiply_adds.as_ref().map(|factors| work(&args.layerfn, factors));
        let mut walk = Walk { args, structure, used, work, errors };
        let tokens = walk.group(body);
        let tokens = match walk.work {
            // Without parameters it is known at the start.
            Some(work) => quote!({ #work #tokens }),
            None => tokens,
        };
        Self { tokens, used: walk.used }
    }
}

struct Walk<'a> {
    args: &'a Args,
    structure: &'a Ident,
    used: Vec<bool>,
    /// The statement that reports the amount of computation, until it is inserted where the first parameter is
    /// taken.
    work: Option<TokenStream>,
    errors: &'a mut Errors,
}

impl Walk<'_> {
    fn group(&mut self, group: &Group) -> TokenStream {
        let mut walked = Group::new(group.delimiter(), self.stream(group.stream()));
        walked.set_span(group.span());
        TokenTree::Group(walked).into()
    }

    fn stream(&mut self, tokens: TokenStream) -> TokenStream {
        let tokens = tokens.into_iter().collect::<Vec<_>>();
        let mut walked = TokenStream::new();
        let mut rest = tokens.as_slice();
        // `some::param!` is another macro.
        let mut in_path = false;
        while let [first, after @ ..] = rest {
            rest = after;
            match (first, after) {
                (TokenTree::Ident(word), [TokenTree::Punct(bang), TokenTree::Group(inside), others @ ..])
                    if word == "param" && bang.as_char() == '!' && !in_path && is_written(inside) =>
                {
                    walked.extend(self.parameter(word, inside));
                    rest = others;
                }
                (TokenTree::Group(group), _) => walked.extend(self.group(group)),
                (token, _) => token.to_tokens(&mut walked),
            }
            in_path = matches!(first, TokenTree::Punct(colon) if colon.as_char() == ':');
        }
        walked
    }

    /// The expansion of `param!(..)`.
    fn parameter(&mut self, word: &Ident, inside: &Group) -> TokenStream {
        let tokens = inside.stream().into_iter().collect::<Vec<_>>();
        let (index, rest) = match tokens.as_slice() {
            [TokenTree::Ident(_), TokenTree::Group(index), rest @ ..]
                if index.delimiter() == Delimiter::Bracket =>
            {
                (Some(index), rest)
            }
            [TokenTree::Ident(_), rest @ ..] => (None, rest),
            _ => (None, [].as_slice()),
        };
        let (name, value) = match (tokens.first(), rest) {
            (Some(TokenTree::Ident(name)), []) => (name, None),
            (Some(TokenTree::Ident(name)), [TokenTree::Punct(equals), value @ ..])
                if equals.as_char() == '=' && !value.is_empty() && !starts_with(value, '=') =>
            {
                (name, Some(value.iter().cloned().collect::<TokenStream>()))
            }
            _ => {
                let first = tokens.first().into_iter().filter(|_| index.is_some());
                let tokens = if index.is_some() { first.chain(rest).cloned().collect() } else { tokens };
                self.reject(word, inside, &tokens);
                return self.unknown(word.span(), None);
            }
        };
        let args = self.args;
        let declared = args.parameters.iter().zip(&mut self.used).enumerate();
        let Some((number, (parameter, used))) =
            declared.into_iter().find(|(_, (parameter, _))| same(&parameter.name, name))
        else {
            if args.complete {
                self.undeclared(name);
            }
            return self.unknown(word.span(), value);
        };
        *used = true;
        match (&parameter.index, index) {
            (Some(_), None) => {
                let message = format!("`{name}` is a list of parameters; say which one: `param!({name}[i])`");
                self.errors.at(name, message);
                return self.unknown(word.span(), value);
            }
            (None, Some(index)) => {
                self.errors
                    .at_span(index.span(), format!("`{name}` is one parameter; write `param!({name})`"));
                return self.unknown(word.span(), value);
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
        let index = index.map(|index| self.stream(index.stream()));
        match value {
            Some(value) => self.assign(word.span(), number, parameter, index, value),
            None => self.take(word.span(), number, parameter, index),
        }
    }

    fn undeclared(&mut self, name: &Ident) {
        let declared = self.args.parameters.iter().map(|parameter| parameter.name.to_string());
        let declared = declared.collect::<Vec<_>>();
        let help = if declared.is_empty() {
            format!("declare it, `params({name}: [outmaps] = 0.0)`, with a `///` line above it")
        } else {
            expected(&name.to_string(), declared.iter().map(String::as_str))
        };
        self.errors.at(name, format!("parameter `{name}` is not declared in `params(..)`; {help}"));
    }

    fn reject(&mut self, word: &Ident, inside: &Group, tokens: &[TokenTree]) {
        let help = "write `param!(W)` to take a parameter, `param!(W[i])` one of a list, `param!(W = value)` to write into it";
        match tokens {
            [] => self.errors.at_span(word.span(), format!("which parameter? {help}")),
            [TokenTree::Literal(name), ..] => {
                let message = format!("the name of a parameter stands without quotes; {help}");
                self.errors.at(name, message);
            }
            [TokenTree::Ident(name), TokenTree::Punct(equals)] if equals.as_char() == '=' => {
                self.errors
                    .at(equals, format!("the value for `{name}` is missing: `param!({name} = &value)`"));
            }
            [TokenTree::Ident(_), junk, ..] => {
                self.errors.at(junk, format!("unexpected `{junk}`; {help}"));
            }
            _ => self.errors.at_span(inside.span(), help),
        }
    }

    /// Replaces an unknown parameter after an error; it only needs a type.
    fn unknown(&mut self, span: Span, value: Option<TokenStream>) -> TokenStream {
        let layerfn = &self.args.layerfn;
        let ty = match value {
            Some(_) => quote!(()),
            None => quote!(#layerfn::__private::Tensor),
        };
        let value = value.map(|value| self.stream(value));
        let span = mixed(span);
        quote_spanned!(span=> {
            let __pf_value = (#value);
            (|| -> #layerfn::__private::Result<#ty> { ::core::unimplemented!() })()
        })
    }

    fn assign(
        &mut self,
        span: Span,
        number: usize,
        parameter: &Parameter,
        index: Option<TokenStream>,
        value: TokenStream,
    ) -> TokenStream {
        let (layerfn, structure) = (&self.args.layerfn, self.structure);
        let value = self.stream(value);
        let span = mixed(span);
        let info = quote_spanned!(span=> &#structure::INFO.parameters[#number]);
        match (&parameter.index, index) {
            (Some(Index { range, .. }), Some(index)) => {
                quote_spanned!(span=> #layerfn::__private::assign_at(#info, #index, #range, #value))
            }
            _ => quote_spanned!(span=> #layerfn::__private::assign(#info, #value)),
        }
    }

    fn take(
        &mut self,
        span: Span,
        number: usize,
        parameter: &Parameter,
        index: Option<TokenStream>,
    ) -> TokenStream {
        let (layerfn, structure, initial) = (&self.args.layerfn, self.structure, &parameter.initial);
        let span = mixed(span);
        let info = quote_spanned!(span=> &#structure::INFO.parameters[#number]);
        let shape = shape(layerfn, &parameter.shape, span);
        let initial =
            quote_spanned!(span=> ::core::convert::Into::<#layerfn::__private::Initializer>::into(#initial));
        let taken = match (&parameter.index, index, &parameter.when) {
            (Some(Index { variable, range }), Some(index), condition) => {
                // Neither of the two has to depend on the number.
                let variable = quote_spanned!(span=> #[allow(unused_variables)] #variable: usize);
                let one = quote_spanned!(span=>
                    #layerfn::__private::parameter_at(#info, #index, #range, |#variable| #shape, |#variable| #initial)
                );
                match condition {
                    Some(condition) => quote_spanned!(span=> if #condition {
                        ::core::result::Result::map(#one, ::core::option::Option::Some)
                    } else {
                        ::core::result::Result::Ok(::core::option::Option::None)
                    }),
                    None => one,
                }
            }
            (_, _, Some(condition)) => quote_spanned!(span=>
                #layerfn::__private::parameter_when(#condition, #info, || #shape, || #initial)
            ),
            (_, _, None) => {
                quote_spanned!(span=> #layerfn::__private::parameter(#info, || #shape, || #initial))
            }
        };
        match self.work.take() {
            // As the argument of a call, it can be anywhere that `param!` can be.
            Some(work) => quote!(::core::convert::identity({ #work #taken })),
            None if parameter.index.is_some() && parameter.when.is_some() => {
                quote!(::core::convert::identity(#taken))
            }
            None => taken,
        }
    }
}

/// The statement that reports the amount of computation to a recorder.
fn work(layerfn: &syn::Path, factors: &[Size]) -> TokenStream {
    let factors = shape(layerfn, factors, Span::mixed_site());
    quote!(#layerfn::__private::note_multiply_adds(|| #factors);)
}

/// The sizes as a `Vec<usize>`.
fn shape(layerfn: &syn::Path, sizes: &[Size], span: Span) -> TokenStream {
    let one = |size: &Size| match size {
        Size::One(size) => Some(size.clone()),
        Size::Splice(_) => None,
    };
    if let Some(sizes) = sizes.iter().map(one).collect::<Option<Vec<_>>>() {
        return quote_spanned!(span=> <[usize]>::to_vec(&[#(#sizes),*]));
    }
    let pushes = sizes.iter().map(|size| match size {
        Size::One(size) => quote_spanned!(span=> __pf_shape.push(#size);),
        Size::Splice(sizes) => {
            let lent = quote_spanned!(generated_at(sizes)=> &(#sizes));
            quote_spanned!(span=> #layerfn::__private::splice(&mut __pf_shape, #lent);)
        }
    });
    quote_spanned!(span=> {
        let mut __pf_shape = ::std::vec::Vec::<usize>::with_capacity(8);
        #(#pushes)*
        __pf_shape
    })
}

fn mixed(span: Span) -> Span {
    Span::mixed_site().located_at(span)
}

fn is_written(group: &Group) -> bool {
    group.delimiter() != Delimiter::None
}

fn starts_with(tokens: &[TokenTree], character: char) -> bool {
    matches!(tokens.first(), Some(TokenTree::Punct(punct)) if punct.as_char() == character)
}

fn same(a: &Ident, b: &Ident) -> bool {
    a.unraw() == b.unraw()
}
