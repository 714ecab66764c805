//! Import of networks from other programs: ONNX files, which can be run and trained further.
//!
//! ```no_run
//! use layerfn::{import::Onnx, prelude::*};
//!
//! let model = Onnx::open("resnet18.onnx")?.model()?;
//! let x = Tensor::zeros((1, 3, 224, 224), DType::F32, &Device::Cpu)?;
//! let y = model.forward_t(&[x.clone()], false)?;
//!
//! // With its parameters under the names that the file has, and written for NNabla.
//! model.freeze("layer1.**")?;
//! model.export_nnp("resnet18.nnp", [&x])?;
//! # Ok::<(), layerfn::Error>(())
//! ```
//!
//! The supported operators are those that exporters write for convolutional networks and Transformers, and
//! those that [`export_onnx`](crate::Model::export_onnx) writes; any other operator is an error that lists the
//! supported ones. Files are not trusted: a file that is damaged, contradicts itself or refers to files outside
//! of its folder is an error.

mod call;
mod constants;
mod layers;
mod maps;
mod network;
mod normalizations;
mod quantized;
mod recurrent;
mod shapes;

use std::path::Path;
use std::sync::Arc;

use network::Plan;

use crate::checkpoint;
use crate::network::BoxedMany;
use crate::{Error, Model, Network, ParameterStore, Result, onnx};

/// A network of an ONNX file.
#[derive(Clone)]
pub struct Onnx {
    plan: Arc<Plan>,
}

impl std::fmt::Debug for Onnx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Onnx")
            .field("inputs", &self.inputs().collect::<Vec<_>>())
            .field("outputs", &self.outputs().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

impl Onnx {
    /// Reads the file `path`; constants may be in other files of its folder.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Checkpoint`] if the file is damaged, has an unsupported operator, or uses a
    /// value before it is computed.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let bytes = checkpoint::read_file(path)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Self::read(&bytes, Some(folder), &path.display().to_string())
    }

    /// Reads a file from memory.
    ///
    /// # Errors
    /// As [`open`](Self::open), and if constants are in other files.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        Self::read(bytes, None, "a stream")
    }

    fn read(bytes: &[u8], folder: Option<&Path>, file: &str) -> Result<Self> {
        let fault = |reason: String| Error::Checkpoint { file: file.to_owned(), reason };
        let model = <onnx::Model as prost::Message>::decode(bytes)
            .map_err(|error| fault(format!("is not an ONNX file: {error}")))?;
        let plan = Plan::new(model, folder, file).map_err(|error| match error {
            Error::Checkpoint { .. } | Error::Io { .. } => error,
            other => fault(other.to_string()),
        })?;
        Ok(Self { plan: Arc::new(plan) })
    }

    /// The names of the inputs, in the order in which the model takes them.
    pub fn inputs(&self) -> impl Iterator<Item = &str> {
        self.plan.inputs.iter().map(|input| input.name.as_str())
    }

    /// The names of the outputs, in the order in which the model returns them.
    pub fn outputs(&self) -> impl Iterator<Item = &str> {
        self.plan.outputs.iter().map(|output| output.0.as_str())
    }

    /// Makes a model with its own parameters: the floating-point constants of the file, under their names.
    /// Those of quantized layers and the statistics of batch normalization are not trained.
    ///
    /// # Errors
    /// [`Error::PathConflict`] if one name is a prefix of another.
    pub fn model(&self) -> Result<Model<BoxedMany, 0>> {
        let store = ParameterStore::with_seed(ParameterStore::current().seed());
        store.enter(|| self.plan.parameters())?;
        let plan = Arc::clone(&self.plan);
        let examples = plan.inputs.iter().map(|input| input.dims.clone().into()).collect();
        Ok(Model::of_network(Network::of_many(move |inputs| plan.run(inputs)), store, examples))
    }
}
