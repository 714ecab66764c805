//! Learning rates by the step.

use layerfn::solver::{Schedule, Sgd, Solver, schedule};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::run::Outcome;

#[derive(Deserialize)]
struct Entry {
    class: String,
    args: Map<String, Value>,
    learning_rate: Vec<f64>,
}

/// Compares the learning rate of each step.
pub(crate) fn run(entry: &Value) -> Outcome {
    let entry: Entry = match Entry::deserialize(entry) {
        Ok(entry) => entry,
        Err(error) => return Outcome::Failed(vec![format!("the entry: {error}")]),
    };
    let (base, schedule) = match made(&entry.class, &entry.args) {
        Ok(Some(made)) => made,
        Ok(None) => return Outcome::Skipped(format!("there is no schedule for `{}`", entry.class)),
        Err(text) => return Outcome::Failed(vec![text]),
    };
    let mut solver = Sgd::new(base).schedule(schedule);
    let mut failures = Vec::new();
    for (i, want) in (0..).zip(entry.learning_rate) {
        solver.set_n_updates(i);
        let got = solver.learning_rate();
        if (got - want).abs() > 1e-15 + 1e-12 * want.abs() || got.is_nan() {
            failures.push(format!("step {i}: got {got}, expected {want}"));
        }
    }
    if failures.is_empty() { Outcome::Passed } else { Outcome::Failed(failures) }
}

/// The learning rate of a solver and its schedule; none for a class that there is not.
fn made(class: &str, args: &Map<String, Value>) -> Result<Option<(f64, Schedule)>, String> {
    let missing = |name: &str| format!("`{class}` has no `{name}`: {args:?}");
    let number = |name: &str| args.get(name).and_then(Value::as_f64).ok_or_else(|| missing(name));
    let count = |name: &str| args.get(name).and_then(Value::as_u64).ok_or_else(|| missing(name));
    Ok(Some(match class {
        "PolynomialScheduler" => {
            (number("init_lr")?, schedule::polynomial(count("max_iter")?, number("power")?))
        }
        "CosineScheduler" => (number("init_lr")?, schedule::cosine(count("max_iter")?)),
        "ExponentialScheduler" => {
            let interval = if args.contains_key("iter_interval") { count("iter_interval")? } else { 1 };
            (number("init_lr")?, schedule::exponential(number("gamma")?, interval))
        }
        "StepScheduler" => {
            let at = args.get("iter_steps").and_then(Value::as_array).ok_or_else(|| missing("iter_steps"))?;
            let at: Vec<u64> = at.iter().filter_map(Value::as_u64).collect();
            (number("init_lr")?, schedule::steps(number("gamma")?, &at))
        }
        "LinearWarmupScheduler" => {
            let inner = args.get("scheduler").ok_or_else(|| missing("scheduler"))?;
            let arguments = inner["args"].as_object().ok_or_else(|| missing("scheduler"))?;
            let Some((base, inner)) = made(inner["class"].as_str().unwrap_or_default(), arguments)? else {
                return Ok(None);
            };
            (base, inner.warmup(count("warmup_iter")?))
        }
        _ => return Ok(None),
    }))
}
