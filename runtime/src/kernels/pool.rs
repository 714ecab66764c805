//! The threads that help with kernels.
//!
//! A kernel may run while its caller holds locks: of a tensor's memory, of a store. So nobody here waits for anything but
//! pieces of kernels. The caller computes its share and then blocks; it takes up no other work meanwhile, as a thread of
//! a work-stealing pool would. A worker runs pieces, which take no lock. A caller that finds the workers taken does all
//! of its work by itself, so requests beside each other run each on one processor.
#![allow(unsafe_code)] // a task is borrowed from its caller's stack

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::{mem, thread};

/// How often a thread looks for what it waits for before it sleeps: waking it takes longer than most kernels.
const LOOKS: usize = 64;

/// Batches of pieces for each thread. One that is interrupted keeps the others waiting for one batch only.
const BATCHES: usize = 16;

thread_local! {
    /// The number of a worker, from 1; 0 elsewhere.
    static NUMBER: Cell<usize> = const { Cell::new(0) };
    /// The threads that [`with_threads`] has asked for.
    static OWN: RefCell<Option<(Arc<Pool>, usize)>> = const { RefCell::new(None) };
}

/// The workers that all callers share; they are started when they are needed first.
static SHARED: LazyLock<Arc<Pool>> = LazyLock::new(Arc::default);

/// How many threads a kernel of this thread may have, this one included.
pub(crate) fn n_threads() -> usize {
    OWN.with_borrow(|own| own.as_ref().map(|(_, n)| *n)).unwrap_or_else(rayon::current_num_threads)
}

/// Runs `f`, whose kernels compute in `n` threads: this one and others that nobody else uses. Everywhere else it is as
/// many as rayon has, of which all callers share all but one.
pub fn with_threads<R>(n: usize, f: impl FnOnce() -> R) -> R {
    struct Restore(Option<(Arc<Pool>, usize)>);
    impl Drop for Restore {
        fn drop(&mut self) {
            if let Some((pool, _)) = OWN.replace(self.0.take()) {
                pool.close();
            }
        }
    }
    let _restore = Restore(OWN.replace(Some((Arc::default(), n.max(1)))));
    f()
}

/// The threads that compute a kernel: the caller and those that help it.
pub(crate) struct Team {
    helpers: Option<(Arc<Pool>, usize)>,
}

impl Team {
    /// The caller alone.
    pub(crate) fn alone() -> Self {
        Self { helpers: None }
    }

    /// As many threads as there are, or the caller alone if another one has them.
    pub(crate) fn gather() -> Self {
        let n = n_threads();
        if n == 1 || NUMBER.get() > 0 {
            return Self::alone();
        }
        let own = OWN.with_borrow(|own| own.as_ref().map(|(pool, _)| pool.clone()));
        let pool = own.unwrap_or_else(|| SHARED.clone());
        let is_taken = pool.taken.swap(true, Ordering::Acquire);
        Self { helpers: (!is_taken).then_some((pool, n - 1)) }
    }

    /// How many they are.
    pub(crate) fn len(&self) -> usize {
        self.helpers.as_ref().map_or(1, |(_, n)| 1 + n)
    }

    /// Calls `f(i)` once for each `i` below `n`, with memory that each thread makes once by `scratch`. A panic of `f` comes
    /// out here, when nobody runs `f` any more.
    pub(crate) fn for_each<S>(
        &self,
        n: usize,
        scratch: impl Fn() -> S + Sync,
        f: impl Fn(&mut S, usize) + Sync,
    ) {
        self.run(n, &|batches| {
            let (mut memory, number) = (None, NUMBER.get());
            while let Some(batch) = batches.next(number) {
                let memory = memory.get_or_insert_with(&scratch);
                batch.for_each(|i| f(memory, i));
            }
        });
    }

    /// Calls `take_part` in each thread of the team; it takes batches of the `n` pieces until there are none. Compiled once,
    /// not for each kernel.
    fn run(&self, n: usize, take_part: &(dyn Fn(&Batches) + Sync)) {
        let batches = Batches::new(n, self.len());
        let Some((pool, helpers)) = &self.helpers else { return take_part(&batches) };
        let panicked: Mutex<Option<Box<dyn Any + Send>>> = Mutex::default();
        pool.run((*helpers).min(n.saturating_sub(1)), &|| {
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| take_part(&batches))) {
                batches.end();
                panicked.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(payload);
            }
        });
        if let Some(payload) = panicked.into_inner().unwrap_or_else(PoisonError::into_inner) {
            resume_unwind(payload);
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        if let Some((pool, _)) = &self.helpers {
            pool.taken.store(false, Ordering::Release);
        }
    }
}

