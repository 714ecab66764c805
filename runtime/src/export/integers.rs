//! Determines which numbers of a network become integers in an export, and their scales, from runs on batches.

use std::collections::{HashMap, HashSet};
use std::fmt;

use candle_core::{DType, Device, Tensor};

use super::Source;
use super::fold::{self, WHOLE};
use super::trace::Traced;
use crate::told::Step;
use crate::{Error, Example, Result};

/// Determines the range of each activation for [`Model::export_onnx_int8`](crate::Model::export_onnx_int8).
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Range {
    /// From the smallest to the largest number in all batches.
    MinMax,
    /// The range that contains this percentage of the numbers, above 50 and up to 100; half of the others are
    /// on each side, and are clipped. 99.9 to 99.999 are usual: then rare large numbers do not reduce the
    /// resolution of all others. Its ends are accurate to 1 %.
    Percentile(f64),
}

impl Range {
    fn check(self) -> Result<()> {
        match self {
            Self::Percentile(share) if !(share > 50.0 && share <= 100.0) => {
                Err(Error::invalid("range", "must be a percentile above 50 and up to 100", share))
            }
            _ => Ok(()),
        }
    }
}

/// The layers that [`Model::export_onnx_int8`](crate::Model::export_onnx_int8) has quantized.
///
/// Its `Display` lists the layers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QuantizedLayers {
    /// The paths of the layers whose weights are integers.
    pub integers: Vec<String>,
    /// The layers whose weights stay floats: those that are neither products nor convolutions, and those whose
    /// weights are computed from the input.
    pub floats: Vec<String>,
}

impl fmt::Display for QuantizedLayers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "integers: {}", self.integers.join(", "))?;
        match self.floats.is_empty() {
            true => Ok(()),
            false => write!(f, "; floats: {}", self.floats.join(", ")),
        }
    }
}

/// Functions with weights, and whether they can be computed with integers.
const WEIGHTED: [(&str, bool); 8] = [
    ("Affine", true),
    ("Convolution", true),
    ("Deconvolution", true),
    ("DeformableConvolution", false),
    ("Embed", false),
    ("GRU", false),
    ("LSTM", false),
    ("RNN", false),
];

/// The steps of an activation in 8 bits: `(integer - zero) * scale`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Steps {
    pub(super) scale: f32,
    pub(super) zero: i64,
}

impl Steps {
    /// From 0 to 255; the number 0 is one of the steps.
    fn new(low: f32, high: f32) -> Self {
        let (low, high) = (f64::from(low.min(0.0)), f64::from(high.max(0.0)));
        let scale = usable(((high - low) / 255.0) as f32);
        let zero = (-low / f64::from(scale)).round().clamp(0.0, 255.0);
        Self { scale, zero: zero as i64 }
    }
}

/// The size of a step, or any for numbers that are all 0.
pub(super) fn usable(scale: f32) -> f32 {
    if scale.is_normal() { scale } else { 1.0 }
}

/// A network of which some values and weights are integers.
pub(super) struct Integers {
    /// The activations, by the places of their values.
    pub(super) values: HashMap<usize, Steps>,
    /// The first results of the layers whose weights are.
    pub(super) layers: HashSet<usize>,
    pub(super) report: QuantizedLayers,
}

impl Integers {
    /// The network with folded normalizations, and what of it becomes integers.
    pub(super) fn new(
        source: &Source<'_>,
        batches: impl IntoIterator<Item = Vec<Tensor>>,
        range: Range,
    ) -> Result<(Traced, Self)> {
        range.check()?;
        let mut batches = batches.into_iter();
        let first = batches.next().ok_or_else(|| {
            Error::invalid(
                "batches",
                "must contain at least one batch, from which the ranges of activations are measured",
                "none",
            )
        })?;
        let inputs = first.iter().map(Example::like).collect();
        let source = Source { store: source.store, inputs, forward: source.forward };
        let traced = Traced::new(&source)?;
        let mut folded = traced.clone();
        fold::constants(&mut folded);
        fold::batch_normalizations(&mut folded)?;
        let (mut found, places) = Self::chosen(&folded)?;
        let mut seen: Vec<(usize, Seen)> =
            places.into_iter().map(|place| (place, Seen::new(range))).collect();
        for (n, batch) in std::iter::once(first).chain(batches).enumerate() {
            if let Some(empty) = batch.iter().find(|tensor| tensor.elem_count() == 0) {
                return Err(Error::invalid(
                    "batches",
                    format!("must have examples, batch {n}, too"),
                    empty.dims(),
                ));
            }
            let values = traced.values_of(&source, batch)?;
            for (place, seen) in &mut seen {
                seen.add(&values[*place]).map_err(|error| match error {
                    Refused::Number(number) => not_finite(&folded, *place, n, number),
                    Refused::Other(error) => error,
                })?;
            }
        }
        found.values = seen.into_iter().map(|(place, seen)| (place, seen.steps(range))).collect();
        Ok((folded, found))
    }

