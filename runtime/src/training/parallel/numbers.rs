//! The numbers that a step adds up, and in which order.

use std::collections::HashMap;
use std::ops::Range;

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, TensorId, Var};

use super::ParallelStep;
use crate::solver::no_gradients;
use crate::{Error, ParameterStore, Result};

/// The variables of a step, each once, and where their numbers stand in a sum: for each whether there is something, and that; then
/// the loss.
pub(super) struct Variables {
    /// Those that are trained, the last one first, as the backward pass finds their gradients; then those that layers keep.
    all: Vec<Variable>,
    places: HashMap<TensorId, usize>,
}

struct Variable {
    var: Var,
    numbers: Range<usize>,
    /// The value before the step, of one that layers keep from call to call.
    before: Option<Tensor>,
}

/// Numbers that are sent together.
pub(super) struct Pack {
    pub(super) variables: Range<usize>,
    pub(super) numbers: Range<usize>,
}

impl Variables {
    pub(super) fn of(store: &ParameterStore) -> Result<Self> {
        let (mut trained, mut kept) = (Vec::new(), Vec::new());
        let mut places = HashMap::new();
        for (_, parameter) in store.parameters().iter().filter(|(_, parameter)| !parameter.is_frozen()) {
            let var = parameter.var().clone();
            if places.insert(var.id(), 0).is_some() {
                continue;
            }
            if parameter.need_grad() {
                trained.push((var, None));
            } else {
                let before = var.as_detached_tensor().copy()?;
                kept.push((var, Some(before)));
            }
        }
        let (mut all, mut end) = (Vec::new(), 0);
        for (place, (var, before)) in trained.into_iter().rev().chain(kept).enumerate() {
            places.insert(var.id(), place);
            let numbers = end..end + 1 + var.elem_count();
            end = numbers.end;
            all.push(Variable { var, numbers, before });
        }
        Ok(Self { all, places })
    }

    pub(super) fn n_trained(&self) -> usize {
        self.all.iter().filter(|variable| variable.before.is_none()).count()
    }

    /// Those that layers keep from call to call, and their values before the step.
    pub(super) fn kept(&self) -> impl Iterator<Item = (&Var, &Tensor)> {
        self.all.iter().filter_map(|variable| Some((&variable.var, variable.before.as_ref()?)))
    }

    /// Puts back what layers keep.
    pub(super) fn restore(&self) -> Result<()> {
        self.kept().try_for_each(|(var, before)| Ok(var.set(before)?))
    }

    /// Where a variable that is trained stands.
    pub(super) fn place(&self, id: TensorId) -> Option<usize> {
        self.places.get(&id).copied().filter(|&place| self.all[place].before.is_none())
    }

    /// The place of the loss.
    fn of_loss(&self) -> usize {
        self.all.last().map_or(0, |variable| variable.numbers.end)
    }

    /// How many numbers a sum has.
    pub(super) fn length(&self) -> usize {
        self.of_loss() + 1
    }

    /// All numbers in packs of at least so many bytes, except for the last one.
    pub(super) fn packs(&self, bytes: usize) -> Vec<Pack> {
        let mut packs = Vec::new();
        let (mut first, mut start) = (0, 0);
        for (place, variable) in self.all.iter().enumerate() {
            let end = variable.numbers.end;
            if (end - start) * size_of::<f64>() >= bytes {
                packs.push(Pack { variables: first..place + 1, numbers: start..end });
                (first, start) = (place + 1, end);
            }
        }
        packs.push(Pack { variables: first..self.all.len(), numbers: start..self.length() });
        packs
    }

    /// Pieces of a range of numbers, each with whether its numbers are sent as `f64` when they are complete.
    pub(super) fn pieces(&self, range: &Range<usize>) -> impl Iterator<Item = (bool, Range<usize>)> {
        let of_variables =
            self.all.iter().map(|variable| (variable.var.dtype() == DType::F64, variable.numbers.clone()));
        let all = of_variables.chain([(true, self.of_loss()..self.length())]);
        all.map(|(is_wide, piece)| (is_wide, piece.start.max(range.start)..piece.end.min(range.end)))
            .filter(|(_, piece)| !piece.is_empty())
    }

    /// Takes over what layers keep; the means of the gradients and of the loss.
    pub(super) fn take(&self, means: &[f64]) -> Result<ParallelStep> {
        if means.len() != self.length() {
            return Err(Error::communication(0, "has sent sums of another length: its parameters differ"));
        }
        let mut gradients = no_gradients()?;
        for Variable { var, numbers, before } in &self.all {
            let (is_there, values) = (means[numbers.start] != 0.0, &means[numbers.start + 1..numbers.end]);
            let mean = || {
                Tensor::from_slice(values, var.dims(), &Device::Cpu)?
                    .to_dtype(var.dtype())?
                    .to_device(var.device())
            };
            match before {
                Some(_) if is_there => var.set(&mean()?)?,
                Some(before) => var.set(before)?,
                None if is_there => drop(gradients.insert(var, mean()?)),
                None => {}
            }
        }
        Ok(ParallelStep { gradients, loss: means[self.of_loss()] })
    }
}

