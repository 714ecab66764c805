//! One step of several ranks, with the same bits for any number of them.

use std::ops::Range;

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};

use crate::communicator::Communicator;
use crate::solver::no_gradients;
use crate::{Error, ParameterStore, Result, Rng, backward};

/// Data-parallel training: each rank computes some of the micro-batches of a step, and all get the same gradients.
///
/// A step is a fixed number of micro-batches, whatever computes them. Their gradients are added up along a binary tree over the
/// numbers of the micro-batches, and what is random in one follows from its number. So one, two or five ranks, threads or
/// processes, end with the same weights to the last bit.
///
/// Batch normalization sees one micro-batch at a time. Running statistics, and whatever else layers keep from call to call, become
/// the mean of what each micro-batch has made of them.
///
/// ```
/// use layerfn::{communicator::Local, prelude::*, solver::Sgd, training::DataParallel};
///
/// let train = |ranks: usize| {
///     Local::new(ranks).run(|communicator| {
///         let model = network! { affine(8) -> relu -> dropout -> out: affine(2) }.init((1, 4))?;
///         let mut parallel = DataParallel::new(&communicator, model.store(), 4)?;
///         let mut solver = Sgd::new(0.1);
///         solver.set_parameters(&model.parameters());
///         let x = Tensor::arange(0f32, 32., &Device::Cpu)?.reshape((8, 4))?;
///         for _ in 0..3 {
///             let step = parallel.step(8, |rows| {
///                 let x = x.narrow(0, rows.start, rows.len())?;
///                 Ok(model.forward(&x)?.sqr()?.mean_all()?)
///             })?;
///             solver.update(&step.gradients)?;
///         }
///         Ok(model.store().get("out/affine/W").unwrap().var().flatten_all()?.to_vec1::<f32>()?)
///     })
/// };
/// assert_eq!(train(1)?[0], train(3)?[2]);
/// # Ok::<(), layerfn::Error>(())
/// ```
#[derive(Debug)]
pub struct DataParallel {
    communicator: Communicator,
    store: ParameterStore,
    n_micro: usize,
}

/// What a [step](DataParallel::step) has found.
#[derive(Debug)]
pub struct ParallelStep {
    /// The mean of the gradients over all examples of the step: the same on every rank.
    pub gradients: GradStore,
    /// The mean loss.
    pub loss: f64,
}

impl DataParallel {
    /// For the parameters in `store`, and steps of `n_micro` micro-batches; as many as the largest number of ranks that the
    /// training is to run on. Every rank gets the values that rank 0 has.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if `n_micro` is 0; [`Error::Communication`] if the ranks have different parameters.
    pub fn new(communicator: &Communicator, store: &ParameterStore, n_micro: usize) -> Result<Self> {
        if n_micro == 0 {
            return Err(Error::invalid("n_micro", "must be at least 1", n_micro));
        }
        communicator.broadcast_parameters(&store.parameters())?;
        Ok(Self { communicator: communicator.clone(), store: store.clone(), n_micro })
    }

    /// The micro-batches of this rank.
    #[must_use]
    pub fn own(&self) -> Range<usize> {
        self.of_rank(self.communicator.rank())
    }

    fn of_rank(&self, rank: usize) -> Range<usize> {
        let size = self.communicator.size();
        self.n_micro * rank / size..self.n_micro * (rank + 1) / size
    }

    /// One step over a batch of `n_examples`. `loss` is called for each micro-batch of this rank with the numbers of its examples in
    /// the batch, and gives the mean of its loss over them.
    ///
    /// # Errors
    /// Those of `loss`, after which the other ranks fail too; [`Error::InvalidArgument`] if there are no examples;
    /// [`Error::Communication`] if another rank fails.
    pub fn step(
        &mut self,
        n_examples: usize,
        loss: impl FnMut(Range<usize>) -> Result<Tensor>,
    ) -> Result<ParallelStep> {
        self.try_step(n_examples, loss).inspect_err(|error| self.communicator.abort(&error.to_string()))
    }

