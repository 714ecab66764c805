//! Expands a checked layer to Rust items: the user's function, a public one, a structure with setters and
//! `call`.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::{FnArg, Type};

use super::args::{Index, list_text};
use super::body::Body;
use super::docs;
use super::layer::{Argument, Holding, Layer, NO_DEFAULT, generated_at};
use crate::support::types::bare;
use crate::support::{attrs, print};

pub(super) fn layer(layer: &Layer, body: &Body) -> TokenStream {
    let items = [function(layer, body), constructor(layer), structure(layer), inherent(layer), traits(layer)];
    items.into_iter().chain(fusion(layer)).collect()
}

/// The user's function, under a hidden name.
fn function(layer: &Layer, body: &Body) -> TokenStream {
    let mut signature = layer.signature.clone();
    signature.ident = hidden_name(layer);
    for (input, argument) in signature.inputs.iter_mut().zip(&layer.arguments) {
        // An argument that is only used by another one's default does not count as unused.
        if let FnArg::Typed(typed) = input
            && layer.serves_a_default(argument)
        {
            typed.attrs.push(syn::parse_quote!(#[allow(unused_variables)]));
        }
    }
    for flag in layer.flags() {
        signature.inputs.push(syn::parse_quote!(#flag: bool));
    }
    let (everywhere, others) = (&layer.attributes.everywhere, &layer.attributes.function);
    let body = &body.tokens;
    quote! {
        // The caller never sees this list of arguments; owned ones and the `Result` are required by the macro.
        #[allow(
            clippy::too_many_arguments,
            clippy::fn_params_excessive_bools,
            clippy::needless_pass_by_value,
            clippy::trivially_copy_pass_by_ref,
            clippy::ref_option,
            clippy::unnecessary_wraps
        )]
        #(#everywhere)*
        #(#others)*
        #signature #body
    }
}

/// The function that callers use: it takes the required arguments and returns the structure.
fn constructor(layer: &Layer) -> TokenStream {
    let (attributes, docs, deprecated) =
        (layer.attributes.beside(), docs::attributes(layer), &layer.attributes.deprecated);
    let (visibility, function, structure) = (&layer.visibility, &layer.signature.ident, &layer.structure);
    let forgiven = forgiven(layer);
    let (required, optional): (Vec<_>, Vec<_>) =
        layer.arguments.iter().partition(|argument| argument.option.is_none());
    let parameters = required.iter().map(|argument| argument.taken());
    let fields = required.iter().map(|argument| {
        let (name, value) = (&argument.name, argument.stored_value());
        quote!(#name: #value)
    });
    let unset = optional.iter().map(|argument| &argument.name);
    let flags = layer.flags();
    quote! {
        #(#docs)*
        #(#attributes)*
        #(#deprecated)*
        #forgiven
        #visibility fn #function(#(#parameters),*) -> #structure {
            #structure {
                #(#fields,)*
                #(#unset: ::core::option::Option::None,)*
                #(#flags: false,)*
                name: ::core::option::Option::None,
                fix_parameters: false,
            }
        }
    }
}

fn structure(layer: &Layer) -> TokenStream {
    let (attributes, deprecated) = (layer.attributes.beside(), &layer.attributes.deprecated);
    let (visibility, structure, forgiven) = (&layer.visibility, &layer.structure, forgiven(layer));
    let function = layer.name();
    let docs = format!(
        " A call of [`{function}`](fn@{function}) that is not made yet: set options, then [`call`](Self::call)."
    );
    let fields = layer.arguments.iter().map(|argument| {
        let (name, ty) = (&argument.name, argument.stored_type());
        match argument.option {
            Some(_) => quote!(#name: ::core::option::Option<#ty>),
            None => quote!(#name: #ty),
        }
    });
    let flags = layer.flags();
    quote! {
        #[doc = #docs]
        #[must_use = "a layer does nothing until `.call()` runs it"]
        // A caller's flags are the layer's business.
        #[allow(clippy::struct_excessive_bools)]
        #forgiven
        #(#attributes)*
        #(#deprecated)*
        #visibility struct #structure {
            #(#fields,)*
            // Whether to apply what follows in a network, too.
            #(#flags: bool,)*
            name: ::core::option::Option<::std::string::String>,
            fix_parameters: bool,
        }
    }
}

fn inherent(layer: &Layer) -> TokenStream {
    let attributes = layer.attributes.beside();
    let structure = &layer.structure;
    let (info, forgiven) = (info_constant(layer), forgiven(layer));
    let setters = layer.arguments.iter().map(|argument| argument.setters(layer));
    let automatic = automatic_setters(layer);
    let call = call(layer);
    quote! {
        // A private layer need not use all of its options.
        #[allow(dead_code)]
        #forgiven
        #(#attributes)*
        impl #structure {
            #info
            #(#setters)*
            #automatic
            #call
        }
    }
}

fn automatic_setters(layer: &Layer) -> TokenStream {
    let visibility = &layer.visibility;
    let name_docs = match layer.args.scope.as_ref().map(syn::LitStr::value) {
        Some(scope) => {
            format!(" Puts the scope `name` around the layer's own: parameters live under `name/{scope}`.")
        }
        None => " Opens the scope `name` for what the function calls, and names it in errors.".to_owned(),
    };
    let fix_parameters = layer.has_scope().then(|| {
        quote! {
            /// Whether to take the parameters without gradient, here and in the layers inside.
            ///
            /// Default: `false`. What is registered keeps its `need_grad`.
            #visibility fn fix_parameters(mut self, fix_parameters: bool) -> Self {
                self.fix_parameters = fix_parameters;
                self
            }
        }
    });
    quote! {
        #[doc = #name_docs]
        #visibility fn name(mut self, name: impl ::core::convert::Into<::std::string::String>) -> Self {
            self.name = ::core::option::Option::Some(::core::convert::Into::into(name));
            self
        }
        #fix_parameters
    }
}

