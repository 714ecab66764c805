//! Every layer against what NNabla computed; `README.md` beside this file describes the fixtures.
//!
//! `LAYERFN_GOLDEN_DIR` names another folder of the same format. Arguments are parts of case names to run.

mod case;
mod factors;
mod inq;
mod run;

use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;

use layerfn_tests::support::fixtures::{folder, given_folder, read_json};

use case::Case;
use run::Outcome;

fn main() -> ExitCode {
    let filters = filters();
    if filters.iter().any(|filter| filter == "--list") {
        return ExitCode::SUCCESS;
    }
    let dir = folder();
    println!("\nfixtures in {}", dir.display());
    let run = |how: &str| {
        let top = run_manifest(&format!("golden{how}"), &dir, &filters, run::NewerArguments::Fail);
        let beyond = dir.join("beyond");
        run_manifest(&format!("beyond{how}"), &beyond, &filters, run::NewerArguments::Skip) && top
    };
    let kernels = run("");
    // What runs on devices without kernels.
    let composed = layerfn::__private::composed(|| run(", composed"));
    if kernels && composed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What `cargo test` passes on: parts of test names, and options that mean nothing here.
fn filters() -> Vec<String> {
    let with_value = ["--test-threads", "--skip", "--format", "--color", "--logfile", "-Z"];
    let mut filters = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        if with_value.contains(&argument.as_str()) {
            arguments.next();
        } else if argument == "--list" || !argument.starts_with('-') {
            filters.push(argument);
        }
    }
    filters
}

/// Runs the cases of one manifest and prints its line; whether none failed.
fn run_manifest(label: &str, dir: &Path, filters: &[String], newer: run::NewerArguments) -> bool {
    let path = dir.join("manifest.json");
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    let mut fail = |text: &str| {
        println!("FAILED {text}");
        failed += 1;
    };
    if path.exists() {
        let cases = match read_json(&path).map(|manifest| manifest["cases"].as_array().cloned()) {
            Ok(Some(cases)) => cases,
            Ok(None) => {
                fail(&format!("{}: has no list `cases`", path.display()));
                Vec::new()
            }
            Err(text) => {
                fail(&text);
                Vec::new()
            }
        };
        for case in cases {
            let id = case["id"].as_str().unwrap_or("(no id)").to_owned();
            if !filters.is_empty() && !filters.iter().any(|filter| id.contains(filter)) {
                continue;
            }
            match run_one(dir, case, newer) {
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

fn run_one(dir: &Path, case: serde_json::Value, newer: run::NewerArguments) -> Outcome {
    let case: Case = match serde_json::from_value(case) {
        Ok(case) => case,
        Err(error) => return Outcome::Failed(vec![format!("the manifest's entry: {error}")]),
    };
    catch_unwind(AssertUnwindSafe(|| run::run(dir, &case, newer))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no text");
        Outcome::Failed(vec![format!("panicked: {text}")])
    })
}
