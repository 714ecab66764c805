//! Looks for problems in one run of a network and its backward pass.

use std::collections::HashMap;

use candle_core::Tensor;
use candle_core::backprop::GradStore;

use super::audit::{elements, lost};
use super::diagnosis::{Diagnosis, Finding, Place, Symptom};
use super::record::{Kind, Node, Port, Recorder, Taken, Watch};
use super::{GradientFault, Value, frame};
use crate::mode::with_mode;
use crate::{Error, Family, Parameter, ParameterStore, Result, backward};

/// Inputs are not normalized if their root mean square, or the ratio of their mean to their deviation, is
/// larger.
const LARGE_INPUT: f64 = 10.0;
/// Inputs are not normalized either if their root mean square is smaller.
const SMALL_INPUT: f64 = 1e-3;
/// Fraction of dead units from which an activation is reported; a few are dead in most networks.
const DEAD_SHARE: f64 = 0.5;
/// A gradient whose norm, divided by that of its parameter, exceeds this explodes.
const EXPLODED: f64 = 1e4;
/// A gradient whose ratio to its parameter, divided by that of one nearer to the loss, is below this has
/// vanished.
const VANISHED: f64 = 1e-6;

/// Runs a network whose parameters are in `store`, which is current, and a backward pass, in training mode.
pub(crate) fn examine<O: Value, L>(
    store: &ParameterStore,
    inputs: &[&Tensor],
    forward: impl FnOnce() -> Result<O>,
    loss: impl Fn(&O) -> Result<Tensor, L>,
) -> Result<Diagnosis>
where
    Error: From<L>,
{
    let before = fingerprints(store)?;
    let recorder = Recorder::new(Watch::Values);
    let output = {
        let _frame = frame::outermost_with(&recorder);
        with_mode(true, forward)?
    };
    let nodes = recorder.nodes();
    let mut diagnosis = Diagnosis::default();
    look_at_inputs(inputs, &nodes, &mut diagnosis)?;
    look_forward(&nodes, &mut diagnosis)?;
    look_at_units(&nodes, &mut diagnosis)?;
    look_at_frozen(&before, &nodes, &mut diagnosis)?;
    let loss = match loss(&output) {
        Ok(loss) => loss,
        Err(error) => {
            diagnosis.add(of_loss(Symptom::LossFailed { error: Error::from(error).to_string() }));
            return Ok(diagnosis);
        }
    };
    if !is_finite(&loss)? {
        if all_finite(&diagnosis) {
            diagnosis.add(of_loss(Symptom::LossNotFinite));
        }
        return Ok(diagnosis);
    }
    look_backward(&nodes, &recorder, &backward(&loss)?, &mut diagnosis)?;
    Ok(diagnosis)
}

fn of_loss(symptom: Symptom) -> Finding {
    Place::outside("loss").finding(symptom)
}

impl Node {
    fn place(&self, path: &str) -> Place {
        Place { path: path.to_owned(), layer: Some(self.layer_name()), at: self.at }
    }

    fn finding(&self, path: &str, symptom: Symptom) -> Finding {
        self.place(path).finding(symptom)
    }
}

/// Whether no finding is about numbers that are not finite.
fn all_finite(diagnosis: &Diagnosis) -> bool {
    !diagnosis.findings().iter().any(|finding| {
        matches!(
            finding.symptom,
            Symptom::InputNotFinite | Symptom::ParameterNotFinite | Symptom::OutputNotFinite
        )
    })
}

pub(crate) fn is_finite(tensor: &Tensor) -> Result<bool> {
    Ok(!tensor.dtype().is_float() || elements(tensor)?.iter().all(|x| x.is_finite()))
}

/// A hash of the bits of a parameter's values.
pub(crate) fn fingerprint(parameter: &Parameter) -> Result<u64> {
    let mix = |hash: u64, x: f64| (hash.rotate_left(5) ^ x.to_bits()).wrapping_mul(0x517c_c1b7_2722_0a95);
    Ok(elements(parameter.var())?.into_iter().fold(0, mix))
}

