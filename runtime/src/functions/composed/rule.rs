//! Nodes of candle's graph with a value that is there already and a backward rule of their own, on any device.

use std::sync::{Mutex, PoisonError};

use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, CustomOp2, CustomOp3, Error, Layout, Result, Shape, Storage, Tensor,
};

/// What a rule returns: a gradient for each input, or none where the input needs none.
pub(super) type Gradients = Vec<Option<Tensor>>;

/// Makes `value` the result of an operation on `inputs`, which must be one, two or three. `backward` gets the
/// gradient of the result, contiguous, and for each input whether it needs one.
///
/// If `value` or what `backward` holds were tracked, the graph would be walked twice: detach them.
pub(super) fn attach(
    name: &'static str,
    inputs: &[&Tensor],
    value: &Tensor,
    backward: impl Fn(&Tensor, &[bool]) -> Result<Gradients> + Send + Sync + 'static,
) -> Result<Tensor> {
    let needed: Vec<bool> = inputs.iter().map(|input| input.track_op()).collect();
    if !needed.contains(&true) {
        return Ok(value.clone());
    }
    let value = value.force_contiguous()?;
    let backward = move |dy: &Tensor| backward(&dy.contiguous()?, &needed);
    let node = Node { name, value: Mutex::new(Some(value)), backward };
    match inputs {
        [a] => a.apply_op1(node),
        [a, b] => a.apply_op2(b, node),
        [a, b, c] => a.apply_op3(b, c, node),
        _ => candle_core::bail!("`{name}` has {} inputs, not one, two or three", inputs.len()),
    }
}

struct Node<B> {
    name: &'static str,
    /// Taken by the forward pass.
    value: Mutex<Option<Tensor>>,
    backward: B,
}

impl<B> Node<B> {
    fn take(&self) -> Result<Tensor> {
        let value = self.value.lock().unwrap_or_else(PoisonError::into_inner).take();
        value.ok_or_else(|| Error::msg("the result of an operation was asked for twice"))
    }

    fn cpu(&self) -> Result<(CpuStorage, Shape)> {
        let value = self.take()?;
        match &*value.storage_and_layout().0 {
            Storage::Cpu(storage) => Ok((storage.clone(), value.shape().clone())),
            _ => candle_core::bail!("the inputs of `{}` are on the CPU, its result is not", self.name),
        }
    }

    fn cuda(&self) -> Result<(CudaStorage, Shape)> {
        use candle_core::backend::BackendStorage;
        let value = self.take()?;
        let (storage, layout) = value.storage_and_layout();
        match &*storage {
            Storage::Cuda(storage) => Ok((storage.try_clone(layout)?, value.shape().clone())),
            _ => candle_core::bail!("the inputs of `{}` are on a GPU, its result is not", self.name),
        }
    }
}

type Two = (Option<Tensor>, Option<Tensor>);
type Three = (Option<Tensor>, Option<Tensor>, Option<Tensor>);

/// The gradients as candle's traits return them.
fn up_to_three(gradients: Gradients) -> Three {
    let mut gradients = gradients.into_iter();
    let mut next = || gradients.next().flatten();
    (next(), next(), next())
}

impl<B: Fn(&Tensor) -> Result<Gradients>> CustomOp1 for Node<B> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.cpu()
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        self.cuda()
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        Ok(up_to_three((self.backward)(gradient)?).0)
    }
}

impl<B: Fn(&Tensor) -> Result<Gradients>> CustomOp2 for Node<B> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.cpu()
    }

    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.cuda()
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Two> {
        let (a, b, _) = up_to_three((self.backward)(gradient)?);
        Ok((a, b))
    }
}

impl<B: Fn(&Tensor) -> Result<Gradients>> CustomOp3 for Node<B> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.cpu()
    }

    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.cuda()
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, _: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Three> {
        Ok(up_to_three((self.backward)(gradient)?))
    }
}
