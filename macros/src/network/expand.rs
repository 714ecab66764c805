//! Expands the syntax tree to Rust: a closure with one statement per stage.

use std::collections::{HashMap, HashSet};

use proc_macro2::{Delimiter, Group, Ident, Span, TokenStream, TokenTree};
use quote::{ToTokens, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::{Error, FnArg};

use super::ast::{
    Arguments, Body, Call, Chain, If, Input, Item, Join, JoinKind, Label, Network, Opt, Otherwise, Stage,
    Step,
};
use super::check::{counted_name, may_be_result};

/// `layerfn` is the path to the runtime. If the input is not `clear`, it is replaced by a network that does
/// nothing.
pub(super) fn expand(layerfn: &TokenStream, input: &Input, clear: bool, error: Option<Error>) -> TokenStream {
    let errors = error.map(Error::into_compile_error);
    match input {
        Input::Expression(_) if !clear => {
            quote!({ #errors #layerfn::__private::network1(#layerfn::__private::nothing) })
        }
        Input::Items(_) if !clear => quote!(#errors),
        Input::Expression(network) => {
            let network = expand_network(layerfn, network);
            match errors {
                Some(errors) => quote!({ #errors #network }),
                None => network,
            }
        }
        Input::Items(items) => {
            let items = items.iter().map(|item| expand_item(layerfn, item));
            quote!(#errors #(#items)*)
        }
    }
}

fn expand_network(layerfn: &TokenStream, network: &Network) -> TokenStream {
    let inputs = input_names(&network.body);
    let moved = &network.moved;
    let body = expand_body(layerfn, &network.body, &[], false);
    let constructor = Ident::new(&format!("network{}", inputs.len()), Span::call_site());
    // If a `move` is missing, rustc suggests it before the bar, which must be where the user can write it.
    let bar = quote_spanned!(network.start=> |);
    quote!(#layerfn::__private::#constructor(#moved #bar #(#inputs),* #bar #body))
}

fn expand_item(layerfn: &TokenStream, item: &Item) -> TokenStream {
    let Item { attrs, vis, name, arguments, output, body } = item;
    let inputs = input_names(body);
    let docs = super::docs::table(item);
    let body = expand_body(layerfn, body, arguments, output.is_none());
    let output = match output {
        Some(output) if may_be_result(output) => output.to_token_stream(),
        Some(output) => quote!(#layerfn::__private::Result<#output>),
        None => quote!(#layerfn::__private::Result<#layerfn::__private::Tensor>),
    };
    quote! {
        #(#attrs)*
        #docs
        // The table links to every stage, including private functions.
        #[allow(rustdoc::private_intra_doc_links)]
        #vis fn #name(#(#inputs: &#layerfn::__private::Tensor,)* #(#arguments),*) -> #output #body
    }
}

fn input_names(body: &Body) -> Vec<Ident> {
    if body.inputs.is_empty() { vec![local("input")] } else { body.inputs.clone() }
}

/// A name that the user's expressions cannot see.
fn local(name: &str) -> Ident {
    Ident::new(&format!("__pf_{name}"), Span::mixed_site())
}

/// As [`local`], but errors about it are reported at `span`.
fn local_at(name: &str, span: Span) -> Ident {
    Ident::new(&format!("__pf_{name}"), Span::mixed_site().located_at(span))
}

/// The code inside refers to the runtime as `__pf_private`, whatever its path is.
///
/// `arguments` are those of a function besides its inputs. Errors about the return value are reported at the
/// last stage; `only_tensor`: the user has not declared the return type.
fn expand_body(layerfn: &TokenStream, body: &Body, arguments: &[FnArg], only_tensor: bool) -> TokenStream {
    let h = local("h");
    let input = &input_names(body)[0];
    let end = body.chain.end();
    // rustc reports a wrong return type at the span of this identifier.
    let output = Ident::new("__pf_output", end);
    let returned = match only_tensor {
        true => quote_spanned!(end=> __pf_private::one_tensor(#output)),
        false => output.to_token_stream(),
    };
    let frame = local("frame");
    let mut expander = Expander::default();
    arguments.iter().for_each(|argument| expander.may_bind(&argument.to_token_stream()));
    let statements = expander.chain(&body.chain, &mut Names::new());
    quote!({
        // These traits distinguish stages that fuse.
        #[allow(unused_imports)]
        use #layerfn::__private::{self as __pf_private, IfFusing as _, IfPlain as _};
        let #frame = __pf_private::begin();
        let #h = __pf_private::value(#input);
        #statements
        let #output = #h;
        ::core::result::Result::Ok(#returned)
    })
}

/// The context of a step.
#[derive(Clone, Copy, Default)]
struct Place<'a> {
    /// The variable of the step's function, if it was passed to the previous step.
    told: Option<&'a Ident>,
    /// The variable of the next step's function, if this step may fuse with it.
    next: Option<&'a Ident>,
}

/// The number of unlabelled uses of each identifier in the block so far.
type Names = HashMap<String, usize>;

#[derive(Default)]
struct Expander {
    n_stages: u32,
    /// Names that may be variables: arguments of the network, and names in loops and conditions.
    variables: HashSet<Ident>,
}

impl Expander {
    /// Statements that replace `__pf_h`.
    fn chain(&mut self, chain: &Chain, names: &mut Names) -> TokenStream {
        // rustc takes quadratic time for a long sequence of `let`, each of which opens a scope in the one
        // before, and for many `?` in one body. A name given with `as` must stay visible to the end.
        const ROW: usize = 32;
        let h = local("h");
        let mut statements = TokenStream::new();
        let mut left = &chain.steps[..];
        while !left.is_empty() {
            // Two steps that may fuse stay together, unless all neighbours may fuse.
            let together =
                |n: usize| left.get(n).is_some_and(|next| self.fuses(&left[n - 1], next).is_some());
            let n = (ROW / 2..=ROW).rev().chain(ROW + 1..=2 * ROW).find(|&n| !together(n)).unwrap_or(ROW);
            let (steps, rest) = left.split_at(n.min(left.len()));
            left = rest;
            let row = self.row(steps, names);
            let folded = chain.steps.len() > ROW && steps.iter().all(|step| step.bind.is_none());
            statements.extend(match folded {
                false => row,
                true if steps.iter().all(stays) => quote! {
                    let #h = __pf_private::row(|| { #row ::core::result::Result::Ok(#h) })?;
                },
                true => quote!(let #h = { #row #h };),
            });
        }
        statements
    }

    /// Statements for some of a chain's steps.
    fn row(&mut self, steps: &[Step], names: &mut Names) -> TokenStream {
        let mut row = TokenStream::new();
        let mut told = None;
        for (i, step) in steps.iter().enumerate() {
            let next = steps.get(i + 1).and_then(|next| self.fuses(step, next)).map(|call| {
                let function = local_at(&format!("next{i}"), call.name.span());
                let callee: TokenStream = call.callee.iter().cloned().collect();
                row.extend(quote!(let #function = &#callee;));
                function
            });
            row.extend(self.step(step, Place { told: told.as_ref(), next: next.as_ref() }, names));
            told = next;
        }
        row
    }

    /// The call in `next`, if `step` may be a layer that fuses with its function; that is known at run time.
    fn fuses<'a>(&self, step: &Step, next: &'a Step) -> Option<&'a Call> {
        let may_be_first = step.bind.is_none()
            && match &step.stage {
                Stage::Call(_) => true,
                Stage::Join(join) => {
                    step.label.is_none() && matches!(join.kind, JoinKind::Add | JoinKind::Residual)
                }
                _ => false,
            };
        match &next.stage {
            Stage::Call(call) if may_be_first && next.label.is_none() => {
                let plain = !call.is_member && call.arguments.is_none();
                // A variable may be a closure that has to be moved, or borrowed mutably, to be called.
                let variable = call.callee.len() == 1 && self.variables.contains(&call.name);
                (plain && !variable).then_some(call)
            }
            _ => None,
        }
    }

    /// An expression that runs the chain on `input`, which it consumes.
    fn chain_value(&mut self, chain: &Chain, names: &mut Names, input: impl ToTokens) -> TokenStream {
        let h = local("h");
        let statements = self.chain(chain, names);
        quote!({ let #h = #input; #statements #h })
    }

    /// The input is moved into the block, so that it is freed when the stage is done.
    fn step(&mut self, step: &Step, place: Place<'_>, names: &mut Names) -> TokenStream {
        let (h, x) = (local("h"), local("x"));
        let value = match (&step.label, &step.stage) {
            (_, Stage::Identity | Stage::Missing) => x.to_token_stream(),
            (_, Stage::Use { tokens, span }) => {
                quote_spanned!(*span=> __pf_private::value(#tokens))
            }
            (label, Stage::Call(call)) => self.call(label.as_ref(), call, place, names),
            (label, Stage::Value { tokens, span }) => self.value(label.as_ref(), tokens, *span),
            (Some(label), stage) => {
                let entered = self.enter_block(label);
                let scope = local("scope");
                let value = self.compound(stage, &mut Names::new());
                quote!({ let #scope = #entered; #value })
            }
            (None, Stage::Join(join)) => self.join(join, place.next, names),
            (None, stage) => self.compound(stage, names),
        };
        let bind = step.bind.as_ref().map(bind_output);
        let value = match (place.told, place.next) {
            (None, _) => value,
            (Some(_), next) => {
                let done = match next {
                    Some(_) => quote!(__pf_private::Ran::Alone(#x)),
                    None => x.to_token_stream(),
                };
                quote!(match #x {
                    __pf_private::Ran::Alone(#x) => #value,
                    __pf_private::Ran::WithNext(#x) => #done,
                })
            }
        };
        quote!(let #h = { let #x = #h; #value }; #bind)
    }

    fn next_id(&mut self) -> u32 {
        self.n_stages += 1;
        self.n_stages
    }

    /// The scope of labelled braces.
    fn enter_block(&mut self, label: &Label) -> TokenStream {
        let span = label.name.span();
        let x = local_at("x", span);
        let (id, text) = (self.next_id(), label.text());
        let entered = match &label.index {
            None => quote_spanned!(span=> __pf_private::block(#text, #id, &#x)),
            Some(index) => {
                quote_spanned!(span=> __pf_private::indexed_block(#text, &(#index), #id, &#x))
            }
        };
        marked(label, &entered)
    }

    /// `unlabelled("conv", 2, 7, &x)`: the scope in which a stage is built and run; it is closed when dropped.
    fn enter(&mut self, label: Option<&Label>, ident: &str, nth: usize, span: Span) -> TokenStream {
        let x = local_at("x", span);
        let id = self.next_id();
        let Some(label) = label else {
            return quote_spanned!(span=> __pf_private::unlabelled(#ident, #nth, #id, &#x));
        };
        let text = label.text();
        let entered = match &label.index {
            None => quote_spanned!(span=> __pf_private::labelled(#text, #ident, #id, &#x)),
            Some(index) => {
                quote_spanned!(span=> __pf_private::indexed(#text, &(#index), #ident, #id, &#x))
            }
        };
        marked(label, &entered)
    }

    /// The scope of a call. `name` and `fix_parameters` are options of every stage.
    fn enter_call(&mut self, label: Option<&Label>, call: &Call, names: &mut Names) -> TokenStream {
        let ident = call.name.unraw().to_string();
        let nth = match (label, counted_name(call)) {
            (None, Some(name)) => {
                let n = names.entry(name).or_default();
                *n += 1;
                *n
            }
            _ => 1,
        };
        let entered = match (label, call.option("name")) {
            (None, Some(Opt { key, value })) => {
                let (x, id) = (local_at("x", key.span()), self.next_id());
                quote_spanned!(key.span()=> __pf_private::#key(#value, #ident, #id, &#x))
            }
            _ => self.enter(label, &ident, nth, call.name.span()),
        };
        match call.option("fix_parameters") {
            Some(Opt { key, value }) => quote_spanned!(key.span()=> #entered.#key(#value)),
            None => entered,
        }
    }

    fn call(
        &mut self,
        label: Option<&Label>,
        call: &Call,
        place: Place<'_>,
        names: &mut Names,
    ) -> TokenStream {
        let span = call.name.span();
        let entered = self.enter_call(label, call, names);
        let stage = match place.told {
            Some(function) => {
                let x = local_at("x", span);
                quote_spanned!(span=> #function(&#x))
            }
            None => stage_call(call),
        };
        run(span, &entered, &stage, place.next)
    }

    /// Records every name in tokens that may bind variables.
    fn may_bind(&mut self, tokens: &TokenStream) {
        for token in tokens.clone() {
            match token {
                TokenTree::Ident(name) => drop(self.variables.insert(name)),
                TokenTree::Group(group) => self.may_bind(&group.stream()),
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
        }
    }

    fn value(&mut self, label: Option<&Label>, tokens: &TokenStream, span: Span) -> TokenStream {
        let x = local_at("x", span);
        let entered = self.enter(label, &value_name(tokens), 1, span);
        let stage = if is_closure(tokens) {
            quote_spanned!(span=> __pf_private::apply(#tokens, &#x))
        } else {
            quote_spanned!(span=> (#tokens)(&#x))
        };
        quote_spanned!(span=> __pf_private::run(#entered, #stage)?)
    }

    /// A stage that contains chains, as an expression over `__pf_x`.
    fn compound(&mut self, stage: &Stage, names: &mut Names) -> TokenStream {
        let (h, x) = (local("h"), local("x"));
        match stage {
            Stage::Block(chain) => self.chain_value(chain, names, x),
            Stage::Join(join) => self.join(join, None, names),
            Stage::For { head, keyword, body } => {
                self.may_bind(head);
                let body = self.chain_value(body, names, &h);
                quote_spanned!(keyword.span()=> { let mut #h = #x; #keyword #head { #h = #body; } #h })
            }
            Stage::If(inner) => self.conditional(inner, names),
            Stage::Match { head, keyword, arms } => {
                let arms = arms.iter().map(|arm| {
                    self.may_bind(&arm.pattern);
                    let (pattern, arrow) = (&arm.pattern, &arm.arrow);
                    let value = self.chain_value(&arm.chain, names, &x);
                    quote!(#pattern #arrow #value)
                });
                let arms: TokenStream = arms.collect();
                quote!(#keyword #head { #arms })
            }
            Stage::Call(_) | Stage::Value { .. } | Stage::Identity | Stage::Use { .. } | Stage::Missing => {
                x.to_token_stream()
            }
        }
    }

    fn conditional(&mut self, stage: &If, names: &mut Names) -> TokenStream {
        let x = local("x");
        let If { keyword, condition, then, otherwise } = stage;
        self.may_bind(condition);
        let then = self.chain_value(then, names, &x);
        let otherwise = match otherwise {
            None => quote!({ #x }),
            Some(Otherwise::Block(chain)) => self.chain_value(chain, names, &x),
            Some(Otherwise::If(inner)) => self.conditional(inner, names),
        };
        quote!(#keyword #condition #then else #otherwise)
    }

    fn join(&mut self, join: &Join, next: Option<&Ident>, names: &mut Names) -> TokenStream {
        let span = join.keyword.span();
        let (x, entered, scope) = (local("x"), local("join"), local("branch"));
        let ident = join.keyword.to_string();
        let id = self.next_id();
        let enter = quote_spanned!(span=> __pf_private::join(#ident, #id, &#x));
        let branches: Vec<Ident> = (0..join.branches.len()).map(|i| local(&format!("branch{i}"))).collect();
        let values: Vec<TokenStream> = join
            .branches
            .iter()
            .map(|branch| {
                let value = self.chain_value(branch, names, quote!(::core::clone::Clone::clone(&#x)));
                quote!({ let #scope = #entered.branch(); #value })
            })
            .collect();
        let input = (join.kind == JoinKind::Residual).then(|| quote!(::core::clone::Clone::clone(&#x),));
        let all = quote!([#input #(#branches),*]);
        let joined = match join.kind {
            JoinKind::Residual | JoinKind::Add => quote_spanned!(span=> add(#all)),
            JoinKind::Mul => quote_spanned!(span=> mul(#all)),
            JoinKind::Concat => {
                let missing = quote!(0);
                let axis = if join.arguments.is_empty() { &missing } else { &join.arguments };
                quote_spanned!(span=> concat(#axis, #all))
            }
            JoinKind::Tuple => quote_spanned!(span=> tuple((#(#branches),*))),
        };
        let joined = quote_spanned!(span=> __pf_private::#joined);
        let run = run(span, &entered.to_token_stream(), &joined, next);
        quote!({ let #entered = #enter; #(let #branches = #values;)* #run })
    }
}

/// The effect of `shared` and `frozen` before a label.
fn marked(label: &Label, entered: &TokenStream) -> TokenStream {
    let span = label.name.span();
    let shared = label.shared.then(|| quote_spanned!(span=> .shared()));
    let frozen = label.frozen.then(|| quote_spanned!(span=> .frozen()));
    quote_spanned!(span=> #entered #shared #frozen)
}

/// `as name`
fn bind_output(name: &Ident) -> TokenStream {
    let h = local("h");
    quote!(let #name = &::core::clone::Clone::clone(&#h);)
}

/// Runs a stage; one that is followed by a function receives it, and returns a `Ran`.
fn run(span: Span, entered: &TokenStream, stage: &TokenStream, next: Option<&Ident>) -> TokenStream {
    let Some(next) = next else {
        return quote_spanned!(span=> __pf_private::run(#entered, #stage)?);
    };
    // rustc reports at the span of `built` that it is not a stage.
    let (begun, built) = (local("entered"), Ident::new("__pf_stage", span));
    quote_spanned!(span=> {
        let #begun = #entered;
        let #built = #stage;
        (&__pf_private::Kind(&#built)).kind().run(#begun, #built, #next)?
    })
}

/// Whether no expression in the step leaves the network's body, which is impossible from a closure.
fn stays(step: &Step) -> bool {
    let index = step.label.as_ref().and_then(|label| label.index.clone());
    let tokens = match &step.stage {
        Stage::Call(call) => {
            let arguments = call.arguments.iter().flat_map(|arguments| {
                let options = arguments.options.iter().map(|option| option.value.clone());
                arguments.positional.iter().cloned().chain(options)
            });
            call.callee.iter().cloned().chain(arguments.flatten()).collect()
        }
        Stage::Value { tokens, .. } | Stage::Use { tokens, .. } => tokens.clone(),
        Stage::Identity => TokenStream::new(),
        _ => return false,
    };
    !leaves(tokens) && !index.is_some_and(leaves)
}

/// Whether there may be a `?`, a `return` or the like; a macro may contain one.
fn leaves(tokens: TokenStream) -> bool {
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        let found = match &token {
            TokenTree::Punct(punct) if punct.as_char() == '!' => {
                matches!(tokens.peek(), Some(TokenTree::Group(_)))
            }
            TokenTree::Punct(punct) => punct.as_char() == '?',
            TokenTree::Ident(ident) => {
                ["return", "break", "continue", "await", "yield"].iter().any(|word| ident == word)
            }
            TokenTree::Group(group) => leaves(group.stream()),
            TokenTree::Literal(_) => false,
        };
        if found {
            return true;
        }
    }
    false
}

/// Options without a setter: they apply to the scope in which the stage runs.
const OF_EVERY_STAGE: [&str; 2] = ["name", "fix_parameters"];

/// `nn::conv(&x, 32, (5, 5)).pad((2, 2))`
fn stage_call(call: &Call) -> TokenStream {
    let span = call.name.span();
    let x = local_at("x", span);
    let callee: TokenStream = call.callee.iter().cloned().collect();
    let none = Arguments::default();
    let arguments = call.arguments.as_ref().unwrap_or(&none);
    let positional = &arguments.positional;
    let input = quote_spanned!(span=> &#x);
    let mut group = Group::new(Delimiter::Parenthesis, quote!(#input #(, #positional)*));
    group.set_span(arguments.span.unwrap_or(span));
    let mut tokens = match (call.is_member, &call.arguments) {
        (true, None) => quote_spanned!(span=> (#callee) #group),
        _ => quote!(#callee #group),
    };
    for Opt { key, value } in &arguments.options {
        if OF_EVERY_STAGE.iter().any(|name| key == name) {
            continue;
        }
        let mut group = Group::new(Delimiter::Parenthesis, value.clone());
        group.set_span(key.span());
        tokens.extend(quote_spanned!(key.span()=> .#key #group));
    }
    tokens
}

/// The name of a stage in parentheses for messages.
fn value_name(tokens: &TokenStream) -> String {
    match tokens.clone().into_iter().last() {
        Some(TokenTree::Ident(ident)) if !is_closure(tokens) => ident.unraw().to_string(),
        _ => "closure".to_owned(),
    }
}

fn is_closure(tokens: &TokenStream) -> bool {
    match tokens.clone().into_iter().next() {
        Some(TokenTree::Punct(punct)) => punct.as_char() == '|',
        Some(TokenTree::Ident(ident)) => ident == "move",
        _ => false,
    }
}
