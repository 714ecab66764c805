//! NNabla's networks: files with whole networks, which can be run, trained further and saved again.
//!
//! [`Nnp`] opens an `.nnp`, or the `.nntxt`, `.prototxt` or `.protobuf` that NNabla writes without an archive.
//! Its networks run by [`Nnp::executor`], or as a [`Model`](crate::Model) by [`Nnp::network`]:
//!
//! ```no_run
//! use layerfn::{nnp::Nnp, prelude::*, solver::Sgd};
//!
//! let mut file = Nnp::open("mnist.nnp")?;
//! let x = Tensor::zeros((16, 1, 28, 28), DType::F32, &Device::Cpu)?;
//! let labels = Tensor::zeros((16, 1), DType::U32, &Device::Cpu)?;
//!
//! // As NNabla runs it.
//! let y = file.executor("runtime")?.run(&[x.clone()])?;
//!
//! // Trained further.
//! let model = file.network("training")?.model()?;
//! model.freeze("conv1/**")?;
//! let mut solver = Sgd::new(0.01);
//! solver.set_parameters(&model.parameters());
//! let loss = &model.forward(&[x, labels])?[0];
//! solver.update(&backward(&loss.mean_all()?)?)?;
//!
//! // With its other sections as they were.
//! file.update(model.store())?;
//! file.save("tuned.nnp")?;
//! # Ok::<(), layerfn::Error>(())
//! ```
//!
//! Paths are NNabla's: `conv1/conv/W`, and `block[2]/affine/W` inside a loop. Loops are unrolled.
//!
//! Files are not trusted: a file that is damaged, contradicts itself or needs too much memory is an error. If
//! this library does not have the type of a function, the error names it and lists the known ones.

mod declare;
mod executor;
mod graph;
mod initial;
mod kinds;
mod network;
mod run;
mod unroll;

use std::path::Path;
use std::sync::Arc;

pub use executor::Executor;
pub use network::{GraphModel, NnpNetwork};

use crate::checkpoint::definition::{self, Message};
use crate::checkpoint::{Checkpoint, Entry, Format};
use crate::limits::brief;
use crate::{Error, ParameterStore, Result, nearest};
use graph::Graph;
use initial::Initial;
use run::FirstValues;

/// The reason why a network cannot run, as a sentence without its file.
#[derive(Debug)]
struct Fault(String);

impl Fault {
    fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }

    fn of_function(self, name: &str, of: &str) -> Self {
        Self(format!("`{}` ({}) {}", brief(name), brief(of), self.0))
    }

    fn within(self, what: &str, name: &str, file: &str) -> Error {
        let reason = format!("the {what} `{}`: {}", brief(name), self.0);
        Error::Checkpoint { file: file.to_owned(), reason }
    }
}

/// A file of networks, executors and parameters.
#[derive(Debug)]
pub struct Nnp {
    definition: Message,
    parameters: Checkpoint,
    initial: Arc<FirstValues>,
}

