//! One run of a network: which stage runs now, and which stage each layer path belongs to.

use std::any::TypeId;
use std::cell::{Cell, RefCell};
use std::fmt::{Display, Write};
use std::panic::Location;
use std::rc::Rc;

use candle_core::Tensor;
use foldhash::HashMap;

use super::join::add_then;
use super::record::{Kind, Recorder};
use super::{IntoValue, Stage, Value};
use crate::parameter::scope::{self, Observer, ReluOffer, Restore};
use crate::{Error, LayerInfo, Parameter, Result, current_parameter_scope, functions};

thread_local! {
    static FRAME: RefCell<Option<Rc<Frame>>> = const { RefCell::new(None) };

    /// Number of stages begun.
    static N_VISITS: Cell<u64> = const { Cell::new(0) };

    /// The owners of the last run, for the next: it mostly has the same layers, and need not write down their paths.
    static OWNERS: Cell<Option<Owners>> = const { Cell::new(None) };
}

/// The stage that each layer path belongs to.
type Owners = HashMap<String, Visit>;

/// A run of a network and of the networks that are its stages.
struct Frame {
    owners: RefCell<Owners>,
    /// How many of `owners` are of this run.
    n_owners: Cell<usize>,
    /// Number of stages begun before this run: what stands in `owners` from then does not count.
    n_before: u64,
    now: Cell<Now>,
    recorder: Option<Rc<Recorder>>,
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
    fn new(recorder: Option<Rc<Recorder>>) -> Rc<Self> {
        let now = Now { visit: None, layers: 0, fresh: true };
        Rc::new(Self {
            owners: RefCell::new(OWNERS.take().unwrap_or_default()),
            n_owners: Cell::new(0),
            n_before: N_VISITS.get(),
            now: Cell::new(now),
            recorder,
        })
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        let owners = self.owners.take();
        // Those of other networks are not kept.
        if owners.len() == self.n_owners.get() {
            // At the end of the thread there may be no place for them any more.
            OWNERS.try_with(|last| last.set(Some(owners))).ok();
        }
    }
}

impl Observer for Frame {
    fn layer_begins(&self, path: &str, info: &'static LayerInfo) -> Result<()> {
        let now = self.now.get();
        if let Some(recorder) = &self.recorder {
            recorder.layer_begins(path, info, now.layers == 0);
        }
        // A layer without a scope, such as a pooling, owns no path: what is inside it stands beside it.
        if info.scope.is_empty() {
            return Ok(());
        }
        self.now.set(Now { layers: now.layers + 1, fresh: false, ..now });
        let (Some(visit), 0) = (now.visit, now.layers) else { return Ok(()) };
        let mut owners = self.owners.borrow_mut();
        match owners.get_mut(path) {
            Some(owner) if owner.number > self.n_before => {
                if owner.number == visit.number || (owner.shared && visit.shared) {
                    return Ok(());
                }
                let again = owner.id == visit.id && owner.at == visit.at;
                let (path, first) = (path.to_owned(), owner.at);
                return Err(Error::SharedByAccident { path, first, second: visit.at, again });
            }
            Some(of_run_before) => *of_run_before = visit,
            None => drop(owners.insert(path.to_owned(), visit)),
        }
        self.n_owners.update(|n| n + 1);
        Ok(())
    }

    fn wants_parameters(&self) -> bool {
        self.recorder.is_some()
    }

    fn takes_parameter(&self, path: &str, parameter: &Parameter) {
        if let Some(recorder) = &self.recorder {
            recorder.takes(path, parameter);
        }
    }

    fn layer_ends(&self, info: &'static LayerInfo) {
        if let Some(recorder) = &self.recorder {
            recorder.layer_ends();
        }
        if info.scope.is_empty() {
            return;
        }
        let now = self.now.get();
        self.now.set(Now { layers: now.layers.saturating_sub(1), ..now });
    }
}

/// Puts back the run that was current before.
pub struct FrameGuard {
    restore: Option<Outer>,
}

type Outer = (Option<Rc<Frame>>, Option<Rc<dyn Observer>>);

impl Drop for FrameGuard {
    fn drop(&mut self) {
        if let Some((frame, observer)) = self.restore.take() {
            FRAME.set(frame);
            scope::set_observer(observer);
        }
    }
}

/// A run of its own, whatever runs now; a recorder that listens goes on to listen.
pub(super) fn outermost() -> FrameGuard {
    let recorder = FRAME.with_borrow(|frame| frame.as_ref().and_then(|frame| frame.recorder.clone()));
    outermost_with(recorder)
}

