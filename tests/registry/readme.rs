//! What the README has of the layers' descriptions, the pictures of networks, and the links of all documents.

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

/// The networks of the chapter on networks: names of their pictures, their text, and the pictures.
fn pictures() -> Vec<(&'static str, &'static str, String)> {
    macro_rules! pictures {
        ($($name:literal: $shapes:tt => { $($network:tt)* })*) => {
            vec![$(($name, stringify!($($network)*), network! { $($network)* }.summary($shapes).unwrap().to_svg())),*]
        };
    }
    let (wide, gated) = (true, true);
    let body = network! { affine(8) -> relu };
    pictures! {
        "chain": [(1, 4)] => { fc1: affine(8) -> relu -> out: affine(2) }
        "block": [(1, 4)] => { head: { affine(8) -> relu } -> out: affine(2) }
        "residual": [(1, 8)] => { residual { affine(8) -> relu } -> out: affine(2) }
        "add": [(1, 4)] => { add { left: affine(8), right: { affine(8) -> tanh } } -> relu }
        "mul": [(1, 4)] => { affine(8) -> mul { _, gate: { affine(8) -> sigmoid } } }
        "concat": [(1, 3, 8, 8)] => { concat(1) { conv(4, (1, 1)), conv(4, (3, 3), pad = 1) } -> relu }
        "tuple": [(1, 4)] => { affine(8) -> tuple { class: affine(10), size: affine(1) } }
        "for": [(1, 4)] => { for i in 0..2 { block[i]: { affine(8) -> relu } } -> out: affine(2) }
        "if": [(1, 4)] => { if wide { affine(64) } else { affine(8) } -> relu -> if gated { dropout } }
        "use": [(1, 4)] => { affine(8) as skip -> relu -> affine(8) -> concat(1) { _, use(skip) } }
        "shared": [(1, 4)] => { shared step: affine(4) -> relu -> shared step: affine(4) }
        "frozen": [(1, 4)] => { frozen features: { affine(8) -> bn } -> out: affine(2) }
        "inputs": [(1, 4), (1, 6)] => { |image, text| concat(1) { affine(8), use(text) -> affine(8) } -> relu }
        "stages": [(1, 4)] => { body -> (|x: &Tensor| x * 2.0) -> out: affine(2) }
    }
}

#[test]
fn the_pictures_of_the_chapter_on_networks_are_those_of_its_networks() {
    let guide = root().join("runtime/guide");
    let chapter = fs::read_to_string(guide.join("networks.md")).unwrap();
    let without_blanks = |text: &str| text.split_whitespace().collect::<String>();
    let code = without_blanks(&chapter);
    // rustdoc knows no files beside the page, so each picture is an address for it, too.
    let mut addresses = String::new();
    let mut files = Vec::new();
    for (name, network, svg) in pictures() {
        assert!(code.contains(&format!("network!{{{}}}", without_blanks(network))), "{name}: {network}");
        assert!(chapter.contains(&format!("[{name}]: pictures/{name}.svg\n")), "{name}");
        let address: String = svg
            .trim_end()
            .chars()
            .map(|c| match c {
                '<' | '>' | '#' | '%' | '&' | '"' | ' ' | '\\' => format!("%{:02X}", c as u32),
                _ => c.to_string(),
            })
            .collect();
        writeln!(addresses, "[{name}]: <data:image/svg+xml;charset=utf-8,{address}>").unwrap();
        files.push((guide.join(format!("pictures/{name}.svg")), svg));
    }
    files.push((root().join("runtime/src/macro_docs/pictures.md"), addresses));
    for (file, wanted) in files {
        if env::var_os("UPDATE_README").is_some() {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, wanted).unwrap();
            continue;
        }
        let current = fs::read_to_string(&file).unwrap_or_default();
        let advice = "run `UPDATE_README=1 cargo test -p layerfn-tests --test registry`";
        assert!(current == wanted, "{}: {advice}", file.display());
    }
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
    let names = chapters.lines().filter(|line| !line.contains("#["));
    let in_reference: Vec<&str> =
        names.flat_map(|line| line.trim_end_matches('}').split_whitespace()).collect();
    let in_book: Vec<&str> =
        summary.split("](").skip(1).map(|rest| rest.split_once(".md").unwrap().0).collect();
    assert_eq!(in_book, in_reference);
    let mut files: Vec<String> =
        fs::read_dir(guide).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    files.retain(|name| name != "SUMMARY.md" && name != "pictures");
    let mut wanted: Vec<String> = in_book.iter().map(|chapter| format!("{chapter}.md")).collect();
    files.sort();
    wanted.sort();
    assert_eq!(files, wanted);
}
