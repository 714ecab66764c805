//! A function as a layer: its arguments, how each of them is stored, its output.

use proc_macro2::{Group, Span, TokenStream, TokenTree};
use quote::ToTokens;
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::spanned::Spanned;
use syn::{
    Attribute, Expr, FnArg, GenericArgument, Ident, Meta, Pat, PatType, PathArguments, ReturnType, Safety,
    Signature, Token, Type, Visibility,
};

use super::args::Args;
use crate::support::attrs::{self, ItemAttributes};
use crate::support::errors::{Errors, expected};
use crate::support::print;
use crate::support::types::{self, bare};

/// A function whose body remains raw tokens, so that half-typed code still reaches the compiler.
pub(super) struct Function {
    pub(super) attributes: Vec<Attribute>,
    pub(super) visibility: Visibility,
    pub(super) signature: Signature,
    pub(super) body: Group,
}

impl Parse for Function {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let attributes = input.call(Attribute::parse_outer)?;
        let visibility = input.parse()?;
        let signature = input.parse()?;
        if input.peek(Token![;]) {
            return Err(input.error("a layer needs a body"));
        }
        Ok(Self { attributes, visibility, signature, body: input.parse()? })
    }
}

/// A function and its declarations, parsed and checked.
pub(super) struct Layer {
    pub(super) args: Args,
    pub(super) attributes: ItemAttributes,
    pub(super) visibility: Visibility,
    /// As written, without the attributes that only this macro knows.
    pub(super) signature: Signature,
    pub(super) body: Group,
    pub(super) arguments: Vec<Argument>,
    /// `T` of the returned `Result<T>`.
    pub(super) output: Option<Type>,
    /// The name of the generated structure.
    pub(super) structure: Ident,
    /// Whether a structure can be made for the signature.
    pub(super) storable: bool,
}

/// An argument of a layer.
pub(super) struct Argument {
    pub(super) name: Ident,
    /// As declared.
    pub(super) ty: Type,
    pub(super) docs: Vec<Attribute>,
    pub(super) holding: Holding,
    /// Whether the caller passes an `impl Into<..>`.
    pub(super) into: bool,
    /// The content of `#[opt]`; the argument is required without it.
    pub(super) option: Option<Opt>,
}

/// How a value is kept until `call()`.
pub(super) enum Holding {
    /// As it is.
    Value,
    /// `&T` as `<T as ToOwned>::Owned`.
    Reference(Type),
    /// `Option<T>` as it is; the setter takes a `T`.
    Option(Type),
    /// `Option<&T>` as `Option<<T as ToOwned>::Owned>`; the setter takes a `&T`.
    OptionReference(Type),
}

/// The keys of `#[opt(..)]`.
#[derive(Default)]
pub(super) struct Opt {
    pub(super) default: Option<Expr>,
    pub(super) maybe: bool,
}

impl Layer {
    pub(super) fn read(args: Args, function: Function, errors: &mut Errors) -> Self {
        let Function { attributes, visibility, mut signature, body } = function;
        let mut storable = check_signature(&signature, errors);
        let mut arguments = Vec::new();
        for input in &mut signature.inputs {
            match input {
                FnArg::Typed(typed) => match Argument::read(typed, errors) {
                    Some(argument) => arguments.push(argument),
                    None => storable = false,
                },
                FnArg::Receiver(receiver) => {
                    storable = false;
                    let message = "a layer is a free function; take what it needs from `self` as an argument";
                    errors.at(receiver, message);
                }
            }
        }
        let output = read_output(&signature, errors);
        let structure = args.rename.clone().unwrap_or_else(|| upper_camel_case(&signature.ident));
        let attributes = ItemAttributes::sort(attributes);
        Self { args, attributes, visibility, signature, body, arguments, output, structure, storable }
    }

    /// The function's name, without `r#`.
    pub(super) fn name(&self) -> String {
        self.signature.ident.unraw().to_string()
    }

    /// Whether the default of another argument may use this one.
    pub(super) fn serves_a_default(&self, argument: &Argument) -> bool {
        let defaults = self.arguments.iter().filter_map(|other| other.option.as_ref()?.default.as_ref());
        defaults.into_iter().any(|default| mentions(default.to_token_stream(), &argument.name))
    }

    /// Whether parameters can be registered inside; otherwise `fix_parameters` has no effect.
    pub(super) fn has_scope(&self) -> bool {
        self.args.scope.is_some()
    }
}