/// As [`outermost`], with a recorder.
pub(super) fn outermost_with(recorder: Option<Rc<Recorder>>) -> FrameGuard {
    let frame = Frame::new(recorder);
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
pub struct Entered {
    /// The function's name.
    ident: &'static str,
    /// Whether a scope has been entered for it.
    named: bool,
    before: Option<(Rc<Frame>, Now)>,
    recorded: Option<Recorded>,
    _scope: Option<Restore>,
}

impl Entered {
    /// For a stage that is labelled `shared`.
    #[must_use]
    pub fn shared(self) -> Self {
        if let Some((frame, _)) = &self.before {
            let now = frame.now.get();
            frame.now.set(Now { visit: now.visit.map(|visit| Visit { shared: true, ..visit }), ..now });
        }
        self
    }

    /// Begins a branch of a join.
    #[must_use]
    pub fn branch(&self) -> Branch {
        let recorder = self.recorded.as_ref().map(|recorded| Rc::clone(&recorded.recorder));
        Branch(recorder.map(|recorder| {
            let index = recorder.begin(Kind::Branch, String::new(), "", false, None);
            Recorded { recorder, index }
        }))
    }

    /// The error, with the place where it happened if it does not say that yet.
    fn locate(&self, error: Error) -> Error {
        match error {
            Error::InLayer { path, layer, source } if path.is_empty() => {
                Error::InLayer { path: stage_path(self.named, self.ident), layer, source }
            }
            within @ Error::InLayer { .. } => within,
            other => {
                let path = stage_path(self.named, self.ident);
                Error::InLayer { path, layer: self.ident, source: Box::new(other) }
            }
        }
    }
}

/// Path of a stage that is no layer: its scope, and its name where it has none of its own.
fn stage_path(named: bool, ident: &str) -> String {
    let scope = current_parameter_scope();
    match (named, scope.is_empty()) {
        (true, _) => scope,
        (false, true) => ident.to_owned(),
        (false, false) => format!("{scope}/{ident}"),
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        if let Some((frame, now)) = self.before.take() {
            frame.now.set(now);
        }
    }
}

/// A branch of a join that is being run.
pub struct Branch(#[expect(dead_code, reason = "it is there to be dropped")] Option<Recorded>);

/// A node of a recording that is open.
struct Recorded {
    recorder: Rc<Recorder>,
    index: usize,
}

impl Drop for Recorded {
    fn drop(&mut self) {
        self.recorder.end(self.index);
    }
}

#[track_caller]
fn enter(kind: Kind, name: Option<&str>, ident: &'static str, id: u32, input: &dyn Value) -> Entered {
    let at = Location::caller();
    let before = FRAME.with_borrow(|frame| {
        let frame = frame.clone()?;
        let before = frame.now.get();
        let number = N_VISITS.get() + 1;
        N_VISITS.set(number);
        let shared = before.visit.is_some_and(|visit| visit.shared);
        frame.now.set(Now { visit: Some(Visit { number, id, at, shared }), layers: 0, fresh: true });
        Some((frame, before))
    });
    let scope = name.map(scope::enter_unclaimed);
    let named = scope.is_some();
    let recorder = before.as_ref().and_then(|(frame, _)| frame.recorder.clone());
    let recorded = recorder.map(|recorder| {
        let shown = if kind == Kind::Block { name.unwrap_or_default() } else { ident };
        let index = recorder.begin(kind, stage_path(named, ident), shown, named, Some(input));
        Recorded { recorder, index }
    });
    Entered { ident, named, before, recorded, _scope: scope }
}

/// `format!("{label}{index}")` in memory that is taken once.
fn numbered(label: &str, index: &dyn Display) -> String {
    let mut numbered = String::with_capacity(label.len() + 16);
    numbered.push_str(label);
    // Writing to a string succeeds.
    write!(numbered, "{index}").ok();
    numbered
}

/// Labelled braces.
#[track_caller]
#[must_use]
pub fn block(label: &str, id: u32, input: &dyn Value) -> Entered {
    enter(Kind::Block, Some(label), "block", id, input)
}

/// Labelled braces in a loop.
#[track_caller]
#[must_use]
pub fn indexed_block(label: &str, index: &dyn Display, id: u32, input: &dyn Value) -> Entered {
    enter(Kind::Block, Some(&numbered(label, index)), "block", id, input)
}

/// `add { .. }` and its like.
#[track_caller]
#[must_use]
pub fn join(ident: &'static str, id: u32, input: &dyn Value) -> Entered {
    enter(Kind::Join, None, ident, id, input)
}

/// The `nth` stage of its identifier without a label: the first has no name, the others are numbered.
#[track_caller]
#[must_use]
pub fn unlabelled(ident: &'static str, nth: usize, id: u32, input: &dyn Value) -> Entered {
    if nth < 2 {
        return enter(Kind::Call, None, ident, id, input);
    }
    enter(Kind::Call, Some(&format!("{ident}_{nth}")), ident, id, input)
}

/// `c1: conv(..)`
#[track_caller]
#[must_use]
pub fn labelled(label: &str, ident: &'static str, id: u32, input: &dyn Value) -> Entered {
    enter(Kind::Call, Some(label), ident, id, input)
}

/// `block[i]: conv(..)`
#[track_caller]
#[must_use]
pub fn indexed(label: &str, index: &dyn Display, ident: &'static str, id: u32, input: &dyn Value) -> Entered {
    enter(Kind::Call, Some(&numbered(label, index)), ident, id, input)
}

/// Runs a stage.
///
/// # Errors
/// Those of the stage; one that names no layer yet gets the path and name of the stage.
#[track_caller]
#[expect(clippy::needless_pass_by_value, reason = "the stage ends when this is dropped")]
pub fn run<S: Stage>(entered: Entered, stage: S) -> Result<S::Output> {
    let value = stage.run().map_err(|error| entered.locate(error))?;
    match &entered.recorded {
        Some(recorded) => recorded.recorder.returns(recorded.index, value),
        None => Ok(value),
    }
}

/// A stage has been run that another follows.
pub enum Before<Y, Z> {
    /// The other is still to be run, on this.
    Alone(Y),
    /// The other has been run, too.
    Both(Z),
}

impl<Y: Value, Z: Value> Before<Y, Z> {
    fn new(value: Y, both: bool) -> Self {
        let mut tensor = None;
        if both {
            value.each(&mut |only| tensor = Some(only.clone()));
        }
        // Otherwise `relu` is run on what has been through it, which changes nothing.
        tensor.and_then(Z::of_tensor).map_or(Self::Alone(value), Self::Both)
    }
}

/// Whether stage `next`, which the network calls `relu`, is ours, and nobody wants to see what it gets.
fn may_be_joined<F>(entered: &Entered, _next: &F) -> bool {
    fn id<F>(_: &F) -> TypeId {
        typeid::of::<F>()
    }
    entered.recorded.is_none() && typeid::of::<F>() == id(&functions::relu)
}

/// Runs a stage before `next`, which is called `relu`: in one if `next` is ours and the stage is a layer that can.
///
/// # Errors
/// As for [`run`].
#[track_caller]
pub fn run_before<S: Stage, F, Z: Value>(
    entered: Entered,
    stage: S,
    next: &F,
) -> Result<Before<S::Output, Z>> {
    let layer = S::layer().filter(|_| may_be_joined(&entered, next));
    let offer = layer.map(ReluOffer::to);
    let value = run(entered, stage)?;
    Ok(Before::new(value, offer.is_some_and(|offer| offer.is_taken())))
}

/// As [`run_before`], for `add { .. }`.
///
/// # Errors
/// Those of [`add`](super::join::add).
#[track_caller]
pub fn add_before<const N: usize, F, Z: Value>(
    entered: Entered,
    branches: [Tensor; N],
    next: &F,
) -> Result<Before<Tensor, Z>> {
    let both = N > 1 && may_be_joined(&entered, next);
    Ok(Before::new(run(entered, add_then(branches, both))?, both))
}

/// Runs some of a long chain's stages.
///
/// # Errors
/// Theirs.
pub fn row<T>(stages: impl FnOnce() -> Result<T>) -> Result<T> {
    stages()
}

/// Calls a closure; it learns the type of its argument here.
pub fn apply<X, R>(closure: impl FnOnce(&X) -> R, x: &X) -> R {
    closure(x)
}

/// What `use(..)` takes.
pub fn value<V: IntoValue>(value: V) -> V::Value {
    value.into_value()
}

/// In place of a network that could not be read.
pub fn nothing(x: &Tensor) -> Result<Tensor> {
    Ok(x.clone())
}
