//! Records a run of a network: which stages ran, on which inputs, with which parameters, and for how long.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::panic::Location;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CudaStorage, CustomOp1, DType, Layout, Shape, Tensor, TensorId};

use super::Value;
use crate::run::Observer;
use crate::{LayerInfo, Parameter, ParameterStore, Result};

/// Kind of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A layer, function or closure.
    Call,
    /// Labelled braces.
    Block,
    /// `add { .. }` and its like; its children are branches.
    Join,
    Branch,
}

/// An input or output tensor.
#[derive(Clone, Debug)]
pub(super) struct Port {
    pub(super) id: TensorId,
    pub(super) dims: Vec<usize>,
    pub(super) dtype: DType,
    /// Whether gradients can flow through it.
    pub(super) tracked: bool,
    /// Its value, if [`Watch::Values`] asks for it.
    pub(super) value: Option<Tensor>,
}

/// A parameter that a stage took.
#[derive(Clone, Debug)]
pub(super) struct Taken {
    pub(super) path: String,
    pub(super) parameter: Parameter,
    /// Whether the stage took it for training: not if it is frozen, or taken without gradient.
    pub(super) trained: bool,
    /// Whether it is frozen: by a label around the stage, or in the store.
    pub(super) frozen: bool,
}

/// A stage that ran.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) kind: Kind,
    /// Scope path of the stage; of its layer, if it is one.
    pub(super) path: String,
    /// The function as written; the label of a block.
    pub(super) name: String,
    /// Where it is written; unknown for branches and for networks from files.
    pub(super) at: Option<&'static Location<'static>>,
    /// Whether the last part of the scope is the stage's own name.
    pub(super) labelled: bool,
    /// Whether its own label freezes it.
    pub(super) frozen: bool,
    pub(super) layer: Option<&'static LayerInfo>,
    pub(super) parent: Option<usize>,
    pub(super) children: Vec<usize>,
    pub(super) inputs: Vec<Port>,
    pub(super) outputs: Vec<Port>,
    pub(super) taken: Vec<Taken>,
    /// The arguments given by the layer's caller.
    pub(super) arguments: Vec<(&'static str, String)>,
    /// Multiply-adds of the layers that declare them.
    pub(super) multiply_adds: u64,
    /// Whether a layer in the stage does not declare its multiply-adds.
    pub(super) more_multiply_adds: bool,
    /// Number of stages that returned before it.
    pub(super) returned: usize,
    /// Time until the stage returned, without the cost of recording.
    pub(super) own: Duration,
    /// Time until the stage ended.
    total: Duration,
}

impl Node {
    /// The display name of the stage.
    pub(super) fn layer_name(&self) -> String {
        self.layer.map_or_else(|| self.name.clone(), |info| info.name.to_owned())
    }

    /// Whether the stage does work itself; blocks, branches and functions that only run other stages do not.
    pub(super) fn is_row(&self) -> bool {
        match self.kind {
            Kind::Block | Kind::Branch => false,
            Kind::Join => self.name != "tuple",
            Kind::Call => self.children.is_empty() || !self.taken.is_empty(),
        }
    }

    /// Bytes of its outputs.
    pub(super) fn bytes(&self) -> u64 {
        let port_bytes =
            |port: &Port| (port.dims.iter().product::<usize>() * port.dtype.size_in_bytes()) as u64;
        self.outputs.iter().map(port_bytes).sum()
    }

    /// Time spent in the stage, but not in the stages inside it; `nodes` has all stages.
    pub(super) fn time(&self, nodes: &[Self]) -> Duration {
        self.own.saturating_sub(self.children.iter().map(|&child| nodes[child].total).sum())
    }
}

/// The nodes that have rows, in the order in which they returned.
pub(super) fn rows(nodes: &[Node]) -> Vec<(usize, &Node)> {
    let mut rows: Vec<_> = nodes.iter().enumerate().filter(|(_, node)| node.is_row()).collect();
    rows.sort_by_key(|(_, node)| node.returned);
    rows
}

/// What a probe saw in the backward pass.
#[derive(Clone, Debug)]
pub(super) struct Passed {
    pub(super) node: usize,
    pub(super) at: Instant,
    pub(super) gradient: Option<Tensor>,
}

/// Whether the outputs of stages are watched in the backward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Watch {
    Nothing,
    Time,
    Gradients,
    /// Gradients, and the inputs and outputs of each stage.
    Values,
}

pub(super) struct Recorder {
    state: Mutex<State>,
    /// The thread that started the run; stages on other threads belong to the stage that is open there.
    home: ThreadId,
    watch: Watch,
    passed: Arc<Mutex<Vec<Passed>>>,
}

#[derive(Default)]
struct State {
    nodes: Vec<Node>,
    threads: HashMap<ThreadId, Open>,
    n_returned: usize,
}

