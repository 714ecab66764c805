//! The context that layers see on a thread, and how to bring it to another thread.

use std::cell::RefCell;
use std::fmt;
use std::panic::Location;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, ThreadId};

use candle_core::{DType, Device};

use crate::ParameterStore;
use crate::group::Group;
use crate::parameter::path::append;
use crate::parameter::store::Place;
use crate::run::{Observer, Owners, Position, Run};

/// The context of layers called on this thread: the store, the scope, training or test mode, whether gradients
/// are tracked, and the running network. Use it to bring all of that to another thread.
///
/// A new thread starts without a store (see [`ParameterStore`]) and in training mode.
///
/// ```
/// use layerfn::{Context, prelude::*};
///
/// let x = Tensor::ones((4, 3), DType::F32, &Device::Cpu)?;
/// let net = network! { affine(2) -> dropout };
/// let here = net.forward_t(&x, false)?;
///
/// let context = test_mode(Context::current);
/// let there = std::thread::scope(|threads| threads.spawn(|| context.enter(|| net.forward(&x))).join().unwrap())?;
/// assert_eq!(there.to_vec2::<f32>()?, here.to_vec2::<f32>()?);
/// # Ok::<(), layerfn::Error>(())
/// ```
///
/// The same works in a rayon task and in `tokio::task::spawn_blocking`: `examples/serve.rs` is a server that
/// uses both this and a [`Model`](crate::Model), which needs no context. A clone is another handle to the same
/// context; entering scopes afterwards does not change it.
#[derive(Clone)]
pub struct Context(Arc<State>);

impl Context {
    /// Returns the current context of this thread.
    #[must_use]
    pub fn current() -> Self {
        with(|state| Self(Arc::new(state.clone())))
    }

    /// Runs `f` in this context, and restores the previous one afterwards, even on a panic.
    pub fn enter<R>(&self, f: impl FnOnce() -> R) -> R {
        struct Before(State);
        impl Drop for Before {
            fn drop(&mut self) {
                with(|state| std::mem::swap(state, &mut self.0));
            }
        }
        static N_ENTERED: AtomicU64 = AtomicU64::new(0);
        let mut state = (*self.0).clone();
        // No other thread uses these numbers for its visits.
        state.n_visits = (N_ENTERED.fetch_add(1, Ordering::Relaxed) + 1) << 32;
        let _before = Before(with(|now| std::mem::replace(now, state)));
        f()
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let State { path, flags, .. } = &*self.0;
        f.debug_struct("Context")
            .field("scope", path)
            .field("training", &flags.training)
            .field("no_grad", &flags.detached)
            .finish_non_exhaustive()
    }
}

/// The content of a [`Context`].
#[derive(Clone)]
pub(crate) struct State {
    pub(crate) store: ParameterStore,
    pub(crate) path: String,
    /// Place of the scope at `path`, or of one around it, in the store.
    pub(crate) place: Place,
    pub(crate) flags: Flags,
    pub(crate) run: Option<Arc<Run>>,
    pub(crate) position: Position,
    /// Shared by normalizations that use the statistics of several calls.
    pub(crate) group: Option<Arc<dyn Group>>,
    /// Number of stages started.
    pub(crate) n_visits: u64,
    /// Parameters made by the running layers; they are removed if the call fails.
    pub(crate) created: Vec<(ParameterStore, String)>,
}

/// Flags that apply to inner layers and parameters.
#[derive(Clone)]
pub(crate) struct Flags {
    /// The mode.
    pub(crate) training: bool,
    /// Whether parameters are taken detached: inside `no_grad` or a call with `fix_parameters`.
    pub(crate) detached: bool,
    /// [`detached`](Self::detached) outside the running layer.
    pub(crate) detached_around: bool,
    /// Whether values that layers keep from call to call, such as running statistics, do not change.
    pub(crate) fixed: bool,
    /// Type and device of new parameters: those of the layer's input.
    pub(crate) dtype: DType,
    pub(crate) device: Device,
    /// Where the outermost layer was called.
    pub(crate) called_at: Option<&'static Location<'static>>,
}

struct Thread {
    state: State,
    /// The paths of the last run, to be reused by the next.
    owners: Option<Owners>,
}

thread_local! {
    static THREAD: RefCell<Thread> = RefCell::new(Thread {
        state: State {
            store: if is_main() { ParameterStore::new() } else { ParameterStore::of_no_thread() },
            path: String::new(),
            place: Place::default(),
            flags: Flags {
                training: true,
                detached: false,
                detached_around: false,
                fixed: false,
                dtype: DType::F32,
                device: Device::Cpu,
                called_at: None,
            },
            run: None,
            position: Position::default(),
            group: None,
            n_visits: 0,
            created: Vec::new(),
        },
        owners: None,
    });
}

/// Whether this is the thread that Rust's runtime calls `main`. If a program gives other threads that name,
/// only the first of them that asks counts as the main thread, and the others have no store.
fn is_main() -> bool {
    static MAIN: OnceLock<ThreadId> = OnceLock::new();
    let thread = thread::current();
    thread.name() == Some("main") && *MAIN.get_or_init(|| thread.id()) == thread.id()
}

/// Accesses the context; user code never runs inside, and no run is dropped there.
pub(crate) fn with<R>(f: impl FnOnce(&mut State) -> R) -> R {
    THREAD.with_borrow_mut(|thread| f(&mut thread.state))
}

