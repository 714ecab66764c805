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

    pub(super) fn flag(&self, name: &str) -> bool {
        self.message.is_some_and(|message| message.flag(name))
    }

    pub(super) fn number(&self, name: &str) -> f64 {
        self.message.map_or(0.0, |message| message.number(name))
    }

    pub(super) fn integer(&self, name: &str) -> i64 {
        self.message.map_or(0, |message| message.integer(name))
    }

    pub(super) fn text(&self, name: &str) -> &'a str {
        self.message.map_or("", |message| message.text(name))
    }

    pub(super) fn integers(&self, name: &str) -> Vec<i64> {
        self.message.map(|message| message.integers(name)).unwrap_or_default()
    }

    /// The sizes of a field that is a shape.
    pub(super) fn sizes(&self, name: &str) -> Vec<i64> {
        self.message.map(|message| message.sizes(name)).unwrap_or_default()
    }

    /// An integer that counts something.
    pub(super) fn count(&self, name: &str) -> Result<usize, Fault> {
        let value = self.integer(name);
        usize::try_from(value).map_err(|_| Fault::new(format!("`{name}` must be at least 0, got {value}")))
    }

    /// As [`count`](Self::count), for a list.
    pub(super) fn counts(&self, name: &str) -> Result<Vec<usize>, Fault> {
        counts(name, &self.integers(name))
    }

    /// A number for each spatial axis; `absent` for each if there are none.
    pub(super) fn per_axis(&self, name: &str, absent: usize) -> Result<PerAxis, Fault> {
        Ok(match &counts(name, &self.sizes(name))?[..] {
            [] => PerAxis::Every(absent),
            sizes => PerAxis::Each(sizes.to_vec()),
        })
    }
}

fn counts(name: &str, values: &[i64]) -> Result<Vec<usize>, Fault> {
    let counts: Result<_, _> = values.iter().map(|&value| usize::try_from(value)).collect();
    counts.map_err(|_| Fault::new(format!("`{name}` must hold no number below 0, got {values:?}")))
}