    fn try_step(
        &self,
        n_examples: usize,
        mut loss: impl FnMut(Range<usize>) -> Result<Tensor>,
    ) -> Result<ParallelStep> {
        if n_examples == 0 {
            return Err(Error::invalid("n_examples", "must be at least 1", n_examples));
        }
        let variables = Variables::of(&self.store)?;
        let noise = self.store.rng();
        let seeds = [noise.next_u32(), noise.next_u32()];
        let (words, spare) = noise.position();
        let mut micro = |i: usize| -> Result<Vec<f64>> {
            let rows = n_examples * i / self.n_micro..n_examples * (i + 1) / self.n_micro;
            if rows.is_empty() {
                return Ok(vec![0.0; variables.length()]);
            }
            let (words, spare) = Rng::from_key(&[seeds[0], seeds[1], i as u32]).position();
            noise.set_position(&words, spare);
            variables.restore()?;
            let weight = rows.len() as f64;
            let loss = loss(rows)?;
            let value = loss.to_dtype(DType::F64)?.to_scalar::<f64>()?;
            variables.numbers(weight, value, &backward(loss)?)
        };
        let mut nodes = Vec::new();
        cover(0..self.n_micro, &self.own(), &mut nodes);
        let sums = nodes.into_iter().map(|node| tree(node, &mut micro)).collect::<Result<Vec<_>>>();
        noise.set_position(&words, spare);
        let total = sums.and_then(|sums| self.total(&sums, variables.length()));
        match total {
            Ok(total) => take(&total, &variables),
            Err(error) => variables.restore().and(Err(error)),
        }
    }

    /// The sum of all micro-batches, `n` numbers. Each rank adds up one part of them.
    fn total(&self, sums: &[Vec<f64>], n: usize) -> Result<Vec<f64>> {
        let (size, rank) = (self.communicator.size(), self.communicator.rank());
        let part = |of: usize| n * of / size..n * (of + 1) / size;
        let parts = (0..size).map(|to| bytes(sums.iter().flat_map(|sum| &sum[part(to)])));
        let messages = self.communicator.exchange(parts.collect())?;
        let width = part(rank).len();
        let mut known = Vec::new();
        for (from, message) in messages.iter().enumerate() {
            let mut nodes = Vec::new();
            cover(0..self.n_micro, &self.of_rank(from), &mut nodes);
            let values = numbers(message);
            if values.len() != nodes.len() * width {
                return Err(Error::communication(
                    from,
                    "has sent sums of another length: its parameters differ",
                ));
            }
            let sums =
                nodes.into_iter().enumerate().map(|(i, node)| (node, values[i * width..][..width].to_vec()));
            known.extend(sums);
        }
        let own = join(0..self.n_micro, &known);
        let messages = self.communicator.exchange(vec![bytes(own.iter()); size])?;
        let total: Vec<f64> = messages.iter().flat_map(|message| numbers(message)).collect();
        match total.len() == n {
            true => Ok(total),
            false => Err(Error::communication(rank, "got sums of another length")),
        }
    }
}

/// Takes over what layers keep; the means of the gradients and of the loss.
fn take(total: &[f64], variables: &Variables) -> Result<ParallelStep> {
    let (weight, loss) = (total[0], total[1]);
    let mut rest = &total[2..];
    let mut next = |var: &Var| -> Result<Option<Tensor>> {
        let (values, others) = rest.split_at(1 + var.elem_count());
        rest = others;
        if values[0] == 0.0 {
            return Ok(None);
        }
        let mean: Vec<f64> = values[1..].iter().map(|value| value / weight).collect();
        let mean = Tensor::from_vec(mean, var.dims(), &Device::Cpu)?.to_dtype(var.dtype())?;
        Ok(Some(mean.to_device(var.device())?))
    };
    let mut gradients = no_gradients()?;
    for var in &variables.trained {
        if let Some(gradient) = next(var)? {
            gradients.insert(var, gradient);
        }
    }
    for (var, before) in &variables.kept {
        let mean = next(var)?;
        var.set(mean.as_ref().unwrap_or(before))?;
    }
    Ok(ParallelStep { gradients, loss: loss / weight })
}

