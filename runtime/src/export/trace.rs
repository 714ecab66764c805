//! A network as a list of functions: recorded by a run, and compared with a second run, on other numbers and a larger batch.

use std::ops::Range;

use candle_core::{DType, Tensor, Var};

use super::Source;
use super::sizes::{Batches, Size, fixed};
use crate::context::change;
use crate::told::{self, Argument, Origin, Record, Step};
use crate::{Error, Result, current_parameter_scope};

/// A network as functions and what flows between them.
#[derive(Clone)]
pub(super) struct Traced {
    pub(super) values: Vec<Flow>,
    /// In the order in which they run.
    pub(super) steps: Vec<Step>,
    /// Values that come from outside, one for each input of the network.
    pub(super) inputs: Vec<usize>,
    /// Values of which each is made by a step and taken by none.
    pub(super) outputs: Vec<usize>,
    /// The size of the batch in the run.
    pub(super) batch: i64,
    /// Whether it may have another size.
    pub(super) is_open: bool,
    /// The steps that were recorded; those in front of them and behind them were added.
    recorded: Range<usize>,
}

/// What flows between functions.
#[derive(Clone)]
pub(super) struct Flow {
    pub(super) tensor: Tensor,
    pub(super) origin: Origin,
    pub(super) sizes: Vec<Size>,
}

impl Flow {
    /// Whether it is a parameter or a constant, and not computed from the inputs.
    pub(super) fn is_known(&self) -> bool {
        matches!(self.origin, Origin::Parameter(_) | Origin::Constant)
    }
}

/// The record of a run.
struct Run {
    record: Record,
    inputs: Vec<usize>,
    outputs: Vec<usize>,
}

impl Run {
    fn new(source: &Source<'_>, inputs: Vec<Tensor>) -> Result<Self> {
        // As variables: what candle's operations make of them is known by its gradient.
        let inputs = inputs.into_iter().map(|input| Ok(Var::from_tensor(&input)?.into_inner()));
        let inputs = inputs.collect::<Result<Vec<_>>>()?;
        let mut record = Record::new(current_parameter_scope);
        let places = inputs.iter().map(|input| record.input(input)).collect();
        let run = || {
            let _flags = change(|flags| (flags.training, flags.detached, flags.fixed) = (false, true, true));
            let outputs = source.store.enter(|| (source.forward)(&inputs))?;
            told::check(&outputs)?;
            Ok::<_, Error>(outputs)
        };
        let (outputs, mut record) = told::listen(record, run);
        let outputs = outputs?.iter().map(|output| record.place(output)).collect::<Result<_>>()?;
        let mut run = Self { record, inputs: places, outputs };
        run.prune();
        Ok(run)
    }

    /// Drops the steps that no output needs.
    fn prune(&mut self) {
        let mut needed = vec![false; self.record.values.len()];
        self.outputs.iter().for_each(|&output| needed[output] = true);
        let mut kept = Vec::new();
        while let Some(step) = self.record.steps.pop() {
            if step.outputs.iter().any(|&output| needed[output]) {
                step.inputs.iter().for_each(|&input| needed[input] = true);
                kept.push(step);
            }
        }
        kept.reverse();
        self.record.steps = kept;
    }
}

impl Traced {
    pub(super) fn new(source: &Source<'_>) -> Result<Self> {
        let inputs = source.inputs.iter().map(|input| input.tensor()).collect::<Result<Vec<_>>>()?;
        let batch = inputs.first().and_then(|input| input.dims().first().copied()).unwrap_or(1);
        let first = Run::new(source, inputs)?;
        let other = |more| source.inputs.iter().map(|input| input.other(more)).collect::<Result<Vec<_>>>();
        let larger = other(1).and_then(|inputs| Run::new(source, inputs));
        let batches = Batches(batch as i64, batch as i64 + 1);
        if let Some(found) = larger.ok().and_then(|second| Self::compared(&first, &second, batches)) {
            return Ok(found);
        }
        let second = Run::new(source, other(0)?)?;
        Self::compared(&first, &second, Batches(batch as i64, batch as i64)).ok_or_else(|| {
            let reason = "must run the same functions on all inputs, on constants that do not depend on them, to be \
                          exported; a closure may compute with candle's operations, or decide by what it is given";
            Error::invalid("network", reason, "another run on other inputs")
        })
    }