fn fingerprints(store: &ParameterStore) -> Result<HashMap<String, u64>> {
    let parameters = store.parameters().into_iter();
    parameters.map(|(path, parameter)| Ok((path, fingerprint(&parameter)?))).collect()
}

fn look_at_inputs(inputs: &[&Tensor], nodes: &[Node], diagnosis: &mut Diagnosis) -> Result<()> {
    let first = nodes.iter().find(|node| node.kind == Kind::Call && node.children.is_empty());
    let normalized =
        first.and_then(|node| node.layer).is_some_and(|layer| layer.family == Family::Normalization);
    for (index, input) in inputs.iter().enumerate() {
        if !input.dtype().is_float() || input.elem_count() == 0 {
            continue;
        }
        let values = elements(input)?;
        // Masks that are added to scores hide positions with minus infinity.
        let is_mask = values.iter().all(|&x| x == 0.0 || x == f64::NEG_INFINITY);
        if is_mask {
            continue;
        }
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let deviation = (values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n).sqrt();
        let size = mean.hypot(deviation);
        let symptom = if !values.iter().all(|x| x.is_finite()) {
            Symptom::InputNotFinite
        } else if !normalized
            && (!(SMALL_INPUT..=LARGE_INPUT).contains(&size)
                || deviation > 0.0 && mean.abs() > LARGE_INPUT * deviation)
        {
            Symptom::InputNotNormalized { mean, deviation }
        } else {
            continue;
        };
        let path = if index == 0 { "input".to_owned() } else { format!("input {}", index + 1) };
        diagnosis.add(Place::outside(path).finding(symptom));
    }
    Ok(())
}

