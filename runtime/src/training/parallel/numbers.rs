//! The numbers that a step adds up, and their order.

use std::collections::HashMap;
use std::iter::Peekable;
use std::ops::Range;
use std::slice;

use bytemuck::Pod;
use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Storage, Tensor, TensorId, Var, WithDType};

use super::ParallelStep;
use crate::solver::no_gradients;
use crate::{Error, ParameterStore, Result};

/// The variables of a step, each once, and the packs that their numbers are sent in.
pub(super) struct Variables {
    /// The trained ones, in reverse order, as the backward pass finds their gradients; then those that layers
    /// keep.
    all: Vec<Variable>,
    places: HashMap<TensorId, usize>,
    packs: Vec<Pack>,
}

struct Variable {
    var: Var,
    pack: usize,
    /// The value before the step, if layers keep it from call to call.
    before: Option<Tensor>,
}

/// Numbers that are sent together: for each variable a flag that it has numbers, and these; the last pack ends
/// with the loss.
pub(super) struct Pack {
    pub(super) variables: Range<usize>,
    runs: Vec<Run>,
}

/// The numbers of a variable in a pack, or the loss.
struct Run {
    kind: Kind,
    numbers: Range<usize>,
    /// Offset in the numbers of one micro-batch.
    first_byte: usize,
}

#[derive(Clone, Copy)]
pub(super) struct Kind {
    /// Whether the numbers of a micro-batch and the means are `f64`, not `f32`. Sums always are `f64`.
    pub(super) is_wide: bool,
    is_gradient: bool,
}

/// Weights of the numbers of a micro-batch in the sum.
#[derive(Clone, Copy)]
pub(super) struct Weights {
    pub(super) of_gradients: f64,
    /// Weight of the loss, and of the values that layers keep.
    pub(super) of_rest: f64,
}

/// The numbers of a pack for a node of the tree: unchanged for one micro-batch, and their weighted sum in `f64`
/// for several.
pub(super) struct Sum {
    pub(super) node: Range<usize>,
    pub(super) bytes: Vec<u8>,
}

/// A range of the numbers of a [`Sum`].
pub(super) struct Part<'a> {
    pub(super) node: Range<usize>,
    pub(super) bytes: &'a [u8],
}

/// How many numbers are added up at once; they fit in the innermost cache.
pub(super) const BLOCK: usize = 512;

impl Variables {
    /// Splits into packs of at least this many bytes, except for the last one. With `is_fast`, the loss has the
    /// type of its neighbours.
    pub(super) fn of(store: &ParameterStore, pack_size: usize, is_fast: bool) -> Result<Self> {
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
        let (mut all, mut packs, mut pack) = (Vec::new(), Vec::new(), Pack::new(0));
        let mut is_wide = false;
        for (place, (var, before)) in trained.into_iter().rev().chain(kept).enumerate() {
            places.insert(var.id(), place);
            is_wide = !matches!(var.dtype(), DType::F32 | DType::F16 | DType::BF16);
            pack.push(Kind { is_wide, is_gradient: before.is_none() }, 1 + var.elem_count());
            pack.variables.end = place + 1;
            all.push(Variable { var, pack: packs.len(), before });
            if pack.bytes(&(0..pack.len())).len() >= pack_size {
                packs.push(std::mem::replace(&mut pack, Pack::new(place + 1)));
            }
        }
        pack.push(Kind { is_wide: is_wide || !is_fast, is_gradient: false }, 1);
        packs.push(pack);
        Ok(Self { all, places, packs })
    }

    pub(super) fn packs(&self) -> &[Pack] {
        &self.packs
    }

    pub(super) fn n_trained(&self) -> usize {
        self.all.iter().filter(|variable| variable.before.is_none()).count()
    }

    /// The variables that layers keep from call to call, and their values before the step.
    pub(super) fn kept(&self) -> impl Iterator<Item = (&Var, &Tensor)> {
        self.all.iter().filter_map(|variable| Some((&variable.var, variable.before.as_ref()?)))
    }

    /// Restores the values that layers keep.
    pub(super) fn restore(&self) -> Result<()> {
        self.kept().try_for_each(|(var, before)| Ok(var.set(before)?))
    }

    /// The index of a trained variable.
    pub(super) fn place(&self, id: TensorId) -> Option<usize> {
        self.places.get(&id).copied().filter(|&place| self.all[place].before.is_none())
    }