fn call(layer: &Layer) -> TokenStream {
    let (visibility, layerfn, hidden) = (&layer.visibility, &layer.args.layerfn, hidden_name(layer));
    let output = output(layer);
    let names =
        layer.arguments.iter().map(|argument| &argument.name).chain(layer.flags()).collect::<Vec<_>>();
    // An error of another type becomes the crate's; one that cannot is reported at the return type.
    let run = quote_spanned!(generated_at(&output)=>
        ::core::result::Result::Ok(#hidden(#(#names),*)?)
    );
    let resolved = layer.arguments.iter().map(Argument::resolved);
    let (optional, required): (Vec<_>, Vec<_>) =
        layer.arguments.iter().partition(|argument| argument.option.is_some());
    let [optional, required] =
        [optional, required].map(|arguments| arguments.into_iter().map(|argument| &argument.name));
    let like = layer.arguments.iter().find_map(Argument::tensor);
    let like = like.unwrap_or_else(|| quote!(::core::option::Option::None));
    let span = Span::mixed_site();
    let self_ = Ident::new("self", span);
    quote_spanned! {span=>
        /// Runs the layer.
        ///
        /// # Errors
        /// What the layer reports, with the path of its scope.
        #[track_caller]
        // The `?` converts the error of a function that returns another `Result`.
        #[allow(clippy::needless_question_mark)]
        #visibility fn call(#self_) -> #layerfn::__private::Result<#output> {
            let Self { #(#names,)* name: __pf_name, fix_parameters: __pf_fix_parameters } = #self_;
            #layerfn::__private::call_layer(
                #layerfn::__private::LayerCall {
                    info: Self::INFO,
                    name: __pf_name.as_deref(),
                    fix_parameters: __pf_fix_parameters,
                    like: #like,
                },
                || {
                    #layerfn::__private::note_arguments!([#(#required)*] [#(#optional)*]);
                    #(#resolved)*
                    #run
                },
            )
        }
    }
}

fn traits(layer: &Layer) -> TokenStream {
    let attributes = layer.attributes.beside();
    let (structure, layerfn, forgiven) = (&layer.structure, &layer.args.layerfn, forgiven(layer));
    let output = output(layer);
    quote! {
        #forgiven
        #(#attributes)*
        impl #layerfn::__private::ParametricFunction for #structure {
            const INFO: &'static #layerfn::__private::LayerInfo = #structure::INFO;
            type Output = #output;

            #[track_caller]
            fn call(self) -> #layerfn::__private::Result<#output> {
                #structure::call(self)
            }
        }
    }
}

