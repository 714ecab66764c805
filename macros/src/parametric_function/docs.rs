//! The documentation of a layer: its arguments and parameters as tables.

use syn::ext::IdentExt;
use syn::{Attribute, Expr, Ident};

use super::layer::{Argument, Holding, Layer, NO_DEFAULT};
use crate::support::{attrs, print};

/// The user's documentation with the tables inserted before the examples, or at the end if there are none.
pub(super) fn attributes(layer: &Layer) -> Vec<Attribute> {
    let tables = arguments(layer) + &parameters(layer) + &fused(layer);
    let mut docs = layer.attributes.docs.clone();
    let is_example = |doc: &Attribute| {
        let lines = attrs::doc_lines(std::slice::from_ref(doc));
        matches!(lines.as_slice(), [line] if line == "# Example" || line == "# Examples")
    };
    let at = docs.iter().position(is_example).unwrap_or(docs.len());
    docs.insert(at, syn::parse_quote!(#[doc = #tables]));
    docs
}

const HEADER: &str = "| argument | type | default | meaning |\n|---|---|---|---|\n";

fn arguments(layer: &Layer) -> String {
    let structure = &layer.structure;
    let mut text = format!(
        "\n# Arguments\n\
         Required ones by position, the others as methods of [`{structure}`](struct@{structure}) before \
         [`call()`]({structure}::call).\n\n{}\n{HEADER}",
        calls(layer)
    );
    let setter = |name: &Ident| format!("[`{}`]({structure}::{name})", name.unraw());
    text.extend(layer.arguments.iter().map(|argument| row(argument, setter)));
    text.push_str(&format!(
        "| [`name`]({structure}::name) | `impl Into<String>` | none | Scope around the layer's own. |\n"
    ));
    if layer.has_scope() {
        text.push_str(&format!(
            "| [`fix_parameters`]({structure}::fix_parameters) | `bool` | `false` | \
             Whether to take the parameters without gradient. |\n"
        ));
    }
    text
}

/// The call of the layer, and its use as a stage of a network.
fn calls(layer: &Layer) -> String {
    let name = layer.name();
    let (mut required, mut set, mut given) = (Vec::new(), String::new(), String::new());
    for argument in &layer.arguments {
        let name = argument.name.unraw();
        let reference = matches!(argument.holding, Holding::Reference(_) | Holding::OptionReference(_));
        let value = format!("{}{name}", if reference { "&" } else { "" });
        match argument.option {
            None => required.push(value),
            Some(_) if set.is_empty() => {
                (set, given) = (format!(".{name}({value})"), format!("{name} = {value}"))
            }
            Some(_) => {}
        }
    }
    let call = format!("{name}({}){set}.name(\"x\").call()?", required.join(", "));
    let mut text = format!("- Call: {}\n", code(&call));
    if let [_, others @ ..] = required.as_slice() {
        let mut others = others.to_vec();
        others.extend((!given.is_empty()).then_some(given));
        let arguments = if others.is_empty() { String::new() } else { format!("({})", others.join(", ")) };
        text.push_str(&format!("- In a network: {}\n", code(&format!("x: {name}{arguments}"))));
    }
    text
}

/// The arguments of a group.
pub(super) fn group(arguments: &[Argument]) -> String {
    let name = |name: &Ident| code(&name.unraw().to_string());
    let rows = arguments.iter().map(|argument| row(argument, name));
    ["\n\n", HEADER].into_iter().map(str::to_owned).chain(rows).collect()
}

/// The row of an argument; `option` writes the name of an optional one.
fn row(argument: &Argument, option: impl Fn(&Ident) -> String) -> String {
    let lines = argument.doc_lines();
    let (name, default, meaning) = match argument.default_text() {
        // The documentation of the setter has the rest of the description.
        Some(default) => {
            let default = if default == NO_DEFAULT { default } else { code(&default) };
            (option(&argument.name), default, attrs::first_paragraph(&lines))
        }
        None => (code(&argument.name.unraw().to_string()), "required".to_owned(), attrs::one_line(&lines)),
    };
    let (ty, meaning) = (code(&type_text(argument)), cell(&meaning));
    format!("| {name} | {ty} | {default} | {meaning} |\n")
}

/// The type that the caller passes.
fn type_text(argument: &Argument) -> String {
    let ty = print::ty(&argument.given_type());
    if argument.into { format!("impl Into<{ty}>") } else { ty }
}

fn parameters(layer: &Layer) -> String {
    let Some(scope) = layer.args.scope.as_ref().map(syn::LitStr::value) else { return String::new() };
    if layer.args.parameters.is_empty() {
        return format!(
            "\nThe layers inside register their parameters under the scope `{scope}`, with `.name(\"x\")` under \
             `x/{scope}`.\n"
        );
    }
    let mut text = "\n# Parameters\n\
                    | path | shape | need_grad | initial value | description |\n|---|---|---|---|---|\n"
        .to_owned();
    for parameter in &layer.args.parameters {
        let path = code(&format!("{scope}/{}", parameter.name_text()));
        let (shape, initial) = (code(&parameter.shape_text()), initial(layer, &parameter.initial, &code));
        let need_grad = parameter.need_grad;
        let mut description = cell(&attrs::one_line(&parameter.docs));
        if let Some(index) = &parameter.index {
            let (variable, range) = (index.variable.to_string(), index.range_text());
            description.push_str(&format!(" One for each {} in {}.", code(&variable), code(&range)));
        }
        if let Some(when) = &parameter.when {
            description.push_str(&format!(" Only if {}.", code(&print::expr(when))));
        }
        text.push_str(&format!("| {path} | {shape} | `{need_grad}` | {initial} | {description} |\n"));
    }
    text.push_str(&format!(
        "\nThe paths are relative to the current parameter scope; with `.name(\"x\")` they start with `x/{scope}`. \
         The initial value is used only when the parameter is created.\n"
    ));
    text
}

/// An initial value from the point of view of a caller: `w_init.unwrap_or_else(|| Initializer::zeros())` is the
/// option `w_init`, or zeros if it is not set. The generator that it draws from is omitted, since it is an
/// ordinary option. `code` formats code.
pub(super) fn initial(layer: &Layer, value: &Expr, code: &dyn Fn(&str) -> String) -> String {
    let value = without_clone(value);
    if let Expr::MethodCall(call) = value {
        let otherwise = match (call.method.to_string().as_str(), call.args.first()) {
            ("with_rng", Some(_)) => return initial(layer, &call.receiver, code),
            ("unwrap_or", Some(otherwise)) => Some(otherwise),
            ("unwrap_or_else", Some(Expr::Closure(closure))) if closure.inputs.is_empty() => {
                Some(&*closure.body)
            }
            _ => None,
        };
        let option = match without_clone(&call.receiver) {
            Expr::Path(path) => path.path.get_ident(),
            _ => None,
        };
        let is_option = |name: &Ident| layer.arguments.iter().any(|argument| argument.name == *name);
        if let (Some(option), Some(otherwise)) = (option.filter(|name| is_option(name)), otherwise) {
            let option = code(&option.unraw().to_string());
            return format!("{option}, or {}", initial(layer, otherwise, code));
        }
    }
    code(&print::expr(value))
}

/// The receiver of `clone`, which a caller does not see.
fn without_clone(value: &Expr) -> &Expr {
    match value {
        Expr::MethodCall(call) if call.method == "clone" && call.args.is_empty() => &call.receiver,
        value => value,
    }
}

/// The functions that the layer fuses with.
fn fused(layer: &Layer) -> String {
    let names = layer.args.fused.iter().map(|fused| code(&fused.name())).collect::<Vec<_>>();
    match names.as_slice() {
        [] => String::new(),
        names => format!(
            "\nIn a network, {} right behind the layer is computed together with it.\n",
            names.join(" or ")
        ),
    }
}

/// Code in a table cell: `|` would end the cell, even in code.
fn code(text: &str) -> String {
    let text = cell(text);
    if text.contains('`') { format!("`` {text} ``") } else { format!("`{text}`") }
}

/// Text in a table cell.
fn cell(text: &str) -> String {
    text.replace(['\n', '\r'], " ").replace('|', "\\|")
}
