//! The grammar of `scope = ".."`, `options(..)`, `params(..)`, `fuses(..)`, `rename = ".."`, `crate = path`.

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::ToTokens;
use syn::ext::IdentExt;
use syn::parse::{ParseStream, Parser};
use syn::punctuated::Punctuated;
use syn::{
    Attribute, Expr, ExprPath, ExprRange, Ident, LitBool, LitStr, Meta, Path, RangeLimits, Token, bracketed,
    parenthesized,
};

use crate::support::errors::{Errors, expected};
use crate::support::names;
use crate::support::{attrs, print};

/// The content of `#[parametric_function(..)]`.
pub(super) struct Args {
    pub(super) scope: Option<LitStr>,
    pub(super) parameters: Vec<Parameter>,
    /// The key `params`, if there.
    pub(super) params_key: Option<Ident>,
    /// The variant of `Family` that the layer belongs to.
    pub(super) family: Option<Ident>,
    /// The factors whose product is the number of multiply-adds.
    pub(super) multiply_adds: Option<Vec<Size>>,
    /// The functions that the layer can apply to its output itself.
    pub(super) fused: Vec<Fused>,
    /// The name of the generated structure.
    pub(super) rename: Option<Ident>,
    /// The path of the crate `layerfn`.
    pub(super) layerfn: Path,
    /// Whether everything could be parsed; if not, names that seem to be missing may only be unreadable.
    pub(super) complete: bool,
}

/// A function in `fuses(..)`.
pub(super) struct Fused {
    pub(super) path: ExprPath,
    /// The variable that tells the body whether to apply the function: `relu_fused`.
    pub(super) flag: Ident,
}

/// A declared parameter: `/// doc`, `#[when(..)]`, `W: [sizes] = initial`.
pub(super) struct Parameter {
    pub(super) name: Ident,
    /// For a list of parameters, `W[i in 0..n]`, which append a number to their name.
    pub(super) index: Option<Index>,
    pub(super) shape: Vec<Size>,
    pub(super) initial: Expr,
    pub(super) need_grad: bool,
    pub(super) when: Option<Expr>,
    pub(super) docs: Vec<String>,
}

/// `i in 0..n`
pub(super) struct Index {
    pub(super) variable: Ident,
    pub(super) range: ExprRange,
}

/// An entry of a shape.
pub(super) enum Size {
    /// A `usize`.
    One(Expr),
    /// `..sizes`.
    Splice(Expr),
}

const KEYS: [&str; 8] = ["scope", "options", "params", "family", "multiply_adds", "fuses", "rename", "crate"];

impl Args {
    pub(super) fn read(tokens: TokenStream, errors: &mut Errors) -> Self {
        let mut args = Self {
            scope: None,
            parameters: Vec::new(),
            params_key: None,
            family: None,
            multiply_adds: None,
            fused: Vec::new(),
            rename: None,
            layerfn: syn::parse_quote!(::layerfn),
            complete: true,
        };
        let mut seen = Vec::new();
        let parsed = (|input: ParseStream<'_>| {
            comma_separated(input, errors, |input, errors| args.read_key(input, &mut seen, errors))
        })
        .parse2(tokens);
        args.complete &= errors.keep(parsed) == Some(true);
        args
    }

    fn read_key(
        &mut self,
        input: ParseStream<'_>,
        seen: &mut Vec<String>,
        errors: &mut Errors,
    ) -> syn::Result<()> {
        let key = input.call(Ident::parse_any).map_err(|error| {
            syn::Error::new(error.span(), "expected a key: `scope = \"..\"`, `params(..)`, `rename = \"..\"`")
        })?;
        let name = key.to_string();
        if seen.contains(&name) {
            return Err(syn::Error::new(key.span(), format!("`{name}` is given twice")));
        }
        seen.push(name.clone());
        match name.as_str() {
            "scope" => self.scope = Some(read_scope(&key, input)?),
            "params" => {
                if !input.peek(syn::token::Paren) {
                    let message = "write the declarations in parentheses, `params(W: [outmaps, inmaps] = 0.0)`, each \
                                   with a `///` line above it";
                    return Err(syn::Error::new(key.span(), message));
                }
                let content;
                parenthesized!(content in input);
                self.params_key = Some(key);
                self.complete &= comma_separated(&content, errors, |input, errors| {
                    self.parameters.push(read_parameter(input, errors)?);
                    Ok(())
                })?;
            }
            "options" => {
                if !input.peek(syn::token::Paren) {
                    let message =
                        "name the groups of arguments in parentheses, such as `options(window, bias)`";
                    return Err(syn::Error::new(key.span(), message));
                }
                read_options(input)?;
            }
            "family" => {
                assignment(&key, input, "family = Convolution")?;
                self.family = Some(input.call(Ident::parse_any)?);
            }
            "multiply_adds" => {
                let example = "multiply_adds = [inp.elem_count(), outmaps]";
                assignment(&key, input, example)?;
                if !input.peek(syn::token::Bracket) {
                    let message = format!("expected a list of numbers, which are multiplied: `{example}`");
                    return Err(syn::Error::new(key.span(), message));
                }
                let factors = read_sizes(input)?;
                refuse_question_marks(factors.iter().map(Size::expr), "`multiply_adds`")?;
                self.multiply_adds = Some(factors);
            }
            "fuses" => {
                let example = "write the functions in parentheses: `fuses(relu)`";
                if !input.peek(syn::token::Paren) {
                    return Err(syn::Error::new(key.span(), example));
                }
                let content;
                parenthesized!(content in input);
                if content.is_empty() {
                    return Err(syn::Error::new(key.span(), format!("which functions? {example}")));
                }
                self.complete &= comma_separated(&content, errors, |input, _| {
                    let fused = Fused::read(input)?;
                    self.fused.push(fused);
                    Ok(())
                })?;
            }
            "rename" => self.rename = Some(read_rename(&key, input)?),
            "crate" => {
                assignment(&key, input, "crate = path::to::layerfn")?;
                self.layerfn = input.call(Path::parse_mod_style)?;
            }
            _ => {
                let message = format!("unknown key `{name}`; {}", expected(&name, KEYS));
                return Err(syn::Error::new(key.span(), message));
            }
        }
        Ok(())
    }
}