    /// The mean of each variable of a pack that has one, then the loss, if it is the last pack.
    pub(super) fn read(&self, pack: &Pack, means: &[u8]) -> Result<(Vec<Option<Tensor>>, f64)> {
        let mut tensors = Vec::new();
        for (Variable { var, .. }, run) in self.all[pack.variables.clone()].iter().zip(&pack.runs) {
            let bytes = &means[pack.bytes(&run.numbers)];
            let tensor = match run.kind.is_wide {
                true => tensor::<f64>(bytes, var)?,
                false => tensor::<f32>(bytes, var)?,
            };
            tensors.push(tensor);
        }
        let loss = match (means.last_chunk(), means.last_chunk()) {
            (Some(wide), _) if pack.runs.last().is_some_and(|run| run.kind.is_wide) => {
                f64::from_ne_bytes(*wide)
            }
            (_, Some(narrow)) => f32::from_ne_bytes(*narrow).into(),
            _ => 0.0,
        };
        Ok((tensors, loss))
    }

    /// Sets the values that layers keep; returns the means of the gradients and of the loss, as
    /// [`read`](Self::read) from each pack.
    pub(super) fn take(&self, packs: Vec<(Vec<Option<Tensor>>, f64)>) -> Result<ParallelStep> {
        let mut gradients = no_gradients()?;
        let loss = packs.last().map_or(0.0, |(_, loss)| *loss);
        let means = packs.into_iter().flat_map(|(tensors, _)| tensors);
        for (Variable { var, before, .. }, mean) in self.all.iter().zip(means) {
            match (before, mean) {
                (Some(_), Some(mean)) => var.set(&mean)?,
                (Some(before), None) => var.set(before)?,
                (None, Some(mean)) => drop(gradients.insert(var, mean)),
                (None, None) => {}
            }
        }
        Ok(ParallelStep { gradients, loss })
    }
}

/// A tensor of the shape of `var` with its numbers in a pack, if it has any.
fn tensor<T: WithDType + Pod + PartialEq>(bytes: &[u8], var: &Var) -> Result<Option<Tensor>> {
    let (is_there, values) = bytes.split_at(size_of::<T>());
    if bytemuck::pod_read_unaligned::<T>(is_there) == T::zeroed() {
        return Ok(None);
    }
    let values: Vec<T> = bytemuck::pod_collect_to_vec(values);
    let tensor = Tensor::from_vec(values, var.dims(), &Device::Cpu)?;
    Ok(Some(tensor.to_dtype(var.dtype())?.to_device(var.device())?))
}

impl Pack {
    /// An empty pack, whose first variable will be `first`.
    fn new(first: usize) -> Self {
        Self { variables: first..first, runs: Vec::new() }
    }

    fn push(&mut self, kind: Kind, n: usize) {
        let (start, first_byte) = (self.len(), self.bytes(&(0..self.len())).end);
        self.runs.push(Run { kind, numbers: start..start + n, first_byte });
    }

    /// How many numbers it has.
    pub(super) fn len(&self) -> usize {
        self.runs.last().map_or(0, |run| run.numbers.end)
    }

    /// The byte range of a range of numbers in those of a micro-batch.
    pub(super) fn bytes(&self, range: &Range<usize>) -> Range<usize> {
        let of = |number: usize| {
            let run = &self.runs.get(self.runs.partition_point(|run| run.numbers.end < number));
            run.map_or(0, |run| run.first_byte + (number - run.numbers.start) * run.kind.size())
        };
        of(range.start)..of(range.end)
    }

    /// The byte range of a range of numbers in those of a node.
    pub(super) fn bytes_of(&self, node: &Range<usize>, range: &Range<usize>) -> Range<usize> {
        match node.len() {
            1 => self.bytes(range),
            _ => range.start * size_of::<f64>()..range.end * size_of::<f64>(),
        }
    }

    /// Splits a range of numbers into pieces of one kind.
    fn pieces(&self, range: &Range<usize>) -> impl Iterator<Item = (Kind, usize)> {
        let inside = |numbers: &Range<usize>| {
            numbers.end.min(range.end).saturating_sub(numbers.start.max(range.start))
        };
        self.runs.iter().map(move |run| (run.kind, inside(&run.numbers))).filter(|(_, n)| *n > 0)
    }

