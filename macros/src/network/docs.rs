//! The table of stages in the documentation of a network function.

use std::collections::HashMap;

use proc_macro2::{TokenStream, TokenTree};
use quote::quote;
use syn::ext::IdentExt;

use super::ast::{Call, Chain, If, Item, Label, Otherwise, Stage, Step};
use super::check::counted_name;

/// A row for each stage, in order; layers are linked to their page, which lists their parameters.
pub(super) fn table(item: &Item) -> TokenStream {
    let mut rows = Rows { lines: Vec::new(), variables: variables(item) };
    rows.chain(&item.body.chain, "", &mut HashMap::new());
    if rows.lines.is_empty() {
        return TokenStream::new();
    }
    let head = ["", "# Stages", "", "| name | stage | arguments |", "| --- | --- | --- |"];
    let note = [
        "",
        "A name is the scope of the stage's parameters, which the page of its layer lists; [`Network::summary`] counts them.",
        "",
        // Not a Rust path: the crate that documents the function may use layerfn under another name.
        "[`Network::summary`]: https://docs.rs/layerfn/latest/layerfn/struct.Network.html#method.summary",
    ];
    let lines =
        head.into_iter().map(str::to_owned).chain(rows.lines).chain(note.into_iter().map(str::to_owned));
    quote!(#(#[doc = #lines])*)
}

/// Names that are values of the function, which rustdoc cannot link.
fn variables(item: &Item) -> Vec<String> {
    let arguments = item.arguments.iter().filter_map(|argument| match argument {
        syn::FnArg::Typed(argument) => match &*argument.pat {
            syn::Pat::Ident(pattern) => Some(pattern.ident.unraw().to_string()),
            _ => None,
        },
        syn::FnArg::Receiver(_) => None,
    });
    arguments.chain(item.body.inputs.iter().map(|input| input.unraw().to_string())).collect()
}

struct Rows {
    lines: Vec<String>,
    variables: Vec<String>,
}

impl Rows {
    fn chain(&mut self, chain: &Chain, scope: &str, names: &mut HashMap<String, usize>) {
        for step in &chain.steps {
            self.step(step, scope, names);
        }
    }

    fn step(&mut self, step: &Step, scope: &str, names: &mut HashMap<String, usize>) {
        let label = step.label.as_ref().map(label_text);
        match &step.stage {
            Stage::Call(call) => {
                let name = label.or_else(|| automatic_name(call, names)).unwrap_or_default();
                self.call(call, &join(scope, &name));
            }
            Stage::Value { tokens, .. } => {
                let name = join(scope, &label.unwrap_or_default());
                self.lines.push(format!("| {} | | {} |", code(&name), code(&tokens.to_string())));
            }
            stage => match label {
                Some(label) => self.inside(stage, &join(scope, &label), &mut HashMap::new()),
                None => self.inside(stage, scope, names),
            },
        }
    }

    fn inside(&mut self, stage: &Stage, scope: &str, names: &mut HashMap<String, usize>) {
        match stage {
            Stage::Block(chain) | Stage::For { body: chain, .. } => self.chain(chain, scope, names),
            Stage::Join(join) => join.branches.iter().for_each(|branch| self.chain(branch, scope, names)),
            Stage::If(inner) => self.conditional(inner, scope, names),
            Stage::Match { arms, .. } => arms.iter().for_each(|arm| self.chain(&arm.chain, scope, names)),
            _ => {}
        }
    }

    fn conditional(&mut self, stage: &If, scope: &str, names: &mut HashMap<String, usize>) {
        self.chain(&stage.then, scope, names);
        match &stage.otherwise {
            Some(Otherwise::If(inner)) => self.conditional(inner, scope, names),
            Some(Otherwise::Block(chain)) => self.chain(chain, scope, names),
            None => {}
        }
    }

    fn call(&mut self, call: &Call, name: &str) {
        let path: String = call.callee.iter().map(ToString::to_string).collect();
        let is_variable = call.is_member || self.variables.contains(&path) || path.contains('<');
        // `fn@`: an alias of a layer may share its name with a module or macro.
        let stage = if is_variable { code(&path) } else { format!("[`{path}`](fn@{path})") };
        let mut arguments = Vec::new();
        if let Some(given) = &call.arguments {
            arguments.extend(given.positional.iter().map(text));
            arguments.extend(
                given.options.iter().map(|option| format!("{} = {}", option.key, text(&option.value))),
            );
        }
        self.lines.push(format!("| {} | {stage} | {} |", code(name), code(&arguments.join(", "))));
    }
}

fn automatic_name(call: &Call, names: &mut HashMap<String, usize>) -> Option<String> {
    let name = counted_name(call)?;
    let n = names.entry(name.clone()).or_default();
    *n += 1;
    (*n > 1).then(|| format!("{name}_{n}"))
}

fn label_text(label: &Label) -> String {
    match &label.index {
        Some(index) => format!("{}[{}]", label.text(), text(index)),
        None => label.text(),
    }
}

fn join(scope: &str, name: &str) -> String {
    match (scope, name) {
        (scope, "") => scope.to_owned(),
        ("", name) => name.to_owned(),
        (scope, name) => format!("{scope}/{name}"),
    }
}

/// Approximates how a person would write the tokens, whose spaces are lost.
fn text(tokens: &TokenStream) -> String {
    match syn::parse2::<syn::Expr>(tokens.clone()) {
        Ok(expression) => crate::support::print::expr(&expression),
        Err(_) => {
            tokens.clone().into_iter().map(|token: TokenTree| token.to_string()).collect::<Vec<_>>().join(" ")
        }
    }
}

/// Inline code in a cell of a table; a bar would end the cell and drop what follows.
fn code(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("`{}`", text.replace('\n', " ").replace('|', "\\|")) }
}