/// Parses items up to the end; after an item that cannot be parsed, it continues after the next comma.
///
/// Returns whether all of them could be parsed.
fn comma_separated(
    input: ParseStream<'_>,
    errors: &mut Errors,
    mut read: impl FnMut(ParseStream<'_>, &mut Errors) -> syn::Result<()>,
) -> syn::Result<bool> {
    let mut complete = true;
    while !input.is_empty() {
        let mut item = read(input, errors);
        if item.is_ok() && !input.is_empty() && !input.peek(Token![,]) {
            item = Err(input.error("expected `,` in front of this"));
        }
        if let Err(error) = item {
            errors.push(error);
            complete = false;
            while !input.is_empty() && !input.peek(Token![,]) {
                input.parse::<TokenTree>()?;
            }
        }
        input.parse::<Option<Token![,]>>()?;
    }
    Ok(complete)
}

/// The `=` after `key`.
fn assignment(key: &Ident, input: ParseStream<'_>, example: &str) -> syn::Result<()> {
    if input.peek(Token![=]) && !input.peek(Token![==]) {
        input.parse::<Token![=]>().map(drop)
    } else {
        Err(syn::Error::new(key.span(), format!("`{key}` needs a value: `{example}`")))
    }
}

/// The string after `key`.
fn string(key: &Ident, input: ParseStream<'_>, example: &str) -> syn::Result<LitStr> {
    assignment(key, input, example)?;
    let message = format!("expected a string in quotes: `{example}`");
    if input.is_empty() {
        return Err(syn::Error::new(key.span(), message));
    }
    input.parse().map_err(|error: syn::Error| syn::Error::new(error.span(), message))
}

fn read_scope(key: &Ident, input: ParseStream<'_>) -> syn::Result<LitStr> {
    let scope = string(key, input, "scope = \"conv\"")?;
    let name = scope.value();
    let problem = if name.is_empty() {
        "the scope is empty; name it after the layer, as in `scope = \"conv\"`, or leave the key out if the \
         function declares no parameters"
    } else if name.split('/').any(str::is_empty) {
        "the scope has an empty part; write names with one `/` between them, as in `\"block/conv\"`"
    } else if name.contains(|c: char| c.is_whitespace() || c.is_control()) {
        "a scope is part of a path; write it without spaces"
    } else if let Some(fault) = names::fault(&name) {
        fault
    } else {
        return Ok(scope);
    };
    Err(syn::Error::new(scope.span(), problem))
}

/// The list after the key `options`.
pub(super) fn read_options(input: ParseStream<'_>) -> syn::Result<Vec<Path>> {
    let content;
    parenthesized!(content in input);
    Ok(Punctuated::<Path, Token![,]>::parse_terminated(&content)?.into_iter().collect())
}

fn read_rename(key: &Ident, input: ParseStream<'_>) -> syn::Result<Ident> {
    let name = string(key, input, "rename = \"Conv\"")?;
    name.parse().map_err(|_| {
        syn::Error::new(
            name.span(),
            "expected the name of a structure, such as `rename = \"ConvolutionLayer\"`",
        )
    })
}

fn read_parameter(input: ParseStream<'_>, errors: &mut Errors) -> syn::Result<Parameter> {
    let attributes = input.call(Attribute::parse_outer)?;
    if input.is_empty() {
        let message = "expected a parameter after this, such as `W: [outmaps, inmaps] = 0.0`";
        return Err(match attributes.last() {
            Some(last) => syn::Error::new_spanned(last, message),
            None => input.error(message),
        });
    }
    let name = input.call(Ident::parse_any).map_err(|error| {
        syn::Error::new(error.span(), "expected the name of a parameter, as in `W: [outmaps, inmaps] = 0.0`")
    })?;
    let index = if input.peek(syn::token::Bracket) { Some(Index::read(&name, input)?) } else { None };
    if !input.peek(Token![:]) || input.peek(Token![::]) {
        let message = format!("parameter `{name}` needs a shape: `{name}: [outmaps, inmaps] = 0.0`");
        return Err(syn::Error::new(name.span(), message));
    }
    let colon: Token![:] = input.parse()?;
    let shape = read_shape(&name, colon.span, input)?;
    if !input.peek(Token![=]) || input.peek(Token![==]) {
        let message = format!("parameter `{name}` needs an initial value after its shape, such as ` = 0.0`");
        return Err(syn::Error::new(name.span(), message));
    }
    let equals: Token![=] = input.parse()?;
    if input.is_empty() || input.peek(Token![,]) {
        return Err(syn::Error::new(equals.span, format!("the initial value of `{name}` is missing")));
    }
    let initial: Expr = input.parse()?;
    refuse_question_marks(
        shape.iter().map(Size::expr).chain([&initial]),
        &format!("the declaration of `{name}`"),
    )?;
    let docs = attrs::doc_lines(&attributes);
    let mut parameter = Parameter { docs, name, index, shape, initial, need_grad: true, when: None };
    for attribute in &attributes {
        parameter.apply(attribute, errors);
    }
    if attrs::one_line(&parameter.docs).is_empty() {
        let name = &parameter.name;
        errors.at(name, format!("parameter `{name}` needs a description: `/// ..` on the line above it"));
    }
    Ok(parameter)
}

fn read_shape(name: &Ident, colon: Span, input: ParseStream<'_>) -> syn::Result<Vec<Size>> {
    if !input.peek(syn::token::Bracket) {
        let message = format!("expected the shape of `{name}` in brackets: `{name}: [outmaps, ..kernel]`");
        let at = if input.is_empty() { colon } else { input.span() };
        return Err(syn::Error::new(at, message));
    }
    read_sizes(input)
}

/// `[a, ..list, b]`
fn read_sizes(input: ParseStream<'_>) -> syn::Result<Vec<Size>> {
    let content;
    bracketed!(content in input);
    let mut sizes = Vec::new();
    while !content.is_empty() {
        sizes.push(if content.parse::<Option<Token![..]>>()?.is_some() {
            Size::Splice(content.parse()?)
        } else {
            Size::One(content.parse()?)
        });
        if !content.is_empty() {
            content.parse::<Token![,]>()?;
        }
    }
    Ok(sizes)
}

/// `outmaps, inmaps / group, ..kernel`
pub(super) fn list_text(sizes: &[Size]) -> String {
    let sizes = sizes.iter().map(|size| match size {
        Size::One(size) => print::expr(size),
        Size::Splice(sizes) => format!("..{}", print::expr(sizes)),
    });
    sizes.collect::<Vec<_>>().join(", ")
}

impl Size {
    fn expr(&self) -> &Expr {
        match self {
            Self::One(size) | Self::Splice(size) => size,
        }
    }
}

fn refuse_question_marks<'a>(parts: impl Iterator<Item = &'a Expr>, place: &str) -> syn::Result<()> {
    for part in parts {
        if let Some(mark) = question_mark(part.to_token_stream()) {
            let message = format!(
                "`?` cannot stand in {place}; compute the value in the body with `let` and name it here"
            );
            return Err(syn::Error::new_spanned(mark, message));
        }
    }
    Ok(())
}

