//! Incremental network quantization with an unseeded generator: what must hold whichever weights it takes.

use std::collections::BTreeMap;

use crate::support::compare::values;
use candle_core::Tensor;
use layerfn::get_all_parameters;

use super::case::{Case, leaf};

/// Whether the generator is the documented one, so that its choices are recorded.
pub(crate) fn is_seeded(case: &Case) -> bool {
    case.args.get("seed").and_then(serde_json::Value::as_i64).is_some_and(|seed| seed >= 0)
}

/// The fixed weights so far.
pub(crate) struct Watch {
    iterations: Vec<usize>,
    num_bits: i32,
    fixed: BTreeMap<usize, f64>,
}

impl Watch {
    pub(crate) fn new(case: &Case) -> Self {
        let iterations = case.args.get("inq_iterations").and_then(serde_json::Value::as_array);
        let iterations = iterations.into_iter().flatten().filter_map(serde_json::Value::as_u64);
        let num_bits = case.args.get("num_bits").and_then(serde_json::Value::as_i64).unwrap_or(4);
        Self {
            iterations: iterations.map(|pass| pass as usize).collect(),
            num_bits: num_bits as i32,
            fixed: BTreeMap::new(),
        }
    }

    /// What is wrong after a pass.
    pub(crate) fn check(&mut self, pass: usize, before: &BTreeMap<String, Tensor>) -> Vec<String> {
        let stored = get_all_parameters();
        let after = |name: &str| {
            let found = stored.iter().find(|(path, _)| leaf(path) == name);
            found.map(|(_, parameter)| values(parameter.var())).unwrap_or_default()
        };
        let (weights, indicators) = (after("W"), after("I"));
        let before = |name: &str| {
            before
                .iter()
                .find(|(path, _)| leaf(path) == name)
                .map(|(_, tensor)| values(tensor))
                .unwrap_or_default()
        };
        let was = before("I");
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
        let mut rounded = before("W");
        for (&i, &weight) in &self.fixed {
            rounded[i] = weight;
        }
        let range = Range::new(
            rounded.iter().fold(0.0, |largest: f64, weight| largest.max(weight.abs())),
            self.num_bits,
        );
        for (i, (&weight, &indicator)) in weights.iter().zip(&indicators).enumerate() {
            if indicator != 1.0 {
                continue;
            }
            if weight != 0.0 && weight.abs().log2().fract() != 0.0 {
                failures.push(format!("pass {pass}: the fixed weight {i} is {weight}, no power of two"));
            }
            if let Some(&before) = self.fixed.get(&i)
                && weight != range.clamp(before)
            {
                failures.push(format!("pass {pass}: the fixed weight {i} changed from {before} to {weight}"));
            }
            self.fixed.insert(i, weight);
        }
        failures
    }
}

/// The exponents of a pass. They follow the largest weight, so a fixed weight stays unless it falls out of them.
struct Range {
    n1: i32,
    n2: i32,
}

impl Range {
    fn new(largest: f64, num_bits: i32) -> Self {
        let log = (if largest == 0.0 { 1.0 } else { largest as f32 }).log2();
        let n1 = log.floor() as i32 + i32::from(f64::from(log - log.floor()) >= 1.5f64.log2());
        Self { n1, n2: n1 + 1 - (1 << (num_bits - 2)) }
    }

    fn clamp(&self, fixed: f64) -> f64 {
        if fixed.abs() < f64::from(self.n2 - 1).exp2() {
            return 0.0;
        }
        let exponent = (fixed.abs().log2() as i32).clamp(self.n2, self.n1);
        f64::from(exponent).exp2().copysign(fixed)
    }
}
