//! Tables and plots of many measurements.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use layerfn::functions::affine;
use layerfn_examples::pictures;
use serde_json::Value;

use crate::workloads::{NAMES, Workload};
use crate::{Mode, Options, Result, measure};

/// Every workload in a process of its own, so that each has its own memory.
pub(crate) fn table(options: &Options) -> Result<()> {
    measure::set_threads(options.threads)?;
    println!("{} threads, {}\n", options.threads, layerfn::__private::level());
    println!("| workload | mode | ms | GFLOP | GFLOP/s | of a product | peak memory, MB | check value |");
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    for (name, trains) in NAMES {
        for mode in ["train", "infer"].into_iter().filter(|mode| trains || *mode == "infer") {
            // Beside each row: the clock of a processor is not constant.
            let peak = product()?;
            let line = measured(options, name, mode)?;
            let number =
                |key: &str| line[key].as_f64().ok_or_else(|| format!("`{key}` is not a number: {line}"));
            let (ms, gflop) = (number("ms_median")?, number("gflop")?);
            let speed = gflop / ms * 1e3;
            println!(
                "| {name} | {mode} | {ms:.3} | {gflop:.4} | {speed:.1} | {:.0} % of {peak:.0} | {:.0} | {} |",
                100.0 * speed / peak,
                number("peak_rss_mb")?,
                line["loss"],
            );
        }
    }
    Ok(())
}

/// The line of this program for one workload.
fn measured(options: &Options, workload: &str, mode: &str) -> Result<Value> {
    let numbers = [
        ("--steps", options.steps.to_string()),
        ("--max-steps", options.max_steps.to_string()),
        ("--budget", options.budget.to_string()),
        ("--warmup", options.warmup.to_string()),
        ("--threads", options.threads.to_string()),
        ("--max-wall", options.max_wall.to_string()),
    ];
    let output = Command::new(std::env::current_exe()?)
        .args(["--workload", workload, "--mode", mode])
        .args(numbers.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]))
        .output()?;
    if !output.status.success() {
        return Err(format!("{workload} {mode}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// GFLOP/s of the best of some products of two matrices of 1024 rows and columns, in as many threads as the rest.
fn product() -> Result<f64> {
    let random = || Tensor::randn(0.0, 1.0, (1024, 1024), &Device::Cpu)?.to_dtype(DType::F32);
    let (a, b) = (random()?, random()?);
    let mut best = f64::INFINITY;
    for _ in 0..8 {
        let begun = Instant::now();
        affine(&a, &b, None, 1)?;
        best = best.min(begun.elapsed().as_secs_f64());
    }
    Ok(2.0 * 1024f64.powi(3) / best / 1e9)
}

/// LeNet over the batch size and `deep` over the depth.
pub(crate) fn sweep(options: &Options) -> Result<()> {
    measure::set_threads(options.threads)?;
    let batches = [1, 2, 4, 8, 16, 32, 64, 128, 192, 256, 384, 512];
    let depths = [1, 2, 5, 10, 20, 40, 60, 80, 100, 150, 200];
    let panels = [
        pictures::Sweep {
            title: "LeNet",
            over: "batch size",
            lines: lines(options, &batches, Workload::lenet)?,
        },
        pictures::Sweep { title: "deep", over: "layers", lines: lines(options, &depths, Workload::deep)? },
    ];
    for panel in &panels {
        println!(
            "| {}, {} | {}, ms |",
            panel.title,
            panel.over,
            panel.lines.each_ref().map(|line| line.0).join(", ms | ")
        );
        println!("| --- | --- | --- |");
        for (&(x, train), &(_, infer)) in panel.lines[0].1.iter().zip(&panel.lines[1].1) {
            println!("| {x} | {train:.4} | {infer:.4} |");
        }
        println!();
    }
    let file = Path::new("target/bench/sweep.svg");
    fs::create_dir_all("target/bench")?;
    pictures::sweeps(file, &panels)?;
    println!("plot: {}", file.display());
    Ok(())
}

/// Milliseconds of a step of training and of inference at each size.
fn lines(
    options: &Options,
    sizes: &[usize],
    workload: impl Fn(usize) -> Workload,
) -> Result<[pictures::Line; 2]> {
    let line = |mode| {
        let options = Options { mode, ..options.clone() };
        let point =
            |&size: &usize| Ok((size as f64, measure::time(&workload(size), &options, None)?.median()));
        sizes.iter().map(point).collect::<Result<Vec<_>>>()
    };
    Ok([("training", line(Mode::Train)?), ("inference", line(Mode::Infer)?)])
}