/// Whether a structure can hold a call of this function.
fn check_signature(signature: &Signature, errors: &mut Errors) -> bool {
    let mut storable = true;
    let mut refuse = |tokens: &dyn ToTokens, message: &str| {
        storable = false;
        errors.at(tokens.to_token_stream(), message);
    };
    if let Some(token) = &signature.constness {
        refuse(token, "a layer cannot be `const`: it makes parameters when it runs");
    }
    if let Some(token) = &signature.asyncness {
        refuse(token, "a layer cannot be `async`: its scope belongs to the thread that runs it");
    }
    if let Safety::Unsafe(token) = &signature.safety {
        refuse(token, "a layer cannot be `unsafe`; put the unsafe part in a function that it calls");
    }
    if let Some(abi) = &signature.abi {
        refuse(abi, "a layer cannot be `extern`");
    }
    if let Some(variadic) = &signature.variadic {
        refuse(variadic, "a layer cannot be variadic; take a slice, `&[Tensor]`");
    }
    let generics = &signature.generics;
    if generics.type_params().next().is_some() || generics.const_params().next().is_some() {
        refuse(
            generics,
            "`#[parametric_function]` cannot take generic functions; use a concrete type, and `#[into]` on the \
             argument to accept everything that converts into it",
        );
    } else if !generics.params.is_empty() {
        refuse(
            generics,
            "a layer stores its arguments and has no lifetimes; write `&T`, it is stored as an owned value",
        );
    } else if let Some(clause) = &generics.where_clause {
        refuse(clause, "a layer has no generics, so there is nothing for `where` to restrict");
    }
    storable
}

fn read_output(signature: &Signature, errors: &mut Errors) -> Option<Type> {
    let ReturnType::Type(_, ty) = &signature.output else {
        errors.at(&signature.ident, "a layer returns `Result<T>`; write `-> Result<Tensor>`");
        return None;
    };
    let arguments = types::result(ty).and_then(|result| generic_types(&result.arguments));
    match arguments.as_deref() {
        Some([output] | [output, _]) => {
            let borrowed = borrowed_part(output);
            if let Some(part) = &borrowed {
                errors.at(part, "a layer returns owned values; a `Tensor` is cheap to clone");
            }
            borrowed.is_none().then(|| output.clone())
        }
        _ => {
            let message = format!("a layer returns `Result<T>`; write `Result<{}>`", print::ty(ty));
            errors.at(
                ty,
                if matches!(bare(ty), Type::Path(_)) && arguments.is_some() {
                    "a layer returns `Result<T>`; name what it returns, as in `Result<Tensor>`"
                } else {
                    &message
                },
            );
            None
        }
    }
}

impl Argument {
    /// Removes the attributes of this macro from `typed`.
    pub(super) fn read(typed: &mut PatType, errors: &mut Errors) -> Option<Self> {
        let mut docs = Vec::new();
        let mut into = false;
        let mut option = None;
        let mut kept = Vec::new();
        let ty = (*typed.ty).clone();
        for attribute in std::mem::take(&mut typed.attrs) {
            let path = attribute.path();
            if path.is_ident("doc") {
                docs.push(attribute);
            } else if path.is_ident("into") {
                if !matches!(attribute.meta, Meta::Path(_)) {
                    errors.at(
                        &attribute,
                        "`#[into]` stands alone; for an optional argument write `#[opt(into)]`",
                    );
                }
                into = true;
            } else if path.is_ident("opt") {
                if option.is_some() {
                    errors.at(&attribute, "a second `#[opt]`; write all its keys in one");
                }
                option = Some(read_opt(&attribute, &mut into, errors));
            } else if path.is_ident("cfg") || path.is_ident("cfg_attr") {
                errors.at(&attribute, "an argument cannot be conditional; put the condition on the function");
            } else if ["allow", "expect", "warn", "deny", "forbid"].iter().any(|lint| path.is_ident(lint)) {
                kept.push(attribute);
            } else {
                let name = print::path(path);
                let message = format!(
                    "unknown attribute `{name}` on an argument; {}",
                    expected(&name, ["opt", "into"])
                );
                errors.at(path, message);
            }
        }
        typed.attrs = kept;
        let name = match &*typed.pat {
            Pat::Ident(pattern) if pattern.by_ref.is_none() && pattern.subpat.is_none() => {
                pattern.ident.clone()
            }
            pattern => {
                errors.at(
                    pattern,
                    "an argument of a layer needs a name: write `x` here and take it apart in the body",
                );
                return None;
            }
        };
        let holding = errors.keep(Holding::of(&ty))?;
        let mut argument = Self { name, ty, docs, holding, into, option };
        argument.check(errors);
        Some(argument)
    }