    /// The layers, and the places of the activations around them.
    fn chosen(traced: &Traced) -> Result<(Self, Vec<usize>)> {
        let uses = traced.uses();
        let (mut values, mut layers) = (HashSet::new(), HashSet::new());
        let (mut integers, mut floats) = (Vec::new(), Vec::new());
        let is_known = |place: usize| traced.values[place].is_known();
        // Those that are integers already.
        let mut whole: HashSet<usize> = HashSet::new();
        for step in &traced.steps {
            if WHOLE.contains(&step.kind) && is_known(step.inputs[0]) {
                whole.extend(&step.outputs);
            }
            let Some((_, as_integers)) = WEIGHTED.iter().find(|(kind, _)| *kind == step.kind) else {
                continue;
            };
            let mut weights = step.inputs[1..].iter();
            if !as_integers || !weights.all(|&input| is_known(input) || whole.contains(&input)) {
                floats.push(named(step));
                continue;
            }
            check_weights(traced, step)?;
            integers.push(named(step));
            if !step.inputs[1..].iter().any(|input| whole.contains(input)) {
                layers.insert(step.outputs[0]);
            }
            values.insert(step.inputs[0]);
            // A ReLU is part of the layer before it.
            let mut result = step.outputs[0];
            if let (1, Some(relu)) =
                (uses[result], traced.steps.iter().find(|next| next.inputs.contains(&result)))
                && relu.kind == "ReLU"
            {
                result = relu.outputs[0];
            }
            if !traced.outputs.contains(&result) && uses[result] > 0 {
                values.insert(result);
            }
        }
        for names in [&mut integers, &mut floats] {
            let mut seen = HashSet::new();
            names.retain(|name| seen.insert(name.clone()));
        }
        if integers.is_empty() {
            let reason = "must have an affine layer or a convolution, with parameters as weights, to be one of integers";
            let found = if floats.is_empty() { "none".to_owned() } else { floats.join(", ") };
            return Err(Error::invalid("network", reason, found));
        }
        let mut places: Vec<usize> = values.into_iter().collect();
        places.sort_unstable();
        let report = QuantizedLayers { integers, floats };
        Ok((Self { values: HashMap::new(), layers, report }, places))
    }
}

/// Where the function ran, and what it is if that does not say it.
fn named(step: &Step) -> String {
    match step.scope.is_empty() {
        true => step.kind.to_owned(),
        false => step.scope.clone(),
    }
}

fn located(step: Option<&Step>, error: Error) -> Error {
    match step.filter(|step| !step.scope.is_empty()) {
        Some(step) => Error::InLayer { path: step.scope.clone(), layer: step.kind, source: Box::new(error) },
        None => error,
    }
}

fn check_weights(traced: &Traced, step: &Step) -> Result<()> {
    for &place in &step.inputs[1..] {
        if let Some(number) =
            numbers(&traced.values[place].tensor)?.into_iter().find(|number| !number.is_finite())
        {
            let error = Error::invalid("weights", "must be finite to become integers", number);
            return Err(located(Some(step), error));
        }
    }
    Ok(())
}

fn not_finite(traced: &Traced, place: usize, batch: usize, number: f32) -> Error {
    let step = traced.steps.iter().find(|step| step.outputs.contains(&place));
    let what = if step.is_some() { "results" } else { "batches" };
    let reason = format!("must be finite to find their range; in batch {batch}, counted from 0, one is not");
    located(step, Error::invalid(what, reason, number))
}

