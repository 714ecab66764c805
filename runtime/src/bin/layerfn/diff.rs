//! `layerfn diff`.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use candle_core::{DType, Tensor};
use layerfn::checkpoint::{Checkpoint, Entry};

use crate::Outcome;
use crate::table::plain;

pub(crate) fn run(left: &Path, right: &Path, tolerance: f64, types: bool, output: &mut Vec<u8>) -> Outcome {
    let (left, right) = (Checkpoint::open(left)?, Checkpoint::open(right)?);
    for checkpoint in [&left, &right] {
        for unusable in checkpoint.unusable() {
            let line = format!("not compared: {}: {unusable}", checkpoint.origin());
            eprintln!("layerfn: {}", plain(&line));
        }
    }
    let mut differences = Vec::new();
    let others: HashMap<&str, &Entry> = right.entries().iter().map(|entry| (entry.path(), entry)).collect();
    let mut common = Vec::new();
    for entry in left.entries() {
        match others.get(entry.path()) {
            Some(other) => {
                common.push(entry.path());
                compare(entry, other, tolerance, types, &mut differences)?;
            }
            None => differences.push(format!("- {} {:?}", entry.path(), entry.tensor().dims())),
        }
    }
    let known: HashMap<&str, ()> = common.iter().map(|path| (*path, ())).collect();
    let both = right.entries().iter().filter(|entry| known.contains_key(entry.path()));
    if both.map(Entry::path).ne(common.iter().copied()) {
        differences.push("~ the order of the parameters differs".to_owned());
    }
    for entry in right.entries().iter().filter(|entry| !known.contains_key(entry.path())) {
        differences.push(format!("+ {} {:?}", entry.path(), entry.tensor().dims()));
    }
    for difference in &differences {
        let style = match difference.chars().next() {
            Some('-') => AnsiColor::Red.on_default(),
            Some('+') => AnsiColor::Green.on_default(),
            _ => Style::new(),
        };
        writeln!(output, "{style}{}{style:#}", plain(difference))?;
    }
    Ok(if differences.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn compare(
    left: &Entry,
    right: &Entry,
    tolerance: f64,
    types: bool,
    found: &mut Vec<String>,
) -> Result<(), candle_core::Error> {
    let (path, a, b) = (left.path(), left.tensor(), right.tensor());
    if left.need_grad() != right.need_grad() && left.need_grad().is_some() && right.need_grad().is_some() {
        found.push(format!("~ {path}: need_grad differs"));
    }
    if types && a.dtype() != b.dtype() {
        found.push(format!("~ {path}: type {} and {}", a.dtype().as_str(), b.dtype().as_str()));
    }
    if a.dims() != b.dims() {
        found.push(format!("~ {path}: shape {:?} and {:?}", a.dims(), b.dims()));
        return Ok(());
    }
    let (mut count, mut largest) = (0_usize, 0_f64);
    for difference in differences(a, b)?.into_iter().filter(|difference| *difference > tolerance) {
        count += 1;
        largest = largest.max(difference);
    }
    if count > 0 {
        found.push(format!("~ {path}: {count} of {} values differ, by {largest:e} at most", a.elem_count()));
    }
    Ok(())
}

/// How far the values are apart, one by one.
fn differences(a: &Tensor, b: &Tensor) -> Result<Vec<f64>, candle_core::Error> {
    // The integers that f64 would round.
    if a.dtype() == DType::I64 && b.dtype() == DType::I64 {
        let values = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<i64>();
        return Ok(values(a)?.into_iter().zip(values(b)?).map(|(x, y)| x.abs_diff(y) as f64).collect());
    }
    let values = |tensor: &Tensor| tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>();
    let difference = |(x, y): (f64, f64)| match (x - y).abs() {
        // Equal infinities have no difference, and any NaN equals any other.
        _ if x == y || (x.is_nan() && y.is_nan()) => 0.0,
        difference if difference.is_nan() => f64::INFINITY,
        difference => difference,
    };
    Ok(values(a)?.into_iter().zip(values(b)?).map(difference).collect())
}

/// Parses the tolerance.
pub(crate) fn tolerance(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|tolerance| *tolerance >= 0.0)
        .ok_or_else(|| "a number from 0 on is expected".to_owned())
}