/// What a micro-batch adds to the sums.
pub(super) struct Numbers<'a> {
    variables: &'a Variables,
    values: Vec<f64>,
    is_set: Vec<bool>,
}

impl<'a> Numbers<'a> {
    pub(super) fn new(variables: &'a Variables) -> Self {
        Self { variables, values: vec![0.0; variables.length()], is_set: vec![false; variables.all.len()] }
    }

    pub(super) fn values(&self) -> &[f64] {
        &self.values
    }

    /// Sets the numbers of a variable, times the weight.
    pub(super) fn set(&mut self, place: usize, value: &Tensor, weight: f64) -> Result<()> {
        self.write(place, value, weight, true)
    }

    fn write(&mut self, place: usize, value: &Tensor, weight: f64, is_there: bool) -> Result<()> {
        let numbers = self.variables.all[place].numbers.clone();
        let value = value.detach().flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
        let [there, values @ ..] = &mut self.values[numbers] else { return Ok(()) };
        *there = f64::from(u8::from(is_there));
        values.iter_mut().zip(value).for_each(|(number, value)| *number = weight * value);
        self.is_set[place] = true;
        Ok(())
    }

    /// All numbers, with the gradients that are not set yet, what layers keep, and the loss.
    pub(super) fn finish(
        mut self,
        gradients: &GradStore,
        of_gradients: f64,
        weight: f64,
        loss: f64,
    ) -> Result<Vec<f64>> {
        let variables = self.variables;
        for (place, Variable { var, before, .. }) in variables.all.iter().enumerate() {
            if let Some(before) = before {
                let now = var.as_detached_tensor();
                // What has not moved in this micro-batch counts if it has in another one.
                self.write(place, &now, weight, !same(&now, before)?)?;
            } else if let Some(gradient) = gradients.get(var).filter(|_| !self.is_set[place]) {
                self.set(place, gradient, of_gradients)?;
            }
        }
        self.values[variables.of_loss()] = weight * loss;
        Ok(self.values)
    }
}

fn same(a: &Tensor, b: &Tensor) -> Result<bool> {
    let bits = |tensor: &Tensor| -> Result<Vec<u64>> {
        let values = tensor.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
        Ok(values.into_iter().map(f64::to_bits).collect())
    };
    Ok(bits(a)? == bits(b)?)
}

/// The two halves of a node of the tree.
fn halves(node: &Range<usize>) -> [Range<usize>; 2] {
    let middle = node.start + node.len() / 2;
    [node.start..middle, middle..node.end]
}

/// The largest nodes of the tree that lie inside `range`, in order. The tree is as deep as the logarithm of its leaves.
pub(super) fn cover(node: Range<usize>, range: &Range<usize>, nodes: &mut Vec<Range<usize>>) {
    if node.is_empty() || node.end <= range.start || range.end <= node.start {
        return;
    }
    if range.start <= node.start && node.end <= range.end {
        return nodes.push(node);
    }
    halves(&node).into_iter().for_each(|half| cover(half, range, nodes));
}

/// Gives what a micro-batch adds to the sums.
pub(super) type Micro<'a> = dyn FnMut(usize) -> Result<Vec<f64>> + 'a;

/// The sum of a node's micro-batches.
pub(super) fn tree(node: Range<usize>, micro: &mut Micro<'_>) -> Result<Vec<f64>> {
    let (left, last) = spine(node, micro)?;
    let last = micro(last)?;
    Ok(left.into_iter().rev().fold(last, |sum, left| plus(left, &sum)))
}

/// The sums of the nodes to the left of a node's last micro-batch, the largest one first, and the number of that. Its numbers and
/// then these from the last to the first are to be added up for the node's sum.
pub(super) fn spine(mut node: Range<usize>, micro: &mut Micro<'_>) -> Result<(Vec<Vec<f64>>, usize)> {
    let mut sums = Vec::new();
    while node.len() > 1 {
        let [left, right] = halves(&node);
        sums.push(tree(left, micro)?);
        node = right;
    }
    Ok((sums, node.start))
}

/// The sum of a node from those of nodes that cover it.
pub(super) fn join(node: Range<usize>, parts: &[(Range<usize>, Vec<f64>)]) -> Vec<f64> {
    if let Some((_, sum)) = parts.iter().find(|(part, _)| *part == node) {
        return sum.clone();
    }
    if node.len() < 2 {
        return Vec::new();
    }
    let [left, right] = halves(&node).map(|half| join(half, parts));
    plus(left, &right)
}

fn plus(mut a: Vec<f64>, b: &[f64]) -> Vec<f64> {
    a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
    a
}