/// The elements on the CPU.
pub(super) fn numbers(tensor: &Tensor) -> Result<Vec<f32>> {
    Ok(tensor.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
}

/// The numbers that a value has had.
struct Seen {
    low: f32,
    high: f32,
    /// How many numbers there were for each value of the upper 16 bits, in the order of the numbers.
    counts: Vec<u64>,
}

enum Refused {
    Number(f32),
    Other(Error),
}

impl Seen {
    fn new(range: Range) -> Self {
        let counts = match range {
            Range::MinMax => Vec::new(),
            Range::Percentile(_) => vec![0; 1 << 16],
        };
        Self { low: f32::INFINITY, high: f32::NEG_INFINITY, counts }
    }

    fn add(&mut self, tensor: &Tensor) -> Result<(), Refused> {
        for number in numbers(tensor).map_err(Refused::Other)? {
            if !number.is_finite() {
                return Err(Refused::Number(number));
            }
            (self.low, self.high) = (self.low.min(number), self.high.max(number));
            if let Some(count) = self.counts.get_mut(bucket(number)) {
                *count += 1;
            }
        }
        Ok(())
    }

    /// The bucket of the number behind the first `n`.
    fn behind(&self, n: u64, buckets: impl IntoIterator<Item = usize>) -> Option<usize> {
        let mut counted = 0;
        buckets.into_iter().find(|&bucket| {
            counted += self.counts[bucket];
            counted > n
        })
    }

    fn steps(&self, range: Range) -> Steps {
        let Range::Percentile(share) = range else { return Steps::new(self.low, self.high) };
        let all: u64 = self.counts.iter().sum();
        let cut = (all as f64 * (1.0 - share / 100.0) / 2.0) as u64;
        let lowest = self.behind(cut, 0..1 << 16);
        let highest = self.behind(cut, (0..1 << 16).rev());
        let low = lowest.map_or(self.low, |bucket| ends(bucket)[0].max(self.low));
        let high = highest.map_or(self.high, |bucket| ends(bucket)[1].min(self.high));
        Steps::new(low, high)
    }
}

/// The upper 16 bits in an order that is that of the numbers.
fn bucket(number: f32) -> usize {
    let bits = (number.to_bits() >> 16) as u16;
    usize::from(if number.is_sign_negative() { !bits } else { bits | 0x8000 })
}

/// The least and the largest number with these bits.
fn ends(bucket: usize) -> [f32; 2] {
    let bucket = bucket as u32;
    let is_positive = bucket & 0x8000 != 0;
    let upper = if is_positive { bucket & 0x7fff } else { !bucket & 0xffff } << 16;
    let (near, far) = (f32::from_bits(upper), f32::from_bits(upper | 0xffff));
    if is_positive { [near, far] } else { [far, near] }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(numbers: &[f32], range: Range) -> Steps {
        let mut seen = Seen::new(range);
        let tensor = Tensor::new(numbers, &Device::Cpu).unwrap();
        assert!(seen.add(&tensor).is_ok());
        seen.steps(range)
    }

    #[test]
    fn zero_is_a_step_and_the_ends_are_within() {
        for (numbers, zero, scale) in [
            (&[0f32, 1.0, 5.1][..], 0, 5.1 / 255.0),
            (&[-2.55, -1.0], 255, 0.01),
            (&[-1.0, 1.0], 128, 2.0 / 255.0),
            (&[2.0, 5.1], 0, 5.1 / 255.0),
            (&[0.0, 0.0], 0, 1.0),
            (&[f32::MIN, f32::MAX], 128, 2.0 / 255.0 * f32::MAX),
        ] {
            let found = steps(numbers, Range::MinMax);
            assert!((found.scale / scale - 1.0).abs() < 1e-6, "{numbers:?}: {found:?}");
            // 127.5 may go both ways.
            assert!((found.zero - zero).abs() <= 1, "{numbers:?}: {found:?}");
            assert_eq!(steps(numbers, Range::Percentile(100.0)), found, "{numbers:?}");
        }
    }

    #[test]
    fn percentiles_leave_out_what_is_rare() {
        let mut numbers: Vec<f32> = (0..10_000).map(|n| n as f32 / 1000.0 - 4.0).collect();
        numbers.extend([1e6, -1e6, 3e5, -3e5]);
        let found = steps(&numbers, Range::Percentile(99.0));
        // 50 numbers less on each side, from -3.95 to 5.95.
        let [low, high] = [0, 255].map(|end: i64| (end - found.zero) as f32 * found.scale);
        assert!((low + 3.95).abs() < 0.08 && (high - 5.95).abs() < 0.1, "{low} {high}");
    }

    #[test]
    fn buckets_are_in_order() {
        let numbers = [f32::MIN, -2.0, -1.99, -1e-40, -0.0, 0.0, 1e-40, 1e-3, 1.0, 1.5, f32::MAX];
        for pair in numbers.windows(2) {
            assert!(bucket(pair[0]) <= bucket(pair[1]), "{pair:?}");
        }
        for number in numbers {
            let [low, high] = ends(bucket(number));
            assert!(low <= number && number <= high, "{number}: {low} {high}");
            assert!((high - low).abs() <= number.abs() / 127.0 + 1e-38, "{number}: {low} {high}");
        }
    }
}
