//! What a checkpoint holds, between files and stores.

use std::collections::HashMap;

use candle_core::{Tensor, Var};

use super::{Fault, Outcome};
use crate::pattern::Pattern;

/// One parameter of a checkpoint.
#[derive(Clone, Debug)]
pub struct Entry {
    path: String,
    var: Var,
    need_grad: Option<bool>,
}

impl Entry {
    pub(super) fn new(path: String, var: Var, need_grad: Option<bool>) -> Self {
        Self { path, var, need_grad }
    }

    /// Path, from the scope that was saved.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Values.
    #[must_use]
    pub fn tensor(&self) -> &Tensor {
        self.var.as_tensor()
    }

    /// Whether the parameter is trained; `None` if the file does not say.
    #[must_use]
    pub fn need_grad(&self) -> Option<bool> {
        self.need_grad
    }

    /// As a writer needs it: a parameter is trained unless something says otherwise.
    pub(super) fn need_grad_or_default(&self) -> bool {
        self.need_grad.unwrap_or(true)
    }

    /// The path after the first rule that matches it.
    pub(super) fn target(&self, rules: &[(Pattern, Pattern)]) -> String {
        let renamed = rules.iter().find_map(|(from, to)| Some(to.filled(&from.captures(&self.path)?)));
        renamed.unwrap_or_else(|| self.path.clone())
    }

    pub(super) fn renamed(self, rules: &[(Pattern, Pattern)]) -> Self {
        Self { path: self.target(rules), ..self }
    }

    pub(super) fn var(&self) -> &Var {
        &self.var
    }
}

/// Entries in order, under paths that differ and that every format can carry.
#[derive(Clone, Debug, Default)]
pub(super) struct Entries {
    list: Vec<Entry>,
    places: HashMap<String, usize>,
}

impl Entries {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn push(&mut self, entry: Entry) -> Outcome<()> {
        check_path(&entry.path)?;
        if self.places.insert(entry.path.clone(), self.list.len()).is_some() {
            return Err(Fault::format(format!("`{}` occurs twice", entry.path)));
        }
        self.list.push(entry);
        Ok(())
    }

    /// Like [`push`](Self::push), but takes the place of an entry of the same path.
    pub(super) fn put(&mut self, entry: Entry) -> Outcome<()> {
        match self.places.get(&entry.path) {
            Some(&place) => self.list[place] = entry,
            None => self.push(entry)?,
        }
        Ok(())
    }

    pub(super) fn into_vec(self) -> Vec<Entry> {
        self.list
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn as_slice(&self) -> &[Entry] {
        &self.list
    }
}

impl<'a> IntoIterator for &'a Entries {
    type Item = &'a Entry;
    type IntoIter = std::slice::Iter<'a, Entry>;

    fn into_iter(self) -> Self::IntoIter {
        self.list.iter()
    }
}

/// A path that means the same as a file name, a group of HDF5 and a scope.
pub(super) fn check_path(path: &str) -> Outcome<()> {
    let reason = match path.split('/').find(|part| matches!(*part, "" | "." | "..") || part.contains('\0')) {
        None => return Ok(()),
        Some("") if path.is_empty() => "is empty",
        Some("") if path.starts_with('/') => "starts with `/`",
        Some("") => "has an empty part",
        Some(".." | ".") => "has a part that means a folder",
        Some(_) => "has a NUL character",
    };
    Err(Fault::format(format!("the path {path:?} {reason}")))
}
