//! Rules that concern the whole layer.

use quote::format_ident;
use syn::ext::IdentExt;

use super::body::Body;
use super::layer::{Layer, mentions};
use crate::support::errors::Errors;

/// Names that every layer already has.
const RESERVED: [&str; 3] = ["name", "fix_parameters", "call"];

pub(super) fn layer(layer: &mut Layer, body: &Body, errors: &mut Errors) {
    scope(layer, errors);
    arguments(layer, errors);
    fused(layer, errors);
    parameters(layer, body, errors);
}

fn scope(layer: &Layer, errors: &mut Errors) {
    if let (Some(params), None, true) = (&layer.args.params_key, &layer.args.scope, layer.args.complete) {
        let name = layer.name();
        let message =
            format!("parameters need a scope to live in; add `scope = \"{name}\"` before `params(..)`");
        errors.at(params, message);
    }
}

fn arguments(layer: &mut Layer, errors: &mut Errors) {
    let mut methods = Vec::new();
    for (position, argument) in layer.arguments.iter_mut().enumerate() {
        let name = argument.name.unraw().to_string();
        let taken = if RESERVED.contains(&name.as_str()) {
            Some("added by `#[parametric_function]`")
        } else if methods.contains(&name) {
            Some("an argument or a setter already")
        } else {
            None
        };
        if let Some(taken) = taken {
            errors.at(&argument.name, format!("`{name}` is {taken}; rename this argument"));
            // Code after the error must not cause another conflict.
            argument.name = format_ident!("__pf_{name}_{position}", span = argument.name.span());
        }
        if argument.option.as_ref().is_some_and(|opt| opt.maybe) {
            methods.push(format!("maybe_{name}"));
        }
        methods.push(name);
    }
}

/// Checks that each function in `fuses(..)` has a distinct variable, and that the body reads it; others are
/// dropped, so that there is only one error.
fn fused(layer: &mut Layer, errors: &mut Errors) {
    let Layer { args, arguments, body, .. } = layer;
    let mut flags = Vec::new();
    args.fused.retain(|fused| {
        let (flag, name) = (&fused.flag, fused.name());
        if flags.contains(flag) {
            let message = format!(
                "a second function called `{name}`: the body could not tell for which of them `{flag}` stands"
            );
            errors.at(&fused.path, message);
            return false;
        }
        flags.push(flag.clone());
        if let Some(argument) = arguments.iter().find(|argument| argument.name == *flag) {
            let message = format!("`{flag}` stands for `fuses({name})` in the body; rename this argument");
            errors.at(&argument.name, message);
            return false;
        }
        if !mentions(body.stream(), flag) {
            let message = format!(
                "a layer that fuses with `{name}` returns `{name}` of its output if `{flag}` is true, but the body never \
                 reads `{flag}`"
            );
            errors.at(&fused.path, message);
        }
        true
    });
}

fn parameters(layer: &Layer, body: &Body, errors: &mut Errors) {
    let mut names = Vec::new();
    for (parameter, used) in layer.args.parameters.iter().zip(&body.used) {
        let name = parameter.name.unraw().to_string();
        if names.contains(&name) {
            errors.at(&parameter.name, format!("parameter `{name}` is declared twice"));
        } else if !used {
            let index = if parameter.index.is_some() { "[i]" } else { "" };
            let message = format!(
                "parameter `{name}` is never used; ask for it in the body with `param!({name}{index})?`"
            );
            errors.at(&parameter.name, message);
        }
        let numbered = layer.args.parameters.iter().filter(|other| other.index.is_some()).find(|list| {
            let number = name.strip_prefix(&list.name.unraw().to_string());
            number
                .is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
        });
        if let Some(list) = numbered {
            let message = format!(
                "`{name}` may be the name of one of the parameters `{}`, too; rename one of the two",
                list.name_text()
            );
            errors.at(&parameter.name, message);
        }
        names.push(name);
    }
}
