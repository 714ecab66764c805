//! Networks of a file, from which models are made.

use std::fmt;
use std::sync::Arc;

use super::graph::Graph;
use super::run::{FirstValues, Plan};
use crate::network::BoxedMany;
use crate::{Model, Network, ParameterStore, Result};

/// A model of a network from a file: it takes and returns any number of tensors.
pub type GraphModel = Model<BoxedMany, 0>;

/// A network of a file; made by [`Nnp::network`](super::Nnp::network).
#[derive(Clone)]
pub struct NnpNetwork {
    name: String,
    graph: Arc<Graph>,
    initial: Arc<FirstValues>,
    batch_size: Option<usize>,
}

impl fmt::Debug for NnpNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NnpNetwork")
            .field("name", &self.name)
            .field("inputs", &self.inputs().collect::<Vec<_>>())
            .field("outputs", &self.outputs().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

impl NnpNetwork {
    pub(super) fn new(name: &str, graph: &Arc<Graph>, initial: &Arc<FirstValues>) -> Self {
        let (graph, initial) = (Arc::clone(graph), Arc::clone(initial));
        Self { name: name.to_owned(), graph, initial, batch_size: None }
    }

    /// The name in the file.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The names of the inputs, in the order in which the model takes them: variables that are not the output
    /// of a function.
    pub fn inputs(&self) -> impl Iterator<Item = &str> {
        self.graph.inputs.iter().map(|&input| self.graph.values[input].name.as_str())
    }

    /// The names of the outputs, in the order in which the model returns them: variables that no function
    /// takes.
    pub fn outputs(&self) -> impl Iterator<Item = &str> {
        self.graph.outputs.iter().map(|&output| self.graph.values[output].name.as_str())
    }

    /// Sets the size of the batch, which the inputs must have. Without it, they may have any size, and a
    /// network whose inputs have no batch axis uses the size in the file.
    #[must_use]
    pub fn batch_size(self, size: usize) -> Self {
        Self { batch_size: Some(size), ..self }
    }

    /// Makes a model with its own parameters: those of the file, and for missing ones the initial values that
    /// the file declares, which follow from the seed of the current store.
    ///
    /// All parameters are trained except those that functions write, such as running statistics, and those that
    /// the file declares as not trained. The functions behave as in the file, in training and in test mode:
    /// `batch_stat` of batch normalization, for example, comes from the file.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if a parameter of the file does not have the shape that the
    /// network declares.
    pub fn model(&self) -> Result<GraphModel> {
        let outputs = self.graph.outputs.clone();
        model(&Arc::new(Plan::new(&self.graph, outputs, self.batch_size, &self.initial)))
    }
}

/// A model of what the plan computes.
pub(super) fn model(plan: &Arc<Plan>) -> Result<GraphModel> {
    let store = plan.store(ParameterStore::current().seed())?;
    let batch = plan.declared_batch().max(1);
    let examples = plan.values(&plan.inputs).map(|value| {
        let dims = value
            .sizes
            .iter()
            .map(|&size| usize::try_from(size).ok().filter(|&size| size > 0).unwrap_or(batch));
        dims.collect::<Vec<_>>().into()
    });
    let examples = examples.collect();
    let plan = Arc::clone(plan);
    Ok(Model::of_network(Network::of_many(move |inputs| plan.run(inputs)), store, examples))
}