/// The pieces that nobody has begun: a share for each thread, which helps with those of others when its own is done. So a
/// thread gets the same part of a tensor in one kernel after the other, and finds it in its cache.
struct Batches {
    /// That of the caller, which may be alone and needs no list then.
    first: Share,
    others: Vec<Share>,
    size: usize,
}

/// In a cache line of its own.
#[repr(align(64))]
struct Share {
    next: AtomicUsize,
    end: usize,
}

impl Batches {
    fn new(n: usize, n_threads: usize) -> Self {
        if n_threads == 1 {
            let first = Share { next: AtomicUsize::new(0), end: n };
            return Self { first, others: Vec::new(), size: n };
        }
        let size = n / (n_threads * BATCHES);
        let start = |number: usize| (n / n_threads) * number + (n % n_threads).min(number);
        let share = |number| Share { next: AtomicUsize::new(start(number)), end: start(number + 1) };
        Self { first: share(0), others: (1..n_threads).map(share).collect(), size: size.max(1) }
    }

    /// Some pieces for the thread with this number.
    fn next(&self, number: usize) -> Option<Range<usize>> {
        if self.others.is_empty() {
            return self.first.rest();
        }
        let n_threads = 1 + self.others.len();
        (0..n_threads).find_map(|others| match (number + others) % n_threads {
            0 => self.first.next(self.size),
            other => self.others[other - 1].next(self.size),
        })
    }

    /// Nobody gets any more.
    fn end(&self) {
        self.others
            .iter()
            .chain([&self.first])
            .for_each(|share| share.next.store(share.end, Ordering::Relaxed));
    }
}

impl Share {
    /// All that is left, for a thread that is alone. An atomic addition would slow small kernels down.
    fn rest(&self) -> Option<Range<usize>> {
        let start = self.next.load(Ordering::Relaxed);
        self.next.store(self.end, Ordering::Relaxed);
        (start < self.end).then_some(start..self.end)
    }

    fn next(&self, size: usize) -> Option<Range<usize>> {
        if self.next.load(Ordering::Relaxed) >= self.end {
            return None;
        }
        let start = self.next.fetch_add(size, Ordering::Relaxed);
        (start < self.end).then(|| start..self.end.min(start + size))
    }
}

/// Some workers and what they help with.
#[derive(Default)]
struct Pool {
    /// Whether a caller has the workers.
    taken: AtomicBool,
    state: Mutex<State>,
    /// Tasks so far; changed under the lock.
    n_posted: AtomicUsize,
    /// Workers that run the task; grows under the lock.
    inside: AtomicUsize,
    posted: Condvar,
    left: Condvar,
}