    /// Splits all numbers into as few ranges of one type as possible.
    pub(super) fn types(&self) -> impl Iterator<Item = (bool, Range<usize>)> {
        let runs = self.runs.chunk_by(|a, b| a.kind.is_wide == b.kind.is_wide);
        runs.filter_map(|runs| {
            let (first, last) = (runs.first()?, runs.last()?);
            Some((first.kind.is_wide, first.numbers.start..last.numbers.end))
        })
    }

    /// Adds up a range of numbers over the micro-batches of `node`, whose sum is the sum of its two halves, and
    /// passes it on block by block. Micro-batches that none of `sums` has are skipped.
    pub(super) fn add_up(
        &self,
        node: &Range<usize>,
        range: &Range<usize>,
        mut parts: Vec<Part<'_>>,
        weights: &[Weights],
        mut give: impl FnMut(Kind, &mut [f64]),
    ) {
        let depth = node.len().next_power_of_two().ilog2() as usize;
        let (mut sum, mut spare) = ([0.0; BLOCK], vec![0.0; depth * BLOCK]);
        for (kind, n) in self.pieces(range) {
            for start in (0..n).step_by(BLOCK) {
                let sum = &mut sum[..BLOCK.min(n - start)];
                add_up(node, kind, &mut parts.iter_mut().peekable(), weights, sum, &mut spare);
                give(kind, sum);
            }
        }
    }

    /// Appends a sum to those of the micro-batches before it, and joins two halves of a node.
    pub(super) fn push_sum(&self, sums: &mut Vec<Sum>, sum: Sum, weights: &[Weights]) {
        sums.push(sum);
        while let [.., left, right] = &sums[..] {
            let (node, mut nodes, mut bytes) = (left.node.start..right.node.end, Vec::new(), Vec::new());
            cover(0..weights.len(), &node, &mut nodes);
            if nodes.len() > 1 {
                break;
            }
            self.write(&node, &(0..self.len()), sums, weights, &mut bytes);
            sums.truncate(sums.len() - 2);
            sums.push(Sum { node, bytes });
        }
    }

    /// The sum of a node, of a range of its numbers, from sums that cover it.
    pub(super) fn write(
        &self,
        node: &Range<usize>,
        range: &Range<usize>,
        sums: &[Sum],
        weights: &[Weights],
        message: &mut Vec<u8>,
    ) {
        if let Some(sum) = sums.iter().find(|sum| sum.node == *node) {
            return message.extend_from_slice(sum.part(self, range).bytes);
        }
        let inside = sums.iter().filter(|sum| node.start <= sum.node.start && sum.node.end <= node.end);
        let parts = inside.map(|sum| sum.part(self, range)).collect();
        message.reserve(self.bytes_of(node, range).len());
        self.add_up(node, range, parts, weights, |_, sum| {
            message.extend_from_slice(bytemuck::cast_slice(sum));
        });
    }
}

impl Sum {
    pub(super) fn of_micro(micro: usize, bytes: Vec<u8>) -> Self {
        Self { node: micro..micro + 1, bytes }
    }

    pub(super) fn part(&self, pack: &Pack, range: &Range<usize>) -> Part<'_> {
        Part { node: self.node.clone(), bytes: &self.bytes[pack.bytes_of(&self.node, range)] }
    }
}

impl Kind {
    fn size(self) -> usize {
        if self.is_wide { size_of::<f64>() } else { size_of::<f32>() }
    }

    fn weight(self, weights: Weights) -> f64 {
        if self.is_gradient { weights.of_gradients } else { weights.of_rest }
    }
}

/// The next numbers of `node`, from the parts that lie in it. `spare` has a block for each level of the tree.
fn add_up<'a, 'b: 'a>(
    node: &Range<usize>,
    kind: Kind,
    parts: &mut Peekable<slice::IterMut<'a, Part<'b>>>,
    weights: &[Weights],
    sum: &mut [f64],
    spare: &mut [f64],
) {
    match parts.peek() {
        Some(part) if part.node == *node => {
            if let Some(part) = parts.next() {
                part.read(kind, weights, sum);
            }
        }
        Some(part) if part.node.start < node.end && node.len() > 1 => {
            let [left, right] = halves(node);
            add_up(&left, kind, parts, weights, sum, spare);
            let (other, spare) = spare.split_at_mut(BLOCK);
            let other = &mut other[..sum.len()];
            add_up(&right, kind, parts, weights, other, spare);
            sum.iter_mut().zip(other).for_each(|(sum, other)| *sum += *other);
        }
        _ => sum.fill(0.0),
    }
}

