//! Nodes of candle's graph with a value that is there already and a backward rule of their own, on any device.

use std::sync::{Mutex, PoisonError};

use candle_core::{CpuStorage, CudaStorage, Error, Result, Shape, Storage, Tensor};

use crate::device;
use crate::functions::graph;
pub(super) use crate::functions::operation::Gradients;
use crate::functions::operation::{Operation, apply};

/// Makes `value` the result of an operation on `inputs`, which must be one, two or three. `backward` gets the
/// gradient of the result, contiguous, and for each input whether it needs one.
///
/// If `value` or what `backward` holds were tracked, the graph would be walked twice: detach them.
pub(in crate::functions) fn attach(
    name: &'static str,
    inputs: &[&Tensor],
    value: &Tensor,
    backward: impl Fn(&Tensor, &[bool]) -> Result<Gradients> + Send + Sync + 'static,
) -> Result<Tensor> {
    attach_boxed(name, inputs, value, Box::new(backward))
}

type Rule = dyn Fn(&Tensor, &[bool]) -> Result<Gradients> + Send + Sync;

fn attach_boxed(
    name: &'static str,
    inputs: &[&Tensor],
    value: &Tensor,
    backward: Box<Rule>,
) -> Result<Tensor> {
    let needed: Vec<bool> = inputs.iter().map(|input| input.track_op()).collect();
    if !needed.contains(&true) {
        return Ok(value.clone());
    }
    let value = if is_whole(value) { value.clone() } else { value.force_contiguous()? };
    let variables = inputs.iter().map(|&input| Some(input).filter(|input| input.is_variable()).cloned());
    apply(
        Node { name, value: Mutex::new(Some(value)), needed, variables: variables.collect(), backward },
        inputs,
    )
}

/// Whether the elements of a tensor are all that its memory holds.
fn is_whole(tensor: &Tensor) -> bool {
    let (storage, layout) = tensor.storage_and_layout();
    let n = match &*storage {
        Storage::Cpu(CpuStorage::F32(values)) => values.len(),
        Storage::Cpu(CpuStorage::F64(values)) => values.len(),
        Storage::Cuda(storage) => device::len(storage),
        _ => return false,
    };
    layout.contiguous_offsets() == Some((0, n))
}

struct Node {
    name: &'static str,
    /// Taken by the forward pass.
    value: Mutex<Option<Tensor>>,
    /// Which of the inputs need a gradient.
    needed: Vec<bool>,
    /// The inputs that are variables: candle need not add up their gradients.
    variables: Vec<Option<Tensor>>,
    backward: Box<Rule>,
}

impl Node {
    fn take(&self) -> Result<Tensor> {
        let value = self.value.lock().unwrap_or_else(PoisonError::into_inner).take();
        value.ok_or_else(|| Error::msg("the result of an operation was asked for twice"))
    }
}

impl Operation for Node {
    fn name(&self) -> &'static str {
        self.name
    }

    fn on_cpu(&self) -> Result<(CpuStorage, Shape)> {
        let value = self.take()?;
        match &*value.storage_and_layout().0 {
            Storage::Cpu(storage) => Ok((storage.clone(), value.shape().clone())),
            _ => candle_core::bail!("the inputs of `{}` are on the CPU, its result is not", self.name),
        }
    }

    fn on_cuda(&self) -> Result<(CudaStorage, Shape)> {
        use candle_core::backend::BackendStorage;
        let value = self.take()?;
        let (storage, layout) = value.storage_and_layout();
        match &*storage {
            Storage::Cuda(storage) => Ok((storage.try_clone(layout)?, value.shape().clone())),
            _ => candle_core::bail!("the inputs of `{}` are on a GPU, its result is not", self.name),
        }
    }

    fn backward(&self, gradient: &Tensor, _: usize) -> Result<Gradients> {
        let gradients = (self.backward)(&gradient.contiguous()?, &self.needed)?;
        let hand_on = |(gradient, variable): (Option<Tensor>, &Option<Tensor>)| match (gradient, variable) {
            (Some(gradient), Some(variable)) => graph::keep(variable, gradient.into()),
            (gradient, _) => Ok(gradient),
        };
        gradients.into_iter().zip(&self.variables).map(hand_on).collect()
    }
}
