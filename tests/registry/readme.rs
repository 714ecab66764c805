//! What the README has of the layers' descriptions, its picture, and the links of all documents.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use layerfn::LAYERS;
use layerfn::prelude::*;

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

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn the_picture_of_the_readme_is_that_of_its_network() {
    let lenet = network! {
        < c1: conv(16, (5, 5)) -> max_pool((2, 2)) -> relu
       -> c2: conv(16, (5, 5)) -> max_pool((2, 2)) -> relu
       -> affine(50) -> relu -> out: affine(10) >
    };
    let picture = root().join("docs/pictures/lenet.svg");
    let wanted = lenet.summary([(1, 1, 28, 28)]).unwrap().to_svg();
    if env::var_os("UPDATE_README").is_some() {
        fs::write(picture, wanted).unwrap();
        return;
    }
    let current = fs::read_to_string(picture).unwrap();
    assert!(current == wanted, "run `UPDATE_README=1 cargo test -p layerfn-tests --test registry`");
}

/// The documents in Markdown, with their text outside of code.
fn documents() -> Vec<(PathBuf, String)> {
    let files =
        ["", "runtime/guide"].into_iter().flat_map(|folder| fs::read_dir(root().join(folder)).unwrap());
    let files = files.map(|file| file.unwrap().path());
    files
        .filter(|file| file.extension().is_some_and(|extension| extension == "md"))
        .map(|file| {
            let text = fs::read_to_string(&file).unwrap();
            let prose: Vec<&str> = text.split("```").step_by(2).collect();
            (file, prose.concat())
        })
        .collect()
}

#[test]
fn links_of_the_documents_lead_somewhere() {
    let mut n_links = 0;
    for (file, text) in documents() {
        for target in
            text.split("](").skip(1).filter_map(|rest| rest.split_once(')').map(|(target, _)| target))
        {
            if target.starts_with("http") || target.starts_with('#') {
                continue;
            }
            let path = target.split('#').next().unwrap();
            assert!(file.parent().unwrap().join(path).exists(), "{}: {target}", file.display());
            n_links += 1;
        }
    }
    assert!(n_links >= 20, "{n_links}");
}

#[test]
fn the_book_and_the_reference_have_the_same_chapters() {
    let guide = root().join("runtime/guide");
    let summary = fs::read_to_string(guide.join("SUMMARY.md")).unwrap();
    let module = fs::read_to_string(root().join("runtime/src/guide.rs")).unwrap();
    let (_, chapters) = module.split_once("chapters! {").unwrap();
    let in_reference: Vec<&str> = chapters.trim_end_matches(['}', '\n']).split_whitespace().collect();
    let in_book: Vec<&str> =
        summary.split("](").skip(1).map(|rest| rest.split_once(".md").unwrap().0).collect();
    assert_eq!(in_book, in_reference);
    let mut files: Vec<String> =
        fs::read_dir(guide).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    files.retain(|name| name != "SUMMARY.md");
    let mut wanted: Vec<String> = in_book.iter().map(|chapter| format!("{chapter}.md")).collect();
    files.sort();
    wanted.sort();
    assert_eq!(files, wanted);
}
