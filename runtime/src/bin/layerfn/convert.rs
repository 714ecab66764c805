//! `layerfn convert` and `layerfn rename`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use layerfn::ParameterStore;
use layerfn::checkpoint::{Checkpoint, Format, Load, Rule};

use crate::Outcome;
use crate::table::plain;

/// A library with other names and layouts of parameters.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Library {
    /// State dicts of `torch.nn`
    Pytorch,
    /// `.weights.h5`, `.h5` and `.keras` of Keras; what is written is for a `.weights.h5`
    Keras,
    /// What a `VarMap` of candle-nn saves
    Candle,
}

/// Where parameters come from, with a file that is like the model, and where they go.
pub(crate) struct Libraries {
    pub(crate) from: Option<(Library, PathBuf)>,
    pub(crate) to: Option<Library>,
}

pub(crate) fn run(
    input: &Path,
    output: &Path,
    rules: &[Rule],
    libraries: Libraries,
    allow_loss: bool,
) -> Outcome {
    // A mistyped extension is told before a large file is read.
    Format::from_path(output)?;
    let mut checkpoint = Checkpoint::open(input)?.change(rules)?;
    if let Some((library, like)) = libraries.from {
        let store = ParameterStore::new();
        Load::like_nnabla(Checkpoint::open(like)?).apply_to(&store, "")?;
        checkpoint = match library {
            Library::Pytorch => checkpoint.from_pytorch(&store)?,
            Library::Keras => checkpoint.from_keras(&store)?,
            Library::Candle => checkpoint.from_candle(&store)?,
        };
    }
    checkpoint = match libraries.to {
        Some(Library::Pytorch) => checkpoint.to_pytorch()?,
        Some(Library::Keras) => checkpoint.to_keras()?,
        Some(Library::Candle) => checkpoint.to_candle()?,
        None => checkpoint,
    };
    let changes = checkpoint.changes().to_vec();
    let written = write(checkpoint, output, allow_loss)?;
    for change in changes {
        eprintln!("layerfn: {}", plain(&change));
    }
    Ok(written)
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
