//! The record of a run.

use std::collections::HashMap;

use candle_core::{Tensor, TensorId};

use super::Argument;
use super::view::{View, storage};
use crate::{Error, Result};

/// The functions of a run, and what flows between them.
#[derive(Default)]
pub(crate) struct Record {
    pub(crate) values: Vec<Value>,
    pub(crate) steps: Vec<Step>,
    /// Where the run is, for the names of steps.
    scope: Option<fn() -> String>,
    known: HashMap<TensorId, usize>,
    paths: HashMap<String, usize>,
    /// The values in each memory, which lives as long as the record.
    by_storage: HashMap<usize, Vec<usize>>,
}

/// Something that a function takes or gives.
pub(crate) struct Value {
    pub(crate) tensor: Tensor,
    pub(crate) origin: Origin,
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Origin {
    Input,
    Parameter(String),
    /// Made by no function, of nothing that went in.
    Constant,
    Made,
}

/// A call of a function.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) kind: &'static str,
    /// Where it ran.
    pub(crate) scope: String,
    pub(crate) inputs: Vec<usize>,
    pub(crate) outputs: Vec<usize>,
    pub(crate) arguments: Vec<(&'static str, Argument)>,
}

impl Record {
    pub(crate) fn new(scope: fn() -> String) -> Self {
        Self { scope: Some(scope), ..Self::default() }
    }

    /// Notes an input of the network.
    pub(crate) fn input(&mut self, tensor: &Tensor) -> usize {
        self.add(tensor, Origin::Input)
    }

    pub(super) fn parameter(&mut self, tensor: &Tensor, path: String) {
        match self.paths.get(&path) {
            Some(&place) => {
                self.known.insert(tensor.id(), place);
            }
            None => {
                let place = self.add(tensor, Origin::Parameter(path.clone()));
                self.paths.insert(path, place);
            }
        }
    }

    fn add(&mut self, tensor: &Tensor, origin: Origin) -> usize {
        let place = self.values.len();
        self.known.insert(tensor.id(), place);
        self.by_storage.entry(storage(tensor)).or_default().push(place);
        self.values.push(Value { tensor: tensor.clone(), origin });
        place
    }

    /// The place of the value that the tensor is.
    pub(crate) fn place(&mut self, tensor: &Tensor) -> Result<usize> {
        if let Some(&place) = self.known.get(&tensor.id()) {
            return Ok(place);
        }
        if let Some(place) = self.view(tensor)? {
            self.known.insert(tensor.id(), place);
            return Ok(place);
        }
        if tensor.track_op() {
            let reason = "must come from functions of `layerfn::functions`, or from one that says its form by \
                          `layerfn::export::told`, in a network that is exported; this one is made by something else";
            return Err(Error::invalid("inp", reason, tensor.dims()));
        }
        Ok(self.add(tensor, Origin::Constant))
    }

    /// The value of which the tensor is a view, after the steps that lead there.
    fn view(&mut self, tensor: &Tensor) -> Result<Option<usize>> {
        let places = self.by_storage.get(&storage(tensor)).cloned().unwrap_or_default();
        let found = places
            .into_iter()
            .rev()
            .find_map(|place| Some((place, View::of(self.values[place].tensor.layout(), tensor.layout())?)));
        let Some((mut place, view)) = found else { return Ok(None) };
        for (kind, arguments, made) in view.steps(&self.values[place].tensor, tensor)? {
            place = self.push(kind, vec![place], &[&made], arguments)[0];
        }
        Ok(Some(place))
    }

    /// Appends a call; the places of what it gives.
    pub(super) fn push(
        &mut self,
        kind: &'static str,
        inputs: Vec<usize>,
        results: &[&Tensor],
        arguments: Vec<(&'static str, Argument)>,
    ) -> Vec<usize> {
        // What hands its input on has done nothing.
        if let Some(known) = results.iter().map(|result| self.known.get(&result.id()).copied()).collect() {
            return known;
        }
        let outputs: Vec<_> = results.iter().map(|result| self.add(result, Origin::Made)).collect();
        let scope = self.scope.map(|scope| scope()).unwrap_or_default();
        self.steps.push(Step { kind, scope, inputs, outputs: outputs.clone(), arguments });
        outputs
    }
}
