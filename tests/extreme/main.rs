//! Everything called with random and extreme arguments: each call returns a result or an error in words, in time and in
//! little memory.
//!
//! The calls follow from a seed and run in child processes under a limit of their address space, so that aborts, stack
//! overflows and hangs are found like panics. `LAYERFN_EXTREME_CALLS` (thousands for hours) and `LAYERFN_EXTREME_SEED` choose
//! others than those of every day; `LAYERFN_EXTREME_FROM` begins with a later one, which with one call repeats it.

#[path = "../registry/cases.rs"]
mod cases;
mod draw;
mod driver;
mod files;
mod functions;
mod layers;
mod networks;
mod solver;
mod store;
mod training;

use candle_core::Tensor;
use layerfn_tests::support::layers::Failure;

use draw::Draw;

/// Draws its arguments, says so with [`Draw::go`], and runs.
type Call = fn(&mut Draw) -> Outcome;

/// The results, or why there are none.
type Outcome = Result<Vec<Tensor>, Failure>;

/// What went wrong without an end of the process.
fn fault(what: impl std::fmt::Display) -> Failure {
    Failure::Description(format!("fault: {what}"))
}

/// All calls by name.
fn calls() -> Vec<(&'static str, Call)> {
    let layers = layers::CALLS.iter().cycle().take(40);
    let others =
        [functions::CALLS, solver::CALLS, store::CALLS, training::CALLS, files::CALLS, networks::CALLS];
    layers.chain(others.into_iter().flatten()).copied().collect()
}

fn main() -> std::process::ExitCode {
    match std::env::var("LAYERFN_EXTREME_CHILD") {
        Ok(range) => driver::child(&range),
        Err(_) => {
            functions::assert_complete();
            driver::run()
        }
    }
}
