//! Every layer, function, solver and schedule against what NNabla computed; `README.md` beside this file describes the fixtures.

mod case;
mod factors;
mod inq;
mod networks;
mod run;
mod schedulers;
mod solvers;

use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use candle_core::Device;
use serde_json::Value;

use crate::support::fixtures::{folder, given_folder, read_json};
use case::Case;
use run::{Of, Outcome};

/// Runs all fixtures on `device`, or those whose names contain one of `filters`, and prints a line a manifest, which
/// starts with its name and `how`; whether none failed.
pub fn run_all(how: &str, device: &Device, filters: &[String]) -> bool {
    let dir = folder();
    let manifests = [
        ("golden", "", Of::Layers),
        ("beyond", "beyond", Of::Layers),
        ("functions", "functions", Of::Functions),
    ];
    let run = |&(name, part, of): &(&str, &str, Of)| {
        let dir = dir.join(part);
        let file = (dir.join("manifest.json"), "cases");
        run_manifest(&format!("{name}{how}"), &file, "id", filters, |case| run_one(&dir, case, device, of))
    };
    // Every line is wanted, whatever the first is.
    let layers = manifests.iter().filter(|manifest| !run(manifest)).count() == 0;
    let of_solvers = dir.join("solvers");
    let manifest = (of_solvers.join("manifest.json"), "cases");
    let solvers = run_manifest(&format!("solvers{how}"), &manifest, "id", filters, |case| {
        caught(|| solvers::run(&of_solvers, case, device))
    });
    let table = (dir.join("schedulers.json"), "table");
    // They know no device.
    let schedulers = !how.is_empty()
        || run_manifest("schedulers", &table, "class", filters, |entry| caught(|| schedulers::run(&entry)));
    let of_networks = dir.join("networks");
    let manifest = (of_networks.join("manifest.json"), "networks");
    let networks = run_manifest(&format!("networks{how}"), &manifest, "id", filters, |case| {
        caught(|| networks::run(&of_networks, case, device))
    });
    layers && solvers && schedulers && networks
}

/// Runs the cases of one manifest, a list under a key of a JSON file, and prints its line; whether none failed. `id` is the key
/// of their names.
fn run_manifest(
    label: &str,
    (path, key): &(PathBuf, &str),
    id: &str,
    filters: &[String],
    run: impl Fn(Value) -> Outcome,
) -> bool {
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    let mut fail = |text: &str| {
        println!("FAILED {text}");
        failed += 1;
    };
    if path.exists() {
        let cases = match read_json(path).map(|manifest| manifest[key].as_array().cloned()) {
            Ok(Some(cases)) => cases,
            Ok(None) => {
                fail(&format!("{}: has no list `{key}`", path.display()));
                Vec::new()
            }
            Err(text) => {
                fail(&text);
                Vec::new()
            }
        };
        for case in cases {
            let id = case[id].as_str().unwrap_or("(no name)").to_owned();
            if !filters.is_empty() && !filters.iter().any(|filter| id.contains(filter)) {
                continue;
            }
            match run(case) {
                Outcome::Passed => passed += 1,
                Outcome::Failed(texts) => fail(&format!("{id}:\n    {}", texts.join("\n    "))),
                Outcome::Skipped(why) => {
                    println!("skipped {id}: {why}");
                    skipped += 1;
                }
            }
        }
    } else if given_folder().is_some_and(|given| given.is_dir()) {
        println!("no {}", path.display());
    } else {
        fail(&format!("no {}", path.display()));
    }
    println!("{label}: {passed} passed, {failed} failed, {skipped} skipped");
    // The line must not stand behind what the next test binary prints.
    let _ = std::io::stdout().flush();
    failed == 0
}

fn run_one(dir: &Path, case: Value, device: &Device, of: Of) -> Outcome {
    let case: Case = match serde_json::from_value(case) {
        Ok(case) => case,
        Err(error) => return Outcome::Failed(vec![format!("the manifest's entry: {error}")]),
    };
    caught(|| run::run(dir, &case, of, device))
}

/// A panic is a failure like others.
fn caught(run: impl FnOnce() -> Outcome) -> Outcome {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no text");
        Outcome::Failed(vec![format!("panicked: {text}")])
    })
}
