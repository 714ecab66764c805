//! `layerfn inspect`.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use candle_core::{DType, Tensor};
use layerfn::checkpoint::{Checkpoint, Entry, Unusable};

use crate::Outcome;
use crate::table::{HEAD, brief, plain, table};

pub(crate) fn run(file: &Path, json: bool, output: &mut Vec<u8>) -> Outcome {
    let checkpoint = Checkpoint::open(file)?;
    if json {
        let parameters = checkpoint.entries().iter().map(described).collect::<Result<Vec<_>, _>>()?;
        let unusable =
            |unusable: &Unusable| serde_json::json!({ "path": unusable.path(), "reason": unusable.reason() });
        let unusable: Vec<_> = checkpoint.unusable().iter().map(unusable).collect();
        let file = file.display().to_string();
        let tied = checkpoint.tied();
        let value = serde_json::json!({
            "file": file,
            "parameters": parameters,
            "tied": tied,
            "unusable": unusable,
        });
        writeln!(output, "{value:#}")?;
        return Ok(ExitCode::SUCCESS);
    }
    let heads = ["path", "shape", "type", "need_grad", "min", "mean", "max", "std", "histogram"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    let (mut elements, mut bytes) = (0, 0);
    for entry in checkpoint.entries() {
        elements += entry.tensor().elem_count();
        bytes += entry.tensor().elem_count() * entry.tensor().dtype().size_in_bytes();
        rows.push(row(entry)?);
    }
    let style = |row: usize, column: usize| match (row, column) {
        (0, _) => HEAD,
        (_, 3) if rows[row][3] == "true" => AnsiColor::Green.on_default(),
        (_, 3) => Style::new().dimmed(),
        (_, 8) => AnsiColor::Cyan.on_default(),
        _ => Style::new(),
    };
    table(&rows, style, output)?;
    for paths in checkpoint.tied() {
        let paths: Vec<_> = paths.into_iter().map(|path| format!("`{}`", brief(path))).collect();
        writeln!(output, "{}", plain(&format!("one variable: {}", paths.join(", "))))?;
    }
    for unusable in checkpoint.unusable() {
        writeln!(output, "{}", plain(&format!("cannot be used: {unusable}")))?;
    }
    let count = checkpoint.entries().len();
    writeln!(output, "{count} parameters, {elements} values, {bytes} bytes")?;
    Ok(ExitCode::SUCCESS)
}

fn row(entry: &Entry) -> Result<Vec<String>, candle_core::Error> {
    let tensor = entry.tensor();
    let statistics = Statistics::of(tensor)?;
    let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), number);
    Ok(vec![
        brief(entry.path()),
        format!("{:?}", tensor.dims()),
        tensor.dtype().as_str().to_owned(),
        entry.need_grad().map_or_else(|| "-".to_owned(), |need_grad| need_grad.to_string()),
        number(statistics.min),
        number(statistics.mean),
        number(statistics.max),
        number(statistics.std),
        statistics.bar(),
    ])
}

/// Four decimals where they say something.
fn number(value: f64) -> String {
    if value == 0.0 || (1e-3..1e5).contains(&value.abs()) {
        format!("{value:.4}")
    } else {
        format!("{value:.3e}")
    }
}

fn described(entry: &Entry) -> Result<serde_json::Value, candle_core::Error> {
    let statistics = Statistics::of(entry.tensor())?;
    Ok(serde_json::json!({
        "path": entry.path(),
        "shape": entry.tensor().dims(),
        "type": entry.tensor().dtype().as_str(),
        "need_grad": entry.need_grad(),
        "min": statistics.min,
        "mean": statistics.mean,
        "max": statistics.max,
        "std": statistics.std,
        "not_finite": statistics.not_finite,
        "histogram": statistics.histogram,
    }))
}

/// Of the finite values; nothing if there is none.
struct Statistics {
    min: Option<f64>,
    mean: Option<f64>,
    max: Option<f64>,
    std: Option<f64>,
    not_finite: usize,
    /// Counts in equal steps from `min` to `max`.
    histogram: [usize; 10],
}

impl Statistics {
    fn of(tensor: &Tensor) -> Result<Self, candle_core::Error> {
        let all: Vec<f64> = tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?;
        let values: Vec<f64> = all.iter().copied().filter(|value| value.is_finite()).collect();
        let not_finite = all.len() - values.len();
        if values.is_empty() {
            return Ok(Self { min: None, mean: None, max: None, std: None, not_finite, histogram: [0; 10] });
        }
        let count = values.len() as f64;
        let min = values.iter().copied().fold(f64::INFINITY, f64::min);
        let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        // Rounding must not push it outside: equal values have no deviation.
        let mean = values.iter().map(|value| value / count).sum::<f64>().clamp(min, max);
        let variance = values.iter().map(|value| (value - mean).powi(2) / count).sum::<f64>();
        let mut histogram = [0; 10];
        for value in &values {
            // Halves, because the whole range may be more than a float can hold.
            let part = (value / 2.0 - min / 2.0) / (max / 2.0 - min / 2.0);
            histogram[((part * 10.0) as usize).min(9)] += 1;
        }
        let (min, mean, max, std) = (Some(min), Some(mean), Some(max), Some(variance.sqrt()));
        Ok(Self { min, mean, max, std, not_finite, histogram })
    }

    fn bar(&self) -> String {
        const LEVELS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
        let most = self.histogram.iter().copied().max().unwrap_or(0).max(1);
        let bar = self.histogram.iter().map(|&count| LEVELS[(count * 8).div_ceil(most)]).collect::<String>();
        match self.not_finite {
            0 => bar,
            count => format!("{bar} {count} not finite"),
        }
    }
}
