//! Functions that layers apply to their weights.

use std::fmt;
use std::sync::Arc;

use candle_core::Tensor;

use crate::{Error, Result};

/// A function that a layer applies to a weight or a bias before it computes with it, such as
/// [`weight_normalization`](fn@crate::weight_normalization) or [`spectral_norm`](fn@crate::spectral_norm).
///
/// Any closure from a tensor to one of the same shape can be used, with or without layers in it. Such layers
/// keep their parameters in scopes below that of the outer layer.
///
/// ```
/// use layerfn::prelude::*;
///
/// let x = Tensor::ones((1, 2), DType::F32, &Device::Cpu)?;
/// let halved = |w: &Tensor| Ok((w / 2.0)?);
/// let y = affine(&x, 1).w_init(|_: &[usize]| Ok(Tensor::new(&[[1f32], [3.0]], &Device::Cpu)?)).apply_w(halved).call()?;
/// assert_eq!(y.to_vec2::<f32>()?, [[2.0]]);
/// # Ok::<(), layerfn::Error>(())
/// ```
#[derive(Clone)]
pub struct WeightFn(Arc<Function>);

type Function = dyn Fn(&Tensor) -> Result<Tensor> + Send + Sync;

impl<F: Fn(&Tensor) -> Result<Tensor> + Send + Sync + 'static> From<F> for WeightFn {
    fn from(function: F) -> Self {
        Self(Arc::new(function))
    }
}

impl fmt::Debug for WeightFn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WeightFn(..)")
    }
}

impl WeightFn {
    /// Applies the function to `tensor`, if there is one; errors call it `argument`.
    pub(crate) fn apply(argument: &'static str, function: Option<&Self>, tensor: Tensor) -> Result<Tensor> {
        let Some(Self(function)) = function else { return Ok(tensor) };
        let result = function(&tensor)?;
        if result.dims() != tensor.dims() {
            let reason = format!("must keep the shape {:?}", tensor.dims());
            return Err(Error::invalid(argument, reason, result.dims()));
        }
        Ok(result)
    }
}
