//! Incremental network quantization with an unseeded generator: what must hold whichever weights it takes.

use std::collections::BTreeMap;

use candle_core::Tensor;
use layerfn::get_all_parameters;
use layerfn_tests::support::compare::values;

use crate::case::{Case, leaf};

/// Whether the generator is the documented one, so that its choices are recorded.
pub(crate) fn is_seeded(case: &Case) -> bool {
    case.args.get("seed").and_then(serde_json::Value::as_i64).is_some_and(|seed| seed >= 0)
}

/// The fixed weights so far.
pub(crate) struct Watch {
    iterations: Vec<usize>,
    fixed: BTreeMap<usize, f64>,
}

impl Watch {
    pub(crate) fn new(case: &Case) -> Self {
        let iterations = case.args.get("inq_iterations").and_then(serde_json::Value::as_array);
        let iterations = iterations.into_iter().flatten().filter_map(serde_json::Value::as_u64);
        Self { iterations: iterations.map(|pass| pass as usize).collect(), fixed: BTreeMap::new() }
    }

    /// What is wrong after a pass.
    pub(crate) fn check(&mut self, pass: usize, before: &BTreeMap<String, Tensor>) -> Vec<String> {
        let stored = get_all_parameters();
        let after = |name: &str| {
            let found = stored.iter().find(|(path, _)| leaf(path) == name);
            found.map(|(_, parameter)| values(parameter.var())).unwrap_or_default()
        };
        let (weights, indicators) = (after("W"), after("I"));
        let was: Vec<f64> = before
            .iter()
            .find(|(path, _)| leaf(path) == "I")
            .map(|(_, tensor)| values(tensor))
            .unwrap_or_default();
        let mut failures = Vec::new();
        let free = was.iter().filter(|&&indicator| indicator == 0.0).count();
        let taken = was.iter().zip(&indicators).filter(|&(&was, &is)| was == 0.0 && is == 1.0).count();
        if indicators.iter().any(|&indicator| indicator != 0.0 && indicator != 1.0) {
            failures.push(format!("pass {pass}: an indicator is neither 0 nor 1"));
        }
        if was.iter().zip(&indicators).any(|(&was, &is)| was == 1.0 && is != 1.0) {
            failures.push(format!("pass {pass}: a fixed weight became free"));
        }
        let counter = pass - 1;
        let expected = free as f64 / 2.0;
        let wrong = if self.iterations.last() == Some(&counter) {
            taken != free
        } else if self.iterations.contains(&counter) {
            // Four standard deviations of a coin tossed `free` times.
            (taken as f64 - expected).abs() > 2.0 * (free as f64).sqrt()
        } else {
            taken != 0
        };
        if wrong {
            failures.push(format!("pass {pass}: {taken} of {free} free weights were taken"));
        }
        for (i, (&weight, &indicator)) in weights.iter().zip(&indicators).enumerate() {
            if indicator != 1.0 {
                continue;
            }
            if weight != 0.0 && weight.abs().log2().fract() != 0.0 {
                failures.push(format!("pass {pass}: the fixed weight {i} is {weight}, no power of two"));
            }
            if *self.fixed.entry(i).or_insert(weight) != weight {
                failures.push(format!("pass {pass}: the fixed weight {i} changed to {weight}"));
            }
        }
        failures
    }
}