    /// Drops the keys that the type does not allow, so that there is only one error.
    fn check(&mut self, errors: &mut Errors) {
        let reference = matches!(self.holding, Holding::Reference(_) | Holding::OptionReference(_));
        if self.into && reference {
            errors.at(&self.ty, "a borrowed argument cannot be converted; take it by value to use `into`");
            self.into = false;
        }
        let option = matches!(self.holding, Holding::Option(_) | Holding::OptionReference(_));
        if let Some(opt) = self.option.as_mut().filter(|opt| opt.maybe && !option) {
            opt.maybe = false;
            errors.at(
                &self.ty,
                "`maybe` adds a setter that takes an `Option`; it needs an argument of type `Option<T>`",
            );
        }
    }

    /// The documentation of the argument, line by line.
    pub(super) fn doc_lines(&self) -> Vec<String> {
        attrs::doc_lines(&self.docs)
    }

    /// The default as documentation shows it; `None` if the argument is required.
    pub(super) fn default_text(&self) -> Option<String> {
        let opt = self.option.as_ref()?;
        let optional = matches!(self.holding, Holding::Option(_) | Holding::OptionReference(_));
        Some(match opt.default.as_ref().map(print::expr) {
            // Callers leave such an option out; they never write `None`.
            None if optional => NO_DEFAULT.to_owned(),
            Some(default) if optional && default == "None" => NO_DEFAULT.to_owned(),
            Some(default) => default,
            None => match print::ty(&self.ty).as_str() {
                "bool" => "false".to_owned(),
                "usize" | "u8" | "u16" | "u32" | "u64" | "isize" | "i8" | "i16" | "i32" | "i64" => {
                    "0".to_owned()
                }
                "f32" | "f64" => "0.0".to_owned(),
                "&str" | "String" => "\"\"".to_owned(),
                other => format!("{other}::default()"),
            },
        })
    }
}

/// The documented default of an option that has no value by default.
pub(super) const NO_DEFAULT: &str = "none";

fn read_opt(attribute: &Attribute, into: &mut bool, errors: &mut Errors) -> Opt {
    let mut opt = Opt::default();
    let mut seen = Vec::<Ident>::new();
    let list = match &attribute.meta {
        Meta::Path(_) => return opt,
        Meta::List(list) => list,
        Meta::NameValue(_) => {
            errors.at(attribute, "write the default as a key: `#[opt(default = value)]`");
            return opt;
        }
    };
    if let Some(token @ (TokenTree::Literal(_) | TokenTree::Punct(_) | TokenTree::Group(_))) =
        list.tokens.clone().into_iter().next()
    {
        errors.at(token, "expected a key: `default = value`, `into` or `maybe`");
        return opt;
    }
    let parsed = list.parse_nested_meta(|meta| {
        let key =
            meta.path.get_ident().cloned().ok_or_else(|| meta.error("expected a key such as `default`"))?;
        if seen.contains(&key) {
            return Err(meta.error(format!("`{key}` is given twice")));
        }
        seen.push(key.clone());
        if key == "default" {
            let missing = match meta.value() {
                Ok(value) => value.is_empty() || value.peek(Token![,]),
                Err(_) => true,
            };
            if missing {
                let message =
                    "`default` needs a value: `default = 1`; plain `#[opt]` uses `Default::default()`";
                return Err(meta.error(message));
            }
            opt.default = Some(meta.input.parse()?);
        } else if key == "into" {
            *into = true;
        } else if key == "maybe" {
            opt.maybe = true;
        } else {
            let key = key.to_string();
            let help = expected(&key, ["default", "into", "maybe"]);
            return Err(meta.error(format!("unknown key `{key}`; {help}")));
        }
        if !meta.input.is_empty() && !meta.input.peek(Token![,]) {
            return Err(meta.error(format!("`{key}` takes no value")));
        }
        Ok(())
    });
    errors.keep(parsed);
    opt
}

