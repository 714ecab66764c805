//! `layerfn layers`.

use std::io::Write;
use std::process::ExitCode;

use anstyle::Style;
use layerfn::{LAYERS, LayerInfo};

use crate::Outcome;
use crate::table::{HEAD, table};

pub(crate) fn run(names: &[String], json: bool, output: &mut Vec<u8>) -> Outcome {
    let mut chosen: Vec<&LayerInfo> = Vec::new();
    for name in names {
        // Chains and paths know a layer by its scope: `conv`, `bn`.
        let named = LAYERS.iter().find(|layer| layer.name == name);
        let found = named.or_else(|| LAYERS.iter().find(|layer| layer.scope == name));
        chosen.push(found.ok_or_else(|| format!("no layer `{name}`; `layerfn layers` lists them"))?);
    }
    if names.is_empty() {
        chosen = LAYERS.to_vec();
    }
    if json {
        let layers: Vec<_> = chosen.into_iter().map(described).collect();
        writeln!(output, "{:#}", serde_json::Value::from(layers))?;
    } else if names.is_empty() {
        let row = |layer: &&LayerInfo| vec![layer.name.to_owned(), first_line(layer.doc)];
        let rows: Vec<_> = chosen.iter().map(row).collect();
        let name = |_, column| if column == 0 { Style::new().bold() } else { Style::new() };
        table(&rows, name, output)?;
    } else {
        for (index, layer) in chosen.into_iter().enumerate() {
            if index > 0 {
                writeln!(output)?;
            }
            show(layer, output)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn first_line(doc: &str) -> String {
    unlinked(doc).lines().next().unwrap_or_default().to_owned()
}

/// Without the links of rustdoc: ``[`name`](target)`` is `` `name` ``.
fn unlinked(doc: &str) -> String {
    let mut text = String::with_capacity(doc.len());
    let mut rest = doc.trim();
    while let Some((before, link)) = rest.split_once("[`") {
        let Some((name, after)) = link.split_once("`]") else { break };
        text.extend([before, "`", name, "`"]);
        let target = after.strip_prefix('(').and_then(|target| target.split_once(')'));
        rest = target.map_or(after, |(_, after)| after);
    }
    text.push_str(rest);
    text
}

fn show(layer: &LayerInfo, output: &mut Vec<u8>) -> std::io::Result<()> {
    let bold = Style::new().bold();
    writeln!(output, "{bold}{}{bold:#}: {}\n", layer.name, unlinked(layer.doc))?;
    let mut rows = vec![["argument", "type", "default", "description"].map(str::to_owned).to_vec()];
    rows.extend(layer.arguments.iter().map(|argument| {
        let default = argument.default.unwrap_or("required");
        vec![argument.name.to_owned(), argument.ty.to_owned(), default.to_owned(), first_line(argument.doc)]
    }));
    table(&rows, under_heads, output)?;
    if layer.parameters.is_empty() {
        return Ok(());
    }
    writeln!(output)?;
    let heads = ["parameter", "shape", "need_grad", "initial value", "description"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    rows.extend(layer.parameters.iter().map(|parameter| {
        let path = match layer.scope {
            "" => parameter.name.to_owned(),
            scope => format!("{scope}/{}", parameter.name),
        };
        let need_grad = parameter.need_grad.to_string();
        let condition = parameter.when.map_or_else(String::new, |when| format!(" (if {when})"));
        let doc = format!("{}{condition}", first_line(parameter.doc));
        vec![path, parameter.shape.to_owned(), need_grad, parameter.initial.to_owned(), doc]
    }));
    table(&rows, under_heads, output)
}

fn under_heads(row: usize, _column: usize) -> Style {
    if row == 0 { HEAD } else { Style::new() }
}

fn described(layer: &LayerInfo) -> serde_json::Value {
    let arguments = layer.arguments.iter().map(|argument| {
        serde_json::json!({
            "name": argument.name, "type": argument.ty, "default": argument.default, "description": unlinked(argument.doc),
        })
    });
    let parameters = layer.parameters.iter().map(|parameter| {
        serde_json::json!({
            "name": parameter.name, "shape": parameter.shape, "need_grad": parameter.need_grad,
            "initial": parameter.initial, "when": parameter.when, "description": unlinked(parameter.doc),
        })
    });
    serde_json::json!({
        "name": layer.name, "scope": layer.scope, "description": unlinked(layer.doc),
        "arguments": arguments.collect::<Vec<_>>(), "parameters": parameters.collect::<Vec<_>>(),
    })
}
