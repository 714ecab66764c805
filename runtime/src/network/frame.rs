//! One run of a network: which stage runs now, and which stage each layer path belongs to.

use std::any::Any;
use std::fmt::{Display, Write};
use std::panic::Location;
use std::sync::Arc;

use candle_core::Tensor;

use super::record::{Kind, Recorder};
use super::{IntoValue, Stage, Value};
use crate::context::{Flags, Restore, RunGuard, begin_run, change, join_run, with};
use crate::fusion::{self, Fuses, Fusing, Plain, Ran};
use crate::run::{Observer, Position, Visit};
use crate::{Error, Result, current_parameter_scope, told};

/// Starts a separate run, whatever is running; an active recorder stays active.
pub(super) fn outermost() -> RunGuard {
    begin_run(with(|state| state.run.as_ref().and_then(|run| run.observer.clone())))
}

/// As [`outermost`], with a recorder.
pub(super) fn outermost_with(recorder: &Arc<Recorder>) -> RunGuard {
    begin_run(Some(Arc::clone(recorder) as Arc<dyn Observer>))
}

/// Starts the body of a network: joins the run that it is a stage of, or starts its own.
#[must_use]
pub fn begin() -> RunGuard {
    join_run()
}

/// A stage that is being built and run; dropping it closes its scope.
pub struct Entered {
    /// The function's name.
    ident: &'static str,
    /// Whether a scope has been entered for it.
    named: bool,
    before: Option<Position>,
    recorded: Option<Recorded>,
    /// The flags that applied outside; they are restored before the scope is closed.
    flags: Option<Restore>,
    _scope: Option<Restore>,
}

impl Entered {
    /// Marks a stage as labelled `shared`.
    #[must_use]
    pub fn shared(self) -> Self {
        with(|state| {
            if let (Some(_), Some(visit)) = (&self.before, &mut state.position.visit) {
                visit.shared = true;
            }
        });
        self
    }

    /// Marks a stage as labelled `frozen`: it is not trained, its state does not change, and it runs in test
    /// mode.
    #[must_use]
    pub fn frozen(mut self) -> Self {
        self.flags = Some(change(Flags::freeze));
        if let Some(recorded) = &self.recorded {
            recorded.recorder.freeze(recorded.index);
        }
        self
    }

    /// Applies the option `fix_parameters` of a stage: as for a layer, no gradient flows to its parameters.
    #[must_use]
    pub fn fix_parameters(mut self, fix_parameters: bool) -> Self {
        // Frozen parameters are fixed already.
        if fix_parameters && self.flags.is_none() {
            self.flags = Some(change(|flags| flags.detached = true));
        }
        self
    }

    /// Begins a branch of a join.
    #[must_use]
    pub fn branch(&self) -> Branch {
        let recorder = self.recorded.as_ref().map(|recorded| Arc::clone(&recorded.recorder));
        Branch(recorder.map(|recorder| {
            let index = recorder.begin(Kind::Branch, String::new(), "", false, None, None);
            Recorded { recorder, index }
        }))
    }

    /// Adds the stage to the error, unless it already names one.
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

/// Path of a stage that is not a layer: its scope, followed by its name unless the scope has it.
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
        if let Some(position) = self.before.take() {
            with(|state| state.position = position);
        }
    }
}

