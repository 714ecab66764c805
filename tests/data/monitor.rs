//! Records of a training, and what is left of them when it is stopped.

use std::fs;
use std::path::Path;

use layerfn::monitor::Monitor;
use layerfn::prelude::*;
use tempfile::TempDir;

fn read(folder: &Path, file: &str) -> String {
    fs::read_to_string(folder.join(file)).unwrap()
}

fn train(monitor: &mut Monitor, steps: std::ops::Range<u64>) {
    for step in steps {
        monitor.scalar("training loss", step, 2.0 / (step + 3) as f64).unwrap();
        if step % 3 == 2 {
            monitor.scalar("valid/error, all", step, 1e-7 * step as f64).unwrap();
        }
    }
}

#[test]
fn series_are_those_of_nnabla_and_the_table_has_all_digits() {
    let folder = TempDir::new().unwrap();
    let mut monitor = Monitor::create(folder.path()).unwrap();
    train(&mut monitor, 0..3);
    assert_eq!(read(folder.path(), "training-loss.series.txt"), "0 0.666667\n1 0.5\n2 0.4\n");
    assert_eq!(read(folder.path(), "valid-error,-all.series.txt"), "2 2e-07\n");
    assert_eq!(
        read(folder.path(), "scalars.csv"),
        "step,name,value\n0,training loss,0.6666666666666666\n1,training loss,0.5\n2,training loss,0.4\n\
         2,\"valid/error, all\",0.0000002\n"
    );
}

#[test]
fn a_run_that_was_stopped_leaves_the_files_of_one_that_was_not() {
    let (whole, stopped) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    train(&mut Monitor::create(whole.path()).unwrap(), 0..12);
    train(&mut Monitor::create(stopped.path()).unwrap(), 0..9);
    // Killed within a line.
    let csv = stopped.path().join("scalars.csv");
    fs::write(&csv, fs::read_to_string(&csv).unwrap() + "9,training lo").unwrap();
    for step in [7, 5] {
        train(&mut Monitor::resume(stopped.path(), step).unwrap(), step..12);
        for file in ["training-loss.series.txt", "valid-error,-all.series.txt", "scalars.csv"] {
            assert_eq!(read(whole.path(), file), read(stopped.path(), file), "{file}");
        }
    }
    let events = |folder: &Path| fs::read(folder.join("events.out.tfevents.layerfn")).unwrap().len();
    assert_eq!(events(whole.path()), events(stopped.path()));
    // A new run does not keep the series of the old one.
    train(&mut Monitor::create(whole.path()).unwrap(), 0..1);
    assert!(!whole.path().join("valid-error,-all.series.txt").exists());
}

#[test]
fn histograms_texts_and_images_go_to_the_events() {
    let folder = TempDir::new().unwrap();
    let mut monitor = Monitor::create(folder.path().join("a/b")).unwrap();
    let events = monitor.folder().join("events.out.tfevents.layerfn");
    let length = || fs::metadata(&events).unwrap().len();
    let images = Tensor::arange(0f32, 24., &Device::Cpu).unwrap().reshape((2, 3, 2, 2)).unwrap();
    let before = length();
    monitor.histogram("w", 0, &images).unwrap();
    monitor.text("summary", 0, "two layers").unwrap();
    monitor.images("digits", 0, &images).unwrap();
    let bytes = fs::read(&events).unwrap();
    assert!(length() > before + 500);
    assert_eq!(bytes.windows(4).filter(|window| window == b"\x89PNG").count(), 2);
    let wrong = |images: Tensor| monitor.images("x", 0, &images).unwrap_err().to_string();
    let mut wrong = wrong;
    assert!(wrong(images.flatten_all().unwrap()).contains("with 1 or 3 channels"));
    assert!(wrong((images.clone() / 0.0).unwrap()).contains("finite elements"));
    for name in ["", ".hidden", "two\nlines"] {
        assert!(monitor.scalar(name, 0, 1.0).is_err(), "{name:?}");
    }
}

/// One of each kind, for `tests/interop/events.py`.
#[test]
fn a_network_goes_to_the_events_for_tensorboard() {
    let folder = TempDir::new().unwrap();
    let folder = std::env::var_os("LAYERFN_EVENTS").map_or(folder.path().to_owned(), Into::into);
    let mut monitor = Monitor::create(&folder).unwrap();
    let images = Tensor::arange(0f32, 24., &Device::Cpu).unwrap().reshape((2, 3, 2, 2)).unwrap();
    let net = network! { fc: affine(4) -> residual { relu } -> softmax(1) };
    monitor.network(&net.summary([(1, 3)]).unwrap()).unwrap();
    monitor.scalar("training loss", 0, 0.5).unwrap();
    monitor.scalar("training loss", 1, 0.25).unwrap();
    monitor.histogram("weights", 1, &images).unwrap();
    monitor.images("digits", 1, &images).unwrap();
    monitor.text("summary", 1, "two layers").unwrap();
    let events = || fs::read(folder.join("events.out.tfevents.layerfn")).unwrap();
    let has = |text: &str| events().windows(text.len()).any(|window| window == text.as_bytes());
    assert!(has("fc/affine") && has("Placeholder"));
    drop(monitor);
    let before = events();
    drop(Monitor::resume(&folder, 2).unwrap());
    assert!(has("fc/affine"), "a run that goes on keeps the network");
    assert_eq!(events().len(), before.len());
}
