//! Networks of files as Rust code: what `declare` prints.

use std::path::{Path, PathBuf};

use layerfn::Result;
use layerfn::nnp::Nnp;
use layerfn_tests::support::fixtures::{folder, given_folder};

use super::{AFFINE, opened};

/// The files of networks among the fixtures.
fn fixtures() -> Vec<PathBuf> {
    let is_network = |path: &PathBuf| {
        let extension = path.extension().and_then(|extension| extension.to_str());
        extension.is_some_and(|extension| ["nnp", "nntxt", "prototxt", "protobuf"].contains(&extension))
    };
    let entries = std::fs::read_dir(folder().join("networks")).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).filter(is_network).collect();
    files.sort();
    files
}

/// Every network of the fixtures is declared, and those that are committed are what is printed now. `UPDATE_DECLARED=1` writes them
/// anew.
#[test]
fn networks_of_the_fixtures_are_declared() -> Result<()> {
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("nnp/declared");
    let mut faults = Vec::new();
    for path in fixtures() {
        let file = Nnp::open(&path)?;
        let stem = path.file_stem().unwrap().to_string_lossy();
        for network in file.networks() {
            let name = format!("{stem}_{}.rs", network.to_lowercase());
            let code = match file.declare(network) {
                Ok(code) => code,
                Err(error) => {
                    faults.push(error.to_string());
                    continue;
                }
            };
            if std::env::var_os("UPDATE_DECLARED").is_some() {
                std::fs::write(committed.join(name), code).unwrap();
            } else if given_folder().is_none()
                && std::fs::read_to_string(committed.join(&name)).ok() != Some(code)
            {
                faults.push(format!("`{name}` is another; UPDATE_DECLARED=1 writes it"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    Ok(())
}

#[test]
fn what_cannot_be_declared_is_an_error() -> Result<()> {
    let file =
        opened(&AFFINE.replace("\"Affine\"", "\"Afine\"").replace("affine_param { base_axis: 1 }", ""));
    let error = file.and_then(|file| file.declare("n")).unwrap_err().to_string();
    assert!(error.contains("Afine") && error.contains("did you mean `Affine`?"), "{error}");
    let error = opened(AFFINE)?.declare("m").unwrap_err().to_string();
    assert!(error.contains("has no network `m`"), "{error}");
    Ok(())
}

/// Sums that lie in each other, of which each takes the input again.
#[test]
fn deep_networks_are_declared() -> Result<()> {
    let variable = |name: &str| {
        format!("variable {{ name: \"{name}\" type: \"Buffer\" shape: {{ dim: -1 dim: 3 }} }}\n")
    };
    let mut text = format!("network {{ name: \"n\"\n{}{}", variable("x"), variable("a0"));
    text += "function { name: \"f\" type: \"Tanh\" input: \"x\" output: \"a0\" }\n";
    for n in 0..3000 {
        let (before, after, sum) = (format!("a{n}"), format!("a{}", n + 1), format!("s{n}"));
        text += &(variable(&after) + &variable(&sum));
        text += &format!(
            "function {{ name: \"add{n}\" type: \"Add2\" input: \"x\" input: \"{before}\" output: \"{sum}\" }}\n"
        );
        text += &format!(
            "function {{ name: \"tanh{n}\" type: \"Tanh\" input: \"{sum}\" output: \"{after}\" }}\n"
        );
    }
    let code = opened(&(text + "}"))?.declare("n")?;
    assert_eq!(code.matches("tanh").count(), 3001);
    assert!(code.lines().all(|line| line.len() <= 110));
    Ok(())
}