    /// What two runs have in common; nothing if that is not a network.
    fn compared(first: &Run, second: &Run, batches: Batches) -> Option<Self> {
        let (one, two) = (&first.record, &second.record);
        let same = one.values.len() == two.values.len()
            && one.steps.len() == two.steps.len()
            && (&first.inputs, &first.outputs) == (&second.inputs, &second.outputs);
        if !same {
            return None;
        }
        let mut made: Vec<Step> = Vec::new();
        let mut values = Vec::with_capacity(one.values.len());
        for (place, (value, other)) in one.values.iter().zip(&two.values).enumerate() {
            if value.origin != other.origin {
                return None;
            }
            let sizes = batches.sizes(&fixed(value.tensor.dims()), &fixed(other.tensor.dims()))?;
            let mut origin = value.origin.clone();
            if origin == Origin::Constant
                && let Some(step) = constant(place, &sizes, &value.tensor, &other.tensor)?
            {
                origin = Origin::Made;
                made.push(step);
            }
            values.push(Flow { tensor: value.tensor.clone(), origin, sizes });
        }
        let n_made = made.len();
        for (step, other) in one.steps.iter().zip(&two.steps) {
            if (step.kind, &step.inputs, &step.outputs) != (other.kind, &other.inputs, &other.outputs) {
                return None;
            }
            let arguments = step.arguments.iter().zip(&other.arguments);
            let arguments = arguments.map(|(first, second)| argument(first, second, batches));
            made.push(Step { arguments: arguments.collect::<Option<_>>()?, ..step.clone() });
        }
        let is_open = batches.0 != batches.1;
        let mut traced = Self {
            values,
            recorded: n_made..made.len(),
            steps: made,
            inputs: first.inputs.clone(),
            outputs: first.outputs.clone(),
            batch: batches.0,
            is_open,
        };
        traced.separate_outputs();
        Some(traced)
    }

    /// How often each value is taken, by steps and as an output.
    pub(super) fn uses(&self) -> Vec<usize> {
        let mut uses = vec![0; self.values.len()];
        let taken = self.steps.iter().flat_map(|step| &step.inputs).chain(&self.outputs);
        taken.for_each(|&place| uses[place] += 1);
        uses
    }

    /// What each value is in a run on these inputs; a value that was added has none.
    pub(super) fn values_of(&self, source: &Source<'_>, inputs: Vec<Tensor>) -> Result<Vec<Tensor>> {
        let Record { values, steps, .. } = Run::new(source, inputs)?.record;
        let recorded = &self.steps[self.recorded.clone()];
        let is_same = |(step, other): (&Step, &Step)| {
            (step.kind, &step.inputs, &step.outputs) == (other.kind, &other.inputs, &other.outputs)
        };
        if steps.len() != recorded.len() || !steps.iter().zip(recorded).all(is_same) {
            let reason = "must run the same functions on all batches to be exported; a closure may decide by what it is given";
            return Err(Error::invalid("network", reason, "another run on a batch"));
        }
        Ok(values.into_iter().map(|value| value.tensor).collect())
    }

    /// Makes a value of its own of each output that is something else, too.
    fn separate_outputs(&mut self) {
        let mut used = vec![false; self.values.len()];
        self.steps.iter().flat_map(|step| &step.inputs).for_each(|&input| used[input] = true);
        for n in 0..self.outputs.len() {
            let output = self.outputs[n];
            if !used[output] && self.values[output].origin == Origin::Made {
                used[output] = true;
                continue;
            }
            let Flow { tensor, sizes, .. } = &self.values[output];
            let own = Flow { tensor: tensor.clone(), origin: Origin::Made, sizes: sizes.clone() };
            self.outputs[n] = self.values.len();
            self.values.push(own);
            self.steps.push(Step {
                kind: "Identity",
                scope: String::new(),
                inputs: vec![output],
                outputs: vec![self.outputs[n]],
                arguments: Vec::new(),
            });
        }
    }
}

/// The function that makes a constant whose size follows the batch, if it does. Nothing is one that the runs do not agree upon.
#[expect(clippy::option_option, reason = "no agreement, and nothing to do")]
fn constant(place: usize, sizes: &[Size], first: &Tensor, second: &Tensor) -> Option<Option<Step>> {
    let (first, second) = (numbers(first)?, numbers(second)?);
    let same = |a: &f64, b: &f64| a.to_bits() == b.to_bits();
    if sizes.iter().all(|&size| size >= 0) {
        return first.iter().zip(&second).all(|(a, b)| same(a, b)).then_some(None);
    }
    let val = *first.first()?;
    if !first.iter().chain(&second).all(|number| same(number, &val)) {
        return None;
    }
    Some(Some(Step {
        kind: "Constant",
        scope: String::new(),
        inputs: Vec::new(),
        outputs: vec![place],
        arguments: vec![("val", val.into()), ("shape", sizes.to_vec().into())],
    }))
}

fn numbers(tensor: &Tensor) -> Option<Vec<f64>> {
    tensor.flatten_all().ok()?.to_dtype(DType::F64).ok()?.to_vec1().ok()
}

type Named = (&'static str, Argument);

fn argument((name, first): &Named, (_, second): &Named, batches: Batches) -> Option<Named> {
    let argument = match (first, second) {
        (Argument::Integers(first), Argument::Integers(second)) if *name == "shape" => {
            Argument::Integers(batches.sizes(first, second)?)
        }
        (first, second) if first == second => first.clone(),
        _ => return None,
    };
    Some((name, argument))
}