#[derive(Default)]
struct State {
    /// What there is to help with: borrowed from the caller, who does not return before it is gone from here and from all
    /// workers.
    task: Option<&'static (dyn Fn() + Sync)>,
    /// Workers that may still begin with it.
    places: usize,
    n_workers: usize,
    n_asleep: usize,
    closed: bool,
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `task` from this thread and from up to `helpers` workers that find the time before this thread is through;
    /// returns, or panics, when none of them runs it any more.
    fn run(self: &Arc<Self>, helpers: usize, task: &(dyn Fn() + Sync)) {
        struct Withdraw<'a>(&'a Pool);
        impl Drop for Withdraw<'_> {
            fn drop(&mut self) {
                self.0.withdraw();
            }
        }
        // SAFETY: only the lifetime changes. `withdraw` runs before this function returns or unwinds, and takes the task
        // away from the workers to come and waits for the others.
        let posted = unsafe { mem::transmute::<&(dyn Fn() + Sync), &'static (dyn Fn() + Sync)>(task) };
        let withdraw = Withdraw(self);
        self.post(helpers, posted);
        task();
        drop(withdraw);
    }

    fn post(self: &Arc<Self>, helpers: usize, task: &'static (dyn Fn() + Sync)) {
        let mut state = self.lock();
        while state.n_workers < helpers {
            let pool = self.clone();
            // Where no thread can be had, the others do its work.
            let number = state.n_workers + 1;
            if thread::Builder::new().name("layerfn kernels".into()).spawn(move || pool.work(number)).is_err()
            {
                break;
            }
            state.n_workers += 1;
        }
        (state.task, state.places) = (Some(task), helpers);
        self.n_posted.fetch_add(1, Ordering::Relaxed);
        let n_woken = helpers.min(state.n_asleep);
        drop(state);
        (0..n_woken).for_each(|_| self.posted.notify_one());
    }

    fn withdraw(&self) {
        let mut state = self.lock();
        (state.task, state.places) = (None, 0);
        drop(state);
        for _ in 0..LOOKS {
            if self.inside.load(Ordering::Acquire) == 0 {
                return;
            }
            thread::yield_now();
        }
        let mut state = self.lock();
        while self.inside.load(Ordering::Acquire) > 0 {
            state = self.left.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// What a worker does until the pool is closed.
    fn work(&self, number: usize) {
        NUMBER.set(number);
        let mut state = self.lock();
        while !state.closed {
            let Some(task) = state.task.filter(|_| state.places > 0) else {
                state = self.wait(state);
                continue;
            };
            state.places -= 1;
            self.inside.fetch_add(1, Ordering::Relaxed);
            drop(state);
            task();
            state = self.lock();
            if self.inside.fetch_sub(1, Ordering::Release) == 1 {
                self.left.notify_one();
            }
        }
    }

    /// Waits for a task that has not been posted yet.
    fn wait<'a>(&'a self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let n_posted = self.n_posted.load(Ordering::Relaxed);
        let is_same = || self.n_posted.load(Ordering::Relaxed) == n_posted;
        drop(state);
        for _ in 0..LOOKS {
            if !is_same() {
                return self.lock();
            }
            thread::yield_now();
        }
        let mut state = self.lock();
        if is_same() && !state.closed {
            state.n_asleep += 1;
            state = self.posted.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.n_asleep -= 1;
        }
        state
    }

    /// Ends the workers.
    fn close(&self) {
        self.lock().closed = true;
        self.posted.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread::ThreadId;

    use super::*;

    fn me() -> ThreadId {
        thread::current().id()
    }

    #[test]
    fn every_piece_is_run_once() {
        for n_threads in [1, 2, 3, 8] {
            with_threads(n_threads, || {
                for n in [0, 1, 2, 31, 1000, 1001] {
                    let runs: Vec<_> = (0..n).map(|_| AtomicUsize::new(0)).collect();
                    let team = Team::gather();
                    assert_eq!(team.len(), n_threads);
                    team.for_each(
                        n,
                        || (),
                        |(), i| {
                            runs[i].fetch_add(1, Ordering::Relaxed);
                        },
                    );
                    assert!(runs.iter().all(|runs| runs.load(Ordering::Relaxed) == 1), "{n_threads} {n}");
                }
            });
        }
    }

    #[test]
    fn workers_help() {
        with_threads(3, || {
            let (barrier, threads) = (Barrier::new(3), Mutex::new(Vec::new()));
            Team::gather().for_each(
                3,
                || (),
                |(), _| {
                    barrier.wait(); // nobody gets past it alone
                    threads.lock().unwrap().push(me());
                },
            );
            let mut threads = threads.into_inner().unwrap();
            threads.dedup();
            assert_eq!(threads.len(), 3);
            assert!(threads.contains(&me()));
        });
    }

    #[test]
    fn a_panic_of_any_thread_comes_out_at_the_caller() {
        with_threads(2, || {
            for of_caller in [true, false] {
                let (barrier, caller) = (Barrier::new(2), me());
                let run = || {
                    Team::gather().for_each(
                        2,
                        || (),
                        |(), _| {
                            barrier.wait();
                            if (me() == caller) == of_caller {
                                panic!("a piece of {of_caller}");
                            }
                        },
                    );
                };
                let payload = catch_unwind(AssertUnwindSafe(run)).unwrap_err();
                assert_eq!(payload.downcast_ref::<String>(), Some(&format!("a piece of {of_caller}")));
                // It can be used again.
                assert_eq!(Team::gather().len(), 2);
            }
        });
    }

    #[test]
    fn who_finds_the_workers_taken_works_alone() {
        with_threads(2, || {
            let barrier = Barrier::new(2);
            Team::gather().for_each(
                2,
                || (),
                |(), _| {
                    barrier.wait();
                    let team = Team::gather();
                    assert_eq!(team.len(), 1);
                    let outer = me();
                    team.for_each(100, || (), |(), _| assert_eq!(me(), outer));
                },
            );
        });
    }

    #[test]
    fn callers_beside_each_other_come_to_an_end() {
        let sums = Mutex::new(0);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let sum = AtomicUsize::new(0);
                        Team::gather().for_each(
                            50,
                            || (),
                            |(), i| {
                                sum.fetch_add(i, Ordering::Relaxed);
                            },
                        );
                        *sums.lock().unwrap() += sum.into_inner();
                    }
                });
            }
        });
        assert_eq!(sums.into_inner().unwrap(), 8 * 200 * 49 * 25);
    }
}
