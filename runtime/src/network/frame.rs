//! One run of a network: which stage runs now, and which stage each layer path belongs to.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt::Display;
use std::panic::Location;
use std::rc::Rc;

use super::{IntoValue, Label, Stage, Value};
use crate::parameter::scope::{self, Observer, Restore};
use crate::{Error, LayerInfo, Result, current_parameter_scope};

thread_local! {
    static FRAME: RefCell<Option<Rc<Frame>>> = const { RefCell::new(None) };
}

/// A run of a network and of the networks that are its stages.
struct Frame {
    /// The stage that each layer path belongs to.
    owners: RefCell<HashMap<String, Visit>>,
    /// Number of stages begun.
    n_visits: Cell<u64>,
    now: Cell<Now>,
}

#[derive(Clone, Copy)]
struct Now {
    visit: Option<Visit>,
    /// How many layers are open below the stage; those inside a layer are its own business.
    layers: usize,
    /// Whether nothing has run in the stage yet, so that a network begun now is the stage.
    fresh: bool,
}

/// One run of one stage.
#[derive(Clone, Copy)]
struct Visit {
    number: u64,
    /// Index of the stage in its network: a `macro_rules!` may give many stages one location.
    id: u32,
    at: &'static Location<'static>,
    shared: bool,
}

impl Frame {
    fn new() -> Rc<Self> {
        let now = Now { visit: None, layers: 0, fresh: true };
        Rc::new(Self { owners: RefCell::default(), n_visits: Cell::new(0), now: Cell::new(now) })
    }
}

impl Observer for Frame {
    fn layer_begins(&self, path: &str, _info: &'static LayerInfo) -> Result<()> {
        let now = self.now.get();
        self.now.set(Now { layers: now.layers + 1, fresh: false, ..now });
        let (Some(visit), 0) = (now.visit, now.layers) else { return Ok(()) };
        let mut owners = self.owners.borrow_mut();
        let Some(owner) = owners.get(path).copied() else {
            owners.insert(path.to_owned(), visit);
            return Ok(());
        };
        if owner.number == visit.number || (owner.shared && visit.shared) {
            return Ok(());
        }
        let again = owner.id == visit.id && owner.at == visit.at;
        Err(Error::SharedByAccident { path: path.to_owned(), first: owner.at, second: visit.at, again })
    }

    fn layer_ends(&self) {
        let now = self.now.get();
        self.now.set(Now { layers: now.layers.saturating_sub(1), ..now });
    }
}

/// Puts back the run that was current before.
pub struct FrameGuard {
    restore: Option<(Option<Rc<Frame>>, Option<Rc<dyn Observer>>)>,
}

impl Drop for FrameGuard {
    fn drop(&mut self) {
        if let Some((frame, observer)) = self.restore.take() {
            FRAME.set(frame);
            scope::set_observer(observer);
        }
    }
}

/// A run of its own, whatever runs now.
pub(super) fn outermost() -> FrameGuard {
    let frame = Frame::new();
    let observer = scope::set_observer(Some(frame.clone()));
    FrameGuard { restore: Some((FRAME.replace(Some(frame)), observer)) }
}

/// What the body of a network begins with: it joins the run whose stage it is, or makes its own.
#[must_use]
pub fn begin() -> FrameGuard {
    let joins = FRAME.with_borrow(|frame| {
        let Some(frame) = frame else { return false };
        let now = frame.now.get();
        frame.now.set(Now { fresh: false, ..now });
        now.fresh
    });
    if joins { FrameGuard { restore: None } } else { outermost() }
}

/// A stage that is being built and run; its scope is closed when this is dropped.
pub struct Entered<'a> {
    label: Label,
    /// Name of the scope entered; the identifier where none is.
    named: bool,
    input: &'a dyn Value,
    before: Option<(Rc<Frame>, Now)>,
    _scope: Option<Restore>,
}

impl Entered<'_> {
    /// For a stage that is labelled `shared`.
    #[must_use]
    pub fn shared(self) -> Self {
        if let Some((frame, _)) = &self.before {
            let now = frame.now.get();
            frame.now.set(Now { visit: now.visit.map(|visit| Visit { shared: true, ..visit }), ..now });
        }
        self
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        if let Some((frame, now)) = self.before.take() {
            frame.now.set(now);
        }
    }
}

#[track_caller]
fn enter<'a>(name: Option<&str>, ident: &'static str, id: u32, input: &'a dyn Value) -> Entered<'a> {
    let at = Location::caller();
    let before = FRAME.with_borrow(|frame| {
        let frame = frame.clone()?;
        let before = frame.now.get();
        let number = frame.n_visits.get() + 1;
        frame.n_visits.set(number);
        let shared = before.visit.is_some_and(|visit| visit.shared);
        frame.now.set(Now { visit: Some(Visit { number, id, at, shared }), layers: 0, fresh: true });
        Some((frame, before))
    });
    let scope = name.map(scope::enter_unclaimed);
    Entered { label: Label { ident }, named: scope.is_some(), input, before, _scope: scope }
}

/// The `nth` stage of its identifier without a label: the first has no name, the others are numbered.
#[track_caller]
#[must_use]
pub fn unlabelled<'a>(ident: &'static str, nth: usize, id: u32, input: &'a dyn Value) -> Entered<'a> {
    if nth < 2 {
        return enter(None, ident, id, input);
    }
    enter(Some(&format!("{ident}_{nth}")), ident, id, input)
}

/// `c1: conv(..)`
#[track_caller]
#[must_use]
pub fn labelled<'a>(label: &str, ident: &'static str, id: u32, input: &'a dyn Value) -> Entered<'a> {
    enter(Some(label), ident, id, input)
}

/// `block[i]: conv(..)`
#[track_caller]
#[must_use]
pub fn indexed<'a>(
    label: &str,
    index: &dyn Display,
    ident: &'static str,
    id: u32,
    input: &'a dyn Value,
) -> Entered<'a> {
    enter(Some(&format!("{label}{index}")), ident, id, input)
}

/// Runs a stage.
///
/// # Errors
/// Those of the stage; one that names no layer yet gets the path and name of the stage.
pub fn run<S: Stage>(entered: Entered<'_>, stage: S) -> Result<S::Output>
where
    S::Output: Value,
{
    let _ = entered.input;
    stage.run(entered.label).map_err(|error| match error {
        within @ Error::InLayer { .. } => within,
        other => {
            let layer = if entered.label.ident.is_empty() { "closure" } else { entered.label.ident };
            let mut path = current_parameter_scope();
            if !entered.named {
                path = if path.is_empty() { layer.to_owned() } else { format!("{path}/{layer}") };
            }
            Error::InLayer { path, layer, source: Box::new(other) }
        }
    })
}

/// Calls a closure; it learns the type of its argument here.
pub fn apply<X, R>(closure: impl FnOnce(&X) -> R, x: &X) -> R {
    closure(x)
}

/// What `use(..)` takes.
pub fn value<V: IntoValue>(value: V) -> V::Value {
    value.into_value()
}