/// Implements fusion with the next function of a network; nothing for a layer that fuses with none.
fn fusion(layer: &Layer) -> Option<TokenStream> {
    if layer.args.fused.is_empty() {
        return None;
    }
    let attributes = layer.attributes.beside();
    let (structure, layerfn, forgiven) = (&layer.structure, &layer.args.layerfn, forgiven(layer));
    let output = output(layer);
    let declared = layer.args.fused.iter().map(|fused| {
        let path = &fused.path;
        quote_spanned!(generated_at(path)=> #layerfn::__private::declared_fusion::<#output, _, _>(&#path);)
    });
    let arms = layer.args.fused.iter().map(|fused| {
        let (path, flag) = (&fused.path, &fused.flag);
        quote! {
            if #layerfn::__private::is_same_function(next, &#path) {
                self.#flag = true;
                return true;
            }
        }
    });
    Some(quote! {
        #forgiven
        #(#attributes)*
        const _: () = { #(#declared)* };

        #forgiven
        #(#attributes)*
        impl #layerfn::__private::Fuses for #structure {
            fn fuse<F>(&mut self, next: &F) -> bool {
                #(#arms)*
                false
            }
        }
    })
}

/// The output of the layer.
fn output(layer: &Layer) -> TokenStream {
    layer.output.as_ref().map_or_else(|| quote!(()), ToTokens::to_token_stream)
}

/// `INFO` of the structure.
pub(super) fn info_constant(layer: &Layer) -> TokenStream {
    let (visibility, layerfn, info) = (&layer.visibility, &layer.args.layerfn, info(layer));
    quote! {
        /// The layer's name, arguments and parameters.
        #visibility const INFO: &'static #layerfn::__private::LayerInfo = {
            // A single address, which identifies the layer.
            static INFO: #layerfn::__private::LayerInfo = #info;
            &INFO
        };
    }
}

