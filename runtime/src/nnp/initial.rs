//! First values of parameters that a file declares and does not hold.

use candle_core::{DType, Device, Tensor};

use super::Fault;
use crate::checkpoint::definition::Message;
use crate::{
    Initializer, Result, calc_normal_std_glorot, calc_normal_std_he_backward, calc_normal_std_he_forward,
    calc_uniform_lim_glorot, check,
};

/// An initializer with what it is multiplied by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Initial {
    rule: Rule,
    multiplier: f64,
}

#[derive(Clone, Copy, Debug)]
enum Rule {
    Constant,
    Uniform,
    Normal,
    Range,
    /// A normal or uniform distribution whose width follows from the shape of a weight.
    Weight {
        normal: bool,
        size: Size,
        affine: bool,
    },
}

#[derive(Clone, Copy, Debug)]
enum Size {
    Glorot,
    HeForward,
    HeBackward,
}

const KNOWN: &[(&str, Rule)] = &[
    ("Constant", Rule::Constant),
    ("Uniform", Rule::Uniform),
    ("Normal", Rule::Normal),
    ("Range", Rule::Range),
    ("NormalAffineGlorot", weight(true, Size::Glorot, true)),
    ("", Rule::Constant),
    ("NormalAffineHe", weight(true, Size::HeForward, true)),
    ("NormalConvolutionHe", weight(true, Size::HeForward, false)),
    ("NormalAffineHeForward", weight(true, Size::HeForward, true)),
    ("NormalAffineHeBackward", weight(true, Size::HeBackward, true)),
    ("UniformAffineGlorot", weight(false, Size::Glorot, true)),
    ("NormalConvolutionGlorot", weight(true, Size::Glorot, false)),
    ("NormalConvolutionHeForward", weight(true, Size::HeForward, false)),
    ("NormalConvolutionHeBackward", weight(true, Size::HeBackward, false)),
    ("UniformConvolutionGlorot", weight(false, Size::Glorot, false)),
];

const fn weight(normal: bool, size: Size, affine: bool) -> Rule {
    Rule::Weight { normal, size, affine }
}

impl Initial {
    pub(super) fn new(definition: Option<&Message>) -> Result<Self, Fault> {
        let Some(definition) = definition else { return Ok(Self { rule: Rule::Constant, multiplier: 0.0 }) };
        let name = definition.text("type");
        let multiplier = if name.is_empty() { 0.0 } else { definition.number("multiplier") };
        let found = KNOWN.iter().find(|(known, _)| *known == name);
        let (_, rule) = found.ok_or_else(|| {
            let known: Vec<_> = KNOWN.iter().map(|(name, _)| *name).filter(|name| !name.is_empty()).collect();
            Fault::new(format!("has the initializer {name:?}; these are known: {}", known.join(", ")))
        })?;
        Ok(Self { rule: *rule, multiplier })
    }

    /// The initializer for a parameter of this shape.
    pub(super) fn initializer(self, dims: &[usize]) -> Result<Initializer> {
        let by = self.multiplier;
        Ok(match self.rule {
            Rule::Constant => Initializer::constant(by),
            Rule::Uniform => Initializer::uniform(-by, by),
            Rule::Normal => Initializer::normal(by),
            Rule::Range => Initializer::from(multiples(dims, by)?),
            Rule::Weight { normal, size, affine } => {
                let (inputs, outputs, kernel) = fans(dims, affine);
                let (std, lim) = match size {
                    Size::Glorot => (
                        calc_normal_std_glorot(inputs, outputs, kernel),
                        calc_uniform_lim_glorot(inputs, outputs, kernel).1,
                    ),
                    Size::HeForward => (calc_normal_std_he_forward(inputs, outputs, kernel), 0.0),
                    Size::HeBackward => (calc_normal_std_he_backward(inputs, outputs, kernel), 0.0),
                };
                if normal { Initializer::normal(std * by) } else { Initializer::uniform(-lim * by, lim * by) }
            }
        })
    }
}

/// 0, `step`, 2 `step` and so on, in this shape.
pub(super) fn multiples(dims: &[usize], step: f64) -> Result<Tensor> {
    let n = check::tensor("shape", dims, DType::F32)?;
    let values: Vec<f32> = (0..n).map(|n| (n as f64 * step) as f32).collect();
    Ok(Tensor::from_vec(values, dims, &Device::Cpu)?)
}

/// Inputs, outputs and kernel of a weight of this shape.
fn fans(dims: &[usize], affine: bool) -> (usize, usize, &[usize]) {
    match dims {
        [inputs, outputs @ ..] if affine => {
            (*inputs, outputs.iter().fold(1, |n: usize, &size| n.saturating_mul(size)), &[])
        }
        [outputs, inputs, kernel @ ..] => (*inputs, *outputs, kernel),
        _ => (1, 1, &[]),
    }
}