impl ParameterStore {
    /// Returns the store that layers called on this thread keep their parameters in.
    #[must_use]
    pub fn current() -> Self {
        with(|state| state.store.clone())
    }

    /// Runs `f` with this store as the current one and its root as the scope. The mode and
    /// [`no_grad`](crate::no_grad) do not change. The previous store and scope are restored after `f`, even on
    /// a panic.
    pub fn enter<R>(&self, f: impl FnOnce() -> R) -> R {
        // Its paths differ from those of the run outside.
        let _run = with(|state| state.run.clone()).map(|run| begin_run(run.observer.clone()));
        let _restore = with(|state| Restore {
            store: Some(std::mem::replace(&mut state.store, self.clone())),
            path: Path::Whole(std::mem::take(&mut state.path), std::mem::take(&mut state.place)),
            flags: None,
        });
        f()
    }
}

/// Restores its content when dropped, including on an early return and on a panic.
pub(crate) struct Restore {
    store: Option<ParameterStore>,
    path: Path,
    flags: Option<Flags>,
}

enum Path {
    /// The entered scope is below: truncate the path.
    Below(usize, (usize, usize)),
    Whole(String, Place),
}

impl Drop for Restore {
    fn drop(&mut self) {
        with(|state| {
            if let Some(store) = self.store.take() {
                state.store = store;
            }
            match &mut self.path {
                Path::Below(length, depth) => {
                    state.path.truncate(*length);
                    state.place.truncate(*depth);
                }
                Path::Whole(path, place) => {
                    state.path = std::mem::take(path);
                    state.place = std::mem::take(place);
                }
            }
            if let Some(flags) = self.flags.take() {
                state.flags = flags;
            }
        });
    }
}

impl State {
    /// Appends `scopes` to the path and sets `flags`, until the guard is dropped.
    pub(crate) fn enter(&mut self, scopes: &[&str], flags: Option<Flags>) -> Restore {
        let length = self.path.len();
        let path = Path::Below(length, self.place.depth());
        scopes.iter().for_each(|scope| append(&mut self.path, scope));
        let mut flags = flags.map(|flags| std::mem::replace(&mut self.flags, flags));
        if self.path.len() > length && self.store.claim_scope(&self.path, &mut self.place) {
            flags.get_or_insert_with(|| self.flags.clone());
            self.flags.freeze();
        }
        Restore { store: None, path, flags }
    }

    /// As [`enter`](Self::enter), but the scope is only registered when a layer or a parameter is created in
    /// it, so that a name without parameters leaves no trace.
    pub(crate) fn enter_unclaimed(&mut self, name: &str) -> Restore {
        let path = Path::Below(self.path.len(), self.place.depth());
        append(&mut self.path, name);
        Restore { store: None, path, flags: None }
    }
}

impl Flags {
    /// Inner parameters are not trained, and their values do not change.
    pub(crate) fn freeze(&mut self) {
        (self.training, self.detached, self.fixed) = (false, true, true);
        self.detached_around = true;
    }
}

/// The group of calls that share a batch with those of this thread.
pub(crate) fn group() -> Option<Arc<dyn Group>> {
    with(|state| state.group.clone())
}

/// Runs `f` with another group, and restores the previous one afterwards, even on a panic.
pub(crate) fn enter_group<R>(group: Option<Arc<dyn Group>>, f: impl FnOnce() -> R) -> R {
    struct Before(Option<Arc<dyn Group>>);
    impl Drop for Before {
        fn drop(&mut self) {
            let group = self.0.take();
            drop(with(|state| std::mem::replace(&mut state.group, group)));
        }
    }
    let _before = Before(with(|state| std::mem::replace(&mut state.group, group)));
    f()
}

/// Changes the flags until the guard is dropped.
pub(crate) fn change(f: impl FnOnce(&mut Flags)) -> Restore {
    with(|state| {
        let mut flags = state.flags.clone();
        f(&mut flags);
        state.enter(&[], Some(flags))
    })
}

/// Restores the previous run.
pub struct RunGuard(Option<(Option<Arc<Run>>, Position)>);

impl Drop for RunGuard {
    fn drop(&mut self) {
        let Some((run, position)) = self.0.take() else { return };
        let over = with(|state| {
            state.position = position;
            std::mem::replace(&mut state.run, run)
        });
        if let Some(owners) = over.and_then(Arc::into_inner).and_then(|mut run| run.take_owners()) {
            THREAD.with_borrow_mut(|thread| thread.owners = Some(owners));
        }
    }
}

/// Starts a separate run, whatever is running.
pub(crate) fn begin_run(observer: Option<Arc<dyn Observer>>) -> RunGuard {
    let owners = THREAD.with_borrow_mut(|thread| thread.owners.take());
    let run = Arc::new(Run::new(owners.unwrap_or_default(), observer));
    RunGuard(Some(with(|state| (state.run.replace(run), std::mem::take(&mut state.position)))))
}

/// Joins the current run if it has just reached this stage, or starts one.
pub(crate) fn join_run() -> RunGuard {
    let joins = with(|state| {
        let joins = state.run.is_some() && !state.position.used;
        state.position.used = true;
        joins
    });
    if joins {
        RunGuard(None)
    } else {
        begin_run(with(|state| state.run.clone()).and_then(|run| run.observer.clone()))
    }
}
