//! A training that is killed again and again ends with the bytes of one that is not.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use candle_core::{DType, Device, Tensor};
use layerfn::data::{Arrays, Augment, Loader, Position};
use layerfn::prelude::*;
use layerfn::solver::{Adam, schedule};
use layerfn::training::{EarlyStopping, Progress, StateFiles, TrainState, WeightAverage};

const FOLDER: &str = "LAYERFN_KILLED_FOLDER";
const EXTENSION: &str = "LAYERFN_KILLED_EXTENSION";
const STEPS: u64 = 240;
const KILLS: usize = 20;

/// Images of noise, and their labels.
fn dataset() -> Result<Arrays> {
    let rng = Rng::new(11);
    let pixels: Vec<f32> = (0..44 * 36).map(|_| rng.normal() as f32).collect();
    let labels: Vec<u32> = (0..44).map(|_| rng.next_u32() % 3).collect();
    Arrays::new([
        Tensor::from_vec(pixels, (44, 1, 6, 6), &Device::Cpu)?,
        Tensor::from_vec(labels, 44, &Device::Cpu)?,
    ])
}

/// Trains on with dropout, batch statistics, an average, a schedule, shuffled and augmented batches of two workers, and says
/// each step.
fn train(folder: &Path, extension: &str) -> Result<()> {
    let net = network! { < a: affine(24) -> bn -> relu -> dropout -> out: affine(3) > };
    let model = ParameterStore::with_seed(3).enter(|| net.boxed().init((8, 1, 6, 6)))?;
    let mut solver =
        Adam::new(1e-2).clip_grad_by_global_norm(1.0).schedule(schedule::warmup(20).cosine(STEPS + 1));
    solver.set_parameters(&model.parameters());
    let mut average = WeightAverage::new(&model.parameters(), 0.9)?;
    let mut stopping = EarlyStopping::new(STEPS);
    let (mut position, mut step, mut losses) = (Position::default(), 0u64, Vec::new());
    let files = StateFiles::new(folder, extension).keep(3);

    macro_rules! state {
        () => {
            TrainState::new()
                .with("model", &model)
                .with("solver", &mut solver)
                .with("average", &mut average)
                .with("stopping", &mut stopping)
                .with("position", &mut position)
                .with("step", &mut step)
                .with("losses", &mut losses)
        };
    }
    files.resume(&mut state!())?;
    let augment = Augment::new().rotate(20.0).shift(1).noise(0.1);
    let loader = Loader::new(dataset()?, 8).shuffle(5).augment(0, augment).endless().workers(2);
    let mut batches = loader.start_at(position).batches()?;
    while step < STEPS {
        let batch = batches.next().expect("it is endless")?;
        let [x, labels] = batch.fields()?;
        let loss = mean_softmax_cross_entropy(&model.forward(x)?, labels, 1)?;
        solver.update(&backward(&loss)?)?;
        average.update()?;
        losses.push(loss.to_dtype(DType::F64)?.to_scalar()?);
        position = batches.position();
        step += 1;
        let at = step;
        if at % 4 == 0 {
            let value = average.with(|| model.forward_t(x, false))??.sqr()?.mean_all()?;
            if stopping.observe(value.to_dtype(DType::F64)?.to_scalar()?) == Progress::Best {
                files.save_best(&state!())?;
            }
        }
        if at % 3 == 0 {
            files.save(&state!(), at)?;
        }
        println!("step {at}");
    }
    state!().save(folder.join("end").with_extension(extension))
}

/// Not a test of its own: what the children run.
#[test]
fn child() {
    if let (Some(folder), Ok(extension)) = (std::env::var_os(FOLDER), std::env::var(EXTENSION)) {
        train(Path::new(&folder), &extension).unwrap();
    }
}

fn start(folder: &Path, extension: &str, threads: usize) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["killed::child", "--exact", "--nocapture"])
        .env(FOLDER, folder)
        .env(EXTENSION, extension)
        .env("RAYON_NUM_THREADS", threads.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Runs to the end.
fn finish(folder: &Path, extension: &str, threads: usize) -> [Vec<u8>; 2] {
    let output = start(folder, extension, threads).wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    ["end", "best"].map(|name| std::fs::read(folder.join(name).with_extension(extension)).unwrap())
}

fn killed_ends_as_unkilled(extension: &str, threads: usize) {
    let (through, stopped) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let want = finish(through.path(), extension, 1);
    let moments = Rng::new(threads as u32);
    for _ in 0..KILLS {
        let mut child = start(stopped.path(), extension, threads);
        // After some steps, and some part of another.
        let n_steps = 1 + moments.next_u32() % 15;
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut said = output.lines().map_while(std::io::Result::ok).filter(|line| line.contains("step "));
        said.by_ref().take(n_steps as usize).for_each(drop);
        std::thread::sleep(Duration::from_micros(u64::from(moments.next_u32() % 3000)));
        child.kill().unwrap();
        child.wait().unwrap();
        drop(said); // not earlier: a child that nobody listens to ends by itself
    }
    let states = std::fs::read_dir(stopped.path()).unwrap();
    assert!(states.count() > 0, "nothing was saved before the kills");
    assert!(finish(stopped.path(), extension, threads) == want, "other bytes");
}

#[test]
fn on_one_thread() {
    killed_ends_as_unkilled("safetensors", 1);
}

#[test]
fn on_two_threads() {
    killed_ends_as_unkilled("h5", 2);
}