/// Finds where numbers stop being finite in the forward pass.
fn look_forward(nodes: &[Node], diagnosis: &mut Diagnosis) -> Result<()> {
    for node in nodes {
        for taken in &node.taken {
            if !is_finite(taken.parameter.var())? {
                diagnosis.add(node.finding(&taken.path, Symptom::ParameterNotFinite));
            }
        }
    }
    if !all_finite(diagnosis) {
        return Ok(());
    }
    let mut in_order: Vec<&Node> = nodes.iter().collect();
    in_order.sort_by_key(|node| node.returned);
    for node in in_order {
        for port in &node.outputs {
            if let Some(value) = &port.value
                && !is_finite(value)?
            {
                diagnosis.add(node.finding(&node.path, Symptom::OutputNotFinite));
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Finds dead units, and statistics of a single sample.
fn look_at_units(nodes: &[Node], diagnosis: &mut Diagnosis) -> Result<()> {
    for node in nodes {
        let ends = |name: &str| node.taken.iter().any(|taken| taken.path.ends_with(name) && !taken.frozen);
        let batch = node.inputs.first().and_then(|port| port.dims.first());
        let given = |name: &str, value: &str| node.arguments.iter().any(|(n, v)| *n == name && v == value);
        if batch == Some(&1) && ends("/mean") && ends("/var") && !given("batch_stat", "false") {
            diagnosis.add(node.finding(&node.path, Symptom::OneSample));
        }
        let is_activation = node.layer.is_none_or(|layer| layer.family == Family::Activation);
        let ([input], [output]) = (&node.inputs[..], &node.outputs[..]) else { continue };
        if node.kind != Kind::Call || !node.children.is_empty() || !is_activation || input.dims != output.dims
        {
            continue;
        }
        let (before, after) = (dead_units(input)?, dead_units(output)?);
        let share = |(dead, of): (usize, usize)| dead as f64 / of.max(1) as f64;
        if share(after) > DEAD_SHARE && share(before) <= DEAD_SHARE {
            let (dead, of) = after;
            diagnosis.add(node.finding(&node.path, Symptom::DeadUnits { dead, of }));
        }
    }
    Ok(())
}

/// The number of units, along the second axis, whose output is constant over at least four samples and
/// positions, and the number of all units.
fn dead_units(port: &Port) -> Result<(usize, usize)> {
    let (Some(value), [batch, units, positions @ ..]) = (&port.value, &port.dims[..]) else {
        return Ok((0, 0));
    };
    let positions = positions.iter().product::<usize>();
    if !value.dtype().is_float() || batch * positions < 4 {
        return Ok((0, 0));
    }
    let values = elements(value)?;
    let is_dead = |unit: usize| {
        let of_unit = (0..*batch).flat_map(|sample| {
            let start = (sample * units + unit) * positions;
            &values[start..start + positions]
        });
        let first = values[unit * positions];
        first.is_finite() && of_unit.into_iter().all(|&x| x == first)
    };
    Ok(((0..*units).filter(|&unit| is_dead(unit)).count(), *units))
}

/// Finds changes of frozen parameters, and of the state of layers whose parameters are fixed.
fn look_at_frozen(before: &HashMap<String, u64>, nodes: &[Node], diagnosis: &mut Diagnosis) -> Result<()> {
    for node in nodes {
        let own = |taken: &&Taken| taken.parameter.need_grad();
        let is_fixed = node.taken.iter().any(|taken| own(&taken))
            && node.taken.iter().filter(own).all(|taken| !taken.trained);
        for taken in node.taken.iter().filter(|taken| taken.frozen || is_fixed) {
            let now = fingerprint(&taken.parameter)?;
            if before.get(&taken.path).is_some_and(|&before| before != now) {
                diagnosis.add(node.finding(&taken.path, Symptom::FrozenChanged));
            }
        }
    }
    Ok(())
}

/// Finds gradients that are missing or not finite, and measures their sizes.
fn look_backward(
    nodes: &[Node],
    recorder: &Recorder,
    gradients: &GradStore,
    diagnosis: &mut Diagnosis,
) -> Result<()> {
    for lost in lost(nodes, &recorder.passed(), gradients)? {
        let finding = match (lost.fault, lost.culprit) {
            (GradientFault::NotFinite, culprit) => {
                let symptom = Symptom::GradientNotFinite { parameter: lost.path.to_owned() };
                culprit.map_or_else(
                    || of_loss(symptom.clone()),
                    |node| node.finding(&node.path, symptom.clone()),
                )
            }
            (fault, culprit) => {
                let lost_in = culprit.map(|culprit| culprit.path.clone());
                lost.node.finding(lost.path, Symptom::NoGradient { fault, lost_in })
            }
        };
        diagnosis.add(finding);
    }
    let mut sizes = Vec::new();
    for node in nodes {
        for taken in node.taken.iter().filter(|taken| taken.trained) {
            if let Some(ratio) = relative_size(&taken.parameter, gradients)? {
                sizes.push((node.place(&taken.path), ratio));
            }
        }
    }
    add_disproportions(sizes, diagnosis);
    Ok(())
}

/// Whether the norm of a parameter is a meaningful scale. That of a vector, which often starts as zeros or
/// ones, is not.
pub(crate) fn is_weight(parameter: &Parameter) -> bool {
    parameter.var().dims().iter().filter(|&&size| size > 1).count() > 1
}

/// Norm of a weight's gradient, divided by that of the weight; `None` for other parameters and for gradients of
/// zeros.
pub(crate) fn relative_size(parameter: &Parameter, gradients: &GradStore) -> Result<Option<f64>> {
    let var = parameter.var();
    let Some(gradient) = gradients.get(var) else { return Ok(None) };
    if !is_weight(parameter) {
        return Ok(None);
    }
    let ratio = norm(&elements(gradient)?) / norm(&elements(var)?);
    Ok(Some(ratio).filter(|ratio| ratio.is_finite() && *ratio > 0.0))
}

pub(crate) fn norm(values: &[f64]) -> f64 {
    values.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// Adds the places whose [`relative_size`] explodes or vanishes; they are in the order of the layers.
pub(crate) fn add_disproportions(sizes: Vec<(Place, f64)>, diagnosis: &mut Diagnosis) {
    let mut nearer = 0_f64;
    let mut found = Vec::new();
    for (place, ratio) in sizes.into_iter().rev() {
        if ratio > EXPLODED {
            found.push(place.finding(Symptom::ExplodingGradient { ratio }));
        } else if ratio < VANISHED * nearer {
            found.push(place.finding(Symptom::VanishingGradient { ratio: ratio / nearer }));
        }
        nearer = nearer.max(ratio);
    }
    found.into_iter().rev().for_each(|finding| diagnosis.add(finding));
}
