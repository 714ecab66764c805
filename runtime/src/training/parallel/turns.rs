//! Micro-batches of one rank that run together.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use candle_core::{Tensor, Var};

use crate::communicator::Communicator;
use crate::context::enter_group;
use crate::group::{Group, UNLIKE};
use crate::{Context, Error, Result, Rng};

/// Threads that take turns, one for each micro-batch: each runs until it needs the contributions of all
/// micro-batches. The last one gathers them from the other ranks. So only one thread runs at a time, and finds
/// the generator and the values that layers keep as it left them.
pub(super) struct Turns {
    /// The ranks that have micro-batches.
    communicator: Communicator,
    noise: Rng,
    /// What layers keep from call to call.
    kept: Vec<Var>,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// Whose turn it is.
    turn: usize,
    /// The state that each restores when its turn comes.
    places: Vec<Place>,
    /// The contribution that each waits with.
    given: Vec<Option<Vec<f64>>>,
    /// The contributions of all.
    gathered: Vec<Vec<f64>>,
    /// The first one that failed.
    failed: Option<usize>,
}

struct Place {
    noise: (Vec<u32>, Option<f64>),
    kept: Vec<Tensor>,
}

impl Turns {
    /// Prepares micro-batches that use these generators in place of `noise`, and start with these values of
    /// what layers keep.
    pub(super) fn new(
        communicator: Communicator,
        noise: Rng,
        noises: &[Rng],
        kept: Vec<(Var, Tensor)>,
    ) -> Arc<Self> {
        let (kept, before): (Vec<_>, Vec<_>) = kept.into_iter().unzip();
        let places: Vec<_> =
            noises.iter().map(|noise| Place { noise: noise.position(), kept: before.clone() }).collect();
        let given = vec![None; places.len()];
        let state = State { turn: 0, places, given, gathered: Vec::new(), failed: None };
        Arc::new(Self { communicator, noise, kept, state: Mutex::new(state), changed: Condvar::new() })
    }

    /// Runs `task` for each of the micro-batches, numbered from 0 here, and returns the results.
    pub(super) fn run<R: Send>(self: &Arc<Self>, task: impl Fn(usize) -> Result<R> + Sync) -> Result<Vec<R>> {
        let (context, task, n) = (&Context::current(), &task, self.lock().places.len());
        let mut results: Vec<Result<R>> = thread::scope(|threads| {
            let started: Vec<_> = (0..n)
                .map(|number| {
                    let turn = Turn { turns: self.clone(), number };
                    let run = move || {
                        let _fails = FailOnPanic(&turn);
                        let group = Some(Arc::new(turn.clone()) as Arc<dyn Group>);
                        let begun = turn.wait().map(drop);
                        let result =
                            begun.and_then(|()| context.enter(|| enter_group(group, || task(number))));
                        result.and_then(|result| turn.end().map(|()| result)).inspect_err(|_| turn.fail())
                    };
                    let started =
                        thread::Builder::new().name(format!("part {number}")).spawn_scoped(threads, run);
                    started.map_err(|error| {
                        Turn { turns: self.clone(), number }.fail();
                        let reason = format!("cannot start a thread for a micro-batch: {error}");
                        Error::communication(self.communicator.rank(), reason)
                    })
                })
                .collect();
            let join = |thread: thread::ScopedJoinHandle<'_, _>| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            started.into_iter().map(|started| started.and_then(join)).collect()
        });
        match self.lock().failed {
            Some(number) => results.swap_remove(number).and_then(|_| Err(self.given_up())),
            None => results.into_iter().collect(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn given_up(&self) -> Error {
        Error::communication(self.communicator.rank(), "has given the step up")
    }
}

/// The place of one micro-batch among those of its rank.
#[derive(Clone)]
struct Turn {
    turns: Arc<Turns>,
    number: usize,
}

impl Turn {
    /// Waits for its turn and restores its state.
    fn wait(&self) -> Result<MutexGuard<'_, State>> {
        let turns = &self.turns;
        let mut state = turns.lock();
        while state.turn != self.number && state.failed.is_none() {
            state = turns.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.failed.is_some() {
            return Err(turns.given_up());
        }
        let Place { noise: (words, spare), kept } = &state.places[self.number];
        turns.noise.set_position(words, *spare);
        for (var, value) in turns.kept.iter().zip(kept) {
            var.set(value)?;
        }
        Ok(state)
    }

    /// Lets the next one run.
    fn pass(&self, mut state: MutexGuard<'_, State>) {
        state.turn = (self.number + 1) % state.places.len();
        drop(state);
        self.turns.changed.notify_all();
    }

    /// Finishes; all others of the rank must do so in the same round.
    fn end(&self) -> Result<()> {
        let state = self.turns.lock();
        if self.number + 1 == state.places.len() && state.given.iter().any(Option::is_some) {
            drop(state);
            return Err(self.unlike());
        }
        self.pass(state);
        Ok(())
    }

    fn fail(&self) {
        self.turns.lock().failed.get_or_insert(self.number);
        self.turns.changed.notify_all();
    }

    fn unlike(&self) -> Error {
        Error::communication(self.turns.communicator.rank(), UNLIKE)
    }
}

impl Group for Turn {
    fn gather(&self, own: Vec<f64>) -> Result<Vec<Vec<f64>>> {
        let (turns, number) = (&self.turns, self.number);
        let kept = turns.kept.iter().map(|var| var.as_detached_tensor().copy()).collect::<Result<_, _>>()?;
        let place = Place { noise: turns.noise.position(), kept };
        let mut state = turns.lock();
        (state.places[number], state.given[number]) = (place, Some(own));
        if number + 1 == state.places.len() {
            let parts: Option<Vec<_>> = state.given.iter_mut().map(Option::take).collect();
            let alike = parts.filter(|parts| parts.iter().all(|part| part.len() == parts[0].len()));
            state.gathered = turns.communicator.gather_parts(alike.ok_or_else(|| self.unlike())?)?;
        }
        self.pass(state);
        Ok(self.wait()?.gathered.clone())
    }
}

/// Ends the others if a micro-batch panics.
struct FailOnPanic<'a>(&'a Turn);

impl Drop for FailOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.fail();
        }
    }
}