impl Part<'_> {
    /// The next numbers, in the layout of a sum.
    fn read(&mut self, kind: Kind, weights: &[Weights], numbers: &mut [f64]) {
        let is_micro = self.node.len() == 1;
        let size = if is_micro { kind.size() } else { size_of::<f64>() };
        let (bytes, rest) = self.bytes.split_at(numbers.len() * size);
        self.bytes = rest;
        let weight = if is_micro { kind.weight(weights[self.node.start]) } else { 1.0 };
        if size == size_of::<f64>() {
            let values = bytes.as_chunks().0.iter().map(|bytes| f64::from_ne_bytes(*bytes));
            numbers.iter_mut().zip(values).for_each(|(number, value)| *number = weight * value);
        } else {
            let values = bytes.as_chunks().0.iter().map(|bytes| f32::from_ne_bytes(*bytes));
            numbers.iter_mut().zip(values).for_each(|(number, value)| *number = weight * f64::from(value));
        }
    }
}

/// The numbers of a micro-batch, by pack.
pub(super) struct Numbers<'a> {
    variables: &'a Variables,
    packs: Vec<Vec<u8>>,
    is_set: Vec<bool>,
}

impl<'a> Numbers<'a> {
    pub(super) fn new(variables: &'a Variables) -> Self {
        let zeros = |pack: &Pack| vec![0; pack.bytes(&(0..pack.len())).len()];
        Self {
            variables,
            packs: variables.packs.iter().map(zeros).collect(),
            is_set: vec![false; variables.all.len()],
        }
    }

    /// Takes the numbers of a pack, which must be complete.
    pub(super) fn take(&mut self, pack: usize) -> Vec<u8> {
        std::mem::take(&mut self.packs[pack])
    }

    pub(super) fn take_all(self) -> Vec<Vec<u8>> {
        self.packs
    }

    /// Sets the gradient of a variable.
    pub(super) fn set(&mut self, place: usize, gradient: &Tensor) -> Result<()> {
        self.write(place, gradient, true)
    }

    fn write(&mut self, place: usize, value: &Tensor, is_there: bool) -> Result<()> {
        let number = self.variables.all[place].pack;
        let pack = &self.variables.packs[number];
        let run = &pack.runs[place - pack.variables.start];
        let bytes = &mut self.packs[number][pack.bytes(&run.numbers)];
        match run.kind.is_wide {
            true => write::<f64>(value, f64::from(u8::from(is_there)), bytes)?,
            false => write::<f32>(value, f32::from(u8::from(is_there)), bytes)?,
        }
        self.is_set[place] = true;
        Ok(())
    }

    /// Sets the remaining gradients, the values that layers keep, and the loss.
    pub(super) fn finish(&mut self, gradients: &GradStore, loss: f64) -> Result<()> {
        let variables = self.variables;
        for (place, Variable { var, before, .. }) in variables.all.iter().enumerate() {
            if let Some(before) = before {
                let now = var.as_detached_tensor();
                // A value that did not change in this micro-batch still counts if it changed in another one.
                self.write(place, &now, !same(&now, before)?)?;
            } else if let Some(gradient) = gradients.get(var).filter(|_| !self.is_set[place]) {
                self.set(place, gradient)?;
            }
        }
        if let (Some(Run { kind, first_byte, .. }), Some(bytes)) =
            (variables.packs.last().and_then(|pack| pack.runs.last()), self.packs.last_mut())
        {
            match kind.is_wide {
                true => bytes[*first_byte..].copy_from_slice(&loss.to_ne_bytes()),
                false => bytes[*first_byte..].copy_from_slice(&(loss as f32).to_ne_bytes()),
            }
        }
        Ok(())
    }
}

fn write<T: WithDType + Pod>(value: &Tensor, is_there: T, bytes: &mut [u8]) -> Result<()> {
    let value = value.to_dtype(T::DTYPE)?.to_device(&Device::Cpu)?.contiguous()?;
    let (storage, layout) = value.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else {
        return Err(Error::invalid("gradient", "must be on the CPU now", value.device().location()));
    };
    let values = &T::cpu_storage_as_slice(storage)?[layout.start_offset()..][..value.elem_count()];
    let (of_flag, of_values) = bytes.split_at_mut(size_of::<T>());
    of_flag.copy_from_slice(bytemuck::bytes_of(&is_there));
    of_values.copy_from_slice(bytemuck::cast_slice(values));
    Ok(())
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
