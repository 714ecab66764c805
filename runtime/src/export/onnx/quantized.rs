//! Quantization: integers, and what makes numbers of them.

use candle_core::Tensor;

use super::super::integers::{self, numbers};
use super::graph::{Call, Graph, Weights, Written};
use crate::Result;
use crate::onnx::{self, Whole};

pub(super) fn write(call: &mut Call<'_, '_>) -> Written {
    Ok(match call.kind() {
        "FixedPointQuantize" => fixed_point(call)?,
        "MinMaxQuantize" => min_max(call)?,
        _ => None,
    }
    .map(|y| vec![y]))
}

/// Steps of one size around a number that stands for 0.
struct Steps {
    scale: f32,
    zero: i64,
    /// The least and the largest integer.
    ends: [i64; 2],
    /// Whether halves are rounded away from 0, and not up.
    symmetric: bool,
}

fn fixed_point(call: &mut Call<'_, '_>) -> Result<Option<String>> {
    let (sign, n) = (call.flag("sign"), call.integer("n"));
    let Some(bits) = n.checked_sub(i64::from(sign)).filter(|bits| (1..=16).contains(bits)) else {
        return Ok(None);
    };
    let largest = (1 << bits) - 1;
    let ends = [if sign { -largest } else { 0 }, largest];
    let symmetric = true;
    quantized(call, &Steps { scale: call.number("delta") as f32, zero: 0, ends, symmetric })
}

fn min_max(call: &mut Call<'_, '_>) -> Result<Option<String>> {
    if call.flag("x_min_max") && call.known(0).is_err() {
        return Ok(None);
    }
    let number = |n: usize| -> Result<f32> { Ok(call.known(n)?.flatten_all()?.to_vec1::<f32>()?[0]) };
    let (low, high, ql_min, ql_max) = (number(1)?, number(2)?, number(3)?, number(4)?);
    let ([low, mut high], eps) = (
        match call.flag("x_min_max") {
            true => ends(&call.known(0)?)?,
            false => [low, high],
        },
        call.number("eps") as f32,
    );
    if high - low < eps {
        high = low + eps;
    }
    let scale = (high - low) / (ql_max - ql_min);
    let zero = ql_min - low / scale;
    let zero = if zero <= ql_min { ql_min } else { zero.round().min(ql_max) };
    if [zero, ql_min, ql_max].iter().any(|level| level.fract() != 0.0 || level.abs() > 65535.0) {
        return Ok(None);
    }
    quantized(
        call,
        &Steps { scale, zero: zero as i64, ends: [ql_min as i64, ql_max as i64], symmetric: false },
    )
}

fn ends(x: &Tensor) -> Result<[f32; 2]> {
    let x = x.flatten_all()?;
    Ok([x.min(0)?.to_scalar()?, x.max(0)?.to_scalar()?])
}

/// Parameters become integers; for others the integers are computed when the network runs.
fn quantized(call: &mut Call<'_, '_>, steps: &Steps) -> Result<Option<String>> {
    let Some(whole) = Whole::holding(steps.ends) else { return Ok(None) };
    let scale = call.scalar(f64::from(steps.scale));
    let zero = call.constant(whole.tensor("_zero", &[], &[steps.zero]));
    let integers = match call.known(0) {
        Ok(_) => {
            let values = call.result(0).tensor.flatten_all()?.to_vec1::<f32>()?;
            let integer = |value: &f32| {
                ((value / steps.scale).round() as i64 + steps.zero).clamp(steps.ends[0], steps.ends[1])
            };
            let values: Vec<i64> = values.iter().map(integer).collect();
            let name = format!("{}.integers", call.input_name(0));
            let dims: Vec<i64> = call.dims(0).iter().map(|&size| size as i64).collect();
            call.constant(whole.tensor(&name, &dims, &values))
        }
        Err(_) => {
            let x = call.input(0);
            let end = |level: i64| f64::from((level - steps.zero) as f32 * steps.scale);
            let (low, high) = (call.scalar(end(steps.ends[0])), call.scalar(end(steps.ends[1])));
            let x = call.node("Clip", &[&x, &low, &high], Vec::new());
            let x = rounded(call, &x, &low, &scale, steps.symmetric);
            call.node("QuantizeLinear", &[&x, &scale, &zero], Vec::new())
        }
    };
    Ok(Some(call.node("DequantizeLinear", &[&integers, &scale, &zero], Vec::new())))
}

/// The nearest step: `QuantizeLinear` alone takes the even one of two, which no layer of ours does.
fn rounded(call: &mut Call<'_, '_>, x: &str, low: &str, scale: &str, symmetric: bool) -> String {
    let distance = match symmetric {
        true => call.node("Abs", &[x], Vec::new()),
        false => call.node("Sub", &[x, low], Vec::new()),
    };
    let n = call.node("Div", &[&distance, scale], Vec::new());
    let n = call.with_number("Add", &n, 0.5);
    let n = call.node("Floor", &[&n], Vec::new());
    let distance = call.node("Mul", &[&n, scale], Vec::new());
    if !symmetric {
        return call.node("Add", &[&distance, low], Vec::new());
    }
    let sign = call.node("Sign", &[x], Vec::new());
    call.node("Mul", &[&distance, &sign], Vec::new())
}

