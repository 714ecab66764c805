//! The whole state of a training in one file.

use std::path::Path;

use super::part::{Part, gather, restore_rng, restore_store, scatter, store_state};
use crate::checkpoint::{Checkpoint, Format, read_parameters};
use crate::{Error, Model, ParameterStore, Parameters, Result, Rng};

/// The parts of a training, each under a name; see the [module](super).
///
/// It borrows them only while they are saved or restored. A file is written beside its target, synced and
/// renamed, so the target always is complete: either the old or the new one. The file contains the states of
/// all parts; for example, parameters are at `model/parameters/..`, and [`Load`](crate::checkpoint::Load) with
/// `.partial(["model/parameters/**"]).rename("model/parameters/**", "**")` reads them from there.
///
/// The conditions for equal bits are in the section "Equal bits" of the [crate](crate). If a program draws from
/// other generators, or has other counters, add them under names as well.
#[derive(Default)]
#[must_use = "nothing is saved before `.save(..)?`"]
pub struct TrainState<'a> {
    parts: Vec<(String, Source<'a>)>,
}

/// A reference to a part.
pub struct Source<'a>(Lent<'a>);

enum Lent<'a> {
    Store(ParameterStore),
    Rng(Rng),
    Part(&'a mut dyn Part),
}

impl From<&ParameterStore> for Source<'_> {
    fn from(store: &ParameterStore) -> Self {
        Self(Lent::Store(store.clone()))
    }
}

impl<F: ?Sized, const INPUTS: usize> From<&Model<F, INPUTS>> for Source<'_> {
    fn from(model: &Model<F, INPUTS>) -> Self {
        model.store().into()
    }
}

impl From<&Rng> for Source<'_> {
    fn from(rng: &Rng) -> Self {
        Self(Lent::Rng(rng.clone()))
    }
}

impl<'a, P: Part> From<&'a mut P> for Source<'a> {
    fn from(part: &'a mut P) -> Self {
        Self(Lent::Part(part))
    }
}

impl Part for Source<'_> {
    fn state(&self) -> Result<Parameters> {
        match &self.0 {
            Lent::Store(store) => store_state(store),
            Lent::Rng(rng) => rng.state(),
            Lent::Part(part) => part.state(),
        }
    }

    fn set_state(&mut self, state: &Parameters) -> Result<()> {
        match &mut self.0 {
            Lent::Store(store) => restore_store(store, state),
            Lent::Rng(rng) => restore_rng(rng, state),
            Lent::Part(part) => part.set_state(state),
        }
    }
}

impl<'a> TrainState<'a> {
    /// A state without parts.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a part: a model, a store or a generator by `&`, anything else that is a [`Part`] by `&mut`. The
    /// state of a model consists of its parameters and of the generator of dropout. Give a solver its
    /// parameters before you add it.
    pub fn with(mut self, name: &str, part: impl Into<Source<'a>>) -> Self {
        self.parts.push((name.to_owned(), part.into()));
        self
    }

    /// Writes the file `path`, whose extension is `.safetensors` or `.h5`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if two parts have the same name, and those of [`Checkpoint::save`].
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        check_format(path)?;
        let parts: Vec<_> =
            self.parts.iter().map(|(name, part)| (name.as_str(), part as &dyn Part)).collect();
        Checkpoint::from_parameters(&gather(&parts)?)?.save(path)
    }

    /// Restores the states from the file `path`, which must contain exactly these parts. If one rejects its
    /// state, the states of those before it are restored; only parameters that were created in an empty store
    /// stay.
    ///
    /// # Errors
    /// Those of [`Checkpoint::open`]; [`Error::InvalidArgument`] or [`Error::Mismatch`] if the file is of another training.
    pub fn load(&mut self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        check_format(path)?;
        let states = read_parameters(path)?;
        let parts = self.parts.iter_mut().map(|(name, part)| (name.as_str(), part as &mut dyn Part));
        scatter(&states, &mut parts.collect::<Vec<_>>())
    }
}

/// The other formats have not all types, or no place for a state.
fn check_format(path: &Path) -> Result<()> {
    match Format::from_path(path)? {
        Format::Safetensors | Format::Hdf5 => Ok(()),
        other => {
            let reason = "must be a `.safetensors` or `.h5`, which hold every number as it is";
            Err(Error::invalid("path", reason, other.extension()))
        }
    }
}