impl Index {
    fn read(name: &Ident, input: ParseStream<'_>) -> syn::Result<Self> {
        let example = format!("a list of parameters is declared as `{name}[i in 0..n]: [sizes] = initial`");
        let content;
        let bracket = bracketed!(content in input);
        let refuse = |span: Span| syn::Error::new(span, &example);
        let variable = content.parse().map_err(|_| refuse(bracket.span.join()))?;
        content.parse::<Token![in]>().map_err(|_| refuse(bracket.span.join()))?;
        let expr = content.parse::<Expr>().map_err(|_| refuse(bracket.span.join()))?;
        match expr {
            Expr::Range(
                range @ ExprRange { start: Some(_), limits: RangeLimits::HalfOpen(_), end: Some(_), .. },
            ) if content.is_empty() => {
                refuse_question_marks(
                    [&Expr::Range(range.clone())].into_iter(),
                    &format!("the declaration of `{name}`"),
                )?;
                Ok(Self { variable, range })
            }
            other => Err(syn::Error::new_spanned(other, &example)),
        }
    }

    /// The index as it is written: `i in 0..n`.
    pub(super) fn text(&self) -> String {
        format!("{} in {}", self.variable, self.range_text())
    }

    pub(super) fn range_text(&self) -> String {
        print::expr(&Expr::Range(self.range.clone()))
    }
}