/// A branch of a join that is being run.
pub struct Branch(#[expect(dead_code, reason = "it is there to be dropped")] Option<Recorded>);

/// A node of a recording that is open.
struct Recorded {
    recorder: Arc<Recorder>,
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
    let (before, observer, scope) = with(|state| {
        let mut observer = None;
        let before = state.run.as_ref().map(|run| {
            observer = run.observer.clone();
            state.n_visits += 1;
            let (number, before) = (state.n_visits, state.position);
            let shared = before.visit.is_some_and(|visit| visit.shared);
            state.position =
                Position { visit: Some(Visit { number, id, at, shared }), ..Position::default() };
            before
        });
        (before, observer, name.map(|name| state.enter_unclaimed(name)))
    });
    let named = scope.is_some();
    let recorder = observer.and_then(|observer| (observer as Arc<dyn Any + Send + Sync>).downcast().ok());
    let recorded = recorder.map(|recorder: Arc<Recorder>| {
        let shown = if kind == Kind::Block { name.unwrap_or_default() } else { ident };
        let index = recorder.begin(kind, stage_path(named, ident), shown, named, Some(at), Some(input));
        Recorded { recorder, index }
    });
    Entered { ident, named, before, recorded, flags: None, _scope: scope }
}

/// `format!("{label}{index}")` with a single allocation.
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

/// The `nth` unlabelled stage of its identifier: the first has no name, the others are numbered.
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

/// `conv(.., name = "c1")`
#[track_caller]
#[must_use]
pub fn name(name: impl Into<String>, ident: &'static str, id: u32, input: &dyn Value) -> Entered {
    let name = name.into();
    enter(Kind::Call, Some(&*name).filter(|name| !name.is_empty()), ident, id, input)
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
/// Those of the stage; one that does not name a layer yet gets the path and name of the stage.
#[track_caller]
#[expect(clippy::needless_pass_by_value, reason = "the stage ends when this is dropped")]
pub fn run<S: Stage>(entered: Entered, stage: S) -> Result<S::Output> {
    let value = stage.run().and_then(whence_known).map_err(|error| entered.locate(error))?;
    match &entered.recorded {
        Some(recorded) => recorded.recorder.returns(recorded.index, value),
        None => Ok(value),
    }
}

/// Returns the value if its origin is known, or if no recorder needs to know it.
#[inline]
fn whence_known<V: Value>(value: V) -> Result<V> {
    if told::listens() {
        let mut tensors = Vec::new();
        value.each(&mut |tensor| tensors.push(tensor));
        told::check(tensors)?;
    }
    Ok(value)
}

impl Plain {
    /// Runs a stage that is followed by the function `next`.
    ///
    /// # Errors
    /// As for [`run`].
    #[track_caller]
    pub fn run<S: Stage, F, Z>(self, entered: Entered, stage: S, _next: &F) -> Result<Ran<S::Output, Z>> {
        run(entered, stage).map(Ran::Alone)
    }
}

impl Fusing {
    /// Runs a stage that is followed by the function `next`, together with it if the stage supports that and no
    /// recorder needs the value in between.
    ///
    /// # Errors
    /// As for [`run`].
    #[track_caller]
    pub fn run<S, F, Z>(self, entered: Entered, mut stage: S, next: &F) -> Result<Ran<S::Output, Z>>
    where
        S: Stage<Output: 'static> + Fuses,
        Z: 'static,
    {
        let identity = fusion::identity::<S::Output, Z>();
        let fused = identity.filter(|_| entered.recorded.is_none() && !told::listens() && stage.fuse(next));
        let value = run(entered, stage)?;
        Ok(match fused {
            Some(identity) => Ran::WithNext(identity(value)),
            None => Ran::Alone(value),
        })
    }
}

/// Whether a recorder is active on this thread.
pub(crate) fn is_recorded() -> bool {
    with(|state| state.run.as_ref().is_some_and(|run| run.observer.is_some()))
}

/// Runs a function of a network from a file, as a stage at `path` whose parameters have paths of their own.
///
/// # Errors
/// Those of `run`.
pub(crate) fn graph_step(
    path: &str,
    ident: &'static str,
    input: &dyn Value,
    run: impl FnOnce() -> Result<Vec<Tensor>>,
) -> Result<Vec<Tensor>> {
    let observer = with(|state| state.run.as_ref().and_then(|run| run.observer.clone()));
    let recorder = observer.and_then(|observer| (observer as Arc<dyn Any + Send + Sync>).downcast().ok());
    let Some(recorder): Option<Arc<Recorder>> = recorder else { return run() };
    let index = recorder.begin(Kind::Call, path.to_owned(), ident, true, None, Some(input));
    let recorded = Recorded { recorder, index };
    let outputs = run()?;
    recorded.recorder.returns(index, outputs)
}

/// Runs some stages of a long chain.
///
/// # Errors
/// Those of the stages.
pub fn row<T>(stages: impl FnOnce() -> Result<T>) -> Result<T> {
    stages()
}

/// Calls a closure; this determines the type of its argument.
pub fn apply<X, R>(closure: impl FnOnce(&X) -> R, x: &X) -> R {
    closure(x)
}

/// Converts the argument of `use(..)`.
pub fn value<V: IntoValue>(value: V) -> V::Value {
    value.into_value()
}

/// The return value of a network function that does not declare a return type.
#[diagnostic::on_unimplemented(
    message = "a network function without a return type returns `Result<Tensor>`, but its last stage gives `{Self}`",
    label = "this gives `{Self}`",
    note = "declare what the function returns behind its arguments: `fn name(..) -> Result<..> < .. >`"
)]
pub trait OneTensor {
    /// The tensor itself.
    fn one_tensor(self) -> Tensor;
}

impl OneTensor for Tensor {
    fn one_tensor(self) -> Tensor {
        self
    }
}

/// The output of a network function whose declaration does not say what it returns.
pub fn one_tensor(output: impl OneTensor) -> Tensor {
    output.one_tensor()
}

/// Takes the place of a network that could not be parsed.
pub fn nothing(x: &Tensor) -> Result<Tensor> {
    Ok(x.clone())
}
