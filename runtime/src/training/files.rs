//! State files: the latest ones and the best.

use std::fs;
use std::path::PathBuf;

use super::state::TrainState;
use crate::{Error, Result};

/// A folder with the states of the latest saved steps, and of the best one.
///
/// Every file is complete, whenever the program ends. The state of step 120 is in
/// `step-000000000120.safetensors`, the best one in `best.safetensors`; other files in the folder are left
/// alone.
#[derive(Clone, Debug)]
pub struct StateFiles {
    folder: PathBuf,
    extension: String,
    keep: usize,
}

impl StateFiles {
    /// Keeps files in `folder`, which is created by the first save. `extension` is `safetensors` or `h5`.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>, extension: &str) -> Self {
        Self { folder: folder.into(), extension: extension.to_owned(), keep: 1 }
    }

    /// Sets how many of the latest states are kept, at least 1. Default: 1.
    #[must_use]
    pub fn keep(mut self, n: usize) -> Self {
        self.keep = n.max(1);
        self
    }

    /// Saves the state of a step and removes those of earlier steps that are no longer kept.
    ///
    /// # Errors
    /// As [`TrainState::save`], and [`Error::Io`] if the folder cannot be created or a file cannot be removed.
    pub fn save(&self, state: &TrainState<'_>, step: u64) -> Result<PathBuf> {
        let path = self.saved(state, &format!("step-{step:012}"))?;
        let mut steps = self.steps()?;
        while steps.len() > self.keep {
            let (_, old) = steps.remove(0);
            // The file that was just saved stays, even if the step count has started over.
            if old != path {
                fs::remove_file(&old).map_err(|source| Error::io("remove", &old, source))?;
            }
        }
        Ok(path)
    }

    /// Saves a state as the best.
    ///
    /// # Errors
    /// As [`save`](Self::save).
    pub fn save_best(&self, state: &TrainState<'_>) -> Result<PathBuf> {
        self.saved(state, "best")
    }

    /// Returns the path of the best state.
    #[must_use]
    pub fn best(&self) -> Option<PathBuf> {
        Some(self.path("best")).filter(|path| path.is_file())
    }

    /// Returns the path of the latest state.
    ///
    /// # Errors
    /// [`Error::Io`] if the folder cannot be read.
    pub fn latest(&self) -> Result<Option<PathBuf>> {
        Ok(self.steps()?.pop().map(|(_, path)| path))
    }

    /// Loads the state of the latest step, if there is one, and returns whether there was.
    ///
    /// # Errors
    /// As [`latest`](Self::latest) and [`TrainState::load`].
    pub fn resume(&self, state: &mut TrainState<'_>) -> Result<bool> {
        let latest = self.latest()?;
        latest.map_or(Ok(false), |latest| state.load(latest).map(|()| true))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.{}", self.extension))
    }

    fn saved(&self, state: &TrainState<'_>, name: &str) -> Result<PathBuf> {
        fs::create_dir_all(&self.folder).map_err(|source| Error::io("make", &self.folder, source))?;
        let path = self.path(name);
        state.save(&path)?;
        Ok(path)
    }

    /// The states by their steps.
    fn steps(&self) -> Result<Vec<(u64, PathBuf)>> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|source| Error::io("read", &self.folder, source))?,
        };
        let mut steps = Vec::new();
        for entry in entries {
            let name = entry.map_err(|source| Error::io("read", &self.folder, source))?.file_name();
            let step = name.to_str().and_then(|name| {
                let name = name.strip_suffix(&self.extension)?.strip_suffix('.')?;
                name.strip_prefix("step-")?.parse().ok()
            });
            steps.extend(step.map(|step: u64| (step, self.folder.join(&name))));
        }
        steps.sort();
        Ok(steps)
    }
}