/// The first `?` outside of closures: the expression becomes a closure that does not return a `Result`.
fn question_mark(tokens: TokenStream) -> Option<TokenTree> {
    for token in tokens {
        match token {
            TokenTree::Punct(ref punct) if punct.as_char() == '|' => return None,
            TokenTree::Punct(ref punct) if punct.as_char() == '?' => return Some(token),
            TokenTree::Group(group) => {
                if let Some(mark) = question_mark(group.stream()) {
                    return Some(mark);
                }
            }
            _ => {}
        }
    }
    None
}

impl Fused {
    fn read(input: ParseStream<'_>) -> syn::Result<Self> {
        match input.parse()? {
            Expr::Path(path) => {
                let name = path.path.segments.last().map(|last| last.ident.clone());
                let name = name.unwrap_or_else(|| Ident::new("function", Span::call_site()));
                let flag = quote::format_ident!("{}_fused", name.unraw(), span = name.span());
                Ok(Self { path, flag })
            }
            other => {
                let message = "expected the path of a function, as in `fuses(functions::relu)`";
                Err(syn::Error::new_spanned(other, message))
            }
        }
    }

    /// The function's name, without the path before it.
    pub(super) fn name(&self) -> String {
        self.path.path.segments.last().map(|last| last.ident.unraw().to_string()).unwrap_or_default()
    }
}

impl Parameter {
    fn apply(&mut self, attribute: &Attribute, errors: &mut Errors) {
        let path = attribute.path();
        if path.is_ident("doc") {
        } else if path.is_ident("need_grad") {
            match attribute.parse_args::<LitBool>() {
                Ok(value) => self.need_grad = value.value,
                Err(_) => {
                    errors.at(attribute, "write `#[need_grad(false)]`; without it the parameter is trained")
                }
            }
        } else if path.is_ident("when") {
            match (&attribute.meta, &self.when) {
                (_, Some(_)) => errors.at(attribute, "a second `#[when(..)]`; join the conditions with `&&`"),
                (Meta::List(list), None) if !list.tokens.is_empty() => {
                    self.when = errors.keep(list.parse_args());
                }
                _ => errors.at(
                    attribute,
                    "write the condition under which the parameter exists: `#[when(with_bias)]`",
                ),
            }
        } else {
            let name = print::path(path);
            errors
                .at(path, format!("unknown attribute `{name}`; {}", expected(&name, ["need_grad", "when"])));
        }
    }

    /// The shape as documentation shows it: `(outmaps, inmaps / group, ..kernel)`.
    pub(super) fn shape_text(&self) -> String {
        format!("({})", list_text(&self.shape))
    }

    /// The name as documentation shows it; `W{i}` for a list of parameters.
    pub(super) fn name_text(&self) -> String {
        match &self.index {
            Some(index) => format!("{}{{{}}}", self.name.unraw(), index.variable),
            None => self.name.unraw().to_string(),
        }
    }
}
