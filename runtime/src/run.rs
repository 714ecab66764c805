//! One run of a network: which stage each layer path belongs to.

use std::any::Any;
use std::panic::Location;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use foldhash::HashMap;

use crate::parameter::{LayerInfo, Parameter};
use crate::{Error, Result};

/// Observes the layers of a run; networks use it to record their runs.
///
/// It may be called while the context is borrowed, so it must not access the context.
pub(crate) trait Observer: Any + Send + Sync {
    /// A layer's scope, `path`, was entered, inside another layer or not.
    fn layer_begins(&self, path: &str, info: &'static LayerInfo, outermost: bool);

    /// The layer found or made a parameter; `trained` says whether this run trains it.
    fn takes_parameter(&self, path: &str, parameter: &Parameter, trained: bool);

    /// The arguments given by the caller of the layer that began last.
    fn layer_has_arguments(&self, arguments: Vec<(&'static str, String)>);

    /// The multiply-adds that the layer that began last makes itself.
    fn layer_multiplies(&self, multiply_adds: u64);

    /// The layer that began last has ended, possibly with an error or a panic.
    fn layer_ends(&self);
}

/// A run of a network and of the networks that are its stages.
pub(crate) struct Run {
    owners: Mutex<Owners>,
    /// Unique number of the run.
    number: u64,
    pub(crate) observer: Option<Arc<dyn Observer>>,
}

/// The stage that each layer path belongs to.
#[derive(Default)]
pub(crate) struct Owners {
    visits: HashMap<String, Owner>,
    /// Number of them that belong to this run.
    n_own: usize,
}

struct Owner {
    run: u64,
    visit: Visit,
}

/// The position of a thread in a run.
#[derive(Clone, Copy, Default)]
pub(crate) struct Position {
    pub(crate) visit: Option<Visit>,
    /// Number of open layers below the stage; layers inside layers are not checked.
    pub(crate) layers: usize,
    /// Whether something has run in the stage, so that a network begun now is not the stage.
    pub(crate) used: bool,
}

/// One run of one stage.
#[derive(Clone, Copy)]
pub(crate) struct Visit {
    pub(crate) number: u64,
    /// Index of the stage in its network: a `macro_rules!` may give many stages one location.
    pub(crate) id: u32,
    pub(crate) at: &'static Location<'static>,
    pub(crate) shared: bool,
}

impl Run {
    /// A run that reuses `owners` of an earlier run: a network mostly has the same layers each time, so their
    /// paths need not be allocated again.
    pub(crate) fn new(owners: Owners, observer: Option<Arc<dyn Observer>>) -> Self {
        static N_RUNS: AtomicU64 = AtomicU64::new(0);
        let number = N_RUNS.fetch_add(1, Ordering::Relaxed);
        Self { owners: Mutex::new(Owners { n_own: 0, ..owners }), number, observer }
    }

    /// The paths for another run, unless paths of other networks are among them.
    pub(crate) fn take_owners(&mut self) -> Option<Owners> {
        let owners = std::mem::take(self.owners.get_mut().unwrap_or_else(PoisonError::into_inner));
        (owners.visits.len() == owners.n_own).then_some(owners)
    }

    /// The layer `path` begins; an error is reported as the layer's.
    pub(crate) fn layer_begins(
        &self,
        position: &mut Position,
        path: &str,
        info: &'static LayerInfo,
    ) -> Result<()> {
        let layers = position.layers;
        if let Some(observer) = &self.observer {
            observer.layer_begins(path, info, layers == 0);
        }
        // A layer without a scope, such as a pooling, owns no path: inner layers count as its siblings.
        if info.scope.is_empty() {
            return Ok(());
        }
        position.layers += 1;
        position.used = true;
        match position.visit {
            Some(visit) if layers == 0 => self.claim(path, visit),
            _ => Ok(()),
        }
    }

    fn claim(&self, path: &str, visit: Visit) -> Result<()> {
        let mut owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        let owner = Owner { run: self.number, visit };
        match owners.visits.get_mut(path) {
            Some(Owner { run, visit: first }) if *run == self.number => {
                if first.number == visit.number || (first.shared && visit.shared) {
                    return Ok(());
                }
                let again = first.id == visit.id && first.at == visit.at;
                return Err(Error::SharedByAccident {
                    path: path.to_owned(),
                    first: first.at,
                    second: visit.at,
                    again,
                });
            }
            Some(of_run_before) => *of_run_before = owner,
            None => drop(owners.visits.insert(path.to_owned(), owner)),
        }
        owners.n_own += 1;
        Ok(())
    }

    /// The layer that began last on this thread ends.
    pub(crate) fn layer_ends(&self, position: &mut Position, info: &'static LayerInfo) {
        if let Some(observer) = &self.observer {
            observer.layer_ends();
        }
        if !info.scope.is_empty() {
            position.layers = position.layers.saturating_sub(1);
        }
    }
}