/// The open nodes of a thread.
#[derive(Default)]
struct Open {
    nodes: Vec<(usize, Instant)>,
    layers: Vec<OpenLayer>,
}

/// A layer that runs.
struct OpenLayer {
    info: &'static LayerInfo,
    multiply_adds: Option<u64>,
    takes_parameters: bool,
    /// Whether there are inner layers, which declare their own.
    has_inner: bool,
}

impl State {
    fn here(&mut self) -> &mut Open {
        self.threads.entry(thread::current().id()).or_default()
    }

    /// The open nodes around the current position, the innermost first.
    fn around(&self, home: ThreadId) -> impl Iterator<Item = usize> {
        let here = thread::current().id();
        let threads = [Some(here), Some(home).filter(|home| *home != here)].into_iter().flatten();
        threads
            .filter_map(|thread| self.threads.get(&thread))
            .flat_map(|open| open.nodes.iter().rev().map(|&(index, _)| index))
    }

    fn innermost(&self, home: ThreadId) -> Option<usize> {
        self.around(home).next()
    }

    fn returned(&mut self, index: usize) {
        if self.nodes[index].returned == usize::MAX {
            self.nodes[index].returned = self.n_returned;
            self.n_returned += 1;
        }
    }
}

impl Recorder {
    pub(super) fn new(watch: Watch) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            home: thread::current().id(),
            watch,
            passed: Arc::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The nodes; from the second use of a path on, a number is appended: `residual#2`.
    pub(super) fn nodes(&self) -> Vec<Node> {
        let mut nodes = self.state().nodes.clone();
        let mut times = HashMap::<String, usize>::new();
        let mut in_order: Vec<_> = nodes.iter_mut().filter(|node| node.is_row()).collect();
        in_order.sort_by_key(|node| node.returned);
        for node in in_order {
            let n = times.entry(node.path.clone()).or_default();
            *n += 1;
            if *n > 1 {
                let _ = write!(node.path, "#{n}");
            }
        }
        nodes
    }

    /// The nodes, where parameters that are not trained or are frozen in `store` are marked as such.
    pub(super) fn nodes_in(&self, store: &ParameterStore) -> Vec<Node> {
        let mut nodes = self.nodes();
        for taken in nodes.iter_mut().flat_map(|node| &mut node.taken) {
            if let Some(parameter) = store.get(&taken.path) {
                taken.trained &= parameter.need_grad();
                taken.frozen |= parameter.is_frozen();
                if parameter.var().dims() == taken.parameter.var().dims() {
                    taken.parameter = parameter;
                }
            }
        }
        nodes
    }

    pub(super) fn passed(&self) -> Vec<Passed> {
        self.passed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn begin(
        &self,
        kind: Kind,
        path: String,
        name: &str,
        labelled: bool,
        at: Option<&'static Location<'static>>,
        input: Option<&dyn Value>,
    ) -> usize {
        let mut state = self.state();
        let index = state.nodes.len();
        let parent = state.innermost(self.home);
        if let Some(parent) = parent {
            state.nodes[parent].children.push(index);
        }
        state.nodes.push(Node {
            kind,
            path,
            name: name.to_owned(),
            at,
            labelled,
            frozen: false,
            layer: None,
            parent,
            children: Vec::new(),
            inputs: input.map(|input| self.ports(input)).unwrap_or_default(),
            outputs: Vec::new(),
            taken: Vec::new(),
            arguments: Vec::new(),
            multiply_adds: 0,
            more_multiply_adds: false,
            returned: usize::MAX,
            own: Duration::ZERO,
            total: Duration::ZERO,
        });
        state.here().nodes.push((index, Instant::now()));
        index
    }

    /// Notes that the node's label freezes it.
    pub(super) fn freeze(&self, index: usize) {
        self.state().nodes[index].frozen = true;
    }

    /// Ends the node and all open nodes inside it, as after an error.
    pub(super) fn end(&self, index: usize) {
        let mut state = self.state();
        while let Some((open, since)) = state.here().nodes.pop() {
            let total = since.elapsed();
            state.nodes[open].total = total;
            if state.nodes[open].own.is_zero() {
                state.nodes[open].own = total;
            }
            state.returned(open);
            if open == index {
                break;
            }
        }
    }

    /// Records the output of the stage, and watches it.
    pub(super) fn returns<V: Value>(&self, index: usize, value: V) -> Result<V> {
        {
            let mut state = self.state();
            let open = &state.here().nodes;
            let since = open.iter().find(|(open, _)| *open == index).map(|&(_, since)| since);
            state.nodes[index].own = since.map(|since| since.elapsed()).unwrap_or_default();
            state.returned(index);
        }
        let value = if self.watch == Watch::Nothing {
            value
        } else {
            value.map(&mut |tensor| self.watched(index, tensor))?
        };
        let outputs = self.ports(&value);
        self.state().nodes[index].outputs = outputs;
        Ok(value)
    }

    fn ports<V: Value + ?Sized>(&self, value: &V) -> Vec<Port> {
        let mut ports = Vec::new();
        value.each(&mut |tensor| {
            ports.push(Port {
                id: tensor.id(),
                dims: tensor.dims().to_vec(),
                dtype: tensor.dtype(),
                tracked: tensor.track_op(),
                value: (self.watch == Watch::Values).then(|| tensor.detach()),
            });
        });
        ports
    }

    fn watched(&self, node: usize, tensor: Tensor) -> Result<Tensor> {
        if !tensor.track_op() || !tensor.dtype().is_float() {
            return Ok(tensor);
        }
        let at_start = tensor.layout().is_contiguous() && tensor.layout().start_offset() == 0;
        let tensor = if at_start { tensor } else { tensor.force_contiguous()? };
        let keep = matches!(self.watch, Watch::Gradients | Watch::Values);
        Ok(tensor.apply_op1(Probe { node, keep, passed: Arc::clone(&self.passed) })?)
    }
}

impl Observer for Recorder {
    fn layer_begins(&self, path: &str, info: &'static LayerInfo, outermost: bool) {
        let mut state = self.state();
        let layers = &mut state.here().layers;
        if let Some(outer) = layers.last_mut() {
            outer.has_inner = true;
        }
        layers.push(OpenLayer { info, multiply_adds: None, takes_parameters: false, has_inner: false });
        if let (true, Some(index)) = (outermost, state.innermost(self.home)) {
            let node = &mut state.nodes[index];
            if node.layer.is_none() && node.kind == Kind::Call {
                node.layer = Some(info);
                if !info.scope.is_empty() {
                    path.clone_into(&mut node.path);
                }
            }
        }
    }