/// Rounds an activation that is calibrated, for all that takes it.
pub(super) fn round(graph: &mut Graph<'_>, place: usize) {
    let Some(&steps) = graph.integers.and_then(|integers| integers.values.get(&place)) else { return };
    let name = graph.name(place);
    let scale = graph.add(onnx::floats(&format!("{name}.scale"), &[], &[steps.scale]));
    let zero = graph.add(Whole::Uint8.tensor(&format!("{name}.zero"), &[], &[steps.zero]));
    let whole = graph.push("QuantizeLinear", &[name, &scale, &zero], &format!("{name}.integers"), Vec::new());
    let rounded =
        graph.push("DequantizeLinear", &[&whole, &scale, &zero], &format!("{name}.rounded"), Vec::new());
    graph.rounded.insert(place, rounded);
}

impl Call<'_, '_> {
    fn is_whole(&self) -> bool {
        self.graph.integers.is_some_and(|integers| integers.layers.contains(&self.step.outputs[0]))
    }

    /// The weights, of which the output maps lie on `axis`: as integers if the layer is to have them.
    pub(super) fn weights(&mut self, axis: Option<usize>) -> Result<String> {
        if !self.is_whole() {
            return Ok(self.input(1));
        }
        let key = (self.step.inputs[1], axis);
        if let Some(weights) = self.graph.weights.get(&key) {
            return Ok(weights.name.clone());
        }
        let w = &self.flow(1).tensor;
        let (dims, values) = (w.dims().to_vec(), numbers(w)?);
        // Elements behind the axis, and places on it.
        let (behind, maps) = axis.map_or((1, 1), |axis| (dims[axis + 1..].iter().product(), dims[axis]));
        let map = |n: usize| n / behind % maps;
        let mut scales = vec![0f32; maps];
        for (n, value) in values.iter().enumerate() {
            scales[map(n)] = scales[map(n)].max(value.abs());
        }
        scales.iter_mut().for_each(|scale| *scale = integers::usable(*scale / 127.0));
        let whole = |(n, value): (usize, &f32)| (value / scales[map(n)]).round().clamp(-127.0, 127.0) as i64;
        let values: Vec<i64> = values.iter().enumerate().map(whole).collect();
        let name = self.dequantized(1, Whole::Int8, &values, &scales, axis);
        self.graph.weights.insert(key, Weights { name: name.clone(), scales });
        Ok(name)
    }

    /// The bias of a layer with these weights: with integers, a step is that of the product of an input and a weight.
    pub(super) fn bias(&mut self, weights: &str) -> Result<Option<String>> {
        if self.n_inputs() < 3 {
            return Ok(None);
        }
        let of_input = self.graph.integers.and_then(|integers| integers.values.get(&self.step.inputs[0]));
        let of_weights = self.graph.weights.values().find(|other| other.name == weights);
        let (Some(of_input), Some(of_weights)) = (of_input, of_weights) else {
            return Ok(Some(self.input(2)));
        };
        let scales: Vec<f32> = of_weights.scales.iter().map(|scale| scale * of_input.scale).collect();
        let values = numbers(&self.flow(2).tensor)?;
        let whole = |(n, value): (usize, &f32)| {
            let steps = (f64::from(*value) / f64::from(scales[n % scales.len()])).round();
            (steps.abs() <= f64::from(i32::MAX)).then_some(steps as i64)
        };
        // Weights may be so small that the bias has no place among their products.
        let Some(values) = values.iter().enumerate().map(whole).collect::<Option<Vec<i64>>>() else {
            return Ok(Some(self.input(2)));
        };
        Ok(Some(self.dequantized(2, Whole::Int32, &values, &scales, (scales.len() > 1).then_some(0))))
    }

    /// The numbers that stand for the input `n`, of integers around 0.
    fn dequantized(
        &mut self,
        n: usize,
        whole: Whole,
        values: &[i64],
        scales: &[f32],
        axis: Option<usize>,
    ) -> String {
        let name = self.input_name(n).to_owned();
        let dims: Vec<i64> = self.dims(n).iter().map(|&size| size as i64).collect();
        let maps = if axis.is_some() { vec![scales.len() as i64] } else { Vec::new() };
        let scale = self.constant(onnx::floats(&format!("{name}.scale"), &maps, scales));
        // onnxruntime computes a `Gemm` with integers only if the places of 0 are there.
        let zero = self.constant(whole.tensor(&format!("{name}.zero"), &maps, &vec![0; scales.len()]));
        let values = self.constant(whole.tensor(&format!("{name}.integers"), &dims, values));
        let attributes = axis.map(|axis| onnx::int("axis", axis as i64)).into_iter().collect();
        let output = format!("{name}.rounded");
        self.graph.push("DequantizeLinear", &[&values, &scale, &zero], &output, attributes)
    }
}
