//! Time and memory of a workload.

use std::time::Instant;

use layerfn::communicator::Communicator;
use layerfn::prelude::*;
use layerfn::training::DataParallel;

use crate::workloads::Workload;
use crate::{Options, Result};

/// The step whose loss is printed.
const CHECK_STEP: usize = 10;

/// Computes in `threads` threads from now on.
pub(crate) fn set_threads(threads: usize) -> Result<()> {
    Ok(rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?)
}

/// Times the workload in a store of its own, on this rank of a group, if there is one.
pub(crate) fn time(
    workload: &Workload,
    options: &Options,
    communicator: Option<&Communicator>,
) -> Result<Timing> {
    ParameterStore::new().enter(|| {
        let x = workload.inputs()?.to_device(&options.device)?;
        let forward = || test_mode(|| no_grad(|| (workload.network)(&x)));
        forward()?; // makes the parameters
        workload.set_weights()?;
        if options.infer() {
            return measure(options, 1, || Ok(forward()?.abs()?.mean_all()?.to_scalar::<f32>()?));
        }
        let (mut update, labels) = (workload.solver()?, workload.labels()?);
        if let Some(communicator) = communicator {
            let mut parallel =
                DataParallel::new(communicator, &ParameterStore::current(), options.micro_batches)?;
            if options.fast_sums {
                parallel = parallel.fast_sums();
            }
            if let Some(bytes) = options.pack_size {
                parallel = parallel.pack_size(bytes);
            }
            let (axis, n) = (workload.batch_axis(), labels.elem_count());
            return measure(options, CHECK_STEP, || {
                let step = parallel.step(n, |rows| {
                    let x = x.narrow(axis, rows.start, rows.len())?;
                    let labels = labels.narrow(0, rows.start, rows.len())?;
                    mean_softmax_cross_entropy(&(workload.network)(&x)?, &labels, 1)
                })?;
                update(&step.gradients)?;
                Ok(step.loss as f32)
            });
        }
        measure(options, CHECK_STEP, || {
            let loss = mean_softmax_cross_entropy(&(workload.network)(&x)?, &labels, 1)?;
            let value = loss.to_scalar::<f32>()?;
            update(&backward(loss)?)?;
            Ok(value)
        })
    })
}

/// What was measured.
pub(crate) struct Timing {
    /// Milliseconds of each step, the shortest first.
    steps: Vec<f64>,
    /// Milliseconds of all processors a step.
    cpu: f64,
    /// The value of the check step, if it was reached.
    loss: Option<f32>,
}

fn measure(options: &Options, check: usize, mut step: impl FnMut() -> Result<f32>) -> Result<Timing> {
    let begun = Instant::now();
    let over = || begun.elapsed().as_secs_f64() > options.max_wall;
    let mut timed = || -> Result<(f64, f32)> {
        let begun = Instant::now();
        let value = step()?;
        Ok((begun.elapsed().as_secs_f64() * 1e3, value))
    };

    let (mut steps, mut loss, mut cpu_before) = (Vec::new(), None, cpu_seconds());
    for i in 1..=check + options.warmup {
        let (time, value) = timed()?;
        steps.push(time);
        if i == check {
            loss = Some(value);
        }
        if over() {
            break;
        }
    }
    // Where the time is up already, the steps so far are the result.
    if !over() {
        steps.clear();
        cpu_before = cpu_seconds();
        let begun = Instant::now();
        while steps.len() < options.max_steps && !over() {
            if steps.len() >= options.steps && begun.elapsed().as_secs_f64() >= options.budget {
                break;
            }
            steps.push(timed()?.0);
        }
    }
    let cpu = (cpu_seconds() - cpu_before) * 1e3 / steps.len().max(1) as f64;
    steps.sort_by(f64::total_cmp);
    Ok(Timing { steps, cpu, loss: loss.filter(|loss| loss.is_finite()) })
}

impl Timing {
    /// The median step, in milliseconds.
    pub(crate) fn median(&self) -> f64 {
        let n = self.steps.len();
        (self.steps[(n - 1) / 2] + self.steps[n / 2]) / 2.0
    }

    /// One line, with the resident memory before and at its peak, and `operations` a step.
    pub(crate) fn to_json(
        &self,
        options: &Options,
        [base_rss, peak_rss]: [f64; 2],
        operations: f64,
    ) -> String {
        let steps = &self.steps;
        let n = steps.len();
        format!(
            r#"{{"workload":"{}","mode":"{}","ms_median":{:.5},"ms_min":{:.5},"ms_mean":{:.5},"cpu_ms":{:.5},"steps":{n},"peak_rss_mb":{peak_rss:.1},"base_rss_mb":{base_rss:.1},"gflop":{:.5},"loss":{},"level":"{}"}}"#,
            options.workload,
            options.mode.name(),
            self.median(),
            steps[0],
            steps.iter().sum::<f64>() / n as f64,
            self.cpu,
            operations / 1e9,
            self.loss.map_or_else(|| "null".to_owned(), |loss| loss.to_string()),
            layerfn::__private::level(),
        )
    }
}

/// Megabytes of this process, by the kernel's name for them; 0 where there is no `/proc`.
pub(crate) fn memory(key: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).map_or(0.0, |kb: f64| kb / 1024.0)
}

/// Processor time of all threads, to a hundredth of a second; 0 where there is no `/proc`.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name in parentheses may hold anything; user and system time are the 12th and 13th field after it.
    let Some((_, fields)) = stat.rsplit_once(')') else { return 0.0 };
    fields.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>()
        / 100.0
}