impl Holding {
    fn of(ty: &Type) -> syn::Result<Self> {
        let refuse = |tokens: &dyn ToTokens, message: &str| {
            Err(syn::Error::new_spanned(tokens.to_token_stream(), message))
        };
        match bare(ty) {
            Type::ImplTrait(ty) => refuse(
                ty,
                "a layer stores its arguments, so each has a named type; with `#[into]` on the argument the \
                 caller may give everything that converts into it",
            ),
            Type::Infer(ty) => refuse(ty, "the type of an argument must be written out"),
            Type::Reference(reference) if is_static(reference) => Ok(Self::Value),
            Type::Reference(reference) => match reference {
                _ if reference.mutability.is_some() => {
                    refuse(reference, "a layer cannot keep a `&mut`; take the value and return the new one")
                }
                _ if reference.lifetime.is_some() => refuse(
                    &reference.lifetime,
                    "a layer stores its arguments and has no lifetimes; write `&T`, it is stored as an owned value",
                ),
                _ => match bare(&reference.elem) {
                    Type::TraitObject(object) => refuse(
                        object,
                        "a borrowed trait object cannot be stored; take an `Arc<dyn ..>` or a type of your own",
                    ),
                    elem => match borrowed_part(elem) {
                        Some(part) => refuse(&part, NESTED),
                        None => Ok(Self::Reference(elem.clone())),
                    },
                },
            },
            bare_ty => match option_of(bare_ty) {
                Some(inner) => match Self::of(&inner)? {
                    Self::Reference(inner) => Ok(Self::OptionReference(inner)),
                    _ => Ok(Self::Option(inner)),
                },
                None => match borrowed_part(bare_ty) {
                    Some(part) => refuse(&part, NESTED),
                    None => Ok(Self::Value),
                },
            },
        }
    }
}

const NESTED: &str = "a layer stores its arguments, and cannot store a reference inside another type; only `&T` and \
                      `Option<&T>` are stored as owned values (for many tensors write `&[Tensor]`)";

fn is_static(reference: &syn::TypeReference) -> bool {
    reference.mutability.is_none()
        && reference.lifetime.as_ref().is_some_and(|lifetime| lifetime.ident == "static")
        && borrowed_part(&reference.elem).is_none()
}

fn generic_types(arguments: &PathArguments) -> Option<Vec<Type>> {
    match arguments {
        PathArguments::AngleBracketed(list) => list
            .args
            .iter()
            .map(|argument| match argument {
                GenericArgument::Type(ty) => Some(ty.clone()),
                _ => None,
            })
            .collect(),
        PathArguments::None => Some(Vec::new()),
        PathArguments::Parenthesized(_) => None,
    }
}

/// `T` of `Option<T>`.
fn option_of(ty: &Type) -> Option<Type> {
    let Type::Path(path) = ty else { return None };
    let last = path.path.segments.last().filter(|last| last.ident == "Option")?;
    match generic_types(&last.arguments)?.as_slice() {
        [inner] => Some(inner.clone()),
        _ => None,
    }
}

/// The first part of `ty` that borrows; types in `fn(..)` and `Fn(..)` do not count.
fn borrowed_part(ty: &Type) -> Option<TokenStream> {
    match ty {
        Type::Reference(reference) if is_static(reference) => None,
        Type::Reference(reference) => Some(reference.to_token_stream()),
        Type::Group(group) => borrowed_part(&group.elem),
        Type::Paren(paren) => borrowed_part(&paren.elem),
        Type::Array(array) => borrowed_part(&array.elem),
        Type::Slice(slice) => borrowed_part(&slice.elem),
        Type::Ptr(pointer) => borrowed_part(&pointer.elem),
        Type::Tuple(tuple) => tuple.elems.iter().find_map(borrowed_part),
        Type::ImplTrait(ty) => Some(ty.to_token_stream()),
        Type::Path(path) => path.path.segments.iter().find_map(|segment| match &segment.arguments {
            PathArguments::AngleBracketed(list) => list.args.iter().find_map(|argument| match argument {
                GenericArgument::Lifetime(lifetime) if lifetime.ident != "static" => {
                    Some(lifetime.to_token_stream())
                }
                GenericArgument::Type(ty) => borrowed_part(ty),
                _ => None,
            }),
            _ => None,
        }),
        _ => None,
    }
}

/// Whether `word` stands anywhere in `tokens`.
pub(super) fn mentions(tokens: TokenStream, word: &Ident) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Ident(ident) => ident == *word,
        TokenTree::Group(group) => mentions(group.stream(), word),
        _ => false,
    })
}

/// `residual_block` as `ResidualBlock`.
fn upper_camel_case(function: &Ident) -> Ident {
    let mut name = String::new();
    for word in function.unraw().to_string().split('_') {
        let mut letters = word.chars();
        if let Some(first) = letters.next() {
            // Between two digits the underscore is significant: `a_1_2` is not `a_12`.
            if first.is_numeric() && name.ends_with(char::is_numeric) {
                name.push('_');
            }
            name.extend(first.to_uppercase());
            name.extend(letters);
        }
    }
    if !name.starts_with(char::is_alphabetic) || name == "Self" {
        name.insert_str(0, "Layer");
    }
    Ident::new(&name, function.span())
}

/// The position of an argument, for code that belongs to it; its lints do not apply to that code.
pub(super) fn generated_at(tokens: &impl Spanned) -> Span {
    Span::mixed_site().located_at(tokens.span())
}
