//! Export of networks to other programs.
//!
//! [`Model::export_nnp`](crate::Model::export_nnp) writes the network and its parameters as an `.nnp` for
//! NNabla. It records a run on zeros in test mode: which functions the layers call, with which inputs,
//! arguments and parameters. So a network may consist of layers, of functions of
//! [`functions`](crate::functions), of views such as `x.narrow(..)` or `x.transpose(..)`, and of functions that
//! describe themselves with [`told`]. Anything else, such as a closure that computes with candle, is an error
//! that names the stage.
//!
//! ```
//! use layerfn::{nnp::Nnp, prelude::*};
//!
//! let model = network! { hidden: affine(16) -> relu -> out: affine(4) -> softmax(1) }.init((1, 8))?;
//! let path = std::env::temp_dir().join("layerfn_export.nnp");
//! model.export_nnp(&path, [(1, 8)])?;
//!
//! let x = Tensor::ones((3, 8), DType::F32, &Device::Cpu)?;
//! let y = Nnp::open(&path)?.executor("runtime")?.run(std::slice::from_ref(&x))?;
//! assert_eq!(y[0].to_vec2::<f32>()?, model.forward_t(&x, false)?.to_vec2::<f32>()?);
//! # Ok::<(), layerfn::Error>(())
//! ```

mod fold;
mod integers;
mod nnp;
mod onnx;
mod sizes;
mod trace;

use std::path::Path;

pub use self::integers::{QuantizedLayers, Range};
pub use crate::told::{Argument, Form, Told, listens, told};
use crate::{Example, ParameterStore, Result};
use candle_core::Tensor;
use integers::Integers;
use trace::Traced;

/// A network to be exported: its parameters, its inputs, and how it runs.
pub(crate) struct Source<'a> {
    pub(crate) store: &'a ParameterStore,
    pub(crate) inputs: Vec<Example>,
    pub(crate) forward: &'a dyn Fn(&[Tensor]) -> Result<Vec<Tensor>>,
}

impl Source<'_> {
    /// Writes the network as NNabla has it.
    pub(crate) fn to_nnp(&self, path: &Path) -> Result<()> {
        nnp::save(&Traced::new(self)?, self.store, path)
    }

    /// Writes the network as an ONNX file.
    pub(crate) fn to_onnx(&self, path: &Path) -> Result<()> {
        onnx::save(&Traced::new(self)?, None, path)
    }

    /// Writes the network as an ONNX file of integers.
    pub(crate) fn to_int8(
        &self,
        path: &Path,
        batches: impl IntoIterator<Item = Vec<Tensor>>,
        range: Range,
    ) -> Result<QuantizedLayers> {
        let (traced, integers) = Integers::new(self, batches, range)?;
        onnx::save(&traced, Some(&integers), path)?;
        Ok(integers.report)
    }
}