impl Nnp {
    /// Reads the file `path`: an `.nnp`, `.nntxt`, `.prototxt` or `.protobuf`.
    ///
    /// # Errors
    /// [`Error::UnknownExtension`], [`Error::Io`], or [`Error::Checkpoint`] if the file is damaged or has
    /// content that is in no version of NNabla's format.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let definition = definition::open(path)?;
        Ok(Self::new(definition, Checkpoint::open(path)?))
    }

    /// Reads several files as if they were the members of one archive: a definition and the `.h5` of its parameters, for example.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_all<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) -> Result<Self> {
        let mut definition = Message::named("NNablaProtoBuf");
        let mut parameters: Option<Checkpoint> = None;
        for path in paths {
            let path = path.as_ref();
            if matches!(Format::from_path(path)?, Format::Nnp | Format::Text | Format::Protobuf) {
                definition.merge(definition::open(path)?);
            }
            let more = Checkpoint::open(path)?;
            parameters = Some(match parameters {
                Some(before) => before.and(more)?,
                None => more,
            });
        }
        let parameters = parameters.ok_or_else(|| Error::invalid("paths", "must name a file", "none"))?;
        Ok(Self::new(definition, parameters))
    }

    /// Reads a file from memory.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_bytes(format: Format, bytes: &[u8]) -> Result<Self> {
        Ok(Self::new(definition::from_bytes(format, bytes)?, Checkpoint::from_bytes(format, bytes)?))
    }

    fn new(definition: Message, parameters: Checkpoint) -> Self {
        let initial = first_values(&parameters);
        Self { definition, parameters, initial }
    }

    /// The names of the networks, in the order of the file.
    pub fn networks(&self) -> impl Iterator<Item = &str> {
        self.definition.messages("network").map(|network| network.text("name"))
    }

    /// The names of the executors, in the order of the file.
    pub fn executors(&self) -> impl Iterator<Item = &str> {
        self.definition.messages("executor").map(|executor| executor.text("name"))
    }

    /// The name of the network that the executor `name` runs.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if there is no such executor.
    pub fn network_of(&self, name: &str) -> Result<&str> {
        Ok(self.find("executor", name)?.text("network_name"))
    }

    /// The parameters of the file.
    #[must_use]
    pub fn parameters(&self) -> &Checkpoint {
        &self.parameters
    }

    /// The network `name`.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if there is none, or if it cannot run: a function of an unknown type, an
    /// undeclared variable, a cycle.
    pub fn network(&self, name: &str) -> Result<NnpNetwork> {
        Ok(NnpNetwork::new(name, &Arc::new(self.graph(name)?), &self.initial))
    }

    /// The executor `name`, for batches of any size, which the data determine.
    ///
    /// # Errors
    /// As [`network`](Self::network), and if it names variables that its network does not have.
    pub fn executor(&self, name: &str) -> Result<Executor> {
        self.executor_of(name, None)
    }

    /// As [`executor`](Self::executor), but only for batches of this size.
    ///
    /// # Errors
    /// As [`executor`](Self::executor).
    pub fn executor_with_batch_size(&self, name: &str, batch_size: usize) -> Result<Executor> {
        self.executor_of(name, Some(batch_size))
    }

    /// Generates Rust code that declares the network `name` with [`network!`](crate::network): a module with a
    /// function from the inputs to the outputs of the network, whose parameters have the same paths as in the
    /// file.
    ///
    /// Sums and products of branches, residual blocks and sequences of equal blocks are recognized. The
    /// functions behave as in the file, in training and in test mode, except for dropout, which the declared
    /// network applies in training.
    ///
    /// # Errors
    /// As [`network`](Self::network), and for functions that cannot be declared.
    pub fn declare(&self, name: &str) -> Result<String> {
        let file = self.parameters.origin();
        let definition = self.find("network", name)?;
        let short = Path::new(file).file_name().and_then(|name| name.to_str()).unwrap_or(file);
        declare::declare(definition, short).map_err(|fault| fault.within("network", name, file))
    }

    /// Adds the values of a store, such as [`model.store()`](crate::Model::store), or replaces those of the
    /// same path in the file. Networks and executors that are made from now on use them, and
    /// [`save`](Self::save) writes them.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if one has another shape here. Nothing is changed then.
    pub fn update(&mut self, store: &ParameterStore) -> Result<()> {
        self.parameters.replace(&store.parameters())?;
        self.initial = first_values(&self.parameters);
        Ok(())
    }

    /// Writes an `.nnp`, or an `.nntxt` or `.prototxt` that includes the parameters. Networks, executors,
    /// optimizers, data sets, monitors and configurations are unchanged, and other content of an archive, such
    /// as the states of solvers, is kept.
    ///
    /// # Errors
    /// As [`Checkpoint::save`]; [`Error::Checkpoint`] for other formats.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        self.parameters.save_with_definition(path.as_ref(), &definition::to_text(&self.definition))
    }

    fn executor_of(&self, name: &str, batch_size: Option<usize>) -> Result<Executor> {
        let definition = self.find("executor", name)?;
        let graph = Arc::new(self.graph(definition.text("network_name"))?);
        let setup = executor::Setup::new(definition, &graph, &self.initial, batch_size)
            .map_err(|fault| fault.within("executor", name, self.parameters.origin()))?;
        Executor::new(setup)
    }

    fn graph(&self, name: &str) -> Result<Graph> {
        let definition = self.find("network", name)?;
        Graph::new(definition).map_err(|fault| fault.within("network", name, self.parameters.origin()))
    }

    fn find(&self, kind: &'static str, name: &str) -> Result<&Message> {
        let found = self.definition.messages(kind).find(|message| message.text("name") == name);
        found.ok_or_else(|| {
            let names: Vec<_> = self.definition.messages(kind).map(|message| message.text("name")).collect();
            let meant = nearest::nearest(name, names.iter().copied());
            let meant = meant.map(|name| format!("; did you mean `{}`?", brief(&name))).unwrap_or_default();
            let names: Vec<_> = names.iter().take(20).map(|name| brief(name)).collect();
            Error::Checkpoint {
                file: self.parameters.origin().to_owned(),
                reason: format!("has no {kind} `{}`, but {names:?}{meant}", brief(name)),
            }
        })
    }
}

fn first_values(parameters: &Checkpoint) -> Arc<FirstValues> {
    let entry = |entry: &Entry| (entry.path().to_owned(), (entry.tensor().clone(), entry.need_grad()));
    Arc::new(parameters.entries().iter().map(entry).collect())
}
