//! The rules that need the whole layer.

use syn::ext::IdentExt;

use super::body::Body;
use super::layer::Layer;
use crate::support::errors::Errors;

/// Names that every layer has already.
const RESERVED: [&str; 3] = ["name", "fix_parameters", "call"];

pub(super) fn layer(layer: &Layer, body: &Body, errors: &mut Errors) {
    scope(layer, errors);
    arguments(layer, errors);
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

fn arguments(layer: &Layer, errors: &mut Errors) {
    let mut methods = Vec::new();
    for argument in &layer.arguments {
        let name = argument.name.unraw().to_string();
        if RESERVED.contains(&name.as_str()) {
            let message = format!("`{name}` is added by `#[parametric_function]`; rename this argument");
            errors.at(&argument.name, message);
        } else if methods.contains(&name) {
            let message = format!("`{name}` is an argument or a setter already; rename this argument");
            errors.at(&argument.name, message);
        }
        if argument.option.as_ref().is_some_and(|opt| opt.maybe) {
            methods.push(format!("maybe_{name}"));
        }
        methods.push(name);
    }
}

fn parameters(layer: &Layer, body: &Body, errors: &mut Errors) {
    let mut names = Vec::new();
    for (parameter, used) in layer.args.parameters.iter().zip(&body.used) {
        let name = parameter.name.unraw().to_string();
        if names.contains(&name) {
            errors.at(&parameter.name, format!("parameter `{name}` is declared twice"));
        } else if !used {
            let message =
                format!("parameter `{name}` is never used; ask for it in the body with `param!({name})?`");
            errors.at(&parameter.name, message);
        }
        names.push(name);
    }
}
