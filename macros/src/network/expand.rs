//! Syntax tree to Rust: a closure with one statement a stage.

use std::collections::HashMap;

use proc_macro2::{Delimiter, Group, Ident, Span, TokenStream, TokenTree};
use quote::{ToTokens, quote, quote_spanned};
use syn::Error;
use syn::ext::IdentExt;

use super::ast::{
    Arguments, Body, Call, Chain, If, Input, Item, Join, JoinKind, Label, Network, Otherwise, Stage, Step,
};
use super::check::counted_name;

/// If the input is not `clear`, a network that does nothing stands in for it.
pub(super) fn expand(input: &Input, clear: bool, error: Option<Error>) -> TokenStream {
    let errors = error.map(Error::into_compile_error);
    match input {
        Input::Expression(_) if !clear => {
            quote!({ #errors ::layerfn::__private::network1(::layerfn::__private::nothing) })
        }
        Input::Items(_) if !clear => quote!(#errors),
        Input::Expression(network) => {
            let network = expand_network(network);
            match errors {
                Some(errors) => quote!({ #errors #network }),
                None => network,
            }
        }
        Input::Items(items) => {
            let items = items.iter().map(expand_item);
            quote!(#errors #(#items)*)
        }
    }
}

fn expand_network(network: &Network) -> TokenStream {
    let inputs = input_names(&network.body);
    let moved = &network.moved;
    let body = expand_body(&network.body, &inputs[0]);
    let constructor = Ident::new(&format!("network{}", inputs.len()), Span::call_site());
    quote!(::layerfn::__private::#constructor(#moved |#(#inputs),*| #body))
}

fn expand_item(item: &Item) -> TokenStream {
    let Item { attrs, vis, name, arguments, output, body } = item;
    let inputs = input_names(body);
    let output = match output {
        Some(output) => output.to_token_stream(),
        None => quote!(::layerfn::__private::Result<::layerfn::__private::Tensor>),
    };
    let docs = super::docs::table(item);
    let body = expand_body(body, &inputs[0]);
    quote! {
        #(#attrs)*
        #docs
        // The table links to every stage, to private functions too.
        #[allow(rustdoc::private_intra_doc_links)]
        #vis fn #name(#(#inputs: &::layerfn::__private::Tensor,)* #(#arguments),*) -> #output #body
    }
}

fn input_names(body: &Body) -> Vec<Ident> {
    if body.inputs.is_empty() { vec![local("input")] } else { body.inputs.clone() }
}

/// A name that the user's expressions cannot see.
fn local(name: &str) -> Ident {
    Ident::new(&format!("__pf_{name}"), Span::mixed_site())
}

/// As [`local`], where an error about it belongs to the token at `span`.
fn local_at(name: &str, span: Span) -> Ident {
    Ident::new(&format!("__pf_{name}"), Span::mixed_site().located_at(span))
}

fn expand_body(body: &Body, input: &Ident) -> TokenStream {
    let h = local("h");
    let frame = local("frame");
    let statements = Expander::default().chain(&body.chain, &mut Names::new());
    quote!({
        let #frame = ::layerfn::__private::begin();
        let #h = ::layerfn::__private::value(#input);
        #statements
        ::core::result::Result::Ok(#h)
    })
}

/// How often each identifier has stood without a label in the block so far.
type Names = HashMap<String, usize>;

#[derive(Default)]
struct Expander {
    n_stages: u32,
}

impl Expander {
    /// Statements that replace `__pf_h`.
    fn chain(&mut self, chain: &Chain, names: &mut Names) -> TokenStream {
        // rustc takes quadratic time over a long row of `let`, each of which opens a scope in the one before, and over
        // many `?` in one body. A name given with `as` has to stay visible to the end.
        const ROW: usize = 32;
        let h = local("h");
        let mut statements = TokenStream::new();
        let mut left = &chain.steps[..];
        while !left.is_empty() {
            let mut n = left.len().min(ROW);
            if left.get(n).is_some_and(|next| joins(&left[n - 1], next).is_some()) {
                n += 1;
            }
            let (steps, rest) = left.split_at(n);
            left = rest;
            let row = self.row(steps, names);
            let folded = chain.steps.len() > ROW && steps.iter().all(|step| step.bind.is_none());
            statements.extend(match folded {
                false => row,
                true if steps.iter().all(stays) => quote! {
                    let #h = ::layerfn::__private::row(|| { #row ::core::result::Result::Ok(#h) })?;
                },
                true => quote!(let #h = { #row #h };),
            });
        }
        statements
    }

    /// Statements for some of a chain's steps.
    fn row(&mut self, steps: &[Step], names: &mut Names) -> TokenStream {
        let mut row = TokenStream::new();
        let mut steps = steps.iter().peekable();
        while let Some(step) = steps.next() {
            let relu = steps.peek().and_then(|next| joins(step, next));
            row.extend(self.step(step, relu, names));
            if relu.is_some() {
                let bind = steps.next().and_then(|step| step.bind.as_ref());
                row.extend(bind.map(bind_output));
            }
        }
        row
    }

    /// An expression: the chain run on `input`, which it takes.
    fn chain_value(&mut self, chain: &Chain, names: &mut Names, input: impl ToTokens) -> TokenStream {
        let h = local("h");
        let statements = self.chain(chain, names);
        quote!({ let #h = #input; #statements #h })
    }

    /// The input is moved into the block, so that it is freed when the stage is done. `relu` is the step after this one, if
    /// that joins it.
    fn step(&mut self, step: &Step, relu: Option<&Call>, names: &mut Names) -> TokenStream {
        let (h, x) = (local("h"), local("x"));
        let value = match (&step.label, &step.stage) {
            (_, Stage::Identity | Stage::Missing) => x.to_token_stream(),
            (_, Stage::Use { tokens, span }) => {
                quote_spanned!(*span=> ::layerfn::__private::value(#tokens))
            }
            (label, Stage::Call(call)) => self.call(label.as_ref(), call, relu, names),
            (label, Stage::Value { tokens, span }) => self.value(label.as_ref(), tokens, *span),
            (Some(label), stage) => {
                let entered = self.enter_block(label);
                let scope = local("scope");
                let value = self.compound(stage, &mut Names::new());
                quote!({ let #scope = #entered; #value })
            }
            (None, Stage::Join(join)) => self.join(join, relu, names),
            (None, stage) => self.compound(stage, names),
        };
        let bind = step.bind.as_ref().map(bind_output);
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
            None => quote_spanned!(span=> ::layerfn::__private::block(#text, #id, &#x)),
            Some(index) => {
                quote_spanned!(span=> ::layerfn::__private::indexed_block(#text, &(#index), #id, &#x))
            }
        };
        if label.shared { quote_spanned!(span=> #entered.shared()) } else { entered }
    }

    /// `unlabelled("conv", 2, 7, &x)`: the scope, closed when dropped, in which a stage is built and run.
    fn enter(&mut self, label: Option<&Label>, ident: &str, nth: usize, span: Span) -> TokenStream {
        let x = local_at("x", span);
        let id = self.next_id();
        let Some(label) = label else {
            return quote_spanned!(span=> ::layerfn::__private::unlabelled(#ident, #nth, #id, &#x));
        };
        let text = label.text();
        let entered = match &label.index {
            None => quote_spanned!(span=> ::layerfn::__private::labelled(#text, #ident, #id, &#x)),
            Some(index) => {
                quote_spanned!(span=> ::layerfn::__private::indexed(#text, &(#index), #ident, #id, &#x))
            }
        };
        if label.shared { quote_spanned!(span=> #entered.shared()) } else { entered }
    }

    fn call(
        &mut self,
        label: Option<&Label>,
        call: &Call,
        relu: Option<&Call>,
        names: &mut Names,
    ) -> TokenStream {
        let span = call.name.span();
        let ident = call.name.unraw().to_string();
        let nth = match (label, counted_name(call)) {
            (None, Some(name)) => {
                let n = names.entry(name).or_default();
                *n += 1;
                *n
            }
            _ => 1,
        };
        let entered = self.enter(label, &ident, nth, span);
        let stage = stage_call(call);
        let Some(relu) = relu else {
            return quote_spanned!(span=> ::layerfn::__private::run(#entered, #stage)?);
        };
        self.before(
            relu,
            names,
            |next| quote_spanned!(span=> ::layerfn::__private::run_before(#entered, #stage, #next)?),
        )
    }

    /// A step, which `run` runs, told of the function that comes next; then `relu` if that has not been run with it.
    fn before(
        &mut self,
        relu: &Call,
        names: &mut Names,
        run: impl FnOnce(&Ident) -> TokenStream,
    ) -> TokenStream {
        let x = local("x");
        let next = local_at("next", relu.name.span());
        let run = run(&next);
        let callee: TokenStream = relu.callee.iter().cloned().collect();
        let alone = Call {
            callee: next.to_token_stream().into_iter().collect(),
            name: relu.name.clone(),
            is_member: false,
            arguments: None,
        };
        let alone = self.call(None, &alone, None, names);
        quote!({
            let #next = &#callee;
            match #run {
                ::layerfn::__private::Before::Both(#x) => #x,
                ::layerfn::__private::Before::Alone(#x) => #alone,
            }
        })
    }

    fn value(&mut self, label: Option<&Label>, tokens: &TokenStream, span: Span) -> TokenStream {
        let x = local_at("x", span);
        let entered = self.enter(label, &value_name(tokens), 1, span);
        let stage = if is_closure(tokens) {
            quote_spanned!(span=> ::layerfn::__private::apply(#tokens, &#x))
        } else {
            quote_spanned!(span=> (#tokens)(&#x))
        };
        quote_spanned!(span=> ::layerfn::__private::run(#entered, #stage)?)
    }

    /// A stage that holds chains, as an expression over `__pf_x`.
    fn compound(&mut self, stage: &Stage, names: &mut Names) -> TokenStream {
        let (h, x) = (local("h"), local("x"));
        match stage {
            Stage::Block(chain) => self.chain_value(chain, names, x),
            Stage::Join(join) => self.join(join, None, names),
            Stage::For { head, keyword, body } => {
                let body = self.chain_value(body, names, &h);
                quote_spanned!(keyword.span()=> { let mut #h = #x; #keyword #head { #h = #body; } #h })
            }
            Stage::If(inner) => self.conditional(inner, names),
            Stage::Match { head, keyword, arms } => {
                let arms = arms.iter().map(|arm| {
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
        let then = self.chain_value(then, names, &x);
        let otherwise = match otherwise {
            None => quote!({ #x }),
            Some(Otherwise::Block(chain)) => self.chain_value(chain, names, &x),
            Some(Otherwise::If(inner)) => self.conditional(inner, names),
        };
        quote!(#keyword #condition #then else #otherwise)
    }

    fn join(&mut self, join: &Join, relu: Option<&Call>, names: &mut Names) -> TokenStream {
        let span = join.keyword.span();
        let (x, entered, scope) = (local("x"), local("join"), local("branch"));
        let ident = join.keyword.to_string();
        let id = self.next_id();
        let enter = quote_spanned!(span=> ::layerfn::__private::join(#ident, #id, &#x));
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
        let run = if let Some(relu) = relu {
            self.before(
                relu,
                names,
                |next| quote_spanned!(span=> ::layerfn::__private::add_before(#entered, #all, #next)?),
            )
        } else {
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
            quote_spanned!(span=> ::layerfn::__private::run(#entered, ::layerfn::__private::#joined)?)
        };
        quote!({ let #entered = #enter; #(let #branches = #values;)* #run })
    }
}

/// `as name`
fn bind_output(name: &Ident) -> TokenStream {
    let h = local("h");
    quote!(let #name = &::core::clone::Clone::clone(&#h);)
}

/// `next`, if it is `relu` and may be run in one with `step`: whether it is ours and the step can do that shows at run time.
fn joins<'a>(step: &Step, next: &'a Step) -> Option<&'a Call> {
    let can_be_first = match &step.stage {
        Stage::Call(_) => step.bind.is_none(),
        Stage::Join(join) => {
            step.bind.is_none()
                && step.label.is_none()
                && matches!(join.kind, JoinKind::Add | JoinKind::Residual)
        }
        _ => false,
    };
    match &next.stage {
        Stage::Call(call) if can_be_first && next.label.is_none() => {
            let plain = !call.is_member && call.arguments.is_none();
            (plain && call.name == "relu").then_some(call)
        }
        _ => None,
    }
}

/// Whether no expression in the step leaves the network's body, which a closure around it would not let it do.
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

/// Whether there may be a `?`, a `return` or the like; a macro may hold one.
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
    for option in &arguments.options {
        let (key, value) = (&option.key, &option.value);
        let mut group = Group::new(Delimiter::Parenthesis, value.clone());
        group.set_span(key.span());
        tokens.extend(quote_spanned!(key.span()=> .#key #group));
    }
    tokens
}

/// What a stage in parentheses is called in messages.
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
