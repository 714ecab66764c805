//! The layer table of the README, made from the layers' descriptions.

use std::fmt::Write as _;
use std::{env, fs};

use layerfn::LAYERS;

const README: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");

fn table() -> String {
    let mut table = String::from("| layer | scope | parameters | |\n| --- | --- | --- | --- |\n");
    for info in LAYERS {
        let parameters: Vec<_> = info
            .parameters
            .iter()
            .filter(|p| !p.name.starts_with('_'))
            .map(|p| format!("`{}`", p.name))
            .collect();
        let doc = info.doc.split(". ").next().unwrap_or(info.doc).trim_end_matches('.');
        let doc = doc.replace("](fn@crate::", "](#").replace("](fn@", "](#");
        let doc = unlink(&doc);
        writeln!(table, "| `{}` | `{}` | {} | {doc} |", info.name, info.scope, parameters.join(" ")).unwrap();
    }
    table
}

/// Link texts without their targets, which only rustdoc resolves.
fn unlink(doc: &str) -> String {
    let mut text = String::new();
    let mut rest = doc;
    while let Some(start) = rest.find("](") {
        text.push_str(&rest[..start]);
        rest = rest[start..].split_once(')').map_or("", |(_, after)| after);
    }
    text.push_str(rest);
    text.replace('[', "")
}

#[test]
fn the_layer_table_of_the_readme_is_current() {
    let readme = fs::read_to_string(README).unwrap();
    let (before, rest) = readme.split_once("<!-- layers:").unwrap();
    let (marker, rest) = rest.split_once("-->\n").unwrap();
    let (current, after) = rest.split_once("<!-- /layers -->").unwrap();
    let wanted = format!("\n{}\n", table());
    if env::var_os("UPDATE_README").is_some() {
        fs::write(README, format!("{before}<!-- layers:{marker}-->\n{wanted}<!-- /layers -->{after}"))
            .unwrap();
        return;
    }
    assert_eq!(current, wanted, "run `UPDATE_README=1 cargo test -p layerfn-tests --test registry`");
}
