//! Runs calls in child processes and watches them.

use std::io::{BufRead, BufReader, Write};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use layerfn_tests::support::layers::Failure;

use crate::draw::Draw;

/// Address space of a child, in KiB.
const MEMORY: u64 = 4 << 20;

/// Seconds that one call may take.
const SECONDS: u64 = 60;

fn number(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).unwrap_or_default();
    if text.is_empty() { default } else { text.parse().unwrap_or_else(|_| panic!("{name} must be a number")) }
}

/// Runs all calls; says which went wrong.
pub(crate) fn run() -> ExitCode {
    let seed = number("LAYERFN_EXTREME_SEED", 1);
    let from = number("LAYERFN_EXTREME_FROM", 0);
    let n = number("LAYERFN_EXTREME_CALLS", 2000);
    let n_workers = thread::available_parallelism().map_or(1, |n| n.get() as u64).min(n.max(1));
    let share = n.div_ceil(n_workers);
    // Removed at the end, with what children that were ended have left in it.
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let workers = (0..n_workers).map(|i| {
        let range = from + (i * share).min(n)..from + ((i + 1) * share).min(n);
        let folder = folder.path().to_owned();
        thread::spawn(move || watch(seed, range, &folder))
    });
    let workers: Vec<_> = workers.collect();
    let mut total = Tally::default();
    for worker in workers {
        let tally = worker.join().expect("a worker that does not panic");
        total.faults.extend(tally.faults);
        total.is_unlimited |= tally.is_unlimited;
        for (sum, n) in total.outcomes.iter_mut().zip(tally.outcomes) {
            *sum += n;
        }
    }
    let [results, errors, unknown] = total.outcomes;
    println!(
        "seed {seed}: {n} calls, {results} results, {errors} errors, {unknown} that can't be expressed, {} faults",
        total.faults.len()
    );
    if total.is_unlimited {
        println!("this system refuses `ulimit -v`: NOTHING LIMITED THE MEMORY of the calls");
    }
    for fault in &total.faults {
        println!("{fault}");
    }
    if total.faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[derive(Default)]
struct Tally {
    /// Results, errors, calls that cannot be expressed.
    outcomes: [u64; 3],
    faults: Vec<String>,
    /// The address space of a child could not be limited.
    is_unlimited: bool,
}

/// Runs the calls of a range, in a new process after each that ends one.
fn watch(seed: u64, mut range: Range<u64>, folder: &Path) -> Tally {
    let mut tally = Tally::default();
    while !range.is_empty() {
        let program = std::env::current_exe().expect("the path of this program");
        let mut child = Command::new("sh")
            .args(["-c", &format!("ulimit -v {MEMORY} || echo unlimited; exec \"$0\"")])
            .arg(program)
            .env("LAYERFN_EXTREME_CHILD", format!("{seed} {} {}", range.start, range.end))
            .env("RAYON_NUM_THREADS", "2")
            .env("TMPDIR", folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a child process");
        let output = BufReader::new(child.stdout.take().expect("its output"));
        let (sender, receiver) = channel();
        let reader = thread::spawn(move || {
            output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        let mut current = "before its first call".to_owned();
        let end = loop {
            match receiver.recv_timeout(Duration::from_secs(SECONDS)) {
                Ok(line) => match line.split_once(' ') {
                    Some(("call", text)) => current = text.to_owned(),
                    Some(("end", text)) => {
                        range.start += 1;
                        match text.split_once(' ').unwrap_or((text, "")) {
                            ("result", _) => tally.outcomes[0] += 1,
                            ("error", _) => tally.outcomes[1] += 1,
                            ("unknown", _) => tally.outcomes[2] += 1,
                            (_, text) => tally.faults.push(format!("{current}: {text}")),
                        }
                    }
                    _ => tally.is_unlimited |= line == "unlimited",
                },
                Err(RecvTimeoutError::Timeout) => break Some(format!("takes more than {SECONDS} s")),
                Err(RecvTimeoutError::Disconnected) => break None,
            }
        };
        if end.is_some() {
            child.kill().expect("a child that runs");
        }
        let status = child.wait().expect("the end of a child");
        reader.join().expect("a reader that does not panic").ok();
        if !range.is_empty() {
            tally.faults.push(format!("{current}: {}", end.unwrap_or_else(|| status.to_string())));
            range.start += 1;
        }
    }
    tally
}

/// Runs the calls of a range in this process and says how each went.
pub(crate) fn child(range: &str) -> ExitCode {
    let numbers: Vec<u64> = range.split(' ').filter_map(|number| number.parse().ok()).collect();
    let &[seed, start, end] = &numbers[..] else { return ExitCode::FAILURE };
    let calls = crate::calls();
    let (sender, receiver) = channel();
    std::panic::set_hook(Box::new(move |info| drop(sender.send(info.to_string().replace('\n', " ")))));
    for index in start..end {
        let mut draw = Draw::new(seed, index);
        let (name, call) = calls[draw.below(calls.len())];
        draw.name(name);
        let outcome = match catch_unwind(AssertUnwindSafe(|| call(&mut draw))) {
            Ok(Ok(results)) => results
                .iter()
                .find_map(|result| wrapped(result.dims()))
                .map_or_else(|| "result".to_owned(), |fault| format!("fault {fault}")),
            Ok(Err(Failure::Layer(error))) => format!("error {}", error.to_string().replace('\n', " ")),
            Ok(Err(Failure::Description(text))) => match text.strip_prefix("fault: ") {
                Some(fault) => format!("fault {fault}"),
                None => format!("unknown {text}"),
            },
            Err(_) => format!("fault {}", receiver.try_recv().unwrap_or_else(|_| "panicked".to_owned())),
        };
        say(&format!("end {outcome}"));
    }
    ExitCode::SUCCESS
}

/// Says if sizes have more elements than can be counted.
fn wrapped(dims: &[usize]) -> Option<String> {
    let n = dims.iter().try_fold(1u128, |n, &size| n.checked_mul(size as u128));
    let counted = n.is_some_and(|n| n <= isize::MAX as u128);
    (!counted && !dims.contains(&0)).then(|| format!("has a result of shape {dims:?}"))
}

/// Writes a line at once: the process may end with the next call.
pub(crate) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).expect("a driver that listens");
}