/// The variables of a step, each once.
struct Variables {
    trained: Vec<Var>,
    /// What layers keep from call to call, and its values before the step.
    kept: Vec<(Var, Tensor)>,
}

impl Variables {
    fn of(store: &ParameterStore) -> Result<Self> {
        let (mut trained, mut kept) = (Vec::<Var>::new(), Vec::<(Var, Tensor)>::new());
        for (_, parameter) in store.parameters().iter().filter(|(_, parameter)| !parameter.is_frozen()) {
            let var = parameter.var();
            let is_known =
                trained.iter().chain(kept.iter().map(|(var, _)| var)).any(|known| known.id() == var.id());
            match (is_known, parameter.need_grad()) {
                (true, _) => {}
                (false, true) => trained.push(var.clone()),
                (false, false) => kept.push((var.clone(), var.as_detached_tensor().copy()?)),
            }
        }
        Ok(Self { trained, kept })
    }

    /// Puts back what layers keep.
    fn restore(&self) -> Result<()> {
        self.kept.iter().try_for_each(|(var, before)| Ok(var.set(before)?))
    }

    /// How many numbers a sum has: the weight, the loss, and for each variable whether there is something, and that.
    fn length(&self) -> usize {
        let vars = self.trained.iter().chain(self.kept.iter().map(|(var, _)| var));
        2 + vars.map(|var| 1 + var.elem_count()).sum::<usize>()
    }

    /// The numbers of a micro-batch of this weight, times the weight.
    fn numbers(&self, weight: f64, loss: f64, gradients: &GradStore) -> Result<Vec<f64>> {
        let mut numbers = vec![weight, weight * loss];
        let mut push = |is_there: bool, values: &Tensor| -> Result<()> {
            let values = values.detach().flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
            numbers.push(if is_there { 1.0 } else { 0.0 });
            numbers.extend(values.into_iter().map(|value| weight * value));
            Ok(())
        };
        for var in &self.trained {
            match gradients.get(var) {
                Some(gradient) => push(true, gradient)?,
                None => push(false, &var.zeros_like()?)?,
            }
        }
        for (var, before) in &self.kept {
            let now = var.as_detached_tensor();
            // What has not moved in this micro-batch counts if it has in another one.
            push(!same(&now, before)?, &now)?;
        }
        Ok(numbers)
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
fn cover(node: Range<usize>, range: &Range<usize>, nodes: &mut Vec<Range<usize>>) {
    if node.is_empty() || node.end <= range.start || range.end <= node.start {
        return;
    }
    if range.start <= node.start && node.end <= range.end {
        return nodes.push(node);
    }
    halves(&node).into_iter().for_each(|half| cover(half, range, nodes));
}

/// The sum of a node's micro-batches.
fn tree(node: Range<usize>, micro: &mut dyn FnMut(usize) -> Result<Vec<f64>>) -> Result<Vec<f64>> {
    if node.len() == 1 {
        return micro(node.start);
    }
    let [left, right] = halves(&node);
    let (left, right) = (tree(left, micro)?, tree(right, micro)?);
    Ok(plus(left, &right))
}

/// The sum of a node from those of nodes that cover it.
fn join(node: Range<usize>, parts: &[(Range<usize>, Vec<f64>)]) -> Vec<f64> {
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

fn bytes<'a>(values: impl Iterator<Item = &'a f64>) -> Vec<u8> {
    values.flat_map(|value| value.to_ne_bytes()).collect()
}

fn numbers(message: &[u8]) -> Vec<f64> {
    message.as_chunks::<8>().0.iter().map(|bytes| f64::from_ne_bytes(*bytes)).collect()
}
