//! Saves or loads a store of 400 MB and prints what it took: seconds, seconds of the processor, and megabytes.
//! See `speed.py`.

use std::time::Instant;

use candle_core::{Device, Var};
use layerfn::{Parameter, ParameterStore};

const COUNT: usize = 100;
const SIDE: usize = 1000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, what, file] = &arguments[..] else { return Err("usage: checkpoint_speed save|load FILE".into()) };
    let store = ParameterStore::new();
    if what == "save" {
        for i in 0..COUNT {
            let var = Var::from_vec(vec![i as f32; SIDE * SIDE], (SIDE, SIDE), &Device::Cpu)?;
            store.set(&format!("s{i}/W"), Parameter::new(var, true))?;
        }
    }
    let before = peak()?;
    let start = (Instant::now(), processor()?);
    if what == "save" {
        store.save_parameters(file)?;
    } else {
        let report = store.load_parameters(file)?;
        assert_eq!(report.created().len(), COUNT);
    }
    println!("{:.4} {:.4} {:.0}", start.0.elapsed().as_secs_f64(), processor()? - start.1, peak()? - before);
    Ok(())
}

/// What the processor has spent on this thread so far, in seconds.
fn processor() -> Result<f64, Box<dyn std::error::Error>> {
    let status = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds = status.split_whitespace().next().ok_or("no times on this system")?;
    Ok(nanoseconds.parse::<f64>()? / 1e9)
}

/// Largest resident size so far, in MB.
fn peak() -> Result<f64, Box<dyn std::error::Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM on this system")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
}
