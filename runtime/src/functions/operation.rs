//! Custom operations in candle's graph, with any number of arguments.

use candle_core::{CpuStorage, CudaStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor};

/// Gradients of arguments; `None` for an argument that needs none.
pub(super) type Gradients = Vec<Option<Tensor>>;

/// An operation whose result is already computed, as candle sees it.
pub(super) trait Operation: Send + Sync + 'static {
    fn name(&self) -> &'static str;

    /// The result on the CPU; called once.
    fn on_cpu(&self) -> Result<(CpuStorage, Shape)>;

    /// The result on a GPU; called once.
    fn on_cuda(&self) -> Result<(CudaStorage, Shape)> {
        candle_core::bail!("the result of `{}` is on the CPU, its inputs are on a GPU", self.name())
    }

    /// The gradients of the arguments, of which there are `n`, from that of the result.
    fn backward(&self, gradient: &Tensor, n: usize) -> Result<Gradients>;
}

/// Maximum number of arguments of candle's operations.
pub(super) const MAX_ARGUMENTS: usize = 3;

/// The result of `operation` on one to [`MAX_ARGUMENTS`] arguments.
pub(super) fn apply(operation: impl Operation, arguments: &[&Tensor]) -> Result<Tensor> {
    match arguments {
        [a] => a.apply_op1(Custom(operation)),
        [a, b] => a.apply_op2(b, Custom(operation)),
        [a, b, c] => a.apply_op3(b, c, Custom(operation)),
        _ => candle_core::bail!("`{}` has {} arguments", operation.name(), arguments.len()),
    }
}

/// For candle, which has a trait for each number of arguments.
struct Custom<O>(O);

macro_rules! custom {
    ($Trait:ident, $n:literal, $(($storage:ident $layout:ident $argument:ident)),+; $($gradient:ident),+; $Gradients:ty) => {
        impl<O: Operation> $Trait for Custom<O> {
            fn name(&self) -> &'static str {
                self.0.name()
            }

            fn cpu_fwd(&self, $($storage: &CpuStorage, $layout: &Layout),+) -> Result<(CpuStorage, Shape)> {
                self.0.on_cpu()
            }

            fn cuda_fwd(&self, $($storage: &CudaStorage, $layout: &Layout),+) -> Result<(CudaStorage, Shape)> {
                self.0.on_cuda()
            }

            fn bwd(&self, $($argument: &Tensor,)+ _: &Tensor, gradient: &Tensor) -> Result<$Gradients> {
                let mut gradients = self.0.backward(gradient, $n)?.into_iter();
                $(let $gradient = gradients.next().flatten();)+
                Ok(($($gradient),+))
            }
        }
    };
}

type Gradient = Option<Tensor>;
custom!(CustomOp1, 1, (_s _l _t); a; Gradient);
custom!(CustomOp2, 2, (_s _l _t), (_s2 _l2 _t2); a, b; (Gradient, Gradient));
custom!(CustomOp3, 3, (_s _l _t), (_s2 _l2 _t2), (_s3 _l3 _t3); a, b, c; (Gradient, Gradient, Gradient));
