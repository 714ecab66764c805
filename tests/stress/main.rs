//! Many threads of every kind at one store: nothing hangs, nothing panics, no step is lost.
//!
//! Three seconds long; `LAYERFN_STRESS_SECONDS=60` makes it a minute.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use layerfn::checkpoint::{Checkpoint, Load};
use layerfn::prelude::*;
use layerfn::solver::Sgd;

const SIZE: usize = 512;
const ROWS: usize = 8;
/// A power of two, so that sums of steps are exact.
const RATE: f64 = 1.0 / 1024.0;
/// The value of every element of `loaded/affine/b` in the file that is loaded.
const FILED: f32 = 7.0;

fn seconds() -> u64 {
    std::env::var("LAYERFN_STRESS_SECONDS").map_or(3, |seconds| seconds.parse().expect("a number of seconds"))
}

/// Fails if `run` does not come to an end; its thread is left behind then.
fn watched(run: impl FnOnce() -> Result<()> + Send + 'static) {
    let limit = Duration::from_secs(60 + 3 * seconds());
    let (sender, receiver) = mpsc::channel();
    let runner = thread::spawn(move || sender.send(run()));
    match receiver.recv_timeout(limit) {
        Ok(result) => result.unwrap(),
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("nothing moves any more"),
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            runner.join().unwrap().unwrap();
        }
    }
}

/// What the threads share.
struct Shared {
    store: ParameterStore,
    x: Tensor,
    steps: AtomicUsize,
    answers: AtomicUsize,
    over: AtomicBool,
}

impl Shared {
    fn new() -> Result<Arc<Self>> {
        let x = Tensor::ones((ROWS, SIZE), DType::F32, &Device::Cpu)?;
        let store = ParameterStore::new();
        for name in ["trained", "loaded"] {
            store.enter(|| affine(&x, SIZE).name(name).call())?;
        }
        let (steps, answers) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Ok(Arc::new(Self { store, x, steps, answers, over: AtomicBool::new(false) }))
    }

    fn layer(&self, name: &str) -> Result<Tensor> {
        self.store.enter(|| affine(&self.x, SIZE).name(name).call())
    }

    /// One step, in which each element of the bias grows by `-RATE * ROWS`.
    fn train(&self) -> Result<()> {
        let mut solver = Sgd::new(RATE);
        solver.set_parameters(&self.store.parameters().under("trained"));
        solver.update(&backward(&self.layer("trained")?.sum_all()?)?)?;
        self.steps.fetch_add(1, SeqCst);
        Ok(())
    }

    fn serve(&self) -> Result<()> {
        for name in ["trained", "loaded"] {
            let y = no_grad(|| self.layer(name))?;
            assert!(y.flatten_all()?.to_vec1::<f32>()?.iter().all(|y| y.is_finite()));
        }
        self.answers.fetch_add(1, SeqCst);
        Ok(())
    }

    /// Repeats `f` until the time is up.
    fn repeat(&self, mut f: impl FnMut() -> Result<()>) {
        while !self.over.load(SeqCst) {
            f().unwrap();
        }
    }
}

fn bias(store: &ParameterStore, name: &str) -> Result<Vec<f32>> {
    let parameter = store.get(&format!("{name}/affine/b")).expect("a bias");
    Ok(parameter.var().as_tensor().to_vec1()?)
}

/// A file of the layer `loaded` whose bias is [`FILED`].
fn write_file(path: &std::path::Path) -> Result<()> {
    let (x, store) = (Tensor::ones((ROWS, SIZE), DType::F32, &Device::Cpu)?, ParameterStore::new());
    store.enter(|| affine(&x, SIZE).name("loaded").call())?;
    let b = store.get("loaded/affine/b").expect("a bias");
    b.var().set(&b.var().ones_like()?.affine(f64::from(FILED), 0.0)?)?;
    store.save_parameters(path)
}

/// Requests as tasks of rayon's pool, some of which train; a few at a time.
fn rayon_tasks(shared: &Arc<Shared>) {
    let flying = Arc::new(AtomicUsize::new(0));
    let mut n = 0;
    shared.repeat(|| {
        while flying.load(SeqCst) >= 16 {
            thread::yield_now();
        }
        flying.fetch_add(1, SeqCst);
        n += 1;
        let (shared, flying, trains) = (shared.clone(), flying.clone(), n % 8 == 0);
        rayon::spawn(move || {
            if trains { shared.train() } else { shared.serve() }.unwrap();
            flying.fetch_sub(1, SeqCst);
        });
        Ok(())
    });
    while flying.load(SeqCst) > 0 {
        thread::yield_now();
    }
}

/// Ends the others when the time is up.
fn wait(shared: &Shared) {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(seconds()) {
        thread::sleep(Duration::from_millis(20));
    }
    shared.over.store(true, SeqCst);
}

#[test]
fn threads_of_every_kind_train_serve_save_load_and_copy_one_store() {
    watched(|| {
        let folder = tempfile::tempdir().unwrap();
        let (file, saved) = (folder.path().join("file.safetensors"), folder.path().join("saved.safetensors"));
        write_file(&file)?;
        let shared = Shared::new()?;
        type Role = Box<dyn FnMut(&Shared) -> Result<()> + Send>;
        let save = saved.clone();
        let roles: [Role; 5] = [
            Box::new(Shared::train),
            Box::new(Shared::train),
            Box::new(move |shared| shared.store.save_parameters(&save)),
            Box::new(move |shared| {
                Load::new(Checkpoint::open(&file)?).partial(["loaded/**"]).apply_to(&shared.store, "")?;
                Ok(())
            }),
            Box::new(|shared| {
                let copy = shared.store.to_device(&Device::Cpu)?;
                assert_eq!(copy.parameters().len(), 4);
                Ok(())
            }),
        ];
        let plain = roles.map(|mut role| {
            let shared = shared.clone();
            thread::spawn(move || shared.repeat(|| role(&shared)))
        });
        thread::scope(|scope| {
            scope.spawn(|| shared.repeat(|| shared.train()));
            scope.spawn(|| shared.repeat(|| shared.serve()));
            scope.spawn(|| rayon_tasks(&shared));
            wait(&shared);
        });
        for thread in plain {
            thread.join().unwrap();
        }

        let (steps, answers) = (shared.steps.load(SeqCst), shared.answers.load(SeqCst));
        assert!(steps > 0 && answers > 0);
        let want = -(steps as f64 * ROWS as f64 * RATE) as f32;
        assert!(bias(&shared.store, "trained")?.iter().all(|&b| b == want), "a step of {steps} is lost");
        assert!(bias(&shared.store, "loaded")?.iter().all(|&b| b == FILED), "half a file is loaded");
        shared.store.save_parameters(&saved)?;
        let again = ParameterStore::new();
        again.load_parameters(&saved)?;
        assert_eq!(bias(&again, "trained")?, bias(&shared.store, "trained")?);
        Ok(())
    });
}
