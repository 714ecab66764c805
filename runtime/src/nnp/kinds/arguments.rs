//! The arguments of a function, as the file has them. What is absent is 0, false or empty.

use super::super::Fault;
use crate::PerAxis;
use crate::checkpoint::definition::Message;

/// The arguments of one function.
pub(in crate::nnp) struct Arguments<'a> {
    message: Option<&'a Message>,
    pub(super) n_inputs: usize,
    pub(super) n_outputs: usize,
}

impl<'a> Arguments<'a> {
    pub(in crate::nnp) fn new(message: Option<&'a Message>, n_inputs: usize, n_outputs: usize) -> Self {
        Self { message, n_inputs, n_outputs }
    }

    pub(in crate::nnp) fn flag(&self, name: &str) -> bool {
        self.message.is_some_and(|message| message.flag(name))
    }

    pub(in crate::nnp) fn number(&self, name: &str) -> f64 {
        self.message.map_or(0.0, |message| message.number(name))
    }

    pub(in crate::nnp) fn integer(&self, name: &str) -> i64 {
        self.message.map_or(0, |message| message.integer(name))
    }

    pub(in crate::nnp) fn text(&self, name: &str) -> &'a str {
        self.message.map_or("", |message| message.text(name))
    }

    pub(in crate::nnp) fn integers(&self, name: &str) -> Vec<i64> {
        self.message.map(|message| message.integers(name)).unwrap_or_default()
    }

    /// The sizes of a field that is a shape.
    pub(in crate::nnp) fn sizes(&self, name: &str) -> Vec<i64> {
        self.message.map(|message| message.sizes(name)).unwrap_or_default()
    }

    /// An integer that counts something.
    pub(in crate::nnp) fn count(&self, name: &str) -> Result<usize, Fault> {
        let value = self.integer(name);
        usize::try_from(value).map_err(|_| Fault::new(format!("`{name}` must be at least 0, got {value}")))
    }

    /// As [`count`](Self::count), for a list.
    pub(in crate::nnp) fn counts(&self, name: &str) -> Result<Vec<usize>, Fault> {
        counts(name, &self.integers(name))
    }

    /// A number for each spatial axis; `absent` for each if there are none.
    pub(in crate::nnp) fn per_axis(&self, name: &str, absent: usize) -> Result<PerAxis, Fault> {
        let sizes = self.window(name)?;
        Ok(if sizes.is_empty() { PerAxis::Every(absent) } else { PerAxis::Each(sizes) })
    }

    /// The numbers for the spatial axes, as the file has them.
    pub(in crate::nnp) fn window(&self, name: &str) -> Result<Vec<usize>, Fault> {
        counts(name, &self.sizes(name))
    }

    /// How many outputs the function names.
    pub(in crate::nnp) fn n_outputs(&self) -> usize {
        self.n_outputs
    }
}

fn counts(name: &str, values: &[i64]) -> Result<Vec<usize>, Fault> {
    let counts: Result<_, _> = values.iter().map(|&value| usize::try_from(value)).collect();
    counts.map_err(|_| Fault::new(format!("`{name}` must not contain a negative number, got {values:?}")))
}
