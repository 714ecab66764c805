//! What is computed once, before a network is written: values that follow from parameters alone, and batch normalizations, which
//! become part of the layers before them.

use candle_core::{DType, Device, Tensor};

use super::sizes::fixed;
use super::trace::{Flow, Traced};
use crate::Result;
use crate::told::{Argument, Origin, Step};

/// Functions whose results are integers already.
pub(super) const WHOLE: [&str; 2] = ["FixedPointQuantize", "MinMaxQuantize"];

/// Weights that are computed from parameters alone become constants, under the path of the parameter; those that are integers already stay
/// as they are.
pub(super) fn constants(traced: &mut Traced) {
    let uses = traced.uses();
    let (mut steps, values, outputs) =
        (std::mem::take(&mut traced.steps), &mut traced.values, &traced.outputs);
    steps.retain(|step| {
        let is_known = |&place: &usize| values[place].is_known();
        let is_output = step.outputs.iter().any(|output| outputs.contains(output));
        let is_computed = step.inputs.is_empty() || !step.inputs.iter().all(is_known);
        if is_computed || is_output || WHOLE.contains(&step.kind) {
            return true;
        }
        let origin = match (&step.inputs[..], &step.outputs[..]) {
            (&[input, ..], [_]) if uses[input] == 1 => values[input].origin.clone(),
            _ => Origin::Constant,
        };
        step.outputs.iter().for_each(|&output| values[output].origin = origin.clone());
        false
    });
    traced.steps = steps;
}

/// A normalization by constant statistics, right behind an affine layer or a convolution whose weights nobody else takes, scales
/// these and moves the bias.
pub(super) fn batch_normalizations(traced: &mut Traced) -> Result<()> {
    let uses = traced.uses();
    let mut n = 0;
    while n < traced.steps.len() {
        match layer_before(traced, n, &uses) {
            Some(layer) => {
                fold(traced, layer, n)?;
                traced.steps.remove(n);
            }
            None => n += 1,
        }
    }
    Ok(())
}

fn argument<'a>(step: &'a Step, name: &str) -> Option<&'a Argument> {
    step.arguments.iter().find(|(other, _)| *other == name).map(|(_, argument)| argument)
}

/// The step of the layer that can take the normalization of step `n`.
fn layer_before(traced: &Traced, n: usize, uses: &[usize]) -> Option<usize> {
    let step = &traced.steps[n];
    let is_known = |place: &usize| traced.values[*place].is_known();
    let is_over_maps = argument(step, "axes") == Some(&Argument::Integers(vec![1]));
    let is_alone = step.outputs[1..].iter().all(|&output| uses[output] == 0);
    if step.kind != "BatchNormalization"
        || !is_over_maps
        || !is_alone
        || !step.inputs[1..].iter().all(is_known)
    {
        return None;
    }
    let x = step.inputs[0];
    let layer = traced.steps[..n].iter().position(|layer| layer.outputs == [x])?;
    let found = &traced.steps[layer];
    let of_own = found.inputs[1..].iter().all(|place| is_known(place) && uses[*place] == 1);
    let is_plain = match found.kind {
        "Convolution" => true,
        "Affine" => traced.values[found.inputs[1]].tensor.rank() == 2,
        _ => false,
    };
    let has_maps = argument(found, "base_axis") == Some(&Argument::Integer(1));
    (uses[x] == 1 && of_own && is_plain && has_maps).then_some(layer)
}

fn fold(traced: &mut Traced, layer: usize, n: usize) -> Result<()> {
    let step = traced.steps[n].clone();
    let list = |place: usize| -> Result<Tensor> {
        let tensor = &traced.values[place].tensor;
        Ok(tensor.detach().to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?)
    };
    let mut rest = step.inputs[1..].iter().copied();
    let mut next = |missing: &str| match argument(&step, missing) {
        Some(Argument::Flag(true)) => Ok(None),
        _ => rest.next().map(list).transpose(),
    };
    let (beta, gamma) = (next("no_bias")?, next("no_scale")?);
    let (Some(mean), Some(var)) = (next("")?, next("")?) else { return Ok(()) };
    let eps = match argument(&step, "eps") {
        Some(Argument::Number(eps)) => *eps,
        _ => 0.0,
    };
    let mut factor = (var + eps)?.sqrt()?.recip()?;
    if let Some(gamma) = gamma {
        factor = (factor * gamma)?;
    }
    let (kind, inputs) = (traced.steps[layer].kind, traced.steps[layer].inputs.clone());
    let w = &traced.values[inputs[1]].tensor;
    let w = w.detach().to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
    let mut dims = vec![1; w.rank()];
    dims[usize::from(kind == "Affine")] = factor.elem_count();
    let w = w.broadcast_mul(&factor.reshape(dims)?)?;
    let mut b = mean.neg()?;
    if let Some(&place) = inputs.get(2) {
        b = (b + list(place)?)?;
    }
    b = (b * factor)?;
    if let Some(beta) = beta {
        b = (b + beta)?;
    }
    traced.values[inputs[1]].tensor = w;
    match inputs.get(2) {
        Some(&place) => traced.values[place].tensor = b,
        None => {
            traced.steps[layer].inputs.push(traced.values.len());
            traced.values.push(Flow { sizes: fixed(b.dims()), tensor: b, origin: Origin::Constant });
        }
    }
    traced.steps[layer].outputs = vec![step.outputs[0]];
    Ok(())
}
