//! The error type of the crate.

use std::io;
use std::panic::Location;
use std::path::Path;

/// An error of this crate. Each message names the parameter or layer, the value that was given, and a way to
/// fix it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A stored parameter has another shape than the one asked for.
    #[error(
        "parameter `{path}` is registered with shape {stored:?} (at {created_at}), but {wanted:?} is asked for \
         (at {asked_at}); give one of the two layers another `name`, or `clear_parameters` first"
    )]
    ShapeMismatch {
        /// Full path of the parameter.
        path: String,
        /// Shape in the store.
        stored: Vec<usize>,
        /// Shape asked for.
        wanted: Vec<usize>,
        /// Where the parameter was registered.
        created_at: &'static Location<'static>,
        /// Where the other shape was asked for.
        asked_at: &'static Location<'static>,
    },
    /// A path names a scope where a parameter is expected, or vice versa.
    #[error("`{path}` {conflict}; choose another name")]
    PathConflict {
        /// Full path.
        path: String,
        /// The existing entry.
        conflict: &'static str,
    },
    /// A parameter that is not registered was asked for by name.
    #[error("no parameter `{path}` is registered{}", nearest.as_ref().map(|n| format!("; did you mean `{n}`?")).unwrap_or_default())]
    NoParameter {
        /// Full path.
        path: String,
        /// The most similar registered path.
        nearest: Option<String>,
    },
    /// A layer asked for a parameter that a sealed store does not have.
    #[error(
        "there is no parameter `{path}`{}, and {} is sealed {by}; give the layer the label that the parameter has, or let \
         layers make new parameters by `ParameterStore::unseal`",
        nearest.as_ref().map(|n| format!(" (the nearest is `{n}`)")).unwrap_or_default(),
        if scope.is_empty() { "the store".to_owned() } else { format!("the scope `{scope}`") }
    )]
    Sealed {
        /// Full path of the parameter.
        path: String,
        /// The scope that is sealed; empty if it is the whole store.
        scope: String,
        /// What sealed it.
        by: String,
        /// The most similar registered path.
        nearest: Option<String>,
    },
    /// A parameter was asked for on a thread that has entered no store.
    #[error(
        "parameter `{path}` is asked for on a thread that has entered no parameter store (only the main thread has one from the \
         start); take `Context::current()` on the thread that has the model and run this in `context.enter(|| ..)`, call a \
         `Model`, or, as in a test, begin with `ParameterStore::new().enter(|| ..)`"
    )]
    NoStore {
        /// Full path of the parameter.
        path: String,
    },
    /// An invalid argument.
    #[error("`{argument}` {reason}, got {got}")]
    InvalidArgument {
        /// Name of the argument as the caller writes it.
        argument: &'static str,
        /// What is expected, as the rest of a sentence that starts with the argument.
        reason: String,
        /// The value that was given.
        got: String,
    },
    /// Two stages of a network would use the same parameters without declaring it.
    #[error("{}", shared_by_accident(path, first, second, *again))]
    SharedByAccident {
        /// Full path of the layer.
        path: String,
        /// The stage that the parameters belong to.
        first: &'static Location<'static>,
        /// The stage that would use them as well.
        second: &'static Location<'static>,
        /// Whether it is the same stage, in a loop.
        again: bool,
    },
    /// An error in a layer.
    #[error("{path}: {layer}: {source}")]
    InLayer {
        /// Full scope path of the layer.
        path: String,
        /// The layer's name.
        layer: &'static str,
        /// The error.
        source: Box<Error>,
    },
    /// A file is damaged, or its format cannot represent what was to be saved.
    #[error("`{file}`: {reason}")]
    Checkpoint {
        /// The file.
        file: String,
        /// The problem, and where it is.
        reason: String,
    },
    /// A file does not match the store; nothing was loaded.
    #[error("`{file}` does not fit, nothing was loaded:{}", lines_of(differences))]
    Mismatch {
        /// The file.
        file: String,
        /// Every difference, one line each.
        differences: Vec<String>,
    },
    /// The extension of the file does not belong to a format.
    #[error("`{file}` has an unknown extension; a checkpoint has one of {known}")]
    UnknownExtension {
        /// The file.
        file: String,
        /// The extensions that exist.
        known: String,
    },
    /// The system could not read or write a file.
    #[error("cannot {action} `{file}`: {source}")]
    Io {
        /// The action that failed.
        action: &'static str,
        /// The file.
        file: String,
        /// The cause.
        source: io::Error,
    },
    /// Ranks that compute together cannot continue.
    #[error("rank {rank} {reason}")]
    Communication {
        /// The rank that failed.
        rank: usize,
        /// What it did, as the rest of a sentence that starts with the rank.
        reason: String,
    },
    /// An operation of candle failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

/// A result with the crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An [`Error::InvalidArgument`]: `argument` as the caller writes it, `reason` as the rest of the sentence.
    ///
    /// ```
    /// let error = layerfn::Error::invalid("group", "must divide the 4 input channels", 3);
    /// assert_eq!(error.to_string(), "`group` must divide the 4 input channels, got 3");
    /// ```
    pub fn invalid(argument: &'static str, reason: impl Into<String>, got: impl std::fmt::Debug) -> Self {
        Self::InvalidArgument { argument, reason: reason.into(), got: format!("{got:?}") }
    }

    /// An [`Error::Io`]: `action` was tried on the file or folder `path`.
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { action, file: path.display().to_string(), source }
    }

    /// An [`Error::Communication`].
    pub(crate) fn communication(rank: usize, reason: impl Into<String>) -> Self {
        Self::Communication { rank, reason: reason.into() }
    }

    /// The error without the layers that wrap it.
    #[must_use]
    pub fn root(&self) -> &Self {
        match self {
            Self::InLayer { source, .. } => source.root(),
            other => other,
        }
    }
}

/// Limits the lines to as many as are useful.
fn lines_of(differences: &[String]) -> String {
    const SHOWN: usize = 100;
    let lines = differences.iter().take(SHOWN).map(|difference| format!("\n  {difference}"));
    let rest = differences.len().saturating_sub(SHOWN);
    lines.chain((rest > 0).then(|| format!("\n  and {rest} more"))).collect()
}

fn shared_by_accident(path: &str, first: &Location<'_>, second: &Location<'_>, again: bool) -> String {
    if again {
        format!(
            "the stage at {second} runs again under the path `{path}`; give its label an index, as in `block[i]: ..`, or \
             write `shared label: ..` to use the same parameters each time"
        )
    } else {
        format!(
            "the stages at {first} and {second} both have the path `{path}`; label one of them, as in `label: ..`, or \
             write `shared label: ..` at both to use the same parameters"
        )
    }
}

/// Allows a network to be a stage of a candle model.
impl From<Error> for candle_core::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Tensor(error) => error,
            other => Self::wrap(other),
        }
    }
}