/// The layer as a `LayerInfo`.
fn info(layer: &Layer) -> TokenStream {
    let layerfn = &layer.args.layerfn;
    let name = layer.name();
    let scope = layer.args.scope.as_ref().map(syn::LitStr::value).unwrap_or_default();
    let doc = attrs::first_paragraph(&attrs::doc_lines(&layer.attributes.docs));
    let arguments = layer.arguments.iter().map(|argument| {
        let name = argument.name.unraw().to_string();
        let (ty, default) = (print::ty(&argument.ty), option(argument.default_text()));
        let doc = attrs::one_line(&argument.doc_lines());
        quote!(#layerfn::__private::ArgumentInfo { name: #name, ty: #ty, default: #default, doc: #doc })
    });
    let parameters = layer.args.parameters.iter().map(|parameter| {
        let name = parameter.name.unraw().to_string();
        let (shape, need_grad) = (parameter.shape_text(), parameter.need_grad);
        let index = option(parameter.index.as_ref().map(Index::text));
        let (initial, when) = (
            docs::initial(layer, &parameter.initial, &str::to_owned),
            option(parameter.when.as_ref().map(print::expr)),
        );
        let doc = attrs::one_line(&parameter.docs);
        quote! {
            #layerfn::__private::ParameterInfo {
                name: #name,
                shape: #shape,
                index: #index,
                need_grad: #need_grad,
                initial: #initial,
                when: #when,
                doc: #doc,
            }
        }
    });
    let family = match &layer.args.family {
        Some(family) => family.clone(),
        None => Ident::new("Other", Span::call_site()),
    };
    let multiply_adds = option(layer.args.multiply_adds.as_ref().map(|factors| list_text(factors)));
    quote! {
        #layerfn::__private::LayerInfo {
            name: #name,
            scope: #scope,
            doc: #doc,
            family: #layerfn::__private::Family::#family,
            multiply_adds: #multiply_adds,
            arguments: &[#(#arguments),*],
            parameters: &[#(#parameters),*],
        }
    }
}

fn option(text: Option<String>) -> TokenStream {
    match text {
        Some(text) => quote!(::core::option::Option::Some(#text)),
        None => quote!(::core::option::Option::None),
    }
}

/// A deprecated layer warns its callers, but not itself.
fn forgiven(layer: &Layer) -> Option<TokenStream> {
    (!layer.attributes.deprecated.is_empty()).then(|| quote!(#[allow(deprecated)]))
}

fn hidden_name(layer: &Layer) -> Ident {
    format_ident!("__pf_{}", layer.name(), span = layer.signature.ident.span())
}

impl Layer {
    /// The variables of `fuses(..)`, which are fields of the structure and arguments of the body.
    fn flags(&self) -> impl Iterator<Item = &Ident> {
        self.args.fused.iter().map(|fused| &fused.flag)
    }
}

impl Argument {
    /// The type that the caller passes to the function or the setter, without `impl Into`.
    pub(super) fn given_type(&self) -> Type {
        match (&self.holding, &self.option) {
            (Holding::Option(inner), Some(_)) => inner.clone(),
            (Holding::OptionReference(inner), Some(_)) => syn::parse_quote!(&#inner),
            _ => bare(&self.ty).clone(),
        }
    }

    /// `name: type` as the caller passes it.
    fn taken(&self) -> TokenStream {
        let (name, ty) = (&self.name, self.given_type());
        let ty = match self.into {
            true => quote_spanned!(generated_at(name)=> impl ::core::convert::Into<#ty>),
            false => ty.to_token_stream(),
        };
        quote!(#name: #ty)
    }

    /// The type of the value in the structure.
    fn stored_type(&self) -> TokenStream {
        match &self.holding {
            Holding::Value | Holding::Option(_) => bare(&self.ty).to_token_stream(),
            Holding::Reference(inner) => quote!(<#inner as ::std::borrow::ToOwned>::Owned),
            Holding::OptionReference(inner) => {
                quote!(::core::option::Option<<#inner as ::std::borrow::ToOwned>::Owned>)
            }
        }
    }

    /// The value to store, from the one passed.
    fn stored_value(&self) -> TokenStream {
        let name = &self.name;
        match (&self.holding, &self.option) {
            _ if self.into => quote!(::core::convert::Into::into(#name)),
            (Holding::Value | Holding::Option(_), _) => quote!(#name),
            (Holding::OptionReference(_), None) => {
                quote!(::core::option::Option::map(#name, ::std::borrow::ToOwned::to_owned))
            }
            (Holding::Reference(_) | Holding::OptionReference(_), _) => {
                quote!(::std::borrow::ToOwned::to_owned(#name))
            }
        }
    }

    /// The setters of an optional argument.
    fn setters(&self, layer: &Layer) -> TokenStream {
        let Some(opt) = &self.option else { return TokenStream::new() };
        let span = generated_at(&self.name);
        let self_ = Ident::new("self", span);
        let (visibility, name, taken) = (&layer.visibility, &self.name, self.taken());
        let mut lines = self.doc_lines();
        if !lines.is_empty() {
            lines.push(String::new());
        }
        let default = print::cut(&self.default_text().unwrap_or_default(), 300);
        lines.push(match &*default {
            NO_DEFAULT => format!("Default: {default}."),
            default if default.contains('`') => format!("Default: `` {default} ``."),
            default => format!("Default: `{default}`."),
        });
        let docs = lines.iter().map(|line| format!(" {line}")).collect::<Vec<_>>();
        let optional = matches!(self.holding, Holding::Option(_) | Holding::OptionReference(_));
        let value = self.stored_value();
        let value = if optional { quote!(::core::option::Option::Some(#value)) } else { value };
        let setter = quote_spanned! {span=>
            #(#[doc = #docs])*
            #visibility fn #name(mut #self_, #taken) -> Self {
                #self_.#name = ::core::option::Option::Some(#value);
                #self_
            }
        };
        let maybe = opt.maybe.then(|| self.maybe_setter(layer, span));
        quote!(#setter #maybe)
    }

    /// `maybe_x`, which takes the `Option` itself.
    fn maybe_setter(&self, layer: &Layer, span: Span) -> TokenStream {
        let self_ = Ident::new("self", span);
        let (visibility, name, ty) = (&layer.visibility, &self.name, self.given_type());
        let setter = format_ident!("maybe_{}", name.unraw(), span = name.span());
        let docs = format!(" As [`{name}`](Self::{name}), from an `Option`; `None` is passed on as such.");
        let map = |convert: TokenStream| quote!(::core::option::Option::map(#name, #convert));
        let (taken, value) = if self.into {
            (quote!(impl ::core::convert::Into<#ty>), map(quote!(::core::convert::Into::into)))
        } else if matches!(self.holding, Holding::OptionReference(_)) {
            (ty.to_token_stream(), map(quote!(::std::borrow::ToOwned::to_owned)))
        } else {
            (ty.to_token_stream(), name.to_token_stream())
        };
        quote_spanned! {span=>
            #[doc = #docs]
            #visibility fn #setter(mut #self_, #name: ::core::option::Option<#taken>) -> Self {
                #self_.#name = ::core::option::Option::Some(#value);
                #self_
            }
        }
    }

    /// Converts the stored value to the declared type; a default may use the arguments before it and `?`.
    fn resolved(&self) -> TokenStream {
        let (name, ty) = (&self.name, &self.ty);
        let span = generated_at(&self.name);
        let Some(opt) = &self.option else {
            return match self.holding {
                Holding::Value | Holding::Option(_) => TokenStream::new(),
                Holding::Reference(_) => {
                    quote_spanned!(span=> let #name: #ty = ::std::borrow::Borrow::borrow(&#name);)
                }
                Holding::OptionReference(_) => quote_spanned! {span=>
                    let #name: #ty = ::core::option::Option::map(#name.as_ref(), ::std::borrow::Borrow::borrow);
                },
            };
        };
        match self.holding {
            Holding::Option(_) if opt.default.is_none() => {
                return quote_spanned!(span=> let #name: #ty = ::core::option::Option::flatten(#name););
            }
            Holding::OptionReference(_) if opt.default.is_none() => {
                return quote_spanned! {span=>
                    let #name: #ty = ::core::option::Option::map(
                        #name.as_ref().and_then(::core::option::Option::as_ref),
                        ::std::borrow::Borrow::borrow,
                    );
                };
            }
            _ => {}
        }
        let default = match &opt.default {
            Some(default) if self.into && !matches!(self.holding, Holding::Option(_)) => {
                quote_spanned!(span=> ::core::convert::Into::<#ty>::into(#default))
            }
            // Bound to a name, so that a default of the wrong type is reported as such; a borrowed one must
            // outlive the name.
            Some(default) if matches!(self.holding, Holding::Value | Holding::Option(_)) => {
                quote_spanned!(span=> {
                    let __pf_default: #ty = #default;
                    __pf_default
                })
            }
            Some(default) => default.to_token_stream(),
            None => quote_spanned!(span=> <#ty as ::core::default::Default>::default()),
        };
        let (matched, given) = match self.holding {
            Holding::Value | Holding::Option(_) => (quote!(#name), quote_spanned!(span=> __pf_given)),
            Holding::Reference(_) => {
                (quote!(&#name), quote_spanned!(span=> ::std::borrow::Borrow::borrow(__pf_given)))
            }
            Holding::OptionReference(_) => (
                quote!(&#name),
                quote_spanned! {span=>
                    ::core::option::Option::map(__pf_given.as_ref(), ::std::borrow::Borrow::borrow)
                },
            ),
        };
        quote_spanned! {span=>
            let #name: #ty = match #matched {
                ::core::option::Option::Some(__pf_given) => #given,
                ::core::option::Option::None => #default,
            };
        }
    }

    /// The tensor whose type and device new parameters get, as an `Option<&Tensor>`.
    fn tensor(&self) -> Option<TokenStream> {
        let name = &self.name;
        match (&self.holding, bare(&self.ty)) {
            _ if self.option.is_some() => None,
            (Holding::Reference(inner), _) if is_tensor(inner) => {
                Some(quote!(::core::option::Option::Some(&#name)))
            }
            (Holding::Value, ty) if is_tensor(ty) => Some(quote!(::core::option::Option::Some(&#name))),
            (Holding::Reference(inner), _) => match bare(inner) {
                Type::Slice(slice) if is_tensor(&slice.elem) => Some(quote!(<[_]>::first(&#name))),
                _ => None,
            },
            _ => None,
        }
    }
}

fn is_tensor(ty: &Type) -> bool {
    let Type::Path(path) = bare(ty) else { return false };
    path.path.segments.last().is_some_and(|last| last.ident == "Tensor")
}
