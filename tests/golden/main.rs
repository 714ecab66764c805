//! Every layer and function against what NNabla computed; `README.md` beside this file describes the fixtures.
//!
//! `LAYERFN_GOLDEN_DIR` names another folder of the same format. Arguments are parts of case names to run.

use std::process::ExitCode;

use candle_core::Device;
use layerfn_tests::golden::run_all;
use layerfn_tests::support::fixtures::folder;

fn main() -> ExitCode {
    let filters = filters();
    if filters.iter().any(|filter| filter == "--list") {
        return ExitCode::SUCCESS;
    }
    println!("\nfixtures in {}", folder().display());
    let kernels = run_all("", &Device::Cpu, &filters);
    // What runs on devices without kernels.
    let composed = layerfn::__private::composed(|| run_all(", composed", &Device::Cpu, &filters));
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