    fn layer_has_arguments(&self, arguments: Vec<(&'static str, String)>) {
        let mut state = self.state();
        let info = state.here().layers.last().map(|layer| layer.info);
        if let Some(index) = state.innermost(self.home) {
            let node = &mut state.nodes[index];
            let is_of_node = node.layer.zip(info).is_some_and(|(of_node, info)| std::ptr::eq(of_node, info));
            if is_of_node && node.arguments.is_empty() {
                node.arguments = arguments;
            }
        }
    }

    fn layer_multiplies(&self, multiply_adds: u64) {
        if let Some(layer) = self.state().here().layers.last_mut() {
            layer.multiply_adds = Some(multiply_adds);
        }
    }

    fn layer_ends(&self) {
        let mut state = self.state();
        if let (Some(layer), Some(index)) = (state.here().layers.pop(), state.innermost(self.home)) {
            let node = &mut state.nodes[index];
            match layer.multiply_adds {
                Some(n) => node.multiply_adds = node.multiply_adds.saturating_add(n),
                // The multiply-adds of a layer that consists of layers are those of its layers.
                None => node.more_multiply_adds |= layer.takes_parameters || !layer.has_inner,
            }
        }
    }

    fn takes_parameter(&self, path: &str, parameter: &Parameter, trained: bool) {
        let mut state = self.state();
        let in_layer = state.here().layers.last_mut().map(|layer| layer.takes_parameters = true).is_some();
        let frozen = parameter.is_frozen() || state.around(self.home).any(|open| state.nodes[open].frozen);
        if let Some(index) = state.innermost(self.home) {
            let node = &mut state.nodes[index];
            node.more_multiply_adds |= !in_layer;
            match node.taken.iter_mut().find(|other| other.path == path) {
                Some(again) => {
                    again.trained |= trained;
                    again.frozen &= frozen;
                }
                None => {
                    let (path, parameter) = (path.to_owned(), parameter.clone());
                    node.taken.push(Taken { path, parameter, trained, frozen });
                }
            }
        }
    }
}

/// The identity, which records when the gradient of a stage's output is known.
struct Probe {
    node: usize,
    keep: bool,
    passed: Arc<Mutex<Vec<Passed>>>,
}

impl CustomOp1 for Probe {
    fn name(&self) -> &'static str {
        "probe"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        Ok((storage.try_clone(layout)?, layout.shape().clone()))
    }

    fn cuda_fwd(&self, storage: &CudaStorage, layout: &Layout) -> candle_core::Result<(CudaStorage, Shape)> {
        Ok((storage.try_clone(layout)?, layout.shape().clone()))
    }

    fn bwd(&self, _x: &Tensor, _y: &Tensor, gradient: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let gradient = gradient.clone();
        let kept = self.keep.then(|| gradient.clone());
        let passed = Passed { node: self.node, at: Instant::now(), gradient: kept };
        self.passed.lock().unwrap_or_else(PoisonError::into_inner).push(passed);
        Ok(Some(gradient))
    }
}
