//! `layerfn convert` and `layerfn rename`.

use std::path::Path;
use std::process::ExitCode;

use layerfn::checkpoint::{Checkpoint, Format};

use crate::Outcome;
use crate::table::plain;

pub(crate) fn run(input: &Path, output: &Path, allow_loss: bool) -> Outcome {
    // A mistyped extension is told before a large file is read.
    Format::from_path(output)?;
    write(Checkpoint::open(input)?, output, allow_loss)
}

pub(crate) fn rename(input: &Path, output: &Path, rules: &[(String, String)], allow_loss: bool) -> Outcome {
    Format::from_path(output)?;
    let checkpoint = Checkpoint::open(input)?;
    let paths = |checkpoint: &Checkpoint| {
        checkpoint.entries().iter().map(|entry| entry.path().to_owned()).collect::<Vec<_>>()
    };
    let before = paths(&checkpoint);
    let renamed = checkpoint.rename(rules)?;
    // A mistyped rule.
    if paths(&renamed) == before {
        return Err("nothing was written; no rule changes a path".into());
    }
    write(renamed, output, allow_loss)
}

fn write(checkpoint: Checkpoint, output: &Path, allow_loss: bool) -> Outcome {
    let format = Format::from_path(output)?;
    let losses = checkpoint.losses(format);
    if !losses.is_empty() && !allow_loss {
        let lines: String = losses.iter().map(|loss| format!("\n  {loss}")).collect();
        return Err(format!(
            "nothing was written; .{} would lose:{lines}\npass --allow-loss to go on",
            format.extension()
        )
        .into());
    }
    let guessed = checkpoint.guessed(format).len();
    checkpoint.allow_rounding(allow_loss).save(output)?;
    for loss in losses {
        eprintln!("layerfn: lost: {}", plain(&loss));
    }
    if guessed > 0 {
        eprintln!(
            "layerfn: guessed: need_grad is true for {guessed} parameters of which the file does not say it"
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// Parses `FROM=TO`.
pub(crate) fn rule(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((from, to)) if !from.is_empty() && !to.is_empty() => Ok((from.to_owned(), to.to_owned())),
        _ => Err("a rule reads FROM=TO, as in `old/**=new/**`".to_owned()),
    }
}
